//! Who says in which rack it stands reads the replica there, as long as that is in sync; what it reads is what the leader
//! would have given, and where a history was cut off it is told so.

use std::time::Duration;

use weir_client::{Client, Consumer, ConsumerConfig, ErrorReason, Position};
use weir_proto::v1::admin_service_client::AdminServiceClient;
use weir_proto::v1::consumer_service_client::ConsumerServiceClient;
use weir_proto::v1::producer_service_client::ProducerServiceClient;
use weir_proto::v1::{Acks, ConsumeRequest, ElectLeadersRequest, NewRecord, ProduceRequest, TopicPartition};
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
    let mut said = String::new();
    let chosen = async |said: &mut String| {
        let mut admin = AdminServiceClient::new(cluster.channel(asked));
        let mut request = ElectLeadersRequest {
            partitions: vec![TopicPartition { topic: "orders".to_owned(), partition: 0 }],
            unclean: true,
            validate_only: true,
            ..ElectLeadersRequest::default()
        };
        let lost = match admin.elect_leaders(request.clone()).await {
            Ok(answer) => answer.into_inner().records_lost,
            Err(status) => return *said = format!("{status:?}"),
        };
        request.accepted_loss_records = Some(lost);
        request.validate_only = false;
        *said = match admin.elect_leaders(request).await {
            Ok(answer) => format!("{answer:?}"),
            Err(status) => format!("{status:?}"),
        };
    };
    // Once both have come and said what they have. Who asks may not have heard yet that the old leader is gone, or of anything.
    let led = async || {
        let leader = cluster.leaders_seen_by(asked, "orders").await.first().copied().unwrap_or(-1);
        usize::try_from(leader - 1).is_ok_and(|at| others.contains(&at))
    };
    let until_led = until("a person has chosen", async || {
        chosen(&mut said).await;
        led().await
    });
    if tokio::time::timeout(PATIENCE / 2, until_led).await.is_err() {
        panic!("nobody leads: {said}");
    }
    // As far as it was before, and further: what is there now is something else.
    for number in 5..15 {
        assert_eq!(write(&cluster, asked, "orders", 0, "other").await, number);
    }
    for consumer in &mut readers {
        let error = loop {
            match tokio::time::timeout(PATIENCE, consumer.poll(Duration::from_secs(1))).await.unwrap() {
                Ok(None) => {}
                Ok(Some(batch)) => panic!("{} was read without a word", batch.next_offset() - 1),
                Err(error) => break error,
            }
        };
        assert_eq!(error.reason(), Some(ErrorReason::LogTruncated), "{error}");
    }
    drop(readers);
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
