//! The consumer against a cluster whose connections break, leaders move and logs are cut: every record once, in
//! order, and no position changed in silence.

#![allow(clippy::unwrap_used, reason = "a test may stop at a surprise")]

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::{Cluster, client, cluster};
use futures::StreamExt;
use weir_client::{Batch, Consumer, ConsumerConfig, Error, ErrorReason, Position, Reset};
use weir_rpc::Problem;

const SOON: Duration = Duration::from_secs(30);

async fn consumer(cluster: &Arc<Cluster>, config: ConsumerConfig) -> Consumer {
    client(cluster).await.consumer(config).unwrap()
}

/// A consumer at the start of `a`.
async fn reading(cluster: &Arc<Cluster>) -> Consumer {
    let mut consumer = consumer(cluster, ConsumerConfig::new()).await;
    consumer.assign_topic("a", Position::Earliest).await.unwrap();
    consumer
}

fn values(batch: &Batch) -> Vec<String> {
    batch
        .records()
        .map(|record| String::from_utf8(record.unwrap().value.unwrap().to_vec()).unwrap())
        .collect()
}

async fn next(consumer: &mut Consumer) -> Vec<String> {
    values(&consumer.poll(SOON).await.unwrap().expect("there is a batch"))
}

#[tokio::test(start_paused = true)]
async fn batches_come_in_order_with_what_belongs_to_them() {
    let cluster = cluster();
    cluster.topic("a", 1);
    cluster.put("a", 0, &["0", "1"]);
    cluster.put("a", 0, &["2"]);
    let mut consumer = reading(&cluster).await;
    let batch = consumer.poll(SOON).await.unwrap().unwrap();
    assert_eq!((batch.topic(), batch.partition(), batch.next_offset()), ("a", 0, 2));
    assert_eq!(batch.high_watermark(), Some(3));
    let records: Vec<_> = batch.records().map(|record| record.unwrap()).collect();
    assert_eq!((records[1].offset, records[1].timestamp_ms), (1, 1_001));
    assert_eq!(next(&mut consumer).await, ["2"]);
    assert_eq!(consumer.position("a", 0), Some(3));
    // Nothing more, until there is.
    assert!(consumer.poll(Duration::from_millis(10)).await.unwrap().is_none());
    cluster.put("a", 0, &["3"]);
    assert_eq!(next(&mut consumer).await, ["3"]);
}

