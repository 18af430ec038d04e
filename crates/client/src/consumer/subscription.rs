//! One partition that is read, as the fetcher sees it. Pure.

use std::cmp::Ordering;
use std::sync::Arc;

use weir_proto::v1;

use crate::backoff::Backoff;

/// What the caller wants read.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    pub(super) id: i64,
    pub(super) generation: i64,
    pub(super) topic: Arc<str>,
    pub(super) topic_id: Arc<str>,
    pub(super) partition: i32,
    pub(super) offset: i64,
    pub(super) leader_epoch: Option<i32>,
    pub(super) paused: bool,
}

impl Wanted {
    /// Where reading goes on, and the epoch of what is before that, after a batch or something that is not handed out.
    ///
    /// What is skipped may be of a newer epoch than the batch before it (the fence of a new leader, say): `next_epoch`,
    /// if the leader says so. Where it does not, a position behind it has no epoch: with an older one the leader would
    /// take it for a position on a history that was cut off.
    pub(super) fn after(
        &self,
        next_offset: i64,
        next_epoch: Option<i32>,
        batch: Option<&v1::RecordBatch>,
    ) -> (i64, Option<i32>) {
        let mut after = (self.offset, self.leader_epoch);
        if let Some(batch) = batch {
            let end = batch.base_offset.saturating_add(i64::from(batch.last_offset_delta)).saturating_add(1);
            if end >= after.0 {
                after = (end, Some(batch.leader_epoch));
            }
        }
        match next_offset.cmp(&after.0) {
            Ordering::Greater => (next_offset, next_epoch),
            Ordering::Equal => (next_offset, after.1.or(next_epoch)),
            Ordering::Less => after,
        }
    }

    /// The same after a delivery.
    pub(super) fn after_delivery(&self, delivery: &v1::BatchDelivery) -> (i64, Option<i32>) {
        self.after(delivery.next_offset, delivery.next_leader_epoch, delivery.batch.as_ref())
    }

    /// Whether the leader's log has something else before this position than what was read.
    fn is_elsewhere(&self, progress: &v1::PartitionProgress) -> bool {
        let known = self.leader_epoch.zip(progress.leader_epoch);
        progress.next_offset == self.offset && known.is_some_and(|(read, there)| read != there)
    }
}

#[derive(Debug)]
pub(super) struct Subscription {
    /// What is wanted, and where the stream has got to.
    pub(super) at: Wanted,
    /// The stream that it is read on.
    pub(super) stream: Option<u64>,
    /// Whether it waits for the clock.
    pub(super) waiting: bool,
    /// Whether it ended for a reason that the caller must look at.
    pub(super) parked: bool,
    pub(super) backoff: Backoff,
    /// A replica nearby did not serve it: the leader is read, for now.
    pub(super) far: bool,
    /// The position, its epoch and the end last told to the caller.
    told: Option<(i64, Option<i32>, i64)>,
}

/// What a heartbeat says of a subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Heartbeat {
    Nothing,
    /// The position or the end of the log is another.
    News,
    /// What was read is not in the leader's log.
    Truncated,
}

impl Subscription {
    pub(super) fn new(wanted: Wanted) -> Self {
        Self {
            at: wanted,
            stream: None,
            waiting: false,
            parked: false,
            backoff: Backoff::usual(),
            far: false,
            told: None,
        }
    }

    /// The caller wants something else.
    pub(super) fn change(&mut self, wanted: Wanted) {
        self.at = wanted;
        self.parked = false;
        self.told = None;
    }

    /// It is read on this stream from now on.
    pub(super) fn on_stream(&mut self, stream: u64) -> v1::FetchAssign {
        self.stream = Some(stream);
        self.assign()
    }

    pub(super) fn off_stream(&mut self) {
        self.stream = None;
    }

    fn assign(&self) -> v1::FetchAssign {
        let at = &self.at;
        v1::FetchAssign {
            subscription_id: at.id,
            generation: at.generation,
            topic: at.topic.as_ref().to_owned(),
            partition: at.partition,
            offset: at.offset,
            paused: at.paused,
            topic_id: at.topic_id.as_ref().to_owned(),
            leader_epoch: at.leader_epoch,
        }
    }

    /// Whether a delivery is for us; if so, reading goes on behind it.
    pub(super) fn delivered(&mut self, stream: u64, delivery: &v1::BatchDelivery) -> bool {
        if self.stream != Some(stream) || delivery.generation != self.at.generation || self.parked {
            return false;
        }
        (self.at.offset, self.at.leader_epoch) = self.at.after_delivery(delivery);
        self.backoff.reset();
        true
    }

