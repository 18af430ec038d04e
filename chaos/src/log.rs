//! What happened in a history, with its time, on the terminal and in the history's folder.

use std::fmt;
use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use tokio::time::Instant;

/// Where it is told. Cloning gives another handle to the same.
#[derive(Clone, Debug)]
pub(crate) struct Log {
    begun: Instant,
    file: Arc<File>,
}

impl Log {
    /// In `events` of this folder.
    pub(crate) fn new(folder: &Path) -> Result<Self> {
        let path = folder.join("events");
        let file = File::create(&path).with_context(|| format!("cannot make {}", path.display()))?;
        Ok(Self { begun: Instant::now(), file: Arc::new(file) })
    }

    /// One line.
    pub(crate) fn say(&self, what: impl fmt::Display) {
        let line = format!("{:9.3}  {what}", self.begun.elapsed().as_secs_f64());
        println!("{line}");
        // The terminal has it in any case.
        let _ = writeln!(&*self.file, "{line}");
    }
}
