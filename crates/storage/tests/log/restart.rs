//! A start after a kill: what is read, from where, how much at a time, and what it does not wait for.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use weir_io::{Disk, Effect, Event, FaultDisk, MemDisk, Op, Rule, Survival};
use weir_runtime::testing::TestOs;
use weir_storage::{Control, LogConfig, Progress, inspect};
use weir_types::Durability;

use crate::support::*;

/// Nobody waits longer for what never comes.
const GUARD: Duration = Duration::from_secs(10);

/// Calls that can see each other.
#[derive(Default)]
struct Meeting {
    seen: Mutex<Seen>,
    changed: Condvar,
}

#[derive(Default)]
struct Seen {
    inside: usize,
    met: bool,
    /// Nobody else came.
    gave_up: bool,
}

impl Meeting {
    /// Stays until another one is inside, too.
    fn enter(&self) {
        let mut seen = self.seen.lock();
        seen.inside += 1;
        seen.met |= seen.inside > 1;
        self.changed.notify_all();
        while !seen.met && !seen.gave_up {
            seen.gave_up = self.changed.wait_for(&mut seen, GUARD).timed_out();
        }
        seen.inside -= 1;
    }

    fn took_place(&self) -> bool {
        self.seen.lock().met
    }
}

fn of_logs(disk: &FaultDisk, op: Op) -> usize {
    let is_log = |event: &&Event| event.op == op && event.path.to_string_lossy().ends_with(".log");
    disk.take_trace().iter().filter(is_log).count()
}

#[tokio::test]
async fn logs_are_looked_at_side_by_side() {
    let mem = MemDisk::new(1);
    let process = Process::start(Arc::new(mem.clone()));
    for partition in 0..4 {
        fill(&process.create(partition, LogConfig::default()).await, 10).await;
    }
    let disk = FaultDisk::over_mem(&mem.kill());
    let meeting = Arc::new(Meeting::default());
    let hook = Arc::clone(&meeting);
    disk.add(Rule::on([Op::Read], Effect::Hook(Arc::new(move || hook.enter()))).ends_with(".log"));
    let process = Process::start_on(TestOs::threads(Arc::new(disk)).unwrap(), |_| {}).unwrap();
    assert!(meeting.took_place(), "one partition was looked at after another");
    assert_eq!((process.report.partitions, process.report.damaged.len()), (4, 0));
}

#[tokio::test]
async fn how_far_it_has_come_is_told_within_a_log() {
    let mem = MemDisk::new(1);
    let process = Process::start(Arc::new(mem.clone()));
    let log = process.create(0, LogConfig::default()).await;
    for n in 0..10 {
        produce(&log, batch(vec![n; 100_000], 1)).await.unwrap();
    }
    let disk = FaultDisk::over_mem(&mem.kill());
    let progress = Arc::<Progress>::default();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let (look, note) = (Arc::clone(&progress), Arc::clone(&seen));
    let hook = Effect::Hook(Arc::new(move || note.lock().push(look.scanned_bytes.get())));
    disk.add(Rule::on([Op::Read], hook).ends_with(".log"));
    Process::start_with(Arc::new(disk), |options| options.progress = progress).unwrap();
    let seen = seen.lock();
    assert!(seen.windows(2).any(|two| 0 < two[0] && two[0] < two[1]), "{seen:?}");
}

