//! Who may append: declared here, decided elsewhere.
//!
//! The log asks in the partition's claim, in the step that assigns the offset (correctness rule D1); the answer
//! comes from the pure core of replication. Until a leader's admission is set, everything is refused.

use weir_types::{Durability, KnownBatch, KnownProducer, LeaderEpoch, Offset, ProducerId};

use crate::append::{Append, Refused};
use crate::producers::ProducerTable;

/// Decides about appends to one partition, and how far it is committed. Called by the partition's owner alone, one
/// call at a time. It must not block.
pub trait Admission: Send + 'static {
    /// The leadership it appends in; `None`: it appends nothing. An epoch below that of the log's last frame is
    /// refused when it is set.
    fn leader_epoch(&self) -> Option<LeaderEpoch>;

    /// The leadership whose frames this replica takes ([`crate::Partition::replicate`]); `None`: it takes nobody's.
    /// Only those of an equal one are taken (rule 2). An epoch below that of the log's last frame is refused when it
    /// is set, as above.
    fn follows(&self) -> Option<LeaderEpoch> {
        None
    }

    /// It decides from now on. Called exactly once, when it is set, before anything else is asked of it: `log` is what a
    /// leader finds, and its epoch begins at the end of that.
    fn begins(&mut self, _log: &LogView<'_>) {}

    /// Whether to append. `log` is the log with everything appended before, written or about to be.
    fn admit(&mut self, log: &LogView<'_>, append: &Append) -> Verdict;

    /// How far the log is committed. The log publishes it, never lowers it, and never passes its end.
    ///
    /// Asked after each write and each flush, whoever wrote: a follower, too, learns here how far it is written
    /// (`log_end`) and on its disk (`flushed_end`). Of several that come together it may be asked once, and then sees
    /// the last. Also asked after each [`crate::Control`], and after each [`crate::Partition::advance`].
    fn high_watermark(&mut self, log: &LogView<'_>) -> Offset;

    /// Whether others are waited for that may have what was acknowledged and this log lacks: until then the log's ends are not
    /// settled. Asked when `high_watermark` was.
    fn may_lack(&self) -> bool {
        false
    }

    /// Who has everything before an offset, as far as is known in the step that acknowledges it: what a receipt says.
    fn holders(&mut self, log: &LogView<'_>, end: Offset) -> Holders {
        Holders::here(log, end)
    }
}

/// How many replicas have a part of a log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Holders {
    /// In how many it is written.
    pub written: usize,
    /// On how many disks it is.
    pub flushed: usize,
    /// In how many zones those are that count in the log's class: on disk in class `fsync`, written in the other.
    pub zones: usize,
}

impl Holders {
    /// This replica alone.
    pub fn here(log: &LogView<'_>, end: Offset) -> Self {
        let flushed = end <= log.flushed_end;
        let counts = flushed || log.durability == Durability::Replicated;
        Self { written: 1, flushed: usize::from(flushed), zones: usize::from(counts) }
    }
}

/// What becomes of an append.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It gets the next offsets, in this epoch. One below that of the last frame is refused: a start would take the
    /// frame for a torn one.
    Append {
        /// The leadership it is appended in.
        leader_epoch: LeaderEpoch,
    },
    /// It is in the log already: the answer is that of then, as soon as the original is committed (rule 17).
    Duplicate(KnownBatch),
    /// No.
    Refuse(Refused),
    /// No, but said only once the high watermark has reached the log end it was judged by: until then another
    /// leader may still judge otherwise (rule 20).
    RefuseWhenCommitted(Refused),
}

/// A log as its owner sees it.
#[derive(Clone, Copy, Debug)]
pub struct LogView<'a> {
    /// The first offset that can be read.
    pub log_start: Offset,
    /// What is published as committed.
    pub high_watermark: Offset,
    /// The end of what is on this disk.
    pub flushed_end: Offset,
    /// The next offset.
    pub log_end: Offset,
    /// The epoch of the last frame, if there ever was one.
    pub last_leader_epoch: Option<LeaderEpoch>,
    /// What "acknowledged" means here.
    pub durability: Durability,
    /// What the log says of its producers.
    pub producers: &'a ProducerTable,
    /// The append time that the next frame gets.
    pub now_ms: i64,
}

impl<'a> LogView<'a> {
    /// What is known of a producer when a frame is appended now.
    pub fn producer(&self, id: ProducerId) -> Option<KnownProducer<'a>> {
        self.producers.get(id, self.now_ms)
    }
}

/// A replica that leads nothing: it refuses, and what is committed stays so.
#[derive(Debug)]
pub struct NotLeading;

impl Admission for NotLeading {
    fn leader_epoch(&self) -> Option<LeaderEpoch> {
        None
    }

    fn admit(&mut self, _log: &LogView<'_>, _append: &Append) -> Verdict {
        Verdict::Refuse(Refused::NotLeader)
    }

    fn high_watermark(&mut self, log: &LogView<'_>) -> Offset {
        log.high_watermark
    }
}
