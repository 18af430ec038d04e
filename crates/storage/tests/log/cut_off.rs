//! A damaged log that nobody else has goes on as far as it is whole, when somebody says so; nothing of it is destroyed.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::BytesMut;
use weir_io::{Access, Dice, Disk, Effect, Fault, FaultDisk, MemDisk, Op, Rule, Survival};
use weir_storage::inspect;
use weir_storage::{Control, Frame, LogConfig, Unusable, Whole};
use weir_types::{Durability, Offset};

use crate::support::*;

/// Five frames of 200 bytes a segment.
pub(crate) fn small() -> LogConfig {
    LogConfig { segment_bytes: 1000, ..config(Durability::Fsync) }
}

/// The folders that hold what was cut off.
pub(crate) fn kept(disk: &MemDisk) -> Vec<PathBuf> {
    let folders = disk.list(Path::new(DIR)).unwrap().into_iter().filter(|entry| entry.is_dir);
    folders
        .filter(|entry| entry.name.ends_with(".damaged"))
        .map(|entry| Path::new(DIR).join(entry.name))
        .collect()
}

/// The files in a folder, with what is in them.
pub(crate) fn files(disk: &MemDisk, folder: &Path) -> Vec<(String, Vec<u8>)> {
    let entries = disk.list(folder).unwrap().into_iter().filter(|entry| !entry.is_dir);
    entries
        .map(|entry| (entry.name.clone(), disk.read(&folder.join(entry.name), 1 << 20).unwrap().to_vec()))
        .collect()
}

fn flip(disk: &MemDisk, path: &Path, at: u64) {
    let file = disk.open(path, Access::Write).unwrap();
    let mut byte = BytesMut::new();
    file.read_at(&mut byte, 1, at).unwrap();
    file.write_all_at(&[byte[0] ^ 4], at).unwrap();
    file.sync_all().unwrap();
}

/// A log of so many frames by producer 7, left by a kill, with what is in it and where it is.
async fn killed(seed: u64, frames: u8, checkpointed_after: Option<u8>) -> (MemDisk, Vec<Frame>, PathBuf) {
    let disk = MemDisk::new(seed);
    let process = Process::start(Arc::new(disk.clone()));
    let log = process.create(0, small()).await;
    for n in 0..frames {
        if checkpointed_after == Some(n) {
            process.dir.checkpoint().unwrap();
        }
        produce(&log, by(7, 0, n.into(), batch(vec![n; 112], 1))).await.unwrap();
    }
    let (written, folder) = (all(&log).await, log.describe().path);
    (disk.kill(), written, folder)
}

/// The same with a segment that ends within a frame, which a start notices whatever it looks into.
pub(crate) async fn rotten(seed: u64, frames: u8, at: Offset) -> (MemDisk, Vec<Frame>, PathBuf) {
    let (disk, written, folder) = killed(seed, frames, Some(frames - 1)).await;
    let path = folder.join(format!("{:020}.log", at / 5 * 5));
    let file = disk.open(&path, Access::Write).unwrap();
    file.set_len((at % 5) as u64 * 200 + 100).unwrap();
    // No loss of power gives back what it has lost.
    file.sync_all().unwrap();
    (disk, written, folder)
}

fn damaged(process: &Process) -> Unusable {
    let [damaged] = process.report.damaged.as_slice() else { panic!("{:?}", process.report.damaged) };
    damaged.clone()
}

pub(crate) fn whole(process: &Process) -> Whole {
    damaged(process).whole.expect("it can be cut")
}

/// The log is a beginning of what was written, consistent in itself, and goes on where it ends.
pub(crate) async fn goes_on(disk: MemDisk, written: &[Frame], end: Offset) {
    let process = Process::start(Arc::new(disk));
    assert_eq!(process.report.damaged, []);
    let log = process.lead(0, 5).await;
    let ends = log.ends();
    assert_eq!((ends.log_end, ends.high_watermark, ends.flushed_end), (end, end, end));
    let found = all(&log).await;
    assert_eq!(found, written[..found.len()]);
    assert_eq!(found.last().map_or(ends.log_start, |frame| frame.header.next_offset()), end);
    // What its producer wrote last is what the log ends with.
    let next = produce(&log, by(7, 0, end as i32, batch("next", 1))).await.unwrap();
    assert_eq!((next.base_offset, next.duplicate), (end, false));
    if end > 0 {
        let again =
            produce(&log, by(7, 0, end as i32 - 1, batch(vec![end as u8 - 1; 112], 1))).await.unwrap();
        assert_eq!((again.base_offset, again.duplicate), (end - 1, true));
    }
}

