//! All that was acknowledged is somewhere; in class fsync, on a disk.

use weir_types::Durability;

use crate::config::Config;
use crate::world::World;

pub(super) fn holds(config: &Config, world: &World) -> bool {
    config.beyond
        || world.nodes.iter().any(|node| {
            let safe = match config.durability {
                Durability::Fsync => node.disk.flushed,
                Durability::Replicated => node.disk.log.len(),
            };
            world.is_complete(&node.disk.log[..safe])
        })
}
