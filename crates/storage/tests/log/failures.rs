//! Disks that fail: what must stop, and what must go on.

use std::path::Path;
use std::sync::Arc;

use weir_io::{Disk, Effect, Fault, FaultDisk, MemDisk, Op, Rule, Survival};
use weir_runtime::testing::{START_WALL_MS, until};
use weir_storage::{AppendError, Control, LogConfig};
use weir_types::Durability;

use crate::support::*;

#[tokio::test]
async fn a_failed_sync_acknowledges_nothing_and_ends_the_process() {
    let disk = FaultDisk::over_mem(&MemDisk::new(1));
    let process = Process::start(Arc::new(disk.clone()));
    let log = process.create(0, config(Durability::Fsync)).await;
    produce(&log, batch("a", 1)).await.unwrap();
    disk.add(Rule::on([Op::SyncData], Effect::LoseDirty).ends_with(".log").once());
    let (one, mut answer) = append(batch("b", 1), weir_storage::Acks::All);
    log.submit(vec![one]);
    until("the process is to end", async || !process.fatal.lock().is_empty()).await;
    assert!(answer.try_recv().is_err(), "nobody knows whether it is there");
    assert_eq!(process.fatal.lock().len(), 1);
    assert_eq!(produce(&log, batch("c", 1)).await, Err(AppendError::Closed));
    assert_eq!(answer.await.unwrap(), Err(AppendError::Indeterminate));
    assert!(process.dir.close().await.is_err());
}

#[tokio::test]
async fn a_short_append_is_cut_back_and_refused_and_the_log_goes_on() {
    let mem = MemDisk::new(1);
    let disk = FaultDisk::over_mem(&mem);
    let process = Process::start(Arc::new(disk.clone()));
    let log = process.create(0, config(Durability::Fsync)).await;
    produce(&log, by(1, 0, 0, batch("a", 1))).await.unwrap();
    let rule = disk.add(Rule::on([Op::Write], Effect::Torn(50, Fault::NoSpace)).ends_with(".log"));
    for _ in 0..3 {
        let refused = produce(&log, by(1, 0, 1, batch("b", 1))).await;
        assert!(matches!(refused, Err(AppendError::DiskFull { .. })), "{refused:?}");
    }
    disk.remove(rule);
    // The sequence was never used.
    let receipt = produce(&log, by(1, 0, 1, batch("b", 1))).await.unwrap();
    assert_eq!((receipt.base_offset, receipt.duplicate), (1, false));
    assert_eq!(all(&log).await.len(), 2);
    assert!(process.fatal.lock().is_empty());
    let process = Process::start(Arc::new(mem.kill()));
    assert_eq!((process.report.damaged.len(), process.report.truncated.len()), (0, 0));
    assert!(process.report.failures.is_empty(), "a full disk is not one that fails");
    assert_eq!(all(&process.lead(0, 2).await).await.len(), 2);
}

#[tokio::test]
async fn the_time_of_a_group_that_was_never_written_does_not_stay() {
    let disk = FaultDisk::over_mem(&MemDisk::new(1));
    let process = Process::start(Arc::new(disk.clone()));
    let log = process.create(0, config(Durability::Fsync)).await;
    produce(&log, batch("a", 1)).await.unwrap();
    // Less than what is called a jump: times in a log do not go back by so little.
    process.os.advance_wall_ms(10_000);
    let rule = disk.add(Rule::on([Op::Write], Effect::Torn(50, Fault::NoSpace)).ends_with(".log"));
    produce(&log, batch("b", 1)).await.unwrap_err();
    disk.remove(rule);
    process.os.advance_wall_ms(-9_000);
    let appended = produce(&log, batch("c", 1)).await.unwrap();
    assert_eq!((appended.base_offset, appended.append_time_ms), (1, START_WALL_MS + 1_000));
}

