//! Bits that rot in a log while it is in use: whoever meets them, a reader here, a reader by way of another broker or a
//! follower, the replica gives way to one that has what was written, and is fetched anew.

use weir_client::{Client, Consumer, ConsumerConfig, ErrorReason, Position, RecordView};
use weir_io::MemDisk;
use weir_proto::v1::consumer_service_client::ConsumerServiceClient;
use weir_proto::v1::producer_service_client::ProducerServiceClient;
use weir_proto::v1::topic_service_client::TopicServiceClient;
use weir_proto::v1::{Acks, ConsumeRequest, DeleteRecordsRequest, NewRecord, ProduceRequest, RecordsBefore};
use weir_runtime::testing::{PATIENCE, until};
use weir_tests::cluster::{Cluster, Plan};

use crate::anew::{folders, log_file};
use crate::failover::three;
use crate::support::{frames, partitions, read, try_read, until_in_sync, write};

const DAMAGED: &str = "weir_partitions_damaged";

/// A cluster with 20 records in three replicas, and who leads them.
async fn written(min_insync: &str) -> (Cluster, usize) {
    written_in(three(), min_insync).await
}

async fn written_in(plan: Plan, min_insync: &str) -> (Cluster, usize) {
    let cluster = Cluster::start_as(plan).await;
    cluster.create("orders", 1, 3, &[("min_insync_replicas", min_insync)]).await;
    until_in_sync(&cluster, 0, "orders", 3).await;
    for number in 0..20 {
        write(&cluster, 0, "orders", 0, &number.to_string()).await;
    }
    let leader = cluster.leaders("orders").await[0];
    (cluster, leader)
}

/// A consumer that reads from the beginning.
async fn reading(cluster: &Cluster, config: ConsumerConfig) -> Consumer {
    let client = Client::connect(&cluster.addresses()).await.unwrap();
    let mut consumer = client.consumer(config).unwrap();
    consumer.assign("orders", 0, Position::Earliest).await.unwrap();
    consumer
}

/// The next twenty that come.
async fn twenty(consumer: &mut Consumer) -> Vec<String> {
    let mut values = Vec::new();
    while values.len() < 20 {
        let batch = tokio::time::timeout(PATIENCE, consumer.next()).await.unwrap().unwrap();
        let value = |record: RecordView<'_>| String::from_utf8(record.value.unwrap().to_vec()).unwrap();
        values.extend(batch.records().map(|record| value(record.unwrap())));
    }
    values
}

fn all() -> Vec<String> {
    (0..20).map(|number| number.to_string()).collect()
}

/// Changes the last byte of the only log, which is one of a payload, or another one.
fn rot(disk: &MemDisk, at: Option<u64>) {
    let file = log_file(disk);
    file.write_all_at(b"!", at.unwrap_or(file.len().unwrap() - 1)).unwrap();
}

/// Another one leads, and what was damaged is whole again and in sync.
async fn is_whole_again(cluster: &Cluster, rotten: usize, before: &[String]) {
    until("the damaged replica is fetched anew and in sync", async || {
        let there = partitions(cluster, rotten, "orders").await;
        let is_in_sync =
            there.first().is_some_and(|one| one.isr.len() == 3 && one.leader != cluster.id(rotten));
        let now = folders(cluster.disk(rotten));
        is_in_sync && now.len() == 1 && now != before
    })
    .await;
    assert_eq!(cluster.metric(rotten, DAMAGED).await, Some(0.0));
}

