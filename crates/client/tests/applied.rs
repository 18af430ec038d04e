//! What a receipt says of a batch that failed: "not applied" where nobody outside this process has seen it, or somebody
//! who knows has said so, and nowhere else. Whoever reads it may send the records again.

#![allow(clippy::unwrap_used, reason = "a test may stop at a surprise")]

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::sending::{numbers, offsets, producer, send, singles};
use common::{Cluster, Fate, cluster};
use tokio::time::{sleep, timeout};
use weir_client::{Acks, Applied, Error, ErrorReason, Producer, ProducerConfig, Receipt, Record};
use weir_runtime::testing::Dice;

/// Longer than anything here takes.
const GUARD: Duration = Duration::from_secs(600);

/// A producer of batches of one record that is known to the partition `a/0`.
async fn known(cluster: &Arc<Cluster>, config: ProducerConfig) -> Producer {
    cluster.topic("a", 1);
    let config = config.batch_bytes(1).delivery_timeout(Duration::from_secs(3));
    let producer = producer(cluster, config).await;
    send_one(&producer, "known").await.await.unwrap();
    producer
}

async fn send_one(producer: &Producer, value: &str) -> Receipt {
    producer.send("a", Record::new(value).partition(0)).await.unwrap()
}

async fn failure(receipt: Receipt) -> Error {
    timeout(GUARD, receipt).await.expect("a receipt comes").unwrap_err()
}

#[tokio::test(start_paused = true)]
async fn what_nobody_could_be_reached_for_was_not_applied() {
    let cluster = cluster();
    let producer = known(&cluster, ProducerConfig::new()).await;
    cluster.net().refuse("broker1", true);
    cluster.net().cut("broker1");
    let (first, second) = (send_one(&producer, "0").await, send_one(&producer, "1").await);
    for receipt in [first, second] {
        let error = failure(receipt).await;
        assert_eq!(error.applied(), Applied::No, "{error}");
        let Error::GivenUp { last, .. } = &error else { panic!("{error:?}") };
        assert!(matches!(**last, Error::Unreachable { .. }), "{last:?}");
    }
    // Nobody has to be asked what became of them before the next can go.
    cluster.net().refuse("broker1", false);
    assert_eq!(timeout(GUARD, send_one(&producer, "2").await).await.unwrap().unwrap().offset, Some(1));
    assert_eq!(cluster.calls("GetAppendOutcome"), 0);
    assert_eq!(cluster.values("a", 0), ["known", "2"]);
}

#[tokio::test(start_paused = true)]
async fn what_still_waits_for_a_connection_when_its_time_is_up_was_not_applied() {
    let cluster = cluster();
    let producer = known(&cluster, ProducerConfig::new()).await;
    cluster.net().unheard("broker1", true);
    cluster.net().cut("broker1");
    let error = failure(send_one(&producer, "0").await).await;
    assert_eq!(error.applied(), Applied::No, "{error}");
    cluster.net().unheard("broker1", false);
    assert_eq!(timeout(GUARD, send_one(&producer, "1").await).await.unwrap().unwrap().offset, Some(1));
    assert_eq!(cluster.calls("GetAppendOutcome"), 0);
}

#[tokio::test(start_paused = true)]
async fn without_idempotence_it_is_tried_as_long_as_nobody_was_reached() {
    let cluster = cluster();
    let producer = known(&cluster, ProducerConfig::new().acks(Acks::Leader)).await;
    cluster.net().refuse("broker1", true);
    cluster.net().cut("broker1");
    let receipt = send_one(&producer, "0").await;
    sleep(Duration::from_secs(1)).await;
    cluster.net().refuse("broker1", false);
    assert_eq!(timeout(GUARD, receipt).await.unwrap().unwrap().offset, Some(1));
    assert_eq!(cluster.values("a", 0), ["known", "0"]);
}

#[tokio::test(start_paused = true)]
async fn what_a_silent_broker_had_no_room_for_was_not_applied() {
    let cluster = cluster();
    let producer = known(&cluster, ProducerConfig::new()).await;
    // It lives, but what is sent to it does not arrive, nor does any word that there is room for more.
    cluster.net().silence("broker1");
    let mut receipts = Vec::new();
    for _ in 0..5 {
        receipts.push(send_one(&producer, &"x".repeat(900_000)).await);
    }
    let mut applied = Vec::new();
    for receipt in receipts {
        applied.push(failure(receipt).await.applied());
    }
    let sent = applied.iter().take_while(|applied| **applied == Applied::Maybe).count();
    assert!((1..5).contains(&sent), "{sent} may have left");
    assert!(applied[sent..].iter().all(|applied| *applied == Applied::No), "{applied:?}");
}