#[tokio::test(start_paused = true)]
async fn it_starts_where_it_is_told_also_within_a_batch() {
    let cluster = cluster();
    cluster.topic("a", 1);
    cluster.put("a", 0, &["0", "1", "2", "3"]);
    cluster.put("a", 0, &["4"]);
    let mut consumer = consumer(&cluster, ConsumerConfig::new()).await;
    for (position, expected) in [
        (Position::Offset(2), Some("2")),
        (Position::Last(1), Some("4")),
        (Position::Last(100), Some("0")),
        (Position::Timestamp(1_002), Some("0")),
        (Position::Latest, None),
    ] {
        consumer.assign("a", 0, position).await.unwrap();
        let batch = consumer.poll(Duration::from_millis(100)).await.unwrap();
        let first = batch.as_ref().map(values).and_then(|values| values.first().cloned());
        assert_eq!(first.as_deref(), expected, "{position:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn seeking_drops_what_was_fetched_ahead() {
    let cluster = cluster();
    cluster.topic("a", 1);
    for i in 0..50 {
        cluster.put("a", 0, &[&i.to_string()]);
    }
    let mut consumer = reading(&cluster).await;
    assert_eq!(next(&mut consumer).await, ["0"]);
    consumer.seek("a", 0, Position::Offset(40)).await.unwrap();
    assert_eq!(next(&mut consumer).await, ["40"]);
    consumer.seek("a", 0, Position::Offset(3)).await.unwrap();
    for i in 3..50 {
        assert_eq!(next(&mut consumer).await, [i.to_string()]);
    }
}

#[tokio::test(start_paused = true)]
async fn pausing_keeps_the_position() {
    let cluster = cluster();
    cluster.topic("a", 2);
    for partition in 0..2 {
        cluster.put("a", partition, &["x"]);
        cluster.put("a", partition, &["y"]);
    }
    let mut consumer = reading(&cluster).await;
    consumer.pause("a", 1).unwrap();
    let mut seen = Vec::new();
    while let Some(batch) = consumer.poll(Duration::from_secs(1)).await.unwrap() {
        seen.push(batch.partition());
    }
    assert_eq!(seen, [0, 0]);
    assert_eq!(consumer.position("a", 1), Some(0));
    consumer.resume("a", 1).unwrap();
    assert_eq!(next(&mut consumer).await, ["x"]);
    assert_eq!(next(&mut consumer).await, ["y"]);
}

#[tokio::test(start_paused = true)]
async fn pausing_holds_back_what_was_fetched_ahead() {
    let cluster = cluster();
    cluster.topic("a", 1);
    for i in 0..10 {
        cluster.put("a", 0, &[&i.to_string()]);
    }
    let mut consumer = reading(&cluster).await;
    assert_eq!(next(&mut consumer).await, ["0"]);
    common::until("all of it was fetched", || async { cluster.lock().delivered == 10 }).await;
    consumer.pause("a", 0).unwrap();
    assert!(consumer.poll(Duration::from_secs(1)).await.unwrap().is_none());
    assert_eq!(consumer.position("a", 0), Some(1));
    consumer.resume("a", 0).unwrap();
    for i in 1..10 {
        assert_eq!(next(&mut consumer).await, [i.to_string()]);
    }
    assert!(consumer.poll(Duration::from_secs(1)).await.unwrap().is_none());
}

#[tokio::test(start_paused = true)]
async fn what_is_released_is_not_read_any_more() {
    let cluster = cluster();
    cluster.topic("a", 2);
    let mut consumer = reading(&cluster).await;
    consumer.release("a", 0);
    cluster.put("a", 0, &["no"]);
    cluster.put("a", 1, &["yes"]);
    assert_eq!(next(&mut consumer).await, ["yes"]);
    assert!(consumer.poll(Duration::from_secs(1)).await.unwrap().is_none());
    assert_eq!(consumer.position("a", 0), None);
    assert!(consumer.seek("a", 0, Position::Earliest).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn broken_connections_repeat_and_skip_nothing() {
    let cluster = cluster();
    cluster.topic("a", 1);
    let mut consumer = reading(&cluster).await;
    for i in 0..50 {
        cluster.put("a", 0, &[&i.to_string()]);
        if i % 5 == 0 {
            cluster.net().cut("broker1");
        }
        assert_eq!(next(&mut consumer).await, [i.to_string()]);
    }
    let state = cluster.lock();
    let again = state.seen_assigns.last().unwrap();
    assert_eq!(again.leader_epoch, Some(0), "it names the epoch of what it read last");
}

#[tokio::test(start_paused = true)]
async fn a_server_that_is_gone_for_a_while_is_waited_for() {
    let cluster = cluster();
    cluster.topic("a", 1);
    let mut consumer = reading(&cluster).await;
    cluster.put("a", 0, &["0"]);
    assert_eq!(next(&mut consumer).await, ["0"]);
    cluster.net().refuse("broker1", true);
    cluster.net().cut("broker1");
    assert!(consumer.hindrance().is_none());
    assert!(consumer.poll(Duration::from_secs(10)).await.unwrap().is_none());
    // Why nothing comes is told meanwhile.
    assert!(matches!(consumer.hindrance(), Some(Error::Unreachable { .. })), "{:?}", consumer.hindrance());
    cluster.put("a", 0, &["1"]);
    cluster.net().refuse("broker1", false);
    assert_eq!(next(&mut consumer).await, ["1"]);
    common::until("what was in the way is gone", || async { consumer.hindrance().is_none() }).await;
}

#[tokio::test(start_paused = true)]
async fn a_partition_without_a_leader_is_waited_for_and_a_broker_says_why() {
    let cluster = cluster();
    cluster.topic("a", 2);
    cluster.lead("a", 0, -1);
    cluster.put("a", 1, &["0"]);
    let mut consumer = consumer(&cluster, ConsumerConfig::new()).await;
    consumer.assign_topic("a", Position::Offset(0)).await.unwrap();
    assert_eq!(next(&mut consumer).await, ["0"], "the other one is read");
    let hindered = || async { consumer.hindrance().is_some_and(|error| error.is(ErrorReason::NoLeader)) };
    common::until("it is said while it is tried", hindered).await;
    let said = consumer.hindrance().unwrap().to_string();
    assert!(said.ends_with("a/0 gets no leader by itself"), "{said}");
    cluster.lead("a", 0, 1);
    cluster.put("a", 0, &["1"]);
    assert_eq!(next(&mut consumer).await, ["1"]);
    assert!(consumer.hindrance().is_none(), "what was in the way is gone");
}

#[tokio::test(start_paused = true)]
async fn the_leader_is_followed_and_a_goodbye_is_no_failure() {
    let cluster = Cluster::start(2);
    cluster.topic("a", 1);
    let mut consumer = reading(&cluster).await;
    cluster.put("a", 0, &["0"]);
    assert_eq!(next(&mut consumer).await, ["0"]);
    cluster.lead("a", 0, 2);
    cluster.put("a", 0, &["1"]);
    assert_eq!(next(&mut consumer).await, ["1"]);
    cluster.drain(2, true);
    cluster.put("a", 0, &["2"]);
    cluster.lead("a", 0, 1);
    assert_eq!(next(&mut consumer).await, ["2"]);
}

#[tokio::test(start_paused = true)]
async fn a_position_that_is_gone_is_an_error_unless_told_otherwise() {
    let cluster = cluster();
    cluster.topic("a", 1);
    for i in 0..10 {
        cluster.put("a", 0, &[&i.to_string()]);
    }
    let client = client(&cluster).await;
    client.topics().delete_records("a", &[(0, 5)]).await.unwrap();

    let mut strict = client.consumer(ConsumerConfig::new()).unwrap();
    strict.assign("a", 0, Position::Offset(2)).await.unwrap();
    let error = strict.poll(SOON).await.unwrap_err();
    assert!(error.is(ErrorReason::OffsetOutOfRange), "{error:?}");
    assert!(strict.poll(Duration::from_secs(1)).await.unwrap().is_none(), "it waits for a seek");
    strict.seek("a", 0, Position::Earliest).await.unwrap();
    assert_eq!(next(&mut strict).await, ["5"]);

    for (reset, expected) in [(Reset::Earliest, "5"), (Reset::Latest, "new")] {
        let mut consumer = client.consumer(ConsumerConfig::new().out_of_range(reset)).unwrap();
        consumer.assign("a", 0, Position::Offset(2)).await.unwrap();
        if reset == Reset::Latest {
            assert!(consumer.poll(Duration::from_secs(1)).await.unwrap().is_none());
            cluster.put("a", 0, &["new"]);
        }
        assert_eq!(next(&mut consumer).await, [expected]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_truncated_log_is_never_read_on_in_silence() {
    let cluster = cluster();
    cluster.topic("a", 1);
    cluster.put("a", 0, &["0"]);
    let truncated = || Problem::new(ErrorReason::LogTruncated, "diverges at 0").failure();
    cluster.lock().end_fetch.push(truncated());
    let mut strict = reading(&cluster).await;
    assert!(strict.poll(SOON).await.unwrap_err().is(ErrorReason::LogTruncated));
    cluster.lock().end_fetch.push(truncated());
    let mut lenient = consumer(&cluster, ConsumerConfig::new().truncated(Reset::Earliest)).await;
    lenient.assign("a", 0, Position::Offset(0)).await.unwrap();
    assert_eq!(next(&mut lenient).await, ["0"]);
}

#[tokio::test(start_paused = true)]
async fn a_cut_is_noticed_also_behind_what_was_not_handed_out() {
    // The fence comes after what was read, or is there already and behind it.
    for fenced_before in [false, true] {
        let cluster = cluster();
        cluster.topic("a", 1);
        cluster.put("a", 0, &["0"]);
        if fenced_before {
            cluster.fence("a", 0);
        }
        let mut consumer = reading(&cluster).await;
        assert_eq!(next(&mut consumer).await, ["0"]);
        if !fenced_before {
            cluster.fence("a", 0);
        }
        assert!(consumer.poll(Duration::from_secs(6)).await.unwrap().is_none());
        let position = consumer.positions().pop().unwrap();
        assert_eq!((position.offset, position.leader_epoch), (2, Some(1)));
        cluster.net().refuse("broker1", true);
        cluster.net().cut("broker1");
        cluster.lose("a", 0, 1);
        cluster.net().refuse("broker1", false);
        let error = consumer.poll(SOON).await.unwrap_err();
        assert!(error.is(ErrorReason::LogTruncated), "{error:?}");
        assert_eq!(consumer.position("a", 0), Some(2));
    }
}

#[tokio::test(start_paused = true)]
async fn who_began_at_the_end_notices_a_cut_before_it() {
    let cluster = cluster();
    cluster.topic("a", 1);
    cluster.put("a", 0, &["0"]);
    cluster.put("a", 0, &["1"]);
    let mut consumer = consumer(&cluster, ConsumerConfig::new()).await;
    consumer.assign("a", 0, Position::Latest).await.unwrap();
    assert!(consumer.poll(Duration::from_secs(6)).await.unwrap().is_none());
    cluster.net().refuse("broker1", true);
    cluster.net().cut("broker1");
    cluster.lose("a", 0, 1);
    cluster.net().refuse("broker1", false);
    let error = consumer.poll(SOON).await.unwrap_err();
    assert!(error.is(ErrorReason::LogTruncated), "{error:?}");
}

/// A leader whose log is damaged gives way to another one.
#[tokio::test(start_paused = true)]
async fn a_damaged_batch_is_read_again() {
    let cluster = cluster();
    cluster.topic("a", 1);
    cluster.put("a", 0, &["0"]);
    cluster.put("a", 0, &["1"]);
    cluster.lock().corrupt = 3;
    let mut consumer = reading(&cluster).await;
    assert_eq!(next(&mut consumer).await, ["0"]);
    assert_eq!(next(&mut consumer).await, ["1"]);
    assert_eq!(cluster.lock().corrupt, 0);
}

/// However short the caller's patience: nothing of it is begun anew with each poll.
#[tokio::test(start_paused = true)]
async fn a_damaged_batch_is_read_again_between_short_polls() {
    let cluster = cluster();
    cluster.topic("a", 1);
    cluster.put("a", 0, &["0"]);
    cluster.lock().corrupt = 5;
    let mut consumer = reading(&cluster).await;
    let mut polls = 0;
    let batch = loop {
        polls += 1;
        assert!(polls < 10_000, "it is never read again");
        if let Some(batch) = consumer.poll(Duration::from_millis(1)).await.unwrap() {
            break batch;
        }
    };
    assert_eq!((batch.next_offset(), cluster.lock().corrupt), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_damaged_batch_is_not_handed_out() {
    let cluster = cluster();
    cluster.topic("a", 2);
    cluster.put("a", 0, &["bad"]);
    // As often as it is read.
    cluster.lock().corrupt = 6;
    let mut consumer = reading(&cluster).await;
    let error = consumer.poll(SOON).await.unwrap_err();
    assert!(matches!(error, Error::Corrupt { offset: 0, .. }), "{error:?}");
    assert_eq!(consumer.position("a", 0), Some(0));
    // The other partition goes on; this one does when somebody says where.
    cluster.put("a", 0, &["good"]);
    cluster.put("a", 1, &["other"]);
    assert_eq!(next(&mut consumer).await, ["other"]);
    consumer.seek("a", 0, Position::Offset(1)).await.unwrap();
    assert_eq!(next(&mut consumer).await, ["good"]);
}

#[tokio::test(start_paused = true)]
async fn no_more_is_fetched_ahead_than_was_allowed() {
    let cluster = cluster();
    cluster.topic("a", 1);
    let value = "x".repeat(1_000);
    for _ in 0..100 {
        cluster.put("a", 0, &[&value]);
    }
    let mut consumer = consumer(&cluster, ConsumerConfig::new().prefetch_bytes(10_000)).await;
    consumer.assign("a", 0, Position::Earliest).await.unwrap();
    let mut most = 0;
    let mut got = 0;
    while got < 100 {
        tokio::time::sleep(Duration::from_millis(10)).await;
        most = most.max(cluster.lock().delivered - got);
        assert_eq!(next(&mut consumer).await, std::slice::from_ref(&value));
        got += 1;
    }
    assert!((9..=11).contains(&most), "{most} were ahead");
}

#[tokio::test(start_paused = true)]
async fn until_the_end_passes_what_is_not_to_be_seen() {
    let cluster = cluster();
    cluster.topic("a", 2);
    cluster.put("a", 0, &["0", "1"]);
    // A fence takes an offset at the very end, of which nobody gets anything.
    let nobody = weir_client::proto::ProducerIdentity { id: 1, epoch: 0 };
    cluster.lock().topics.get_mut("a").unwrap().logs[0].outcome(&nobody, 0, true);
    let mut consumer = reading(&cluster).await;
    for _ in 0..2 {
        let mut reading = consumer.until_end().await.unwrap();
        let mut seen = Vec::new();
        while let Some(batch) = reading.next().await.unwrap() {
            seen.extend(values(&batch));
        }
        assert_eq!(seen, ["0", "1"]);
        assert_eq!(consumer.position("a", 0), Some(3));
        consumer.seek("a", 0, Position::Earliest).await.unwrap();
    }
    // Also from right before it, after a seek, when only a new stream can tell.
    consumer.seek("a", 0, Position::Offset(2)).await.unwrap();
    assert!(consumer.until_end().await.unwrap().next().await.unwrap().is_none());
}

#[tokio::test(start_paused = true)]
async fn batches_come_as_a_stream_too() {
    let cluster = cluster();
    cluster.topic("a", 1);
    for value in ["0", "1", "2"] {
        cluster.put("a", 0, &[value]);
    }
    let mut consumer = reading(&cluster).await;
    let batches: Vec<_> = Box::pin(consumer.stream()).take(3).collect().await;
    let seen: Vec<_> = batches.iter().flat_map(|batch| values(batch.as_ref().unwrap())).collect();
    assert_eq!(seen, ["0", "1", "2"]);
}

#[tokio::test(start_paused = true)]
async fn topics_that_are_not_there_or_go_away() {
    let cluster = cluster();
    cluster.topic("a", 1);
    let client = client(&cluster).await;
    let mut consumer = client.consumer(ConsumerConfig::new()).unwrap();
    let missing = consumer.assign("b", 0, Position::Earliest).await.unwrap_err();
    assert!(missing.is(ErrorReason::TopicNotFound));
    assert!(consumer.assign("a", 1, Position::Earliest).await.is_err());
    consumer.assign("a", 0, Position::Earliest).await.unwrap();
    client.topics().delete("a", None).await.unwrap();
    cluster.changed.notify_waiters();
    assert!(consumer.poll(SOON).await.unwrap_err().is(ErrorReason::TopicNotFound));
}

#[tokio::test(start_paused = true)]
async fn a_poll_that_is_given_up_loses_nothing() {
    let cluster = cluster();
    cluster.topic("a", 1);
    let mut consumer = reading(&cluster).await;
    for i in 0..100 {
        if i % 3 == 0 {
            cluster.put("a", 0, &[&(i / 3).to_string()]);
        }
        // Mostly too short to get anything.
        if let Some(batch) = consumer.poll(Duration::from_micros(i)).await.unwrap() {
            cluster.lock().seen_values.extend(values(&batch));
        }
    }
    while let Some(batch) = consumer.poll(Duration::from_secs(1)).await.unwrap() {
        cluster.lock().seen_values.extend(values(&batch));
    }
    let expected: Vec<_> = (0..34).map(|i| i.to_string()).collect();
    assert_eq!(cluster.lock().seen_values, expected);
}
