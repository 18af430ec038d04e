//! The worlds whose every state is gone through. Each is small, and about one kind of trouble.

use weir_types::Durability::{Fsync, Replicated};

use crate::config::{Config, Faults};
use crate::wire::Kind;

const NONE: Faults = Config::new(Fsync, 2).faults;

pub(crate) const FAILOVER: Config =
    Config { records: 2, faults: Faults { deaths: 1, moves: 1, ..NONE }, ..Config::new(Fsync, 2) };
pub(crate) const MOVES: Config =
    Config { faults: Faults { moves: 2, fences: 1, ..NONE }, ..Config::new(Fsync, 2) };
pub(crate) const LATE_ACKS: Config = Config {
    records: 2,
    slow: &[Kind::Acknowledge],
    faults: Faults { moves: 1, ..NONE },
    ..Config::new(Fsync, 2)
};
pub(crate) const LATE_DATA: Config =
    Config { records: 2, slow: &[Kind::Data], faults: Faults { moves: 2, ..NONE }, ..Config::new(Fsync, 2) };
pub(crate) const LONGER: Config =
    Config { records: 3, faults: Faults { deaths: 1, ..NONE }, ..Config::new(Fsync, 2) };
pub(crate) const LONGER_LATE_DATA: Config =
    Config { records: 3, slow: &[Kind::Data], faults: Faults { moves: 1, ..NONE }, ..Config::new(Fsync, 2) };
pub(crate) const LONGER_LATE_ACKS: Config = Config {
    records: 3,
    slow: &[Kind::Acknowledge],
    faults: Faults { moves: 1, ..NONE },
    ..Config::new(Fsync, 2)
};
pub(crate) const LONGER_POWER: Config =
    Config { records: 3, slow_flush: true, faults: Faults { powers: 1, ..NONE }, ..Config::new(Fsync, 2) };
pub(crate) const LONGER_LOST_DISK: Config =
    Config { records: 3, faults: Faults { disks: 1, ..NONE }, ..Config::new(Fsync, 2) };
pub(crate) const REPEATED_ACKS: Config = Config {
    records: 2,
    slow: &[Kind::Acknowledge],
    faults: Faults { repeats: 1, moves: 1, ..NONE },
    ..Config::new(Fsync, 2)
};
pub(crate) const REPEATED_DATA: Config = Config {
    records: 2,
    slow: &[Kind::Data],
    faults: Faults { repeats: 1, moves: 2, ..NONE },
    ..Config::new(Fsync, 2)
};
pub(crate) const REPEATED_SUBSCRIPTIONS: Config = Config {
    slow: &[Kind::Subscribe, Kind::Welcome],
    faults: Faults { repeats: 1, moves: 1, breaks: 1, ..NONE },
    ..Config::new(Fsync, 2)
};
pub(crate) const LATE_SUBSCRIPTIONS: Config = Config {
    slow: &[Kind::Subscribe, Kind::Welcome],
    faults: Faults { moves: 1, breaks: 1, ..NONE },
    ..Config::new(Fsync, 2)
};
pub(crate) const LATE_PROPOSALS: Config = Config {
    slow: &[Kind::Alter],
    faults: Faults { fences: 1, lags: 1, timeouts: 1, ..NONE },
    ..Config::new(Fsync, 2)
};
pub(crate) const LATE_PROPOSALS_MIN_1: Config = Config { min_insync: 1, ..LATE_PROPOSALS };
pub(crate) const POWER: Config =
    Config { slow_flush: true, faults: Faults { powers: 2, ..NONE }, ..Config::new(Fsync, 2) };
pub(crate) const BLACKOUT: Config =
    Config { slow_flush: true, faults: Faults { blackouts: 1, ..NONE }, ..Config::new(Fsync, 2) };
pub(crate) const BLACKOUT_REPLICATED: Config =
    Config { beyond: true, faults: Faults { blackouts: 1, ..NONE }, ..Config::new(Replicated, 2) };
