//! What a log directory counts. Plain atomics: whoever exports them reads them when asked.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

/// Counts since the start; each is exact, together they are of about one moment.
#[derive(Debug, Default)]
#[expect(missing_docs, reason = "the names say it; sizes are in bytes")]
pub struct Stats {
    pub appends: Counter,
    pub append_bytes: Counter,
    pub append_groups: Counter,
    pub duplicates: Counter,
    pub refused: Counter,
    pub disk_full: Counter,
    /// Appends in one claim, by powers of two.
    pub group_appends: Histogram,
    /// How long the first of what lay in a partition's queue waited for its owner, microseconds. Who finds the owner
    /// free does not wait and is not counted.
    pub claim_wait_us: Histogram,
    pub flushes: Counter,
    pub flushed_bytes: Counter,
    /// One file's sync, microseconds.
    pub flush_us: Histogram,
    /// Files whose sync took half a second or more.
    pub slow_flushes: Counter,
    /// Whether the disk is slow, and has been for a time.
    pub disk_slow: Gauge,
    /// Files in one round of the flusher.
    pub flush_files: Histogram,
    /// How often appends had to wait because too much was unsynced.
    pub dirty_waits: Counter,
    pub reads_cached: Counter,
    pub reads_cold: Counter,
    pub read_bytes: Counter,
    pub segments_rolled: Counter,
    pub segments_deleted: Counter,
    /// How often the time of a log went back, from one that the clock had not reached.
    pub time_steps_back: Counter,
    pub checkpoints: Counter,
    /// How often an owner was asked for what a start would have to read its log for.
    pub notes_asked: Counter,
    /// Whether retention by time waits: just started, or the wall clock jumped.
    pub retention_paused: Gauge,
    /// Partitions that were set aside and are kept for a while.
    pub strays: Gauge,
    pub open_files: Gauge,
    /// Sidecars of sealed segments that are mapped.
    pub mapped_sidecars: Gauge,
    pub dirty_bytes: Gauge,
    pub available_bytes: Gauge,
    /// How much more would have to be free for the appends that were refused last; 0: none is.
    pub missing_bytes: Gauge,
}

/// How far the start of a log directory has come. Whoever opens it brings this, to look at it meanwhile.
#[derive(Debug, Default)]
pub struct Progress {
    /// Logs found.
    pub logs: Gauge,
    /// Those that were opened, or found damaged.
    pub logs_done: Gauge,
    /// Bytes of logs that were walked through, because the last stop was not in order.
    pub scanned_bytes: Counter,
}

/// Only rises.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// The count.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    pub(crate) fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }
}

/// Goes up and down.
#[derive(Debug, Default)]
pub struct Gauge(AtomicI64);

impl Gauge {
    /// The value.
    pub fn get(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }

    pub(crate) fn add(&self, n: i64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    pub(crate) fn set(&self, value: u64) {
        self.0.store(i64::try_from(value).unwrap_or(i64::MAX), Ordering::Relaxed);
    }
}

/// How many values there were of each power of two.
#[derive(Debug, Default)]
pub struct Histogram {
    buckets: [AtomicU64; Self::BUCKETS],
    sum: AtomicU64,
}

impl Histogram {
    /// The last bucket holds all that is larger.
    pub const BUCKETS: usize = 28;

    pub(crate) fn record(&self, value: u64) {
        let bucket = (u64::BITS - value.saturating_sub(1).leading_zeros()) as usize;
        if let Some(count) = self.buckets.get(bucket.min(Self::BUCKETS - 1)) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        self.sum.fetch_add(value, Ordering::Relaxed);
    }

    /// The counts: bucket `i` holds the values above `2^(i-1)` and up to `2^i`, bucket 0 those up to 1.
    pub fn counts(&self) -> [u64; Self::BUCKETS] {
        std::array::from_fn(|at| self.buckets.get(at).map_or(0, |count| count.load(Ordering::Relaxed)))
    }

    /// The sum of all values.
    pub fn sum(&self) -> u64 {
        self.sum.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_counted_under_the_power_of_two_that_holds_it() {
        let histogram = Histogram::default();
        for value in [0, 1, 2, 3, 4, 5, u64::MAX >> 8] {
            histogram.record(value);
        }
        let counts = histogram.counts();
        assert_eq!(counts[..4], [2, 1, 2, 1]);
        assert_eq!(counts[Histogram::BUCKETS - 1], 1);
    }
}
