//! The end of a process: nothing of it writes once the directory is free, and what it leaves behind is true.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use weir_io::{Disk, FaultDisk, MemDisk, Op};
use weir_runtime::testing::{TestOs, until};
use weir_storage::{AppendError, Control, Error, LogConfig};
use weir_types::Durability;

use crate::support::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_directory_is_free_only_when_nothing_writes_in_it_any_more() {
    let mem = MemDisk::new(1);
    let disk = FaultDisk::over_mem(&mem);
    let shared: Arc<dyn Disk> = Arc::new(disk.clone());
    let os = TestOs::threads(Arc::clone(&shared)).unwrap();
    let process = Process::start_on(os, |options| options.checkpoint_interval = Duration::ZERO).unwrap();
    let log = process.create(0, LogConfig::default()).await;
    for _ in 0..5 {
        produce(&log, batch("a", 1)).await.unwrap();
    }
    log.control(Control::SetLogStart { offset: 3 }).await.unwrap();
    // The keeper is held up in the middle of a turn.
    let held = Held::new(&disk, Op::Space, Path::new(DIR));
    held.has_somebody().await;
    drop(process);
    let late = produce(&log, batch("late", 1)).await;
    drop(log);
    let refused = Process::start_with(Arc::new(mem.clone()), |_| {}).err();
    drop(held);
    assert_eq!(late, Err(AppendError::Closed));
    assert!(matches!(refused, Some(Error::Locked { .. })), "{refused:?}");
    // Its loops end: nobody has the disk any more.
    until("the loops end", async || Arc::strong_count(&shared) == 1).await;
    let process = Process::start(Arc::new(mem));
    assert_eq!(process.report.damaged, []);
    assert_eq!(process.dir.partition(id(0)).unwrap().ends().log_start, 3, "the checkpoint was overwritten");
}

/// Starts without registering with anybody, and stops in order.
async fn start_in_vain(disk: &MemDisk, boot_id: &str) -> bool {
    let os = TestOs::new(Arc::new(disk.clone()));
    os.set_boot_id(boot_id);
    let process = Process::start_on(os, |_| {}).unwrap();
    let clean = process.report.clean;
    process.dir.close().await.unwrap();
    clean
}

#[tokio::test]
async fn a_start_in_vain_proves_what_could_be_proven_before_it() {
    // How the broker before it ended, whether the machine was started again then, and what can be proven.
    for (in_order, rebooted, clean) in [(true, true, true), (false, false, true), (false, true, false)] {
        let disk = MemDisk::new(1);
        let process = Process::start(Arc::new(disk.clone()));
        process.dir.write_broker_epoch(7).unwrap();
        let log = process.create(0, config(Durability::Replicated)).await;
        produce(&log, batch("a", 1)).await.unwrap();
        if in_order {
            process.dir.close().await.unwrap();
        }
        let disk = disk.kill();
        let boot_id = if rebooted { "boot-2" } else { "boot-1" };
        assert_eq!(start_in_vain(&disk, boot_id).await, in_order);
        // Whatever was lost was lost before: a second start finds the same, on another day too.
        assert_eq!(start_in_vain(&disk, "boot-3").await, clean, "in order {in_order}, rebooted {rebooted}");
        let process = Process::start(Arc::new(disk.clone()));
        let epoch = process.report.broker_epoch.as_ref().map(|epoch| epoch.broker_epoch);
        assert_eq!((epoch, process.report.clean), (Some(7), clean));
        assert!(!disk.exists(&Path::new(DIR).join("clean")).unwrap());
    }
}

/// Starts on a machine with that boot id, and is killed before it has registered. What could be proven at that start:
/// that the stop before was in order, or that the machine has not been started again since the epoch it finds.
async fn killed_at_the_start(disk: &MemDisk, boot_id: &str) -> (MemDisk, bool, bool) {
    let os = TestOs::new(Arc::new(disk.clone()));
    os.set_boot_id(boot_id);
    let process = Process::start_on(os, |_| {}).unwrap();
    let epoch = process.report.broker_epoch.clone().unwrap();
    assert_eq!(epoch.broker_epoch, 7);
    (disk.kill(), process.report.clean, epoch.boot_id == boot_id)
}

#[tokio::test]
async fn a_start_that_is_killed_leaves_a_proof_of_the_stop_before_it() {
    let disk = MemDisk::new(1);
    let process = Process::start(Arc::new(disk.clone()));
    process.dir.write_broker_epoch(7).unwrap();
    let log = process.create(0, config(Durability::Replicated)).await;
    produce(&log, batch("a", 1)).await.unwrap();
    process.dir.close().await.unwrap();
    let (disk, clean, _) = killed_at_the_start(&disk.kill(), "boot-2").await;
    assert!(clean);
    let (disk, clean, same_boot) = killed_at_the_start(&disk, "boot-2").await;
    assert_eq!((clean, same_boot), (false, true), "all of it is still there");
    let (_, clean, same_boot) = killed_at_the_start(&disk, "boot-3").await;
    assert_eq!((clean, same_boot), (false, false), "whether it is, nobody says");
}

#[tokio::test]
async fn a_start_that_finds_damage_takes_nothing_from_the_one_after_it() {
    let disk = MemDisk::new(1);
    let process = Process::start(Arc::new(disk.clone()));
    process.dir.write_broker_epoch(7).unwrap();
    process.create(0, LogConfig::default()).await;
    process.dir.close().await.unwrap();
    let checkpoint = Path::new(DIR).join("checkpoint");
    let whole = disk.read(&checkpoint, 1 << 20).unwrap();
    disk.replace_durably(&checkpoint, b"rotten").unwrap();
    assert!(Process::start_with(Arc::new(disk.clone()), |_| {}).is_err());
    disk.replace_durably(&checkpoint, &whole).unwrap();
    assert!(Process::start(Arc::new(disk)).report.clean);
}
