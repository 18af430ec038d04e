//! Replicas that cannot go on from what they have, and begin anew.

use std::path::Path;
use std::sync::Arc;

use bytes::BytesMut;
use weir_io::{Access, Disk, File, MemDisk};
use weir_proto::v1::admin_service_client::AdminServiceClient;
use weir_proto::v1::topic_service_client::TopicServiceClient;
use weir_proto::v1::{
    DeleteRecordsRequest, DeleteTopicRequest, DescribePartitionsRequest, ElectLeadersRequest, ErrorReason,
    RecordsBefore, TopicPartition,
};
use weir_runtime::testing::until;
use weir_tests::cluster::Cluster;
use weir_tests::refusal::Refusal;

use crate::failover::three;
use crate::support::{frames, read, until_in_sync, write, write_batch};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_behind_its_leaders_start_begins_there() {
    let mut cluster = Cluster::start_as(three()).await;
    cluster.create("orders", 1, 3, &[("min_insync_replicas", "2")]).await;
    until_in_sync(&cluster, 0, "orders", 3).await;
    write(&cluster, 0, "orders", 0, "of old").await;
    let leader = cluster.leaders("orders").await[0];
    let late = (leader + 1) % 3;
    cluster.stop_broker(late).await;
    for number in 0..20 {
        write(&cluster, leader, "orders", 0, &format!("{number}")).await;
    }
    // In the middle of a batch.
    let both = write_batch(&cluster, leader, "orders", 0, &["one", "two"]).await;
    let before = RecordsBefore { partition: 0, offset: both + 1 };
    let request = DeleteRecordsRequest { topic: "orders".to_owned(), before: vec![before] };
    TopicServiceClient::new(cluster.channel(leader)).delete_records(request).await.unwrap();
    write(&cluster, leader, "orders", 0, "new").await;

    cluster.start_broker(late).await;
    until_in_sync(&cluster, leader, "orders", 3).await;
    write(&cluster, leader, "orders", 0, "newer").await;
    // It leads once the others are gone, and has what they had.
    cluster.kill_broker(leader).await;
    until("another one leads", async || {
        let now = cluster.leaders_seen_by(late, "orders").await;
        now.iter().all(|id| *id > 0 && *id != cluster.id(leader)) && !now.is_empty()
    })
    .await;
    assert_eq!(read(&cluster, late, "orders").await, ["two", "new", "newer"]);
    for at in (0..3).filter(|at| *at != leader) {
        cluster.stop_broker(at).await;
    }
    let tail = move |frames: Vec<(i32, Vec<weir_storage::Frame>)>| {
        let all = frames.into_iter().flat_map(|(_, frames)| frames);
        all.filter(|frame| frame.header.base_offset >= both).collect::<Vec<_>>()
    };
    let other = 3 - leader - late;
    assert_eq!(tail(frames(cluster.disk(late)).await), tail(frames(cluster.disk(other)).await));
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_of_which_everything_was_deleted_is_followed_on() {
    let mut cluster = Cluster::start_as(three()).await;
    cluster.create("orders", 1, 3, &[("min_insync_replicas", "3")]).await;
    until_in_sync(&cluster, 0, "orders", 3).await;
    for number in 0..10 {
        write(&cluster, 0, "orders", 0, &format!("{number}")).await;
    }
    let leader = cluster.leaders("orders").await[0];
    let before = RecordsBefore { partition: 0, offset: -1 };
    let request = DeleteRecordsRequest { topic: "orders".to_owned(), before: vec![before] };
    TopicServiceClient::new(cluster.channel(leader)).delete_records(request).await.unwrap();
    // All three are needed for the next record.
    let other = (leader + 1) % 3;
    cluster.stop_broker(other).await;
    cluster.start_broker(other).await;
    assert_eq!(write(&cluster, other, "orders", 0, "new").await, 10);
    assert_eq!(read(&cluster, leader, "orders").await, ["new"]);
    cluster.stop().await;
}

/// A cluster with 20 records in three replicas, who leads them, and a follower that was killed.
async fn with_one_killed() -> (Cluster, usize, usize) {
    let mut cluster = Cluster::start_as(three()).await;
    cluster.create("orders", 1, 3, &[("min_insync_replicas", "2")]).await;
    until_in_sync(&cluster, 0, "orders", 3).await;
    for number in 0..20 {
        write(&cluster, 0, "orders", 0, &format!("{number}")).await;
    }
    let leader = cluster.leaders("orders").await[0];
    let killed = (leader + 1) % 3;
    cluster.kill_broker(killed).await;
    (cluster, leader, killed)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_replica_is_set_aside_and_fetched_anew() {
    let (mut cluster, leader, rotten) = with_one_killed().await;
    let before = rot(cluster.disk(rotten));
    cluster.start_broker(rotten).await;
    until_in_sync(&cluster, leader, "orders", 3).await;
    for at in 0..3 {
        cluster.stop_broker(at).await;
    }
    let whole = frames(cluster.disk(leader)).await;
    assert_eq!(whole[0].1.len(), 20);
    assert_eq!(frames(cluster.disk(rotten)).await, whole);
    let now = folders(cluster.disk(rotten));
    assert!(now.len() == 1 && !now.contains(&before), "another life of the log, and nothing else: {now:?}");
    cluster.stop().await;
}

/// Whoever is asked says what is wrong with which replica, as long as it is not in sync again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_damaged_of_a_follower_is_shown_while_it_is_fetched_anew() {
    let (mut cluster, leader, rotten) = with_one_killed().await;
    rot(cluster.disk(rotten));
    cluster.link(rotten, leader).close();
    cluster.start_broker(rotten).await;
    let shown = async |at: usize, problems_only: bool| {
        let request = DescribePartitionsRequest { problems_only, ..DescribePartitionsRequest::default() };
        let answer = AdminServiceClient::new(cluster.channel(at)).describe_partitions(request).await;
        answer.unwrap().into_inner().partitions.into_iter().map(|one| one.problem).collect::<Vec<_>>()
    };
    let anew = format!("fetched anew from broker {}", cluster.id(leader));
    for (at, problems_only) in [(leader, false), (leader, true), (rotten, false), (rotten, true)] {
        until("it is said that it is fetched anew", async || {
            shown(at, problems_only).await.iter().any(|problem| problem.ends_with(&anew))
        })
        .await;
        let [problem] = shown(at, problems_only).await.try_into().unwrap();
        assert!(problem.starts_with(&format!("on broker {}: ", cluster.id(rotten))), "{problem}");
        assert!(problem.contains("00000000000000000000.log") && problem.contains("offset"), "{problem}");
    }
    cluster.link(rotten, leader).mend();
    until_in_sync(&cluster, leader, "orders", 3).await;
    until("all is well", async || shown(leader, false).await == [""] && shown(rotten, true).await.is_empty())
        .await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_damaged_goes_with_its_topic() {
    let (mut cluster, leader, rotten) = with_one_killed().await;
    rot(cluster.disk(rotten));
    // It does not get what it has lost.
    cluster.link(rotten, leader).close();
    cluster.start_broker(rotten).await;
    let damaged = || folders(cluster.disk(rotten)).iter().any(|name| name.ends_with(".damaged"));
    until("the damaged log is set aside", async || damaged()).await;
    let request = DeleteTopicRequest { name: "orders".to_owned(), ..DeleteTopicRequest::default() };
    TopicServiceClient::new(cluster.channel(leader)).delete_topic(request).await.unwrap();
    until("it is gone", async || !damaged()).await;
    cluster.stop().await;
}

/// All others are gone, and a person takes what is whole. Who comes back after that follows it, whatever it has.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_replica_leads_as_far_as_it_is_whole_when_a_person_says_so() {
    let (mut cluster, leader, rotten) = with_one_killed().await;
    let other = 3 - leader - rotten;
    cluster.kill_broker(other).await;
    cluster.kill_broker(leader).await;
    rot_in_the_middle(cluster.disk(rotten));
    cluster.start_broker(rotten).await;
    what_is_whole_is_taken(cluster, leader, rotten).await;
}

/// The same where the damaged log was set aside before the others were lost, and nothing has been fetched since.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_set_aside_leads_if_the_others_are_lost_before_it_is_fetched_anew() {
    let (mut cluster, leader, rotten) = with_one_killed().await;
    let other = 3 - leader - rotten;
    rot_in_the_middle(cluster.disk(rotten));
    cluster.link(rotten, leader).close();
    cluster.start_broker(rotten).await;
    let aside = || folders(cluster.disk(rotten)).iter().any(|name| name.ends_with(".damaged"));
    until("the damaged log is set aside", async || aside()).await;
    cluster.kill_broker(other).await;
    cluster.kill_broker(leader).await;
    cluster.link(rotten, leader).mend();
    // A start knows of it as well.
    cluster.kill_broker(rotten).await;
    cluster.start_broker(rotten).await;
    what_is_whole_is_taken(cluster, leader, rotten).await;
}

