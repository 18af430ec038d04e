//! Logs whose folders are gone while their brokers are stopped: somebody has deleted them, or a check of the file system has.

use std::path::Path;

use weir_client::ErrorReason;
use weir_io::{Disk, MemDisk};
use weir_proto::v1::admin_service_client::AdminServiceClient;
use weir_proto::v1::topic_service_client::TopicServiceClient;
use weir_proto::v1::{
    DeleteRecordsRequest, ElectLeadersRequest, RecordsBefore, ReplicaState, TopicPartition,
};
use weir_runtime::testing::until;
use weir_tests::cluster::Cluster;
use weir_tests::refusal::Refusal;

use crate::anew::{folders, log_file};
use crate::failover::three;
use crate::support::{frames, read, until_in_sync, write};

/// Ten records in three replicas, of which one is enough, and who leads them.
async fn written() -> (Cluster, usize) {
    let cluster = Cluster::start_as(three()).await;
    cluster.create("orders", 1, 3, &[("min_insync_replicas", "1")]).await;
    until_in_sync(&cluster, 0, "orders", 3).await;
    for number in 0..10 {
        write(&cluster, 0, "orders", 0, &number.to_string()).await;
    }
    let leader = cluster.leaders("orders").await[0];
    (cluster, leader)
}

/// And five more in one of them, when the others had stopped; now it has, too. With these others.
async fn written_alone() -> (Cluster, usize, [usize; 2]) {
    let (mut cluster, leader) = written().await;
    let others = [(leader + 1) % 3, (leader + 2) % 3];
    for at in others {
        cluster.stop_broker(at).await;
    }
    until_in_sync(&cluster, leader, "orders", 1).await;
    for number in 10..15 {
        write(&cluster, leader, "orders", 0, &number.to_string()).await;
    }
    cluster.stop_broker(leader).await;
    (cluster, leader, others)
}

/// Takes the only log of a stopped broker away.
fn lose(disk: &MemDisk) {
    let folder = folders(disk).pop().unwrap();
    disk.rename(&Path::new("/logs").join(&folder), &Path::new("/").join(&folder)).unwrap();
}

/// Takes away what a stopped broker knew of its logs.
fn forget(disk: &MemDisk) {
    disk.unlink(Path::new("/logs/checkpoint")).unwrap();
}

/// What an unclean election would do.
fn shown() -> ElectLeadersRequest {
    ElectLeadersRequest {
        partitions: vec![TopicPartition { topic: "orders".to_owned(), partition: 0 }],
        unclean: true,
        validate_only: true,
        ..ElectLeadersRequest::default()
    }
}

/// All stop: a replica has the same ten records as its leader.
async fn has_all_again(mut cluster: Cluster, leader: usize, poor: usize) {
    for at in 0..3 {
        cluster.stop_broker(at).await;
    }
    let whole = frames(cluster.disk(leader)).await;
    assert_eq!(whole[0].1.len(), 10);
    assert_eq!(frames(cluster.disk(poor)).await, whole);
    cluster.stop().await;
}

/// Lets whoever has most lead, once it is said that so many records are lost by that.
async fn elect(cluster: &Cluster, asked: usize, lost: i64) -> Vec<ReplicaState> {
    let mut request = shown();
    let mut client = AdminServiceClient::new(cluster.channel(asked));
    let mut replicas = Vec::new();
    until("it is said what is lost", async || {
        let Ok(answer) = client.elect_leaders(request.clone()).await else { return false };
        let answer = answer.into_inner();
        replicas = answer.elections[0].replicas.clone();
        replicas.iter().all(|replica| replica.answered) && answer.records_lost == lost
    })
    .await;
    (request.validate_only, request.accepted_loss_records) = (false, Some(lost));
    let elected = client.elect_leaders(request).await.unwrap().into_inner();
    assert_eq!(elected.elections[0].failure, None);
    replicas
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_whose_folder_is_gone_is_fetched_anew() {
    let (mut cluster, leader) = written().await;
    let poor = (leader + 1) % 3;
    cluster.stop_broker(poor).await;
    lose(cluster.disk(poor));
    cluster.start_broker(poor).await;
    until_in_sync(&cluster, leader, "orders", 3).await;
    until("nothing stands for it any more", async || folders(cluster.disk(poor)).len() == 1).await;
    has_all_again(cluster, leader, poor).await;
}

/// The directory has lost what it knew of it as well: it can miss nothing, and proves nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_is_gone_with_its_checkpoint_is_fetched_anew() {
    for is_gone in [true, false] {
        let (mut cluster, leader) = written().await;
        let poor = (leader + 1) % 3;
        cluster.stop_broker(poor).await;
        forget(cluster.disk(poor));
        if is_gone {
            lose(cluster.disk(poor));
        }
        cluster.start_broker(poor).await;
        until_in_sync(&cluster, leader, "orders", 3).await;
        has_all_again(cluster, leader, poor).await;
    }
}

