//! Leaders die, and come back.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::timeout;
use tonic::Streaming;
use weir_proto::v1::metadata_service_client::MetadataServiceClient;
use weir_proto::v1::producer_service_client::ProducerServiceClient;
use weir_proto::v1::{ErrorReason, NewRecord, ProduceRequest, WatchMetadataRequest, WatchMetadataResponse};
use weir_runtime::testing::{PATIENCE, until};
use weir_tests::cluster::{Cluster, Plan};
use weir_tests::refusal::Refusal;

use crate::support::{frames, partitions, read, try_read, until_in_sync, write};

pub(crate) fn three() -> Plan {
    // Somebody who is killed is to be noticed.
    Plan { session: Duration::from_secs(1), ..Plan::of(3) }.flag("--replica-lag-ms-max", "1s")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_acknowledged_is_on_every_replica() {
    let mut cluster = Cluster::start_as(three()).await;
    cluster.create("orders", 3, 3, &[("min_insync_replicas", "2")]).await;
    until_in_sync(&cluster, 0, "orders", 3).await;
    for number in 0..30 {
        let (partition, value) = (number % 3, format!("order {number}"));
        assert_eq!(write(&cluster, 0, "orders", partition, &value).await, i64::from(number / 3));
    }
    for at in 0..3 {
        cluster.stop_broker(at).await;
    }
    let (one, two, three) =
        (frames(cluster.disk(0)).await, frames(cluster.disk(1)).await, frames(cluster.disk(2)).await);
    assert_eq!(one.iter().map(|(_, frames)| frames.len()).collect::<Vec<_>>(), [10, 10, 10]);
    assert_eq!((&one, &one), (&two, &three));
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_replica_leads_when_the_leader_dies_and_nothing_is_lost() {
    let mut cluster = Cluster::start_as(three()).await;
    cluster.create("orders", 1, 3, &[("min_insync_replicas", "2")]).await;
    until_in_sync(&cluster, 0, "orders", 3).await;
    let mut written = Vec::new();
    for round in 0..4 {
        let leader = cluster.leaders("orders").await[0];
        let witness = (leader + 1) % 3;
        for number in 0..10 {
            let value = format!("{round}.{number}");
            write(&cluster, witness, "orders", 0, &value).await;
            written.push(value);
        }
        cluster.kill_broker(leader).await;
        let value = format!("{round} without broker {leader}");
        write(&cluster, witness, "orders", 0, &value).await;
        written.push(value);
        let now = partitions(&cluster, witness, "orders").await;
        assert_ne!(usize::try_from(now[0].leader - 1).unwrap(), leader);
        cluster.start_broker(leader).await;
        until_in_sync(&cluster, witness, "orders", 3).await;
    }
    let leader = cluster.leaders("orders").await[0];
    assert_eq!(read(&cluster, leader, "orders").await, written);
    for at in 0..3 {
        cluster.stop_broker(at).await;
    }
    let first = frames(cluster.disk(0)).await;
    assert_eq!(first[0].1.len(), written.len());
    for at in 1..3 {
        assert_eq!(frames(cluster.disk(at)).await, first, "broker {at}");
    }
    cluster.stop().await;
}

/// Who leads is told by the metadata, and taken up a moment later: whoever reads in between waits for that moment.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_has_just_got_a_leader_is_read_at_once() {
    let mut cluster = Cluster::start_as(three()).await;
    cluster.create("orders", 12, 3, &[("min_insync_replicas", "1")]).await;
    until_in_sync(&cluster, 0, "orders", 3).await;
    for partition in 0..12 {
        write(&cluster, 0, "orders", partition, "x").await;
    }
    for killed in 0..3 {
        cluster.kill_broker(killed).await;
        for asked in (0..3).filter(|at| *at != killed) {
            until("all have another leader", async || {
                let leaders = cluster.leaders_seen_by(asked, "orders").await;
                leaders.len() == 12 && leaders.iter().all(|id| *id > 0 && *id != cluster.id(killed))
            })
            .await;
            let values = try_read(&cluster, asked, "orders").await.unwrap();
            assert_eq!(values.len(), 12, "at broker {asked}");
        }
        cluster.start_broker(killed).await;
        until_in_sync(&cluster, killed, "orders", 3).await;
    }
    cluster.stop().await;
}

/// Who leads by the next message of a watch; `false`: it has ended.
async fn hears(told: &mut Streaming<WatchMetadataResponse>, leaders: &mut BTreeMap<i32, i32>) -> bool {
    let Ok(Some(message)) = told.message().await else { return false };
    let topics = message.topics.into_iter().chain(message.changed_topics);
    let all = topics.flat_map(|topic| topic.partitions);
    leaders.extend(all.map(|partition| (partition.partition, partition.leader)));
    true
}

/// Whoever is told of the metadata by a broker that stops hears from it who leads instead, and has to ask nobody.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_stops_says_who_leads_instead() {
    let mut cluster = Cluster::start(3).await;
    cluster.create("orders", 6, 3, &[("min_insync_replicas", "2")]).await;
    until_in_sync(&cluster, 0, "orders", 3).await;
    let (stops, topics) = (0, vec!["orders".to_owned()]);
    let mut watching = Vec::new();
    for _ in 0..16 {
        let request =
            WatchMetadataRequest { topics: topics.clone(), from_version: 0, partition_changes: true };
        let mut client = MetadataServiceClient::new(cluster.channel(stops));
        let mut told = client.watch_metadata(request).await.unwrap().into_inner();
        let mut leaders = BTreeMap::new();
        while leaders.len() < 6 {
            assert!(timeout(PATIENCE, hears(&mut told, &mut leaders)).await.unwrap());
        }
        watching.push(tokio::spawn(async move {
            while hears(&mut told, &mut leaders).await {}
            leaders
        }));
    }
    let stopped = cluster.id(stops);
    cluster.stop_broker(stops).await;
    for watching in watching {
        let leaders = timeout(PATIENCE, watching).await.expect("it ends").unwrap();
        assert!(leaders.values().all(|leader| *leader != stopped), "{leaders:?}");
    }
    cluster.stop().await;
}

