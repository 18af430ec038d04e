//! The `weir` program as it was built from this source.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::layering::Workspace;

/// Where the program is: in the folder that `TESTED_PROGRAMS` names (`cargo xtask test` has built it before everything
/// else), else built now, so that a single test run by hand never tries an old one. Either way by itself: among the tests'
/// crates it would be built with what only tests ask for, planted bugs among it.
///
/// # Errors
/// If it cannot be built.
pub fn weir() -> Result<PathBuf> {
    program("weir-cli", "weir")
}

/// Another program of this repository, in the same way.
///
/// # Errors
/// If it cannot be built.
pub fn program(package: &str, name: &str) -> Result<PathBuf> {
    let built = std::env::var_os("TESTED_PROGRAMS").map(|folder| PathBuf::from(folder).join(name));
    if let Some(built) = built.filter(|built| built.exists()) {
        return Ok(built);
    }
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
