//! `cargo xtask test`: the one command that passes all tests.

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
        nextest.arg("--workspace");
        // It is built together with the tests. (Not WEIR_something: those are settings of the program.)
        nextest.env("TESTED_WEIR", beside_this_program("weir")?);
    }
    nextest.args(args);
    Ok(outcome.and(steps.run("tests", &mut nextest)?))
}

/// A program in the folder that cargo has put this one into.
fn beside_this_program(name: &str) -> Result<PathBuf, String> {
    let this = std::env::current_exe().map_err(|e| format!("cannot find this program's folder: {e}"))?;
    Ok(this.with_file_name(name))
}
