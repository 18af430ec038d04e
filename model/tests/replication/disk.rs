//! What one broker's log directory holds, and what becomes of it.

use weir_metadata::DirectoryFacts;
use weir_replication::{Ends, History, Log, Position};
use weir_types::{DirectoryId, LeaderEpoch, Offset};

/// The first of the other directories' ids.
const OTHER: u128 = 1_000_000;

/// A log directory. A record is the leader epoch that it was written in: one leadership writes an offset once, so offset
/// and epoch tell any two records apart.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Disk {
    pub(crate) directory: u128,
    /// The broker epoch that was written down, if one was.
    pub(crate) epoch_file: Option<i64>,
    /// Whether the machine runs since that was written.
    pub(crate) same_boot: bool,
    /// The marker of an orderly stop.
    pub(crate) marker: bool,
    /// Written: in the page cache at least.
    pub(crate) log: Vec<LeaderEpoch>,
    /// How many of these are on the disk.
    pub(crate) flushed: usize,
    /// Where the log begins. What is before is deleted; that it is known all the same stands for what a log knows of what
    /// was before its start.
    pub(crate) start: usize,
    /// The high watermark of the checkpoint.
    pub(crate) checkpoint: usize,
}

impl Disk {
    pub(crate) fn new(directory: u128) -> Self {
        Self {
            directory,
            epoch_file: None,
            same_boot: false,
            marker: false,
            log: Vec::new(),
            flushed: 0,
            start: 0,
            checkpoint: 0,
        }
    }

    /// What a start tells the controller of it, as `registration` in the broker's `start.rs` does.
    pub(crate) fn facts(&self) -> DirectoryFacts {
        DirectoryFacts {
            id: DirectoryId(self.directory),
            clean_epoch: self.epoch_file.filter(|_| self.marker),
            persisted_epoch: self.epoch_file,
            same_boot: self.same_boot,
            failures: Vec::new(),
        }
    }

    /// And of the broker's other directory, which nothing happens to and which holds no log: by that it is known where this
    /// one was lost. It proves no more than this one does.
    pub(crate) fn other_facts(&self) -> DirectoryFacts {
        DirectoryFacts { id: DirectoryId(OTHER + self.directory % 100), ..self.facts() }
    }

    pub(crate) fn view(&self, high_watermark: usize) -> Log {
        Log { log_start: offset(self.start), high_watermark: offset(high_watermark), ends: self.ends() }
    }

    pub(crate) fn ends(&self) -> Ends {
        Ends { written: offset(self.log.len()), flushed: offset(self.flushed) }
    }

    pub(crate) fn position(&self) -> Position {
        Position {
            log_end: offset(self.log.len()),
            flushed_end: offset(self.flushed),
            last_epoch: self.last(),
        }
    }

    pub(crate) fn cut(&mut self, to: Offset) {
        self.log.truncate(index(to));
        self.flushed = self.flushed.min(self.log.len());
        self.checkpoint = self.checkpoint.min(self.log.len());
        self.start = self.start.min(self.log.len());
    }

    pub(crate) fn flush(&mut self) {
        self.flushed = self.log.len();
    }
}

impl History for Disk {
    fn end_of(&self, epoch: LeaderEpoch) -> (LeaderEpoch, Offset) {
        // Epochs only rise in a log.
        let end = self.log.partition_point(|written| *written <= epoch);
        match end.checked_sub(1) {
            Some(last) => (self.log[last], offset(end)),
            None => (epoch, 0),
        }
    }

    fn last(&self) -> Option<LeaderEpoch> {
        self.log.last().copied()
    }
}

pub(crate) fn offset(index: usize) -> Offset {
    index as Offset
}

pub(crate) fn index(offset: Offset) -> usize {
    usize::try_from(offset).expect("offsets are not negative")
}
