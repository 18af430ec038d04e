//! What must hold whatever happens, one file each.

mod below_the_high_watermark_is_committed;
mod candidates_are_complete;
mod current_leader_holds_every_acknowledged_record;
mod logs_match;
mod no_fenced_broker_in_sync;
mod no_lower_high_watermark_served;
mod one_committed_record_per_offset;
mod record_is_well_formed;
mod some_disk_holds_all;
mod somebody_is_known_to_be_complete;
mod what_is_deleted_stays_deleted;

use stateright::Property;

use crate::config::Config;
use crate::world::World;

/// A property: its name, and whether a world has it.
type Holds = (&'static str, fn(&Config, &World) -> bool);

const ALL: &[Holds] = &[
    ("current leader holds every acknowledged record", current_leader_holds_every_acknowledged_record::holds),
    ("one committed record per offset", one_committed_record_per_offset::holds),
    ("below the high watermark is committed", below_the_high_watermark_is_committed::holds),
    ("logs match", logs_match::holds),
    ("no lower high watermark is served", no_lower_high_watermark_served::holds),
    ("some disk holds all", some_disk_holds_all::holds),
    ("somebody is known to be complete", somebody_is_known_to_be_complete::holds),
    ("no fenced broker in sync", no_fenced_broker_in_sync::holds),
    ("candidates are complete", candidates_are_complete::holds),
    ("what is deleted stays deleted", what_is_deleted_stays_deleted::holds),
    ("the record is well formed", record_is_well_formed::holds),
];

/// The first that a world has not.
pub(crate) fn missing(config: &Config, world: &World) -> Option<&'static str> {
    ALL.iter().find(|(_, holds)| !holds(config, world)).map(|(name, _)| *name)
}

/// All of them, for the checker.
pub(crate) fn all() -> Vec<Property<Config>> {
    ALL.iter().map(|(name, holds)| Property::always(name, *holds)).collect()
}
