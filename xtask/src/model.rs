//! `cargo xtask model`: every state of small worlds, walks through large ones, and bugs that must be noticed.

use crate::steps::{Outcome, Steps, cargo};

/// What says how far to go; `model/` reads it.
const DEEP: &str = "WEIR_MODEL_DEEP";

/// Builds the model for speed, as the simulation is, and runs it. It says what it saw as it goes.
pub(crate) fn run(steps: &mut Steps, args: &[String]) -> Result<Outcome, String> {
    let mut model = cargo();
    model.args(["test", "--locked", "--quiet", "--profile", "sim", "--package", "weir-model"]);
    let deep = match args {
        [] => false,
        [deep] if deep == "--deep" => true,
        _ => return Err(format!("takes nothing but --deep, not {args:?}")),
    };
    model.args(["--", "--nocapture", "--test-threads=2"]);
    if deep {
        // Worlds that take minutes are no test that every change runs.
        model.env(DEEP, "1").arg("--include-ignored");
    }
    steps.run("model", &mut model)
}
