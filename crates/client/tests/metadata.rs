//! The map of the cluster: a client hears of what changes, without asking, from whoever can still tell.

#![allow(clippy::unwrap_used, reason = "a test may stop at a surprise")]

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::told::{NEVER, client, telling, told};
use common::{Cluster, Fate, builder, cluster};
use tokio::time::timeout;
use tonic::Status;
use weir_client::{Client, ConsumerConfig, ErrorReason, Position, Producer, ProducerConfig, Record};
use weir_proto::v1;
use weir_rpc::Problem;

/// What a client may take to leave a broker that says nothing any more.
const SILENT: Duration = Duration::from_secs(4);
/// What a client may take to hear of a leader that its own has not told it of.
const SOON: Duration = Duration::from_secs(3);

#[tokio::test(start_paused = true)]
async fn a_new_leader_is_heard_of_without_asking() {
    let cluster = Cluster::start(2);
    cluster.topic("a", 1);
    let (_client, producer) = told(&cluster).await;
    let asked = cluster.calls("GetMetadata");
    cluster.script(|sent| if sent.broker == 1 { Fate::AppendAndForget } else { Fate::Normal });
    let receipt = producer.send("a", "second").await.unwrap();
    common::until("it arrived", || async { cluster.lock().sent.len() == 2 }).await;
    cluster.lead("a", 0, 2);
    let delivery = timeout(SOON, receipt).await.expect("it hears").unwrap();
    assert_eq!((delivery.offset, delivery.duplicate), (Some(1), true));
    assert_eq!(cluster.calls("GetMetadata"), asked);
    assert_eq!(cluster.calls("WatchMetadata"), 1);
}

#[tokio::test(start_paused = true)]
async fn what_was_refused_again_and_again_goes_on_as_soon_as_somebody_else_leads() {
    let cluster = Cluster::start(2);
    cluster.topic("a", 1);
    let (_client, producer) = told(&cluster).await;
    cluster.script(|sent| if sent.broker == 1 { Fate::Fail(ErrorReason::NotLeader) } else { Fate::Normal });
    let receipt = producer.send("a", "second").await.unwrap();
    // By then it waits for half a second, or a whole one.
    common::until("it was refused often", || async { cluster.lock().sent.len() == 8 }).await;
    cluster.lead("a", 0, 2);
    let delivery = timeout(Duration::from_millis(200), receipt).await.expect("it does not wait").unwrap();
    assert_eq!(delivery.offset, Some(1));
}

#[tokio::test(start_paused = true)]
async fn one_watch_serves_all_and_ends_with_the_last() {
    let cluster = cluster();
    for topic in ["a", "b", "c"] {
        cluster.topic(topic, 1);
    }
    let (client, first) = told(&cluster).await;
    let second = client.producer(ProducerConfig::new()).unwrap();
    let mut consumer = client.consumer(ConsumerConfig::new()).unwrap();
    for topic in ["b", "c"] {
        second.send(topic, "v").await.unwrap().await.unwrap();
        consumer.assign(topic, 0, Position::Earliest).await.unwrap();
    }
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(cluster.calls("WatchMetadata"), 2, "again for the new topics, once for both");
    drop((first, second, consumer));
    tokio::time::sleep(Duration::from_secs(1)).await;
    cluster.net().cut("broker1");
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(cluster.calls("WatchMetadata"), 2, "nobody wants to know");
    client.producer(ProducerConfig::new()).unwrap().send("a", "v").await.unwrap().await.unwrap();
    common::until("it watches again", || async { cluster.calls("WatchMetadata") == 3 }).await;
}

#[tokio::test(start_paused = true)]
async fn the_watched_one_may_be_the_one_that_died() {
    // Whether it was watched for long, or not for long.
    for watched in [15, 3] {
        let cluster = Cluster::start(2);
        cluster.topic("a", 1);
        // Only one is known, so it is the one that is watched.
        cluster.lock().brokers = 1;
        let (_client, producer) = told(&cluster).await;
        {
            let mut state = cluster.lock();
            state.brokers = 2;
            state.version += 1;
        }
        cluster.tell();
        tokio::time::sleep(Duration::from_secs(watched)).await;
        cluster.net().silence("broker1");
        let receipt = producer.send("a", "second").await.unwrap();
        tokio::time::sleep(Duration::from_millis(500)).await;
        cluster.lead("a", 0, 2);
        let delivery = timeout(SOON, receipt).await.expect("it looks elsewhere").unwrap();
        assert_eq!(delivery.offset, Some(1));
        assert_eq!(cluster.lock().sent.last().unwrap().broker, 2);
    }
}

