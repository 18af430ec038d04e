//! Directories as earlier versions have left them, in `tests/data`: each must stay readable for ever.
//!
//! A new format gets a new folder beside the old ones: `WEIR_FIXTURES=write cargo test -p weir-storage version_`
//! writes those that are missing, and touches none that is there.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use weir_io::{Access, Disk, MemDisk, RealDisk};
use weir_runtime::testing::{TestOs, until};
use weir_storage::{Control, DirIdentity, DirOptions, LogConfig, LogDir, OpenReport, Progress, inspect};
use weir_types::{BrokerId, ClusterId, Durability, Producer, ProducerId};

use crate::support::*;

fn data(version: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(version)
}

/// Copies a tree of files.
fn copy(from: &dyn Disk, source: &Path, to: &dyn Disk, target: &Path) {
    to.create_dir(target).unwrap();
    for entry in from.list(source).unwrap() {
        let (source, target) = (source.join(&entry.name), target.join(&entry.name));
        if entry.is_dir {
            copy(from, &source, to, &target);
        } else if entry.name != "lock" {
            to.replace_durably(&target, &from.read(&source, 1 << 20).unwrap()).unwrap();
        }
    }
}

/// What is in the directories of version 1: two segments in order, one of them sealed; a moved start; two epochs; two
/// producers, one of them fenced; every attribute.
async fn write_v1(clean: bool) -> MemDisk {
    let disk = MemDisk::new(9);
    let process = Process::start(Arc::new(disk.clone()));
    let log = process.create(3, LogConfig { segment_bytes: 1500, ..config(Durability::Fsync) }).await;
    for n in 0..6 {
        produce(&log, by(70, 0, 2 * i32::from(n), batch(vec![n; 100], 2))).await.unwrap();
    }
    lead(&log, 4).await;
    let mut every = batch("attributes", 1);
    (every.append_time, every.transactional, every.broker_compressed, every.codec) = (true, true, true, 3);
    produce(&log, by(71, 5, 0, every)).await.unwrap();
    let producer = Producer { id: ProducerId(71), epoch: 5 };
    let query = weir_storage::OutcomeQuery { producer, base_sequence: 1, seal: true };
    log.append_outcome(query).await.unwrap().unwrap();
    log.control(Control::Roll).await.unwrap();
    produce(&log, batch("the last", 1)).await.unwrap();
    log.control(Control::SetLogStart { offset: 3 }).await.unwrap();
    process.dir.write_broker_epoch(12).unwrap();
    if clean {
        process.dir.close().await.unwrap();
        return disk;
    }
    process.dir.checkpoint().unwrap();
    disk.kill()
}

/// A disk with the directory that `write` left, when it was written.
async fn kept(name: &str, write: impl AsyncFn() -> MemDisk) -> MemDisk {
    let source = data(name);
    let real = RealDisk::new();
    if !real.exists(&source).unwrap() && std::env::var("WEIR_FIXTURES").as_deref() == Ok("write") {
        copy(&write().await, Path::new(DIR), &real, &source);
    }
    let disk = MemDisk::new(9);
    copy(&real, &source, &disk, Path::new(DIR));
    disk
}

async fn read_v1(name: &str, clean: bool) {
    let disk = kept(name, async || write_v1(clean).await).await;
    let seen = inspect::directory(&disk, Path::new(DIR)).unwrap();
    assert_eq!(inspect::verify(&disk, &seen.partitions[0]).unwrap().problems, Vec::<String>::new());
    let process = Process::start(Arc::new(disk));
    assert_eq!((process.report.clean, process.report.damaged.len()), (clean, 0));
    assert_eq!(process.report.broker_epoch.as_ref().map(|epoch| epoch.broker_epoch), Some(12));
    let log = process.dir.partition(id(3)).unwrap();
    let ends = log.ends();
    assert_eq!((ends.log_start, ends.high_watermark, ends.log_end), (3, 15, 15));
    assert_eq!((log.epoch_end(1), log.epoch_end(4)), ((1, 12), (4, 15)));
    let frames = all(&log).await;
    assert_eq!(
        frames.iter().map(|frame| frame.header.base_offset).collect::<Vec<_>>(),
        [2, 4, 6, 8, 10, 12, 13, 14]
    );
    let every = &frames[5].header;
    assert!(every.append_time && every.transactional && every.broker_compressed && every.codec == 3);
    assert!(frames[6].header.control);
    assert_eq!(frames[7].payload, "the last");
    lead(&log, 5).await;
    assert!(produce(&log, by(70, 0, 10, batch(vec![5; 100], 2))).await.unwrap().duplicate);
    assert!(produce(&log, by(71, 5, 1, batch("fenced", 1))).await.is_err());
    assert_eq!(produce(&log, by(71, 6, 0, batch("next", 1))).await.unwrap().base_offset, 15);
}

