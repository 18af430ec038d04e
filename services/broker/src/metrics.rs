//! What the broker counts. Labels are bounded: calls and codes, never topics or clients.

use std::time::Duration;

use http::HeaderValue;
use prometheus::core::Collector;
use prometheus::proto::MetricFamily;
use prometheus::{
    Encoder, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, Opts, Registry, TextEncoder,
};
use weir_proto::v1::ErrorReason;
use weir_storage::{Appended, Frame, LogDir, Progress};

use crate::memory::Memory;
use crate::topic_map::TopicMap;

/// Latency buckets in seconds: 50 us to 25 s.
const LATENCY_BUCKETS: &[f64] = &[
    0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
    5.0, 10.0, 25.0,
];

/// The metrics of one broker.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    calls: IntCounterVec,
    call_seconds: HistogramVec,
    acknowledged_records: IntCounter,
    refused_appends: IntCounterVec,
    delivered_batches: IntCounter,
    delivered_records: IntCounter,
    delivered_bytes: IntCounter,
    pub(crate) slow_readers: IntCounter,
    inflight_bytes: IntGauge,
    inflight_bytes_max: IntGauge,
    pub(crate) inflight_waits: IntCounter,
    pub(crate) produce_streams: IntGauge,
    pub(crate) fetch_streams: IntGauge,
    /// Partitions looked at because something of them changed in the metadata.
    pub(crate) followed_partitions: IntCounter,
    topics: IntGauge,
    partitions_led: IntGauge,
    partitions_offline: IntGauge,
}

/// A stream that is open.
#[derive(Debug)]
pub(crate) struct OpenStream(IntGauge);

