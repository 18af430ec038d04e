//! What the broker counts. Labels are bounded: calls, codes and brokers, never topics or clients.

mod catalog;
mod page;
mod storage;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use prometheus::{
    GaugeVec, Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Registry,
};
use tokio::time::Instant;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;
use weir_metadata::BrokerState;
use weir_process::metrics::as_text;
use weir_proto::v1::ErrorReason;
use weir_runtime::Usage;
use weir_storage::{Appended, Progress};
use weir_types::BrokerId;

use crate::broker::Broker;
use crate::metrics::catalog::CATALOG;
use crate::replication::Counters;
use crate::topic_map::TopicMap;

pub use page::page;

/// The metrics of one broker.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    ready: IntGauge,
    brokers_unreached: IntGauge,
    calls: IntCounterVec,
    call_seconds: HistogramVec,
    forwarded_calls: IntCounterVec,
    forwarded_bytes: IntCounterVec,
    append_seconds: Histogram,
    acknowledged_records: IntCounter,
    failed_appends: IntCounterVec,
    /// Reads that met bytes which are not those that were written, and reads that the disk failed.
    pub(crate) reads_damaged: IntCounter,
    pub(crate) reads_unreadable: IntCounter,
    delivered_batches: IntCounter,
    delivered_records: IntCounter,
    delivered_bytes: IntCounter,
    replica_read_bytes: IntCounter,
    pub(crate) slow_readers: IntCounter,
    inflight_bytes: IntGauge,
    inflight_limit_bytes: IntGauge,
    pub(crate) inflight_waits: IntCounter,
    pub(crate) connections: IntGauge,
    streams: IntGaugeVec,
    pub(crate) internal_connections: IntGauge,
    pub(crate) replication: Counters,
    /// Of each listener that refuses some.
    refused_connections: Mutex<Vec<Arc<AtomicU64>>>,
    /// Partitions looked at because something of them changed in the metadata.
    pub(crate) followed_partitions: IntCounter,
    topics: IntGauge,
    partitions_led: IntGauge,
    partitions_offline: IntGauge,
    partitions_under_replicated: IntGauge,
    partitions_unwritable: IntGauge,
    lag_bytes: IntGaugeVec,
    lag_seconds: GaugeVec,
    partitions_damaged: IntGauge,
    disk_reserved_bytes: IntGauge,
}

/// Something that is open: counted until dropped.
#[derive(Debug)]
pub(crate) struct Open(IntGauge);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// A call that is being answered.
pub(crate) struct Call {
    name: &'static str,
    calls: IntCounterVec,
    seconds: HistogramVec,
    streams: IntGaugeVec,
    /// Its answer is a stream, and has begun.
    open: Option<Open>,
}

