//! One partition that is read, as the fetcher sees it. Pure.

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
    /// The ends last told to the caller.
    told: (i64, i64),
}

impl Subscription {
    pub(super) fn new(wanted: Wanted) -> Self {
        Self {
            at: wanted,
            stream: None,
            waiting: false,
            parked: false,
            backoff: Backoff::usual(),
            told: (-1, -1),
        }
    }

    /// The caller wants something else.
    pub(super) fn change(&mut self, wanted: Wanted) {
        self.at = wanted;
        self.parked = false;
        self.told = (-1, -1);
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
        self.at.offset = self.at.offset.max(delivery.next_offset);
        if let Some(batch) = &delivery.batch {
            self.at.leader_epoch = Some(batch.leader_epoch);
        }
        self.backoff.reset();
        true
    }

    /// Whether a heartbeat says something new about what is wanted now.
    pub(super) fn heartbeat(
        &mut self,
        stream: u64,
        generation: i64,
        progress: &v1::PartitionProgress,
    ) -> bool {
        if self.stream != Some(stream) || generation != self.at.generation || self.parked {
            return false;
        }
        self.at.offset = self.at.offset.max(progress.next_offset);
        let tell = (self.at.offset, progress.high_watermark);
        let news = self.told != tell;
        self.told = tell;
        news
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
        let batch = Some(v1::RecordBatch { leader_epoch: 4, ..Default::default() });
        v1::BatchDelivery { generation, next_offset, batch, ..Default::default() }
    }

    fn progress(next_offset: i64) -> v1::PartitionProgress {
        v1::PartitionProgress { next_offset, high_watermark: 90, ..Default::default() }
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
        assert!(sub.heartbeat(7, 1, &progress(50)));
        assert!(!sub.heartbeat(7, 1, &progress(50)), "nothing new");
        assert!(!sub.heartbeat(6, 1, &progress(60)), "another stream's");
        sub.change(wanted(2, 0));
        sub.on_stream(7);
        assert!(!sub.heartbeat(7, 1, &progress(50)));
        assert_eq!(sub.at.offset, 0);
        assert!(sub.heartbeat(7, 2, &progress(9)));
        assert_eq!(sub.at.offset, 9);
    }
}
