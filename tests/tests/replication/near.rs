//! Who says in which rack it stands reads the replica there, as long as that is in sync; what it reads is what the leader
//! would have given, and where a history was cut off it is told so.

use std::time::Duration;

use weir_client::{Client, Consumer, ConsumerConfig, ErrorReason, Position};
use weir_proto::v1::admin_service_client::AdminServiceClient;
use weir_proto::v1::consumer_service_client::ConsumerServiceClient;
use weir_proto::v1::producer_service_client::ProducerServiceClient;
use weir_proto::v1::{
    Acks, ConsumeRequest, ElectLeadersRequest, FetchPartition, FetchRequest, FetchedPartition, NewRecord,
    ProduceRequest, Route, TopicPartition,
};
use weir_runtime::testing::{PATIENCE, until};
use weir_tests::cluster::{Cluster, Plan};

use crate::failover::three;
use crate::support::{until_in_sync, write};

const RACKS: [&str; 3] = ["rack-0", "rack-1", "rack-2"];
const READ: &str = "weir_replica_read_bytes_total";

/// Three brokers, each in a rack of its own.
async fn racked() -> Cluster {
    let plan =
        RACKS.iter().enumerate().fold(three(), |plan: Plan, (at, rack)| plan.flag_of(at, "--rack", *rack));
    Cluster::start_as(plan).await
}

async fn reader(cluster: &Cluster, rack: usize) -> Consumer {
    let client = Client::connect(&cluster.addresses()).await.unwrap();
    let config = ConsumerConfig::new().rack(*RACKS.get(rack).unwrap());
    let mut consumer = client.consumer(config).unwrap();
    consumer.assign("orders", 0, Position::Earliest).await.unwrap();
    consumer
}

/// Writes one and reads it.
async fn goes_on(cluster: &Cluster, asked: usize, consumer: &mut Consumer, number: i64) {
    assert_eq!(write(cluster, asked, "orders", 0, &number.to_string()).await, number);
    reads(consumer, number).await;
}

/// The next record is this one.
async fn reads(consumer: &mut Consumer, number: i64) {
    let batch = tokio::time::timeout(PATIENCE, consumer.next()).await.unwrap().unwrap();
    let values: Vec<_> = batch
        .records()
        .map(|record| String::from_utf8(record.unwrap().value.unwrap().to_vec()).unwrap())
        .collect();
    assert_eq!(values, [number.to_string()]);
}

/// The next thing that the consumer hears is that what it has read is not there any more.
async fn is_told(consumer: &mut Consumer) {
    let error = loop {
        match tokio::time::timeout(PATIENCE, consumer.poll(Duration::from_secs(1))).await.unwrap() {
            Ok(None) => {}
            Ok(Some(batch)) => panic!("{} was read without a word", batch.next_offset() - 1),
            Err(error) => break error,
        }
    };
    assert_eq!(error.reason(), Some(ErrorReason::LogTruncated), "{error}");
}

/// What a broker has for a reader of this rack, now.
async fn fetch(
    cluster: &Cluster,
    at: usize,
    rack: &str,
    offset: i64,
    epoch: Option<i32>,
) -> FetchedPartition {
    fetch_within(cluster, at, rack, offset, epoch, Duration::ZERO).await
}

/// The same, waited for.
async fn fetch_within(
    cluster: &Cluster,
    at: usize,
    rack: &str,
    offset: i64,
    epoch: Option<i32>,
    wait: Duration,
) -> FetchedPartition {
    let wanted = FetchPartition {
        topic: "orders".to_owned(),
        offset,
        leader_epoch: epoch,
        ..FetchPartition::default()
    };
    let request = FetchRequest {
        partitions: vec![wanted],
        wait_ms: Some(i64::try_from(wait.as_millis()).unwrap()),
        route: Route::Direct.into(),
        rack: rack.to_owned(),
        ..FetchRequest::default()
    };
    let answer = ConsumerServiceClient::new(cluster.channel(at)).fetch(request).await.unwrap();
    answer.into_inner().partitions.remove(0)
}

