//! `cargo xtask test`: the one command that passes all tests.

use std::fs;
use std::path::PathBuf;

use crate::steps::{Outcome, Steps, cargo};
use crate::stubs;
use crate::tools::Tools;

/// Doc tests and the other languages' stubs first, then everything else; with arguments only what nextest selects by them.
///
/// nextest runs each test in a process of its own, so that one that hangs is ended by name (see
/// `.config/nextest.toml`) and one that dies does not take its neighbours along. It does not know doc tests:
/// cargo runs those.
pub(crate) fn run(steps: &mut Steps, args: &[String]) -> Result<Outcome, String> {
    let tools = Tools::fetch()?;
    let mut outcome = Outcome::Passed;
    if args.is_empty() {
        outcome =
            steps.run("doc tests", cargo().args(["test", "--locked", "--quiet", "--workspace", "--doc"]))?;
        outcome = outcome.and(stubs::run(steps, &[])?);
    }
    let mut nextest = tools.command("cargo-nextest");
    nextest.args(["nextest", "run", "--locked", "--no-fail-fast"]);
    if args.is_empty() {
        let Some(weir) = weir(steps)? else { return Ok(Outcome::Failed) };
        // (The model has a build of its own: it goes through millions of states.)
        nextest.args(["--workspace", "--exclude", "weir-model"]);
        // (Not WEIR_something: those are settings of the program.)
        nextest.env("TESTED_WEIR", weir);
    }
    nextest.args(args);
    Ok(outcome.and(steps.run("tests", &mut nextest)?))
}

/// Builds the program that the end-to-end tests try. `None`: it cannot be built, and cargo has said why.
///
/// By itself, as people build it: together with the tests it would be linked with a storage engine that bugs can be
/// planted in, because cargo builds each crate with what any member asks of it. It has a folder of its own, because
/// the tests' build puts its `weir` where this one was made. (Named with it, weir-tests asks for tokio's switch to
/// stop the clock, as the tests of most crates do: without it all that stands on tokio would be compiled twice.)
fn weir(steps: &mut Steps) -> Result<Option<PathBuf>, String> {
    let mut build = cargo();
    build.args([
        "build",
        "--locked",
        "--quiet",
        "--package",
        "weir-cli",
        "--package",
        "weir-tests",
        "--bin",
        "weir",
    ]);
    if steps.run("weir", &mut build)? != Outcome::Passed {
        return Ok(None);
    }
    let this = std::env::current_exe().map_err(|e| format!("cannot find this program's folder: {e}"))?;
    let folder = this.with_file_name("tested");
    let tested = folder.join("weir");
    fs::create_dir_all(&folder)
        .and_then(|()| fs::copy(this.with_file_name("weir"), &tested))
        .map_err(|e| format!("cannot copy weir to {}: {e}", tested.display()))?;
    Ok(Some(tested))
}
