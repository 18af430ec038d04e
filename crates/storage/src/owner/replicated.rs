//! The follower's way into a log: what its leader wrote is written. Hot path.
//!
//! Why the two logs are one history: frames are taken of one leadership alone, the one that this replica follows, and
//! only where the log ends. So whatever is here up to an offset of an epoch is what that epoch's leader had there
//! (correctness rules 1, 2), as long as the log was cut where the two differ before the first one came.

use std::sync::Arc;

use weir_types::LeaderEpoch;

use super::{Owed, Owner};
use crate::config::{Mutant, SEGMENT_BYTES_MAX};
use crate::core::Core;
use crate::frame::FrameHeader;
use crate::read::Frame;
use crate::replicate::{ReplicateError, Replicated, ReplicatedReply};

impl Owner {
    /// Takes a leader's frames into the group.
    pub(super) fn replicated(&mut self, core: &Arc<Core>, replicated: Replicated) {
        let Replicated { leader_epoch, frames, done } = replicated;
        let taken = match self.refuse_replicated(core, leader_epoch, &frames) {
            Some(error) => Err(error),
            None => frames.into_iter().try_for_each(|frame| self.take_frame(core, frame)),
        };
        self.group.owed.push(Owed::Replicated(ReplicatedReply::new(done), taken));
    }

    /// All that can be refused before anything is written.
    fn refuse_replicated(
        &self,
        core: &Core,
        leader_epoch: LeaderEpoch,
        frames: &[Frame],
    ) -> Option<ReplicateError> {
        if core.dir.failed() {
            return Some(ReplicateError::Failed);
        }
        if self.closed || core.dir.stopping() {
            return Some(ReplicateError::Closed);
        }
        let follows = self.admission.follows();
        if follows != Some(leader_epoch) && !core.dir.has(Mutant::AnyEpochFollowed) {
            return Some(ReplicateError::WrongEpoch { given: leader_epoch, follows });
        }
        let (mut next, mut last_epoch, mut bytes) = (self.next, self.last_epoch, 0);
        for Frame { header, payload } in frames {
            if header.base_offset != next {
                return Some(ReplicateError::Gap { expected: next, given: header.base_offset });
            }
            if let Some(what) = malformed(header, payload.len()) {
                return Some(ReplicateError::Malformed(what));
            }
            if Some(header.leader_epoch) < last_epoch || header.leader_epoch > leader_epoch {
                let what =
                    "its leader epoch is below the one before it, or above the one that it was sent in";
                return Some(ReplicateError::Malformed(what));
            }
            next = header.next_offset();
            last_epoch = Some(header.leader_epoch);
            bytes += header.frame_bytes();
        }
        let position = self.position + self.group.bytes;
        let end = position + bytes;
        core.dir.check_headroom(end - self.allocated.clamp(position, end)).err().map(ReplicateError::from)
    }

    fn take_frame(&mut self, core: &Arc<Core>, frame: Frame) -> Result<(), ReplicateError> {
        let Frame { header, payload } = frame;
        self.room_for_frame(core, header.frame_bytes(), header.last_offset(), header.append_time_ms)?;
        self.push_frame(FrameHeader { flushed_end: Some(self.ends.flushed_end), ..header }, payload);
        Ok(())
    }
}

/// What no leader writes.
fn malformed(header: &FrameHeader, payload_bytes: usize) -> Option<&'static str> {
    if header.last_offset_delta < 0 || header.record_count < 0 {
        return Some("a count is negative");
    }
    if header.codec > 15 {
        return Some("the codec's number is above 15");
    }
    if payload_bytes as u64 != u64::from(header.payload_bytes) {
        return Some("the payload is not as long as the header says");
    }
    (header.frame_bytes() > SEGMENT_BYTES_MAX).then_some("the frame is larger than any segment")
}
