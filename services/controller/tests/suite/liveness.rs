//! Who lives: a stream that ends is looked into at once, silence is waited for, and what comes late is not done. Sessions
//! here are longer than any test: whoever is fenced was not fenced for silence.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};
use tonic::Status;
use weir_cluster::{Controllers, Row, Session};
use weir_controller::Config;
use weir_io::MemDisk;
use weir_metadata::{BrokerEpoch, BrokerState, Endpoint, Partition, RegisterBroker, Replica};
use weir_proto::internal::v1 as pb;
use weir_proto::v1;
use weir_types::{BrokerId, PartitionId};

use crate::common::*;

/// A broker that says what it is told to say, and notes what it hears.
struct Talking {
    by: BrokerEpoch,
    heard: Arc<Mutex<Vec<pb::BrokerHeartbeatResponse>>>,
    number: Mutex<i64>,
    /// How far each of its logs goes; below 0: it cannot open them now.
    log_end: i64,
}

impl Session for Talking {
    fn heartbeat(&self) -> pb::BrokerHeartbeatRequest {
        let mut number = self.number.lock();
        *number += 1;
        let last = self.heard.lock().last().cloned().unwrap_or_default();
        let whole = |partition| pb::ReplicaReport {
            partition: Some(partition),
            last_epoch: 1,
            log_end: self.log_end,
            high_watermark: self.log_end.min(25) + 5 * i64::from(self.log_end == 20),
            known_end: Some(0),
            ..pb::ReplicaReport::default()
        };
        let unopened = |partition| pb::ReplicaReport {
            partition: Some(partition),
            problem: "open 00000000000000000000.log: Too many open files".to_owned(),
            ..pb::ReplicaReport::default()
        };
        let report = |partition| if self.log_end < 0 { unopened(partition) } else { whole(partition) };
        pb::BrokerHeartbeatRequest {
            broker: Some(self.by.to_wire()),
            epoch_persisted: true,
            number: *number,
            reports: last.wanted.into_iter().map(report).collect(),
            acted_version: last.metadata_version,
            ..pb::BrokerHeartbeatRequest::default()
        }
    }

    fn answered(&self, _sent: Instant, answer: pb::BrokerHeartbeatResponse) -> bool {
        let more = !answer.wanted.is_empty();
        self.heard.lock().push(answer);
        more
    }

    fn unheard(&self, _failed: &Status) {}
}

/// A broker whose process listens somewhere, and whose session lasts until it is dropped.
struct Process {
    by: BrokerEpoch,
    directory: weir_types::DirectoryId,
    listener: Option<TcpListener>,
    heard: Arc<Mutex<Vec<pb::BrokerHeartbeatResponse>>>,
    session: tokio::task::JoinHandle<()>,
}

impl Process {
    async fn start(node: &Node, directory: u128, log_end: i64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let endpoints = vec![Endpoint { listener: "internal".into(), host: "127.0.0.1".into(), port }];
        let registration = RegisterBroker { endpoints, ..registration(directory) };
        let broker = Broker::register(&node.controllers(), registration).await.unwrap();
        let heard = Arc::new(Mutex::new(Vec::new()));
        let talking = Talking { by: broker.by, heard: heard.clone(), number: Mutex::new(0), log_end };
        // A connection of its own, as a process has.
        let controllers = Controllers::new(test_os(&MemDisk::new(1)), vec![node.endpoint.clone()]);
        let session = tokio::spawn(async move {
            let every = std::time::Duration::from_millis(50);
            controllers.keep_session(every, &Notify::new(), &talking).await;
        });
        let process =
            Self { by: broker.by, directory: broker.directory, listener: Some(listener), heard, session };
        until("it serves", async || process.state(node) == BrokerState::Active).await;
        process
    }

    fn state(&self, node: &Node) -> BrokerState {
        node.handle.image().broker(self.by.broker).unwrap().state
    }

    /// Its connections end.
    async fn hang_up(&mut self) {
        self.session.abort();
        let _ = (&mut self.session).await;
    }

