//! Everybody in the in-sync set, and everybody eligible, has all that was acknowledged (in class fsync: on its disk),
//! unless its disk has lost something since it registered.

use weir_types::Durability;

use crate::config::Config;
use crate::world::World;

pub(super) fn holds(config: &Config, world: &World) -> bool {
    world.candidates().filter(|node| !node.lost).all(|node| {
        let safe = match config.durability {
            Durability::Fsync => node.disk.flushed,
            Durability::Replicated => node.disk.log.len(),
        };
        world.is_complete(&node.disk.log[..safe])
    })
}
