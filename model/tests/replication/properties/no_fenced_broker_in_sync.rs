//! Whoever is in sync is heard of.

use weir_metadata::BrokerState;

use crate::config::Config;
use crate::world::World;

pub(super) fn holds(_: &Config, world: &World) -> bool {
    world.record().isr.iter().all(|member| {
        world.controller.image.broker(*member).is_some_and(|broker| broker.state != BrokerState::Fenced)
    })
}
