//! Logs whose folders are gone while nothing ran: damaged, and never taken for empty. What was taken away in order nobody misses.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use weir_io::{Disk, FaultDisk, MemDisk, Survival};
use weir_storage::{DirOptions, Error, LogConfig, inspect};

use crate::cut_off::{rotten, small};
use crate::support::*;

fn folders(disk: &MemDisk) -> Vec<String> {
    let entries = disk.list(Path::new(DIR)).unwrap();
    entries.into_iter().filter(|entry| entry.is_dir).map(|entry| entry.name).collect()
}

fn path(name: &str) -> PathBuf {
    Path::new(DIR).join(name)
}

/// A log of so many records whose folder somebody has moved to `/elsewhere`, and its name.
async fn moved_away(records: u8) -> (MemDisk, String) {
    let disk = MemDisk::new(1);
    let process = Process::start(Arc::new(disk.clone()));
    let log = process.create(0, small()).await;
    fill(&log, records).await;
    process.dir.checkpoint().unwrap();
    drop((log, process));
    let disk = disk.kill();
    let name = folders(&disk).remove(0);
    disk.rename(&path(&name), Path::new("/elsewhere")).unwrap();
    (disk, name)
}

fn is_missed(process: &Process, records: u8) {
    let [damaged] = process.report.damaged.as_slice() else { panic!("{:?}", process.report) };
    assert!(damaged.what.contains("all that was in it is missing"), "{}", damaged.what);
    assert!(damaged.is_damaged && process.dir.partition(id(0)).is_none());
    assert_eq!(process.dir.known_end_damaged(id(0)), Some(records.into()));
    assert_eq!(damaged.whole.map(|whole| (whole.end, whole.known_end)), Some((0, records.into())));
    let made = process.dir.create_partition(id(0), "flights", LogConfig::default());
    assert!(matches!(made, Err(Error::Exists(_))), "{made:?}");
}

/// What a check of the files says that no server opens.
fn said_of_it(disk: &MemDisk) -> String {
    let files = inspect::directory(disk, Path::new(DIR)).unwrap().partitions.remove(0);
    inspect::verify(disk, &files).unwrap().problems.join("; ")
}

#[tokio::test]
pub(crate) async fn a_log_whose_folder_is_gone_is_damaged_until_it_is_fetched_anew() {
    for records in [0, 12] {
        let (mut disk, _) = moved_away(records).await;
        for _ in 0..3 {
            let process = Process::start(Arc::new(disk.clone()));
            is_missed(&process, records);
            assert!(said_of_it(&disk).contains("all that was in it is missing"), "{records}");
            drop(process);
            disk = disk.crash(1);
        }
        // And after a stop in order, also of a folder that is gone once more.
        let process = Process::start(Arc::new(disk.clone()));
        process.dir.close().await.unwrap();
        disk.remove_dir(&path(&folders(&disk).remove(0))).unwrap();
        let process = Process::start(Arc::new(disk.clone()));
        is_missed(&process, records);
        process.dir.set_damaged_aside(vec![id(0)]).await.unwrap();
        process.create(0, small()).await;
        assert!(process.dir.further_aside(id(0)).is_none(), "nothing of it is whole");
        drop(process);
        let process = Process::start(Arc::new(disk.crash(2)));
        assert_eq!(process.report.damaged, []);
        assert_eq!(process.lead(0, 2).await.ends().log_end, 0);
    }
}

#[tokio::test]
async fn a_log_whose_folder_is_gone_begins_with_nothing_when_a_person_gives_up_what_it_had() {
    let (disk, _) = moved_away(12).await;
    let process = Process::start(Arc::new(disk.clone()));
    assert!(process.dir.cut_damaged(id(0), 0).unwrap().is_some());
    assert_eq!(process.dir.end_before_cut(id(0)), Some(12));
    assert_eq!(said_of_it(&disk), "");
    let log = process.lead(0, 2).await;
    fill(&log, 1).await;
    drop((log, process));
    let process = Process::start(Arc::new(disk.crash(1)));
    assert_eq!(process.report.damaged, []);
    assert_eq!(process.lead(0, 3).await.ends().log_end, 1);
}

