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
    ($($name:ident: $world:ident;)*) => {$(
        #[test]
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
    power_is_lost: POWER;
    power_is_lost_and_one_replica_is_enough: POWER_MIN_1;
}