/// Where the last complete replica is on a broker that is away, whoever writes is told which broker that is: nobody else can know
/// whether it will come back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_waited_for_is_named() {
    let mut cluster = Cluster::start_as(three()).await;
    cluster.create("orders", 1, 2, &[("min_insync_replicas", "1")]).await;
    until_in_sync(&cluster, 0, "orders", 2).await;
    let record = partitions(&cluster, 0, "orders").await.remove(0);
    let at = |id: i32| usize::try_from(id - 1).unwrap();
    let asked = (0..3).find(|at| !record.replicas.contains(&cluster.id(*at))).unwrap();
    // The other one has left before: it lacks what is written then.
    let first = record.replicas.iter().copied().find(|id| *id != record.leader).unwrap();
    cluster.kill_broker(at(first)).await;
    until_in_sync(&cluster, asked, "orders", 1).await;
    write(&cluster, asked, "orders", 0, "alone").await;
    let last = record.leader;
    cluster.kill_broker(at(last)).await;
    let mut said = String::new();
    until("it is refused in words", async || {
        let record = NewRecord { value_text: "late".to_owned(), ..NewRecord::default() };
        let request = ProduceRequest {
            topic: "orders".to_owned(),
            partition: Some(0),
            records: vec![record],
            ..ProduceRequest::default()
        };
        let answer = ProducerServiceClient::new(cluster.channel(asked)).produce(request).await;
        let refusal = Refusal::of_status(&answer.unwrap_err()).unwrap();
        let waits_for = refusal.facts.get("waits_for").cloned();
        said = refusal.message;
        refusal.reason == ErrorReason::NoLeader && waits_for == Some(last.to_string())
    })
    .await;
    assert!(said.contains(&format!("it waits for broker {last} (fenced); nobody else")), "{said}");
    cluster.stop().await;
}
