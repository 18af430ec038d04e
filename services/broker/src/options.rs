//! What a broker is started with.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use weir_proto::v1::Limits;

/// What a broker is started with: its section of the configuration, and what it shares with its process.
#[derive(Clone, Debug)]
pub struct Options {
    /// The log directory.
    pub data_dir: PathBuf,
    /// Plain HTTP: metrics and health.
    pub http_listen: SocketAddr,
    /// How long an orderly stop waits for calls to end.
    pub drain: Duration,
    /// Whether its controller is on the same disk and ends with it, so that nobody else could remember that the disk has
    /// failed, or be asked to forget it (standalone).
    pub alone: bool,
    /// Everything else.
    pub config: weir_config::Broker,
    /// What the process was configured with and where each value came from, for who asks. May be empty.
    pub settings: Vec<weir_config::Resolved>,
}

/// The limits as clients see them.
pub(crate) fn limits(config: &weir_config::Broker) -> Limits {
    let bytes = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
    let count = |n: usize| i32::try_from(n).unwrap_or(i32::MAX);
    Limits {
        request_bytes_max: bytes(config.request_bytes_max),
        batch_bytes_max: bytes(config.batch_bytes_max()),
        record_bytes_max: bytes(config.batch_bytes_max()),
        records_per_request_max: count(config.records_per_request_max),
        inflight_bytes_max: bytes(config.inflight_bytes_max),
        wait_ms_max: i64::try_from(config.wait_ms_max.as_millis()).unwrap_or(i64::MAX),
        long_calls_per_connection_max: count(config.long_calls_per_connection_max),
    }
}
