//! What the log directory counts, in the form of Prometheus.

use prometheus::proto::{Bucket, Histogram, Metric, MetricFamily};
use weir_storage::{Progress, Stats};

use super::catalog::CATALOG;

/// The figures of a log directory, at this moment.
pub(super) fn gather(stats: &Stats) -> Vec<MetricFamily> {
    let counters = [
        ("weir_appends_total", &stats.appends),
        ("weir_append_bytes_total", &stats.append_bytes),
        ("weir_append_groups_total", &stats.append_groups),
        ("weir_append_duplicates_total", &stats.duplicates),
        ("weir_appends_refused_total", &stats.refused),
        ("weir_appends_disk_full_total", &stats.disk_full),
        ("weir_flushes_total", &stats.flushes),
        ("weir_flushes_slow_total", &stats.slow_flushes),
        ("weir_flushed_bytes_total", &stats.flushed_bytes),
        ("weir_dirty_waits_total", &stats.dirty_waits),
        ("weir_reads_cached_total", &stats.reads_cached),
        ("weir_reads_cold_total", &stats.reads_cold),
        ("weir_read_bytes_total", &stats.read_bytes),
        ("weir_segments_rolled_total", &stats.segments_rolled),
        ("weir_segments_deleted_total", &stats.segments_deleted),
        ("weir_append_time_steps_back_total", &stats.time_steps_back),
        ("weir_checkpoints_total", &stats.checkpoints),
    ];
    let gauges = [
        ("weir_disk_slow", &stats.disk_slow),
        ("weir_retention_paused", &stats.retention_paused),
        ("weir_stray_logs", &stats.strays),
        ("weir_open_segment_files", &stats.open_files),
        ("weir_mapped_sidecars", &stats.mapped_sidecars),
        ("weir_dirty_bytes", &stats.dirty_bytes),
        ("weir_disk_available_bytes", &stats.available_bytes),
        ("weir_disk_missing_bytes", &stats.missing_bytes),
    ];
    let histograms = [
        ("weir_append_group_size", 1.0, &stats.group_appends),
        ("weir_claim_wait_seconds", 1e-6, &stats.claim_wait_us),
        ("weir_flush_seconds", 1e-6, &stats.flush_us),
        ("weir_flush_files", 1.0, &stats.flush_files),
    ];
    let counters = counters.into_iter().map(|(name, count)| CATALOG.single(name, count.get() as f64));
    let gauges = gauges.into_iter().map(|(name, value)| CATALOG.single(name, value.get() as f64));
    let histograms = histograms.into_iter().map(|(name, unit, histogram)| {
        let mut metric = Metric::default();
        metric.set_histogram(buckets(histogram, unit));
        CATALOG.family(name, metric)
    });
    counters.chain(gauges).chain(histograms).collect()
}

/// How far the start has come, also while it lasts.
pub(super) fn of_start(progress: &Progress) -> [MetricFamily; 3] {
    [
        CATALOG.single("weir_recovery_logs", progress.logs.get() as f64),
        CATALOG.single("weir_recovery_logs_done", progress.logs_done.get() as f64),
        CATALOG.single("weir_recovery_scanned_bytes_total", progress.scanned_bytes.get() as f64),
    ]
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
