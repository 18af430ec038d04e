//! What a leader takes for the word of a follower (correctness rules 2 and D2), and who has a turn.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};
use tokio_stream::wrappers::UnboundedReceiverStream;
use weir_storage::{Acks, Partition};
use weir_types::{BrokerId, LeaderEpoch};

use super::*;
use crate::replication::feed;
use crate::testing::{ID, Parts, append, batch, recorded};

const FOLLOWER: Member = Member { broker: BrokerId(2), epoch: 1 };
const EPOCH: LeaderEpoch = 5;

/// The follower's end of a stream, in the hand of the test.
struct Stream {
    say: UnboundedSender<Result<wire::ReplicateRequest, Status>>,
    answers: UnboundedReceiver<Result<wire::ReplicateResponse, Status>>,
}

/// Data that came: the subscription, and how many bytes.
type Came = (i64, usize);

impl Stream {
    fn open(parts: &Parts, window_bytes: usize) -> Self {
        let ((say, requests), (out, answers)) = (mpsc::unbounded_channel(), mpsc::unbounded_channel());
        let hub = parts.replication.clone();
        let stream = LeadingStream::new(hub, FOLLOWER, window_bytes, out, Arc::default());
        tokio::spawn(stream.run(UnboundedReceiverStream::new(requests).boxed()));
        Self { say, answers }
    }

    fn say(&self, frame: Said) {
        self.say.send(Ok(wire::ReplicateRequest { frame: Some(frame) })).unwrap();
    }

    /// Subscribes with logs that have nothing, as these numbers. What is answered, in the same order.
    async fn subscribe(&mut self, wanted: &[(i64, PartitionId, LeaderEpoch)]) -> Vec<Answer> {
        let subscription =
            |(number, id, leader_epoch): &(i64, PartitionId, LeaderEpoch)| wire::Subscription {
                subscription: *number,
                partition: Some(id.to_wire()),
                leader_epoch: *leader_epoch,
                ..wire::Subscription::default()
            };
        let subscriptions = wanted.iter().map(subscription).collect();
        self.say(Said::Subscribe(wire::Subscribe { subscriptions }));
        loop {
            let heard = self.answers.recv().await.unwrap().unwrap();
            if let Some(Says::Answers(said)) = heard.frame {
                return said.answers.into_iter().map(|said| said.answer.unwrap()).collect();
            }
        }
    }

    /// Says that its log has everything before an offset, on its disk as well.
    fn acknowledge(&self, subscription: i64, leader_epoch: LeaderEpoch, end: i64) {
        let (written_end, flushed_end) = (end, end);
        let ends = wire::FollowerEnds { subscription, leader_epoch, written_end, flushed_end, log_start: 0 };
        self.say(Said::Acknowledge(wire::Acknowledge { ends: vec![ends] }));
    }

    /// All data that came, once nothing more comes.
    async fn data(&mut self) -> Vec<Came> {
        quiet().await;
        let mut came = Vec::new();
        while let Ok(heard) = self.answers.try_recv() {
            if let Some(data) = heard.unwrap().data {
                came.push((data.leader.unwrap().subscription, data.frames.len()));
            }
        }
        came
    }
}

/// Waits until everybody waits: only then does the clock move, which is the test's.
async fn quiet() {
    tokio::time::sleep(Duration::from_millis(1)).await;
}

fn follows(answers: &[Answer]) -> bool {
    answers.iter().all(|answer| matches!(answer, Answer::Following(_)))
}

fn committed(log: &Partition) -> i64 {
    log.ends().high_watermark
}

#[tokio::test(start_paused = true)]
async fn a_follower_of_another_leadership_is_not_answered() {
    let parts = Parts::new();
    let log = parts.lead(ID, recorded(EPOCH, &[1, 2])).await;
    let appended = append(&log, batch(9), Acks::All, None);
    let mut stream = Stream::open(&parts, 1 << 20);
    let not_leader = Answer::End(wire::SubscriptionEnd::NotLeader.into());
    let said = stream.subscribe(&[(1, ID, EPOCH - 1), (2, ID, EPOCH + 1)]).await;
    assert_eq!(said, [not_leader, not_leader]);
    assert_eq!(stream.data().await, [], "nor is anything sent to it");
    assert!(follows(&stream.subscribe(&[(3, ID, EPOCH)]).await));
    assert_eq!(stream.data().await.iter().map(|(number, _)| *number).collect::<Vec<_>>(), [3]);
    stream.acknowledge(3, EPOCH, 1);
    assert!(appended.await.unwrap().unwrap().committed);
}

#[test]
fn a_follower_of_another_leadership_that_is_answered_is_noticed() {
    assert!(Mutant::AnyEpochFollowed.is_noticed_by(a_follower_of_another_leadership_is_not_answered));
}

#[tokio::test(start_paused = true)]
async fn what_a_follower_says_under_another_leadership_counts_for_nothing() {
    let parts = Parts::new();
    let log = parts.lead(ID, recorded(EPOCH, &[1, 2])).await;
    let appended = append(&log, batch(9), Acks::All, None);
    let mut stream = Stream::open(&parts, 1 << 20);
    assert!(follows(&stream.subscribe(&[(1, ID, EPOCH)]).await));
    for (number, epoch) in [(1, EPOCH - 1), (1, EPOCH + 1), (2, EPOCH)] {
        stream.acknowledge(number, epoch, 1);
        quiet().await;
        assert_eq!(committed(&log), 0, "subscription {number} in epoch {epoch}");
    }
    stream.acknowledge(1, EPOCH, 1);
    assert!(appended.await.unwrap().unwrap().committed);
}

