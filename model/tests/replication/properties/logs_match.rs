//! Where two logs have the same record, they are the same up to there.

use crate::config::Config;
use crate::world::World;

pub(super) fn holds(_: &Config, world: &World) -> bool {
    let logs = || world.nodes.iter().map(|node| &node.disk.log);
    logs().all(|one| {
        logs().all(|other| {
            let last = one.iter().zip(other).rposition(|(one, other)| one == other);
            last.is_none_or(|last| one[..last] == other[..last])
        })
    })
}