    /// What a heartbeat says about what is wanted now.
    pub(super) fn heartbeat(
        &mut self,
        stream: u64,
        generation: i64,
        progress: &v1::PartitionProgress,
    ) -> Heartbeat {
        if self.stream != Some(stream) || generation != self.at.generation || self.parked {
            return Heartbeat::Nothing;
        }
        if self.at.is_elsewhere(progress) {
            return Heartbeat::Truncated;
        }
        (self.at.offset, self.at.leader_epoch) =
            self.at.after(progress.next_offset, progress.leader_epoch, None);
        let tell = (self.at.offset, self.at.leader_epoch, progress.high_watermark);
        if self.told == Some(tell) {
            return Heartbeat::Nothing;
        }
        self.told = Some(tell);
        Heartbeat::News
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(generation: i64, offset: i64) -> Wanted {
        Wanted {
            id: 1,
            generation,
            topic: "t".into(),
            topic_id: "".into(),
            partition: 0,
            offset,
            leader_epoch: None,
            paused: false,
        }
    }

    fn delivery(generation: i64, next_offset: i64) -> v1::BatchDelivery {
        let batch = v1::RecordBatch {
            base_offset: next_offset - 5,
            last_offset_delta: 4,
            leader_epoch: 4,
            ..Default::default()
        };
        let batch = Some(batch);
        v1::BatchDelivery { generation, next_offset, batch, ..Default::default() }
    }

    fn progress(next_offset: i64) -> v1::PartitionProgress {
        v1::PartitionProgress { next_offset, high_watermark: 90, ..Default::default() }
    }

    fn in_epoch(epoch: i32, next_offset: i64) -> v1::PartitionProgress {
        v1::PartitionProgress { leader_epoch: Some(epoch), ..progress(next_offset) }
    }

    #[test]
    fn it_goes_on_where_it_was_and_names_the_epoch() {
        let mut sub = Subscription::new(wanted(1, 10));
        assert_eq!(sub.on_stream(7).leader_epoch, None);
        assert!(sub.delivered(7, &delivery(1, 20)));
        assert!(!sub.delivered(6, &delivery(1, 30)), "another stream's");
        sub.off_stream();
        let assign = sub.on_stream(8);
        assert_eq!((assign.offset, assign.leader_epoch), (20, Some(4)));
    }

    #[test]
    fn the_epoch_of_what_was_skipped_is_not_guessed() {
        let mut sub = Subscription::new(wanted(1, 10));
        sub.on_stream(7);
        assert!(sub.delivered(7, &delivery(1, 20)));
        // Behind the batch comes something that is not handed out, of an epoch that nobody named.
        assert_eq!(sub.heartbeat(7, 1, &progress(20)), Heartbeat::News);
        assert_eq!((sub.at.offset, sub.at.leader_epoch), (20, Some(4)), "nothing was skipped");
        assert_eq!(sub.heartbeat(7, 1, &progress(21)), Heartbeat::News);
        assert_eq!((sub.at.offset, sub.at.leader_epoch), (21, None));
        assert!(sub.delivered(7, &v1::BatchDelivery { next_offset: 31, ..delivery(1, 30) }));
        assert_eq!((sub.at.offset, sub.at.leader_epoch), (31, None));
    }

    #[test]
    fn the_epoch_of_what_was_skipped_is_the_one_that_the_leader_names() {
        let mut sub = Subscription::new(wanted(1, 10));
        sub.on_stream(7);
        assert_eq!(sub.heartbeat(7, 1, &in_epoch(3, 10)), Heartbeat::News);
        assert_eq!((sub.at.offset, sub.at.leader_epoch), (10, Some(3)), "of what is before the start, too");
        assert!(sub.delivered(7, &delivery(1, 20)));
        assert_eq!(sub.heartbeat(7, 1, &in_epoch(6, 21)), Heartbeat::News);
        assert_eq!((sub.at.offset, sub.at.leader_epoch), (21, Some(6)));
        let behind = v1::BatchDelivery { next_offset: 31, next_leader_epoch: Some(8), ..delivery(1, 30) };
        assert!(sub.delivered(7, &behind));
        assert_eq!((sub.at.offset, sub.at.leader_epoch), (31, Some(8)));
    }

    #[test]
    fn another_epoch_before_the_same_position_is_another_history() {
        let mut sub = Subscription::new(wanted(1, 10));
        sub.on_stream(7);
        assert!(sub.delivered(7, &delivery(1, 20)));
        assert_eq!(sub.heartbeat(7, 1, &in_epoch(5, 20)), Heartbeat::Truncated);
        assert_eq!((sub.at.offset, sub.at.leader_epoch), (20, Some(4)), "it stays where it was");
        assert_eq!(sub.heartbeat(7, 1, &in_epoch(4, 20)), Heartbeat::News);
    }

    #[test]
    fn older_generations_are_dropped() {
        let mut sub = Subscription::new(wanted(1, 10));
        sub.on_stream(7);
        sub.change(wanted(2, 0));
        assert!(!sub.delivered(7, &delivery(1, 20)));
        assert!(sub.delivered(7, &delivery(2, 5)));
    }

    #[test]
    fn a_heartbeat_moves_the_position_of_the_generation_that_it_names() {
        let mut sub = Subscription::new(wanted(1, 10));
        sub.on_stream(7);
        assert_eq!(sub.heartbeat(7, 1, &progress(50)), Heartbeat::News);
        assert_eq!(sub.heartbeat(7, 1, &progress(50)), Heartbeat::Nothing, "nothing new");
        assert_eq!(sub.heartbeat(6, 1, &progress(60)), Heartbeat::Nothing, "another stream's");
        sub.change(wanted(2, 0));
        sub.on_stream(7);
        assert_eq!(sub.heartbeat(7, 1, &progress(50)), Heartbeat::Nothing);
        assert_eq!(sub.at.offset, 0);
        assert_eq!(sub.heartbeat(7, 2, &progress(9)), Heartbeat::News);
        assert_eq!(sub.at.offset, 9);
    }
}