/// The broker that has the damaged log is the only one left.
async fn what_is_whole_is_taken(mut cluster: Cluster, leader: usize, rotten: usize) {
    let other = 3 - leader - rotten;
    let mut request = ElectLeadersRequest {
        partitions: vec![TopicPartition { topic: "orders".to_owned(), partition: 0 }],
        unclean: true,
        validate_only: true,
        ..ElectLeadersRequest::default()
    };
    let mut client = AdminServiceClient::new(cluster.channel(rotten));
    let mut whole = None;
    until("it says how far it is whole", async || {
        let Ok(answer) = client.elect_leaders(request.clone()).await else { return false };
        let answer = answer.into_inner();
        let replicas = &answer.elections[0].replicas;
        assert!(
            replicas.iter().all(|replica| !replica.answered || !replica.problem.is_empty()),
            "what is offered is less than there is: {replicas:?}"
        );
        whole = replicas
            .iter()
            .find_map(|replica| replica.whole_until_offset)
            .map(|whole| (whole, answer.records_lost));
        whole.is_some()
    })
    .await;
    let (whole, lost) = whole.unwrap();
    assert!(whole > 0 && lost > 0 && whole + lost <= 20, "{whole} whole, {lost} lost");
    // The others were killed, and may have more: a number is not taken for that.
    (request.validate_only, request.accepted_loss_records) = (false, Some(lost));
    let refused = client.elect_leaders(request.clone()).await.unwrap_err();
    let refused = Refusal::of_status(&refused).unwrap();
    assert_eq!(refused.reason, ErrorReason::LossNotAccepted, "{refused:?}");
    assert_eq!(refused.facts.get("records_lost_at_least"), Some(&lost.to_string()), "{refused:?}");
    (request.accept_unknown_loss, request.accepted_loss_records) = (true, None);
    let answer = client.elect_leaders(request).await.unwrap().into_inner();
    assert_eq!(answer.elections[0].failure, None);

    cluster.start_broker(leader).await;
    cluster.start_broker(other).await;
    until_in_sync(&cluster, rotten, "orders", 3).await;
    assert_eq!(write(&cluster, rotten, "orders", 0, "new").await, whole);
    let expected: Vec<_> = (0..whole).map(|number| number.to_string()).chain(["new".to_owned()]).collect();
    assert_eq!(read(&cluster, rotten, "orders").await, expected);
    // What was cut off is kept, and nothing else is beside the log.
    let beside = || folders(cluster.disk(rotten)).into_iter().filter(|name| name.matches('.').count() > 2);
    until("nothing else is kept", async || beside().count() == 1).await;
    assert!(
        beside().all(|name| name.contains(".g0-") && name.ends_with(".damaged")),
        "{:?}",
        folders(cluster.disk(rotten))
    );
    for at in 0..3 {
        cluster.stop_broker(at).await;
    }
    let led = frames(cluster.disk(rotten)).await;
    assert_eq!(led[0].1.len(), usize::try_from(whole).unwrap() + 1);
    for at in [leader, other] {
        assert_eq!(frames(cluster.disk(at)).await, led);
    }
    cluster.stop().await;
}