#[tokio::test(start_paused = true)]
async fn a_start_waits_for_the_disk_only_where_its_class_does() {
    for (durability, waits) in [(Durability::Fsync, true), (Durability::Replicated, false)] {
        let mem = MemDisk::new(1);
        let process = Process::start(Arc::new(mem.clone()));
        // Closed segments among them.
        let small = LogConfig { segment_bytes: 1000, ..config(durability) };
        let log = process.create(0, small).await;
        // The checkpoint knows of it before long.
        tokio::time::sleep(Duration::from_secs(2)).await;
        fill(&log, 20).await;
        let frames = all(&log).await;
        let mem = mem.kill();
        let disk = FaultDisk::over_mem(&mem);
        disk.start_trace();
        let process = Process::start(Arc::new(disk.clone()));
        assert_eq!(of_logs(&disk, Op::SyncData) > 0, waits, "{durability}");
        let log = process.lead(0, 2).await;
        let ends = log.ends();
        assert_eq!((ends.flushed_end == 20, ends.high_watermark), (waits, 20), "{durability}");
        assert_eq!(all(&log).await, frames);
        // By and by it is durable, and closed segments get what they are to have beside them.
        tokio::time::sleep(Duration::from_secs(30)).await;
        assert_eq!(log.ends().flushed_end, 20, "{durability}");
        let folder = log.describe().path;
        let names: Vec<_> = mem.list(&folder).unwrap().into_iter().map(|entry| entry.name).collect();
        let count = |kind: &str| names.iter().filter(|name| name.ends_with(kind)).count();
        assert_eq!(count(".seal"), count(".log") - 1, "{names:?}");
        let process = Process::start(Arc::new(mem.power_loss(Survival::Nothing)));
        assert_eq!(process.report.damaged, []);
        assert_eq!(all(&process.lead(0, 3).await).await, frames);
    }
}

#[tokio::test]
async fn a_start_that_was_moved_says_nothing_of_the_disk() {
    let mem = MemDisk::new(1);
    let process = Process::start(Arc::new(mem.clone()));
    let log = process.create(0, config(Durability::Replicated)).await;
    process.dir.checkpoint().unwrap();
    fill(&log, 5).await;
    log.control(Control::SetLogStart { offset: 3 }).await.unwrap();
    let mem = mem.kill();
    let process = Process::start(Arc::new(mem.clone()));
    let log = process.lead(0, 2).await;
    let ends = log.ends();
    assert_eq!((ends.log_start, ends.flushed_end, ends.log_end), (3, 0, 5));
    // What is appended says so, too: nothing before it is ever taken for damaged.
    fill(&log, 1).await;
    let frames = all(&log).await;
    assert_eq!(frames.last().unwrap().header.flushed_end, Some(0));
}

#[tokio::test]
async fn the_page_cache_is_believed_where_nothing_more_was_promised() {
    let (same, other) = (Some("boot-1"), Some("boot-2"));
    for (durability, boot, drops) in [
        (Durability::Replicated, same, false),
        (Durability::Replicated, other, true),
        (Durability::Replicated, Some(""), true),
        // Nobody said when the machine was started.
        (Durability::Replicated, None, true),
        (Durability::Fsync, same, true),
    ] {
        let mem = MemDisk::new(1);
        let process = Process::start(Arc::new(mem.clone()));
        if let Some(boot) = boot {
            process.os.set_boot_id(if boot.is_empty() { "" } else { "boot-1" });
            process.dir.write_broker_epoch(1).unwrap();
        }
        let log = process.create(0, config(durability)).await;
        process.dir.checkpoint().unwrap();
        fill(&log, 10).await;
        let disk = FaultDisk::over_mem(&mem.kill());
        disk.start_trace();
        let os = TestOs::new(Arc::new(disk.clone()));
        os.set_boot_id(boot.unwrap_or("boot-1"));
        let process = Process::start_on(os, |_| {}).unwrap();
        assert_eq!(of_logs(&disk, Op::DropCache) > 0, drops, "{durability}, {boot:?}");
        assert_eq!(process.lead(0, 2).await.ends().log_end, 10);
    }
}

