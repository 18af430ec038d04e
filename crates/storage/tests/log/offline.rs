//! What a start cannot do now is no damage: nothing is known to be lost, and it is tried again.

use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::Mutex;
use weir_io::{Access, Disk, Effect, Fault, FaultDisk, MemDisk, Op, Rule};
use weir_storage::{Acks, Control, Error, LogConfig, Mutant};
use weir_types::Durability;

use crate::support::*;

/// A disk with two partitions of ten frames each, left by a kill, and the segment of the first.
async fn two_logs() -> (MemDisk, PathBuf) {
    let mem = MemDisk::new(1);
    let process = Process::start(Arc::new(mem.clone()));
    let mut path = PathBuf::new();
    for partition in [1, 0] {
        let log = process.create(partition, config(Durability::Fsync)).await;
        for n in 0..10 {
            produce(&log, by(5, 0, n, batch(vec![n as u8; 100], 1))).await.unwrap();
        }
        path = log.describe().path.join("00000000000000000000.log");
    }
    process.dir.checkpoint().unwrap();
    (mem.kill(), path)
}

#[tokio::test]
async fn a_start_on_a_full_disk_or_without_descriptors_for_sidecars_is_none_the_worse() {
    for fault in [Fault::NoSpace, Fault::TooManyFiles] {
        let mem = MemDisk::new(1);
        let disk = FaultDisk::over_mem(&mem);
        // It is killed before it has sealed anything.
        disk.add(Rule::on([Op::Write], Effect::Fail(Fault::NoSpace)).ends_with(".seal.tmp"));
        let process = Process::start(Arc::new(disk.clone()));
        let small = LogConfig { segment_bytes: 1000, ..config(Durability::Fsync) };
        let log = process.create(0, small).await;
        for n in 0..8 {
            produce(&log, batch(vec![n; 112], 1)).await.unwrap();
        }
        process.dir.checkpoint().unwrap();
        let disk = FaultDisk::over_mem(&mem.kill());
        disk.add(Rule::on([Op::Write, Op::Create], Effect::Fail(fault)).ends_with(".seal.tmp"));
        let process = Process::start(Arc::new(disk));
        assert_eq!((&process.report.damaged, &process.report.offline), (&vec![], &vec![]), "{fault:?}");
        assert_eq!(all(&process.lead(0, 2).await).await.len(), 8, "{fault:?}");
    }
}

#[tokio::test]
async fn what_cannot_be_read_now_is_offline_until_it_can() {
    for (op, fault) in [(Op::Read, Fault::Io), (Op::Open, Fault::TooManyFiles), (Op::Len, Fault::Io)] {
        let (mem, path) = two_logs().await;
        let disk = FaultDisk::over_mem(&mem);
        let of_one = path.clone();
        let rule = disk.add(Rule::on([op], Effect::Fail(fault)).path(move |path| path == of_one));
        let process = Process::start(Arc::new(disk.clone()));
        let report = &process.report;
        assert_eq!((report.damaged.len(), report.offline.len(), report.partitions), (0, 1, 1), "{op:?}");
        assert!(report.offline[0].what.contains(".log") && !report.offline[0].what.contains("damaged"));
        assert!(matches!(
            process.dir.create_partition(id(0), "flights", LogConfig::default()),
            Err(Error::Exists(_))
        ));
        assert!(matches!(process.dir.reopen(id(0)), Err(Error::Io { .. })));
        assert!(process.dir.reopen(id(3)).unwrap().is_none());
        // Meanwhile checkpoints are written.
        produce(&process.lead(1, 2).await, batch("next", 1)).await.unwrap();
        process.dir.checkpoint().unwrap();
        disk.remove(rule);
        let log = process.dir.reopen(id(0)).unwrap().expect("it is there");
        assert_eq!((process.dir.unusable().len(), log.ends().high_watermark), (0, 10), "{op:?}");
        lead(&log, 2).await;
        assert!(produce(&log, by(5, 0, 9, batch(vec![9; 100], 1))).await.unwrap().duplicate);
        produce(&log, batch("next", 1)).await.unwrap();
        assert!(process.fatal.lock().is_empty());
        // It is like any other from then on.
        process.dir.close().await.unwrap();
        let process = Process::start(Arc::new(mem.kill()));
        assert!(process.report.clean && process.report.offline.is_empty());
        assert_eq!(all(&process.lead(0, 3).await).await.len(), 11);
    }
}

#[tokio::test]
async fn damage_that_comes_to_light_later_is_damage() {
    let (mem, path) = two_logs().await;
    let disk = FaultDisk::over_mem(&mem);
    let rule = disk.add(Rule::on([Op::Read], Effect::Fail(Fault::Io)).path({
        let path = path.clone();
        move |read| read == path
    }));
    let process = Process::start(Arc::new(disk.clone()));
    assert_eq!((process.report.damaged.len(), process.report.offline.len()), (0, 1));
    disk.remove(rule);
    let file = mem.open(&path, Access::Write).unwrap();
    file.set_len(file.len().unwrap() - 1).unwrap();
    assert!(matches!(process.dir.reopen(id(0)), Err(Error::Damaged { .. })));
    let unusable = process.dir.unusable();
    assert!(unusable.len() == 1 && unusable[0].is_damaged, "{unusable:?}");
    // It is not tried again, and what was known of it stays known.
    assert!(process.dir.reopen(id(0)).unwrap().is_none());
    process.dir.checkpoint().unwrap();
    let process = Process::start(Arc::new(mem.kill()));
    assert!(process.report.damaged[0].what.contains("durable up to offset 10"), "{:?}", process.report);
}

