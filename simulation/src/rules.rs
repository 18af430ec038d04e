//! Rules of the product that can be taken out, to see whether the simulation notices it: `--plant broker:LeaderIsAll`. Only
//! with the feature `mutants`, which `cargo xtask sim` builds with. All runs on one thread, so all of the cluster has the bug.

/// Takes out a rule by the names of its crate and of its mutant; whether there is such a one.
#[cfg(feature = "mutants")]
pub(crate) fn take_out(name: &str) -> bool {
    let Some((part, rule)) = name.split_once(':') else { return false };
    match part {
        "broker" => {
            let mutant = weir_broker::Mutant::named(rule);
            weir_broker::Mutant::plant(mutant);
            mutant.is_some()
        }
        "controller" => {
            let mutant = weir_controller::Mutant::named(rule);
            weir_controller::Mutant::plant(mutant);
            mutant.is_some()
        }
        "cluster" => {
            let mutant = weir_cluster::Mutant::named(rule);
            weir_cluster::Mutant::plant(mutant);
            mutant.is_some()
        }
        "metadata" => {
            let mutant = (rule == "ByProcess").then_some(weir_metadata::Mutant::ByProcess);
            weir_metadata::plant(mutant);
            mutant.is_some()
        }
        _ => false,
    }
}

/// There is none in this build.
#[cfg(not(feature = "mutants"))]
pub(crate) fn take_out(_name: &str) -> bool {
    false
}
