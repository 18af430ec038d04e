//! No descriptor left: nothing is wrong with the disk, so nothing ends, and what is refused may be sent again.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use weir_io::{Effect, Fault, FaultDisk, MemDisk, Op, Rule, Survival};
use weir_storage::{Acks, AppendError, Control, LogConfig};
use weir_types::Durability;

use crate::support::*;

fn none_left(op: Op, ending: &str) -> Rule {
    Rule::on([op], Effect::Fail(Fault::TooManyFiles)).ends_with(ending)
}

#[tokio::test]
async fn idle_files_are_closed_first_and_then_an_append_is_refused() {
    let disk = FaultDisk::over_mem(&MemDisk::new(1));
    let process = Process::start_with(Arc::new(disk.clone()), |options| options.open_files_max = 1).unwrap();
    let one = process.create(0, LogConfig::default()).await;
    let other = process.create(1, LogConfig::default()).await;
    produce(&one, batch("a", 1)).await.unwrap();
    produce(&other, batch("a", 1)).await.unwrap();
    // Once: those that are idle are closed, and it is tried again.
    let rule = disk.add(none_left(Op::Open, ".log").once());
    produce(&one, batch("b", 1)).await.unwrap();
    assert_eq!(disk.fired(rule), 1);
    produce(&other, batch("b", 1)).await.unwrap();
    // Always.
    let rule = disk.add(none_left(Op::Open, ".log"));
    let refused = produce(&one, by(5, 0, 0, batch("c", 1))).await;
    assert!(matches!(refused, Err(AppendError::NoHandles)), "{refused:?}");
    assert!(process.fatal.lock().is_empty());
    disk.remove(rule);
    assert_eq!(produce(&one, by(5, 0, 0, batch("c", 1))).await.unwrap().base_offset, 2);
    assert_eq!(all(&one).await.len(), 3);
}

#[tokio::test]
async fn a_segment_that_cannot_be_created_now_is_created_later() {
    let disk = FaultDisk::over_mem(&MemDisk::new(1));
    let process = Process::start(Arc::new(disk.clone()));
    let small = LogConfig { segment_bytes: 200, ..config(Durability::Fsync) };
    let log = process.create(0, small).await;
    produce(&log, batch(vec![0; 100], 1)).await.unwrap();
    let rule = disk.add(none_left(Op::Create, ".log"));
    let refused = produce(&log, batch(vec![1; 100], 1)).await;
    assert!(matches!(refused, Err(AppendError::NoHandles)), "{refused:?}");
    disk.remove(rule);
    produce(&log, batch(vec![1; 100], 1)).await.unwrap();
    assert!(process.fatal.lock().is_empty());
    assert_eq!((log.describe().segments, all(&log).await.len()), (2, 2));
}

#[tokio::test]
async fn a_checkpoint_and_a_cut_wait_for_descriptors_too() {
    for ending in ["checkpoint.tmp", ".log", ".log.tmp"] {
        let mem = MemDisk::new(1);
        let disk = FaultDisk::over_mem(&mem);
        let process = Process::start(Arc::new(disk.clone()));
        let log = process.create(0, LogConfig::default()).await;
        let held = Leader { epoch: 1, holds_at: Some(1) };
        log.control(Control::SetAdmission(Box::new(held))).await.unwrap();
        for n in 0..4 {
            let (one, answer) = append(batch("a", 1), Acks::Leader);
            log.submit(vec![one]);
            answer.await.unwrap().unwrap();
            if n == 2 {
                log.control(Control::Roll).await.unwrap();
            }
        }
        let rules = [Op::Open, Op::Create].map(|op| disk.add(none_left(op, ending)));
        // The first one uses the file that was kept for it.
        for _ in 0..2 {
            let _ = log.control(Control::SetLogStart { offset: log.ends().log_start + 1 }).await;
        }
        if ending != "checkpoint.tmp" {
            let cut =
                log.control(Control::Truncate { to: 2, below_high_watermark: false, following: None }).await;
            assert!(cut.is_err() || ending == ".log", "it cannot be copied");
        }
        assert!(process.fatal.lock().is_empty(), "{ending}");
        for rule in rules {
            disk.remove(rule);
        }
        assert_eq!(log.ends().log_start, 1, "{ending}");
        log.control(Control::Truncate { to: 2, below_high_watermark: false, following: None }).await.unwrap();
        lead(&log, 2).await;
        produce(&log, batch("b", 1)).await.unwrap();
        process.dir.close().await.unwrap();
        let process = Process::start(Arc::new(mem.kill()));
        assert_eq!(all(&process.lead(0, 3).await).await.len(), 2, "{ending}");
    }
}