    fn broker(&self, node: &Node) -> Broker {
        Broker { controllers: node.controllers(), by: self.by, directory: self.directory }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_dies_is_fenced_at_once() {
    let node = Node::start(MemDisk::new(1), config()).await;
    let mut broker = Process::start(&node, 7, 0).await;
    let topic = node.create("flights").await.unwrap();
    broker.broker(&node).assign_all(&node.handle.image()).await;
    let partition = PartitionId { topic: topic_id(&topic), partition: 0 };
    assert_eq!(node.handle.image().partition(partition).unwrap().leader, Some(broker.by.broker));
    drop(broker.listener.take());
    broker.hang_up().await;
    until("it is fenced", async || broker.state(&node) == BrokerState::Fenced).await;
    node.until_shown(&[
        "weir_cluster_elections_total{cause=\"fenced\"} 1",
        "weir_cluster_fenced_total{how=\"gone\"} 1",
        "weir_cluster_elections_total{cause=\"assigned\"} 1",
        "weir_cluster_isr_changes_total{direction=\"shrink\"} 1",
        "weir_cluster_brokers{state=\"fenced\"} 1",
        "weir_cluster_partitions_leaderless 1",
        "weir_cluster_partitions_waiting 0",
    ])
    .await;
    assert_eq!(node.handle.image().partition(partition).unwrap().leader, None);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_breaks_is_looked_into_and_costs_nobody_anything() {
    let node = Node::start(MemDisk::new(1), config()).await;
    let mut broker = Process::start(&node, 7, 0).await;
    broker.hang_up().await;
    let listener = broker.listener.take().unwrap();
    let (mut looked_for, _) = timeout(PATIENCE, listener.accept()).await.unwrap().unwrap();
    // Whoever looks hangs up once he has seen that somebody is here.
    let left = timeout(PATIENCE, looked_for.read_u8()).await.unwrap();
    assert!(left.is_err());
    assert_eq!(broker.broker(&node).heartbeat(true).await, Ok(BrokerState::Active));
    assert_eq!(node.handle.image().broker(broker.by.broker).unwrap().epoch, broker.by.epoch);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_broker_wanted_before_its_last_word_is_not_done_after_it() {
    let node = Node::start(MemDisk::new(1), config()).await;
    let broker = Broker::register(&node.controllers(), registration(7)).await.unwrap();
    let beat = |number, stopped| pb::BrokerHeartbeatRequest {
        epoch_persisted: true,
        wants_to_stop: stopped,
        stopped,
        number,
        ..pb::BrokerHeartbeatRequest::default()
    };
    let state = |answer: pb::BrokerHeartbeatResponse| BrokerState::from_wire(answer.state).unwrap();
    assert_eq!(state(broker.say(beat(1, false)).await.unwrap()), BrokerState::Active);
    assert_eq!(state(broker.say(beat(3, true)).await.unwrap()), BrokerState::Fenced);
    assert_eq!(state(broker.say(beat(2, false)).await.unwrap()), BrokerState::Fenced, "it took a longer way");
    assert_eq!(
        state(broker.say(beat(4, false)).await.unwrap()),
        BrokerState::Active,
        "it says that it lives"
    );
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_registration_that_comes_twice_is_one() {
    let node = Node::start(MemDisk::new(1), config()).await;
    let controllers = node.controllers();
    let by_process = |incarnation| RegisterBroker { incarnation, ..registration(7) };
    let first = Broker::register(&controllers, by_process(1)).await.unwrap();
    assert_eq!(first.heartbeat(true).await, Ok(BrokerState::Active));
    let late = Broker::register(&controllers, by_process(1)).await.unwrap();
    assert_eq!(late.by, first.by);
    assert_eq!(first.heartbeat(true).await, Ok(BrokerState::Active), "it does not end itself");
    let other = Broker::register(&controllers, by_process(2)).await.unwrap();
    assert!(other.by.epoch > first.by.epoch);
    assert!(first.heartbeat(true).await.unwrap_err().contains("it registered again"));
    node.stop().await;
}

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

/// A partition that nobody may lead: what would be lost is said, and nobody is elected for a number where one is away who may
/// have more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_person_sees_what_is_lost_at_least_and_accepts_that_it_is_unknown() {
    let quick = Config { broker_heartbeat: std::time::Duration::from_millis(50), ..config() };
    let node = Node::start(MemDisk::new(1), quick).await;
    let mut brokers = Vec::new();
    for (directory, log_end) in [(7, 10), (8, 30), (9, 20)] {
        brokers.push(Process::start(&node, directory, log_end).await);
    }
    let topic = three_replicas(&node, &[]).await;
    for broker in &brokers {
        broker.broker(&node).assign_all(&node.handle.image()).await;
    }
    let partition = PartitionId { topic: topic_id(&topic), partition: 0 };
    let record = |node: &Node| node.handle.image().partition(partition).unwrap().as_ref().clone();
    until("it is led", async || record(&node).leader.is_some()).await;
    let led = elect(&node, unclean(Some(0), false)).await.unwrap();
    assert!(led.elections[0].failure.as_ref().unwrap().message.contains("nothing to give up"), "{led:?}");
    for broker in &mut brokers {
        broker.hang_up().await;
    }
    drop(brokers);
    // The one with the longest log does not come back. The others know of more committed records than they have.
    let (first, second) = (Process::start(&node, 7, 10).await, Process::start(&node, 9, 20).await);
    until("nobody leads", async || record(&node).leader.is_none()).await;
    let said = elect(&node, unclean(None, true)).await.unwrap();
    let election = &said.elections[0];
    assert_eq!(
        (said.records_lost, election.leader_before, election.leader_after),
        (5, -1, second.by.broker.0)
    );
    let answered: Vec<bool> = election.replicas.iter().map(|replica| replica.answered).collect();
    assert_eq!(answered.iter().filter(|answered| **answered).count(), 2, "{election:?}");
    assert!(election.loss_unknown, "{election:?}");
    for accepted in [None, Some(4), Some(5), Some(6)] {
        let least = refused(&node, unclean(accepted, false), "records_lost_at_least").await;
        assert_eq!(least.as_deref(), Some("5"));
    }
    assert_eq!(record(&node).leader, None);
    elect(&node, unknown()).await.unwrap();
    let elected = record(&node);
    assert_eq!((elected.leader, elected.unclean_epoch), (Some(second.by.broker), elected.leader_epoch));
    node.until_shown(&["weir_cluster_elections_total{cause=\"unclean\"} 1"]).await;
    assert_eq!(first.state(&node), BrokerState::Active);

    // Where nothing is to be given back, that is said.
    let preferred = v1::ElectLeadersRequest { unclean: false, ..unclean(None, false) };
    let said = elect(&node, preferred).await.unwrap();
    let wanted = elected.replicas[0].broker == second.by.broker;
    assert_eq!(said.elections[0].failure.is_none(), wanted, "{said:?}");
    let missing = v1::TopicPartition { topic: "flights".into(), partition: 7 };
    let missing = v1::ElectLeadersRequest { partitions: vec![missing], ..Default::default() };
    assert_eq!(elect(&node, missing).await.unwrap_err().code(), tonic::Code::NotFound);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_longest_of_the_logs_that_answer_leads_where_its_topic_says_so() {
    let short = Config { session_timeout: std::time::Duration::from_secs(1), ..config() };
    let short = Config { broker_heartbeat: std::time::Duration::from_millis(50), ..short };
    let node = Node::start(MemDisk::new(1), short).await;
    let mut brokers = Vec::new();
    for (directory, log_end) in [(7, 10), (8, 30), (9, 20)] {
        brokers.push(Process::start(&node, directory, log_end).await);
    }
    let topic = three_replicas(&node, &[("unclean_recovery", "longest")]).await;
    for broker in &brokers {
        broker.broker(&node).assign_all(&node.handle.image()).await;
    }
    let partition = PartitionId { topic: topic_id(&topic), partition: 0 };
    let record = |node: &Node| node.handle.image().partition(partition).unwrap().as_ref().clone();
    until("it is led", async || record(&node).leader.is_some()).await;
    assert!(record(&node).replicas.iter().all(|replica| Replica::directory(replica).is_some()));
    // All of them lose their memory: they come back and prove nothing.
    for broker in &mut brokers {
        broker.hang_up().await;
    }
    drop(brokers);
    let mut back = Vec::new();
    for (directory, log_end) in [(7, 10), (8, 30), (9, 20)] {
        back.push(Process::start(&node, directory, log_end).await);
    }
    until("the longest leads", async || record(&node).leader == Some(back[1].by.broker)).await;
    let record = record(&node);
    assert_eq!((record.isr.len(), record.unclean_epoch), (1, record.leader_epoch));
    assert!(back.iter().any(|broker| broker.heard.lock().iter().any(|answer| !answer.wanted.is_empty())));
    node.stop().await;
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

/// A node whose only partition waits for a person.
struct Forgetful {
    node: Node,
    partition: PartitionId,
    /// They answer as long as they are held.
    brokers: Vec<Process>,
}

impl Forgetful {
    fn record(&self) -> Partition {
        self.node.handle.image().partition(self.partition).unwrap().as_ref().clone()
    }
}

/// Three brokers with a replica each have lost their memory, are back, and say that their logs end there.
async fn forgetful(log_ends: [i64; 3]) -> Forgetful {
    let quick = Config { broker_heartbeat: std::time::Duration::from_millis(50), ..config() };
    let node = Node::start(MemDisk::new(1), quick).await;
    let mut brokers = Vec::new();
    for directory in [7, 8, 9] {
        brokers.push(Process::start(&node, directory, 20).await);
    }
    let topic = three_replicas(&node, &[]).await;
    for broker in &brokers {
        broker.broker(&node).assign_all(&node.handle.image()).await;
    }
    let partition = PartitionId { topic: topic_id(&topic), partition: 0 };
    let mut waits = Forgetful { node, partition, brokers };
    until("it is led", async || waits.record().leader.is_some()).await;
    for broker in &mut waits.brokers {
        broker.hang_up().await;
    }
    waits.brokers.clear();
    for (directory, log_end) in [7, 8, 9].into_iter().zip(log_ends) {
        waits.brokers.push(Process::start(&waits.node, directory, log_end).await);
    }
    until("it waits for a person", async || waits.record().waits_for_a_person()).await;
    waits
}

/// All of them have lost their memory and say what they have: nobody gives up more than that.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_loss_is_a_number_where_everybody_answers() {
    let waits = forgetful([20, 20, 20]).await;
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
    let waits = forgetful([-1, 10, 10]).await;
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