#[tokio::test]
async fn version_1_left_in_order() {
    read_v1("v1-clean", true).await;
}

#[tokio::test]
async fn version_1_left_by_a_kill() {
    read_v1("v1-killed", false).await;
}

fn identity() -> DirIdentity {
    DirIdentity::new(ClusterId(0xc1d1), BrokerId(7))
}

fn open(disk: &MemDisk, progress: &Arc<Progress>) -> (LogDir, OpenReport) {
    let mut options = DirOptions::new(|_| {});
    options.note_every_bytes = 500;
    options.progress = Arc::clone(progress);
    let os = Arc::new(TestOs::new(Arc::new(disk.clone())));
    LogDir::open(os, Path::new(DIR), Some(identity()), options).unwrap()
}

/// What a broker adds to its directory: its name, how much metadata it has acted upon; a note of a segment that is still
/// written, what was set aside, and that a write has failed.
async fn write_v1_brokers() -> MemDisk {
    let disk = MemDisk::new(9);
    let (dir, _) = open(&disk, &Arc::default());
    dir.write_broker_epoch(12).unwrap();
    dir.write_metadata_version(34, 0).unwrap();
    for partition in [3, 4] {
        let log = dir.create_partition(id(partition), "flights", config(Durability::Fsync)).unwrap();
        lead(&log, 1).await;
        for n in 0..6 {
            produce(&log, batch(vec![n; 100], 1)).await.unwrap();
        }
    }
    dir.set_aside(vec![id(4)]).await.unwrap();
    let names = disk.list(Path::new(DIR)).unwrap().into_iter().map(|entry| entry.name);
    let folder = names.into_iter().find(|name| name.starts_with("flights-3.")).unwrap();
    let folder = Path::new(DIR).join(folder);
    until("a note of the segment", async || {
        disk.list(&folder).unwrap().iter().any(|entry| entry.name.ends_with(".tail"))
    })
    .await;
    dir.checkpoint().unwrap();
    disk.open(&Path::new(DIR).join("failed"), Access::CreateOrTruncate).unwrap();
    disk.kill()
}

#[tokio::test(start_paused = true)]
async fn version_1_of_a_broker() {
    let disk = kept("v1-brokers", write_v1_brokers).await;
    let progress = Arc::default();
    let (dir, report) = open(&disk, &progress);
    assert_eq!((report.identity, report.metadata_version, report.partitions), (Some(identity()), 34, 1));
    // The kernel is said to be the same; only the failure tells that the page cache is not to be believed.
    assert_eq!(report.broker_epoch.map(|epoch| epoch.boot_id), Some("boot-1".to_owned()));
    assert!(!report.same_boot && report.damaged.is_empty());
    assert_eq!(report.failures, [0], "this version gave failures no number");
    let log = dir.partition(id(3)).unwrap();
    let written: u64 = all(&log).await.iter().map(|frame| frame.header.frame_bytes()).sum();
    let walked = progress.scanned_bytes.get();
    assert!(walked < written, "{walked} of {written} bytes were walked through: the note was not believed");
    assert_eq!((log.ends().log_end, dir.stats().strays.get()), (6, 1));
    dir.write_broker_epoch(13).unwrap();
    assert!(!disk.exists(&Path::new(DIR).join("failed")).unwrap());
}
