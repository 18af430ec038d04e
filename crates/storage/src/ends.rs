//! Where a log begins and ends.
//!
//! ```text
//!   log_start          last_stable      high_watermark         log_end
//!      |---- committed ----|-- open transactions --|-- may disappear --|  next append
//!                                        flushed_end: anywhere from log_start to log_end
//! ```

use weir_types::Offset;

/// The ends of a log at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Ends {
    /// The first offset that can be read.
    pub log_start: Offset,
    /// Everything before it belongs to no open transaction.
    pub last_stable: Offset,
    /// Everything before it is committed: it stays, whatever happens within the promise of the class.
    pub high_watermark: Offset,
    /// Everything before it is on this disk.
    pub flushed_end: Offset,
    /// The offset that the next append gets.
    pub log_end: Offset,
    /// Where the leadership begins that this replica has; 0 if it has none.
    pub epoch_start: Offset,
    /// Whether the leader waits for others that may have more than it ([`crate::Admission::may_lack`]).
    pub may_lack: bool,
}

impl Ends {
    /// The end of what a reader with this limit may see.
    pub fn end(&self, limit: Limit) -> Offset {
        match limit {
            Limit::Stable => self.last_stable,
            Limit::HighWatermark => self.high_watermark,
            Limit::LogEnd => self.log_end,
        }
    }

    /// Whether the high watermark is what a leader may tell: it has reached the start of its leadership. Until then it may
    /// be lower than one that another leader has told before (correctness rule 4); so may be all that it has, while it waits
    /// for others that may have more (rule 8).
    pub fn is_settled(&self) -> bool {
        self.high_watermark >= self.epoch_start && !self.may_lack
    }

    /// The one place where the order is asserted: whoever publishes ends calls it.
    pub(crate) fn checked(self) -> Self {
        assert!(
            self.log_start <= self.last_stable
                && self.last_stable <= self.high_watermark
                && self.high_watermark <= self.log_end
                && self.flushed_end <= self.log_end,
            "the ends of a log are in order: {self:?}"
        );
        self
    }
}

/// How far a reader may see.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Limit {
    /// What is committed and belongs to no open transaction.
    Stable,
    /// What is committed.
    HighWatermark,
    /// Everything, for replicas and tools: also what lies before the start, as long as it is there.
    LogEnd,
}
