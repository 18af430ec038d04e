//! One partition of a stream: what was read of it and not given out yet, and where its reader stands. Hot path.

use std::collections::VecDeque;

use futures::future::AbortHandle;
use weir_proto::v1::BatchDelivery;
use weir_rpc::Problem;
use weir_storage::{Frame, FrameHeader};
use weir_types::Offset;

use crate::mutant::Mutant;
use crate::reading::{self, Cursor};

/// How much is read from a log at a time; it ends at a batch's end.
const READ_BYTES: usize = 256 << 10;

/// A partition being read.
pub(super) struct Subscription {
    pub(super) generation: i64,
    pub(super) cursor: Cursor,
    pub(super) paused: bool,
    pub(super) frames: VecDeque<Frame>,
    /// The next offset of the reader: past what was delivered, and past what was filtered behind it.
    pub(super) next_offset: Offset,
    pub(super) last_timestamp_ms: i64,
    /// Whether the client has not been told of `next_offset` yet.
    pub(super) untold: bool,
    pub(super) queued: bool,
    pub(super) waiting: Option<Waiting>,
}

/// Something is waited for, until this is dropped.
pub(super) struct Waiting(pub(super) AbortHandle);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Where a reader stands behind a batch: in front of the next one, or past everything that was read, which was left out
/// (correctness rule 44).
fn behind(batch: &FrameHeader, next: Option<&Frame>, read_until: Offset) -> Offset {
    match next {
        Some(next) => next.header.base_offset,
        None if Mutant::GapUntold.is_planted() => batch.next_offset(),
        None => read_until,
    }
}

impl Subscription {
    /// Reads the next batches, leaving out what only the system needs.
    pub(super) async fn read(&mut self) -> Result<(), Problem> {
        if !self.cursor.has_more() {
            return Ok(());
        }
        let chunk = self.cursor.read(READ_BYTES).await?;
        for frame in chunk.frames() {
            if frame.header.control || frame.header.record_count == 0 {
                if self.frames.is_empty() && !Mutant::GapUntold.is_planted() {
                    self.next_offset = frame.header.next_offset();
                    self.untold = true;
                }
                continue;
            }
            self.frames.push_back(frame);
        }
        Ok(())
    }

    /// A batch as it is given out, and the position past it.
    pub(super) fn delivery(&mut self, id: i64, frame: Frame) -> BatchDelivery {
        let ends = self.cursor.log.ends();
        self.next_offset = behind(&frame.header, self.frames.front(), self.cursor.offset);
        self.last_timestamp_ms = frame.header.max_timestamp_ms;
        self.untold = false;
        BatchDelivery {
            subscription_id: id,
            generation: self.generation,
            next_offset: self.next_offset,
            high_watermark: reading::told(&ends, ends.high_watermark),
            last_stable_offset: reading::told(&ends, ends.last_stable),
            log_start_offset: ends.log_start,
            next_leader_epoch: self.cursor.log.epoch_before(self.next_offset),
            batch: Some(reading::wire_batch(frame)),
        }
    }
}

#[cfg(test)]
mod tests {
    use weir_proto::v1::RecordBatch;

    use super::*;

    #[test]
    fn a_reader_stands_past_what_was_left_out() {
        let batch = |base_offset| {
            reading::frame(RecordBatch { base_offset, last_offset_delta: 1, ..RecordBatch::default() })
        };
        assert_eq!(behind(&batch(5).header, None, 7), 7);
        assert_eq!(behind(&batch(5).header, None, 9), 9, "there are two that nobody is given");
        assert_eq!(behind(&batch(5).header, Some(&batch(8)), 10), 8);
    }

    #[test]
    fn a_gap_that_nobody_is_told_of_is_noticed() {
        assert!(Mutant::GapUntold.is_noticed_by(a_reader_stands_past_what_was_left_out));
    }
}