/// The call of a path.
fn name_of(path: &str) -> &'static str {
    CALLS.iter().copied().find(|known| path.ends_with(known)).unwrap_or("other")
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let make = CATALOG.maker();
        let version = make.gauges("weir_build_info");
        version.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        // Both from the start: the first of them is to be seen as a rise.
        let reads_failed = make.counters("weir_reads_failed_total");
        Self {
            ready: make.gauge("weir_ready"),
            brokers_unreached: make.gauge("weir_brokers_unreached"),
            calls: make.counters("weir_calls_total"),
            call_seconds: make.histograms("weir_call_seconds"),
            forwarded_calls: make.counters("weir_forwarded_calls_total"),
            forwarded_bytes: make.counters("weir_forwarded_bytes_total"),
            append_seconds: make.histogram("weir_append_seconds"),
            acknowledged_records: make.counter("weir_acknowledged_records_total"),
            failed_appends: make.counters("weir_appends_failed_total"),
            reads_damaged: reads_failed.with_label_values(&["damaged"]),
            reads_unreadable: reads_failed.with_label_values(&["io"]),
            delivered_batches: make.counter("weir_delivered_batches_total"),
            delivered_records: make.counter("weir_delivered_records_total"),
            delivered_bytes: make.counter("weir_delivered_bytes_total"),
            replica_read_bytes: make.counter("weir_replica_read_bytes_total"),
            slow_readers: make.counter("weir_slow_readers_total"),
            inflight_bytes: make.gauge("weir_inflight_bytes"),
            inflight_limit_bytes: make.gauge("weir_inflight_limit_bytes"),
            inflight_waits: make.counter("weir_inflight_waits_total"),
            connections: make.gauge("weir_connections"),
            streams: make.gauges("weir_streams"),
            internal_connections: make.gauge("weir_internal_connections"),
            replication: Counters {
                sent_bytes: make.counter("weir_replication_sent_bytes_total"),
                received_bytes: make.counter("weir_replication_received_bytes_total"),
                stream_failures: make.counter("weir_replication_stream_failures_total"),
                isr_changes: make.counter("weir_isr_changes_total"),
                damaged_batches: make.counter("weir_replication_damaged_batches_total"),
            },
            refused_connections: Mutex::default(),
            followed_partitions: make.counter("weir_metadata_partitions_followed_total"),
            topics: make.gauge("weir_topics"),
            partitions_led: make.gauge("weir_partitions_led"),
            partitions_offline: make.gauge("weir_partitions_offline"),
            partitions_under_replicated: make.gauge("weir_partitions_under_replicated"),
            partitions_unwritable: make.gauge("weir_partitions_unwritable"),
            lag_bytes: make.gauges("weir_replication_lag_bytes"),
            lag_seconds: make.fractions("weir_replication_lag_seconds"),
            partitions_damaged: make.gauge("weir_partitions_damaged"),
            disk_reserved_bytes: make.gauge("weir_disk_reserved_bytes"),
            registry: make.finish(),
        }
    }

    /// Begins a call. Paths that are no call of ours share one name.
    pub(crate) fn call(&self, path: &str) -> Call {
        let name = name_of(path);
        let (calls, seconds, streams) = (self.calls.clone(), self.call_seconds.clone(), self.streams.clone());
        Call { name, calls, seconds, streams, open: None }
    }

    /// An append was acknowledged. `since`: when it came, if it is one of those whose time is taken.
    pub(crate) fn acknowledged(&self, appended: &Appended, since: Option<Instant>) {
        if let Some(since) = since {
            self.append_seconds.observe(since.elapsed().as_secs_f64());
        }
        let records = appended.last_offset - appended.base_offset + 1;
        self.acknowledged_records.inc_by(u64::try_from(records).unwrap_or(0));
    }

    /// A batch of so many records goes to a reader as it is stored, in so many bytes.
    pub(crate) fn delivered_batch(&self, records: i32, bytes: usize) {
        self.delivered_batches.inc();
        self.delivered_records.inc_by(u64::from(records.unsigned_abs()));
        self.delivered_bytes.inc_by(bytes as u64);
    }

    /// Plain records go to a reader, in so many bytes.
    pub(crate) fn delivered_plain(&self, records: usize, bytes: usize) {
        self.delivered_records.inc_by(records as u64);
        self.delivered_bytes.inc_by(bytes as u64);
    }

    /// Counts what replicas give to readers who stand near.
    pub(crate) fn read_from_replicas(&self) -> IntCounter {
        self.replica_read_bytes.clone()
    }

    /// Counts something that is open until dropped.
    pub(crate) fn open(gauge: &IntGauge) -> Open {
        gauge.inc();
        Open(gauge.clone())
    }

    /// Who counts the connections that are refused.
    pub(crate) fn refuses_connections(&self, count: Arc<AtomicU64>) {
        self.refused_connections.lock().push(count);
    }

    /// What the map of topics says.
    fn served(&self, topics: &TopicMap) {
        let count = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
        let placed = || topics.iter().flat_map(|topic| topic.partitions.values());
        self.topics.set(count(topics.len()));
        self.partitions_led.set(count(placed().filter(|placed| placed.local.is_some()).count()));
        self.partitions_offline.set(count(placed().filter(|placed| placed.problem.is_some()).count()));
    }

    /// What followers of partitions that are led here lack, by their brokers.
    fn lags(&self, broker: &Broker) {
        let mut behind: BTreeMap<BrokerId, (u64, u64)> = BTreeMap::new();
        let (mut thin, mut below_min) = (0, 0);
        let (map, image) = (broker.topics.load(), broker.cluster.image());
        // Who was taken out for good stays in the records of its partitions, and never catches up.
        let is_out = |id| image.broker(id).is_none_or(|other| other.state == BrokerState::Removed);
        for placed in map.iter().flat_map(|topic| topic.partitions.values()) {
            let Some(led) = &placed.led else { continue };
            let record = led.record();
            thin += i64::from(record.isr.len() < record.replicas.len());
            below_min += i64::from(record.isr.len() < record.min_insync);
            let me = broker.cluster.broker_id();
            for other in record.replicas.iter().filter(|other| **other != me && !is_out(**other)) {
                let lag = led.lag_of(*other);
                let (bytes, ms) = behind.entry(*other).or_default();
                (*bytes, *ms) = (bytes.saturating_add(lag.bytes), (*ms).max(lag.ms));
            }
        }
        self.partitions_under_replicated.set(thin);
        self.partitions_unwritable.set(below_min);
        // Who follows nothing here any more has no line.
        self.lag_bytes.reset();
        self.lag_seconds.reset();
        for (follower, (bytes, ms)) in behind {
            let follower = follower.to_string();
            let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
            self.lag_bytes.with_label_values(&[&follower]).set(bytes);
            self.lag_seconds.with_label_values(&[&follower]).set(Duration::from_millis(ms).as_secs_f64());
        }
    }

    /// An append was answered with a failure.
    pub(crate) fn append_failed(&self, reason: ErrorReason) {
        self.failed_appends.with_label_values(&[weir_rpc::reasons::name(reason)]).inc();
    }

    /// A call was passed on to another broker, and ended so; bytes went there and came back.
    pub(crate) fn forwarded(&self, path: &str, code: Code, bytes: usize) {
        let name = name_of(path).trim_start_matches('/');
        self.forwarded_calls.with_label_values(&[name, &format!("{code:?}")]).inc();
        self.forwarded_bytes.with_label_values(&[name]).inc_by(bytes as u64);
    }

    /// Everything, in the text format of Prometheus, with what the log directory says of itself.
    pub(crate) fn render(&self, broker: &Broker, progress: &Progress) -> Vec<u8> {
        self.served(&broker.topics.load());
        self.lags(broker);
        let size = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
        self.ready.set(i64::from(broker.unready().is_none()));
        self.brokers_unreached.set(size(broker.cluster.reach.now(&broker.cluster.image()).len()));
        self.inflight_bytes.set(size(broker.memory.used()));
        self.inflight_limit_bytes.set(size(broker.memory.max()));
        self.partitions_damaged.set(size(broker.damage.partitions(&broker.log_dir)));
        self.disk_reserved_bytes.set(i64::try_from(broker.config.disk_reserved_bytes).unwrap_or(i64::MAX));
        let mut families = self.registry.gather();
        families.extend(storage::gather(broker.log_dir.stats()));
        families.extend(storage::of_start(progress));
        let refused: u64 =
            self.refused_connections.lock().iter().map(|count| count.load(Ordering::Relaxed)).sum();
        families.push(CATALOG.single("weir_connections_refused_total", refused as f64));
        families.extend(CATALOG.usage(Usage::now()));
        as_text(families)
    }

    /// What can be said before the log directory is open.
    pub(crate) fn render_start(progress: &Progress) -> Vec<u8> {
        let mut families = CATALOG.usage(Usage::now());
        families.extend(storage::of_start(progress));
        as_text(families)
    }
}

