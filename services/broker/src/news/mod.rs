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
mod lasting;

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;
use weir_cluster::Names;
use weir_metadata::Image;
use weir_types::{BrokerId, PartitionId};

pub(crate) use compare::{Behind, Seen, compare};
use lasting::Lasting;

/// What happens within this time is one line.
const GATHER: Duration = Duration::from_secs(1);
/// A new partition's other replicas join within this time: what it refuses until then is not said.
const NEW: Duration = Duration::from_secs(10);

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct News(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    gathered: Gathered,
    said: Option<Instant>,
    /// In-sync sets that the controller did not change.
    unchanged: Lasting,
    /// Logs that do not take what their leaders send: for want of room, and for any other reason.
    untaken_full: Lasting,
    untaken: Lasting,
}

/// What has happened and was not said yet.
#[derive(Debug, Default)]
pub(crate) struct Gathered {
    came: Moves,
    went: Moves,
    left: BTreeMap<(BrokerId, Why), Left>,
    joined: BTreeMap<BrokerId, Names>,
    /// By partition: what refuses for a moment, as one that is new and whose other replicas are about to join,
    /// is not said.
    refused: BTreeMap<PartitionId, Refused>,
    refused_said: Option<Instant>,
    taken: Names,
}

/// A partition that refuses appends for want of replicas.
#[derive(Debug)]
struct Refused {
    name: String,
    /// When that is said, if it is so still.
    due: Instant,
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
    Damaged,
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
            Self::Silent => {
                "it asks this broker for nothing: they do not reach each other, it hangs, or it can take nothing (its log says why)"
            }
            Self::Damaged => "its log was found damaged: it is fetched anew",
            Self::Lags => {
                "it was behind for longer than replica_lag_ms_max and the controllers' broker_session_ms"
            }
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
        let gathered = &mut self.0.lock().gathered;
        gathered.take().say();
        gathered.say_refused(Instant::now());
    }

    /// The controller did not change these in-sync sets. They are asked for again.
    pub(crate) fn unchanged(&self, image: &Image, partitions: impl Iterator<Item = PartitionId>, why: &str) {
        if let Some(names) = self.0.lock().unchanged.note(image, partitions, Duration::ZERO) {
            let (count, partitions) = (names.count(), names.to_string());
            tracing::warn!(
                why,
                count,
                partitions,
                "the controller did not change in-sync sets that this broker asked for; it asks on"
            );
        }
    }

    /// A log does not take what its leader sends, which is asked for again. `is_full`: for want of room on the disk.
    pub(crate) fn untaken(&self, image: &Image, id: PartitionId, why: &str, is_full: bool) {
        let mut state = self.0.lock();
        let lasting = if is_full { &mut state.untaken_full } else { &mut state.untaken };
        if let Some(names) = lasting.note(image, [id].into_iter(), GATHER) {
            let (count, partitions) = (names.count(), names.to_string());
            tracing::warn!(
                why,
                count,
                partitions,
                "logs do not take what their leaders send: these replicas stay behind; it is tried on"
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
            self.gathered.take().say();
        }
        if self.gathered.refused_said.is_none_or(|said| now - said >= GATHER) {
            self.gathered.say_refused(now);
        }
    }
}

impl Gathered {
    /// Appends to a partition are refused for want of replicas. `is_new`: it is in its first leadership.
    fn refuses(&mut self, id: PartitionId, name: String, is_new: bool) {
        let due = Instant::now() + if is_new { NEW } else { GATHER };
        self.refused.entry(id).or_insert(Refused { name, due });
    }

    /// They are not refused any more, or not here. Whether people were told that they are.
    fn refuses_no_more(&mut self, id: PartitionId) -> bool {
        self.refused.remove(&id).is_none()
    }

    /// Whether there is nothing to be said at once.
    fn is_empty(&self) -> bool {
        let Self { came, went, left, joined, refused: _, refused_said: _, taken } = self;
        [&came.names, &went.names, taken].into_iter().all(Names::is_empty)
            && left.is_empty()
            && joined.is_empty()
    }

    /// What is to be said at once, out of here.
    fn take(&mut self) -> Self {
        let (refused, refused_said) = (std::mem::take(&mut self.refused), self.refused_said);
        std::mem::replace(self, Self { refused, refused_said, ..Self::default() })
    }

    fn say(self) {
        let Self { came, went, left, joined, refused: _, refused_said: _, taken } = self;
        if !came.names.is_empty() {
            let (from, count, partitions) = (came.others(), came.names.count(), came.names.to_string());
            tracing::info!(count, from, partitions, "leaderships have come to this broker");
        }
        if !went.names.is_empty() {
            let (to, count, partitions) = (went.others(), went.names.count(), went.names.to_string());
            tracing::info!(count, to, partitions, "leaderships have gone from this broker");
        }
        for ((broker, why), Left { names, lag_ms }) in left {
            let is_ordered = matches!(why, Why::Removed | Why::Moved | Why::Stops);
            let (broker, why) = (broker.0, why.to_string());
            let (count, partitions) = (names.count(), names.to_string());
            let what = "replicas have left the in-sync sets of partitions led here";
            if is_ordered {
                tracing::info!(broker, count, why, lag_ms, partitions, "{what}");
            } else {
                tracing::warn!(broker, count, why, lag_ms, partitions, "{what}");
            }
        }
        for (broker, names) in joined {
            let (broker, count, partitions) = (broker.0, names.count(), names.to_string());
            tracing::info!(
                broker,
                count,
                partitions,
                "replicas have joined the in-sync sets of partitions led here"
            );
        }
        if !taken.is_empty() {
            let (count, partitions) = (taken.count(), taken.to_string());
            tracing::info!(count, partitions, "appends are taken again: enough replicas are in sync");
        }
    }

    /// Says which have refused for long enough.
    fn say_refused(&mut self, now: Instant) {
        let mut names = Names::default();
        let lasts = self.refused.extract_if(.., |_, refused| refused.due <= now);
        lasts.for_each(|(_, refused)| names.add(|| refused.name));
        if !names.is_empty() {
            self.refused_said = Some(now);
            let (count, partitions) = (names.count(), names.to_string());
            tracing::warn!(
                count,
                partitions,
                "appends are refused: fewer replicas are in sync than min_insync_replicas asks for"
            );
        }
    }
}

#[cfg(test)]
mod tests;
