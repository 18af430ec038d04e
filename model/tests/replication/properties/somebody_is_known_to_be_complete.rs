//! As long as a replica has everything, somebody may be elected or will be: within what is promised no person is
//! needed.

use weir_metadata::Replica;
use weir_types::DirectoryId;

use crate::config::Config;
use crate::node::id;
use crate::world::World;

pub(super) fn holds(config: &Config, world: &World) -> bool {
    let record = world.record();
    if config.beyond || !record.isr.is_empty() || !record.elr.is_empty() {
        return true;
    }
    !world.nodes.iter().enumerate().any(|(number, node)| {
        let directory = record.replica(id(number)).and_then(Replica::directory);
        directory == Some(DirectoryId(node.disk.directory)) && world.is_complete(&node.disk.log)
    })
}
