//! A cluster of real processes that `weir dev` runs, and the command line beside it.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tempfile::TempDir;
use weir_runtime::testing::until;

use crate::binary;

/// A cluster, taken down at the end.
#[derive(Debug)]
pub struct Dev {
    weir: PathBuf,
    folder: TempDir,
}

impl Dev {
    /// Nothing runs yet.
    ///
    /// # Errors
    /// The program cannot be built.
    pub fn new() -> Result<Self> {
        Ok(Self { weir: binary::weir()?, folder: tempfile::tempdir()? })
    }

    /// A folder for whatever the test needs.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Where the cluster is.
    #[must_use]
    pub fn dir(&self) -> PathBuf {
        self.folder.path().join("cluster")
    }

    /// What a command says.
    ///
    /// # Errors
    /// It fails: with what it said, and how it ended.
    pub fn weir(&self, words: &[&str]) -> Result<String> {
        let settings = std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("WEIR_"));
        let mut command = Command::new(&self.weir);
        for (name, _) in settings {
            command.env_remove(name);
        }
        let output = command.args(words).env("HOME", self.folder.path()).output()?;
        let said =
            format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        ensure!(output.status.success(), "weir {}: {}: {said}", words.join(" "), output.status);
        Ok(said)
    }

    /// What a command says that has to fail, and how it ended.
    ///
    /// # Errors
    /// It does not fail.
    pub fn refused(&self, words: &[&str]) -> Result<String> {
        match self.weir(words) {
            Ok(said) => anyhow::bail!("weir {} was not refused: {said}", words.join(" ")),
            Err(error) => Ok(error.to_string()),
        }
    }

    /// The same of `weir dev` for this cluster.
    ///
    /// # Errors
    /// It fails.
    pub fn dev(&self, words: &[&str]) -> Result<String> {
        let dir = self.dir();
        let dir = dir.to_string_lossy();
        self.weir(&[&["dev"], words, &["--dir", &dir]].concat())
    }

    /// The nodes, as `weir dev status` has them.
    ///
    /// # Errors
    /// It fails.
    pub fn nodes(&self) -> Result<Vec<Value>> {
        let said = self.dev(&["status", "-o", "json"])?;
        said.lines().map(|line| Ok(serde_json::from_str(line)?)).collect()
    }

    /// A field of a node; empty if there is none.
    ///
    /// # Errors
    /// The nodes cannot be listed.
    pub fn of(&self, name: &str, field: &str) -> Result<String> {
        let node = self.nodes()?.into_iter().find(|node| text(node, "name") == name);
        Ok(node.map(|node| text(&node, field)).unwrap_or_default())
    }

    /// What a command of the broker says, tried until it is done: leaders may be on their way.
    ///
    /// # Errors
    /// The broker is not known.
    pub async fn until_done(&self, broker: &str, words: &[&str]) -> Result<String> {
        self.until_said(broker, words, "").await
    }

    /// The same until it says something.
    ///
    /// # Errors
    /// The broker is not known.
    pub async fn until_said(&self, broker: &str, words: &[&str], said: &str) -> Result<String> {
        let server = self.of(broker, "address")?;
        let mut last = None;
        let what = format!("weir {} says {said:?}", words.join(" "));
        until(&what, async || {
            last = self.weir(&[&["-s", &server], words].concat()).ok().filter(|last| last.contains(said));
            last.is_some()
        })
        .await;
        last.context(what)
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        if let Ok(nodes) = self.nodes() {
            let names: Vec<String> = nodes
                .iter()
                .filter(|node| text(node, "state") != "STOPPED")
                .map(|node| text(node, "name"))
                .collect();
            for name in names {
                let _ = self.dev(&["kill", &name]);
            }
        }
    }
}

/// A field of an object, as text.
#[must_use]
pub fn text(object: &Value, field: &str) -> String {
    match object.get(field) {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Null) | None => String::new(),
        Some(other) => other.to_string(),
    }
}