/// Every public call, as it stands at the end of its path.
const CALLS: &[&str] = &[
    "/Produce",
    "/ProduceStream",
    "/OpenProducer",
    "/GetAppendOutcome",
    "/Consume",
    "/Fetch",
    "/FetchStream",
    "/ListOffsets",
    "/GetServerInfo",
    "/GetMetadata",
    "/WatchMetadata",
    "/CreateTopic",
    "/GetTopic",
    "/ListTopics",
    "/UpdateTopic",
    "/DeleteTopic",
    "/DeleteRecords",
    "/ListBrokers",
    "/ListConfigs",
    "/UpdateConfigs",
    "/ListVoters",
    "/DescribePartitions",
    "/RemoveBroker",
    "/TrustBroker",
    "/UpdateVoters",
    "/ElectLeaders",
    "/FinalizeFeatureLevel",
];

/// Those of them whose answer is a stream.
const STREAMS: &[&str] = &["/ProduceStream", "/Consume", "/FetchStream", "/WatchMetadata"];

/// Whether a stream ended because the broker stops or its connection is old: the client goes on elsewhere.
fn is_planned(status: &Status) -> bool {
    let planned = [ErrorReason::Draining, ErrorReason::MaxAge].map(weir_rpc::reasons::name);
    status.code() == Code::Unavailable
        && status.get_details_error_info().is_some_and(|info| planned.contains(&&*info.reason))
}

impl Call {
    /// The headers of the answer are there: of a stream that says nothing.
    pub(crate) fn answered(&self, after: Duration) {
        if !self.is_stream() {
            self.seconds.with_label_values(&[self.name()]).observe(after.as_secs_f64());
        }
    }

    /// There is more to come than headers.
    pub(crate) fn goes_on(&mut self) {
        if self.is_stream() {
            self.open = Some(Metrics::open(&self.streams.with_label_values(&[self.name()])));
        }
    }

    /// The answer is over, and ended so.
    pub(crate) fn ended(self, status: &Status) {
        let code = match status.code() {
            _ if self.is_stream() && is_planned(status) => "Planned".to_owned(),
            code => format!("{code:?}"),
        };
        self.calls.with_label_values(&[self.name(), &code]).inc();
    }

