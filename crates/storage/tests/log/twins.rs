//! Two folders of one partition: what a creation that failed has left, and what a person has put there.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use weir_io::{Access, Disk, Effect, Fault, FaultDisk, MemDisk, Op, Rule};
use weir_storage::{Error, LogConfig};

use crate::support::*;

fn folders(disk: &MemDisk) -> Vec<PathBuf> {
    let entries = disk.list(Path::new(DIR)).unwrap();
    entries.iter().filter(|entry| entry.is_dir).map(|entry| Path::new(DIR).join(&entry.name)).collect()
}

/// A folder of the same partition in another life of it, with so many bytes of zeros in its segment.
fn put_twin(disk: &MemDisk, of: &Path, bytes: usize) {
    let name = of.file_name().unwrap().to_str().unwrap();
    let (rest, _) = name.rsplit_once('.').unwrap();
    // Sorts in front of any other: a start sees it first.
    let twin = Path::new(DIR).join(format!("{rest}.0000000000000000"));
    disk.create_dir(&twin).unwrap();
    let file = disk.open(&twin.join("00000000000000000000.log"), Access::CreateNew).unwrap();
    file.write_all_at(&vec![0; bytes], 0).unwrap();
    disk.sync_fs(Path::new(DIR)).unwrap();
}

#[tokio::test]
async fn what_a_failed_creation_leaves_never_stands_for_the_log() {
    // Each call that a creation makes fails once, the folder cannot be taken away at first, and it dies or not.
    let creation = [(Op::CreateDir, ""), (Op::Create, ".log"), (Op::OpenDir, "")];
    for (op, ending) in creation {
        for seed in 0..8 {
            let mem = MemDisk::new(seed);
            let disk = FaultDisk::over_mem(&mem);
            let process = Process::start(Arc::new(disk.clone()));
            disk.add(Rule::on([op], Effect::Fail(Fault::NoSpace)).ends_with(ending).once());
            if seed % 2 == 1 {
                disk.add(Rule::on([Op::Rename], Effect::Fail(Fault::Io)).once());
            }
            assert!(process.dir.create_partition(id(0), "flights", LogConfig::default()).is_err());
            let log = process.create(0, LogConfig::default()).await;
            for _ in 0..3 {
                produce(&log, batch("a", 1)).await.unwrap();
            }
            if seed % 4 >= 2 {
                process.dir.checkpoint().unwrap();
            }
            let process = Process::start(Arc::new(mem.kill()));
            assert_eq!(process.report.damaged, [], "{op:?} {seed}");
            let again = process.lead(0, 2).await;
            assert_eq!(again.incarnation(), log.incarnation());
            assert_eq!(all(&again).await.len(), 3, "{op:?} {seed}");
        }
    }
}

#[tokio::test]
async fn a_failed_creation_is_undone_durably() {
    for seed in 0..8 {
        let mem = MemDisk::new(seed);
        let disk = FaultDisk::over_mem(&mem);
        let process = Process::start(Arc::new(disk.clone()));
        disk.add(Rule::on([Op::Create], Effect::Fail(Fault::NoSpace)).ends_with(".log").once());
        assert!(process.dir.create_partition(id(0), "flights", LogConfig::default()).is_err());
        let process = Process::start(Arc::new(mem.crash(seed)));
        assert!(process.dir.partition(id(0)).is_none(), "seed {seed}");
    }
}

#[tokio::test]
async fn the_life_that_the_checkpoint_knows_is_the_log_even_while_it_is_empty() {
    for bytes in [0, 500] {
        let disk = MemDisk::new(1);
        let process = Process::start(Arc::new(disk.clone()));
        let log = process.create(0, LogConfig::default()).await;
        process.dir.checkpoint().unwrap();
        put_twin(&disk, &log.describe().path, bytes);
        let process = Process::start(Arc::new(disk.kill()));
        if bytes == 0 {
            assert_eq!(process.report.damaged, []);
            assert_eq!(process.dir.partition(id(0)).unwrap().incarnation(), log.incarnation());
        } else {
            assert_eq!(process.report.damaged.len(), 2, "{:?}", process.report.damaged);
        }
    }
}

#[tokio::test]
async fn of_two_that_hold_something_neither_is_served_and_neither_is_touched() {
    let disk = MemDisk::new(1);
    let process = Process::start(Arc::new(disk.clone()));
    let log = process.create(0, LogConfig::default()).await;
    produce(&log, batch("a", 1)).await.unwrap();
    put_twin(&disk, &log.describe().path, 500);
    let mut disk = disk.kill();
    for _ in 0..2 {
        let process = Process::start(Arc::new(disk.clone()));
        assert_eq!(process.report.damaged.len(), 2);
        assert!(process.report.damaged[0].what.contains("another folder holds"));
        assert!(process.dir.partition(id(0)).is_none());
        assert!(matches!(
            process.dir.create_partition(id(0), "flights", LogConfig::default()),
            Err(Error::Exists(_))
        ));
        assert_eq!(folders(&disk).len(), 2);
        disk = disk.kill();
    }
    // Moved away by a person: the other one is the log again.
    let twin = folders(&disk).remove(0);
    disk.rename(&twin, Path::new("/elsewhere")).unwrap();
    let process = Process::start(Arc::new(disk));
    assert_eq!(process.report.damaged, []);
    assert_eq!(all(&process.lead(0, 2).await).await.len(), 1);
}
