//! `cargo xtask ci`: what a change must pass before it lands.

use crate::steps::{Outcome, Steps};
use crate::{lint, model, sim, test};

/// The lints, and if they pass, the tests, the model and the simulation.
pub(crate) fn run(steps: &mut Steps) -> Result<Outcome, String> {
    if lint::run(steps)? == Outcome::Failed {
        eprintln!("\nthe tests were not run: mend the lints first");
        return Ok(Outcome::Failed);
    }
    let tested = test::run(steps, &[])?.and(model::run(steps, &[])?);
    Ok(tested.and(sim::ci(steps)?))
}