/// A process that ended between the two leaves no log at all.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_log_that_was_set_aside_and_not_replaced_is_fetched_anew() {
    let (mut cluster, leader, rotten) = with_one_killed().await;
    let folder = Path::new("/logs").join(rot(cluster.disk(rotten)));
    let disk = cluster.disk(rotten);
    disk.rename(&folder, &folder.with_added_extension("damaged")).unwrap();
    cluster.start_broker(rotten).await;
    until_in_sync(&cluster, leader, "orders", 3).await;
    until("nothing else is kept", async || folders(cluster.disk(rotten)).len() == 1).await;
    for at in 0..3 {
        cluster.stop_broker(at).await;
    }
    assert_eq!(frames(cluster.disk(rotten)).await, frames(cluster.disk(leader)).await);
    cluster.stop().await;
}

/// Flips a bit in the middle of the only log.
fn rot_in_the_middle(disk: &MemDisk) {
    let file = log_file(disk);
    let (mut byte, at) = (BytesMut::new(), file.len().unwrap() / 2);
    file.read_at(&mut byte, 1, at).unwrap();
    file.write_all_at(&[byte[0] ^ 4], at).unwrap();
}

/// Changes a byte in the first frame of the only log, and says which folder that is in.
fn rot(disk: &MemDisk) -> String {
    log_file(disk).write_all_at(b"!", 90).unwrap();
    folders(disk).pop().unwrap()
}

/// The first segment of the only log.
pub(crate) fn log_file(disk: &MemDisk) -> Arc<dyn File> {
    let folder = folders(disk).pop().unwrap();
    let path = Path::new("/logs").join(folder).join("00000000000000000000.log");
    disk.open(&path, Access::Write).unwrap()
}

/// The folders of the only partition.
pub(crate) fn folders(disk: &MemDisk) -> Vec<String> {
    let entries = disk.list(Path::new("/logs")).unwrap();
    entries.into_iter().map(|entry| entry.name).filter(|name| name.starts_with("orders-")).collect()
}
