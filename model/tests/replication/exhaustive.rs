//! Every state of every small world has all properties.

use crate::check::exhaust;
use crate::config::Config;
use crate::worlds;

fn holds(name: &str, config: &Config) {
    if let Some(found) = exhaust(name, config) {
        panic!("{}", found.trace);
    }
}

/// One test a world.
macro_rules! hold {
    ($($(#[$how:meta])* $name:ident: $world:ident;)*) => {$(
        #[test]
        $(#[$how])*
        fn $name() {
            holds(stringify!($name), &worlds::$world);
        }
    )*};
}

hold! {
    a_leader_dies_and_another_one_is_moved: FAILOVER;
    leaderships_move_and_brokers_are_fenced: MOVES;
    acknowledgements_are_late: LATE_ACKS;
    data_is_late: LATE_DATA;
    subscriptions_are_late: LATE_SUBSCRIPTIONS;
    proposals_are_late: LATE_PROPOSALS;
    proposals_are_late_and_one_replica_is_enough: LATE_PROPOSALS_MIN_1;
    a_disk_is_lost: LOST_DISK;
    a_disk_is_lost_and_all_replicas_count: LOST_DISK_MIN_3;
    #[ignore = "two minutes and gigabytes: cargo xtask model --deep"]
    a_disk_loses_its_end: LOST_END;
    a_disk_loses_its_end_and_all_replicas_count: LOST_END_MIN_3;
    a_first_leader_that_is_alone_loses_its_disk: ALONE_AT_FIRST;
    a_copy_of_a_disk_comes_back: OLD_COPY;
    a_copy_with_a_marker_comes_back: OLD_MARKER;
    the_page_cache_is_enough: REPLICATED;
    the_page_cache_is_enough_and_all_replicas_count: REPLICATED_MIN_3;
    the_page_cache_is_enough_and_proposals_are_late: REPLICATED_LATE_PROPOSALS;
    the_page_cache_is_enough_and_acknowledgements_are_late: REPLICATED_LATE_ACKS;
    min_insync_changes: MINS;
    min_insync_rises: MINS_UP;
    brokers_stop_in_order: STOPS;
    brokers_are_fenced: FENCES;
    disks_are_slow: SLOW_DISKS;
    disks_are_slow_and_one_replica_is_enough: SLOW_DISKS_MIN_1;
    every_version_is_seen: STEPWISE;
    a_person_elects: UNCLEAN;
    a_person_elects_who_has_not_flushed: UNCLEAN_FSYNC;
    records_are_deleted: DELETES;
    power_is_lost: POWER;
    power_is_lost_and_one_replica_is_enough: POWER_MIN_1;
    power_is_lost_everywhere: BLACKOUT;
    #[ignore = "a minute and gigabytes: cargo xtask model --deep"]
    power_is_lost_everywhere_and_a_person_is_waited_for: BLACKOUT_REPLICATED;
    of_three_records_a_process_dies: LONGER;
    of_three_records_data_is_late: LONGER_LATE_DATA;
    of_three_records_acknowledgements_are_late: LONGER_LATE_ACKS;
    #[ignore = "a minute and gigabytes: cargo xtask model --deep"]
    of_three_records_power_is_lost: LONGER_POWER;
    of_three_records_a_disk_is_lost: LONGER_LOST_DISK;
    acknowledgements_come_twice: REPEATED_ACKS;
    data_comes_twice: REPEATED_DATA;
    subscriptions_and_answers_come_twice: REPEATED_SUBSCRIPTIONS;
}
