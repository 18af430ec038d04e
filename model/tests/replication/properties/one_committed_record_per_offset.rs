//! No two leaderships ever acknowledge different records at one offset.

use crate::config::Config;
use crate::world::World;

pub(super) fn holds(_: &Config, world: &World) -> bool {
    !world.contradiction
}
