//! What came of the events of one kind.

use std::time::Duration;

/// What one event did to the partition that it hit hardest.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sample {
    /// The longest time between two acknowledgements, one before and one after.
    pub(crate) gap: Duration,
    /// From the event to the first acknowledgement by another leader, or whatever else is waited for.
    pub(crate) after: Duration,
    /// The longest that a record waited, from when it was due.
    pub(crate) waited: Duration,
}

impl Sample {
    /// The worse of both.
    pub(crate) fn worst(self, other: Self) -> Self {
        Self {
            gap: self.gap.max(other.gap),
            after: self.after.max(other.after),
            waited: self.waited.max(other.waited),
        }
    }
}

/// The head of the table. `after`: what the second figure is.
pub(crate) fn head() {
    println!(
        "\n| event | events | longest gap between acknowledgements, p50 / p90 / p99 / max ms | from the event, p50 / p90 / p99 / max ms | longest wait of a record, p50 / p90 / p99 / max ms | failed produces |"
    );
    println!("|---|---|---|---|---|---|");
}

/// A line of it.
pub(crate) fn row(name: &str, samples: &[Sample], failed: usize) {
    let of = |field: fn(&Sample) -> Duration| percentiles(samples.iter().map(field).collect());
    println!(
        "| {name} | {} | {} | {} | {} | {failed} |",
        samples.len(),
        of(|sample| sample.gap),
        of(|sample| sample.after),
        of(|sample| sample.waited)
    );
}

/// p50 / p90 / p99 / max, in milliseconds: of that many the one that is not exceeded by so many.
pub(crate) fn percentiles(mut times: Vec<Duration>) -> String {
    times.sort_unstable();
    let at = |part: f64| {
        let rank = (part * times.len() as f64).ceil() as usize;
        times.get(rank.saturating_sub(1)).map_or_else(|| "-".to_owned(), |time| ms(*time))
    };
    [0.5, 0.9, 0.99, 1.0].map(at).join(" / ")
}

/// Milliseconds.
pub(crate) fn ms(time: Duration) -> String {
    let ms = time.as_secs_f64() * 1e3;
    if ms < 100.0 { format!("{ms:.1}") } else { format!("{ms:.0}") }
}
