//! What came out of one run, and of several.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

/// One timed phase against one server.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Report {
    /// Payload bytes moved (without envelopes).
    pub bytes: u64,
    /// Batches moved.
    pub batches: u64,
    /// Records moved.
    pub records: u64,
    /// Wall time, seconds.
    pub seconds: f64,
    /// 10^9 payload bytes a second.
    pub gb_per_s: f64,
    /// Processor time of the load generator, milliseconds per 10^9 bytes.
    pub client_cpu_ms_per_gb: f64,
    /// The same of the server, where its pid was given.
    pub server_cpu_ms_per_gb: f64,
    /// From handing a batch over to its answer, microseconds: p50, p90, p99, p99.9, max. Empty when reading.
    pub latency_us: Vec<f64>,
}

/// The percentiles in [`Report::latency_us`]; the maximum follows them.
pub const PERCENTILES: [f64; 4] = [50.0, 90.0, 99.0, 99.9];

/// A histogram of nanoseconds, up to a minute, three digits.
#[must_use]
pub fn histogram() -> Histogram<u64> {
    let mut histogram = Histogram::new_with_bounds(1, 60_000_000_000, 3)
        .unwrap_or_else(|_| Histogram::new(3).expect("3 digits are allowed"));
    histogram.auto(true);
    histogram
}

/// What connections counted while they ran; adds up.
#[derive(Clone, Debug)]
pub struct Counts {
    /// Payload bytes.
    pub bytes: u64,
    /// Batches.
    pub batches: u64,
    /// Records.
    pub records: u64,
    /// Nanoseconds from handing over to the answer.
    pub latency_ns: Histogram<u64>,
}

impl Default for Counts {
    fn default() -> Self {
        Self { bytes: 0, batches: 0, records: 0, latency_ns: histogram() }
    }
}

impl Counts {
    /// Adds what another connection counted.
    pub fn add(&mut self, other: &Self) {
        self.bytes += other.bytes;
        self.batches += other.batches;
        self.records += other.records;
        // Both have the same bounds and grow by themselves, so nothing can be out of range.
        let _ = self.latency_ns.add(&other.latency_ns);
    }

    /// The report of a phase that took `elapsed` and this much processor time.
    #[must_use]
    pub fn report(&self, elapsed: Duration, client_cpu_ms: u64, server_cpu_ms: u64) -> Report {
        let per_gb = |ms: u64| ms as f64 / (self.bytes as f64 / 1e9).max(1e-9);
        let mut latency_us = Vec::new();
        if !self.latency_ns.is_empty() {
            latency_us.extend(PERCENTILES.map(|p| self.latency_ns.value_at_percentile(p) as f64 / 1e3));
            latency_us.push(self.latency_ns.max() as f64 / 1e3);
        }
        Report {
            bytes: self.bytes,
            batches: self.batches,
            records: self.records,
            seconds: elapsed.as_secs_f64(),
            gb_per_s: gb_per_s(self.bytes, elapsed),
            client_cpu_ms_per_gb: per_gb(client_cpu_ms),
            server_cpu_ms_per_gb: per_gb(server_cpu_ms),
            latency_us,
        }
    }
}

/// The middle one, or the mean of the middle two; 0 of nothing.
#[must_use]
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = |i: usize| sorted.get(i).copied().unwrap_or(0.0);
    match sorted.len() {
        0 => 0.0,
        n if n % 2 == 1 => at(n / 2),
        n => f64::midpoint(at(n / 2 - 1), at(n / 2)),
    }
}

/// `median (min-max)`.
#[must_use]
pub fn spread(values: &[f64]) -> String {
    let min = values.iter().copied().fold(f64::INFINITY, f64::min);
    let max = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    if values.is_empty() {
        "-".to_owned()
    } else {
        format!("{} ({}-{})", digits(median(values)), digits(min), digits(max))
    }
}

/// Three digits that matter.
#[must_use]
pub fn digits(value: f64) -> String {
    match value.abs() {
        v if v >= 100.0 => format!("{value:.0}"),
        v if v >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

/// 10^9 bytes a second.
fn gb_per_s(bytes: u64, elapsed: Duration) -> f64 {
    bytes as f64 / 1e9 / elapsed.as_secs_f64().max(1e-9)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle() {
        assert_eq!(median(&[]), 0.0);
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
        assert_eq!(spread(&[1.0, 150.0, 20.0]), "20.0 (1.00-150)");
        assert_eq!(spread(&[]), "-");
    }
}
