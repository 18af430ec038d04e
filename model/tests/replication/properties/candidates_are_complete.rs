//! Everybody in the in-sync set, and everybody eligible, has all that was acknowledged (in class fsync: on its disk),
//! unless its disk has lost something since it registered, or unnoticed.

use crate::config::Config;
use crate::world::World;

pub(super) fn holds(config: &Config, world: &World) -> bool {
    let whole = world.candidates().filter(|node| !node.lost && !node.lacks_its_end);
    whole.into_iter().all(|node| world.is_complete(node.safe(config)))
}