    fn is_stream(&self) -> bool {
        STREAMS.contains(&self.name)
    }

    /// What is called.
    pub(crate) fn name(&self) -> &'static str {
        self.name.trim_start_matches('/')
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;

    #[test]
    fn every_call_of_the_api_has_its_name() {
        use prost::Message;
        let set = prost_types::FileDescriptorSet::decode(weir_proto::PUBLIC_FILE_DESCRIPTOR_SET).unwrap();
        let calls = set.file.iter().flat_map(|file| &file.service).flat_map(|service| &service.method);
        for call in calls {
            let path = format!("/x/{}", call.name());
            assert!(CALLS.iter().any(|known| path.ends_with(known)), "{path}");
        }
    }

    #[test]
    fn a_stream_counts_when_it_ends_and_a_planned_end_counts_apart() {
        use prost::Message;
        let set = prost_types::FileDescriptorSet::decode(weir_proto::PUBLIC_FILE_DESCRIPTOR_SET).unwrap();
        let methods =
            set.file.iter().filter(|file| file.package() == "weir.v1").flat_map(|file| &file.service);
        let streams = methods.flat_map(|service| &service.method).filter(|call| call.server_streaming());
        let streams: BTreeSet<String> = streams.map(|call| format!("/{}", call.name())).collect();
        assert_eq!(streams, STREAMS.iter().map(|&name| name.to_owned()).collect());

        let metrics = Metrics::new();
        let open = || metrics.streams.with_label_values(&["Consume"]).get();
        let ended = |code: &str| metrics.calls.with_label_values(&["Consume", code]).get();
        for (status, code) in [
            (Status::ok(""), "Ok"),
            (Status::cancelled("gone"), "Cancelled"),
            (weir_rpc::Problem::new(ErrorReason::Draining, "stopping").status(), "Planned"),
            (weir_rpc::Problem::new(ErrorReason::NotEnoughReplicas, "two").status(), "Unavailable"),
        ] {
            let mut call = metrics.call("/weir.v1.ConsumerService/Consume");
            call.answered(Duration::ZERO);
            call.goes_on();
            assert_eq!((open(), ended(code)), (1, 0), "{code}");
            call.ended(&status);
            assert_eq!((open(), ended(code)), (0, 1), "{code}");
        }
        assert_eq!(metrics.call_seconds.with_label_values(&["Consume"]).get_sample_count(), 0);
    }

    #[test]
    fn every_metric_has_its_row_and_every_row_its_metric() {
        let metrics = Metrics::new();
        // What has labels shows once it has counted something.
        let produce = metrics.call("/weir.v1.ProducerService/Produce");
        produce.answered(Duration::from_millis(1));
        produce.ended(&Status::ok(""));
        metrics.call("/nonsense").ended(&Status::unimplemented("no such call"));
        metrics.call("/weir.v1.ConsumerService/Consume").goes_on();
        metrics.append_failed(ErrorReason::DiskFull);
        metrics.forwarded("/weir.v1.ProducerService/Produce", Code::Ok, 1);
        metrics.lag_bytes.with_label_values(&["2"]).set(1);
        metrics.lag_seconds.with_label_values(&["2"]).set(1.0);
        let mut families = metrics.registry.gather();
        let calls = families.iter().find(|family| family.name() == "weir_calls_total").unwrap();
        assert_eq!(calls.get_metric().len(), 2);
        families.extend(storage::gather(&weir_storage::Stats::default()));
        families.extend(storage::of_start(&Progress::default()));
        families.extend(CATALOG.usage(Usage::now()));
        families.push(CATALOG.single("weir_connections_refused_total", 0.0));
        let made: BTreeMap<&str, _> = families.iter().map(|family| (family.name(), family)).collect();
        assert_eq!(made.len(), families.len(), "two metrics have one name");
        let rows: BTreeMap<&str, _> = CATALOG.rows().map(|row| (row.name, row)).collect();
        assert!(made.keys().eq(rows.keys()), "{:?}\n{:?}", made.keys(), rows.keys());
        for (name, family) in made {
            let row = rows[name];
            assert_eq!(family.help(), row.help, "{name}");
            assert_eq!(format!("{:?}", family.get_field_type()).to_lowercase(), row.kind.word(), "{name}");
            for metric in family.get_metric() {
                let labels: BTreeSet<_> = metric.get_label().iter().map(|label| label.name()).collect();
                assert_eq!(labels, row.labels.iter().map(|label| label.name).collect(), "{name}");
            }
        }
    }
}
