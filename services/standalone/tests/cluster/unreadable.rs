//! A disk that fails to read: whoever is on call sees which partition, and sees it pass.

use weir_io::{Effect, Fault, FaultDisk, MemDisk, Op, Rule};

use crate::support::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_does_not_read_is_counted_and_shown() {
    let node = Node::start(&MemDisk::new(1)).await;
    let disk = FaultDisk::over_mem(&MemDisk::new(2));
    let broker = Broker::start(disk.clone(), node.addr).await;
    broker.create("a", 2).await.unwrap();
    for partition in 0..2 {
        until_written(&broker, "a", partition).await;
    }
    let fails = Rule::on([Op::Read, Op::ReadCached], Effect::Fail(Fault::Io));
    let rule = disk.add(fails.path(|path| path.to_string_lossy().contains("/a-1.")));
    let refused = broker.fetch("a", 1).await.unwrap_err();
    assert_eq!(refused.reason(), weir_proto::v1::ErrorReason::PartitionOffline);
    assert!(refused.message.contains("the disk does not read"), "{refused:?}");
    assert_eq!(broker.metric("weir_reads_failed_total{reason=\"io\"}").await, 1);
    assert_eq!(broker.metric("weir_reads_failed_total{reason=\"damaged\"}").await, 0);
    assert_eq!(broker.metric("weir_partitions_damaged").await, 1);
    let problems = broker.problems().await;
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert!(problems[0].problem.starts_with("cannot be read at offset 0: /logs/a-1."), "{problems:?}");
    // What can be read is read, and what was only a failing disk is readable when it has come to itself.
    assert_eq!(broker.fetch("a", 0).await, Ok(1));
    disk.remove(rule);
    assert_eq!(broker.fetch("a", 1).await, Ok(1));
    broker.running.stop().await.unwrap();
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_cannot_be_opened_now_is_opened_by_itself_when_it_can() {
    let node = Node::start(&MemDisk::new(1)).await;
    let logs = MemDisk::new(2);
    let broker = Broker::start(FaultDisk::over_mem(&logs), node.addr).await;
    broker.create("a", 2).await.unwrap();
    for partition in 0..2 {
        until_written(&broker, "a", partition).await;
    }
    broker.running.stop().await.unwrap();
    let disk = FaultDisk::over_mem(&logs.kill());
    let fails = Rule::on([Op::Open], Effect::Fail(Fault::Io));
    let rule = disk.add(fails.path(|path| path.to_string_lossy().contains("/a-1.")));
    let broker = Broker::start(disk.clone(), node.addr).await;
    until_written(&broker, "a", 0).await;
    let refused = broker.produce("a", 1).await.unwrap_err();
    assert!(refused.message().contains("/a-1."), "{refused}");
    assert_eq!(broker.metric("weir_partitions_damaged").await, 1);
    disk.remove(rule);
    until_written(&broker, "a", 1).await;
    assert_eq!(broker.metric("weir_partitions_damaged").await, 0);
    broker.running.stop().await.unwrap();
    node.stop().await;
}
