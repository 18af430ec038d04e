//! Rules of the product that can be taken out, to see whether the simulation notices it: `--plant broker:LeaderIsAll`. Only
//! with the feature `mutants`, which `cargo xtask sim` builds with. All runs on one thread, so all of the cluster has the bug.

/// Takes out a rule by the names of its crate and of its mutant; whether there is such a one.
#[cfg(feature = "mutants")]
pub(crate) fn take_out(name: &str) -> bool {
    let Some((part, rule)) = name.split_once(':') else { return false };
    match part {
        "broker" => weir_broker::Mutant::plant_named(rule),
        "cluster" => weir_cluster::Mutant::plant_named(rule),
        "controller" => weir_controller::Mutant::plant_named(rule),
        "metadata" => weir_metadata::Mutant::plant_named(rule),
        "replication" => weir_replication::Mutant::plant_named(rule),
        "storage" => weir_storage::Mutant::plant_named(rule),
        _ => false,
    }
}

/// There is none in this build.
#[cfg(not(feature = "mutants"))]
pub(crate) fn take_out(_name: &str) -> bool {
    false
}
