//! The `weir` program as it was built from this source.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::layering::Workspace;

/// Where the program is: what `TESTED_WEIR` says (`cargo xtask test` has built it before everything else),
/// else built now, so that a single test run by hand never tries an old one. Either way by itself: among the tests'
/// crates it would be built with what only tests ask for, planted bugs among it.
///
/// # Errors
/// If it cannot be built.
pub fn weir() -> Result<PathBuf> {
    match std::env::var_os("TESTED_WEIR") {
        Some(path) => Ok(path.into()),
        None => program("weir-cli", "weir"),
    }
}

/// Another program of this repository, built now, by itself too.
///
/// # Errors
/// If it cannot be built.
pub fn program(package: &str, name: &str) -> Result<PathBuf> {
    let output = Command::new(env!("CARGO"))
        .args(["build", "--quiet", "--package", package, "--bin", name, "--message-format", "json"])
        .current_dir(Workspace::root())
        .output()
        .context("cannot start cargo build")?;
    ensure!(output.status.success(), "cannot build {name}: {}", String::from_utf8_lossy(&output.stderr));
    let said = String::from_utf8(output.stdout)?;
    let built = said.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let path = built.filter_map(|message| message.get("executable")?.as_str().map(PathBuf::from)).next_back();
    path.context("cargo build named no executable")
}