/// No descriptor for this folder.
fn none_for(folder: PathBuf) -> Rule {
    Rule::on([Op::OpenDir], Effect::Fail(Fault::TooManyFiles)).path(move |path| path == folder)
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_synced_now_is_synced_and_acknowledged_later() {
    let mem = MemDisk::new(1);
    let disk = FaultDisk::over_mem(&mem);
    let process = Process::start(Arc::new(disk.clone()));
    let small = LogConfig { segment_bytes: 200, ..config(Durability::Fsync) };
    let log = process.create(0, small).await;
    produce(&log, batch(vec![0; 100], 1)).await.unwrap();
    let rule = disk.add(none_for(log.describe().path));
    // In a new segment, whose name has to become durable.
    let (one, mut answer) = append(batch(vec![1; 100], 1), Acks::All);
    log.submit(vec![one]);
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert!(disk.fired(rule) > 2, "it is tried again");
    assert!(answer.try_recv().is_err(), "its name is not durable");
    assert_eq!((log.ends().flushed_end, process.fatal.lock().len()), (1, 0));
    disk.remove(rule);
    assert_eq!(answer.await.unwrap().unwrap().base_offset, 1);
    let process = Process::start(Arc::new(mem.power_loss(Survival::Nothing)));
    assert_eq!(all(&process.lead(0, 2).await).await.len(), 2);
}

#[tokio::test]
async fn the_directory_itself_is_open_all_the_time() {
    let disk = FaultDisk::over_mem(&MemDisk::new(1));
    let process = Process::start(Arc::new(disk.clone()));
    let logs = [process.create(0, LogConfig::default()).await, process.create(1, LogConfig::default()).await];
    for log in &logs {
        produce(log, batch("a", 1)).await.unwrap();
    }
    let rule = disk.add(none_for(DIR.into()));
    process.dir.checkpoint().unwrap();
    assert!(process.dir.set_aside(vec![id(0)]).await.unwrap().is_empty());
    assert!(process.dir.write_metadata_version(7, 0).is_err(), "nothing was written");
    disk.remove(rule);
    process.dir.write_metadata_version(7, 0).unwrap();
    assert!(process.fatal.lock().is_empty());
}

#[tokio::test]
async fn a_cut_that_could_not_be_made_durable_is_not_begun() {
    let disk = FaultDisk::over_mem(&MemDisk::new(1));
    let process = Process::start(Arc::new(disk.clone()));
    let log = process.create(0, LogConfig::default()).await;
    let held = Leader { epoch: 1, holds_at: Some(0) };
    log.control(Control::SetAdmission(Box::new(held))).await.unwrap();
    for _ in 0..2 {
        let (one, answer) = append(batch("a", 1), Acks::Leader);
        log.submit(vec![one]);
        answer.await.unwrap().unwrap();
    }
    let rule = disk.add(none_for(log.describe().path));
    assert!(
        log.control(Control::Truncate { to: 1, below_high_watermark: false, following: None }).await.is_err()
    );
    assert_eq!((log.ends().log_end, process.fatal.lock().len()), (2, 0));
    disk.remove(rule);
    log.control(Control::Truncate { to: 1, below_high_watermark: false, following: None }).await.unwrap();
    assert_eq!(all(&log).await.len(), 1);
}
