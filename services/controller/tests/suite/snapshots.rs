//! Snapshots: the log stays short, and a damaged one stops the controller before it harms anything.

use std::path::{Path, PathBuf};

use weir_cluster::Row;
use weir_controller::{Config, Error};
use weir_io::{Access, Disk, MemDisk};
use weir_proto::internal::v1 as pb;

use crate::common::*;

fn often() -> Config {
    // One name wherever it listens, so that nothing changes by itself when it starts again.
    Config { snapshot_commands: 20, advertise: Some("controller.test:9349".into()), ..config() }
}

fn snapshots(disk: &MemDisk) -> Vec<PathBuf> {
    let names = disk.list(Path::new("/controller")).unwrap().into_iter().map(|entry| entry.name);
    names.filter(|name| name.ends_with(".snap")).map(|name| Path::new("/controller").join(name)).collect()
}

async fn filled(node: &Node, topics: usize) -> Vec<String> {
    Broker::start(&node.controllers()).await;
    for number in 0..topics {
        node.create(&format!("topic-{number:03}")).await.unwrap();
    }
    until("a snapshot", async || !snapshots(&node.disk).is_empty()).await;
    node.topics()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_controller_starts_from_its_snapshot() {
    let mut node = Node::start(MemDisk::new(1), often()).await;
    let topics = filled(&node, 100).await;
    for seed in 0..3 {
        let before = node.handle.image();
        let disk = if seed == 0 { node.stop().await } else { node.lose_power(seed) };
        assert_eq!(snapshots(&disk).len(), 1, "the newest stays");
        node = Node::start(disk, often()).await;
        until("the log is applied", async || node.handle.image().version() >= before.version()).await;
        assert!(node.handle.image() == before, "it is what it was");
        assert_eq!(node.topics(), topics);
        // The same request still gets the same answer.
        let again = node.create("topic-000").await.unwrap();
        assert_eq!(again.revision, before.topic_named("topic-000").unwrap().revision);
        assert!(node.handle.image() == before, "nothing changed");
    }
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_orderly_stop_leaves_a_snapshot_if_there_was_much() {
    let node = Node::start(MemDisk::new(1), config()).await;
    Broker::start(&node.controllers()).await;
    let disk = node.stop().await;
    assert_eq!(snapshots(&disk), Vec::<PathBuf>::new(), "too little to be worth it");
    let node = Node::start(disk, config()).await;
    let controllers = node.controllers();
    let created = (0..600).map(|number| {
        let controllers = controllers.clone();
        async move { create(&controllers, &format!("topic-{number}")).await }
    });
    assert!(futures::future::join_all(created).await.iter().all(Result::is_ok));
    let disk = node.stop().await;
    assert_eq!(snapshots(&disk).len(), 1);
    let node = Node::start(disk, config()).await;
    assert_eq!(node.topics().len(), 600);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_that_is_not_sent_to_its_end_is_refused_and_the_controller_goes_on() {
    let node = Node::start(MemDisk::new(1), often()).await;
    filled(&node, 60).await;
    let before = node.disk.list(Path::new("/controller")).unwrap();
    let newest = snapshots(&node.disk).pop().unwrap();
    let whole = node.disk.read(&newest, 1 << 20).unwrap();
    let far = pb::LogId { term: 1_000, node_id: 7, index: 1_000_000 };
    let membership = Some(pb::Membership::default());
    let last_membership = Some(pb::StoredMembership { membership, ..Default::default() });
    let head = pb::InstallSnapshotRequest {
        cluster_id: node.handle.image().cluster_id().unwrap().to_wire(),
        target_id: 1,
        vote: Some(pb::RaftVote { term: 1_000, node_id: 7, committed: true }),
        meta: Some(pb::SnapshotMeta { last_log_id: Some(far), last_membership, ..Default::default() }),
        ..pb::InstallSnapshotRequest::default()
    };
    let piece = |bytes: bytes::Bytes| pb::InstallSnapshotRequest { chunk: bytes, ..Default::default() };
    let channel = weir_cluster::channel(&node.os, &node.endpoint).unwrap();
    let mut client = pb::raft_service_client::RaftServiceClient::new(channel);
    for sent in [whole.slice(..whole.len() / 2), bytes::Bytes::new(), whole.clone()] {
        let stream = futures::stream::iter([head.clone(), piece(sent)]);
        let refused = client.install_snapshot(stream).await.unwrap_err();
        assert!(refused.message().contains("receiving-"), "{refused}");
    }
    let (pieces, stream) = tokio::sync::mpsc::unbounded_channel();
    pieces.send(head).unwrap();
    pieces.send(piece(whole.slice(..whole.len() / 2))).unwrap();
    let stream = tokio_stream::wrappers::UnboundedReceiverStream::new(stream);
    let given_up = tokio::spawn(async move { client.install_snapshot(stream).await });
    let list = || node.disk.list(Path::new("/controller")).unwrap();
    until("it comes", async || list() != before).await;
    given_up.abort();
    until("nothing of it is left", async || list() == before).await;
    drop(pieces);
    node.create("after").await.unwrap();
    assert_eq!(node.topics().len(), 61);
    assert_eq!(list(), before);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_snapshot_stops_the_controller_and_stays() {
    let node = Node::start(MemDisk::new(1), often()).await;
    filled(&node, 60).await;
    let disk = node.stop().await;
    let path = snapshots(&disk).pop().unwrap();
    let before = disk.list(Path::new("/controller")).unwrap();
    let file = disk.open(&path, Access::Write).unwrap();
    let mut byte = bytes::BytesMut::new();
    file.read_at(&mut byte, 1, 100).unwrap();
    file.write_all_at(&[!byte[0]], 100).unwrap();
    drop(file);
    let error = Node::try_start(disk.clone(), often()).await.err().unwrap();
    let Error::Snapshot { path: named, .. } = &error else { panic!("{error}") };
    assert_eq!(*named, path);
    assert_eq!(disk.list(Path::new("/controller")).unwrap(), before, "nothing was deleted");
    let file = disk.open(&path, Access::Write).unwrap();
    file.write_all_at(&byte, 100).unwrap();
    let node = Node::start(disk.kill(), often()).await;
    until("all topics", async || node.topics().len() == 60).await;
    node.stop().await;
}