#[tokio::test]
pub(crate) async fn a_damaged_log_is_cut_where_its_damage_begins_and_what_is_cut_off_is_kept() {
    let (disk, written, folder) = rotten(1, 23, 12).await;
    let before = files(&disk, &folder);
    let process = Process::start(Arc::new(disk.clone()));
    let found = whole(&process);
    assert_eq!((found.end, found.known_end, found.last_epoch), (12, 23, Some(1)));
    // Not anywhere else, and not where nothing is damaged.
    for at in [0, 11, 13, 23] {
        assert!(process.dir.cut_damaged(id(0), at).unwrap().is_none(), "{at}");
    }
    assert!(process.dir.cut_damaged(id(1), 12).unwrap().is_none());
    assert_eq!((files(&disk, &folder), kept(&disk).len()), (before.clone(), 0), "nothing was touched");

    let log = process.dir.cut_damaged(id(0), 12).unwrap().expect("it is cut");
    assert_eq!((log.ends().log_end, log.ends().high_watermark), (12, 12));
    assert_eq!(process.dir.unusable(), []);
    assert_eq!(process.dir.end_before_cut(id(0)), Some(23));
    assert!(process.dir.cut_damaged(id(0), 12).unwrap().is_none(), "it is not damaged any more");
    let [copy] = kept(&disk).try_into().unwrap();
    assert!(copy.to_string_lossy().ends_with(".g0-12-23.damaged"), "{}", copy.display());
    // Everything that lost something is there as it was; what is before is where it was.
    let (lost, stays): (Vec<_>, Vec<_>) =
        before.into_iter().partition(|(name, _)| name.as_str() >= "00000000000000000010");
    assert_eq!(files(&disk, &copy), lost);
    // And people can read it.
    let seen = inspect::partition(&disk, &copy).unwrap().expect("its name says of which log it is");
    assert_eq!((seen.id, &*seen.segments), (id(0), &[10, 15, 20][..]));
    let mut segment = inspect::Segment::open(&disk, &seen, 15).unwrap();
    let frame = segment.next_frame().unwrap().expect("it was whole");
    assert_eq!((frame.header.base_offset, frame.problem), (15, None));
    let of_directory = inspect::directory(&disk, Path::new(DIR)).unwrap().partitions;
    assert_eq!(of_directory.len(), 1, "the log alone");
    let now = files(&disk, &folder);
    assert!(stays.iter().all(|file| now.contains(file)));
    drop((log, process));

    // A start knows all of it again, until something is appended.
    let disk = disk.power_loss(Survival::Nothing);
    let process = Process::start(Arc::new(disk.clone()));
    assert_eq!((process.dir.end_before_cut(id(0)), process.dir.cut_off_kept()), (Some(23), vec![id(0)]));
    drop(process);
    let disk = disk.kill();
    goes_on(disk.clone(), &written, 12).await;
    let disk = disk.kill();
    let process = Process::start(Arc::new(disk.clone()));
    assert_eq!(process.dir.end_before_cut(id(0)), None);
    assert_eq!(kept(&disk).len(), 1);
    // With its topic it goes.
    process.dir.delete_cut_off(id(0)).unwrap();
    assert_eq!((process.dir.cut_off_kept(), kept(&disk).len()), (vec![], 0));
}

#[tokio::test]
async fn wherever_the_damage_is_what_is_kept_is_a_beginning() {
    let mut cuts = 0;
    for seed in 0..300 {
        let mut dice = Dice::new(seed);
        let frames = 1 + dice.below(30) as u8;
        let checkpointed = dice.percent(60).then(|| dice.below(frames.into()) as u8);
        let (disk, written, folder) = killed(seed, frames, checkpointed).await;
        let segments = files(&disk, &folder).into_iter().filter(|(name, _)| name.ends_with(".log"));
        let segments: Vec<_> =
            segments.map(|(name, bytes)| (folder.join(name), bytes.len() as u64)).collect();
        let (path, len) = &segments[dice.below(segments.len() as u64) as usize];
        match dice.below(10) {
            0 => disk.unlink(path).unwrap(),
            1 | 2 => disk.open(path, Access::Write).unwrap().set_len(dice.below(len + 1)).unwrap(),
            _ => flip(&disk, path, dice.below(*len)),
        }
        let process = Process::start(Arc::new(disk.clone()));
        if process.report.damaged.is_empty() {
            // Torn, or not looked at.
            continue;
        }
        cuts += 1;
        let Whole { end, known_end, .. } = whole(&process);
        assert!(end <= known_end && known_end <= frames.into(), "seed {seed}: {end} of {known_end}");
        drop(process);
        // It is the same at every start, as long as nobody accepts it.
        let disk = disk.kill();
        let process = Process::start(Arc::new(disk.clone()));
        let again = whole(&process);
        assert_eq!((again.end, again.known_end), (end, known_end), "seed {seed}");
        let log =
            process.dir.cut_damaged(id(0), end).unwrap().unwrap_or_else(|| panic!("seed {seed}: not cut"));
        assert_eq!(log.ends().log_end, end, "seed {seed}");
        assert_eq!(process.dir.end_before_cut(id(0)), Some(known_end), "seed {seed}");
        drop((log, process));
        let disk = if dice.percent(50) { disk.kill() } else { disk.power_loss(Survival::Drawn(seed)) };
        goes_on(disk, &written, end).await;
    }
    assert!(cuts > 100, "only {cuts} logs were damaged");
}