#[tokio::test(start_paused = true)]
async fn after_a_failed_sync_no_cache_is_believed() {
    let mem = MemDisk::new(1);
    let disk = FaultDisk::over_mem(&mem);
    let process = Process::start(Arc::new(disk.clone()));
    process.dir.write_broker_epoch(1).unwrap();
    let log = process.create(0, config(Durability::Replicated)).await;
    process.dir.checkpoint().unwrap();
    fill(&log, 10).await;
    disk.add(Rule::on([Op::SyncData], Effect::LoseDirty).ends_with(".log").once());
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert_eq!(process.fatal.lock().len(), 1);
    let mut mem = mem.kill();
    for (log_end, believed, registers) in [(0, false, false), (0, false, true), (1, true, true)] {
        let disk = FaultDisk::over_mem(&mem);
        disk.start_trace();
        let process = Process::start(Arc::new(disk.clone()));
        let drops = of_logs(&disk, Op::DropCache) > 0;
        assert!(!(drops && believed));
        assert_eq!(process.report.damaged, []);
        assert_eq!(process.report.same_boot, believed, "what was lost is not said to be there");
        if registers {
            process.dir.write_broker_epoch(2).unwrap();
            let log = process.lead(0, 2).await;
            assert_eq!(log.ends().log_end, log_end);
            fill(&log, 1).await;
            mem = mem.kill();
        } else {
            // A start in vain: nobody was told yet, and nothing is in order.
            assert!(drops);
            process.dir.close().await.unwrap();
            assert!(!mem.exists(&Path::new(DIR).join("clean")).unwrap());
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_checkpoint_follows_the_bytes_that_became_durable() {
    let mem = MemDisk::new(1);
    let start = Process::start_with(Arc::new(mem.clone()), |options| {
        options.checkpoint_interval = Duration::from_secs(3600);
        options.checkpoint_every_bytes = 1000;
    });
    let process = start.unwrap();
    // Between two turns of the keeper.
    tokio::time::sleep(Duration::from_millis(10)).await;
    let log = process.create(0, LogConfig::default()).await;
    fill(&log, 20).await;
    tokio::time::sleep(Duration::from_millis(1)).await;
    let found = inspect::directory(&mem, Path::new(DIR)).unwrap();
    let known = found.partitions[0].checkpoint.expect("a checkpoint was written");
    assert!(known.recovery_point >= 10, "{known:?}");
    // Nothing changes: nothing is written.
    let before = process.dir.stats().checkpoints.get();
    tokio::time::sleep(Duration::from_secs(100)).await;
    assert_eq!(process.dir.stats().checkpoints.get(), before);
}

#[tokio::test(start_paused = true)]
async fn what_is_known_of_a_log_waits_until_it_is_durable_and_is_written_down_then() {
    let mem = MemDisk::new(1);
    let start = Process::start_with(Arc::new(mem.clone()), |options| options.note_every_bytes = 2_000);
    let process = start.unwrap();
    let log = process.create(0, config(Durability::Replicated)).await;
    fill(&log, 100).await;
    // It is asked for with the first checkpoint, when nothing was synced yet. After that nobody writes.
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!((process.dir.stats().notes_asked.get(), log.ends().flushed_end), (1, 0));
    tokio::time::sleep(Duration::from_secs(25)).await;
    assert_eq!((process.dir.stats().notes_asked.get(), log.ends().flushed_end), (1, 100));
    let mem = mem.kill();
    let progress = Arc::<Progress>::default();
    let noted = Arc::clone(&progress);
    let process = Process::start_with(Arc::new(mem), |options| options.progress = noted).unwrap();
    assert_eq!(process.dir.partition(id(0)).unwrap().ends().log_end, 100);
    assert_eq!(progress.scanned_bytes.get(), 0, "nothing was appended behind what was written down");
}

#[tokio::test(start_paused = true)]
async fn a_partition_that_nobody_writes_to_costs_the_keeper_nothing() {
    let start = Process::start_with(Arc::new(MemDisk::new(1)), |options| options.note_every_bytes = 1_000);
    let process = start.unwrap();
    for partition in 0..5 {
        fill(&process.create(partition, LogConfig::default()).await, 20).await;
    }
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(process.dir.stats().notes_asked.get(), 5);
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!(process.dir.stats().notes_asked.get(), 5);
    fill(&process.dir.partition(id(3)).unwrap(), 20).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(process.dir.stats().notes_asked.get(), 6);
}