#[tokio::test]
async fn below_the_reserve_appends_are_refused_and_resume_by_themselves() {
    let mem = MemDisk::new(1);
    let os = weir_runtime::testing::TestOs::new(Arc::new(mem.clone()));
    tokio::time::pause();
    let process = Process::start_on(os, |options| options.disk_reserved_bytes = 1 << 20).unwrap();
    let log = process.create(0, LogConfig::default()).await;
    produce(&log, batch("a", 1)).await.unwrap();
    mem.set_capacity(1 << 20);
    tokio::time::sleep(std::time::Duration::from_secs(2)).await;
    let refused = produce(&log, batch("b", 1)).await;
    assert!(matches!(refused, Err(AppendError::DiskFull { reserved_bytes: 1_048_576, .. })), "{refused:?}");
    assert_eq!(all(&log).await.len(), 1);
    mem.set_capacity(1 << 30);
    tokio::time::sleep(std::time::Duration::from_secs(2)).await;
    produce(&log, batch("b", 1)).await.unwrap();
    process.os.advance_wall_ms(1);
}

#[tokio::test]
async fn a_start_that_dies_while_it_begins_a_lost_log_anew_is_taken_up_by_the_next() {
    for changes in 0.. {
        let mem = MemDisk::new(1);
        let process = Process::start(Arc::new(mem.clone()));
        let log = process.create(0, config(Durability::Replicated)).await;
        for _ in 0..2 {
            produce(&log, batch("a", 1)).await.unwrap();
        }
        log.control(Control::SetLogStart { offset: 1 }).await.unwrap();
        // The start is durable, and nothing behind it.
        let mem = mem.power_loss(Survival::Nothing);
        let disk = FaultDisk::over_mem(&mem);
        disk.die_after(changes);
        let started = Process::start_with(Arc::new(disk.clone()), |_| {}).is_ok() && !disk.is_dead();
        let process = Process::start(Arc::new(mem.kill()));
        assert_eq!(process.report.damaged, [], "after {changes}");
        let log = process.lead(0, 2).await;
        assert_eq!((log.ends().log_start, log.ends().log_end), (1, 1), "after {changes}");
        assert_eq!(produce(&log, batch("b", 1)).await.unwrap().base_offset, 1);
        if started {
            assert!(changes > 3, "{changes}");
            break;
        }
    }
}

#[tokio::test]
async fn a_failed_sync_of_a_folder_ends_the_process() {
    // A folder made, the directory that holds it, many at once; a folder taken away.
    for (count, op, in_log) in [(1, Op::SyncDir, true), (1, Op::SyncDir, false), (9, Op::SyncFs, false)] {
        let disk = FaultDisk::over_mem(&MemDisk::new(1));
        let process = Process::start(Arc::new(disk.clone()));
        let fails = Rule::on([op], Effect::Fail(Fault::Io));
        let rule = disk.add(fails.path(move |path| (path != Path::new(DIR)) == in_log));
        let wanted = || (0..count).map(|number| (id(number), "flights".to_owned(), LogConfig::default()));
        assert!(process.dir.create_partitions(wanted()).is_err());
        assert_eq!(disk.fired(rule), 1, "{op:?}: the second sync would succeed and say nothing");
        disk.remove(rule);
        assert_eq!(process.fatal.lock().len(), 1, "{op:?}");
        assert!(process.dir.create_partitions(wanted()).is_err());
    }
    let disk = FaultDisk::over_mem(&MemDisk::new(1));
    let process = Process::start(Arc::new(disk.clone()));
    process.create(0, LogConfig::default()).await;
    disk.add(Rule::on([Op::SyncDir], Effect::Fail(Fault::Io)).path(|path| path == Path::new(DIR)));
    assert!(process.dir.set_aside(vec![id(0)]).await.is_err());
    assert_eq!(process.fatal.lock().len(), 1);
}

