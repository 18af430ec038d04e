//! What is lost where nobody can lead: who elects is told, and accepts it, or a topic has said so before. Brokers here say that
//! their logs end where the test says so.

use tonic::Status;
use weir_controller::Config;
use weir_io::MemDisk;
use weir_metadata::{BrokerEpoch, BrokerState, Partition, Replica};
use weir_proto::internal::v1 as pb;
use weir_proto::v1;
use weir_types::{BrokerId, PartitionId};

use crate::common::*;
use crate::liveness::Process;

async fn three_replicas(node: &Node, config: &[(&str, &str)]) -> v1::Topic {
    let mut request = create_request("flights");
    let topic = request.request.as_mut().unwrap().topic.as_mut().unwrap();
    topic.replication_factor = 3;
    let config = [("durability", "replicated")].iter().chain(config);
    topic.config = config.map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let controllers = node.controllers();
    let made = ask(&controllers, |mut client| {
        let request = request.clone();
        async move { client.create_topic(request).await }
    });
    made.await.unwrap().response.unwrap().topic.unwrap()
}

async fn elect(node: &Node, request: v1::ElectLeadersRequest) -> Result<v1::ElectLeadersResponse, Status> {
    let controllers = node.controllers();
    let answer = ask(&controllers, |mut client| {
        let request = Some(request.clone());
        async move { client.elect_leaders(pb::ElectLeadersRequest { request }).await }
    });
    Ok(answer.await?.response.unwrap())
}

fn unclean(accepted_loss_records: Option<i64>, validate_only: bool) -> v1::ElectLeadersRequest {
    v1::ElectLeadersRequest {
        partitions: vec![v1::TopicPartition { topic: "flights".into(), partition: 0 }],
        unclean: true,
        accepted_loss_records,
        validate_only,
        ..v1::ElectLeadersRequest::default()
    }
}

/// Whatever is lost.
fn unknown() -> v1::ElectLeadersRequest {
    v1::ElectLeadersRequest { accept_unknown_loss: true, ..unclean(None, false) }
}

/// What an election that was not accepted says of the loss.
async fn refused(node: &Node, request: v1::ElectLeadersRequest, name: &str) -> Option<String> {
    let refused = elect(node, request).await.unwrap_err();
    assert!(weir_cluster::is_for(&refused, v1::ErrorReason::LossNotAccepted), "{refused}");
    weir_cluster::fact(&refused, name)
}

/// Whose disks they are.
const DIRECTORIES: [u128; 3] = [7, 8, 9];

/// Three brokers, each with a replica of the only partition.
struct Three {
    node: Node,
    partition: PartitionId,
    /// They answer as long as they are held.
    brokers: Vec<Process>,
}

impl Three {
    /// Their logs end there, and one of them leads.
    async fn led(config: Config, log_ends: [i64; 3], of_topic: &[(&str, &str)]) -> Self {
        let quick = Config { broker_heartbeat: std::time::Duration::from_millis(50), ..config };
        let node = Node::start(MemDisk::new(1), quick).await;
        let mut brokers = Vec::new();
        for (directory, log_end) in DIRECTORIES.into_iter().zip(log_ends) {
            brokers.push(Process::start(&node, directory, log_end).await);
        }
        let topic = three_replicas(&node, of_topic).await;
        for broker in &brokers {
            broker.broker(&node).assign_all(&node.handle.image()).await;
        }
        let partition = PartitionId { topic: topic_id(&topic), partition: 0 };
        let all = Self { node, partition, brokers };
        until("it is led", async || all.record().leader.is_some()).await;
        all
    }

    /// They have lost their memory, are back, and say that their logs end there.
    async fn forgetful(log_ends: [i64; 3]) -> Self {
        let mut all = Self::led(config(), [20, 20, 20], &[]).await;
        all.hang_up().await;
        all.come_back(log_ends).await;
        until("it waits for a person", async || all.record().waits_for_a_person()).await;
        all
    }

    /// All of them end.
    async fn hang_up(&mut self) {
        for broker in &mut self.brokers {
            broker.hang_up().await;
        }
        self.brokers.clear();
    }

