//! What an operator reads in the log of the controller that leads: brokers that come, stop and go, topics that are made,
//! changed and deleted, settings, and partitions that nobody leads any more.
//!
//! Brokers are few, and each has its line at once. A command may make a thousand topics, and the end of a broker may take the
//! leaders of ten thousand partitions: what happens to those within a second is gathered, and each kind is one line, with
//! how many and the first few.
//!
//! ```text
//!   changes: a committed change, written here ─▶ compare ─▶ a line, or Gathered ─▶ lines
//! ```

mod compare;
mod leaders;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;
use weir_cluster::Names;
use weir_metadata::{Delta, Image};

pub(crate) use leaders::watch as watch_leaders;

/// What happens within this time is one line.
const GATHER: Duration = Duration::from_secs(1);

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct News {
    gathered: Gathered,
    said: Option<Instant>,
}

/// What has happened and was not said yet.
#[derive(Debug, Default)]
struct Gathered {
    created: Names,
    deleted: Names,
    grown: Names,
    configured: Names,
    lost: Names,
    /// Whom those wait for that nobody leads any more, and how many wait for each.
    waits_for: BTreeMap<String, usize>,
    led: Names,
}

impl News {
    /// One change of the metadata that was decided here.
    pub(crate) fn changed(&mut self, older: &Image, newer: &Image, delta: &Delta) {
        for event in &delta.events {
            self.gathered.happened(older, newer, event);
        }
        self.gathered.led_or_not(older, newer);
    }

    /// When what was gathered is to be said, if anything was.
    pub(crate) fn due(&self) -> Option<Instant> {
        let now = Instant::now();
        (!self.gathered.is_empty()).then(|| self.said.map_or(now, |said| said + GATHER))
    }

    /// Says what was gathered.
    pub(crate) fn say(&mut self) {
        self.said = Some(Instant::now());
        std::mem::take(&mut self.gathered).say();
    }
}

impl Gathered {
    fn is_empty(&self) -> bool {
        let Self { created, deleted, grown, configured, lost, waits_for: _, led } = self;
        [created, deleted, grown, configured, lost, led].into_iter().all(Names::is_empty)
    }

    fn say(self) {
        let Self { created, deleted, grown, configured, lost, waits_for, led } = self;
        let topics = [
            (created, "topics were created"),
            (grown, "topics have got more partitions"),
            (configured, "settings of topics were changed"),
            (deleted, "topics were deleted"),
        ];
        for (names, what) in topics.into_iter().filter(|(names, _)| !names.is_empty()) {
            let (count, topics) = (names.count(), names.to_string());
            tracing::info!(count, topics, "{what}");
        }
        if !lost.is_empty() {
            let each = waits_for.iter().map(|(whom, count)| format!("{whom} ({count})"));
            let waits_for = each.collect::<Vec<_>>().join(", ");
            let (count, partitions) = (lost.count(), lost.to_string());
            tracing::warn!(
                count,
                waits_for,
                partitions,
                "partitions have lost their last leader: nothing can be written to them or read from them until somebody whom \
                 they wait for is back"
            );
        }
        if !led.is_empty() {
            let (count, partitions) = (led.count(), led.to_string());
            tracing::info!(count, partitions, "partitions that nobody led are led again");
        }
    }
}
