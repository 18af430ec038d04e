//! The producer against a cluster that loses, delays and refuses: what arrives is there once, in order, and every
//! receipt tells the truth.

#![allow(clippy::unwrap_used, reason = "a test may stop at a surprise")]

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::{Cluster, Fate, builder, client, cluster};
use weir_client::{
    Acks, AppendOptions, Applied, BatchBuilder, Codec, Error, ErrorReason, NO_HEADERS, Partitioning,
    Producer, ProducerConfig, Receipt, Record,
};

async fn producer(cluster: &Arc<Cluster>, config: ProducerConfig) -> Producer {
    client(cluster).await.producer(config).unwrap()
}

/// One record a batch.
fn singles() -> ProducerConfig {
    ProducerConfig::new().batch_bytes(1)
}

/// Sends `0` to `count - 1` to partition 0 of `a`.
async fn send(producer: &Producer, count: usize) -> Vec<Receipt> {
    let mut receipts = Vec::new();
    for i in 0..count {
        let value = i.to_string();
        receipts.push(producer.send("a", Record::new(&value).partition(0)).await.unwrap());
    }
    receipts
}

async fn offsets(receipts: Vec<Receipt>) -> Vec<i64> {
    let mut offsets = Vec::new();
    for receipt in receipts {
        offsets.push(receipt.await.unwrap().offset.unwrap());
    }
    offsets
}

fn numbers(count: usize) -> Vec<String> {
    (0..count).map(|i| i.to_string()).collect()
}

