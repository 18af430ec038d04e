//! Segments that retention has done with: in which order they go, and what goes with them.

use std::sync::Arc;
use std::time::Duration;

use weir_io::{Disk, Effect, Fault, FaultDisk, MemDisk, Op, Rule};
use weir_storage::{Control, LogConfig, Partition};
use weir_types::Durability;

use crate::support::*;

/// A log whose segments begin at 0, 5, 10 and 15.
async fn four_segments(process: &Process) -> Partition {
    let log = process.create(0, LogConfig { segment_bytes: 1000, ..config(Durability::Fsync) }).await;
    for n in 0..17 {
        produce(&log, batch(vec![n; 112], 1)).await.unwrap();
    }
    // The keeper seals.
    tokio::time::sleep(Duration::from_secs(5)).await;
    log
}

fn segments(mem: &MemDisk, log: &Partition) -> Vec<String> {
    let names = mem.list(&log.describe().path).unwrap().into_iter().map(|entry| entry.name);
    names.filter(|name| name.ends_with(".log")).map(|name| name[18..20].to_owned()).collect()
}

#[tokio::test(start_paused = true)]
async fn a_segment_that_cannot_be_deleted_in_its_turn_leaves_no_hole() {
    for (op, fault) in [(Op::Open, Fault::TooManyFiles), (Op::Open, Fault::Io), (Op::Unlink, Fault::Io)] {
        let mem = MemDisk::new(1);
        let disk = FaultDisk::over_mem(&mem);
        let process = Process::start(Arc::new(disk.clone()));
        let log = four_segments(&process).await;
        let name = "00000000000000000005.log";
        let rule = disk.add(Rule::on([op], Effect::Fail(fault)).ends_with(name));
        log.control(Control::SetLogStart { offset: 15 }).await.unwrap();
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert!(disk.fired(rule) > 0);
        assert_eq!((log.ends().log_start, all(&log).await.len()), (15, 2));
        let left = segments(&mem, &log);
        assert_eq!(left, if op == Op::Unlink { vec!["05", "10", "15"] } else { vec!["15"] }, "{op:?}");
        let process = Process::start(Arc::new(mem.kill()));
        assert_eq!(process.report.damaged, [], "{fault:?}");
        assert_eq!(all(&process.lead(0, 2).await).await.len(), 2);
    }
}

#[tokio::test(start_paused = true)]
async fn a_segment_that_cannot_be_deleted_keeps_its_turn_and_holds_up_no_other_log() {
    let mem = MemDisk::new(1);
    let disk = FaultDisk::over_mem(&mem);
    let process = Process::start(Arc::new(disk.clone()));
    let log = four_segments(&process).await;
    let other = process.create(1, LogConfig { segment_bytes: 1000, ..config(Durability::Fsync) }).await;
    for n in 0..7 {
        produce(&other, batch(vec![n; 112], 1)).await.unwrap();
    }
    let first = log.describe().path.join("00000000000000000000.log");
    let rule = disk.add(Rule::on([Op::Unlink], Effect::Fail(Fault::Io)).path(move |path| path == first));
    log.control(Control::SetLogStart { offset: 15 }).await.unwrap();
    other.control(Control::SetLogStart { offset: 6 }).await.unwrap();
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!((segments(&mem, &log).len(), segments(&mem, &other).len()), (4, 1));
    disk.remove(rule);
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(segments(&mem, &log), ["15"]);
}

#[tokio::test(start_paused = true)]
async fn a_hole_in_front_of_where_a_log_begins_is_no_damage() {
    let mem = MemDisk::new(1);
    let disk = FaultDisk::over_mem(&mem);
    let process = Process::start(Arc::new(disk.clone()));
    let log = four_segments(&process).await;
    disk.add(Rule::on([Op::Unlink], Effect::Fail(Fault::Io)).ends_with(".log"));
    log.control(Control::SetLogStart { offset: 15 }).await.unwrap();
    let folder = log.describe().path;
    let mem = mem.kill();
    // As names may have survived, or an earlier version has left them.
    for gone in ["00000000000000000000.log", "00000000000000000010.log"] {
        mem.unlink(&folder.join(gone)).unwrap();
    }
    let process = Process::start(Arc::new(mem));
    assert_eq!(process.report.damaged, []);
    let log = process.lead(0, 2).await;
    assert_eq!((log.ends().log_start, all(&log).await.len()), (15, 2));
}

#[tokio::test(start_paused = true)]
async fn what_is_written_beside_a_segment_goes_with_it() {
    let mem = MemDisk::new(1);
    let process = Process::start_with(Arc::new(mem.clone()), |options| {
        options.note_every_bytes = 1_000;
        options.checkpoint_interval = Duration::from_secs(1);
        options.retention_interval = Duration::from_secs(5);
    })
    .unwrap();
    let log = process
        .create(
            0,
            LogConfig { segment_bytes: 4_000, retention_bytes: Some(8_000), ..config(Durability::Fsync) },
        )
        .await;
    for _ in 0..60 {
        for _ in 0..10 {
            produce(&log, batch(vec![1; 112], 1)).await.unwrap();
        }
        tokio::time::sleep(Duration::from_secs(3)).await;
    }
    tokio::time::sleep(Duration::from_secs(60)).await;
    let folder = log.describe().path;
    let names = |mem: &MemDisk| -> Vec<String> {
        mem.list(&folder).unwrap().into_iter().map(|entry| entry.name).collect()
    };
    let count = |names: &[String], kind: &str| names.iter().filter(|name| name.ends_with(kind)).count();
    let now = names(&mem);
    let (logs, tails) = (count(&now, ".log"), count(&now, ".tail"));
    assert!(tails <= logs, "{logs} segments are left, and {tails} .tail files");
    // A restart does not take them away either.
    process.dir.close().await.unwrap();
    let mem = mem.kill();
    let _process = Process::start(Arc::new(mem.clone()));
    let now = names(&mem);
    assert!(count(&now, ".tail") <= count(&now, ".log"), "{now:?}");
}

#[tokio::test(start_paused = true)]
async fn a_log_without_records_takes_no_space() {
    let mem = MemDisk::new(1);
    let process = Process::start(Arc::new(mem.clone()));
    let log = process.create(0, config(Durability::Fsync)).await;
    fill_by(&log, 1, 3).await;
    log.control(Control::SetLogStart { offset: 2 }).await.unwrap();
    tokio::time::sleep(Duration::from_secs(100)).await;
    assert_eq!(segments(&mem, &log), ["00"], "of a segment that holds a record nothing goes");
    log.control(Control::SetLogStart { offset: 3 }).await.unwrap();
    tokio::time::sleep(Duration::from_secs(100)).await;
    assert_eq!(segments(&mem, &log), ["03"]);
    for process in [process, Process::start(Arc::new(mem.kill()))] {
        let log = process.lead(0, 2).await;
        assert_eq!((log.ends().log_start, log.ends().log_end), (3, 3));
        assert!(produce(&log, by(1, 0, 2, batch(vec![2; 112], 1))).await.unwrap().duplicate);
    }
}
