//! All that was acknowledged is somewhere; in class fsync, on a disk.

use crate::config::Config;
use crate::world::World;

pub(super) fn holds(config: &Config, world: &World) -> bool {
    config.beyond || world.nodes.iter().any(|node| world.is_complete(node.safe(config)))
}
