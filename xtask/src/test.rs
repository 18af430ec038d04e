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
        let Some(programs) = programs(steps)? else { return Ok(Outcome::Failed) };
        // (The model has a build of its own: it goes through millions of states.)
        nextest.args(["--workspace", "--exclude", "weir-model"]);
        // (Not WEIR_something: those are settings of the program.)
        nextest.env("TESTED_PROGRAMS", programs);
    }
    nextest.args(args);
    Ok(outcome.and(steps.run("tests", &mut nextest)?))
}

/// What the end-to-end tests try: packages and their programs.
const PROGRAMS: [(&str, &str); 3] =
    [("weir-cli", "weir"), ("weir-broker", "weir-broker"), ("weir-controller", "weir-controller")];

/// Builds the programs that the end-to-end tests try; the folder that they are in. `None`: they cannot be built, and cargo
/// has said why.
///
/// By themselves, as people build them: together with the tests they would be linked with a storage engine that bugs can be
/// planted in, because cargo builds each crate with what any member asks of it. Before the tests: the first of them that
/// starts a process would wait for minutes while it is built. They have a folder of their own, because the tests' build
/// puts its programs where these were made. (Named with them, weir-tests asks for tokio's switch to stop the clock, as the
/// tests of most crates do: without it all that stands on tokio would be compiled twice.)
fn programs(steps: &mut Steps) -> Result<Option<PathBuf>, String> {
    let mut build = cargo();
    build.args(["build", "--locked", "--quiet", "--package", "weir-tests"]);
    for (package, program) in PROGRAMS {
        build.args(["--package", package, "--bin", program]);
    }
    if steps.run("programs", &mut build)? != Outcome::Passed {
        return Ok(None);
    }
    let this = std::env::current_exe().map_err(|e| format!("cannot find this program's folder: {e}"))?;
    let folder = this.with_file_name("tested");
    fs::create_dir_all(&folder).map_err(|e| format!("cannot make {}: {e}", folder.display()))?;
    for (_, program) in PROGRAMS {
        fs::copy(this.with_file_name(program), folder.join(program))
            .map_err(|e| format!("cannot copy {program} to {}: {e}", folder.display()))?;
    }
    Ok(Some(folder))
}
