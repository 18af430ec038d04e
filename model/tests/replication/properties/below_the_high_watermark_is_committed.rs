//! What any replica shows its readers was acknowledged: nobody reads a record that may still vanish.

use crate::config::Config;
use crate::world::World;

pub(super) fn holds(_: &Config, world: &World) -> bool {
    world.nodes.iter().all(|node| {
        let high_watermark = node.process.as_ref().map_or(0, |process| process.high_watermark);
        let shown = node.disk.log.get(..high_watermark);
        shown.is_some_and(|shown| {
            shown.len() <= world.committed.len()
                && shown.iter().zip(&world.committed).all(|(shown, (committed, _))| shown == committed)
        })
    })
}
