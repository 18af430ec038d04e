//! A leader that tells its high watermark tells none below what an earlier leadership could tell (rule 4).

use crate::config::Config;
use crate::world::World;

pub(super) fn holds(_: &Config, world: &World) -> bool {
    world.nodes.iter().all(|node| {
        let Some(leading) = node.leading().filter(|leading| leading.core.is_settled()) else { return true };
        let epoch = leading.core.epoch();
        let told = world.committed.iter().filter(|(_, by)| *by < epoch).count();
        node.process.as_ref().is_some_and(|process| process.high_watermark >= told)
    })
}