/// A person has one of these lead, who are all that there are, whatever is lost with that. Once all have come and said what they
/// have; who is asked may not have heard yet that the old leader is gone, or of anything.
async fn elect_uncleanly(cluster: &Cluster, asked: usize, among: &[usize]) {
    let mut said = String::new();
    let chosen = async |said: &mut String| {
        let mut admin = AdminServiceClient::new(cluster.channel(asked));
        let mut request = ElectLeadersRequest {
            partitions: vec![TopicPartition { topic: "orders".to_owned(), partition: 0 }],
            unclean: true,
            validate_only: true,
            ..ElectLeadersRequest::default()
        };
        let shown = match admin.elect_leaders(request.clone()).await {
            Ok(answer) => answer.into_inner(),
            Err(status) => return *said = format!("{status:?}"),
        };
        // Of somebody who was killed nobody knows what is lost with it.
        request.accept_unknown_loss = shown.elections.iter().any(|election| election.loss_unknown);
        request.accepted_loss_records = (!request.accept_unknown_loss).then_some(shown.records_lost);
        request.validate_only = false;
        *said = match admin.elect_leaders(request).await {
            Ok(answer) => format!("{answer:?}"),
            Err(status) => format!("{status:?}"),
        };
    };
    let led = async || {
        let leader = cluster.leaders_seen_by(asked, "orders").await.first().copied().unwrap_or(-1);
        usize::try_from(leader - 1).is_ok_and(|at| among.contains(&at))
    };
    let until_led = until("a person has chosen", async || {
        chosen(&mut said).await;
        led().await
    });
    if tokio::time::timeout(PATIENCE / 2, until_led).await.is_err() {
        panic!("nobody leads: {said}");
    }
}

