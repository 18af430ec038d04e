//! A partition of one replica whose disk rots: it is offline until a person accepts what is lost, and goes on then as far
//! as it is whole (correctness rule 36).

use std::path::Path;
use std::sync::Arc;

use bytes::BytesMut;
use tonic::Status;
use weir_cluster::{fact, is_for};
use weir_io::{Access, Disk, Effect, FaultDisk, MemDisk, Op, Rule, RuleId};
use weir_proto::v1::admin_service_client::AdminServiceClient;
use weir_proto::v1::{ElectLeadersRequest, ElectLeadersResponse, ErrorReason, ReplicaState, TopicPartition};
use weir_runtime::testing::TestOs;
use weir_storage::{DirOptions, LogDir};

use crate::support::*;

const RECORDS: i64 = 20;

/// The disk of a broker that was killed, with a log of twenty records of which one has rotted.
async fn rotten(controller: &Node, settings: &[(&str, &str)]) -> MemDisk {
    let logs = MemDisk::new(1);
    let broker = Broker::start(logs.clone(), controller.addr).await;
    broker.create("a", 1).await.unwrap();
    for (key, value) in settings {
        broker.set("a", key, value).await;
    }
    for offset in 0..RECORDS {
        assert_eq!(broker.produce("a", 0).await.unwrap(), offset);
    }
    // As a kill leaves it.
    let disk = copy(&logs);
    broker.running.stop().await.unwrap();
    let path = Path::new(LOGS).join(&folders(&disk)[0]).join("00000000000000000000.log");
    let file = disk.open(&path, Access::Write).unwrap();
    let (mut byte, at) = (BytesMut::new(), file.len().unwrap() / 2);
    file.read_at(&mut byte, 1, at).unwrap();
    file.write_all_at(&[byte[0] ^ 4], at).unwrap();
    disk
}

async fn elect(broker: &Broker, accepted: Option<i64>, trial: bool) -> Result<ElectLeadersResponse, Status> {
    let request = ElectLeadersRequest {
        partitions: vec![TopicPartition { topic: "a".to_owned(), partition: 0 }],
        unclean: true,
        accepted_loss_records: accepted,
        validate_only: trial,
        ..ElectLeadersRequest::default()
    };
    AdminServiceClient::new(broker.public()).elect_leaders(request).await.map(tonic::Response::into_inner)
}

/// What would be lost, and what the only replica says; asked until that serves.
async fn told(broker: &Broker) -> (i64, ReplicaState) {
    let mut told = None;
    until("it is said what would be lost", async || {
        let answer = elect(broker, None, true).await.unwrap();
        let election = &answer.elections[0];
        let replica = election.replicas.first();
        let replica = replica.filter(|replica| replica.answered && election.failure.is_none());
        told = replica.map(|replica| (answer.records_lost, replica.clone()));
        told.is_some()
    })
    .await;
    told.unwrap()
}

async fn until_read(broker: &Broker, records: i64) {
    until("it is read", async || broker.fetch("a", 0).await.is_ok()).await;
    assert_eq!(broker.fetch("a", 0).await, Ok(usize::try_from(records).unwrap()));
}

fn kept(disk: &MemDisk) -> usize {
    folders(disk).iter().filter(|name| name.ends_with(".damaged")).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_lost_is_said_then_accepted_and_nothing_else_is_done() {
    let controller = Node::start(&MemDisk::new(2)).await;
    let disk = rotten(&controller, &[]).await;
    let broker = Broker::start(disk.clone(), controller.addr).await;
    until("it is offline", async || !broker.problems().await.is_empty()).await;
    let refused = broker.produce("a", 0).await.unwrap_err();
    assert!(is_for(&refused, ErrorReason::PartitionOffline), "{refused}");

    let (lost, replica) = told(&broker).await;
    let whole = replica.whole_until_offset.unwrap();
    assert!((1..RECORDS).contains(&whole), "{replica:?}");
    assert_eq!((lost, replica.known_end_offset), (RECORDS - whole, RECORDS));
    assert!(replica.problem.contains("the disk has lost what it had"), "{replica:?}");
    for accepted in [None, Some(0), Some(lost - 1), Some(lost + 1)] {
        let refused = elect(&broker, accepted, false).await.unwrap_err();
        assert!(is_for(&refused, ErrorReason::LossNotAccepted), "{refused}");
        assert_eq!(fact(&refused, "records_lost"), Some(lost.to_string()), "{refused}");
    }
    assert_eq!((folders(&disk).len(), broker.problems().await.len()), (1, 1), "something was done");

    let answer = elect(&broker, Some(lost), false).await.unwrap();
    assert_eq!(answer.elections[0].failure, None);
    until_read(&broker, whole).await;
    assert_eq!((kept(&disk), broker.problems().await.len()), (1, 0));
    assert_eq!(broker.metric("weir_partitions_damaged").await, 0);
    assert_eq!(broker.produce("a", 0).await.unwrap(), whole);
    let again = elect(&broker, Some(0), false).await.unwrap();
    assert!(again.elections[0].failure.as_ref().unwrap().message.contains("nothing to give up"), "{again:?}");

    // From now on it is a log like any other, and what was cut off goes with the topic.
    broker.running.stop().await.unwrap();
    let broker = Broker::start(disk.clone(), controller.addr).await;
    until_read(&broker, whole + 1).await;
    assert_eq!(kept(&disk), 1);
    broker.delete("a").await;
    until("it is deleted with its topic", async || kept(&disk) == 0).await;
    broker.running.stop().await.unwrap();
    controller.stop().await;
}

/// A disk that stops in the first write to a copy until the gate is opened.
fn stops_in_the_copy(disk: &MemDisk) -> (FaultDisk, RuleId, Gate) {
    let (faults, gate) = (FaultDisk::over_mem(disk), Gate::default());
    let waits = gate.clone();
    let writes = Rule::on([Op::Write], Effect::Hook(Arc::new(move || waits.wait())));
    let rule = faults.add(writes.path(|path| path.to_string_lossy().contains(".copying")).once());
    (faults, rule, gate)
}

/// A copy may take minutes. The metadata is followed meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_else_there_is_to_do_does_not_wait_for_the_copy() {
    let controller = Node::start(&MemDisk::new(2)).await;
    let disk = rotten(&controller, &[]).await;
    let (faults, copy, gate) = stops_in_the_copy(&disk);
    let broker = Broker::start(faults.clone(), controller.addr).await;
    let (lost, replica) = told(&broker).await;
    let elected = async {
        let elected = elect(&broker, Some(lost), false).await.unwrap();
        assert_eq!(elected.elections[0].failure, None);
    };
    let meanwhile = async {
        until("it is being copied", async || faults.fired(copy) > 0).await;
        broker.create("b", 1).await.unwrap();
        until("the new topic is served", async || broker.produce("b", 0).await.is_ok()).await;
        assert_eq!(kept(&disk), 0);
        gate.open();
    };
    tokio::join!(elected, meanwhile);
    until_read(&broker, replica.whole_until_offset.unwrap()).await;
    assert_eq!(kept(&disk), 1);
    broker.running.stop().await.unwrap();
    controller.stop().await;
}

