//! `cargo xtask lint`: everything that is judged without running a test.

use crate::steps::{Outcome, Steps, cargo};
use crate::tools::Tools;

/// What may not break: see `proto_image`.
const RELEASED: &str = "proto/released.binpb";
/// For rows on disks only their bytes count, not what a program that is generated from them calls things. (The public
/// API is held to this too, and to more by buf.yaml.)
const STORED_RULES: &str = r#"{"version":"v2","modules":[{"path":"proto"}],"breaking":{"use":["WIRE"]}}"#;

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
    let breaking = || {
        let mut buf = tools.command("buf");
        buf.args(["breaking", "--against", RELEASED]);
        buf
    };
    outcome = outcome.and(steps.run("buf breaking", &mut breaking())?);
    steps
        .run("buf breaking, stored rows", breaking().args(["--config", STORED_RULES]))
        .map(|stored| outcome.and(stored))
}