    /// All of them begin anew, and prove nothing.
    async fn come_back(&mut self, log_ends: [i64; 3]) {
        for (directory, log_end) in DIRECTORIES.into_iter().zip(log_ends) {
            self.brokers.push(Process::start(&self.node, directory, log_end).await);
        }
    }

    fn record(&self) -> Partition {
        self.node.handle.image().partition(self.partition).unwrap().as_ref().clone()
    }
}

/// A partition that nobody may lead: what would be lost is said, and nobody is elected for a number where one is away who may
/// have more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_person_sees_what_is_lost_at_least_and_accepts_that_it_is_unknown() {
    let mut all = Three::led(config(), [10, 30, 20], &[]).await;
    let led = elect(&all.node, unclean(Some(0), false)).await.unwrap();
    assert!(led.elections[0].failure.as_ref().unwrap().message.contains("nothing to give up"), "{led:?}");
    all.hang_up().await;
    let (node, record) = (&all.node, || all.record());
    // The one with the longest log does not come back. The others know of more committed records than they have.
    let (first, second) = (Process::start(node, 7, 10).await, Process::start(node, 9, 20).await);
    until("nobody leads", async || record().leader.is_none()).await;
    let said = elect(node, unclean(None, true)).await.unwrap();
    let election = &said.elections[0];
    assert_eq!(
        (said.records_lost, election.leader_before, election.leader_after),
        (5, -1, second.by.broker.0)
    );
    let answered: Vec<bool> = election.replicas.iter().map(|replica| replica.answered).collect();
    assert_eq!(answered.iter().filter(|answered| **answered).count(), 2, "{election:?}");
    assert!(election.loss_unknown, "{election:?}");
    for accepted in [None, Some(4), Some(5), Some(6)] {
        let least = refused(node, unclean(accepted, false), "records_lost_at_least").await;
        assert_eq!(least.as_deref(), Some("5"));
    }
    assert_eq!(record().leader, None);
    elect(node, unknown()).await.unwrap();
    let elected = record();
    assert_eq!((elected.leader, elected.unclean_epoch), (Some(second.by.broker), elected.leader_epoch));
    node.until_shown(&["weir_cluster_elections_total{cause=\"unclean\"} 1"]).await;
    assert_eq!(first.state(node), BrokerState::Active);

    // Where nothing is to be given back, that is said.
    let preferred = v1::ElectLeadersRequest { unclean: false, ..unclean(None, false) };
    let said = elect(node, preferred).await.unwrap();
    let wanted = elected.replicas[0].broker == second.by.broker;
    assert_eq!(said.elections[0].failure.is_none(), wanted, "{said:?}");
    let missing = v1::TopicPartition { topic: "flights".into(), partition: 7 };
    let missing = v1::ElectLeadersRequest { partitions: vec![missing], ..Default::default() };
    assert_eq!(elect(node, missing).await.unwrap_err().code(), tonic::Code::NotFound);
    all.node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_longest_of_the_logs_that_answer_leads_where_its_topic_says_so() {
    let short = Config { session_timeout: std::time::Duration::from_secs(1), ..config() };
    let mut all = Three::led(short, [10, 30, 20], &[("unclean_recovery", "longest")]).await;
    assert!(all.record().replicas.iter().all(|replica| Replica::directory(replica).is_some()));
    all.hang_up().await;
    all.come_back([10, 30, 20]).await;
    let longest = all.brokers[1].by.broker;
    until("the longest leads", async || all.record().leader == Some(longest)).await;
    let record = all.record();
    assert_eq!((record.isr.len(), record.unclean_epoch), (1, record.leader_epoch));
    let is_asked = |broker: &Process| broker.heard.lock().iter().any(|answer| !answer.wanted.is_empty());
    assert!(all.brokers.iter().any(is_asked));
    all.node.stop().await;
}

async fn remove(
    node: &Node,
    broker: BrokerId,
    disk_lost: bool,
    expected_epoch: Option<i64>,
) -> Result<(), Status> {
    let request =
        v1::RemoveBrokerRequest { broker_id: broker.0, validate_only: false, disk_lost, expected_epoch };
    let controllers = node.controllers();
    let answer = ask(&controllers, |mut client| async move {
        client.remove_broker(pb::RemoveBrokerRequest { request: Some(request) }).await
    });
    answer.await.map(drop)
}