/// A producer whose client is told of changes by the leader, and asks it first, and knows of another broker.
async fn told_by_the_leader(cluster: &Arc<Cluster>) -> (Client, Producer) {
    cluster.topic("a", 1);
    // Only one is known, so it is the one that is watched.
    cluster.lock().brokers = 1;
    let told = told(cluster).await;
    {
        let mut state = cluster.lock();
        state.brokers = 2;
        state.version += 1;
    }
    cluster.tell();
    tokio::time::sleep(Duration::from_secs(15)).await;
    told
}

#[tokio::test(start_paused = true)]
async fn who_led_leaves_in_order_and_nobody_waits_for_it() {
    let cluster = Cluster::start(2);
    let (_client, producer) = told_by_the_leader(&cluster).await;
    cluster.net().refuse("broker1", true);
    cluster.net().cut("broker1");
    cluster.lead("a", 0, 2);
    let receipt = producer.send("a", "second").await.unwrap();
    let another = Duration::from_millis(10);
    let delivery = timeout(another, receipt).await.expect("another one is asked at once").unwrap();
    assert_eq!(delivery.offset, Some(1));
}

#[tokio::test(start_paused = true)]
async fn who_led_dies_and_the_next_leader_is_found_soon() {
    let cluster = Cluster::start(2);
    let (_client, producer) = told_by_the_leader(&cluster).await;
    cluster.net().refuse("broker1", true);
    cluster.net().cut("broker1");
    let receipt = producer.send("a", "second").await.unwrap();
    tokio::time::sleep(Duration::from_millis(30)).await;
    cluster.lead("a", 0, 2);
    // Whoever dials the dead one again looks for another at the same time; a watch elsewhere takes longer.
    let next = Duration::from_millis(40);
    let delivery = timeout(next, receipt).await.expect("it is looked for again and again").unwrap();
    assert_eq!(delivery.offset, Some(1));
}

#[tokio::test(start_paused = true)]
async fn the_watched_one_may_have_died_where_another_owes_the_answer() {
    let cluster = Cluster::start(3);
    cluster.topic("a", 1);
    // Only one is known, so it is the one that is watched.
    cluster.lock().brokers = 1;
    let (_client, producer) = told(&cluster).await;
    {
        let mut state = cluster.lock();
        state.brokers = 3;
        state.version += 1;
    }
    cluster.lead("a", 0, 2);
    producer.send("a", "second").await.unwrap().await.unwrap();
    // The leader is well, and waits for its follower.
    cluster.script(|sent| if sent.broker == 2 { Fate::AppendAndForget } else { Fate::Normal });
    cluster.net().silence("broker1");
    let receipt = producer.send("a", "third").await.unwrap();
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    cluster.lead("a", 0, 3);
    let delivery = timeout(Duration::from_secs(1), receipt).await.expect("another one tells").unwrap();
    assert_eq!(delivery.offset, Some(2));
    assert_eq!(cluster.lock().sent.last().unwrap().broker, 3);
}