/// And nothing is left of it where the topic is deleted meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_that_is_deleted_while_it_is_copied_leaves_nothing() {
    let controller = Node::start(&MemDisk::new(2)).await;
    let disk = rotten(&controller, &[]).await;
    let (faults, copy, gate) = stops_in_the_copy(&disk);
    let broker = Broker::start(faults.clone(), controller.addr).await;
    let (lost, _) = told(&broker).await;
    let elected = async {
        // It is gone when this is asked, or not cut in time.
        let elected = elect(&broker, Some(lost), false).await;
        assert!(elected.is_err() || elected.unwrap().elections[0].failure.is_some());
    };
    let meanwhile = async {
        until("it is being copied", async || faults.fired(copy) > 0).await;
        broker.delete("a").await;
        until("it is set aside", async || broker.problems().await.is_empty()).await;
        gate.open();
    };
    tokio::join!(elected, meanwhile);
    let copies = || folders(&disk).iter().filter(|name| name.contains(".g")).count();
    until("nothing is left of the copy", async || copies() == 0).await;
    broker.running.stop().await.unwrap();
    controller.stop().await;
}

/// Whoever asks again after a crash between the cut and the election is told the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_was_cut_and_not_elected_still_costs_what_it_did() {
    let controller = Node::start(&MemDisk::new(2)).await;
    let disk = rotten(&controller, &[]).await;
    let broker = Broker::start(disk.clone(), controller.addr).await;
    let (lost, replica) = told(&broker).await;
    let whole = replica.whole_until_offset.unwrap();
    let disk = copy(&disk);
    broker.running.stop().await.unwrap();

    let os = Arc::new(TestOs::threads(Arc::new(disk.clone())).unwrap());
    let (dir, _) =
        LogDir::open(os, Path::new(LOGS), None, DirOptions::new(|fatal| panic!("{fatal}"))).unwrap();
    let id = dir.unusable()[0].id;
    assert!(dir.cut_damaged(id, whole).unwrap().is_some());
    drop(dir);

    let broker = Broker::start(copy(&disk), controller.addr).await;
    let (again, replica) = told(&broker).await;
    assert_eq!((again, replica.problem.as_str(), replica.log_end_offset), (lost, "", whole));
    let refused = elect(&broker, Some(0), false).await.unwrap_err();
    assert!(is_for(&refused, ErrorReason::LossNotAccepted), "{refused}");
    elect(&broker, Some(lost), false).await.unwrap();
    until_read(&broker, whole).await;
    broker.running.stop().await.unwrap();
    controller.stop().await;
}

/// Where the longest log leads by itself the only replica is elected, whatever became of it: damage is accepted by a person
/// all the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damage_is_accepted_by_nobody_but_a_person() {
    let controller = Node::start(&MemDisk::new(2)).await;
    let disk = rotten(&controller, &[("unclean_recovery", "longest")]).await;
    let broker = Broker::start(disk.clone(), controller.addr).await;
    until("it is elected", async || broker.problems().await.first().is_some_and(|one| one.leader == 1)).await;
    let refused = broker.produce("a", 0).await.unwrap_err();
    assert!(is_for(&refused, ErrorReason::PartitionOffline), "{refused}");
    let (lost, replica) = told(&broker).await;
    let whole = replica.whole_until_offset.unwrap();
    assert_eq!((lost, kept(&disk)), (RECORDS - whole, 0));
    elect(&broker, Some(lost), false).await.unwrap();
    until_read(&broker, whole).await;
    assert_eq!((broker.produce("a", 0).await.unwrap(), kept(&disk)), (whole, 1));
    broker.running.stop().await.unwrap();
    controller.stop().await;
}
