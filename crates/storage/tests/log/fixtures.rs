//! Directories as earlier versions have left them, in `tests/data`: each must stay readable for ever.
//!
//! A new format gets a new folder beside the old ones: `WEIR_FIXTURES=write cargo test -p weir-storage fixtures`
//! writes those that are missing, and touches none that is there.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use weir_io::{Disk, MemDisk, RealDisk};
use weir_storage::{Control, LogConfig, inspect};
use weir_types::{Durability, Producer, ProducerId};

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

async fn read_v1(name: &str, clean: bool) {
    let source = data(name);
    let real = RealDisk::new();
    if !real.exists(&source).unwrap() && std::env::var("WEIR_FIXTURES").as_deref() == Ok("write") {
        copy(&write_v1(clean).await, Path::new(DIR), &real, &source);
    }
    let disk = MemDisk::new(9);
    copy(&real, &source, &disk, Path::new(DIR));
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
