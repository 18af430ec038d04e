//! Raft: the types, the way to other controllers, who of them answers, and the watch over elections.

mod heard;
mod network;
mod outdone;
mod polled;
mod rewound;
mod server;
mod types;
mod watchdog;
mod words;

pub(crate) use heard::Heard;
pub(crate) use network::Network;
pub(crate) use outdone::Outdone;
pub(crate) use polled::Polled;
pub(crate) use rewound::Rewound;
pub(crate) use server::RaftServer;
pub(crate) use types::{
    Answer, LogEntry, LogId, Raft, RaftRow, SnapshotMeta, StorageError, StorageIoError, StoredMembership,
    Types, Vote, optional, required, version_of,
};
#[cfg(test)]
pub(crate) use watchdog::tests::follower;
pub(crate) use watchdog::{Timing, watch_elections};
pub(crate) use words::{failed, not_changed, too_few};

use std::time::Duration;

use openraft::SnapshotPolicy;
use weir_types::ClusterId;

use crate::{Config, Error};

/// The fact of a refusal that says that the quorum was recovered, and goes on without whoever is refused.
const RECOVERED_FACT: &str = "recovered_quorum";

/// Waiting for a snapshot to be sent, checked and installed, in milliseconds. Dead connections are noticed by
/// their keepalive, long before.
const SNAPSHOT_MS_MAX: u64 = 600_000;
/// Entries a leader sends at once; their bytes are limited too, when they are read.
const PAYLOAD_ENTRIES_MAX: u64 = 1_024;

/// Entries that stay in the log although a snapshot covers them, for followers that are only a little behind.
const KEPT_ENTRIES_MAX: u64 = 1_000;

/// openraft's configuration.
pub(crate) fn raft_config(config: &Config, cluster_id: ClusterId) -> Result<openraft::Config, Error> {
    let ms = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let raft = openraft::Config {
        cluster_name: cluster_id.to_string(),
        heartbeat_interval: ms(config.raft_heartbeat),
        election_timeout_min: ms(config.election_timeout_min),
        election_timeout_max: ms(config.election_timeout_max),
        install_snapshot_timeout: SNAPSHOT_MS_MAX,
        max_payload_entries: PAYLOAD_ENTRIES_MAX,
        // Made when enough commands have come, whatever the number of entries they came in; see `machine`.
        snapshot_policy: SnapshotPolicy::Never,
        // Followers further behind than this get a snapshot instead of entries: it must be more than is kept.
        replication_lag_threshold: config.snapshot_commands.saturating_mul(2),
        max_in_snapshot_log_to_keep: KEPT_ENTRIES_MAX.min(config.snapshot_commands / 4),
        ..openraft::Config::default()
    };
    raft.validate().map_err(|error| Error::Config {
        field: "raft timing",
        given: error.to_string(),
        wanted: "heartbeat < election_timeout_min < election_timeout_max",
    })
}
