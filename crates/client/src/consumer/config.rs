//! How a consumer is to be.

use crate::offsets::Isolation;
use crate::{Error, Result};

/// What to do when a position is not in the log any more. Skipping or repeating records is never the default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reset {
    /// Say so: [`poll`](super::Consumer::poll) fails, and the partition is not read until somebody seeks.
    #[default]
    Error,
    /// Go on at the first record still there.
    Earliest,
    /// Go on at the end.
    Latest,
}

/// How a consumer is to be.
#[derive(Clone, Debug)]
pub struct ConsumerConfig {
    pub(super) isolation: Isolation,
    pub(super) prefetch_bytes: usize,
    pub(super) prefetch_records: usize,
    pub(super) out_of_range: Reset,
    pub(super) truncated: Reset,
    pub(super) rack: String,
}

impl Default for ConsumerConfig {
    fn default() -> Self {
        Self {
            isolation: Isolation::Committed,
            prefetch_bytes: 16 << 20,
            prefetch_records: 256 * 1024,
            out_of_range: Reset::Error,
            truncated: Reset::Error,
            rack: String::new(),
        }
    }
}

impl ConsumerConfig {
    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// What to see of transactions. Only what is committed.
    #[must_use]
    pub fn isolation(mut self, isolation: Isolation) -> Self {
        self.isolation = isolation;
        self
    }

    /// How many bytes of batches may be fetched and not polled yet, from each broker. 16 MiB. One batch may go
    /// beyond.
    #[must_use]
    pub fn prefetch_bytes(mut self, bytes: usize) -> Self {
        self.prefetch_bytes = bytes;
        self
    }

    /// How many records, likewise. 262,144. This bounds the number of batches where they are tiny.
    #[must_use]
    pub fn prefetch_records(mut self, records: usize) -> Self {
        self.prefetch_records = records;
        self
    }

    /// When a position is below the first record or above the end. [`Reset::Error`].
    #[must_use]
    pub fn out_of_range(mut self, reset: Reset) -> Self {
        self.out_of_range = reset;
        self
    }

    /// When what was read last is not in the log any more, because an unclean election lost it. [`Reset::Error`].
    #[must_use]
    pub fn truncated(mut self, reset: Reset) -> Self {
        self.truncated = reset;
        self
    }

    /// Where this client stands: what brokers there have as their `rack`. A partition is read from a replica of that rack
    /// that is in sync, and from its leader where there is none, or while that does not serve it. A replica gives out what
    /// it knows to be committed, which may be a moment later than the leader. Empty: leaders are read.
    #[must_use]
    pub fn rack(mut self, rack: impl Into<String>) -> Self {
        self.rack = rack.into();
        self
    }

    pub(super) fn check(&self) -> Result<()> {
        if self.prefetch_bytes == 0 || self.prefetch_records == 0 {
            return Err(Error::invalid("prefetch_bytes and prefetch_records must be at least 1"));
        }
        Ok(())
    }
}