#[tokio::test(start_paused = true)]
async fn where_all_are_slow_there_are_two_watches_and_no_more() {
    let cluster = Cluster::start(3);
    cluster.topic("a", 1);
    let (_client, producer) = told(&cluster).await;
    cluster.script(|_| Fate::Hold);
    let receipt = producer.send("a", "second").await.unwrap();
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(cluster.calls("WatchMetadata"), 2);
    cluster.release();
    receipt.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn however_often_a_watch_broke_the_next_one_is_soon() {
    let cluster = Cluster::start(2);
    cluster.topic("a", 1);
    let (_client, producer) = told(&cluster).await;
    for _ in 0..10 {
        let before = cluster.calls("WatchMetadata");
        for broker in ["broker1", "broker2"] {
            cluster.net().cut(broker);
        }
        let again = common::until("it watches", || async { cluster.calls("WatchMetadata") > before });
        timeout(SOON, again).await.expect("somebody answers");
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    cluster.script(|sent| if sent.broker == 1 { Fate::AppendAndForget } else { Fate::Normal });
    let receipt = producer.send("a", "second").await.unwrap();
    common::until("it arrived", || async { cluster.lock().sent.len() == 2 }).await;
    cluster.lead("a", 0, 2);
    let delivery = timeout(SOON, receipt).await.expect("it hears").unwrap();
    assert_eq!(delivery.offset, Some(1));
}

#[tokio::test(start_paused = true)]
async fn a_reader_leaves_a_leader_that_died_without_a_word() {
    // The silence begins right after a sign of life, or as late before the next one as can be.
    for later in [0, 1_000, 4_000, 4_990] {
        let cluster = Cluster::start(2);
        cluster.topic("a", 1);
        // Only one is known, so its map comes from the one that is going to be silent.
        cluster.lock().brokers = 1;
        let client = client(&cluster).await;
        let mut consumer = client.consumer(ConsumerConfig::new()).unwrap();
        consumer.assign("a", 0, Position::Earliest).await.unwrap();
        cluster.put("a", 0, &["0"]);
        assert_eq!(consumer.next().await.unwrap().next_offset(), 1);
        common::until("it watches", || async { cluster.calls("WatchMetadata") > 0 }).await;
        {
            let mut state = cluster.lock();
            state.brokers = 2;
            state.version += 1;
        }
        cluster.tell();
        tokio::time::sleep(Duration::from_millis(10 + later)).await;
        cluster.net().silence("broker1");
        cluster.lead("a", 0, 2);
        cluster.put("a", 0, &["1"]);
        let batch = timeout(SILENT, consumer.next()).await.expect("it notices").unwrap();
        assert_eq!(batch.next_offset(), 2);
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_leaves_a_broker_that_is_silent_for_one_that_answers() {
    for silent in [true, false] {
        let cluster = Cluster::start(2);
        cluster.topic("a", 3);
        let client = builder(&cluster).connect("broker1:1,broker2:1").await.unwrap();
        if silent {
            cluster.net().silence("broker1");
        } else {
            cluster.net().unheard("broker1", true);
            cluster.net().cut("broker1");
        }
        // What the map says, and, where there was a connection, whatever else.
        let count = timeout(SILENT, client.partition_count("a")).await.expect("another one is asked");
        assert_eq!(count.unwrap(), 3);
    }
    let cluster = Cluster::start(2);
    cluster.topic("a", 3);
    let client = builder(&cluster).connect("broker1:1,broker2:1").await.unwrap();
    cluster.net().silence("broker1");
    let topic = timeout(SILENT, client.topics().get("a")).await.expect("another one is asked");
    assert_eq!(topic.unwrap().partitions, 3);
}

#[tokio::test(start_paused = true)]
async fn where_all_are_slow_the_map_is_had_all_the_same() {
    let cluster = Cluster::start(2);
    cluster.topic("a", 3);
    let client = builder(&cluster).connect("broker1:1,broker2:1").await.unwrap();
    cluster.lock().slow = Duration::from_secs(7);
    assert_eq!(client.partition_count("a").await.unwrap(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_line_that_takes_long_for_batches_is_not_taken_for_dead() {
    let cluster = cluster();
    cluster.topic("a", 1);
    let (_client, producer) = told(&cluster).await;
    let dialled = cluster.net().dialled("broker1");
    // Nothing comes through for longer than a call's connection would be given, and then everything.
    cluster.net().hold("broker1", true);
    let receipt = producer.send("a", "second").await.unwrap();
    tokio::time::sleep(Duration::from_secs(5)).await;
    cluster.net().hold("broker1", false);
    assert_eq!(receipt.await.unwrap().offset, Some(1));
    assert!(!cluster.lock().sent.iter().any(|sent| sent.append.resume));
    assert_eq!(cluster.lock().sent.len(), 2, "nothing was sent twice");
    assert_eq!(cluster.net().dialled("broker1"), dialled + 1, "the calls' connection was made anew, alone");
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_broke_has_missed_nothing() {
    let cluster = Cluster::start(2);
    cluster.topic("a", 1);
    cluster.topic("b", 1);
    let (client, producer) = told(&cluster).await;
    producer.send("b", "v").await.unwrap().await.unwrap();
    let count = client.partition_count("b").await.unwrap();
    assert_eq!(count, 1);
    tokio::time::sleep(Duration::from_secs(1)).await;
    for broker in ["broker1", "broker2"] {
        cluster.net().refuse(broker, true);
        cluster.net().cut(broker);
    }
    cluster.lead("a", 0, 2);
    cluster.lock().topics.remove("b");
    cluster.lock().version += 1;
    tokio::time::sleep(Duration::from_secs(100)).await;
    for broker in ["broker1", "broker2"] {
        cluster.net().refuse(broker, false);
    }
    // The longest wait between two attempts, and a sign of life after the snapshot.
    tokio::time::sleep(Duration::from_secs(40)).await;
    producer.send("a", "second").await.unwrap().await.unwrap();
    let sent = cluster.lock().sent.last().unwrap().broker;
    assert_eq!((sent, cluster.lock().sent.len()), (2, 3), "it went to the new leader at once");
    let gone = client.partition_count("b").await.unwrap_err();
    assert!(gone.is(ErrorReason::TopicNotFound), "{gone}");
}

#[tokio::test(start_paused = true)]
async fn a_server_that_ends_watches_is_not_stormed() {
    let cluster = cluster();
    cluster.topic("a", 1);
    let draining = || Problem::new(ErrorReason::Draining, "stopping").status();
    cluster.lock().fail_call.insert("WatchMetadata", (0..10_000).map(|_| draining()).collect());
    let client = client(&cluster).await;
    let producer = client.producer(ProducerConfig::new()).unwrap();
    producer.send("a", "v").await.unwrap().await.unwrap();
    tokio::time::sleep(Duration::from_secs(60)).await;
    let tries = cluster.calls("WatchMetadata");
    assert!((5..=15).contains(&tries), "{tries} attempts in a minute");
}

#[tokio::test(start_paused = true)]
async fn a_server_that_tells_of_nothing_is_asked_instead() {
    let cluster = cluster();
    cluster.topic("a", 1);
    let refuse = || Status::unimplemented("no watches here");
    cluster.lock().fail_call.insert("WatchMetadata", (0..10_000).map(|_| refuse()).collect());
    let age = Duration::from_secs(10);
    let client = builder(&cluster).metadata_age_max(age).connect("broker1:1").await.unwrap();
    let producer = client.producer(ProducerConfig::new()).unwrap();
    producer.send("a", "v").await.unwrap().await.unwrap();
    let before = cluster.calls("GetMetadata");
    client.topics().update("a", weir_client::TopicChange::new().partitions(2)).await.unwrap();
    common::until("it is known", || async {
        producer.send("a", Record::new("v").partition(1)).await.is_ok()
    })
    .await;
    tokio::time::sleep(age * 10).await;
    let asked = cluster.calls("GetMetadata") - before;
    assert!((10..=24).contains(&asked), "{asked} questions in ten times the age");
    assert!(cluster.calls("WatchMetadata") <= asked + 1);
}

#[tokio::test(start_paused = true)]
async fn what_was_packed_for_a_topic_is_not_put_into_the_next_of_its_name() {
    let cluster = cluster();
    cluster.topic("a", 1);
    let client = client(&cluster).await;
    let producer = client.producer(ProducerConfig::new().linger(NEVER)).unwrap();
    cluster.script(|_| Fate::Hold);
    let first = producer.send("a", "0").await.unwrap();
    let packed = producer.send("a", "1").await.unwrap();
    common::until("it watches", || async { cluster.calls("WatchMetadata") > 0 }).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    client.topics().delete("a", None).await.unwrap();
    cluster.topic("a", 1);
    cluster.tell();
    tokio::time::sleep(Duration::from_secs(1)).await;
    cluster.script(|_| Fate::Normal);
    cluster.release();
    first.await.unwrap();
    // What failed before the flush is in the receipts alone.
    let _reported = producer.flush().await;
    let error = packed.await.unwrap_err();
    assert!(error.is(ErrorReason::TopicIdMismatch), "{error:?}");
    assert_eq!(cluster.values("a", 0), Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn what_changed_before_another_topic_was_looked_up_is_learnt() {
    let cluster = cluster();
    cluster.topic("a", 1);
    cluster.topic("b", 1);
    let refuse = || Status::unimplemented("no watches here");
    cluster.lock().fail_call.insert("WatchMetadata", (0..10_000).map(|_| refuse()).collect());
    let client =
        builder(&cluster).metadata_age_max(Duration::from_secs(10)).connect("broker1:1").await.unwrap();
    let producer = client.producer(ProducerConfig::new()).unwrap();
    producer.send("a", "v").await.unwrap().await.unwrap();
    client.topics().update("a", weir_client::TopicChange::new().partitions(2)).await.unwrap();
    // The answer about this one is newer than the change of the other.
    producer.send("b", "v").await.unwrap().await.unwrap();
    common::until("it is known", || async {
        producer.send("a", Record::new("v").partition(1)).await.is_ok()
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_map_in_pages_is_as_old_as_its_oldest_page() {
    let cluster = cluster();
    let refuse = || Status::unimplemented("no watches here");
    cluster.lock().fail_call.insert("WatchMetadata", (0..10_000).map(|_| refuse()).collect());
    let client =
        builder(&cluster).metadata_age_max(Duration::from_secs(10)).connect("broker1:1").await.unwrap();
    let _producer = client.producer(ProducerConfig::new()).unwrap();
    cluster.topic("a", 1);
    assert_eq!(client.partition_count("a").await.unwrap(), 1);
    cluster.topic("unused", 1);
    let between = cluster.lock().map(&["a".into(), "b".into()]);
    cluster.topic("b", 1);
    assert_eq!(client.partition_count("b").await.unwrap(), 1);
    {
        let mut state = cluster.lock();
        let version = state.version + 1;
        let last = v1::GetMetadataResponse { version, topics: Vec::new(), ..between.clone() };
        let first = v1::GetMetadataResponse { next_page_token: "more".into(), ..between };
        state.maps.extend([first, last]);
    }
    common::until("both were asked for", || async { cluster.lock().maps.is_empty() }).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let asked = cluster.calls("GetMetadata");
    assert_eq!(client.partition_count("b").await.unwrap(), 1);
    assert_eq!(cluster.calls("GetMetadata"), asked, "the first page is older than the topic");
}

#[tokio::test(start_paused = true)]
async fn what_a_snapshot_lacked_is_gone_as_of_the_snapshot() {
    let cluster = cluster();
    cluster.topic("a", 1);
    let (client, _producer) = told(&cluster).await;
    {
        // Whoever is watched next has not heard of the other topic, and what it tells then is not all of it.
        let mut state = cluster.lock();
        let (version, map) = (state.version, state.map(&["a".into()]));
        let behind = vec![telling(version, true, map.clone()), telling(version + 2, false, map)];
        state.watches.push_back(behind);
    }
    cluster.topic("b", 1);
    assert_eq!(client.partition_count("b").await.unwrap(), 1);
    common::until("it watches again", || async { cluster.calls("WatchMetadata") == 2 }).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let asked = cluster.calls("GetMetadata");
    assert_eq!(client.partition_count("b").await.unwrap(), 1);
    assert_eq!(cluster.calls("GetMetadata"), asked, "the snapshot is older than the topic");
}

#[tokio::test(start_paused = true)]
async fn two_watches_are_of_two_brokers() {
    let cluster = Cluster::start(3);
    cluster.topic("a", 1);
    let (client, producer) = told(&cluster).await;
    cluster.script(|_| Fate::Hold);
    let receipt = producer.send("a", "second").await.unwrap();
    common::until("there are two", || async { cluster.lock().watched.len() == 2 }).await;
    let second = cluster.lock().watched[1];
    for round in 0..8 {
        // The first one has to begin again.
        let topic = format!("t{round}");
        cluster.topic(&topic, 1);
        client.partition_count(&topic).await.unwrap();
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
    let first = cluster.lock().watched.split_off(2);
    assert_eq!(first.len(), 8);
    assert!(!first.contains(&second), "{first:?}, and the second one is of {second}");
    cluster.release();
    receipt.await.unwrap();
}
