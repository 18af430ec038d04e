//! `cargo xtask lint`: everything that is judged without running a test.

use crate::steps::{Outcome, Steps, cargo};
use crate::tools::Tools;

/// Runs all checks, also after one has failed: the next round should not bring news.
pub(crate) fn run(steps: &mut Steps) -> Result<Outcome, String> {
    let tools = Tools::fetch()?;
    let mut outcome = steps.run("rustfmt", cargo().args(["fmt", "--all", "--check"]))?;
    outcome = outcome.and(steps.run(
        "clippy",
        cargo().args(["clippy", "--locked", "--workspace", "--all-targets", "--", "-D", "warnings"]),
    )?);
    // Advisories are left out: they come from a network that is not everywhere.
    outcome = outcome.and(steps.run(
        "cargo-deny",
        tools.command("cargo-deny").args([
            "--locked",
            "check",
            "--hide-inclusion-graph",
            "bans",
            "licenses",
            "sources",
        ]),
    )?);
    outcome = outcome.and(steps.run("buf lint", tools.command("buf").arg("lint"))?);
    outcome =
        outcome.and(steps.run("buf format", tools.command("buf").args(["format", "--diff", "--exit-code"]))?);
    steps
        .run("buf breaking", tools.command("buf").args(["breaking", "--against", "proto/released.binpb"]))
        .map(|breaking| outcome.and(breaking))
}
