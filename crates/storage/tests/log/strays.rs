//! Partitions that the metadata names no more: kept for a while, and how they come back (correctness rule 14).

use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;
use weir_io::{Access, Disk, Effect, Fault, FaultDisk, MemDisk, Op, Rule};
use weir_runtime::testing::{PATIENCE, TestOs};
use weir_storage::{Control, Error, LogConfig};
use weir_types::Durability;

use crate::support::*;

const HOUR: Duration = Duration::from_secs(3600);

fn folders(disk: &MemDisk) -> Vec<String> {
    let entries = disk.list(Path::new(DIR)).unwrap();
    entries.into_iter().filter(|entry| entry.is_dir).map(|entry| entry.name).collect()
}

/// Both clocks go on.
async fn pass(process: &Process, time: Duration) {
    let step = Duration::from_secs(30);
    for _ in 0..time.as_secs() / step.as_secs() {
        tokio::time::sleep(step).await;
        process.os.advance_wall_ms(30_000);
    }
    // The deleter takes its time.
    tokio::time::sleep(Duration::from_secs(1)).await;
}

#[tokio::test(start_paused = true)]
async fn what_was_set_aside_is_kept_a_day_and_comes_back_under_its_old_name() {
    let disk = MemDisk::new(1);
    let process = Process::start(Arc::new(disk.clone()));
    let log = process.create(0, LogConfig::default()).await;
    let name = folders(&disk).remove(0);
    for _ in 0..2 {
        produce(&log, batch(vec![7; 100], 1)).await.unwrap();
    }
    log.control(Control::SetLogStart { offset: 1 }).await.unwrap();
    assert!(process.dir.set_aside(vec![id(0)]).await.unwrap().is_empty());
    assert!(log.is_closed() && process.dir.partition(id(0)).is_none());
    assert_eq!(process.dir.stats().strays.get(), 1);
    let again = process.create(0, LogConfig::default()).await;
    assert_eq!(again.ends().log_end, 0, "its name is free");
    assert!(process.dir.set_aside(vec![id(0)]).await.unwrap().is_empty());
    pass(&process, 23 * HOUR).await;
    assert_eq!(process.dir.stats().strays.get(), 2);

    // Durable, also when the power goes.
    let disk = disk.crash(3);
    let kept = folders(&disk);
    assert_eq!(kept.len(), 2, "{kept:?}");
    let stray = kept.into_iter().find(|folder| folder.starts_with(&name)).unwrap();
    let path = |name: &str| PathBuf::from(DIR).join(name);
    disk.rename(&path(&stray), &path(&name)).unwrap();
    let process = Process::start(Arc::new(disk.clone()));
    assert_eq!((process.report.partitions, &process.report.damaged), (1, &vec![]));
    let log = process.lead(0, 2).await;
    assert_eq!((log.ends().log_start, log.ends().log_end), (1, 2), "what was deleted stays so");
    // A restart does not begin the day anew, but the clock is watched for a while first.
    pass(&process, HOUR / 12).await;
    assert_eq!(process.dir.stats().strays.get(), 1);
    process.os.advance_wall_ms(24 * 3_600_000);
    pass(&process, HOUR).await;
    assert_eq!(process.dir.stats().strays.get(), 0);
    assert_eq!(folders(&disk), [name]);
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_jumps_deletes_nothing() {
    let disk = MemDisk::new(1);
    let process = Process::start(Arc::new(disk.clone()));
    process.create(0, LogConfig::default()).await;
    process.dir.set_aside(vec![id(0)]).await.unwrap();
    process.os.advance_wall_ms(50 * 365 * 24 * 3_600_000);
    pass(&process, 2 * HOUR).await;
    assert_eq!(process.dir.stats().strays.get(), 1);
    pass(&process, 23 * HOUR).await;
    assert_eq!(process.dir.stats().strays.get(), 0);
}

#[tokio::test(start_paused = true)]
async fn the_oldest_goes_early_where_space_runs_out() {
    let disk = MemDisk::new(1);
    let process = Process::start(Arc::new(disk.clone()));
    for number in 0..2 {
        process.create(number, LogConfig::default()).await;
        process.dir.set_aside(vec![id(number)]).await.unwrap();
        process.os.advance_wall_ms(1);
    }
    disk.set_capacity(0);
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    disk.set_capacity(1 << 40);
    tokio::time::sleep(Duration::from_secs(60)).await;
    let left = process.dir.stats().strays.get();
    assert!(left < 2, "{left} are left");
    assert!(folders(&disk).iter().all(|folder| !folder.starts_with("flights-0")), "the oldest first");
}

#[tokio::test]
async fn damaged_partitions_are_set_aside_and_one_that_cannot_be_renamed_holds_up_no_other() {
    let disk = MemDisk::new(1);
    let process = Process::start(Arc::new(disk.clone()));
    for number in 0..3 {
        let log = process.create(number, LogConfig::default()).await;
        produce(&log, batch("a", 1)).await.unwrap();
    }
    let disk = disk.kill();
    // A second folder of one partition, with something in it: nobody knows which of them is the log.
    let twice = folders(&disk).into_iter().find(|folder| folder.starts_with("flights-1")).unwrap();
    let (rest, _) = twice.rsplit_once('.').unwrap();
    let other = PathBuf::from(DIR).join(format!("{rest}.{:016x}", 5));
    disk.create_dir(&other).unwrap();
    disk.replace_durably(&other.join("00000000000000000000.log"), b"something").unwrap();
    let faulty = FaultDisk::over_mem(&disk);
    let process = Process::start(Arc::new(faulty.clone()));
    assert_eq!(process.report.damaged.len(), 2);
    let fails = Rule::on([Op::Rename], Effect::Fail(Fault::Io));
    faulty.add(fails.path(|path| path.to_string_lossy().contains("flights-2")));
    let failed = process.dir.set_aside((0..3).map(id).collect()).await.unwrap();
    assert_eq!(failed.iter().map(|(id, _)| id.partition).collect::<Vec<_>>(), [2]);
    assert_eq!(process.dir.stats().strays.get(), 3);
    assert!(process.fatal.lock().is_empty());
}

#[tokio::test]
pub(crate) async fn what_was_acted_upon_is_known_after_a_power_loss() {
    let disk = MemDisk::new(1);
    let process = Process::start(Arc::new(disk.clone()));
    assert_eq!(process.report.metadata_version, 0);
    process.dir.write_metadata_version(17, 5).unwrap();
    process.dir.write_metadata_version(23, u64::MAX).unwrap();
    let report = Process::start(Arc::new(disk.crash(5))).report;
    assert_eq!((report.metadata_version, report.metadata_author), (23, u64::MAX));
}

#[tokio::test]
async fn what_was_durable_when_a_log_was_set_aside_is_not_called_torn_when_it_comes_back() {
    let disk = MemDisk::new(1);
    let process = Process::start(Arc::new(disk.clone()));
    let log = process.create(0, LogConfig::default()).await;
    produce(&log, batch(vec![7; 100], 1)).await.unwrap();
    process.dir.checkpoint().unwrap();
    let name = folders(&disk).remove(0);
    assert!(process.dir.set_aside(vec![id(0)]).await.unwrap().is_empty());
    process.dir.write_broker_epoch(1).unwrap();
    process.dir.close().await.unwrap();
    // Kept over starts, orderly ones too.
    let process = Process::start(Arc::new(disk.clone()));
    process.dir.close().await.unwrap();
    let path = |name: &str| PathBuf::from(DIR).join(name);
    disk.rename(&path(&folders(&disk).remove(0)), &path(&name)).unwrap();
    let segment = disk.open(&path(&name).join("00000000000000000000.log"), Access::Write).unwrap();
    segment.set_len(segment.len().unwrap() - 1).unwrap();
    let process = Process::start(Arc::new(disk));
    assert_eq!((process.report.truncated.len(), process.report.damaged.len()), (0, 1));
}

#[tokio::test]
async fn what_was_written_to_a_log_that_was_set_aside_is_missed_when_it_comes_back() {
    let disk = MemDisk::new(1);
    let process = Process::start(Arc::new(disk.clone()));
    let log =
        process.create(0, LogConfig { durability: Durability::Replicated, ..LogConfig::default() }).await;
    produce(&log, batch("a", 1)).await.unwrap();
    process.dir.checkpoint().unwrap();
    assert_eq!(log.ends().flushed_end, 0);
    let name = folders(&disk).remove(0);
    assert!(process.dir.set_aside(vec![id(0)]).await.unwrap().is_empty());
    // A start and its checkpoint, while it is away.
    let disk = disk.kill();
    let _process = Process::start(Arc::new(disk.clone()));
    let disk = disk.kill();
    let path = |name: &str| PathBuf::from(DIR).join(name);
    disk.rename(&path(&folders(&disk).remove(0)), &path(&name)).unwrap();
    disk.unlink(&path(&name).join("00000000000000000000.log")).unwrap();
    let process = Process::start(Arc::new(disk));
    assert_eq!(process.report.damaged.len(), 1, "as of any log whose files are gone");
    let what = &process.report.damaged[0].what;
    assert!(what.contains("its segments are missing"), "{what}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_that_was_to_move_stays_where_it_is_once_the_log_was_set_aside() {
    let mem = MemDisk::new(1);
    let disk = FaultDisk::over_mem(&mem);
    let process = Process::start_on(TestOs::threads(Arc::new(disk.clone())).unwrap(), |_| {}).unwrap();
    let (log, other) =
        (process.create(0, LogConfig::default()).await, process.create(1, LogConfig::default()).await);
    for log in [&log, &other] {
        for _ in 0..3 {
            produce(log, batch("a", 1)).await.unwrap();
        }
    }
    process.dir.checkpoint().unwrap();
    // The keeper seals a segment of the other one, which takes its time.
    let seals = Held::new(&disk, Op::Write, &other.describe().path);
    other.control(Control::Roll).await.unwrap();
    seals.has_somebody().await;
    let mut asked = pin!(log.control(Control::SetLogStart { offset: 2 }));
    tokio::select! {
        biased;
        said = asked.as_mut() => panic!("nobody can have moved it: {said:?}"),
        () = std::future::ready(()) => {}
    }
    let name = log.describe().path;
    assert!(process.dir.set_aside(vec![id(0)]).await.unwrap().is_empty());
    drop(seals);
    let said = timeout(PATIENCE, asked).await.expect("answered");
    assert!(matches!(said, Err(Error::Closed)), "{said:?}");
    let mem = mem.kill();
    let stray = folders(&mem).into_iter().find(|folder| folder.ends_with(".stray")).unwrap();
    mem.rename(&Path::new(DIR).join(stray), &name).unwrap();
    let process = Process::start(Arc::new(mem));
    let ends = process.lead(0, 2).await.ends();
    assert_eq!((ends.log_start, ends.log_end), (0, 3), "whoever asked was told that it was not done");
}

#[tokio::test]
async fn what_comes_behind_the_end_of_a_log_changes_nothing_of_it() {
    let disk = MemDisk::new(1);
    let process = Process::start(Arc::new(disk.clone()));
    let log = process.create(0, LogConfig::default()).await;
    for _ in 0..3 {
        produce(&log, batch("a", 1)).await.unwrap();
    }
    // While the first is at work the others wait, and are then taken together.
    let nothing = || log.control(Control::Truncate { to: 3, below_high_watermark: false, following: None });
    let (first, gone, last) = tokio::join!(nothing(), process.dir.set_aside(vec![id(0)]), nothing());
    assert!(first.is_ok() && gone.unwrap().is_empty());
    assert!(matches!(last, Err(Error::Closed)), "{last:?}");
}

#[tokio::test]
async fn many_are_set_aside_for_one_sync() {
    let disk = FaultDisk::over_mem(&MemDisk::new(1));
    let process = Process::start(Arc::new(disk.clone()));
    let wanted = (0..100).map(|number| (id(number), "flights".to_owned(), LogConfig::default()));
    process.dir.create_partitions(wanted).unwrap();
    // What is new is in it before long: not meanwhile.
    process.dir.checkpoint().unwrap();
    disk.start_trace();
    assert!(process.dir.set_aside((0..100).map(id).collect()).await.unwrap().is_empty());
    let trace = disk.take_trace();
    let count = |op| trace.iter().filter(|event| event.op == op).count();
    assert_eq!((count(Op::Rename), count(Op::SyncDir)), (100, 1));
    assert_eq!((count(Op::SyncData), count(Op::SyncAll), count(Op::SyncFs)), (0, 0, 0));
}
