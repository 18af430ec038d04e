//! Runs a world through the checker, and says what it found.

use std::fmt::Write;

use stateright::{Checker, HasDiscoveries, Model};

use crate::config::Config;

/// What a run found.
pub(crate) struct Found {
    /// The properties that did not hold.
    pub(crate) properties: Vec<&'static str>,
    /// The steps to there, and how many states were looked at.
    pub(crate) trace: String,
}

/// Goes through every state of a world, breadth first and on one thread (so that it is the same each time), until something
/// does not hold. Says what it saw.
#[allow(clippy::disallowed_methods, reason = "says how long it took, and decides nothing by it")]
pub(crate) fn exhaust(name: &str, config: &Config) -> Option<Found> {
    let begun = std::time::SystemTime::now();
    let checker = config.clone().checker().finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join();
    let found = checker.discoveries();
    let properties = found.keys().copied().collect::<Vec<_>>();
    let found = found.into_iter().min_by_key(|(_, path)| path.clone().into_states().len());
    let (states, depth) = (checker.unique_state_count(), checker.max_depth());
    let took = begun.elapsed().unwrap_or_default();
    let said = format!("{name}: {states} states, {depth} steps deep, {:.1} s", took.as_secs_f64());
    eprintln!("{said}");
    found.map(|(property, path)| {
        let actions = path.into_actions();
        let mut trace = format!("{said}; after {} steps not: {property}", actions.len());
        for action in actions {
            let _ = write!(trace, "\n  {action:?}");
        }
        Found { properties, trace }
    })
}