#[tokio::test]
async fn cut_off_anywhere_it_is_as_it_was_or_cut_and_the_same_is_told_of_it() {
    for changes in 0.. {
        let (mem, written, _) = rotten(changes, 23, 12).await;
        let disk = FaultDisk::over_mem(&mem);
        let process = Process::start(Arc::new(disk.clone()));
        assert_eq!(whole(&process).end, 12);
        disk.die_after(changes);
        let done = process.dir.cut_damaged(id(0), 12).is_ok_and(|cut| cut.is_some());
        let died = disk.is_dead();
        drop(process);
        let survival = if changes % 2 == 0 { Survival::Nothing } else { Survival::Drawn(changes) };
        let mem = if changes % 3 == 0 { mem.kill() } else { mem.power_loss(survival) };
        let process = Process::start(Arc::new(mem.clone()));
        if process.report.damaged.is_empty() {
            let known = process.dir.end_before_cut(id(0));
            assert_eq!(known, Some(23), "{changes}: it was cut");
        } else {
            assert!(!done, "{changes}");
            let found = whole(&process);
            assert_eq!((found.end, found.known_end), (12, 23), "{changes}");
            assert!(process.dir.cut_damaged(id(0), 12).unwrap().is_some(), "{changes}: it is done later");
        }
        drop(process);
        let mem = mem.kill();
        goes_on(mem.clone(), &written, 12).await;
        // Whole, and one of them.
        let [copy] = kept(&mem).try_into().unwrap_or_else(|kept| panic!("{changes}: {kept:?}"));
        let logs: Vec<_> =
            files(&mem, &copy).into_iter().filter(|(name, _)| name.ends_with(".log")).collect();
        let lengths: Vec<_> = logs.iter().map(|(_, bytes)| bytes.len()).collect();
        assert_eq!(lengths, [500, 1000, 600], "{changes}");
        if !died {
            assert!(done && changes > 10, "{changes}");
            return;
        }
    }
}

#[tokio::test]
async fn without_room_for_what_is_kept_nothing_is_cut_and_it_is_said() {
    let (mem, written, folder) = rotten(3, 23, 12).await;
    let disk = FaultDisk::over_mem(&mem);
    let process = Process::start(Arc::new(disk.clone()));
    let before = files(&mem, &folder);
    for op in [Op::CreateDir, Op::Create, Op::Write] {
        let full = Rule::on([op], Effect::Fail(Fault::NoSpace));
        disk.add(full.path(|path| path.to_string_lossy().contains(".copying")).once());
        let refused = process.dir.cut_damaged(id(0), 12).unwrap_err();
        assert!(refused.is_no_space(), "{op:?}: {refused}");
        assert_eq!(files(&mem, &folder), before, "{op:?}");
        let what = process.dir.unusable()[0].what.clone();
        assert_eq!(what.matches("it could not be cut: ").count(), 1, "{op:?}: {what}");
    }
    // With room it is done.
    assert!(process.dir.cut_damaged(id(0), 12).unwrap().is_some());
    drop(process);
    goes_on(mem.kill(), &written, 12).await;
}

#[tokio::test]
async fn a_sync_that_finds_no_room_for_the_copy_is_no_failed_disk() {
    let (mem, written, _) = rotten(7, 23, 12).await;
    let disk = FaultDisk::over_mem(&mem);
    let process = Process::start(Arc::new(disk.clone()));
    let full = Rule::on([Op::SyncAll], Effect::Fail(Fault::NoSpace));
    disk.add(full.path(|path| path.to_string_lossy().contains(".copying")).once());
    let refused = process.dir.cut_damaged(id(0), 12).unwrap_err();
    assert!(refused.is_no_space(), "{refused}");
    drop(process);
    let mem = mem.kill();
    let process = Process::start(Arc::new(mem.clone()));
    assert!(process.report.failures.is_empty());
    assert!(process.dir.cut_damaged(id(0), 12).unwrap().is_some());
    drop(process);
    goes_on(mem.kill(), &written, 12).await;
}