#[tokio::test]
async fn a_log_whose_folder_was_brought_back_is_what_it_was() {
    for (was_missed, records) in [(false, 12), (true, 12), (true, 0)] {
        let (disk, name) = moved_away(records).await;
        if was_missed {
            is_missed(&Process::start(Arc::new(disk.clone())), records);
        }
        disk.rename(Path::new("/elsewhere"), &path(&name)).unwrap();
        let process = Process::start(Arc::new(disk.clone()));
        assert_eq!(process.report.damaged, []);
        assert_eq!(all(&process.lead(0, 2).await).await.len(), usize::from(records));
        let left: Vec<_> = folders(&disk).into_iter().filter(|other| !other.ends_with(".deleted")).collect();
        assert_eq!(left, [name], "and nothing stands for it any more");
    }
}

/// Nothing goes but by what is told here, and then at once; no checkpoint is written that nobody needs.
fn hasty(disk: &FaultDisk) -> Process {
    let change = |options: &mut DirOptions| {
        options.stray_retention = Duration::ZERO;
        options.checkpoint_interval = Duration::from_secs(24 * 3600);
    };
    Process::start_with(Arc::new(disk.clone()), change).unwrap()
}

/// Whether the process has died; a start after it misses no log.
async fn died_and_is_not_missed((mem, disk, process): (MemDisk, FaultDisk, Process), seed: u64) -> bool {
    let died = disk.is_dead();
    drop(process);
    let left = if seed.is_multiple_of(2) { mem.kill() } else { mem.power_loss(Survival::Drawn(seed)) };
    for _ in 0..2 {
        // What was to be deleted is gone by the second.
        let process = Process::start(Arc::new(left.clone()));
        let missed = process.report.damaged.iter().find(|damaged| damaged.what.contains("is missing"));
        assert_eq!(missed, None, "{seed}: {:?}", folders(&left));
        tokio::time::sleep(Duration::from_secs(5)).await;
    }
    died
}

#[tokio::test(start_paused = true)]
pub(crate) async fn a_log_that_was_deleted_is_not_missed_wherever_that_is_cut_off() {
    for changes in 0.. {
        let mem = MemDisk::new(changes);
        let disk = FaultDisk::over_mem(&mem);
        let process = hasty(&disk);
        fill(&process.create(0, small()).await, 7).await;
        process.dir.checkpoint().unwrap();
        disk.die_after(changes);
        // How far it comes is not what this is about.
        let _ = process.dir.set_aside(vec![id(0)]).await;
        tokio::time::sleep(Duration::from_secs(5)).await;
        if !died_and_is_not_missed((mem, disk, process), changes).await {
            assert!(changes > 3, "{changes}");
            return;
        }
    }
}

/// One that was set aside for its damage, and the one that has taken its place.
#[tokio::test(start_paused = true)]
async fn a_damaged_log_that_was_deleted_is_not_missed_wherever_that_is_cut_off() {
    for changes in 0.. {
        let (mem, _, _) = rotten(changes, 23, 12).await;
        let disk = FaultDisk::over_mem(&mem);
        let process = hasty(&disk);
        disk.die_after(changes);
        let _ = process.dir.set_damaged_aside(vec![id(0)]).await;
        let _ = process.dir.create_partition(id(0), "flights", small());
        let _ = process.dir.set_aside(vec![id(0)]).await;
        let _ = process.dir.delete_damaged(id(0));
        tokio::time::sleep(Duration::from_secs(5)).await;
        if !died_and_is_not_missed((mem, disk, process), changes).await {
            assert!(changes > 3, "{changes}");
            return;
        }
    }
}

/// A person may clear up: what the metadata names no more, and what was set aside for its damage once another one is there.
#[tokio::test]
async fn what_was_set_aside_and_is_taken_away_by_a_person_is_not_missed() {
    let disk = MemDisk::new(1);
    let process = Process::start(Arc::new(disk.clone()));
    for number in 0..2 {
        fill(&process.create(number, small()).await, 7).await;
    }
    process.dir.checkpoint().unwrap();
    process.dir.set_aside(vec![id(0)]).await.unwrap();
    process.dir.set_damaged_aside(vec![id(1)]).await.unwrap();
    process.create(1, small()).await;
    process.dir.close().await.unwrap();
    let beside: Vec<_> = folders(&disk)
        .into_iter()
        .filter(|name| name.ends_with("stray") || name.ends_with("damaged"))
        .collect();
    assert_eq!(beside.len(), 2, "{beside:?}");
    for name in beside {
        disk.rename(&path(&name), &Path::new("/").join(&name)).unwrap();
    }
    let process = Process::start(Arc::new(disk));
    assert_eq!((process.report.damaged.as_slice(), process.report.partitions), (&[][..], 1));
}