/// Between the look at a broker and the word that its disk is lost it may have come with that disk, and written.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_came_back_since_it_was_looked_at_is_not_lost() {
    let node = Node::start(MemDisk::new(1), config()).await;
    let controllers = node.controllers();
    let state = |by: BrokerEpoch| node.handle.image().broker(by.broker).unwrap().state;
    let serves_and_stops = async || {
        let broker = Broker::start(&controllers).await;
        let stopped = pb::BrokerHeartbeatRequest { stopped: true, ..pb::BrokerHeartbeatRequest::default() };
        broker.say(stopped).await.unwrap();
        assert_eq!(state(broker.by), BrokerState::Fenced);
        broker.by
    };
    let refused = async |disk_lost, seen: BrokerEpoch, epoch| {
        remove(&node, seen.broker, disk_lost, epoch).await.unwrap_err()
    };
    let seen = serves_and_stops().await;
    let now = serves_and_stops().await;
    assert_eq!(now.broker, seen.broker);
    for disk_lost in [true, false] {
        let said = refused(disk_lost, seen, Some(seen.epoch)).await;
        assert!(weir_cluster::is_for(&said, v1::ErrorReason::BrokerEpochStale), "{said}");
    }
    let said = refused(true, seen, None).await;
    assert!(weir_cluster::is_for(&said, v1::ErrorReason::FieldRequired), "{said}");
    assert!(said.message().contains("expected_epoch is not set"), "{said}");

    let starting = Broker::register(&controllers, registration(77)).await.unwrap().by;
    assert_eq!(state(starting), BrokerState::Registered);
    let said = refused(true, starting, Some(starting.epoch)).await;
    assert!(weir_cluster::is_for(&said, v1::ErrorReason::BrokerInUse), "{said}");
    assert!(said.message().contains("it is starting"), "{said}");

    let last = serves_and_stops().await;
    remove(&node, last.broker, true, Some(last.epoch)).await.unwrap();
    assert_eq!(state(last), BrokerState::Removed);
    node.stop().await;
}

/// A partition of three replicas of which one is enough: its first leads alone, and stops. Which it was.
async fn the_only_complete_one_stops(
    node: &Node,
    brokers: &mut Vec<Process>,
    settings: &[(&str, &str)],
) -> (PartitionId, BrokerId) {
    let topic = three_replicas(node, &[settings, &[("min_insync_replicas", "1")]].concat()).await;
    let partition = PartitionId { topic: topic_id(&topic), partition: 0 };
    let record = || node.handle.image().partition(partition).unwrap().as_ref().clone();
    // The first leads alone: the others have their logs only then.
    let first = record().replicas[0].broker;
    brokers.sort_by_key(|broker| broker.by.broker != first);
    for broker in &*brokers {
        broker.broker(node).assign_all(&node.handle.image()).await;
    }
    until("the first leads", async || record().leader == Some(first)).await;
    assert_eq!(record().isr, [first]);
    brokers.remove(0).hang_up().await;
    until("nobody leads", async || record().leader.is_none()).await;
    (partition, first)
}

/// Who alone is complete is waited for, however long it is away, until a person says that its disk is gone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_waits_for_a_disk_that_is_lost() {
    let short = Config { session_timeout: std::time::Duration::from_secs(1), ..config() };
    let short = Config { broker_heartbeat: std::time::Duration::from_millis(50), ..short };
    let node = Node::start(MemDisk::new(1), short).await;
    let mut brokers = Vec::new();
    let disks = [(7, 10), (8, 30), (9, 20)];
    for (directory, log_end) in disks {
        brokers.push(Process::start(&node, directory, log_end).await);
    }
    let (partition, first) =
        the_only_complete_one_stops(&node, &mut brokers, &[("unclean_recovery", "longest")]).await;
    let record = |node: &Node| node.handle.image().partition(partition).unwrap().as_ref().clone();
    // Somebody else comes where it was, with an empty disk.
    let _new = Process::start(&node, 77, 0).await;
    assert_eq!((record(&node).leader, record(&node).elr), (None, vec![first]));
    let seen = node.handle.image().broker(first).unwrap().epoch;
    let said = remove(&node, first, false, Some(seen)).await.unwrap_err();
    assert!(weir_cluster::is_for(&said, v1::ErrorReason::BrokerInUse), "{said}");
    assert_eq!(record(&node).elr, [first]);
    remove(&node, first, true, Some(seen)).await.unwrap();
    let log_end = |broker: &&Process| disks.iter().find(|(disk, _)| *disk == broker.directory.0).unwrap().1;
    let longest = brokers.iter().max_by_key(log_end).unwrap().by.broker;
    until("the longest leads", async || record(&node).leader == Some(longest)).await;
    node.stop().await;
}

