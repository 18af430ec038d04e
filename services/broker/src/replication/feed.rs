//! One partition on its way to one follower: what was sent, what was not heard of yet, what the follower knows. Hot path.

use std::collections::VecDeque;
use std::sync::Arc;

use weir_proto::internal::v1 as wire;
use weir_replication::{Ends, Member};
use weir_storage::{Limit, ReadRequest};
use weir_types::Offset;

use crate::mutant::Mutant;
use crate::replication::bells::Bell;
use crate::replication::led::Led;

/// Bytes of one partition that may be on their way to one follower: one that cannot write does not hold up the others.
pub(super) const WINDOW_BYTES: usize = 8 << 20;
/// Bytes read and sent at once: what fits into one DATA frame, so that it lies in one piece where it arrives.
pub(crate) const READ_BYTES: usize = weir_rpc::tuning::FRAME_BYTES as usize;

/// See the module.
pub(crate) struct Feed {
    pub(crate) led: Arc<Led>,
    who: Member,
    /// The subscription's number in the leadership; on the stream it has another one.
    number: u64,
    /// The first offset that was not read.
    next: Offset,
    /// What was sent and not heard of: up to where, and how much.
    in_flight: VecDeque<(Offset, usize)>,
    in_flight_bytes: usize,
    /// A read is on its way.
    pub(crate) is_reading: bool,
    /// It waits for room in the stream's window.
    pub(crate) is_blocked: bool,
    /// The high watermark and log start that the follower knows.
    told: (Offset, Offset),
    pub(crate) bell: Arc<Bell<i64>>,
}

impl Feed {
    pub(crate) fn new(led: Arc<Led>, who: Member, number: u64, from: Offset, bell: Arc<Bell<i64>>) -> Self {
        Self {
            led,
            who,
            number,
            next: from,
            in_flight: VecDeque::new(),
            in_flight_bytes: 0,
            is_reading: false,
            is_blocked: false,
            told: (0, 0),
            bell,
        }
    }

    /// Where that is.
    pub(crate) fn next(&self) -> Offset {
        self.next
    }

    /// What is to be read next, if anything is, and there is room for it.
    pub(crate) fn read(&self) -> Option<ReadRequest> {
        let has_more = self.next < self.led.log().ends.written;
        let has_room = self.in_flight_bytes < WINDOW_BYTES || Mutant::NoWindowOfAPartition.is_planted();
        (has_more && !self.is_reading && !self.is_blocked && has_room).then_some(ReadRequest {
            from: self.next,
            bytes_max: READ_BYTES,
            limit: Limit::LogEnd,
        })
    }

    /// This was read and is sent.
    pub(crate) fn sent(&mut self, next: Offset, bytes: usize) {
        self.next = next;
        self.in_flight.push_back((next, bytes));
        self.in_flight_bytes += bytes;
    }

    /// The follower says how far it is, and where its log begins. How many bytes are not on their way any more.
    pub(crate) fn acknowledged(&mut self, ends: Ends, log_start: Offset) -> usize {
        self.led.acknowledged(self.who.broker, self.number, ends, log_start);
        let mut arrived = 0;
        while let Some((_, bytes)) = self.in_flight.pop_front_if(|(end, _)| *end <= ends.written) {
            arrived += bytes;
        }
        self.in_flight_bytes -= arrived;
        arrived
    }

    /// What the follower is to know of the log beside its batches, if that is news; it counts as told.
    pub(crate) fn progress(&mut self, subscription: i64) -> Option<wire::LeaderEnds> {
        let log = self.led.log();
        let now = (log.high_watermark, log.log_start);
        (now != self.told).then(|| self.leader_ends(subscription))
    }

    /// What the follower is to know of the log; it counts as told.
    pub(crate) fn leader_ends(&mut self, subscription: i64) -> wire::LeaderEnds {
        let log = self.led.log();
        self.told = (log.high_watermark, log.log_start);
        wire::LeaderEnds {
            subscription,
            leader_epoch: self.led.epoch(),
            high_watermark: log.high_watermark,
            log_start: log.log_start,
        }
    }

    /// Bytes on their way.
    pub(crate) fn in_flight_bytes(&self) -> usize {
        self.in_flight_bytes
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.led.unsubscribe(self.who.broker, self.number);
    }
}
