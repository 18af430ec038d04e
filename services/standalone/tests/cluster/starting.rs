//! A start takes as long as it takes: meanwhile the HTTP listener says how far it is, and what it waits for.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use tonic::transport::Channel;
use tonic::{Code, Status};
use tonic_types::StatusExt;
use weir_io::{Effect, FaultDisk, MemDisk, Op, Rule};
use weir_proto::v1::metadata_service_client::MetadataServiceClient;
use weir_proto::v1::{ErrorReason, GetServerInfoRequest};

use crate::support::*;

/// An address for one listener, known beforehand. Connections go out from another one, so none of them takes it.
fn address() -> SocketAddr {
    let found = std::net::TcpListener::bind("127.0.0.9:0").unwrap();
    found.local_addr().unwrap()
}

/// The value of a metric.
fn value(metrics: &str, name: &str) -> i64 {
    let line = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("{name} in {metrics}")).trim().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_recovery_is_watched_from_outside() {
    let node = Node::start(&MemDisk::new(1)).await;
    let disk = MemDisk::new(2);
    let broker = Broker::start(disk.clone(), node.addr).await;
    broker.create("a", 3).await.unwrap();
    for partition in 0..3 {
        until_written(&broker, "a", partition).await;
    }
    // As kill -9 leaves it; the disk is slow at the second of three logs.
    let faults = FaultDisk::over_mem(&copy(&disk));
    let gate = Gate::default();
    let waits = gate.clone();
    let stuck = Rule::on([Op::Open, Op::List, Op::Read], Effect::Hook(Arc::new(move || waits.wait())));
    let of_second = |path: &Path| path.to_string_lossy().contains("/a-1.");
    let rule = faults.add(stuck.path(of_second));
    let (controller, http) = (node.addr, address());
    let starting = tokio::spawn(Broker::start_seen_at(faults.clone(), controller, http));
    until("recovery at the second log", async || faults.fired(rule) > 0).await;

    // Logs are opened side by side: only the second one is waited for.
    let said = async || get(http, "/readyz").await.unwrap_or_default();
    until("the other two logs", async || said().await.ends_with("opening logs: 2 of 3\n")).await;
    let ready = said().await;
    assert!(ready.starts_with("HTTP/1.1 503"), "{ready}");
    assert!(get(http, "/healthz").await.unwrap().starts_with("HTTP/1.1 200"));
    let metrics = get(http, "/metrics").await.unwrap();
    let progress = ["weir_recovery_logs", "weir_recovery_logs_done"].map(|name| value(&metrics, name));
    assert_eq!(progress, [3, 2], "{metrics}");
    let scanned = value(&metrics, "weir_recovery_scanned_bytes_total");

    gate.open();
    let again = starting.await.unwrap().unwrap();
    assert!(again.http("/readyz").await.starts_with("HTTP/1.1 200"));
    assert_eq!(again.metric("weir_recovery_logs_done").await, 3);
    // How much it is depends on what the checkpoint knew; it only grows.
    assert!(again.metric("weir_recovery_scanned_bytes_total").await >= scanned);
    assert_eq!(again.metric("weir_ready").await, 1);
    again.running.stop().await.unwrap();
    drop(broker);
    node.stop().await;
}

/// What a broker says of itself that may be no broker yet.
async fn server_info(channel: Channel) -> Result<i32, Status> {
    let mut client = MetadataServiceClient::new(channel);
    client.get_server_info(GetServerInfoRequest {}).await.map(|answer| answer.into_inner().broker_id)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_calls_a_broker_that_opens_its_logs_learns_how_far_it_is() {
    let node = Node::start(&MemDisk::new(1)).await;
    let disk = MemDisk::new(2);
    let broker = Broker::start(disk.clone(), node.addr).await;
    broker.create("a", 2).await.unwrap();
    let faults = FaultDisk::over_mem(&copy(&disk));
    let gate = Gate::default();
    let waits = gate.clone();
    let stuck = Rule::on([Op::Open, Op::List, Op::Read], Effect::Hook(Arc::new(move || waits.wait())));
    faults.add(stuck.path(|path| path.to_string_lossy().contains("/a-1.")));
    let (controller, listen) = (node.addr, address());
    let starting = tokio::spawn(async move {
        Broker::start_set(faults, controller, &[("--listen", &listen.to_string())]).await
    });
    until("the listener", async || std::net::TcpStream::connect(listen).is_ok()).await;
    let there = channel(listen);
    let opening = format!("a broker at {listen} is up and does not serve yet: opening logs: 1 of 2");
    until("the other log", async || server_info(there.clone()).await.unwrap_err().message() == opening).await;
    let refused = server_info(there.clone()).await.unwrap_err();
    assert!(weir_cluster::is_for(&refused, ErrorReason::ControllerUnavailable), "{refused}");
    let facts = refused.get_details_error_info().unwrap().metadata;
    assert!(facts.contains_key("starting"), "{facts:?}");

    gate.open();
    let again = starting.await.unwrap().unwrap();
    assert_eq!(server_info(there).await.unwrap(), 1, "by the connection of before");
    assert_eq!(server_info(channel(listen)).await.unwrap(), 1);
    again.running.stop().await.unwrap();
    drop(broker);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_without_a_controller_says_what_it_waits_for() {
    let (controller, http) = (address(), address());
    let starting = tokio::spawn(Broker::start_seen_at(MemDisk::new(2), controller, http));
    let said = async || get(http, "/readyz").await.unwrap_or_default();
    until("a reason", async || said().await.contains("starting: no controller")).await;
    let answer = said().await;
    assert!(answer.starts_with("HTTP/1.1 503") && answer.contains(&controller.to_string()), "{answer}");
    assert_eq!(value(&get(http, "/metrics").await.unwrap(), "weir_ready"), 0);

    let node = Node::start_at(&MemDisk::new(1), controller).await;
    let broker = starting.await.unwrap().unwrap();
    assert!(broker.http("/readyz").await.starts_with("HTTP/1.1 200"));
    broker.running.stop().await.unwrap();
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_calls_a_broker_without_a_controller_learns_what_it_waits_for() {
    let (controller, listen) = (address(), address());
    let starting = tokio::spawn(async move {
        Broker::start_set(MemDisk::new(2), controller, &[("--listen", &listen.to_string())]).await
    });
    until("the listener", async || std::net::TcpStream::connect(listen).is_ok()).await;
    let ask = async || {
        let mut client = MetadataServiceClient::new(channel(listen));
        client.get_server_info(GetServerInfoRequest {}).await
    };
    let mut refused = ask().await.unwrap_err();
    until("the controller's answer", async || {
        refused = ask().await.unwrap_err();
        !refused.message().contains("not asked yet")
    })
    .await;
    assert_eq!(refused.code(), Code::Unavailable, "{refused}");
    let (up, waits) =
        (format!("a new broker at {listen} is up and does not serve yet: "), format!("({controller}: "));
    assert!(refused.message().starts_with(&up) && refused.message().contains(&waits), "{refused}");
    assert!(weir_cluster::is_for(&refused, ErrorReason::ControllerUnavailable), "{refused}");
    let facts = refused.get_details_error_info().unwrap().metadata;
    assert!(facts.contains_key("starting"), "{facts:?}");

    // A call that comes as the start ends waits for that, and is answered.
    let node = Node::start_at(&MemDisk::new(1), controller).await;
    let broker = starting.await.unwrap().unwrap();
    assert_eq!(ask().await.unwrap().into_inner().broker_id, 1);
    broker.running.stop().await.unwrap();
    node.stop().await;
}