pub(crate) const POWER_MIN_1: Config =
    Config { slow_flush: true, faults: Faults { powers: 1, lags: 1, ..NONE }, ..Config::new(Fsync, 1) };
pub(crate) const LOST_DISK: Config =
    Config { faults: Faults { disks: 1, deaths: 1, ..NONE }, ..Config::new(Fsync, 2) };
pub(crate) const LOST_END: Config =
    Config { faults: Faults { tails: 1, deaths: 2, ..NONE }, ..Config::new(Fsync, 2) };
pub(crate) const LOST_END_MIN_3: Config =
    Config { faults: Faults { tails: 1, deaths: 1, ..NONE }, ..Config::new(Fsync, 3) };
pub(crate) const LOST_DISK_MIN_3: Config =
    Config { faults: Faults { disks: 1, deaths: 1, ..NONE }, ..Config::new(Fsync, 3) };
pub(crate) const ALONE_AT_FIRST: Config =
    Config { begins_alone: true, faults: Faults { disks: 1, deaths: 1, ..NONE }, ..Config::new(Fsync, 2) };
pub(crate) const OLD_COPY: Config =
    Config { faults: Faults { copies: 1, deaths: 1, ..NONE }, ..Config::new(Fsync, 3) };
pub(crate) const OLD_MARKER: Config =
    Config { faults: Faults { copies: 1, stops: 1, ..NONE }, ..Config::new(Fsync, 3) };
pub(crate) const REPLICATED: Config =
    Config { faults: Faults { powers: 1, deaths: 1, ..NONE }, ..Config::new(Replicated, 2) };
pub(crate) const REPLICATED_MIN_3: Config =
    Config { faults: Faults { powers: 1, stops: 1, ..NONE }, ..Config::new(Replicated, 3) };
pub(crate) const REPLICATED_LATE_PROPOSALS: Config = Config {
    slow: &[Kind::Alter],
    faults: Faults { powers: 1, fences: 1, ..NONE },
    ..Config::new(Replicated, 2)
};
pub(crate) const REPLICATED_LATE_ACKS: Config =
    Config { slow: &[Kind::Acknowledge], faults: Faults { powers: 1, ..NONE }, ..Config::new(Replicated, 2) };
pub(crate) const MINS: Config =
    Config { mins: &[1, 3], faults: Faults { mins: 1, lags: 1, deaths: 1, ..NONE }, ..Config::new(Fsync, 2) };
pub(crate) const MINS_UP: Config =
    Config { mins: &[2], faults: Faults { mins: 1, lags: 1, ..NONE }, ..Config::new(Fsync, 1) };
pub(crate) const STOPS: Config =
    Config { faults: Faults { stops: 1, drains: 1, ..NONE }, ..Config::new(Fsync, 2) };
pub(crate) const FENCES: Config = Config { faults: Faults { fences: 3, ..NONE }, ..Config::new(Fsync, 2) };
pub(crate) const SLOW_DISKS: Config =
    Config { faults: Faults { slows: 2, deaths: 1, ..NONE }, ..Config::new(Fsync, 2) };
pub(crate) const SLOW_DISKS_MIN_1: Config =
    Config { slow: &[Kind::Alter], faults: Faults { slows: 2, ..NONE }, ..Config::new(Fsync, 1) };
pub(crate) const STEPWISE: Config =
    Config { stepwise: true, faults: Faults { moves: 2, breaks: 1, ..NONE }, ..Config::new(Fsync, 2) };
pub(crate) const UNCLEAN: Config = Config {
    beyond: true,
    faults: Faults { powers: 1, lags: 1, unclean: 1, ..NONE },
    ..Config::new(Replicated, 1)
};
pub(crate) const UNCLEAN_FSYNC: Config = Config {
    brokers: 2,
    slow_flush: true,
    beyond: true,
    faults: Faults { disks: 1, powers: 1, lags: 1, unclean: 1, ..NONE },
    ..Config::new(Fsync, 1)
};
pub(crate) const DELETES: Config =
    Config { faults: Faults { deletes: 1, lags: 1, moves: 1, ..NONE }, ..Config::new(Fsync, 2) };
