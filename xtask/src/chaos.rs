//! `cargo xtask chaos`: histories of real processes in network namespaces (`chaos/`).

use std::path::Path;

use crate::steps::{Outcome, Steps, cargo};

/// What a change must pass: one short history of each scenario.
pub(crate) fn ci(steps: &mut Steps) -> Result<Outcome, String> {
    run(steps, &["--seconds", "10"].map(str::to_owned))
}

/// Builds the programs, and runs the histories: `args` are those of `weir-chaos`, and `--release`.
pub(crate) fn run(steps: &mut Steps, args: &[String]) -> Result<Outcome, String> {
    let release = args.iter().any(|arg| arg == "--release");
    let mut build = cargo();
    build.args(["build", "--locked", "--quiet", "--bins"]);
    // By themselves, as people build them: together with all tests they would be linked with what bugs can be planted in.
    build.args(["--package", "weir-chaos", "--package", "weir-broker", "--package", "weir-controller"]);
    build.args(release.then_some("--release"));
    if steps.run("real processes", &mut build)? != Outcome::Passed {
        return Ok(Outcome::Failed);
    }
    let this = std::env::current_exe().map_err(|e| format!("cannot find this program's folder: {e}"))?;
    let target = this.parent().and_then(Path::parent).ok_or("this program is in no target folder")?;
    let programs = target.join(if release { "release" } else { "debug" });
    let mut chaos = std::process::Command::new(programs.join("weir-chaos"));
    chaos.arg("--programs").arg(&programs).arg("--out").arg(target.join("chaos"));
    chaos.args(args.iter().filter(|arg| *arg != "--release"));
    steps.run("histories", &mut chaos)
}