async fn reads_find(damage: Option<u64>, by_way_of_another: bool) {
    let (mut cluster, leader) = written("2").await;
    let before = folders(cluster.disk(leader));
    rot(cluster.disk(leader), damage);
    let asked = if by_way_of_another { (leader + 1) % 3 } else { leader };
    assert_eq!(read(&cluster, asked, "orders").await, all());
    is_whole_again(&cluster, leader, &before).await;
    assert_eq!(write(&cluster, leader, "orders", 0, "new").await, 20);
    for at in 0..3 {
        cluster.stop_broker(at).await;
    }
    let whole = frames(cluster.disk(leader)).await;
    assert_eq!(whole[0].1.len(), 21);
    for at in 0..3 {
        assert_eq!(frames(cluster.disk(at)).await, whole);
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_at_the_leader_reads_on_from_another_one() {
    reads_find(None, false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_by_way_of_another_broker_reads_on() {
    reads_find(None, true).await;
}

/// What comes behind the first batch is there by then, and of no use.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_by_way_of_another_broker_reads_on_from_the_beginning() {
    reads_find(Some(90), true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_header_is_found_as_well() {
    reads_find(Some(20), true).await;
}

/// The SDK takes batches as they lie on the disk, and finds out by itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_consumer_of_the_sdk_reads_on() {
    let (cluster, leader) = written("2").await;
    let before = folders(cluster.disk(leader));
    rot(cluster.disk(leader), None);
    let mut consumer = reading(&cluster, ConsumerConfig::new()).await;
    assert_eq!(twenty(&mut consumer).await, all());
    is_whole_again(&cluster, leader, &before).await;
    cluster.stop().await;
}

/// Where nobody has what was written, it is told which file is damaged.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_consumer_of_the_sdk_is_told_where_nobody_else_is_in_sync() {
    let mut plan = three();
    plan.brokers = 1;
    let cluster = Cluster::start_as(plan).await;
    cluster.create("orders", 1, 1, &[]).await;
    write(&cluster, 0, "orders", 0, "lost").await;
    rot(cluster.disk(0), None);
    let mut consumer = reading(&cluster, ConsumerConfig::new()).await;
    let refused = tokio::time::timeout(PATIENCE, consumer.next()).await.unwrap().unwrap_err();
    assert_eq!(refused.reason(), Some(ErrorReason::PartitionDamaged), "{refused}");
    assert!(refused.to_string().contains("00000000000000000000.log"), "{refused}");
    cluster.stop().await;
}

/// A follower that begins with nothing meets what no reader has read.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_finds_it() {
    let (mut cluster, leader) = written("1").await;
    let before = folders(cluster.disk(leader));
    let late = (leader + 1) % 3;
    cluster.kill_broker(late).await;
    // Of the follower nothing is left but that there was a log: it is fetched anew.
    rot(cluster.disk(late), Some(90));
    rot(cluster.disk(leader), None);
    cluster.start_broker(late).await;
    is_whole_again(&cluster, leader, &before).await;
    assert_eq!(read(&cluster, leader, "orders").await, all());
    cluster.stop().await;
}

/// Where no replica has it whole, what comes up to behind it is deleted: nobody is given that any more, and who could not
/// come past it begins anew at the log's start.
async fn damaged_everywhere(damage: u64) {
    let (mut cluster, leader) = written("1").await;
    let late = (leader + 1) % 3;
    cluster.kill_broker(late).await;
    // Of the follower nothing is left but that there was a log: it is fetched anew.
    let file = log_file(cluster.disk(late));
    file.set_len(50).unwrap();
    file.sync_all().unwrap();
    for at in (0..3).filter(|at| *at != late) {
        rot(cluster.disk(at), Some(damage));
    }
    cluster.start_broker(late).await;
    let damaged = async || {
        let mut damaged = 0.0;
        for at in 0..3 {
            damaged += cluster.metric(at, DAMAGED).await.unwrap();
        }
        damaged
    };
    until("somebody has met it", async || damaged().await > 0.0).await;
    let to = RecordsBefore { partition: 0, offset: 10 };
    let request = DeleteRecordsRequest { topic: "orders".to_owned(), before: vec![to] };
    until("it is deleted", async || {
        // Who leads may change meanwhile.
        let mut client = TopicServiceClient::new(cluster.channel(leader));
        client.delete_records(request.clone()).await.is_ok()
    })
    .await;
    until_in_sync(&cluster, leader, "orders", 3).await;
    until("nothing is damaged any more", async || damaged().await == 0.0).await;
    assert_eq!(read(&cluster, late, "orders").await, all()[10..]);
    assert_eq!(write(&cluster, late, "orders", 0, "new").await, 20);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_damaged_everywhere_ends_with_its_deletion() {
    damaged_everywhere(90).await;
}

/// A header is in the way of whoever comes by, as long as its segment is there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_header_that_is_damaged_everywhere_ends_with_its_deletion() {
    damaged_everywhere(20).await;
}

/// No reader is given what is not committed, and it is not while no follower can have it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_gives_way_whose_followers_find_what_is_not_committed() {
    let (cluster, leader) = written_in(Plan::of(3), "2").await;
    let followers = || (0..3).filter(|at| *at != leader);
    followers().for_each(|at| cluster.link(at, leader).close());
    let request = ProduceRequest {
        topic: "orders".to_owned(),
        partition: Some(0),
        acks: Acks::Leader.into(),
        records: vec![NewRecord { value_text: "tail".to_owned(), ..NewRecord::default() }],
        ..ProduceRequest::default()
    };
    ProducerServiceClient::new(cluster.channel(leader)).produce(request).await.unwrap();
    rot(cluster.disk(leader), None);
    followers().for_each(|at| cluster.link(at, leader).mend());
    until("another one leads", async || {
        partitions(&cluster, leader, "orders").await.first().is_some_and(|it| it.leader != cluster.id(leader))
    })
    .await;
    let asked = followers().next().unwrap();
    assert_eq!(write(&cluster, asked, "orders", 0, "new").await, 20, "nobody else has had the tail");
    cluster.stop().await;
}

/// A replica that is read nearby, and does not lead.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_that_is_read_gives_way() {
    let racks = ["rack-0", "rack-1", "rack-2"];
    let plan = racks.iter().enumerate().fold(three(), |plan, (at, rack)| plan.flag_of(at, "--rack", *rack));
    let (cluster, leader) = written_in(plan, "2").await;
    let follower = (leader + 1) % 3;
    let before = folders(cluster.disk(follower));
    rot(cluster.disk(follower), None);
    let mut consumer = reading(&cluster, ConsumerConfig::new().rack(racks[follower])).await;
    assert_eq!(twenty(&mut consumer).await, all());
    let request = ConsumeRequest {
        topics: vec!["orders".to_owned()],
        until_end: true,
        rack: racks[follower].to_owned(),
        ..ConsumeRequest::default()
    };
    let mut plain = ConsumerServiceClient::new(cluster.channel(follower));
    let mut answers = plain.consume(request).await.unwrap().into_inner();
    while answers.message().await.unwrap().is_some() {}
    is_whole_again(&cluster, follower, &before).await;
    assert_eq!(cluster.leaders("orders").await, [leader]);
    cluster.stop().await;
}