/// Its topic does not wait for a person: what is left leads, be it nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_only_replica_that_is_gone_with_its_checkpoint_begins_with_nothing_where_its_topic_says_so() {
    let mut cluster = Cluster::start_as(three()).await;
    cluster.create("orders", 1, 1, &[("unclean_recovery", "longest")]).await;
    write(&cluster, 0, "orders", 0, "lost").await;
    let leader = cluster.leaders("orders").await[0];
    cluster.stop_broker(leader).await;
    forget(cluster.disk(leader));
    lose(cluster.disk(leader));
    cluster.start_broker(leader).await;
    until_in_sync(&cluster, leader, "orders", 1).await;
    assert_eq!(write(&cluster, leader, "orders", 0, "new").await, 0);
    assert_eq!(read(&cluster, leader, "orders").await, ["new"]);
    cluster.stop().await;
}

/// It alone is complete, and nobody knows any more how far it was durable: what is left of it looks whole.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_needed_replica_without_its_checkpoint_does_not_lead_by_itself() {
    let (mut cluster, leader, others) = written_alone().await;
    forget(cluster.disk(leader));
    let log = log_file(cluster.disk(leader));
    log.set_len(log.len().unwrap() / 15 * 12).unwrap();
    for at in 0..3 {
        cluster.start_broker(at).await;
    }
    until("it waits for a person, who is told of all of them", async || {
        let mut client = AdminServiceClient::new(cluster.channel(others[0]));
        let answer = client.elect_leaders(shown()).await;
        let Ok(answer) = answer else { return false };
        let election = &answer.get_ref().elections[0];
        let by_broker = |at| election.replicas.iter().find(|one| one.broker_id == cluster.id(at)).unwrap();
        let is_said = by_broker(leader).problem.contains("the checkpoint of this directory");
        election.leader_before < 0 && is_said && answer.get_ref().elections[0].loss_unknown
    })
    .await;
    let zero = ElectLeadersRequest { validate_only: false, accepted_loss_records: Some(0), ..shown() };
    let refused = AdminServiceClient::new(cluster.channel(others[0])).elect_leaders(zero).await.unwrap_err();
    assert_eq!(Refusal::of_status(&refused).unwrap().reason, ErrorReason::LossNotAccepted);
    assert_eq!(cluster.leaders_seen_by(others[0], "orders").await, [-1]);
    cluster.stop().await;
}

/// It was the last one in sync, so nobody else may lead until a person has said what may be lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_needed_replica_whose_folder_is_gone_says_what_is_lost_with_it() {
    let (mut cluster, leader, others) = written_alone().await;
    lose(cluster.disk(leader));
    for at in 0..3 {
        cluster.start_broker(at).await;
    }
    let replicas = elect(&cluster, others[0], 5).await;
    let gone = replicas.iter().find(|replica| replica.broker_id == cluster.id(leader)).unwrap();
    assert!(gone.problem.contains("is missing"), "{gone:?}");
    assert_eq!(gone.known_end_offset, 15);
    until_in_sync(&cluster, others[0], "orders", 3).await;
    let left: Vec<_> = (0..10).map(|number| number.to_string()).collect();
    assert_eq!(read(&cluster, leader, "orders").await, left);
    cluster.stop().await;
}

/// It waits for a person, and begins with nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_all_folders_are_gone_all_is_lost_and_it_is_said() {
    let (mut cluster, leader) = written().await;
    for at in 0..3 {
        cluster.stop_broker(at).await;
        lose(cluster.disk(at));
    }
    for at in 0..3 {
        cluster.start_broker(at).await;
    }
    let replicas = elect(&cluster, leader, 10).await;
    assert!(replicas.iter().all(|replica| replica.problem.contains("is missing")), "{replicas:?}");
    until_in_sync(&cluster, leader, "orders", 3).await;
    assert_eq!(write(&cluster, leader, "orders", 0, "new").await, 0);
    assert_eq!(read(&cluster, leader, "orders").await, ["new"]);
    cluster.stop().await;
}

/// What was deleted is not lost. What comes next does not take the offsets of that either.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_all_folders_are_gone_what_was_deleted_before_is_not_lost_by_that() {
    let (mut cluster, leader) = written().await;
    let to = RecordsBefore { partition: 0, offset: 4 };
    let request = DeleteRecordsRequest { topic: "orders".to_owned(), before: vec![to] };
    TopicServiceClient::new(cluster.channel(leader)).delete_records(request).await.unwrap();
    for at in 0..3 {
        cluster.stop_broker(at).await;
        lose(cluster.disk(at));
    }
    for at in 0..3 {
        cluster.start_broker(at).await;
    }
    let replicas = elect(&cluster, leader, 6).await;
    assert!(replicas.iter().all(|replica| replica.problem.contains("is missing")), "{replicas:?}");
    until_in_sync(&cluster, leader, "orders", 3).await;
    assert_eq!(write(&cluster, leader, "orders", 0, "new").await, 4);
    assert_eq!(read(&cluster, leader, "orders").await, ["new"]);
    cluster.stop().await;
}