#[tokio::test]
async fn a_failed_sync_of_a_sidecar_ends_the_process() {
    let disk = FaultDisk::over_mem(&MemDisk::new(1));
    let process = Process::start(Arc::new(disk.clone()));
    let log = process.create(0, config(Durability::Fsync)).await;
    produce(&log, batch("a", 1)).await.unwrap();
    disk.add(Rule::on([Op::SyncAll], Effect::Fail(Fault::Io)).ends_with(".seal.tmp"));
    log.control(Control::Roll).await.unwrap();
    // The keeper seals it; at the latest it is sealed before it is deleted.
    let _ = log.control(Control::SetLogStart { offset: 1 }).await;
    assert_eq!(process.fatal.lock().len(), 1);
}

#[tokio::test]
async fn a_failure_has_a_number_until_a_registration_gets_over_it() {
    let mem = MemDisk::new(1);
    let disk = FaultDisk::over_mem(&mem);
    let process = Process::start(Arc::new(disk.clone()));
    process.dir.write_broker_epoch(7).unwrap();
    let log = process.create(0, config(Durability::Fsync)).await;
    // Once, and everything that was written stays where it reads well.
    disk.add(Rule::on([Op::SyncData], Effect::Fail(Fault::Io)).ends_with(".log").once());
    let (one, _answer) = append(batch("a", 1), weir_storage::Acks::All);
    log.submit(vec![one]);
    until("the process is to end", async || !process.fatal.lock().is_empty()).await;
    let number = process.fatal.lock()[0].failure.unwrap();
    assert!(number > 0, "{number}");
    let mut disk = mem.kill();
    for start in 1..4 {
        let process = Process::start(Arc::new(disk.clone()));
        assert_eq!(
            (&*process.report.failures, process.report.same_boot),
            (&[number][..], false),
            "start {start}"
        );
        disk = disk.kill();
    }
    assert!(disk.exists(&Path::new(DIR).join("failed")).unwrap(), "an earlier version would look for it");
    // What else has failed before that is another failure, and is told beside the first one. It is no matter how far the disk
    // took what was to be written.
    let failing = FaultDisk::over_mem(&disk);
    failing.add(Rule::on([Op::Write], Effect::Fail(Fault::Io)).path(is_broker_epoch).once());
    let process = Process::start(Arc::new(failing));
    assert!(process.dir.write_broker_epoch(8).is_err());
    let next = process.fatal.lock()[0].failure.unwrap();
    assert_ne!(next, number);
    let both = [number.min(next), number.max(next)];
    let disk = disk.kill();
    let process = Process::start(Arc::new(disk.clone()));
    assert_eq!(process.report.failures, both);
    process.dir.write_broker_epoch(8).unwrap();
    process.dir.close().await.unwrap();
    assert!(Process::start(Arc::new(disk.kill())).report.failures.is_empty());
}

fn is_broker_epoch(path: &Path) -> bool {
    path.to_string_lossy().contains("broker-epoch")
}

/// Whoever starts it again and again has been told enough.
#[tokio::test]
async fn failures_of_starts_that_get_nowhere_do_not_pile_up() {
    let mut disk = MemDisk::new(1);
    Process::start(Arc::new(disk.clone())).dir.write_broker_epoch(7).unwrap();
    let mut noted = 0;
    for start in 0..20 {
        disk = disk.kill();
        let failing = FaultDisk::over_mem(&disk);
        failing.add(Rule::on([Op::Write], Effect::Fail(Fault::Io)).path(is_broker_epoch));
        let process = Process::start(Arc::new(failing));
        assert!(process.dir.write_broker_epoch(8).is_err());
        noted = process.report.failures.len();
        assert_eq!(noted, start.min(16), "start {start}");
    }
    assert_eq!(noted, 16);
    let disk = disk.kill();
    Process::start(Arc::new(disk.clone())).dir.write_broker_epoch(8).unwrap();
    let left =
        disk.list(Path::new(DIR)).unwrap().into_iter().filter(|entry| entry.name.starts_with("failed"));
    assert_eq!(left.count(), 0);
}