#[tokio::test]
async fn a_sync_that_fails_at_the_start_ends_the_process_and_damages_nothing() {
    for (op, ending) in [(Op::SyncData, ".log"), (Op::SyncDir, "")] {
        let (mem, path) = two_logs().await;
        let disk = FaultDisk::over_mem(&mem);
        let folder = path.parent().unwrap().to_owned();
        let in_folder = move |path: &std::path::Path| {
            path.starts_with(&folder) && path.to_string_lossy().ends_with(ending)
        };
        disk.add(Rule::on([op], Effect::Fail(Fault::Io)).path(in_folder));
        let fatal = Arc::new(Mutex::new(Vec::new()));
        let note = Arc::clone(&fatal);
        let started = Process::start_with(Arc::new(disk), |options| {
            options.on_fatal = Arc::new(move |fatal| note.lock().push(fatal.what));
        });
        assert!(matches!(started, Err(Error::Failed)), "{op:?}");
        assert_eq!(fatal.lock().len(), 1, "{op:?}");
        let process = Process::start(Arc::new(mem.kill()));
        assert_eq!(process.report.damaged, [], "{op:?}");
        assert_eq!(all(&process.lead(0, 2).await).await.len(), 10, "{op:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_acknowledged_after_a_reopened_cut_stays() {
    acknowledged_after_a_reopened_cut(None).await;
}

/// A cut that a crash has interrupted is done once: what comes after it stays.
pub(crate) async fn acknowledged_after_a_reopened_cut(bug: Option<Mutant>) {
    let mut reopened = 0;
    for changes in 0..40 {
        let mem = MemDisk::new(1);
        let disk = FaultDisk::over_mem(&mem);
        let process = Process::start(Arc::new(disk.clone()));
        let log = process.create(0, config(Durability::Fsync)).await;
        log.control(Control::SetAdmission(Box::new(Leader { epoch: 1, holds_at: Some(3) }))).await.unwrap();
        for _ in 0..6 {
            let (append, answer) = append(batch(vec![1; 112], 1), Acks::Leader);
            log.submit(vec![append]);
            answer.await.unwrap().unwrap();
        }
        disk.die_after(changes);
        let _ = log.control(Control::Truncate { to: 4, below_high_watermark: false, following: None }).await;
        // The next process has no descriptor for the log at first.
        let mem = mem.kill();
        let disk = FaultDisk::over_mem(&mem);
        disk.add(Rule::on([Op::Open], Effect::Fail(Fault::TooManyFiles)).ends_with(".log").times(2));
        let process = Process::planted(Arc::new(disk), bug);
        assert_eq!(process.report.damaged, []);
        if process.report.offline.is_empty() {
            continue;
        }
        reopened += 1;
        let log = process.dir.reopen(id(0)).unwrap().expect("it is here");
        lead(&log, 2).await;
        let acknowledged = produce(&log, batch(vec![2; 112], 1)).await.unwrap();
        assert!(acknowledged.committed && acknowledged.flushed);
        let process = Process::start(Arc::new(mem.kill()));
        assert_eq!(process.report.damaged, []);
        let there = all(&process.lead(0, 3).await).await;
        assert!(
            there.iter().any(|frame| frame.payload[..] == [2; 112]),
            "died after {changes} changes: offset {} was acknowledged and is gone",
            acknowledged.base_offset
        );
    }
    assert!(reopened > 0);
}

#[tokio::test]
async fn a_log_that_the_checkpoint_has_no_room_for_stays_offline() {
    let (mem, path) = two_logs().await;
    let disk = FaultDisk::over_mem(&mem);
    disk.add(Rule::on([Op::Open], Effect::Fail(Fault::TooManyFiles)).path(move |p| p == path).times(2));
    let process = Process::start(Arc::new(disk.clone()));
    assert_eq!(process.report.offline.len(), 1);
    // Something is new, so that it is written.
    produce(&process.lead(1, 2).await, batch("a", 1)).await.unwrap();
    let full = disk.add(Rule::on([Op::Write], Effect::Fail(Fault::NoSpace)).ends_with("checkpoint.tmp"));
    assert!(matches!(process.dir.reopen(id(0)), Err(Error::Io { .. })));
    assert!(process.dir.partition(id(0)).is_none());
    assert_eq!(process.dir.unusable().len(), 1);
    disk.remove(full);
    process.dir.reopen(id(0)).unwrap().expect("it is there");
    assert_eq!(all(&process.lead(0, 2).await).await.len(), 10);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_opens_a_log_twice_at_once_gets_one() {
    for _ in 0..20 {
        let (mem, path) = two_logs().await;
        let disk = FaultDisk::over_mem(&mem);
        let of = path.clone();
        disk.add(Rule::on([Op::Open], Effect::Fail(Fault::TooManyFiles)).path(move |p| p == of).times(2));
        let process = Process::start(Arc::new(disk.clone()));
        assert_eq!(process.report.offline.len(), 1);
        // Both are on their way before either of them has got far.
        let both = std::sync::Barrier::new(2);
        let opens = || {
            both.wait();
            process.dir.reopen(id(0)).unwrap().expect("it is there")
        };
        let (one, other) = std::thread::scope(|threads| {
            let one = threads.spawn(opens);
            (opens(), one.join().unwrap())
        });
        // The same log: who leads it through one appends through the other.
        lead(&one, 2).await;
        produce(&other, batch("a", 1)).await.unwrap();
        assert_eq!((one.ends().log_end, other.ends().log_end), (11, 11));
    }
}