/// One that has everything was only stopped: no number gives it up. Once its disk is lost nobody waits for it, and it is a number.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_loss_is_unknown_while_one_that_has_everything_may_come_back() {
    let quick = Config { broker_heartbeat: std::time::Duration::from_millis(50), ..config() };
    let node = Node::start(MemDisk::new(1), quick).await;
    let mut brokers = Vec::new();
    // Each knows of five more that are committed than it has.
    for directory in [7, 8, 9] {
        brokers.push(Process::start(&node, directory, 20).await);
    }
    let (partition, first) = the_only_complete_one_stops(&node, &mut brokers, &[]).await;
    let record = |node: &Node| node.handle.image().partition(partition).unwrap().as_ref().clone();
    assert_eq!(record(&node).elr, [first]);

    let shown = elect(&node, unclean(None, true)).await.unwrap();
    assert_eq!((shown.records_lost, shown.elections[0].loss_unknown), (5, true), "{shown:?}");
    for accepted in [None, Some(0), Some(5)] {
        let waits_for = refused(&node, unclean(accepted, false), "waits_for").await;
        assert_eq!(waits_for, Some(first.to_string()));
        assert_eq!(refused(&node, unclean(accepted, false), "records_lost").await, None);
    }
    assert_eq!(record(&node).leader, None);

    let seen = node.handle.image().broker(first).unwrap().epoch;
    remove(&node, first, true, Some(seen)).await.unwrap();
    let shown = elect(&node, unclean(None, true)).await.unwrap();
    assert_eq!((shown.records_lost, shown.elections[0].loss_unknown), (5, false), "{shown:?}");
    for request in [unknown(), unclean(Some(0), false)] {
        assert_eq!(refused(&node, request, "records_lost").await.as_deref(), Some("5"));
    }
    elect(&node, unclean(Some(5), false)).await.unwrap();
    assert!(record(&node).leader.is_some());
    node.stop().await;
}

/// All of them have lost their memory and say what they have: nobody gives up more than that.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_loss_is_a_number_where_everybody_answers() {
    let waits = Three::forgetful([20, 20, 20]).await;
    let node = &waits.node;
    assert_eq!(refused(node, unknown(), "records_lost").await.as_deref(), Some("5"));
    elect(node, unclean(Some(5), false)).await.unwrap();
    assert!(waits.record().leader.is_some());
    waits.node.stop().await;
}

/// One that answers, and cannot open its log for now, has not said what it holds. It may have everything.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_loss_is_unknown_while_one_that_answers_cannot_open_its_log() {
    // The first was the leader, and has more than the others: its log only cannot be opened for now.
    let waits = Three::forgetful([-1, 10, 10]).await;
    let node = &waits.node;
    let shown = elect(node, unclean(None, true)).await.unwrap();
    assert!(shown.elections[0].loss_unknown, "{shown:?}");
    let first = shown.elections[0].replicas.iter().find(|replica| !replica.answered).unwrap();
    assert!(first.problem.contains("Too many open files"), "{shown:?}");
    let refused = elect(node, unclean(Some(0), false)).await.unwrap_err().to_string();
    assert!(refused.contains("its log cannot be used: open 0000"), "{refused}");
    assert!(waits.record().leader.is_none());
    elect(node, unclean(None, false)).await.unwrap_err();
    waits.node.stop().await;
}
