//! What the log directory counts, in the form of Prometheus.

use prometheus::proto::{Bucket, Counter, Gauge, Histogram, Metric, MetricFamily, MetricType};
use weir_storage::{LogDir, Progress, Stats};

/// The figures of a log directory, at this moment.
pub(crate) fn gather(log_dir: &LogDir) -> Vec<MetricFamily> {
    let stats: &Stats = log_dir.stats();
    let counters = [
        ("weir_appends_total", "Batches appended.", &stats.appends),
        ("weir_append_bytes_total", "Bytes written to logs, headers included.", &stats.append_bytes),
        ("weir_append_groups_total", "Groups of batches written at once.", &stats.append_groups),
        ("weir_append_duplicates_total", "Batches that had been appended before.", &stats.duplicates),
        ("weir_appends_refused_total", "Batches that a partition's leader refused.", &stats.refused),
        (
            "weir_appends_disk_full_total",
            "Batches refused because too little space is left.",
            &stats.disk_full,
        ),
        ("weir_flushes_total", "Files synced for acknowledgements and checkpoints.", &stats.flushes),
        ("weir_flushed_bytes_total", "Bytes made durable.", &stats.flushed_bytes),
        ("weir_dirty_waits_total", "Times appends waited because too much was unsynced.", &stats.dirty_waits),
        ("weir_reads_cached_total", "Reads answered by the page cache alone.", &stats.reads_cached),
        ("weir_reads_cold_total", "Reads that went to the disk.", &stats.reads_cold),
        ("weir_read_bytes_total", "Bytes read from logs.", &stats.read_bytes),
        ("weir_segments_rolled_total", "Segments closed.", &stats.segments_rolled),
        ("weir_segments_deleted_total", "Segments deleted.", &stats.segments_deleted),
        ("weir_checkpoints_total", "Recovery checkpoints written.", &stats.checkpoints),
    ];
    let gauges = [
        ("weir_retention_paused", "1 while retention by time waits.", &stats.retention_paused),
        ("weir_stray_logs", "Logs of deleted topics that are kept for a while.", &stats.strays),
        ("weir_open_segment_files", "Segment files that are open.", &stats.open_files),
        ("weir_dirty_bytes", "Bytes written and not yet on the disk.", &stats.dirty_bytes),
        (
            "weir_disk_available_bytes",
            "Free space of the log directory's file system.",
            &stats.available_bytes,
        ),
    ];
    let histograms = [
        ("weir_append_group_size", "Batches in one claim of a partition.", 1.0, &stats.group_appends),
        (
            "weir_claim_wait_seconds",
            "Time that the first of a partition's queue waited for its busy owner.",
            1e-6,
            &stats.claim_wait_us,
        ),
        ("weir_flush_seconds", "Time of one file's sync.", 1e-6, &stats.flush_us),
        ("weir_flush_files", "Files in one round of the flusher.", 1.0, &stats.flush_files),
    ];
    let counters = counters.into_iter().map(|(name, help, count)| counter(name, help, count.get()));
    let gauges = gauges.into_iter().map(|(name, help, value)| gauge(name, help, value.get()));
    let histograms = histograms.into_iter().map(|(name, help, unit, histogram)| {
        let mut metric = Metric::default();
        metric.set_histogram(buckets(histogram, unit));
        family(name, help, MetricType::HISTOGRAM, metric)
    });
    counters.chain(gauges).chain(histograms).collect()
}

/// How far the start has come, also while it lasts.
pub(crate) fn of_start(progress: &Progress) -> [MetricFamily; 3] {
    [
        gauge("weir_recovery_logs", "Logs that the start found.", progress.logs.get()),
        gauge(
            "weir_recovery_logs_done",
            "Those of them that are open, or damaged.",
            progress.logs_done.get(),
        ),
        counter(
            "weir_recovery_scanned_bytes_total",
            "Bytes of logs that the start walked through, because the last stop was not in order.",
            progress.scanned_bytes.get(),
        ),
    ]
}

fn counter(name: &str, help: &str, count: u64) -> MetricFamily {
    let mut value = Counter::default();
    value.set_value(count as f64);
    let mut metric = Metric::default();
    metric.set_counter(value);
    family(name, help, MetricType::COUNTER, metric)
}

fn gauge(name: &str, help: &str, now: i64) -> MetricFamily {
    let mut value = Gauge::default();
    value.set_value(now as f64);
    let mut metric = Metric::default();
    metric.set_gauge(value);
    family(name, help, MetricType::GAUGE, metric)
}

fn family(name: &str, help: &str, kind: MetricType, metric: Metric) -> MetricFamily {
    let mut family = MetricFamily::default();
    family.set_name(name.to_owned());
    family.set_help(help.to_owned());
    family.set_field_type(kind);
    family.set_metric(vec![metric]);
    family
}

/// Powers of two, times the unit; the last bucket is the one without a bound, which the format adds by itself.
fn buckets(counts: &weir_storage::Histogram, unit: f64) -> Histogram {
    let mut cumulative = 0;
    let mut buckets = Vec::new();
    let mut bound = unit;
    for count in counts.counts() {
        cumulative += count;
        let mut bucket = Bucket::default();
        bucket.set_cumulative_count(cumulative);
        bucket.set_upper_bound(bound);
        buckets.push(bucket);
        bound *= 2.0;
    }
    buckets.pop();
    let mut histogram = Histogram::default();
    histogram.set_sample_count(cumulative);
    histogram.set_sample_sum(counts.sum() as f64 * unit);
    histogram.set_bucket(buckets);
    histogram
}
