//! `cargo xtask ci`: what a change must pass before it lands.

use crate::steps::{Outcome, Steps};
use crate::{chaos, lint, model, sim, test};

/// The lints, and if they pass, the tests, the model, the simulation and a few short histories of real processes.
pub(crate) fn run(steps: &mut Steps) -> Result<Outcome, String> {
    if lint::run(steps)? == Outcome::Failed {
        eprintln!("\nthe tests were not run: mend the lints first");
        return Ok(Outcome::Failed);
    }
    let tested = test::run(steps, &[])?.and(model::run(steps, &[])?);
    let simulated = sim::ci(steps)?;
    Ok(tested.and(simulated).and(chaos::ci(steps)?))
}
