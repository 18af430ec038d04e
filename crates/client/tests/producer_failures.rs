//! The producer against a cluster that loses, delays and refuses: what arrives is there once, in order.

#![allow(clippy::unwrap_used, reason = "a test may stop at a surprise")]

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::sending::{numbers, offsets, packed, producer, send, singles};
use common::{Cluster, Fate, builder, client, cluster};
use weir_client::{Acks, AppendOptions, Applied, ErrorReason, Producer, ProducerConfig, Receipt, Record};

#[tokio::test(start_paused = true)]
async fn a_lost_acknowledgement_is_made_up_for_and_nothing_is_doubled() {
    let cluster = cluster();
    cluster.topic("a", 1);
    let producer = producer(&cluster, singles()).await;
    cluster.fates([Fate::Normal, Fate::LoseAck]);
    let receipts = send(&producer, 20).await;
    assert_eq!(offsets(receipts).await, (0..20).collect::<Vec<_>>());
    assert_eq!(cluster.values("a", 0), numbers(20));
}

#[tokio::test(start_paused = true)]
async fn connections_that_break_again_and_again_change_nothing() {
    let cluster = cluster();
    cluster.topic("a", 1);
    let producer = producer(&cluster, singles()).await;
    let mut n = 0;
    cluster.script(move |_| {
        n += 1;
        // A cut takes the answers before it along, so there must be more between two than are in flight.
        match n % 23 {
            7 => Fate::CutBefore,
            15 => Fate::LoseAck,
            _ => Fate::Normal,
        }
    });
    let receipts = send(&producer, 100).await;
    assert_eq!(offsets(receipts).await, (0..100).collect::<Vec<_>>());
    assert_eq!(cluster.values("a", 0), numbers(100));
}

#[tokio::test(start_paused = true)]
async fn a_refusal_that_passes_is_repeated_in_order() {
    let cluster = cluster();
    cluster.topic("a", 1);
    let producer = producer(&cluster, singles()).await;
    cluster.fates([
        Fate::Normal,
        Fate::Fail(ErrorReason::NotEnoughReplicas),
        Fate::Normal,
        Fate::FailMaybe(ErrorReason::OutcomeUnknown),
    ]);
    let receipts = send(&producer, 30).await;
    assert_eq!(offsets(receipts).await, (0..30).collect::<Vec<_>>());
    assert_eq!(cluster.values("a", 0), numbers(30));
}

#[tokio::test(start_paused = true)]
async fn the_leader_is_followed() {
    let cluster = Cluster::start(2);
    cluster.topic("a", 1);
    let producer = producer(&cluster, singles()).await;
    let first = send(&producer, 10).await;
    cluster.lead("a", 0, 2);
    let then = send(&producer, 10).await;
    assert_eq!(offsets(first).await.len(), 10);
    assert_eq!(offsets(then).await.len(), 10);
    let expected: Vec<_> = numbers(10).into_iter().chain(numbers(10)).collect();
    assert_eq!(cluster.values("a", 0), expected);
    assert_eq!(cluster.lock().sent.last().unwrap().broker, 2);
}

#[tokio::test(start_paused = true)]
async fn a_silent_leader_is_left_when_another_leads() {
    let cluster = Cluster::start(2);
    cluster.topic("a", 1);
    let client =
        builder(&cluster).metadata_age_max(Duration::from_secs(2)).connect("broker1:1").await.unwrap();
    let producer = client.producer(singles()).unwrap();
    cluster.script(|sent| if sent.broker == 1 { Fate::AppendAndForget } else { Fate::Normal });
    let receipts = send(&producer, 3).await;
    common::until("they arrived", || async { cluster.lock().sent.len() == 3 }).await;
    cluster.lead("a", 0, 2);
    assert_eq!(offsets(receipts).await, [0, 1, 2]);
    assert_eq!(cluster.values("a", 0), numbers(3));
}

#[tokio::test(start_paused = true)]
async fn a_goodbye_is_no_failure() {
    let cluster = cluster();
    cluster.topic("a", 1);
    let producer = producer(&cluster, singles()).await;
    offsets(send(&producer, 3).await).await;
    cluster.drain(1, true);
    let receipts = send(&producer, 5).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    cluster.drain(1, false);
    assert_eq!(offsets(receipts).await, [3, 4, 5, 6, 7]);
    assert!(cluster.net().dialled("broker1") >= 3, "a new connection after the goodbye");
}