async fn read_near(cluster: &Cluster, at: usize) -> f64 {
    cluster.metric(at, READ).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_stays_in_its_rack_and_goes_on_where_that_has_no_replica_or_leads() {
    let mut cluster = racked().await;
    cluster.create("orders", 1, 3, &[("min_insync_replicas", "2")]).await;
    until_in_sync(&cluster, 0, "orders", 3).await;
    let leader = cluster.leaders("orders").await[0];
    let (near, third) = ((leader + 1) % 3, (leader + 2) % 3);
    let mut consumer = reader(&cluster, near).await;
    let mut number = 0;
    for _ in 0..5 {
        goes_on(&cluster, leader, &mut consumer, number).await;
        number += 1;
    }
    assert!(read_near(&cluster, near).await > 0.0);
    assert_eq!(read_near(&cluster, third).await, 0.0);

    // The easy read does the same, at any broker.
    for at in 0..3 {
        let before = read_near(&cluster, near).await;
        let request = ConsumeRequest {
            topics: vec!["orders".to_owned()],
            until_end: true,
            rack: RACKS.get(near).unwrap().to_string(),
            ..ConsumeRequest::default()
        };
        let mut client = ConsumerServiceClient::new(cluster.channel(at));
        let mut stream = client.consume(request).await.unwrap().into_inner();
        let mut count = 0;
        while let Some(message) = stream.message().await.unwrap() {
            count += message.records.len();
        }
        assert_eq!(count, 5);
        // Its leader, asked itself, has no hop to save.
        if at != leader {
            assert!(read_near(&cluster, near).await > before, "at broker {at}");
        }
    }

    // Without the replica the leader is read, and the replica again once it is back.
    cluster.kill_broker(near).await;
    for _ in 0..3 {
        goes_on(&cluster, leader, &mut consumer, number).await;
        number += 1;
    }
    cluster.start_broker(near).await;
    until_in_sync(&cluster, leader, "orders", 3).await;
    until("the reader is back in its rack", async || {
        goes_on(&cluster, leader, &mut consumer, number).await;
        number += 1;
        read_near(&cluster, near).await > 0.0
    })
    .await;

    // Another leader: the replica near, or the third.
    cluster.kill_broker(leader).await;
    for _ in 0..5 {
        goes_on(&cluster, near, &mut consumer, number).await;
        number += 1;
    }
    drop(consumer);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_position_on_a_history_that_was_cut_off_is_told_so_wherever_it_is_read() {
    let mut cluster = racked().await;
    cluster.create("orders", 1, 3, &[("min_insync_replicas", "1")]).await;
    until_in_sync(&cluster, 0, "orders", 3).await;
    let leader = cluster.leaders("orders").await[0];
    let others: Vec<_> = (0..3).filter(|at| *at != leader).collect();
    let mut readers = Vec::new();
    for rack in 0..3 {
        readers.push(reader(&cluster, rack).await);
    }
    for number in 0..5 {
        assert_eq!(write(&cluster, leader, "orders", 0, &number.to_string()).await, number);
        for consumer in &mut readers {
            reads(consumer, number).await;
        }
    }
    for at in &others {
        cluster.kill_broker(*at).await;
    }
    until_in_sync(&cluster, leader, "orders", 1).await;
    for number in 5..10 {
        assert_eq!(write(&cluster, leader, "orders", 0, &number.to_string()).await, number);
        for consumer in &mut readers {
            reads(consumer, number).await;
        }
    }
    cluster.kill_broker(leader).await;
    for at in &others {
        cluster.start_broker(*at).await;
    }
    let asked = others[0];
    elect_uncleanly(&cluster, asked, &others).await;
    // As far as it was before, and further: what is there now is something else.
    for number in 5..15 {
        assert_eq!(write(&cluster, asked, "orders", 0, "other").await, number);
    }
    for consumer in &mut readers {
        is_told(consumer).await;
    }
    drop(readers);
    cluster.stop().await;
}

/// A replica has what is committed before it hears that it is. Whoever has read it from the leader, or was told of the end by it,
/// goes on nearby all the same, and waits there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_at_the_leaders_end_is_served_by_a_replica_that_has_not_heard_of_it() {
    let cluster = racked().await;
    cluster.create("orders", 1, 3, &[("min_insync_replicas", "2")]).await;
    let leader = cluster.leaders("orders").await[0];
    let near = (leader + 1) % 3;
    until_in_sync(&cluster, near, "orders", 3).await;
    let rack = RACKS.get(near).unwrap();
    let epoch = crate::support::partitions(&cluster, near, "orders").await[0].leader_epoch;
    until("the replica nearby serves", async || fetch(&cluster, near, rack, 0, None).await.failure.is_none())
        .await;
    for number in 0..30 {
        assert_eq!(write(&cluster, leader, "orders", 0, &number.to_string()).await, number);
        let end = number + 1;
        // All of them have it: it is acknowledged.
        let named = (number % 2 == 0).then_some(epoch);
        let answer = fetch(&cluster, near, rack, end, named).await;
        assert_eq!(answer.failure, None, "at {end}");
        let progress = answer.progress.unwrap();
        assert_eq!(progress.next_offset, end);
        assert!(progress.high_watermark == -1 || progress.high_watermark >= end, "{progress:?}");
        assert!(progress.leader_epoch.is_none_or(|told| told == epoch), "{progress:?}");
    }
    // What the replica does not have it does not judge.
    let failure = fetch(&cluster, near, rack, 31, Some(epoch)).await.failure.unwrap();
    assert_eq!(failure.reason(), ErrorReason::NotLeader, "{failure:?}");
    let (read, written) = tokio::join!(
        fetch_within(&cluster, near, rack, 30, Some(epoch), PATIENCE / 2),
        write(&cluster, leader, "orders", 0, "30")
    );
    assert_eq!((written, read.failure), (30, None));
    assert_eq!(read.records.first().map(|record| record.offset), Some(30));
    cluster.stop().await;
}

/// Two elections that lose records: the leader of the second had more than the one of the first ever wrote, of an earlier
/// epoch. What is at the reader's position then is not what comes after what it has read.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_longer_log_of_an_earlier_epoch_is_not_what_was_read() {
    let mut cluster = racked().await;
    cluster.create("orders", 1, 2, &[("min_insync_replicas", "1")]).await;
    until_in_sync(&cluster, 0, "orders", 2).await;
    let known = crate::support::partitions(&cluster, 0, "orders").await;
    let first = cluster.leaders("orders").await[0];
    let second = known[0].replicas.iter().map(|id| usize::try_from(id - 1).unwrap()).find(|at| *at != first);
    let second = second.unwrap();
    let third = 3 - first - second;
    for number in 0..5 {
        assert_eq!(write(&cluster, third, "orders", 0, "both").await, number);
    }
    cluster.kill_broker(second).await;
    until_in_sync(&cluster, third, "orders", 1).await;
    for number in 5..15 {
        assert_eq!(write(&cluster, third, "orders", 0, "first").await, number);
    }
    cluster.kill_broker(first).await;
    cluster.start_broker(second).await;
    elect_uncleanly(&cluster, third, &[second]).await;
    let epoch = crate::support::partitions(&cluster, third, "orders").await[0].leader_epoch;
    let mut consumer = reader(&cluster, second).await;
    for number in 5..10 {
        assert_eq!(write(&cluster, third, "orders", 0, "second").await, number);
    }
    while consumer.position("orders", 0) != Some(10) {
        tokio::time::timeout(PATIENCE, consumer.next()).await.unwrap().unwrap();
    }
    cluster.kill_broker(second).await;
    cluster.start_broker(first).await;
    elect_uncleanly(&cluster, third, &[first]).await;
    is_told(&mut consumer).await;
    let answer = fetch(&cluster, first, "", 10, Some(epoch)).await;
    let failure = answer.failure.unwrap();
    assert_eq!(failure.reason(), ErrorReason::LogTruncated, "{failure:?}");
    // The epoch that is the last of what both may have begins there.
    assert_eq!(failure.metadata.get("offset").map(String::as_str), Some("0"), "{failure:?}");

    // The replica nearby does not serve it either.
    cluster.start_broker(second).await;
    until_in_sync(&cluster, third, "orders", 2).await;
    let rack = RACKS.get(second).unwrap();
    until("the replica nearby serves", async || {
        fetch(&cluster, second, rack, 0, None).await.failure.is_none()
    })
    .await;
    let failure = fetch(&cluster, second, rack, 10, Some(epoch)).await.failure.unwrap();
    assert_eq!(failure.reason(), ErrorReason::NotLeader, "{failure:?}");
    drop(consumer);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn consume_waits_for_a_leader_that_does_not_know_yet_how_far_it_is_committed() {
    // The other one stays in sync, and is waited for.
    let plan = Plan { session: Duration::from_secs(1), ..Plan::of(4) }.flag("--replica-lag-ms-max", "5min");
    let mut cluster = Cluster::start_as(plan).await;
    cluster.create("orders", 1, 3, &[("min_insync_replicas", "2")]).await;
    until_in_sync(&cluster, 0, "orders", 3).await;
    let known = crate::support::partitions(&cluster, 0, "orders").await;
    let at = |id: &i32| usize::try_from(id - 1).unwrap();
    let replicas: Vec<usize> = known[0].replicas.iter().map(at).collect();
    let stranger = (0..4).find(|at| !replicas.contains(at)).unwrap();
    let leader = at(&known[0].leader);
    let [next, last] = replicas.iter().copied().filter(|at| *at != leader).collect::<Vec<_>>()[..] else {
        panic!("{known:?}");
    };
    // On the one, and not on the other: so nobody knows it to be committed.
    cluster.link(last, leader).hold();
    let received = async || cluster.metric(next, "weir_replication_received_bytes_total").await.unwrap();
    let before = received().await;
    let request = ProduceRequest {
        topic: "orders".to_owned(),
        partition: Some(0),
        records: vec![NewRecord { value_text: "first".to_owned(), ..NewRecord::default() }],
        acks: Acks::Leader.into(),
        ..ProduceRequest::default()
    };
    ProducerServiceClient::new(cluster.channel(leader)).produce(request).await.unwrap();
    until("the next leader has it", async || received().await > before).await;
    cluster.link(last, next).hold();
    cluster.kill_broker(leader).await;
    until("it leads", async || cluster.leaders_seen_by(stranger, "orders").await == [cluster.id(next)]).await;
    let request = ConsumeRequest {
        topics: vec!["orders".to_owned()],
        until_end: true,
        text: true,
        ..ConsumeRequest::default()
    };
    let mut client = ConsumerServiceClient::new(cluster.channel(stranger));
    let consuming = tokio::spawn(async move {
        let mut stream = client.consume(request).await?.into_inner();
        let mut values = Vec::new();
        while let Some(message) = stream.message().await? {
            values.extend(message.records.into_iter().map(|record| record.value_text));
        }
        Ok::<_, tonic::Status>(values)
    });
    until("the new leader was asked", async || {
        let asked = "weir_forwarded_calls_total{call=\"ListOffsets\",code=\"Ok\"}";
        cluster.metric(stranger, asked).await.is_some_and(|count| count > 0.0) || consuming.is_finished()
    })
    .await;
    cluster.link(last, next).release();
    let values = tokio::time::timeout(PATIENCE, consuming).await.unwrap().unwrap();
    assert_eq!(values.unwrap(), ["first"]);
    cluster.stop().await;
}
