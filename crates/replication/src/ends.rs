//! The ends of one replica's log, as the core is told of them.

use weir_types::{Durability, Offset};

/// The local log, as the partition's owner sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Log {
    /// The first offset still there.
    pub log_start: Offset,
    /// What is published as committed here.
    pub high_watermark: Offset,
    /// How far it is written and on this disk.
    pub ends: Ends,
}

/// How far a replica is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Ends {
    /// The end of what is written.
    pub written: Offset,
    /// The end of what is on its disk.
    pub flushed: Offset,
}

impl Ends {
    /// The end that counts: in class `fsync` what is not on the disk is not there.
    pub fn of(self, durability: Durability) -> Offset {
        match durability {
            Durability::Fsync => self.flushed,
            Durability::Replicated => self.written,
        }
    }

    /// Both ends, never going back.
    pub(crate) fn raised_to(self, other: Self) -> Self {
        Self { written: self.written.max(other.written), flushed: self.flushed.max(other.flushed) }
    }
}

/// Which leadership wrote what in a log.
pub trait History {
    /// The largest leader epoch not above this one that the log has, and its end: where the next one begins, or the
    /// log's end. An epoch below all that the log knows ends where the first of these begins, be that before the log's start.
    fn end_of(&self, epoch: weir_types::LeaderEpoch) -> (weir_types::LeaderEpoch, Offset);

    /// The leader epoch of what is just before the log's end; `None`: nothing was ever in it.
    fn last(&self) -> Option<weir_types::LeaderEpoch>;
}
