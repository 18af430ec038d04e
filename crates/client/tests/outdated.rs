//! The map and the watch that keeps it: a broker tells what differs from what it told before, so what the map has from elsewhere
//! may be undone without a word.

#![allow(clippy::unwrap_used, reason = "a test may stop at a surprise")]

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::told::{telling, told};
use common::{Cluster, Fate};
use weir_client::{Client, ErrorReason, Producer};
use weir_proto::v1;

/// A client that is told of changes, of topics `a` and `b`, the latter led by broker 3.
async fn told_of_two(cluster: &Arc<Cluster>) -> (Client, Producer) {
    cluster.topic("a", 1);
    cluster.topic("b", 1);
    cluster.lead("b", 0, 3);
    let (client, producer) = told(cluster).await;
    producer.send("b", "first").await.unwrap().await.unwrap();
    common::until("it watches both", || async { cluster.calls("WatchMetadata") == 2 }).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    (client, producer)
}

/// The map in which broker 3 is out, one version on.
fn without_3(cluster: &Arc<Cluster>, topics: &[&str]) -> v1::GetMetadataResponse {
    let topics: Vec<String> = topics.iter().map(|&topic| topic.to_owned()).collect();
    let mut map = cluster.lock().map(&topics);
    map.version += 1;
    map.brokers.retain(|broker| broker.broker_id != 3);
    map
}

/// What broker 3 leads goes there without a question: it is known to be in again.
async fn knows_3(cluster: &Arc<Cluster>, producer: &Producer) {
    let asked = cluster.calls("GetMetadata");
    producer.send("b", "second").await.unwrap().await.unwrap();
    assert_eq!(cluster.lock().sent.last().unwrap().broker, 3);
    assert_eq!(cluster.calls("GetMetadata"), asked);
}

#[tokio::test(start_paused = true)]
async fn what_a_second_watch_told_last_is_not_what_stays() {
    let cluster = Cluster::start(3);
    let (_client, producer) = told_of_two(&cluster).await;
    // The second one is ahead: a broker is out. It never tells that it is in again, and to the first one nothing happened.
    let ahead = without_3(&cluster, &["a", "b"]);
    cluster.lock().watches.push_back(vec![telling(ahead.version, true, ahead)]);
    cluster.script(|_| Fate::Hold);
    let held = producer.send("a", "second").await.unwrap();
    common::until("there are two", || async { cluster.calls("WatchMetadata") == 3 }).await;
    cluster.lock().version += 2;
    cluster.tell();
    tokio::time::sleep(Duration::from_secs(1)).await;
    cluster.script(|_| Fate::Normal);
    cluster.release();
    held.await.unwrap();
    // Once there is no doubt any more, one watch is left.
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(cluster.calls("WatchMetadata"), 4, "the one that is left began again");
    knows_3(&cluster, &producer).await;
}

#[tokio::test(start_paused = true)]
async fn what_an_answer_said_last_is_not_what_stays() {
    let cluster = Cluster::start(3);
    let (_client, producer) = told_of_two(&cluster).await;
    // Who is asked is ahead of who is watched: a broker is out. By the time the other one is as far it is in again, and
    // nothing happened.
    let ahead = without_3(&cluster, &["a", "b"]);
    cluster.lock().maps.push_back(ahead);
    cluster.fates([Fate::Fail(ErrorReason::NotLeader)]);
    producer.send("a", "second").await.unwrap().await.unwrap();
    assert!(cluster.lock().maps.is_empty(), "it was asked");
    cluster.lock().version += 2;
    cluster.tell();
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(cluster.calls("WatchMetadata"), 3, "it began again");
    knows_3(&cluster, &producer).await;
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_begins_with_less_than_is_known_begins_again() {
    let cluster = Cluster::start(3);
    let (client, producer) = told_of_two(&cluster).await;
    // Another topic is looked up where a broker is out already. Who is watched then has heard of neither, and goes on from
    // there when it is in again: nothing happened.
    let before = cluster.lock().map(&["a".into(), "b".into()]);
    cluster.topic("c", 1);
    let ahead = without_3(&cluster, &["c"]);
    {
        let mut state = cluster.lock();
        state.watches.push_back(vec![telling(before.version, true, before)]);
        state.version = ahead.version + 1;
        state.maps.push_back(ahead);
    }
    assert_eq!(client.partition_count("c").await.unwrap(), 1);
    common::until("it watches all", || async { cluster.calls("WatchMetadata") == 3 }).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(cluster.calls("WatchMetadata"), 4, "it began again");
    knows_3(&cluster, &producer).await;
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_says_what_is_known_ends_no_watch() {
    let cluster = Cluster::start(3);
    let (_client, producer) = told_of_two(&cluster).await;
    for _ in 0..3 {
        cluster.lock().version += 1;
        cluster.fates([Fate::Fail(ErrorReason::NotLeader)]);
        let asked = cluster.calls("GetMetadata");
        producer.send("a", "again").await.unwrap().await.unwrap();
        assert!(cluster.calls("GetMetadata") > asked);
        tokio::time::sleep(Duration::from_secs(60)).await;
    }
    assert_eq!(cluster.calls("WatchMetadata"), 2);
}
