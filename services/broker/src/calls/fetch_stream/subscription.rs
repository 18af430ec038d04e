//! One partition of a stream: what was read of it and not given out yet, and where its reader stands. Hot path.

use std::collections::VecDeque;

use futures::future::AbortHandle;
use weir_proto::v1::BatchDelivery;
use weir_rpc::Problem;
use weir_storage::Frame;
use weir_types::Offset;

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

impl Subscription {
    /// Reads the next batches, leaving out what only the system needs.
    pub(super) async fn read(&mut self) -> Result<(), Problem> {
        if !self.cursor.has_more() {
            return Ok(());
        }
        let chunk = self.cursor.read(READ_BYTES).await?;
        for frame in chunk.frames() {
            if frame.header.control || frame.header.record_count == 0 {
                if self.frames.is_empty() {
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
        // Behind the last batch read, everything up to the cursor was filtered out.
        self.next_offset = match self.frames.front() {
            Some(following) => following.header.base_offset,
            None => self.cursor.offset,
        };
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