#[test]
fn another_leadership_that_is_heard_is_noticed() {
    let test = what_a_follower_says_under_another_leadership_counts_for_nothing;
    assert!(Mutant::AnyEpochHeard.is_noticed_by(test));
}

/// A stream breaks, the follower loses what it had not synced, and subscribes anew. What it said before comes late.
#[tokio::test(start_paused = true)]
async fn what_a_follower_said_before_it_subscribed_anew_counts_for_nothing() {
    let parts = Parts::new();
    let log = parts.lead(ID, recorded(EPOCH, &[1, 2])).await;
    let appended = append(&log, batch(9), Acks::All, None);
    let (mut before, mut now) = (Stream::open(&parts, 1 << 20), Stream::open(&parts, 1 << 20));
    assert!(follows(&before.subscribe(&[(1, ID, EPOCH)]).await));
    assert!(follows(&now.subscribe(&[(1, ID, EPOCH)]).await));
    before.acknowledge(1, EPOCH, 1);
    quiet().await;
    assert_eq!(committed(&log), 0);
    // Nor does the end of the one that is over take the other one's word.
    drop(before);
    quiet().await;
    now.acknowledge(1, EPOCH, 1);
    assert!(appended.await.unwrap().unwrap().committed);
}

#[test]
fn numbers_that_two_subscriptions_share_are_noticed() {
    let test = what_a_follower_said_before_it_subscribed_anew_counts_for_nothing;
    assert!(Mutant::NumberReused.is_noticed_by(test));
}

/// Two partitions that are followed as subscriptions 1 and 2, and batches of so many bytes in the first one, which nobody has.
async fn two(parts: &Parts, batches: usize, bytes: usize) -> [Partition; 2] {
    let other = PartitionId { partition: 1, ..ID };
    let logs = [ID, other].map(|id| parts.lead(id, recorded(EPOCH, &[1, 2])));
    let [first, second] = logs;
    let (first, second) = (first.await, second.await);
    for _ in 0..batches {
        drop(append(&first, batch(bytes), Acks::All, None));
    }
    [first, second]
}

const BOTH: [(i64, PartitionId, LeaderEpoch); 2] =
    [(1, ID, EPOCH), (2, PartitionId { partition: 1, ..ID }, EPOCH)];

#[tokio::test(start_paused = true)]
async fn a_log_that_lags_leaves_room_for_the_others() {
    let (parts, batch_bytes) = (Parts::new(), 1 << 20);
    let batches = 2 * feed::WINDOW_BYTES / batch_bytes;
    let [lags, other] = two(&parts, batches, batch_bytes).await;
    let mut stream = Stream::open(&parts, feed::WINDOW_BYTES + 2 * batch_bytes);
    assert!(follows(&stream.subscribe(&BOTH).await));
    // The follower cannot write the first one: it says nothing of it.
    let came = stream.data().await;
    let bytes: usize = came.iter().map(|(_, bytes)| bytes).sum();
    assert!(came.iter().all(|(number, _)| *number == 1), "{came:?}");
    assert!((feed::WINDOW_BYTES..feed::WINDOW_BYTES + 2 * batch_bytes).contains(&bytes), "{bytes} bytes");
    for next in 1..=3 {
        let appended = append(&other, batch(9), Acks::All, None);
        let came = stream.data().await;
        assert!(matches!(came.as_slice(), [(2, _)]), "{came:?}");
        stream.acknowledge(2, EPOCH, next);
        assert!(appended.await.unwrap().unwrap().committed);
    }
    assert_eq!(committed(&lags), 0);
    // And goes on once it can, as far as it has come each time.
    let all = i64::try_from(batches).unwrap();
    for end in 1..=all {
        stream.acknowledge(1, EPOCH, end);
        let came = stream.data().await;
        let is_more = end + i64::try_from(feed::WINDOW_BYTES / batch_bytes).unwrap() <= all;
        assert_eq!(came.iter().filter(|(number, _)| *number == 1).count(), usize::from(is_more), "{end}");
    }
    assert_eq!(committed(&lags), all);
}

#[test]
fn a_log_that_leaves_no_room_for_the_others_is_noticed() {
    assert!(Mutant::NoWindowOfAPartition.is_noticed_by(a_log_that_lags_leaves_room_for_the_others));
}

#[tokio::test(start_paused = true)]
async fn a_log_that_is_far_behind_does_not_go_before_the_others() {
    let (parts, batches) = (Parts::new(), 16);
    let [_far, other] = two(&parts, batches, READ_BYTES).await;
    let appended = append(&other, batch(9), Acks::All, None);
    let mut stream = Stream::open(&parts, 2 * batches * READ_BYTES);
    assert!(follows(&stream.subscribe(&BOTH).await));
    let came = stream.data().await;
    let place = came.iter().position(|(number, _)| *number == 2);
    assert_eq!(came.len(), batches + 1);
    assert!(place.is_some_and(|place| place <= 1), "behind one read of the first at most: {came:?}");
    stream.acknowledge(2, EPOCH, 1);
    assert!(appended.await.unwrap().unwrap().committed);
}
