//! What metadata itself promises of every image.

use crate::config::Config;
use crate::world::World;

pub(super) fn holds(_: &Config, world: &World) -> bool {
    world.controller.image.check().is_ok()
}
