//! What a broker needs.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use crate::section::section;
use crate::{Error, Kind};

const KIB: i64 = 1 << 10;
const MIB: i64 = 1 << 20;
const GIB: i64 = 1 << 30;
const TIB: i64 = 1 << 40;
const SECOND: i64 = 1_000;
const MINUTE: i64 = 60 * SECOND;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;

/// Where a broker among others listens for them unless it is told.
pub(crate) const INTERNAL_LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9_350);

/// What a request may hold beside its batch: names, ids, framing.
const ENVELOPE_BYTES: usize = 64 << 10;

/// The largest batch that any topic may allow.
const BATCH_BYTES_MAX: usize = 64 << 20;

section! {
    /// A broker: listeners, limits of calls and connections, the log directory.
    "broker": pub struct Broker {
        /// Where the public gRPC API listens. Port 0 takes a free one. Loopback: only this machine reaches it.
        listen: SocketAddr = Kind::Listen, "127.0.0.1:9347";
        /// The address that clients are told to connect to. Empty: the address that `listen` is bound to.
        advertised_address: Option<String> = Kind::Address, "";
        /// Where other brokers connect to, for replication and for calls that they pass on. Port 0 takes a free one.
        /// auto: 127.0.0.1:9350 for a process that is a broker; nowhere for standalone, whose broker has no others.
        internal_listen: Option<SocketAddr> = Kind::ListenOrAuto, "auto";
        /// The address that other brokers are told. Empty: the address that `internal_listen` is bound to.
        internal_advertised_address: Option<String> = Kind::Address, "";
        /// Pages of these origins may call from a browser (grpc-web, CORS). Empty: only pages of this address. *: any
        /// page that somebody opens who reaches this address.
        cors_origins: Vec<String> = Kind::Origins, "";
        /// The controllers.
        controllers: Vec<String> = Kind::Addresses, "127.0.0.1:9349";
        /// The broker whose logs are in the data directory. auto: whichever it says, and an empty one becomes a new broker.
        /// With a number, an empty or missing one (a disk that is not mounted) and another broker's are refused.
        broker_id: Option<i32> = Kind::CountOrAuto(1, i32::MAX as i64), "auto";
        /// Where this broker stands: a zone or rack. Replicas are spread over them. Empty: unknown.
        rack: String = Kind::Text, "";
        /// A replica that has been behind its leader for so long is not waited for any more: it leaves the in-sync set. At least
        /// broker_session_ms of the controllers, which counts where it is longer.
        replica_lag_ms_max: Duration = Kind::Time(100, HOUR), "10s";
        /// Runtimes of the data plane, one thread each. auto: one a core, at most 16.
        data_runtimes: Option<usize> = Kind::CountOrAuto(1, 1_024), "auto";

        /// Connections in all; more are closed at once.
        connections_max: usize = Kind::Count(1, 1_000_000), "20000";
        /// Connections from one address. Behind a proxy all clients have one.
        connections_per_address_max: usize = Kind::Count(1, 1_000_000), "10000";
        /// Connections from other brokers, however many of them have one address; more are closed at once.
        internal_connections_max: usize = Kind::Count(1, 1_000_000), "4000";
        /// Long calls (streams, and calls that wait for data) that one connection may hold.
        long_calls_per_connection_max: usize = Kind::Count(1, 1_000), "256";
        /// How old a connection gets, a tenth more or less; then its client is told to dial again, which spreads clients
        /// over brokers that came later. 0: any age.
        connection_age_ms_max: Duration = Kind::Time(0, 365 * DAY), "30m";
        /// How long a connection of that age may take to finish its calls before it is cut off. Streams are told at
        /// once.
        connection_age_grace_ms: Duration = Kind::Time(100, DAY), "5m";
        /// How often a stream without data shows that it lives. Proxies close streams that are silent.
        stream_heartbeat_ms: Duration = Kind::Time(100, HOUR), "5s";

        /// The largest request message.
        request_bytes_max: usize = Kind::Bytes(MIB, GIB), "16MiB";
        /// Records that one Produce with plain records takes.
        records_per_request_max: usize = Kind::Count(1, 10_000_000), "100000";
        /// Bytes that a producing stream may have sent without an answer; beyond that it is not read. Each append
        /// counts for 1024 more until its answer is read.
        inflight_bytes_max: usize = Kind::Bytes(MIB, 16 * GIB), "32MiB";
        /// The same for all calls that write together: beyond that no more requests are read, and calls that came
        /// wait. One request of each call may pass it.
        inflight_total_bytes_max: usize = Kind::Bytes(MIB, 1_024 * GIB), "512MiB";
        /// How long a call waits for data when it does not say.
        wait_ms_default: Duration = Kind::Time(0, HOUR), "10s";
        /// The longest that a call may wait for data.
        wait_ms_max: Duration = Kind::Time(0, HOUR), "30s";
        /// Bytes that a Fetch answers with when it does not say, as far as its client takes so large a message.
        fetch_bytes_default: usize = Kind::Bytes(KIB, GIB), "1MiB";

        /// Appends are refused while less than this is free on the disk; reading and deleting go on.
        disk_reserved_bytes: u64 = Kind::Bytes(0, 1_024 * TIB), "1GiB";
        /// Bytes that may be written and not yet be on the disk; appends wait beyond that. What there is to check
        /// after a crash grows with it. auto: 1/8 of the memory that the process may use, 128MiB to 4GiB.
        dirty_budget_bytes: Option<u64> = Kind::BytesOrAuto(16 * MIB, TIB), "auto";
        /// How often is noted what is on the disk for sure, when something changed.
        checkpoint_interval_ms: Duration = Kind::Time(100, HOUR), "10s";
        /// How often is looked for records to be deleted.
        retention_interval_ms: Duration = Kind::Time(100, DAY), "30s";
        /// How long the clock is not believed after the start, and after it was set: nothing is deleted by age, and no
        /// log's time goes back.
        retention_pause_ms: Duration = Kind::Time(0, 365 * DAY), "10m";
        /// How long the log of a deleted topic is kept, under another name; it goes earlier where space runs out.
        /// Whoever said that the topic is gone may be wrong: a controller restored from a backup.
        stray_retention_ms: Duration = Kind::Time(0, 365 * DAY), "1d";
        /// Segment files kept open. Files that are not yet on the disk stay open beyond that.
        open_files_max: usize = Kind::Count(16, 1_000_000), "4096";
        /// Files that are brought to the disk at a time.
        flush_threads: usize = Kind::Count(1, 256), "16";
        /// A file that takes so long to get to the disk is slow; one with much to bring may take longer. 0: none is.
        slow_flush_ms: Duration = Kind::Time(0, HOUR), "1s";
        /// When files have been slow for so long, the disk is: others lead what they can, and do not wait for this broker
        /// where enough are in sync.
        slow_disk_after_ms: Duration = Kind::Time(100, DAY), "10s";
        /// When files have been quick again for so long, the disk is, and this broker takes part as before.
        quick_disk_after_ms: Duration = Kind::Time(100, DAY), "1m";
    }
}

impl Broker {
    /// The largest batch that a topic may allow here: what fits into a request, 64 MiB at most.
    pub fn batch_bytes_max(&self) -> usize {
        self.request_bytes_max.saturating_sub(ENVELOPE_BYTES).min(BATCH_BYTES_MAX)
    }

    pub(crate) fn check(&self) -> Result<(), Error> {
        if self.wait_ms_default > self.wait_ms_max {
            return Err(Error::Conflict {
                what: format!(
                    "wait_ms_default ({:?}) is longer than wait_ms_max ({:?})",
                    self.wait_ms_default, self.wait_ms_max
                ),
            });
        }
        if self.inflight_bytes_max < self.request_bytes_max {
            return Err(Error::Conflict {
                what: format!(
                    "inflight_bytes_max ({} B) is less than request_bytes_max ({} B): the largest request would \
                     never be taken",
                    self.inflight_bytes_max, self.request_bytes_max
                ),
            });
        }
        Ok(())
    }
}