#[tokio::test(start_paused = true)]
async fn what_left_is_in_doubt_when_the_connection_breaks() {
    let cluster = cluster();
    let producer = known(&cluster, ProducerConfig::new()).await;
    cluster.script(|_| Fate::LoseAck);
    let receipt = send_one(&producer, "0").await;
    common::until("it is there", || async { cluster.values("a", 0).len() == 2 }).await;
    cluster.net().refuse("broker1", true);
    assert_eq!(failure(receipt).await.applied(), Applied::Maybe);
}

#[tokio::test(start_paused = true)]
async fn a_batch_nobody_answers_times_out_as_unknown_and_the_rest_goes_on() {
    let cluster = cluster();
    cluster.topic("a", 1);
    let config = singles().delivery_timeout(Duration::from_secs(10)).inflight_max(1);
    let producer = producer(&cluster, config).await;
    for (fate, there) in [(Fate::Forget, false), (Fate::AppendAndForget, true)] {
        cluster.fates([fate]);
        let before = cluster.values("a", 0).len();
        let lost = producer.send("a", "lost").await.unwrap();
        let error = lost.await.unwrap_err();
        assert!(matches!(error, Error::Timeout { applied: Applied::Maybe, .. }), "{error:?}");
        // What comes after is neither refused for a gap nor doubled.
        producer.send("a", "next").await.unwrap().await.unwrap();
        let values = cluster.values("a", 0).split_off(before);
        assert_eq!(values, if there { vec!["lost", "next"] } else { vec!["next"] });
    }
    assert_eq!(cluster.calls("GetAppendOutcome"), 2);
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_could_not_be_sent_times_out_as_not_applied() {
    let cluster = cluster();
    cluster.topic("a", 1);
    let config = singles().delivery_timeout(Duration::from_secs(5));
    let producer = producer(&cluster, config).await;
    producer.look_up("a").await.unwrap();
    cluster.net().refuse("broker1", true);
    cluster.net().cut("broker1");
    let error = producer.send("a", "v").await.unwrap().await.unwrap_err();
    assert_eq!(error.applied(), Applied::No, "{error}");
    // Why nobody took it is told, not only that time is up.
    let Error::GivenUp { last, .. } = &error else { panic!("{error:?}") };
    assert!(matches!(**last, Error::Unreachable { .. }), "{last:?}");
    assert!(matches!(producer.hindrance(), Some(Error::Unreachable { .. })));
    cluster.net().refuse("broker1", false);
    assert_eq!(producer.send("a", "w").await.unwrap().await.unwrap().offset, Some(0));
}

#[tokio::test(start_paused = true)]
async fn a_batch_refused_until_its_time_is_up_says_why() {
    let cluster = cluster();
    cluster.topic("a", 1);
    let config = singles().delivery_timeout(Duration::from_secs(5)).inflight_max(1);
    let producer = producer(&cluster, config).await;
    cluster.fates(std::iter::repeat_n(Fate::Fail(ErrorReason::DiskFull), 1_000));
    let error = producer.send("a", "v").await.unwrap().await.unwrap_err();
    assert_eq!(error.reason(), Some(ErrorReason::DiskFull), "{error}");
    assert_eq!(error.applied(), Applied::No, "{error}");
    let hindrance = producer.hindrance().unwrap();
    assert!(hindrance.is(ErrorReason::DiskFull), "{hindrance}");
    cluster.fates([]);
    producer.send("a", "w").await.unwrap().await.unwrap();
    assert!(producer.hindrance().is_none(), "what was in the way is gone");
}

#[tokio::test(start_paused = true)]
async fn what_is_refused_after_it_was_given_up_is_not_why_others_wait() {
    let cluster = cluster();
    let producer = known(&cluster, ProducerConfig::new()).await;
    cluster.lock().late = 1;
    let mut fates = [Fate::Fail(ErrorReason::ProducerFenced)].into_iter();
    cluster.script(move |_| fates.next().unwrap_or(Fate::Forget));
    let first = failure(send_one(&producer, "0").await).await;
    assert!(matches!(first, Error::Timeout { applied: Applied::Maybe, .. }), "{first:?}");
    // What became of it was asked with a fence, which is what it is refused for now.
    cluster.release();
    let second = failure(send_one(&producer, "1").await).await;
    assert!(matches!(second, Error::Timeout { applied: Applied::Maybe, .. }), "{second:?}");
}

#[tokio::test(start_paused = true)]
async fn a_batch_for_a_partition_without_a_leader_says_why_in_a_brokers_words() {
    let cluster = cluster();
    let producer = known(&cluster, ProducerConfig::new()).await;
    cluster.lead("a", 0, -1);
    let receipt = send_one(&producer, "0").await;
    let hindered = || async { producer.hindrance().is_some_and(|error| error.is(ErrorReason::NoLeader)) };
    common::until("it is said while it is tried", hindered).await;
    let error = failure(receipt).await;
    assert_eq!((error.reason(), error.applied()), (Some(ErrorReason::NoLeader), Applied::No), "{error}");
    assert!(error.to_string().ends_with("a/0 gets no leader by itself"), "{error}");
    assert_eq!((&*error.metadata()["topic"], &*error.metadata()["partition"]), ("a", "0"));
    cluster.lead("a", 0, 1);
    send_one(&producer, "1").await.await.unwrap();
    assert!(producer.hindrance().is_none());
}

#[tokio::test(start_paused = true)]
async fn what_is_in_doubt_when_nobody_leads_any_more_says_both() {
    let cluster = cluster();
    let producer = known(&cluster, ProducerConfig::new()).await;
    cluster.script(|_| Fate::LoseAck);
    let receipt = send_one(&producer, "0").await;
    common::until("it is there", || async { cluster.values("a", 0).len() == 2 }).await;
    cluster.lead("a", 0, -1);
    let error = failure(receipt).await;
    assert_eq!(error.applied(), Applied::Maybe, "{error}");
    assert!(error.to_string().contains("the outcome is unknown: "), "{error}");
}

#[tokio::test(start_paused = true)]
async fn without_idempotence_what_may_be_there_is_not_sent_again() {
    let cluster = cluster();
    cluster.topic("a", 1);
    let config = singles().acks(Acks::Leader).inflight_max(1);
    let producer = producer(&cluster, config).await;
    cluster.fates([Fate::Normal, Fate::LoseAck, Fate::Fail(ErrorReason::NotEnoughReplicas)]);
    let mut receipts = send(&producer, 6).await;
    let lost = receipts.remove(1).await.unwrap_err();
    assert_eq!(lost.applied(), Applied::Maybe);
    offsets(receipts).await;
    assert_eq!(cluster.values("a", 0), numbers(6));
    assert_eq!(cluster.calls("OpenProducer"), 0);
}

#[test]
fn what_was_sent_when_the_runtime_ended_is_unknown_and_the_rest_was_not_applied() {
    let servers = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let callers = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let cluster = servers.block_on(async { cluster() });
    cluster.topic("a", 1);
    cluster.script(|_| Fate::Hold);
    let (sent, waiting) = callers.block_on(async {
        let producer = producer(&cluster, singles().inflight_max(1)).await;
        let answered = cluster.changed.notified();
        let sent = producer.send("a", Record::new("sent").partition(0)).await.unwrap();
        let waiting = producer.send("a", Record::new("waiting").partition(0)).await.unwrap();
        tokio::time::timeout(Duration::from_secs(30), answered).await.expect("it arrives");
        (sent, waiting)
    });
    drop(callers);
    assert_eq!(cluster.values("a", 0), ["sent"]);
    let told = async { (sent.await.unwrap_err(), waiting.await.unwrap_err()) };
    let (sent, waiting) =
        servers.block_on(async { tokio::time::timeout(Duration::from_secs(30), told).await }).unwrap();
    assert_eq!((sent.applied(), waiting.applied()), (Applied::Maybe, Applied::No));
}

#[tokio::test(start_paused = true)]
async fn whatever_happens_receipts_say_no_less_and_no_more_than_is_known() {
    for seed in 0..40 {
        let cluster = cluster();
        let acks = if seed % 2 == 0 { Acks::All } else { Acks::Leader };
        let producer = known(&cluster, ProducerConfig::new().acks(acks)).await;
        let mut fate = Dice::new(seed);
        cluster.script(move |_| match fate.below(12) {
            0 => Fate::CutBefore,
            1 => Fate::LoseAck,
            2 => Fate::Forget,
            3 => Fate::Fail(ErrorReason::NotEnoughReplicas),
            _ => Fate::Normal,
        });
        let mut dice = Dice::new(seed + 1_000);
        let mut receipts = Vec::new();
        for i in 0..120 {
            match dice.below(10) {
                0 => {
                    cluster.net().refuse("broker1", true);
                    cluster.net().cut("broker1");
                }
                1 => cluster.net().refuse("broker1", false),
                2 => {
                    cluster.net().unheard("broker1", true);
                    cluster.net().cut("broker1");
                }
                3 | 4 => cluster.net().unheard("broker1", false),
                _ => {}
            }
            let value = i.to_string();
            receipts.push((value.clone(), send_one(&producer, &value).await));
            sleep(Duration::from_millis(dice.below(400))).await;
        }
        let mut said = Vec::new();
        for (value, receipt) in receipts {
            said.push((value, timeout(GUARD, receipt).await.expect("a receipt comes")));
        }
        let there = cluster.values("a", 0);
        for (value, said) in &said {
            let count = there.iter().filter(|other| *other == value).count();
            let fits = match said {
                Ok(_) => count == 1,
                Err(error) if error.applied() == Applied::No => count == 0,
                Err(_) => count <= 1,
            };
            assert!(fits, "seed {seed}: {value} is there {count} times, and its receipt says {said:?}");
        }
        let unapplied =
            said.iter().filter(|(_, said)| said.as_ref().is_err_and(|e| e.applied() == Applied::No));
        assert!(unapplied.count() > 0, "seed {seed} tries nothing");
    }
}