#[tokio::test(start_paused = true)]
async fn records_arrive_in_order_and_receipts_say_where() {
    let cluster = cluster();
    cluster.topic("a", 1);
    let producer = producer(&cluster, ProducerConfig::new()).await;
    let receipts = send(&producer, 100).await;
    assert_eq!(offsets(receipts).await, (0..100).collect::<Vec<_>>());
    assert_eq!(cluster.values("a", 0), numbers(100));
    // The first found everything idle and went at once; the others gathered while it was on its way.
    assert_eq!(cluster.lock().sent.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_receipt_says_what_was_met() {
    let cluster = cluster();
    cluster.topic("a", 1);
    let producer = producer(&cluster, ProducerConfig::new()).await;
    let delivery = producer.send("a", "v").await.unwrap().await.unwrap();
    assert_eq!((delivery.partition, delivery.offset, delivery.leader_epoch), (0, Some(0), 0));
    assert!(delivery.committed && !delivery.duplicate);
    assert_eq!((delivery.replicas_written, delivery.replicas_flushed), (1, 1));
    assert_eq!(delivery.durability, Some(weir_client::Durability::Fsync));
}

#[tokio::test(start_paused = true)]
async fn a_receipt_waits_for_the_answer() {
    let cluster = cluster();
    cluster.topic("a", 1);
    let producer = producer(&cluster, ProducerConfig::new()).await;
    cluster.script(|_| Fate::Hold);
    let receipt = producer.send("a", "v").await.unwrap();
    common::until("it is appended", || async { cluster.values("a", 0) == ["v"] }).await;
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert!(receipt.try_get().is_none(), "nobody has said so yet");
    cluster.release();
    assert!(receipt.await.unwrap().committed);
}

#[tokio::test(start_paused = true)]
async fn keys_choose_the_partition_that_every_client_chooses() {
    let cluster = cluster();
    cluster.topic("a", 8);
    let producer = producer(&cluster, ProducerConfig::new()).await;
    for (key, partition) in [(&b"a"[..], 3), (b"flights", 2), (b"", 0), (&[0x00, 0xff], 2)] {
        let record = Record::new("v").key(key);
        assert_eq!(producer.send("a", record).await.unwrap().await.unwrap().partition, partition);
    }
}

#[tokio::test(start_paused = true)]
async fn records_without_a_key_are_spread_batch_by_batch() {
    let cluster = cluster();
    cluster.topic("a", 4);
    let config = ProducerConfig::new().batch_bytes(200).linger(Duration::from_secs(1));
    let producer = producer(&cluster, config).await;
    for i in 0..400 {
        let _unread = producer.send("a", &*i.to_string()).await.unwrap();
    }
    producer.flush().await.unwrap();
    let counts: Vec<_> = (0..4).map(|p| cluster.values("a", p).len()).collect();
    assert_eq!(counts.iter().sum::<usize>(), 400);
    assert!(counts.iter().all(|count| *count > 20), "{counts:?}");
}

#[tokio::test(start_paused = true)]
async fn round_robin_and_own_partitioners() {
    struct Last;
    impl weir_client::Partitioner for Last {
        fn partition(&self, _: &str, _: Option<&[u8]>, _: Option<&[u8]>, partitions: i32) -> i32 {
            partitions - 1
        }
    }
    let cluster = cluster();
    cluster.topic("a", 3);
    let turns = producer(&cluster, ProducerConfig::new().partitioning(Partitioning::RoundRobin)).await;
    for expected in [0, 1, 2, 0] {
        let receipt = turns.send("a", Record::new("v").key("k")).await.unwrap();
        assert_eq!(receipt.await.unwrap().partition, expected);
    }
    let last = Partitioning::Custom(Arc::new(Last));
    let last = producer(&cluster, ProducerConfig::new().partitioning(last)).await;
    assert_eq!(last.send("a", "v").await.unwrap().await.unwrap().partition, 2);
}

#[tokio::test(start_paused = true)]
async fn every_codec_arrives() {
    for codec in Codec::ALL {
        let cluster = cluster();
        cluster.topic("a", 1);
        let config = ProducerConfig::new().compression(codec).linger(Duration::from_millis(50));
        let producer = producer(&cluster, config).await;
        let long = "0123456789".repeat(50);
        for _ in 0..200 {
            let _unread = producer.send("a", &*long).await.unwrap();
        }
        producer.close().await.unwrap();
        assert_eq!(cluster.values("a", 0), vec![long; 200], "{codec}");
        let used = cluster.lock().sent.last().unwrap().append.batch.clone().unwrap().codec;
        assert_eq!(used, codec.to_api());
    }
}

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
async fn acks_none_ends_when_it_is_written() {
    let cluster = cluster();
    cluster.topic("a", 1);
    let producer = producer(&cluster, ProducerConfig::new().acks(Acks::None)).await;
    let delivery = producer.send("a", "v").await.unwrap().await.unwrap();
    assert_eq!(delivery.offset, None);
    producer.close().await.unwrap();
    common::until("it arrives", || async { cluster.values("a", 0) == ["v"] }).await;
}

#[tokio::test(start_paused = true)]
async fn memory_is_bounded() {
    let cluster = cluster();
    cluster.topic("a", 1);
    let config = ProducerConfig::new().batch_bytes(1_000).buffer_bytes_max(4_000);
    let producer = producer(&cluster, config).await;
    producer.look_up("a").await.unwrap();
    cluster.script(|_| Fate::Hold);
    let value = "x".repeat(400);
    let mut taken = 0;
    let full = loop {
        match producer.try_send("a", &*value) {
            Ok(_) => taken += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(full, Error::BufferFull { limit: 4_000, .. }), "{full:?}");
    assert!((8..=9).contains(&taken), "{taken}");
    // Whoever waits for room goes on when an answer comes.
    let waiting = tokio::spawn({
        let (producer, value) = (producer.clone(), value.clone());
        async move { producer.send("a", &*value).await.map(drop) }
    });
    common::until("it waits", || async { !cluster.lock().sent.is_empty() }).await;
    assert!(!waiting.is_finished());
    cluster.script(|_| Fate::Normal);
    cluster.release();
    waiting.await.unwrap().unwrap();
    producer.close().await.unwrap();
    assert_eq!(cluster.values("a", 0).len(), taken + 1);
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
async fn a_batch_leaves_when_it_has_lingered() {
    let cluster = cluster();
    cluster.topic("a", 1);
    let producer = producer(&cluster, ProducerConfig::new().linger(Duration::from_millis(50))).await;
    cluster.script(|_| Fate::Hold);
    let _alone = producer.send("a", "0").await.unwrap();
    common::until("the first is there", || async { cluster.lock().sent.len() == 1 }).await;
    // Far from full, and nothing is answered that would make it leave.
    let _lingers = producer.send("a", "1").await.unwrap();
    common::until("the second is there", || async { cluster.lock().sent.len() == 2 }).await;
}

#[tokio::test(start_paused = true)]
async fn batches_fill_up_under_load_and_are_sent_at_once_without() {
    let cluster = cluster();
    cluster.topic("a", 1);
    let producer = producer(&cluster, ProducerConfig::new().linger(Duration::from_secs(60))).await;
    // One at a time: nothing lingers.
    let before = tokio::time::Instant::now();
    for _ in 0..10 {
        producer.send("a", "v").await.unwrap().await.unwrap();
    }
    assert!(before.elapsed() < Duration::from_secs(60), "{:?}", before.elapsed());
    assert_eq!(cluster.lock().sent.len(), 10);
    // Many: they share batches.
    let value = "x".repeat(1_000);
    for _ in 0..2_000 {
        let _unread = producer.send("a", &*value).await.unwrap();
    }
    producer.flush().await.unwrap();
    let sent = cluster.lock().sent.len() - 10;
    assert!(sent <= 10, "{sent} batches");
}

#[tokio::test(start_paused = true)]
async fn topics_limits_are_known_beforehand() {
    let cluster = cluster();
    cluster.topic("a", 1);
    cluster.lock().topics.get_mut("a").unwrap().proto.config.insert("batch_bytes_max".into(), "2000".into());
    let producer = producer(&cluster, ProducerConfig::new().linger(Duration::from_secs(1))).await;
    let error = producer.send("a", &*"x".repeat(3_000)).await.unwrap_err();
    assert!(matches!(error, Error::RecordTooLarge { limit: 2_000, .. }), "{error:?}");
    for _ in 0..20 {
        let _unread = producer.send("a", &*"x".repeat(500)).await.unwrap();
    }
    producer.flush().await.unwrap();
    assert_eq!(cluster.values("a", 0).len(), 20);
}

#[tokio::test(start_paused = true)]
async fn topics_and_partitions_that_are_not_there() {
    let cluster = cluster();
    cluster.topic("a", 2);
    let producer = producer(&cluster, ProducerConfig::new()).await;
    assert!(producer.send("b", "v").await.unwrap_err().is(ErrorReason::TopicNotFound));
    let _one = producer.send("a", "v").await.unwrap();
    for bad in [2, -1] {
        let error = producer.send("a", Record::new("v").partition(bad)).await.unwrap_err();
        assert!(error.to_string().contains("the topic has 2"), "{error}");
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
async fn new_partitions_are_found() {
    let cluster = cluster();
    cluster.topic("a", 1);
    let client =
        builder(&cluster).metadata_age_max(Duration::from_secs(1)).connect("broker1:1").await.unwrap();
    let producer = client.producer(ProducerConfig::new()).unwrap();
    let _first = producer.send("a", "v").await.unwrap();
    let change = weir_client::TopicChange::new().partitions(2);
    client.topics().update("a", change).await.unwrap();
    common::until("it is known", || async {
        producer.send("a", Record::new("v").partition(1)).await.is_ok()
    })
    .await;
}

fn packed(values: &[&str]) -> weir_client::PackedBatch {
    let mut builder = BatchBuilder::new();
    for value in values {
        builder.push(1, None, Some(value.as_bytes()), NO_HEADERS).unwrap();
    }
    builder.finish(Codec::None).unwrap()
}

#[tokio::test(start_paused = true)]
async fn ready_batches_keep_their_place_among_records() {
    let cluster = cluster();
    cluster.topic("a", 1);
    let producer = producer(&cluster, ProducerConfig::new()).await;
    let mut receipts = send(&producer, 2).await;
    let options = AppendOptions::default();
    receipts.push(producer.send_batch("a", 0, packed(&["x", "y"]), options).await.unwrap());
    receipts.extend(send(&producer, 1).await);
    assert_eq!(offsets(receipts).await, [0, 1, 2, 4]);
    assert_eq!(cluster.values("a", 0), ["0", "1", "x", "y", "0"]);
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
async fn dropping_the_producer_sends_what_it_has() {
    let cluster = cluster();
    cluster.topic("a", 1);
    let producer = producer(&cluster, ProducerConfig::new().linger(Duration::from_secs(3600))).await;
    let mut receipts = send(&producer, 50).await;
    drop(producer);
    let last = receipts.pop().unwrap();
    assert_eq!(last.await.unwrap().offset, Some(49));
}

#[tokio::test(start_paused = true)]
async fn a_closed_producer_takes_nothing() {
    let cluster = cluster();
    cluster.topic("a", 1);
    let producer = producer(&cluster, ProducerConfig::new()).await;
    let receipts = send(&producer, 5).await;
    producer.close().await.unwrap();
    assert!(receipts.iter().all(|receipt| receipt.try_get().is_some_and(|result| result.is_ok())));
    assert!(matches!(producer.send("a", "v").await, Err(Error::Closed(_))));
    producer.close().await.unwrap();
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