impl Drop for OpenStream {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// A call that is being answered.
pub(crate) struct Call {
    name: &'static str,
    calls: IntCounterVec,
    seconds: HistogramVec,
}

fn registered<C: Collector + Clone + 'static>(registry: &Registry, made: prometheus::Result<C>) -> C {
    // Names and labels are constants of this file; a test makes every one of them.
    let metric = made.expect("a constant metric is well-formed");
    registry.register(Box::new(metric.clone())).expect("every metric has a name of its own");
    metric
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let registry = Registry::new();
        let counter = |name: &str, help: &str| registered(&registry, IntCounter::new(name, help));
        let gauge = |name: &str, help: &str| registered(&registry, IntGauge::new(name, help));
        let vec = |name: &str, help: &str, labels: &[&str]| {
            registered(&registry, IntCounterVec::new(Opts::new(name, help), labels))
        };
        let latency = HistogramOpts::new("weir_call_seconds", "Time to the answer's headers, by call.")
            .buckets(LATENCY_BUCKETS.to_vec());
        Self {
            calls: vec("weir_calls_total", "Calls answered, by call and status code.", &["call", "code"]),
            call_seconds: registered(&registry, HistogramVec::new(latency, &["call"])),
            acknowledged_records: counter(
                "weir_acknowledged_records_total",
                "Records acknowledged to producers.",
            ),
            refused_appends: vec("weir_appends_failed_total", "Appends that failed, by reason.", &["reason"]),
            delivered_batches: counter(
                "weir_delivered_batches_total",
                "Batches given to readers as they are stored.",
            ),
            delivered_records: counter("weir_delivered_records_total", "Records given to readers."),
            delivered_bytes: counter(
                "weir_delivered_bytes_total",
                "Bytes of batches and records given to readers.",
            ),
            slow_readers: counter(
                "weir_slow_readers_total",
                "Streams given up because their client did not read.",
            ),
            inflight_bytes: gauge(
                "weir_inflight_bytes",
                "Bytes of appends that were read and not answered, or whose answers were not read.",
            ),
            inflight_bytes_max: gauge(
                "weir_inflight_bytes_max",
                "How many of them there may be (inflight_total_bytes_max).",
            ),
            inflight_waits: counter(
                "weir_inflight_waits_total",
                "Times that a call waited because there were as many.",
            ),
            produce_streams: gauge("weir_produce_streams", "Producing streams that are open."),
            fetch_streams: gauge("weir_fetch_streams", "Reading streams that are open."),
            followed_partitions: counter(
                "weir_metadata_partitions_followed_total",
                "Partitions looked at because the metadata changed, or because something failed before.",
            ),
            topics: gauge("weir_topics", "Topics in the cluster."),
            partitions_led: gauge("weir_partitions_led", "Partitions that this broker leads."),
            partitions_offline: gauge(
                "weir_partitions_offline",
                "Replicas of this broker that cannot be used.",
            ),
            registry,
        }
    }

    /// Begins a call. Paths that are no call of ours share one name.
    pub(crate) fn call(&self, path: &str) -> Call {
        let name = CALLS.iter().copied().find(|known| path.ends_with(known)).unwrap_or("other");
        Call { name, calls: self.calls.clone(), seconds: self.call_seconds.clone() }
    }

    /// An append was acknowledged.
    pub(crate) fn acknowledged(&self, appended: &Appended) {
        let records = appended.last_offset - appended.base_offset + 1;
        self.acknowledged_records.inc_by(u64::try_from(records).unwrap_or(0));
    }

    /// A batch goes to a reader as it is stored.
    pub(crate) fn delivered(&self, frame: &Frame) {
        self.delivered_batches.inc();
        self.delivered_records.inc_by(u64::from(frame.header.record_count.unsigned_abs()));
        self.delivered_bytes.inc_by(frame.payload.len() as u64);
    }

    /// Plain records go to a reader, in so many bytes.
    pub(crate) fn delivered_plain(&self, records: usize, bytes: usize) {
        self.delivered_records.inc_by(records as u64);
        self.delivered_bytes.inc_by(bytes as u64);
    }

    /// Counts a stream until dropped.
    pub(crate) fn stream(gauge: &IntGauge) -> OpenStream {
        gauge.inc();
        OpenStream(gauge.clone())
    }

    /// What the map of topics says.
    fn served(&self, topics: &TopicMap) {
        let count = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
        let placed = || topics.iter().flat_map(|topic| topic.partitions.values());
        self.topics.set(count(topics.len()));
        self.partitions_led.set(count(placed().filter(|placed| placed.local.is_some()).count()));
        self.partitions_offline.set(count(placed().filter(|placed| placed.problem.is_some()).count()));
    }

    /// An append was answered with a failure.
    pub(crate) fn append_failed(&self, reason: ErrorReason) {
        self.refused_appends.with_label_values(&[weir_rpc::reasons::name(reason)]).inc();
    }

    /// Everything, in the text format of Prometheus, with what the log directory says of itself.
    pub(crate) fn render(
        &self,
        log_dir: &LogDir,
        topics: &TopicMap,
        memory: &Memory,
        progress: &Progress,
    ) -> Vec<u8> {
        self.served(topics);
        let size = |bytes: usize| i64::try_from(bytes).unwrap_or(i64::MAX);
        self.inflight_bytes.set(size(memory.used()));
        self.inflight_bytes_max.set(size(memory.max()));
        let mut families = self.registry.gather();
        families.extend(crate::storage_metrics::gather(log_dir));
        families.extend(crate::storage_metrics::of_start(progress));
        families.sort_by(|a, b| a.name().cmp(b.name()));
        as_text(&families)
    }

    /// What can be said before the log directory is open.
    pub(crate) fn render_start(progress: &Progress) -> Vec<u8> {
        as_text(&crate::storage_metrics::of_start(progress))
    }
}

fn as_text(families: &[MetricFamily]) -> Vec<u8> {
    let mut text = Vec::new();
    if let Err(error) = TextEncoder::new().encode(families, &mut text) {
        tracing::error!(%error, "cannot render metrics");
    }
    text
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
];

impl Call {
    /// The headers of the answer are there. A status that comes later, in trailers, counts as OK here: those of
    /// streams are counted where streams end.
    pub(crate) fn answered(self, status: Option<&HeaderValue>, after: Duration) -> tonic::Code {
        let code = status.map_or(tonic::Code::Ok, |code| tonic::Code::from_bytes(code.as_bytes()));
        let name = self.name();
        self.calls.with_label_values(&[name, &format!("{code:?}")]).inc();
        self.seconds.with_label_values(&[name]).observe(after.as_secs_f64());
        code
    }

    /// What is called.
    pub(crate) fn name(&self) -> &'static str {
        self.name.trim_start_matches('/')
    }
}

#[cfg(test)]
mod tests {
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
    fn metrics_are_made_once_each() {
        let metrics = Metrics::new();
        metrics.call("/weir.v1.ProducerService/Produce").answered(None, Duration::from_millis(1));
        metrics.call("/nonsense").answered(Some(&HeaderValue::from_static("12")), Duration::ZERO);
        let families = metrics.registry.gather();
        let calls = families.iter().find(|family| family.name() == "weir_calls_total").unwrap();
        assert_eq!(calls.get_metric().len(), 2);
    }
}
