//! Whoever leads in the newest epoch has all that was ever acknowledged, unless it still waits for others who may have more.

use crate::config::Config;
use crate::world::World;

pub(super) fn holds(_: &Config, world: &World) -> bool {
    let newest = world.record().leader_epoch;
    let leads = |leading: &crate::node::Leading| leading.core.epoch() == newest && !leading.core.may_lack();
    world
        .nodes
        .iter()
        .filter(|node| node.leading().is_some_and(leads))
        .all(|node| world.is_complete(&node.disk.log))
}