#[tokio::test(start_paused = true)]
async fn a_forgotten_producer_goes_on_under_a_new_id() {
    let cluster = cluster();
    cluster.topic("a", 1);
    let producer = producer(&cluster, singles()).await;
    offsets(send(&producer, 3).await).await;
    cluster.lock().topics.get_mut("a").unwrap().logs[0].forget_producers();
    assert_eq!(offsets(send(&producer, 3).await).await, [3, 4, 5]);
    assert_eq!(cluster.calls("OpenProducer"), 2);
    let sent = cluster.lock().sent.last().unwrap().append.batch.clone().unwrap();
    assert_eq!(sent.producer.unwrap().id, 102);
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_is_refused_for_good_fails_alone() {
    let cluster = cluster();
    cluster.topic("a", 1);
    let producer = producer(&cluster, singles()).await;
    cluster.fates([Fate::Normal, Fate::Fail(ErrorReason::TimestampOutOfRange)]);
    let mut receipts = send(&producer, 10).await;
    let refused = receipts.remove(1).await.unwrap_err();
    assert!(refused.is(ErrorReason::TimestampOutOfRange));
    assert_eq!(refused.applied(), Applied::No);
    assert_eq!(offsets(receipts).await, (0..9).collect::<Vec<_>>());
    assert!(producer.flush().await.is_ok(), "what failed was reported; nothing is open");
}

#[tokio::test(start_paused = true)]
async fn a_poisoned_stream_is_resumed() {
    let cluster = cluster();
    cluster.topic("a", 1);
    let producer = producer(&cluster, singles().acks(Acks::Leader)).await;
    cluster.fates([Fate::Normal, Fate::Fail(ErrorReason::DiskFull)]);
    offsets(send(&producer, 10).await).await;
    let state = cluster.lock();
    let resumed: Vec<_> = state.sent.iter().filter(|sent| sent.append.resume).collect();
    assert_eq!(resumed.len(), 1);
    drop(state);
    assert_eq!(cluster.values("a", 0), numbers(10));
}

#[tokio::test(start_paused = true)]
async fn what_fails_gives_its_memory_back() {
    let value = "x".repeat(400);
    for fate in [Fate::Fail(ErrorReason::TimestampOutOfRange), Fate::Forget] {
        let cluster = cluster();
        cluster.topic("a", 1);
        let config = ProducerConfig::new()
            .batch_bytes(1_000)
            .buffer_bytes_max(4_000)
            .delivery_timeout(Duration::from_secs(5));
        let producer = producer(&cluster, config).await;
        let all = fate.clone();
        cluster.script(move |_| all.clone());
        // Several times what there is room for at once.
        for _ in 0..50 {
            let sending = producer.send("a", &*value);
            let sent = tokio::time::timeout(Duration::from_secs(60), sending).await;
            let _failing = sent.unwrap_or_else(|_| panic!("no room after {fate:?}")).unwrap();
        }
        assert!(producer.flush().await.is_err());
    }
}

#[tokio::test(start_paused = true)]
async fn a_topic_made_anew_is_not_taken_for_the_old_one() {
    let cluster = cluster();
    cluster.topic("a", 1);
    let client = client(&cluster).await;
    let producer = client.producer(singles()).unwrap();
    offsets(send(&producer, 3).await).await;
    client.topics().delete("a", None).await.unwrap();
    let error = producer.send("a", "v").await.unwrap().await.unwrap_err();
    assert!(error.is(ErrorReason::TopicNotFound), "{error:?}");
    cluster.topic("a", 1);
    assert_eq!(offsets(send(&producer, 3).await).await, [0, 1, 2]);
    client.topics().delete("a", None).await.unwrap();
    cluster.topic("a", 1);
    let error = producer.send("a", "v").await.unwrap().await.unwrap_err();
    assert!(error.is(ErrorReason::TopicIdMismatch), "{error:?}");
    assert_eq!(offsets(send(&producer, 2).await).await, [0, 1]);
}

#[tokio::test(start_paused = true)]
async fn a_condition_is_kept_also_when_the_answer_was_lost() {
    let cluster = cluster();
    cluster.topic("a", 1);
    let producer = producer(&cluster, ProducerConfig::new()).await;
    let at = |offset| AppendOptions { expected_next_offset: Some(offset), ..Default::default() };
    cluster.fates([Fate::LoseAck]);
    let receipt = producer.send_batch("a", 0, packed(&["x"]), at(0)).await.unwrap();
    let delivery = receipt.await.unwrap();
    assert_eq!((delivery.offset, delivery.duplicate), (Some(0), true));
    let error = producer.send_batch("a", 0, packed(&["y"]), at(0)).await.unwrap().await.unwrap_err();
    assert!(error.is(ErrorReason::OffsetMismatch));
    producer.send_batch("a", 0, packed(&["y"]), at(1)).await.unwrap().await.unwrap();
    assert_eq!(cluster.values("a", 0), ["x", "y"]);
}

#[tokio::test(start_paused = true)]
async fn what_may_be_there_is_not_written_twice_because_one_behind_it_is_refused() {
    let cluster = cluster();
    cluster.topic("a", 1);
    let producer = producer(&cluster, singles()).await;
    let mut good = 0;
    cluster.script(move |sent| {
        let batch = sent.append.batch.as_ref().unwrap();
        if batch.records.windows(3).any(|bytes| bytes == b"bad") {
            return Fate::FailAtOnce(ErrorReason::TimestampOutOfRange);
        }
        good += 1;
        match good {
            1 => Fate::LoseAck,
            2 => Fate::Fail(ErrorReason::NotEnoughReplicas),
            _ => Fate::Normal,
        }
    });
    let first = producer.send("a", Record::new("good").partition(0)).await.unwrap();
    let second = producer.send("a", Record::new("bad").partition(0)).await.unwrap();
    let third = producer.send("a", Record::new("after").partition(0)).await.unwrap();
    assert_eq!(second.await.unwrap_err().reason(), Some(ErrorReason::TimestampOutOfRange));
    assert_eq!(first.await.unwrap().offset, Some(0));
    third.await.unwrap();
    assert_eq!(cluster.values("a", 0), ["good", "after"]);
}

#[tokio::test(start_paused = true)]
async fn what_became_of_a_batch_is_not_asked_of_the_next_topic_of_its_name() {
    let cluster = cluster();
    cluster.topic("a", 1);
    let client = client(&cluster).await;
    let producer = client.producer(singles().inflight_max(1)).unwrap();
    cluster.fates([Fate::AppendAndForget]);
    let old = producer.send("a", Record::new("old").partition(0)).await.unwrap();
    common::until("it is there", || async { cluster.values("a", 0) == ["old"] }).await;
    // Made anew, and with two partitions, so that it shows when the client knows.
    cluster.topic("a", 2);
    common::until("it watches", || async { cluster.calls("WatchMetadata") > 0 }).await;
    cluster.tell();
    common::until("it knows", || async { client.partition_count("a").await.unwrap() == 2 }).await;
    tokio::time::sleep(Duration::from_secs(10)).await;
    let new = producer.send("a", Record::new("new").partition(0)).await.unwrap();
    assert_eq!(old.await.unwrap_err().applied(), Applied::Maybe);
    assert_eq!(new.await.unwrap().offset, Some(0), "nothing was put into its log before");
    assert_eq!(cluster.values("a", 0), ["new"]);
}

/// Until nothing is left to be done: the clock is paused, and goes on only then.
async fn everything_heard() {
    tokio::time::sleep(Duration::from_millis(10)).await;
}

async fn send_with(producer: &Producer, value: &str, acks: Option<Acks>) -> Receipt {
    let options = AppendOptions { acks, ..Default::default() };
    producer.send_batch("a", 0, packed(&[value]), options).await.unwrap()
}

/// Sends `refused`, `1`, `2` and `3`. Nobody waits for the first any more when it is refused, and the last is sent
/// before the leader has looked at those in between.
async fn refused_late(cluster: &Arc<Cluster>, config: ProducerConfig, acks: Option<Acks>) {
    cluster.topic("a", 1);
    let producer = producer(cluster, config.delivery_timeout(Duration::from_secs(1))).await;
    send_with(&producer, "known", None).await.await.unwrap();
    cluster.fates([Fate::Fail(ErrorReason::BatchTooLarge)]);
    cluster.lock().late = 2;
    let refused = send_with(&producer, "refused", acks).await;
    tokio::time::sleep(Duration::from_millis(900)).await;
    let mut behind = vec![send_with(&producer, "1", None).await, send_with(&producer, "2", None).await];
    let _given_up = refused.await;
    cluster.release();
    everything_heard().await;
    behind.push(send_with(&producer, "3", None).await);
    everything_heard().await;
    cluster.release();
    for receipt in behind {
        receipt.await.unwrap();
    }
    assert_eq!(cluster.values("a", 0), ["known", "1", "2", "3"]);
}

#[tokio::test(start_paused = true)]
async fn what_is_behind_a_late_refusal_keeps_its_place() {
    refused_late(&cluster(), ProducerConfig::new().idempotence(false), None).await;
}

#[tokio::test(start_paused = true)]
async fn what_is_behind_a_refusal_that_nobody_asked_for_keeps_its_place() {
    refused_late(&cluster(), ProducerConfig::new().acks(Acks::Leader), Some(Acks::None)).await;
}

#[tokio::test(start_paused = true)]
async fn a_late_refusal_costs_no_producer_id() {
    let cluster = cluster();
    refused_late(&cluster, ProducerConfig::new(), None).await;
    assert_eq!(cluster.calls("OpenProducer"), 1);
}

#[tokio::test(start_paused = true)]
async fn nobody_asks_for_a_producer_that_is_gone() {
    for question in ["GetAppendOutcome", "OpenProducer"] {
        let cluster = cluster();
        cluster.topic("a", 1);
        let client = client(&cluster).await;
        let producer = client.producer(singles().delivery_timeout(Duration::from_secs(1))).unwrap();
        let busy = || weir_rpc::Problem::new(ErrorReason::Overloaded, "not now").status();
        cluster.lock().fail_call.insert(question, std::iter::repeat_with(busy).take(10_000).collect());
        cluster.script(|_| Fate::Forget);
        assert!(producer.send("a", "lost").await.unwrap().await.is_err());
        common::until("it is asked", || async { cluster.calls(question) > 2 }).await;
        let closed = tokio::time::timeout(Duration::from_secs(60), producer.close()).await;
        closed.expect("nothing is open").expect("what failed was reported");
        drop(producer);
        everything_heard().await;
        let asked = cluster.calls(question);
        tokio::time::sleep(Duration::from_secs(600)).await;
        assert_eq!(cluster.calls(question), asked, "{question} is still asked");
        let other = client.producer(ProducerConfig::new()).unwrap();
        assert!(other.hindrance().is_none(), "of {question}: {:?}", other.hindrance());
    }
}
