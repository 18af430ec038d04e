//! Whoever leads in the newest epoch begins where a deletion was answered, or behind it (rule 15).

use crate::config::Config;
use crate::world::World;

pub(super) fn holds(config: &Config, world: &World) -> bool {
    let newest = world.record().leader_epoch;
    let leads = |leading: &crate::node::Leading| leading.core.epoch() == newest;
    let leaders = world.nodes.iter().filter(|node| node.leading().is_some_and(leads));
    // (A person may let one lead that was away.)
    config.beyond || leaders.into_iter().all(|node| node.disk.start >= world.deleted)
}
