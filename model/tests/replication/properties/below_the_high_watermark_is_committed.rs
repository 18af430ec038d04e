//! What any replica shows its readers was acknowledged: nobody reads a record that may still vanish.

use crate::config::Config;
use crate::world::World;

pub(super) fn holds(config: &Config, world: &World) -> bool {
    let newest = world.record().leader_epoch;
    world.nodes.iter().all(|node| {
        // Where a person has given records up, who has them shows them until its log is cut.
        let agrees = node.leading().is_some_and(|leading| leading.core.epoch() == newest)
            || node.following().is_some_and(|f| f.core.epoch() == newest && f.granted.is_some());
        if config.beyond && !agrees {
            return true;
        }
        let high_watermark = node.process.as_ref().map_or(0, |process| process.high_watermark);
        let shown = node.disk.log.get(..high_watermark);
        shown.is_some_and(|shown| {
            shown.len() <= world.committed.len()
                && shown.iter().zip(&world.committed).all(|(shown, (committed, _))| shown == committed)
        })
    })
}
