//! What metadata itself promises of every image.

use crate::config::Config;
use crate::world::World;

pub(super) fn holds(config: &Config, world: &World) -> bool {
    !config.form || world.controller.image.check().is_ok()
}