/// What is left of a try takes its time to go, on a disk that is busy.
#[tokio::test]
async fn the_next_try_does_not_wait_for_what_is_left_of_the_last_one() {
    let (mem, written, _) = rotten(8, 23, 12).await;
    let disk = FaultDisk::over_mem(&mem);
    let process = Process::start(Arc::new(disk.clone()));
    let copying = |path: &Path| path.to_string_lossy().contains(".copying");
    disk.add(Rule::on([Op::Unlink], Effect::Fail(Fault::NoSpace)).path(copying));
    for op in [Op::Write, Op::SyncAll] {
        disk.add(Rule::on([op], Effect::Fail(Fault::NoSpace)).path(copying).once());
        let refused = process.dir.keep_damaged(id(0), 12).unwrap_err();
        assert!(refused.is_no_space(), "{op:?}: {refused}");
    }
    process.dir.keep_damaged(id(0), 12).unwrap();
    assert!(
        !process.report.damaged.is_empty() && !process.dir.unusable().is_empty(),
        "it is kept, and not cut yet"
    );
    assert!(process.dir.cut_damaged(id(0), 12).unwrap().is_some());
    drop(process);
    goes_on(mem.kill(), &written, 12).await;
}

#[tokio::test]
async fn what_is_to_stay_free_is_not_taken_for_what_is_kept() {
    let (mem, _, folder) = rotten(6, 23, 12).await;
    let before = files(&mem, &folder);
    let process =
        Process::start_with(Arc::new(mem.clone()), |options| options.disk_reserved_bytes = u64::MAX >> 1)
            .unwrap();
    let refused = process.dir.cut_damaged(id(0), 12).unwrap_err();
    assert!(refused.is_no_space() && refused.to_string().contains("disk_reserved_bytes"), "{refused}");
    assert_eq!((files(&mem, &folder), kept(&mem).len()), (before, 0));
}

#[tokio::test]
async fn of_a_log_whose_beginning_is_gone_nothing_is_left_and_all_is_kept() {
    let (disk, _, folder) = killed(4, 23, Some(22)).await;
    disk.unlink(&folder.join("00000000000000000000.log")).unwrap();
    let process = Process::start(Arc::new(disk.clone()));
    let found = whole(&process);
    assert_eq!((found.end, found.known_end), (0, 23));
    let log = process.dir.cut_damaged(id(0), 0).unwrap().unwrap();
    assert_eq!((log.ends().log_start, log.ends().log_end), (0, 0));
    let [copy] = kept(&disk).try_into().unwrap();
    assert_eq!(files(&disk, &copy).iter().filter(|(name, _)| name.ends_with(".log")).count(), 4);
}

#[tokio::test]
async fn damage_before_the_start_of_a_log_leaves_it_empty_there() {
    let disk = MemDisk::new(5);
    let process = Process::start(Arc::new(disk.clone()));
    let log = process.create(0, small()).await;
    fill_by(&log, 7, 13).await;
    log.control(Control::SetLogStart { offset: 12 }).await.unwrap();
    process.dir.checkpoint().unwrap();
    let folder = log.describe().path;
    drop((log, process));
    let disk = disk.kill();
    flip(&disk, &folder.join("00000000000000000010.log"), 20);
    let process = Process::start(Arc::new(disk.clone()));
    let found = whole(&process);
    assert_eq!((found.end, found.known_end), (12, 13));
    let log = process.dir.cut_damaged(id(0), 12).unwrap().unwrap();
    assert_eq!((log.ends().log_start, log.ends().log_end), (12, 12));
    drop((log, process));
    let process = Process::start(Arc::new(disk.kill()));
    let log = process.lead(0, 2).await;
    assert_eq!(produce(&log, batch("next", 1)).await.unwrap().base_offset, 12);
}

#[tokio::test]
async fn two_folders_of_one_partition_are_nothing_to_cut() {
    let (disk, _, folder) = killed(6, 3, Some(2)).await;
    let (rest, _) = folder.to_str().unwrap().rsplit_once('.').unwrap();
    let twin = PathBuf::from(format!("{rest}.00000000000000aa"));
    disk.create_dir(&twin).unwrap();
    disk.open(&twin.join("00000000000000000000.log"), Access::CreateNew)
        .unwrap()
        .write_all_at(&[0; 9], 0)
        .unwrap();
    let process = Process::start(Arc::new(disk));
    assert_eq!(process.report.damaged.len(), 2);
    assert!(process.report.damaged.iter().all(|one| one.whole.is_none()));
    // Nobody knows which is whole how far; how far one of them went is known.
    assert_eq!(process.dir.known_end_damaged(id(0)), Some(2));
    assert!(process.dir.cut_damaged(id(0), 0).unwrap().is_none());
}
