//! Every metric there is, in words. A metric that has no row here cannot be made, and tests see to it that each row
//! has its metric and stands in docs/metrics.md.

use weir_process::metrics::{
    Catalog, Described,
    Kind::{self, Counter, Gauge, Histogram},
    Label, OF_A_PROCESS, Section,
};

const fn row(name: &'static str, kind: Kind, help: &'static str, look: &'static str) -> Described {
    Described::new(name, kind, help, look)
}

const fn labelled(row: Described, labels: &'static [Label]) -> Described {
    row.labelled(labels)
}

const CALL: Label = Label { name: "call", values: "a call of the API, or `other`: under 30" };
const CODE: Label = Label { name: "code", values: "a status code of gRPC, or `Planned`: 18" };
const STREAM: Label = Label { name: "call", values: "a call whose answer is a stream: 4" };
const REASON: Label = Label { name: "reason", values: "an [error reason](errors/README.md): under 80" };
const FOLLOWER: Label =
    Label { name: "follower", values: "the id of a broker: as many as there are brokers" };
const CAUSE: Label = Label { name: "reason", values: "`damaged` or `io`" };

pub(crate) const CATALOG: Catalog = Catalog(SECTIONS);

const SECTIONS: &[Section] = &[
    OF_A_PROCESS,
    Section {
        title: "Connections and the start",
        metrics: &[
            row(
                "weir_connections",
                Gauge,
                "Connections of clients that are open.",
                "Close to `connections_max`: more are closed at once.",
            ),
            row(
                "weir_internal_connections",
                Gauge,
                "Connections of other brokers that are open.",
                "Close to `internal_connections_max`: more are closed at once, and replication lags.",
            ),
            row(
                "weir_replication_sent_bytes_total",
                Counter,
                "Bytes of batches sent to followers, with their headers.",
                "Its rate is what is appended here, once for each follower; more while a replica catches up.",
            ),
            row(
                "weir_replication_received_bytes_total",
                Counter,
                "Bytes of batches received from leaders.",
                "0 while others lead what is followed here: no stream comes to be (the log of debug level says why).",
            ),
            labelled(
                row(
                    "weir_replication_lag_bytes",
                    Gauge,
                    "About how many bytes of what is led here a follower has not got, over all partitions.",
                    "Falls: it catches up, `weir status` says how much is left. Stays, or rises: it cannot keep up, or is not there. One that was taken out of the cluster has no line.",
                ),
                &[FOLLOWER],
            ),
            labelled(
                row(
                    "weir_replication_lag_seconds",
                    Gauge,
                    "For how long a follower has been behind, in the partition where it is longest.",
                    "Above `replica_lag_ms_max`: it is not in sync there, and nobody waits for it. Of a broker that is away (fenced) it rises until it is back, or taken out (`weir broker remove`).",
                ),
                &[FOLLOWER],
            ),
            row(
                "weir_brokers_unreached",
                Gauge,
                "Brokers that the controllers hear and this one has not reached for five seconds and more.",
                "Above 0: `/readyz` and the log say which, and where it was looked for; most often its `internal_advertised_address` is wrong.",
            ),
            row(
                "weir_replication_stream_failures_total",
                Counter,
                "Streams from leaders that broke, or could not be begun.",
                "Rising for longer than a restart takes: a broker that does not reach another one.",
            ),
            row(
                "weir_replication_damaged_batches_total",
                Counter,
                "Batches from leaders whose checksum was wrong: they are not taken, and asked for again.",
                "Any: a leader's disk, or something between, changes bytes. The log of this broker says which partition.",
            ),
            row(
                "weir_isr_changes_total",
                Counter,
                "Changes of in-sync sets that this broker asked for as a leader, and got.",
                "Many without restarts: followers that fall behind and come back, a slow disk or network.",
            ),
            row(
                "weir_connections_refused_total",
                Counter,
                "Connections closed at once because too many are open.",
                "Any: the log says which limit (`connections_max`, `connections_per_address_max`, `internal_connections_max`) and an address.",
            ),
            row(
                "weir_recovery_logs",
                Gauge,
                "Logs that the start found.",
                "Served during the start, too: the next one shows how much of it is left.",
            ),
            row(
                "weir_recovery_logs_done",
                Gauge,
                "Those of them that are open, or damaged.",
                "Stands still: the disk hangs.",
            ),
            row(
                "weir_recovery_scanned_bytes_total",
                Counter,
                "Bytes of logs that the start walked through, because the last stop was not in order.",
                "0 after an orderly stop. Large: what was unflushed at a crash, or checkpoints far apart.",
            ),
        ],
    },
    Section {
        title: "Calls",
        metrics: &[
            labelled(
                row(
                    "weir_calls_total",
                    Counter,
                    "Calls answered, by call and how they ended. A stream counts when it ends, as `Planned` if its client was sent elsewhere because the broker stops or its connection was old.",
                    "`Cancelled`: the client went away before the end, which is how most readers end. `Internal` and `Unknown` are defects of the server, and in its log. `ResourceExhausted`: limits, a full disk.",
                ),
                &[CALL, CODE],
            ),
            labelled(
                row(
                    "weir_call_seconds",
                    Histogram,
                    "Time to the answer, by call. Streams have none.",
                    "Of Produce it is the whole append, of Fetch also the time it waited for data. Of appends of any kind: `weir_append_seconds`.",
                ),
                &[CALL],
            ),
            labelled(
                row(
                    "weir_forwarded_calls_total",
                    Counter,
                    "Calls passed on to the broker that leads, by call and status code; a stream counts when it ends.",
                    "A rate as high as that of `weir_calls_total`: clients ask any broker where they could ask the leader (`route = DIRECT`, as the SDK does). `Aborted`, `Unavailable`: the way between brokers is broken.",
                ),
                &[CALL, CODE],
            ),
            labelled(
                row(
                    "weir_forwarded_bytes_total",
                    Counter,
                    "Bytes of the messages passed on and of the answers, by call.",
                    "What travels between brokers for clients' convenience.",
                ),
                &[CALL],
            ),
            labelled(
                row(
                    "weir_streams",
                    Gauge,
                    "Streams that are open.",
                    "A sudden fall: producers (ProduceStream) or readers (FetchStream, Consume) lost their way here.",
                ),
                &[STREAM],
            ),
            row(
                "weir_slow_readers_total",
                Counter,
                "Streams given up because their client did not read.",
                "Rises: a client hangs (SLOW_READER).",
            ),
            row(
                "weir_inflight_bytes",
                Gauge,
                "Bytes of requests on their way in, and of appends that were read and not answered, or whose answers were not read.",
                "Close to the limit below: appends arrive faster than the disk takes them.",
            ),
            row(
                "weir_inflight_limit_bytes",
                Gauge,
                "How many of them there may be (inflight_total_bytes_max).",
                "",
            ),
            row(
                "weir_inflight_waits_total",
                Counter,
                "Times that a call waited because there were as many.",
                "Rises: producers are held back; the disk, or the limit, is too small.",
            ),
        ],
    },
    Section {
        title: "Writing",
        metrics: &[
            row("weir_appends_total", Counter, "Batches appended.", "The rate of writing."),
            row(
                "weir_append_bytes_total",
                Counter,
                "Bytes written to logs, headers included.",
                "Bytes a second, and, over the line above, the size of batches: small ones cost the most.",
            ),
            row(
                "weir_append_seconds",
                Histogram,
                "From an append's arrival to its acknowledgement; of what a stream sends together, the first.",
                "What producers wait for. High together with `weir_flush_seconds`: the disk. High alone: queues, see `weir_claim_wait_seconds` and `weir_dirty_waits_total`.",
            ),
            row(
                "weir_acknowledged_records_total",
                Counter,
                "Records acknowledged to producers.",
                "Falls while `weir_appends_total` does not: acknowledgements do not come.",
            ),
            labelled(
                row(
                    "weir_appends_failed_total",
                    Counter,
                    "Appends answered with a failure, by its reason.",
                    "Which reason: `weir errors REASON` says what to do.",
                ),
                &[REASON],
            ),
            row(
                "weir_appends_refused_total",
                Counter,
                "Batches that a partition's leader refused.",
                "Fenced producers, gaps in sequences, conditions that do not hold.",
            ),
            row(
                "weir_append_duplicates_total",
                Counter,
                "Batches that had been appended before.",
                "Retries that were not needed: producers do not get their answers, or give up too early.",
            ),
            row(
                "weir_append_groups_total",
                Counter,
                "Groups of batches written at once.",
                "Appends over groups: how well batches gather.",
            ),
            row(
                "weir_append_group_size",
                Histogram,
                "Batches in one claim of a partition.",
                "Always 1 under load: clients send one batch at a time.",
            ),
            row(
                "weir_claim_wait_seconds",
                Histogram,
                "Time that the first of a partition's queue waited for its busy owner.",
                "High: few partitions take most of the writes.",
            ),
            row(
                "weir_appends_disk_full_total",
                Counter,
                "Batches refused because too little space is left.",
                "Any: see the space below.",
            ),
        ],
    },
    Section {
        title: "Reading",
        metrics: &[
            row("weir_delivered_batches_total", Counter, "Batches given to readers as they are stored.", ""),
            row(
                "weir_delivered_records_total",
                Counter,
                "Records given to readers.",
                "Zero while records are written: nobody reads.",
            ),
            row("weir_delivered_bytes_total", Counter, "Bytes of batches and records given to readers.", ""),
            row(
                "weir_replica_read_bytes_total",
                Counter,
                "Bytes of batches read here for readers in this broker's rack, of partitions that others lead.",
                "0 although readers name this rack (`rack`): replicas here are not in sync, or `rack` is not what they say.",
            ),
            row(
                "weir_read_bytes_total",
                Counter,
                "Bytes read from logs.",
                "Far above what is delivered: readers take little at a time.",
            ),
            row(
                "weir_reads_cached_total",
                Counter,
                "Reads answered by the page cache alone.",
                "Its share falls: readers lag behind what memory holds.",
            ),
            row(
                "weir_reads_cold_total",
                Counter,
                "Reads that went to the disk.",
                "They compete with writes for the disk.",
            ),
            labelled(
                row(
                    "weir_reads_failed_total",
                    Counter,
                    "Reads refused because the disk does not give what was written: other bytes, or an error.",
                    "Any: data is lost unless a copy exists. The log names topic, partition, offset and file once, then every ten minutes. Payloads that go out in batches (FetchStream, the SDK) are checked by the reader and count only there.",
                ),
                &[CAUSE],
            ),
        ],
    },
    Section {
        title: "The disk",
        metrics: &[
            row(
                "weir_disk_available_bytes",
                Gauge,
                "Free space of the log directory's file system.",
                "Days until it meets the line below.",
            ),
            row(
                "weir_disk_reserved_bytes",
                Gauge,
                "What no append may take of it (disk_reserved_bytes).",
                "Close to what is available: producers will get DISK_FULL.",
            ),
            row(
                "weir_disk_missing_bytes",
                Gauge,
                "How much more would have to be free for the appends that were refused last; 0: none is refused.",
                "Not 0: producers get DISK_FULL until there is room.",
            ),
            row(
                "weir_dirty_bytes",
                Gauge,
                "Bytes written and not yet on the disk.",
                "Stays at `dirty_budget_bytes`: the disk is too slow for what is written.",
            ),
            row(
                "weir_dirty_waits_total",
                Counter,
                "Times appends waited because too much was unsynced.",
                "Rises: the same, and producers feel it.",
            ),
            row(
                "weir_flush_seconds",
                Histogram,
                "Time of one file's sync.",
                "The latency of fsync: its p99 is the floor of acknowledgements of class fsync.",
            ),
            row("weir_flushes_total", Counter, "Files synced for acknowledgements and checkpoints.", ""),
            row(
                "weir_flushes_slow_total",
                Counter,
                "Those of them that took half a second or more.",
                "Any on a disk of its own: the disk is ill, or too slow for what is written. The log has one a minute.",
            ),
            row(
                "weir_disk_slow",
                Gauge,
                "Whether the disk has been slow for `slow_disk_after_ms` (0 or 1).",
                "1: others lead what they can. Replace the disk, or see who else keeps it busy.",
            ),
            row(
                "weir_flushed_bytes_total",
                Counter,
                "Bytes made durable.",
                "Stands still while bytes are dirty: the disk hangs.",
            ),
            row(
                "weir_flush_files",
                Histogram,
                "Files in one round of the flusher.",
                "Many: writes are spread over many partitions, and each costs a sync.",
            ),
            row(
                "weir_checkpoints_total",
                Counter,
                "Recovery checkpoints written.",
                "Stands still while writing goes on: the next start after a crash takes long.",
            ),
            row(
                "weir_open_segment_files",
                Gauge,
                "Segment files that are open.",
                "At `open_files_max` all the time: files are opened again and again.",
            ),
            row(
                "weir_mapped_sidecars",
                Gauge,
                "Indexes of sealed segments that are mapped into memory.",
                "At 16,384, the most there are, all the time: readers go through very many old segments in turn, and indexes are mapped again and again.",
            ),
        ],
    },
    Section {
        title: "Topics and partitions",
        metrics: &[
            row("weir_topics", Gauge, "Topics in the cluster.", ""),
            row("weir_partitions_led", Gauge, "Partitions that this broker leads.", ""),
            row(
                "weir_partitions_under_replicated",
                Gauge,
                "Partitions that this broker leads and that have replicas which are not in sync.",
                "Above 0 for longer than a restart takes: `weir status` names them, and says how much is to be caught up.",
            ),
            row(
                "weir_partitions_unwritable",
                Gauge,
                "Those of them with fewer replicas in sync than an append of acks ALL needs.",
                "Any: they refuse appends (NOT_ENOUGH_REPLICAS).",
            ),
            row(
                "weir_partitions_offline",
                Gauge,
                "Replicas of this broker that cannot be used.",
                "Any: `weir status` names them, `weir partition describe` says why.",
            ),
            row(
                "weir_partitions_damaged",
                Gauge,
                "Partitions of this broker of which something was found that cannot be read.",
                "Any: `weir status` names them. What a start finds takes them offline; what a reader finds makes another replica in sync lead, and this one is fetched anew; where there is none it refuses that place alone, and is forgotten when the records are deleted, or, where it was the disk that failed to read, when nobody has met it for ten minutes.",
            ),
            row(
                "weir_metadata_partitions_followed_total",
                Counter,
                "Partitions looked at because the metadata changed, or because something failed before.",
                "Rises while nobody changes anything: something fails again and again, and is in the log.",
            ),
            row(
                "weir_segments_rolled_total",
                Counter,
                "Segments closed.",
                "Far more than bytes over `segment_bytes`: `segment_ms` is short.",
            ),
            row(
                "weir_segments_deleted_total",
                Counter,
                "Segments deleted.",
                "Stands still while space runs out: retention is too long, or paused.",
            ),
            row(
                "weir_append_time_steps_back_total",
                Counter,
                "How often the append time of a log went back by more than a minute.",
                "Rises: a broker's clock was ahead, or this one is behind. Look at how clocks are set.",
            ),
            row(
                "weir_retention_paused",
                Gauge,
                "1 while retention by time waits.",
                "For ten minutes after a start, and while the clock jumps.",
            ),
            row(
                "weir_stray_logs",
                Gauge,
                "Logs of deleted topics that are kept for a while.",
                "They take space until `stray_retention_ms` has passed.",
            ),
        ],
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> impl Iterator<Item = &'static Described> {
        CATALOG.rows()
    }

    #[test]
    fn names_are_as_prometheus_wants_them() {
        let not_units =
            ["ms", "us", "ns", "milliseconds", "kb", "mb", "max", "min", "count", "sum", "bucket"];
        let mut seen = std::collections::BTreeSet::new();
        for row in all() {
            assert!(seen.insert(row.name), "{} stands twice", row.name);
            assert!(row.name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{}", row.name);
            let words: Vec<&str> = row.name.split('_').collect();
            assert!(matches!(words.first(), Some(&"weir" | &"process")), "{}", row.name);
            let (unit, total) = match words.as_slice() {
                [rest @ .., "total"] => (rest.last(), true),
                rest => (rest.last(), false),
            };
            assert_eq!(
                total,
                row.kind == Kind::Counter,
                "{}: counters, and they alone, end in _total",
                row.name
            );
            assert!(!not_units.contains(unit.unwrap()), "{}", row.name);
            // A unit is the last word.
            for base in ["bytes", "seconds"] {
                assert!(unit == Some(&base) || !words.contains(&base), "{}", row.name);
            }
            assert!(
                row.help.ends_with('.') && (row.look.is_empty() || row.look.ends_with('.')),
                "{}",
                row.name
            );
        }
    }

    #[test]
    fn no_label_has_values_that_users_choose() {
        let of_users = ["topic", "partition", "client", "address", "principal", "producer", "group"];
        for row in all() {
            assert!(row.labels.iter().all(|label| !of_users.contains(&label.name)), "{}", row.name);
        }
    }
}
