//! What an operator reads in the log of the partitions that this broker leads: leaderships that come and go, replicas that
//! leave the in-sync set and join it again, appends that are refused for want of replicas, and in-sync sets that the
//! controller did not change.
//!
//! A broker may lead thousands of partitions, and what happens to one of them mostly happens to all. So nothing is said of
//! one: what happens within a second is gathered, and each kind is one line, with how many and the first few.
//!
//! ```text
//!   replicas: a change of the metadata ─▶ compare ─▶ Gathered ─▶ lines, at once or with the next look at in-sync sets
//! ```

mod compare;
mod names;

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;
use weir_metadata::Image;
use weir_types::{BrokerId, PartitionId};

pub(crate) use compare::{Behind, Seen, compare};
use names::Names;

/// What happens within this time is one line.
const GATHER: Duration = Duration::from_secs(1);
/// How often it is said that in-sync sets are not changed: they are asked for several times a second.
const AGAIN: Duration = Duration::from_secs(60);

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct News(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    gathered: Gathered,
    said: Option<Instant>,
    /// In-sync sets that were not changed since that was said, and when that was.
    unchanged: Names,
    unchanged_said: Option<Instant>,
}

/// What has happened and was not said yet.
#[derive(Debug, Default)]
pub(crate) struct Gathered {
    came: Moves,
    went: Moves,
    left: BTreeMap<(BrokerId, Why), Left>,
    joined: BTreeMap<BrokerId, Names>,
    refused: Names,
    taken: Names,
}

/// Leaderships that have moved, and from or to whom.
#[derive(Debug, Default)]
struct Moves {
    names: Names,
    others: BTreeMap<Who, usize>,
}

impl Moves {
    fn add(&mut self, who: Who, name: impl FnOnce() -> String) {
        self.names.add(name);
        *self.others.entry(who).or_default() += 1;
    }

    fn others(&self) -> String {
        let each = self.others.iter().map(|(who, count)| format!("{who} ({count})"));
        each.collect::<Vec<_>>().join(", ")
    }
}

/// Who had, or has, a leadership.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Who {
    Broker(BrokerId),
    Nobody,
    /// The partition is gone.
    Deleted,
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Broker(broker) => write!(f, "broker {broker}"),
            Self::Nobody => f.write_str("nobody"),
            Self::Deleted => f.write_str("deleted"),
        }
    }
}

/// Why a replica is not in sync any more, as far as that is known here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Why {
    Removed,
    Moved,
    Failed,
    Fenced,
    Stops,
    Slow,
    /// It has no stream to this broker.
    Silent,
    Lags,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Removed => "its broker was removed",
            Self::Moved => "it is no replica of the partition any more",
            Self::Failed => "its disk has failed",
            Self::Fenced => "its broker is fenced: its process has ended, or the controllers do not hear it",
            Self::Stops => "its broker stops",
            Self::Slow => "its disk is slow",
            Self::Silent => "it asks this broker for nothing: they do not reach each other, or it hangs",
            Self::Lags => "it was behind for longer than replica_lag_ms_max",
        })
    }
}

/// Replicas of one broker that have left.
#[derive(Debug, Default)]
struct Left {
    names: Names,
    /// The longest time that one was behind.
    lag_ms: u64,
}

impl News {
    /// Something may have happened; it is said now, unless something was a moment ago.
    pub(crate) fn note(&self, happened: impl FnOnce(&mut Gathered)) {
        let mut state = self.0.lock();
        happened(&mut state.gathered);
        state.say_due();
    }

    /// Says what was gathered, if that is due. To be called now and then.
    pub(crate) fn look(&self) {
        self.0.lock().say_due();
    }

    /// Says all that was gathered.
    pub(crate) fn say(&self) {
        std::mem::take(&mut self.0.lock().gathered).say();
    }

    /// The controller did not change these in-sync sets. They are asked for again.
    pub(crate) fn unchanged(&self, image: &Image, partitions: impl Iterator<Item = PartitionId>, why: &str) {
        let now = Instant::now();
        let mut state = self.0.lock();
        partitions.for_each(|id| state.unchanged.add(|| names::of(image, id)));
        let is_due = state.unchanged_said.is_none_or(|said| now - said >= AGAIN);
        if is_due && !state.unchanged.is_empty() {
            state.unchanged_said = Some(now);
            let names = std::mem::take(&mut state.unchanged);
            tracing::warn!(
                why, count = names.count(), partitions = %names,
                "the controller did not change in-sync sets that this broker asked for; it asks on"
            );
        }
    }
}

impl State {
    fn say_due(&mut self) {
        let now = Instant::now();
        let is_due = self.said.is_none_or(|said| now - said >= GATHER);
        if is_due && !self.gathered.is_empty() {
            self.said = Some(now);
            std::mem::take(&mut self.gathered).say();
        }
    }
}

impl Gathered {
    fn is_empty(&self) -> bool {
        let Self { came, went, left, joined, refused, taken } = self;
        [&came.names, &went.names, refused, taken].into_iter().all(Names::is_empty)
            && left.is_empty()
            && joined.is_empty()
    }

    fn say(self) {
        let Self { came, went, left, joined, refused, taken } = self;
        if !came.names.is_empty() {
            let (from, names) = (came.others(), came.names);
            tracing::info!(count = names.count(), from, partitions = %names, "leaderships have come to this broker");
        }
        if !went.names.is_empty() {
            let (to, names) = (went.others(), went.names);
            tracing::info!(count = names.count(), to, partitions = %names, "leaderships have gone from this broker");
        }
        for ((broker, why), Left { names, lag_ms }) in left {
            let broker = broker.0;
            tracing::warn!(
                broker, count = names.count(), %why, lag_ms, partitions = %names,
                "replicas have left the in-sync sets of partitions led here"
            );
        }
        for (broker, names) in joined {
            let broker = broker.0;
            tracing::info!(
                broker, count = names.count(), partitions = %names,
                "replicas have joined the in-sync sets of partitions led here"
            );
        }
        if !refused.is_empty() {
            tracing::warn!(
                count = refused.count(), partitions = %refused,
                "appends are refused: fewer replicas are in sync than min_insync_replicas asks for"
            );
        }
        if !taken.is_empty() {
            tracing::info!(
                count = taken.count(), partitions = %taken,
                "appends are taken again: enough replicas are in sync"
            );
        }
    }
}

#[cfg(test)]
mod tests;