/// Where fewer than are needed would be left, writers go on: it leads no more, and stays until there are more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_is_needed_stays_until_another_one_is_in_sync() {
    let (mut cluster, leader) = written("2").await;
    let before = folders(cluster.disk(leader));
    let late = (leader + 1) % 3;
    cluster.kill_broker(late).await;
    until_in_sync(&cluster, leader, "orders", 2).await;
    rot(cluster.disk(leader), None);
    assert_eq!(read(&cluster, leader, "orders").await, all());
    assert_eq!(write(&cluster, leader, "orders", 0, "new").await, 20);
    let now = partitions(&cluster, leader, "orders").await;
    assert_eq!((now[0].isr.len(), now[0].leader == cluster.id(leader)), (2, false), "{now:?}");
    assert_eq!(
        (folders(cluster.disk(leader)), cluster.metric(leader, DAMAGED).await),
        (before.clone(), Some(1.0))
    );
    cluster.start_broker(late).await;
    is_whole_again(&cluster, leader, &before).await;
    cluster.stop().await;
}

/// Where nobody else is in sync, what is whole is served.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_last_one_leads_on() {
    let (mut cluster, leader) = written("1").await;
    for at in (0..3).filter(|at| *at != leader) {
        cluster.kill_broker(at).await;
    }
    until_in_sync(&cluster, leader, "orders", 1).await;
    rot(cluster.disk(leader), None);
    let refused = try_read(&cluster, leader, "orders").await.unwrap_err();
    assert!(refused.message().contains("files are damaged"), "{refused:?}");
    assert_eq!(write(&cluster, leader, "orders", 0, "new").await, 20);
    assert_eq!(cluster.metric(leader, DAMAGED).await, Some(1.0));
    cluster.stop().await;
}
