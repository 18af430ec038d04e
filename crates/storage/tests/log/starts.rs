//! The starts of many logs move by themselves: with one checkpoint for all, and without holding up an append.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::timeout;
use weir_io::{Effect, Fault, FaultDisk, MemDisk, Op, Rule};
use weir_runtime::testing::{PATIENCE, TestOs, until};
use weir_storage::{Control, DirOptions, Error, LogConfig, Partition, ReadError};
use weir_types::{Durability, Offset};

use crate::support::*;

/// Five frames of 200 bytes a segment.
fn small(retention_bytes: Option<u64>) -> LogConfig {
    LogConfig { segment_bytes: 1000, retention_bytes, ..config(Durability::Fsync) }
}

/// Two segments, of which one is to go as soon as 300 bytes are enough.
/// Deletes what is before an offset, in a task of its own.
fn delete(log: &Partition, offset: Offset) -> JoinHandle<Result<(), Error>> {
    let log = log.clone();
    tokio::spawn(async move { log.control(Control::SetLogStart { offset }).await })
}

/// No checkpoint but those that are tested.
fn rarely(options: &mut DirOptions) {
    options.checkpoint_interval = Duration::from_secs(100_000);
}

#[tokio::test(start_paused = true)]
async fn the_starts_of_many_logs_move_with_one_checkpoint() {
    let disk = MemDisk::new(1);
    let process = Process::start_with(Arc::new(disk.clone()), rarely).unwrap();
    let mut logs = Vec::new();
    for n in 0..50 {
        let log = process.create(n, small(Some(300))).await;
        fill(&log, 7).await;
        logs.push(log);
    }
    tokio::time::sleep(Duration::from_secs(5)).await;
    let before = process.dir.stats().checkpoints.get();
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(logs.iter().all(|log| log.ends().log_start == 5));
    assert!(logs.iter().all(|log| log.describe().segments == 1));
    assert_eq!(process.dir.stats().checkpoints.get() - before, 1);
    // What is left of deleted segments are the sidecars of the last ones.
    let process = Process::start(Arc::new(disk.kill()));
    assert_eq!(process.report.damaged, []);
    for n in 0..50 {
        let log = process.lead(n, 2).await;
        assert_eq!((log.ends().log_start, all(&log).await.len()), (5, 2));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_append_waits_while_a_start_moves() {
    let disk = FaultDisk::over_mem(&MemDisk::new(1));
    let os = TestOs::threads(Arc::new(disk.clone())).unwrap();
    let process = Process::start_on(os, |options| {
        rarely(options);
        options.retention_interval = Duration::from_millis(1);
    })
    .unwrap();
    let log = process.create(0, small(None)).await;
    fill(&log, 7).await;
    process.dir.checkpoint().unwrap();
    let held = Held::new(&disk, Op::SyncAll, &Path::new(DIR).join("checkpoint.tmp"));
    log.control(Control::Configure(small(Some(300)))).await.unwrap();
    held.has_somebody().await;
    let appended = timeout(PATIENCE, produce(&log, batch("x", 1))).await.expect("it does not wait");
    assert_eq!(appended.unwrap().base_offset, 7);
    assert_eq!(log.ends().log_start, 0, "nothing goes before that is durable");
    drop(held);
    until("the start moves", async || log.ends().log_start == 5).await;
    assert_eq!(all(&log).await.len(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_append_waits_while_records_are_deleted() {
    let disk = FaultDisk::over_mem(&MemDisk::new(1));
    let os = TestOs::threads(Arc::new(disk.clone())).unwrap();
    let process = Process::start_on(os, rarely).unwrap();
    let log = process.create(0, small(None)).await;
    fill(&log, 7).await;
    process.dir.checkpoint().unwrap();
    let held = Held::new(&disk, Op::SyncAll, &Path::new(DIR).join("checkpoint.tmp"));
    let deleting = delete(&log, 6);
    held.has_somebody().await;
    let appended = timeout(PATIENCE, produce(&log, batch("x", 1))).await.expect("it does not wait");
    assert_eq!(appended.unwrap().base_offset, 7);
    assert!(log.ends().log_start == 0 && !deleting.is_finished(), "nothing goes before that is durable");
    drop(held);
    timeout(PATIENCE, deleting).await.unwrap().unwrap().unwrap();
    assert_eq!((log.ends().log_start, log.describe().segments), (6, 1));
}

#[tokio::test(start_paused = true)]
async fn deletions_of_a_moment_take_one_checkpoint_and_fail_together() {
    let mem = MemDisk::new(1);
    let disk = FaultDisk::over_mem(&mem);
    let process = Process::start_with(Arc::new(disk.clone()), rarely).unwrap();
    let mut logs = Vec::new();
    for n in 0..50 {
        let log = process.create(n, small(None)).await;
        fill(&log, 7).await;
        logs.push(log);
    }
    tokio::time::sleep(Duration::from_secs(5)).await;
    let rule = disk.add(Rule::on([Op::Write], Effect::Fail(Fault::NoSpace)).ends_with("checkpoint.tmp"));
    let all_at_once = async |offset| {
        let deleting: Vec<_> = logs.iter().map(|log| delete(log, offset)).collect();
        let mut done = 0;
        for deleting in deleting {
            done += usize::from(timeout(PATIENCE, deleting).await.unwrap().unwrap().is_ok());
        }
        done
    };
    assert_eq!(all_at_once(6).await, 0);
    assert!(process.fatal.lock().is_empty() && logs.iter().all(|log| log.ends().log_start == 0));
    disk.remove(rule);
    // What was answered with an error does not come later.
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(logs.iter().all(|log| log.ends().log_start == 0 && log.describe().segments == 2));
    let before = process.dir.stats().checkpoints.get();
    assert_eq!(all_at_once(6).await, 50);
    assert_eq!(process.dir.stats().checkpoints.get() - before, 1);
    let process = Process::start(Arc::new(mem.kill()));
    assert_eq!(process.report.damaged, []);
    for n in 0..50 {
        assert_eq!(process.lead(n, 2).await.ends().log_start, 6);
    }
}

#[tokio::test(start_paused = true)]
async fn of_several_deletions_in_one_log_the_farthest_stays() {
    let mem = MemDisk::new(1);
    let process = Process::start_with(Arc::new(mem.clone()), rarely).unwrap();
    let log = process.create(0, small(None)).await;
    fill(&log, 7).await;
    let offsets = [3, 6, 2, 8, 4];
    let deleting: Vec<_> = offsets.iter().map(|offset| delete(&log, *offset)).collect();
    for (deleting, offset) in deleting.into_iter().zip(offsets) {
        let done = deleting.await.unwrap();
        assert_eq!(done.is_ok(), offset < 8, "beyond the end: {done:?}");
        assert!(offset == 8 || log.ends().log_start >= offset);
    }
    assert_eq!(log.ends().log_start, 6);
    let process = Process::start(Arc::new(mem.kill()));
    assert_eq!(process.lead(0, 2).await.ends().log_start, 6);
}

#[tokio::test(start_paused = true)]
async fn a_start_that_could_not_be_written_down_does_not_move() {
    let mem = MemDisk::new(1);
    let disk = FaultDisk::over_mem(&mem);
    let process = Process::start_with(Arc::new(disk.clone()), rarely).unwrap();
    let log = process.create(0, small(Some(300))).await;
    fill(&log, 7).await;
    let rule = disk.add(Rule::on([Op::Write], Effect::Fail(Fault::NoSpace)).ends_with("checkpoint.tmp"));
    tokio::time::sleep(Duration::from_secs(100)).await;
    assert!(disk.fired(rule) > 0 && process.fatal.lock().is_empty());
    assert_eq!((log.ends().log_start, all(&log).await.len()), (0, 7));
    disk.remove(rule);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!((log.ends().log_start, all(&log).await.len()), (5, 2));
}

#[tokio::test]
async fn a_sidecar_that_cannot_be_mapped_is_read() {
    let mem = MemDisk::new(1);
    let process = Process::start(Arc::new(mem.clone()));
    fill(&process.create(0, small(None)).await, 7).await;
    process.dir.close().await.unwrap();
    let disk = FaultDisk::over_mem(&mem.kill());
    disk.add(Rule::on([Op::Map], Effect::Fail(Fault::Io)));
    let process = Process::start(Arc::new(disk.clone()));
    let log = process.lead(0, 2).await;
    disk.start_trace();
    assert_eq!(all(&log).await.len(), 7);
    let written = disk.take_trace().iter().filter(|event| event.op == Op::Write).count();
    assert_eq!(written, 0, "it is not made again");
}

#[tokio::test]
async fn a_sidecar_that_there_is_no_descriptor_for_is_not_damaged() {
    let mem = MemDisk::new(1);
    let process = Process::start(Arc::new(mem.clone()));
    fill(&process.create(0, small(None)).await, 7).await;
    process.dir.close().await.unwrap();
    let disk = FaultDisk::over_mem(&mem.kill());
    let process = Process::start(Arc::new(disk.clone()));
    let log = process.lead(0, 2).await;
    let rule = disk.add(Rule::on([Op::Open], Effect::Fail(Fault::TooManyFiles)).ends_with(".seal"));
    disk.start_trace();
    let refused = try_all(&log).await.unwrap_err();
    assert!(matches!(refused, ReadError::Unreadable(_)), "{refused:?}");
    assert!(disk.fired(rule) > 0 && !disk.take_trace().iter().any(|event| event.op == Op::Write));
    disk.remove(rule);
    assert_eq!(all(&log).await.len(), 7);
}

#[tokio::test(start_paused = true)]
async fn only_so_many_sidecars_are_mapped_and_the_others_are_as_good() {
    let disk = FaultDisk::over_mem(&MemDisk::new(1));
    let few = |options: &mut DirOptions| options.mapped_sidecars_max = 3;
    let process = Process::start_with(Arc::new(disk.clone()), few).unwrap();
    let log = process.create(0, small(None)).await;
    for n in 0..100 {
        produce(&log, batch(vec![n; 112], 1)).await.unwrap();
    }
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert_eq!(all(&log).await.len(), 100);
        assert!(process.dir.stats().mapped_sidecars.get() <= 3, "of 19");
        disk.start_trace();
        for from in (0..100).rev() {
            assert_eq!(read(&log, from).await.frames().next().unwrap().header.base_offset, from);
        }
        let maps = disk.take_trace().iter().filter(|event| event.op == Op::Map).count();
        assert!(maps >= 16, "what is let go of is mapped again when it is used, and was not kept: {maps}");
    }
    assert!(process.dir.stats().mapped_sidecars.get() <= 3);
}
