//! Bugs that the simulation is given, because it must notice them.

/// A bug.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Plant {
    /// Of the simulated disks (`simulation/src/world.rs`), or CRATE:MUTANT, a rule of the product that is taken out
    /// (`simulation/src/rules.rs`).
    pub(super) name: &'static str,
    /// Where it is noticed.
    pub(super) scenario: &'static str,
    /// By one of so many seeds, from the first one on. Which one it is changes with everything that a run draws, so there
    /// are several times as many as it has ever taken: no more than that one are run.
    pub(super) seeds: u64,
}

const fn plant(name: &'static str, scenario: &'static str, seeds: u64) -> Plant {
    Plant { name, scenario, seeds }
}

/// All of them. Each change must notice every one.
pub(super) static PLANTS: [Plant; 16] = [
    plant("no-sync", "controllers", 20),
    plant("no-log-sync", "brokers", 100),
    plant("no-folder-sync", "controllers", 20),
    plant("broker:HalfKept", "brokers", 100),
    plant("broker:LeaderIsAll", "brokers", 100),
    plant("broker:MovedInSilence", "brokers", 200),
    plant("broker:OneMore", "brokers", 100),
    plant("broker:PositionUnchecked", "unclean", 200),
    plant("controller:EveryoneBegins", "controllers", 20),
    plant("controller:SnapshotUnsynced", "controllers", 100),
    plant("controller:Unwatched", "controllers", 500),
    plant("controller:VoteForgotten", "controllers", 100),
    plant("metadata:ByProcess", "controllers", 100),
    plant("metadata:ElrUnsaid", "rotten", 100),
    plant("metadata:RottenStays", "rotten", 100),
    plant("storage:MismatchEarly", "conditions", 100),
];

/// One, by its name.
pub(super) fn named(name: &str) -> Result<&'static Plant, String> {
    let names = || PLANTS.iter().map(|plant| plant.name).collect::<Vec<_>>().join(", ");
    PLANTS
        .iter()
        .find(|plant| plant.name == name)
        .ok_or_else(|| format!("there is no plant {name}: {}", names()))
}
