//! The producer against a cluster that answers: records arrive in order, find their partitions, share batches, and take
//! no more memory than they may.

#![allow(clippy::unwrap_used, reason = "a test may stop at a surprise")]

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::sending::{numbers, offsets, packed, producer, send};
use common::{Fate, builder, cluster};
use weir_client::{Acks, AppendOptions, Codec, Error, ErrorReason, Partitioning, ProducerConfig, Record};

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
