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
use weir_metadata::{BrokerEpoch, BrokerState, Endpoint, RegisterBroker};
use weir_proto::internal::v1 as pb;
use weir_types::PartitionId;

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
pub(crate) struct Process {
    pub(crate) by: BrokerEpoch,
    pub(crate) directory: weir_types::DirectoryId,
    listener: Option<TcpListener>,
    pub(crate) heard: Arc<Mutex<Vec<pb::BrokerHeartbeatResponse>>>,
    session: tokio::task::JoinHandle<()>,
}

impl Process {
    pub(crate) async fn start(node: &Node, directory: u128, log_end: i64) -> Self {
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

    pub(crate) fn state(&self, node: &Node) -> BrokerState {
        node.handle.image().broker(self.by.broker).unwrap().state
    }

    /// Its connections end.
    pub(crate) async fn hang_up(&mut self) {
        self.session.abort();
        let _ = (&mut self.session).await;
    }

    pub(crate) fn broker(&self, node: &Node) -> Broker {
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
    let has_stopped = || node.handle.image().broker(broker.by.broker).unwrap().stopped;
    assert_eq!(state(broker.say(beat(3, true)).await.unwrap()), BrokerState::Fenced);
    assert!(has_stopped());
    assert_eq!(state(broker.say(beat(2, false)).await.unwrap()), BrokerState::Fenced, "it took a longer way");
    assert_eq!(
        state(broker.say(beat(4, false)).await.unwrap()),
        BrokerState::Active,
        "it says that it lives"
    );
    assert!(!has_stopped());
    node.stop().await;
}

/// Its stream ends before its last word comes, or without one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_dies_while_it_stops_has_not_stopped_in_order() {
    let short = Config { session_timeout: std::time::Duration::from_secs(1), ..config() };
    let node = Node::start(MemDisk::new(1), short).await;
    let broker = Broker::start(&node.controllers()).await;
    let leaving = || pb::BrokerHeartbeatRequest { wants_to_stop: true, ..Default::default() };
    let draining = broker.say(leaving()).await.unwrap();
    assert_eq!(BrokerState::from_wire(draining.state).unwrap(), BrokerState::Draining);
    let known = || node.handle.image().broker(broker.by.broker).unwrap().clone();
    until("it is taken for dead", async || known().state == BrokerState::Fenced).await;
    assert!(!known().stopped);
    broker.say(pb::BrokerHeartbeatRequest { stopped: true, ..leaving() }).await.unwrap();
    assert!(known().stopped, "it was only slow to say so");
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
