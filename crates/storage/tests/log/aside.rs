//! A damaged log that was set aside is what its replica has, as long as the one in its place has not come as far.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::oneshot;
use weir_io::{Access, Disk, Effect, Fault, FaultDisk, MemDisk, Op, Rule, Survival};
use weir_runtime::Os;
use weir_runtime::testing::{TestOs, until};
use weir_storage::{Frame, Partition};
use weir_types::{LeaderEpoch, Offset};

use crate::cut_off::{files, goes_on, kept, rotten, small, whole};
use crate::support::*;

/// Makes an empty log, which gets so many frames of what a leader wrote.
async fn fetch(process: &Process, written: &[Frame]) -> Partition {
    let log = process.dir.create_partition(id(0), "flights", small()).unwrap();
    follow(&log, 1).await;
    if !written.is_empty() {
        replicate(&log, 1, written.to_vec()).await.unwrap();
        until("it is durable", async || log.ends().flushed_end == written.len() as Offset).await;
    }
    log
}

/// The log is a beginning of what was written.
async fn begins(log: &Partition, written: &[Frame]) {
    let found = all(log).await;
    let bare = |frames: &[Frame]| -> Vec<_> {
        frames.iter().map(|frame| (frame.header.base_offset, frame.payload.clone())).collect()
    };
    assert_eq!(bare(&found), bare(&written[..found.len()]));
}

/// A damaged log that is whole up to 12 of 23 was set aside, and so many frames have been fetched since.
async fn set_aside(seed: u64, fetched: usize) -> (MemDisk, FaultDisk, Process, Vec<Frame>) {
    let (mem, written, _) = rotten(seed, 23, 12).await;
    let disk = FaultDisk::over_mem(&mem);
    let process = Process::start(Arc::new(disk.clone()));
    assert_eq!(whole(&process).end, 12);
    process.dir.set_damaged_aside(vec![id(0)]).await.unwrap();
    fetch(&process, &written[..fetched]).await;
    (mem, disk, process, written)
}

/// How far what is set aside is whole and known to have gone, and in which leadership, if it goes further than what is in
/// its place.
fn told(process: &Process) -> Option<(Offset, Offset, Option<LeaderEpoch>)> {
    let aside = process.dir.further_aside(id(0))?;
    assert!(aside.is_damaged && aside.what.contains("set aside"), "{aside:?}");
    aside.whole.map(|whole| (whole.end, whole.known_end, whole.last_epoch))
}

#[tokio::test]
pub(crate) async fn what_was_set_aside_is_told_of_and_taken_back_as_long_as_it_goes_further() {
    for fetched in [0, 5, 11, 12, 13, 23] {
        let (mem, _, process, written) = set_aside(fetched as u64, fetched).await;
        let expected = (fetched < 12).then_some((12, 23, Some(1)));
        assert_eq!((told(&process), process.dir.known_end_damaged(id(0))), (expected, Some(23)), "{fetched}");
        if fetched % 2 == 1 {
            process.dir.checkpoint().unwrap();
        }
        drop(process);
        // A start looks it up.
        let mem = mem.kill();
        let process = Process::start(Arc::new(mem.clone()));
        assert_eq!((told(&process), process.dir.known_end_damaged(id(0))), (expected, Some(23)), "{fetched}");
        assert_eq!(process.report.damaged, []);
        for at in [0, 11, 13, 23] {
            assert_eq!(process.dir.take_damaged_back(id(0), at).await.unwrap(), None, "{fetched}: {at}");
        }
        let in_place = process.dir.partition(id(0)).unwrap();
        let back = process.dir.take_damaged_back(id(0), 12).await.unwrap();
        assert_eq!(back.is_some(), fetched < 12, "{fetched}");
        if fetched >= 12 {
            assert!(!in_place.is_closed());
            goes_on_as_fetched(&mem, process, &written, fetched).await;
            continue;
        }
        assert!(in_place.is_closed() && process.dir.partition(id(0)).is_none(), "{fetched}");
        assert_eq!(process.dir.unusable(), [back.unwrap()]);
        assert_eq!((process.dir.damaged_kept(), told(&process)), (vec![], None));
        assert!(process.dir.cut_damaged(id(0), 12).unwrap().is_some(), "{fetched}");
        assert_eq!(process.dir.end_before_cut(id(0)), Some(23));
        drop((in_place, process));
        let mem = mem.kill();
        goes_on(mem.clone(), &written, 12).await;
        assert_eq!(kept(&mem.kill()).len(), 1, "{fetched}: what was cut off");
    }
}

async fn goes_on_as_fetched(mem: &MemDisk, process: Process, written: &[Frame], fetched: usize) {
    drop(process);
    let process = Process::start(Arc::new(mem.kill()));
    let log = process.dir.partition(id(0)).unwrap();
    assert_eq!(log.ends().log_end, fetched as Offset);
    begins(&log, written).await;
    assert_eq!(process.dir.damaged_kept(), [id(0)]);
}

#[tokio::test]
async fn cut_off_anywhere_on_its_way_back_it_is_told_of_and_can_be_taken() {
    let (mut seen, mut last) = ([0; 4], false);
    for changes in 0.. {
        let (mem, disk, process, written) = set_aside(changes, 5).await;
        disk.die_after(changes);
        let done = match process.dir.take_damaged_back(id(0), 12).await {
            Ok(Some(_)) => process.dir.cut_damaged(id(0), 12).is_ok_and(|cut| cut.is_some()),
            _ => false,
        };
        let died = disk.is_dead();
        drop(process);
        let survival = if changes % 2 == 0 { Survival::Nothing } else { Survival::Drawn(changes) };
        let mem = if changes % 3 == 0 { mem.kill() } else { mem.power_loss(survival) };
        let process = Process::start(Arc::new(mem.clone()));
        let is_damaged = !process.report.damaged.is_empty();
        let found = match (is_damaged, process.dir.partition(id(0))) {
            (true, None) => 2,
            (false, Some(log)) if log.ends().log_end == 12 => 3,
            (false, Some(log)) => {
                begins(&log, &written).await;
                0
            }
            (false, None) => 1,
            (true, Some(_)) => panic!("{changes}: two logs"),
        };
        seen[found] += 1;
        assert!(!done || found == 3, "{changes}: {found}");
        if found < 2 {
            assert_eq!(told(&process), Some((12, 23, Some(1))), "{changes}");
            assert!(process.dir.take_damaged_back(id(0), 12).await.unwrap().is_some(), "{changes}");
        }
        if found < 3 {
            let damaged = process.dir.unusable().pop().and_then(|damaged| damaged.whole).unwrap();
            assert_eq!((damaged.end, damaged.known_end), (12, 23), "{changes}");
            assert!(process.dir.cut_damaged(id(0), 12).unwrap().is_some(), "{changes}");
        }
        assert_eq!(process.dir.end_before_cut(id(0)), Some(23), "{changes}");
        drop(process);
        let mem = mem.kill();
        goes_on(mem.clone(), &written, 12).await;
        assert_eq!(kept(&mem.kill()).len(), 1, "{changes}");
        last = !died;
        if last {
            assert!(done, "{changes}");
            break;
        }
    }
    assert!(last && seen.iter().all(|times| *times > 0), "each state is met: {seen:?}");
}

#[tokio::test]
async fn of_several_the_one_that_is_whole_furthest_is_told_of_and_the_others_stay() {
    let (mem, _, process, written) = set_aside(1, 8).await;
    process.dir.checkpoint().unwrap();
    let folder = process.dir.partition(id(0)).unwrap().describe().path;
    drop(process);
    // What was fetched rots as well.
    let mem = mem.kill();
    let file = mem.open(&folder.join("00000000000000000000.log"), Access::Write).unwrap();
    file.set_len(700).unwrap();
    file.sync_all().unwrap();
    let process = Process::start(Arc::new(mem.clone()));
    assert_eq!((whole(&process).end, told(&process)), (3, Some((12, 23, Some(1)))));
    // It is set aside like the first one: no matter which of them comes later.
    process.dir.set_damaged_aside(vec![id(0)]).await.unwrap();
    fetch(&process, &written[..2]).await;
    assert_eq!((told(&process), kept(&mem).len()), (Some((12, 23, Some(1))), 2));
    drop(process);
    let mem = mem.kill();
    let process = Process::start(Arc::new(mem.clone()));
    assert_eq!(told(&process), Some((12, 23, Some(1))));
    assert!(process.dir.take_damaged_back(id(0), 12).await.unwrap().is_some());
    assert_eq!((told(&process), process.dir.damaged_kept()), (None, vec![id(0)]));
    assert!(process.dir.cut_damaged(id(0), 12).unwrap().is_some());
    process.dir.delete_damaged(id(0)).unwrap();
    drop(process);
    goes_on(mem.kill(), &written, 12).await;
}

#[tokio::test]
async fn a_damaged_log_that_is_taken_the_place_of_is_set_aside_too() {
    let (mem, _, process, written) = set_aside(1, 8).await;
    process.dir.checkpoint().unwrap();
    let folder = process.dir.partition(id(0)).unwrap().describe().path;
    drop(process);
    let mem = mem.kill();
    mem.unlink(&folder.join("00000000000000000000.log")).unwrap();
    let process = Process::start(Arc::new(mem.clone()));
    assert_eq!((process.report.damaged.len(), told(&process)), (1, Some((12, 23, Some(1)))));
    let before = files(&mem, &folder);
    assert!(process.dir.take_damaged_back(id(0), 12).await.unwrap().is_some());
    assert_eq!((process.dir.unusable().len(), process.dir.damaged_kept()), (1, vec![id(0)]));
    let [aside] = kept(&mem).try_into().unwrap();
    assert_eq!(files(&mem, &aside), before);
    assert!(process.dir.cut_damaged(id(0), 12).unwrap().is_some());
    drop(process);
    goes_on(mem.kill(), &written, 12).await;
}

#[tokio::test]
async fn what_cannot_be_renamed_is_opened_again_and_it_is_said() {
    let (mem, disk, process, written) = set_aside(4, 5).await;
    let full = || Rule::on([Op::Rename], Effect::Fail(Fault::NoSpace)).once();
    disk.add(full().path(move |path| !is_aside(path) && path.to_string_lossy().contains("flights-0")));
    let refused = process.dir.take_damaged_back(id(0), 12).await.unwrap_err();
    assert!(refused.is_no_space(), "{refused}");
    assert_eq!(told(&process), None, "what is in its place may be whole");
    let log = process.dir.reopen(id(0)).unwrap().expect("it is as it was");
    assert_eq!(log.ends().log_end, 5);
    begins(&log, &written).await;
    let aside = process.dir.further_aside(id(0)).unwrap();
    assert_eq!(aside.what.matches("it could not be cut: ").count(), 1, "{aside:?}");
    // What has made way for it has its place again.
    disk.add(full().path(is_aside));
    let refused = process.dir.take_damaged_back(id(0), 12).await.unwrap_err();
    assert!(refused.is_no_space() && log.is_closed(), "{refused}");
    let log = process.dir.reopen(id(0)).unwrap().expect("it is as it was");
    begins(&log, &written).await;
    assert_eq!((log.ends().log_end, told(&process)), (5, Some((12, 23, Some(1)))));
    // That may fail as well: there is nothing in its place any more, but it is there.
    disk.add(full().path(is_aside));
    disk.add(full().path(|path| path.to_string_lossy().ends_with(".deleted")));
    let refused = process.dir.take_damaged_back(id(0), 12).await.unwrap_err();
    assert!(refused.is_no_space() && log.is_closed(), "{refused}");
    assert_eq!((process.dir.unusable(), told(&process)), (vec![], Some((12, 23, Some(1)))));
    assert!(process.dir.partition(id(0)).is_none() && process.dir.reopen(id(0)).unwrap().is_none());
    let back = process.dir.take_damaged_back(id(0), 12).await.unwrap().unwrap();
    assert!(!back.what.contains("it could not be cut"), "that is over: {back:?}");
    assert!(process.dir.cut_damaged(id(0), 12).unwrap().is_some());
    drop((log, process));
    goes_on(mem.kill(), &written, 12).await;
}

#[tokio::test]
async fn what_somebody_has_taken_away_takes_nobodys_place_and_is_forgotten() {
    for taken_back in [true, false] {
        let (mem, _, process, written) = set_aside(6, 5).await;
        let [aside] = kept(&mem).try_into().unwrap();
        mem.rename(&aside, Path::new("/elsewhere")).unwrap();
        if taken_back {
            let refused = process.dir.take_damaged_back(id(0), 12).await.unwrap_err().to_string();
            assert!(refused.contains("is not there any more"), "{refused}");
        } else {
            process.dir.delete_damaged(id(0)).unwrap();
        }
        let log = process.dir.partition(id(0)).unwrap();
        begins(&log, &written).await;
        assert!(!log.is_closed() && log.ends().log_end == 5);
        assert_eq!((told(&process), process.dir.damaged_kept()), (None, vec![]));
    }
}

fn is_aside(path: &Path) -> bool {
    path.to_string_lossy().ends_with(".damaged")
}

/// The disk does not let anybody see what is set aside.
fn unseen() -> Rule {
    Rule::on([Op::List], Effect::Fail(Fault::Io)).path(is_aside)
}

#[tokio::test]
pub(crate) async fn what_nobody_knows_to_be_whole_counts_until_the_other_one_has_come_as_far_as_it_went() {
    // The checkpoint says that it went to 22.
    for fetched in [0, 5, 21, 22] {
        let (mem, _, process, _) = set_aside(fetched as u64, fetched).await;
        drop(process);
        let mem = mem.kill();
        let disk = FaultDisk::over_mem(&mem);
        let rule = disk.add(unseen());
        let process = Process::start(Arc::new(disk.clone()));
        assert_eq!(process.dir.known_end_damaged(id(0)), Some(22));
        let aside = process.dir.further_aside(id(0));
        assert_eq!(aside.is_some(), fetched < 22, "{fetched}");
        for at in [0, 12, 22] {
            assert_eq!(process.dir.take_damaged_back(id(0), at).await.unwrap(), None, "{fetched}: {at}");
        }
        let Some(aside) = aside else { continue };
        assert_eq!(aside.whole, None);
        for said in ["nobody knows how far", "flights-0.", ": list: ", "move it away"] {
            assert!(aside.what.contains(said), "{said}: {}", aside.what);
        }
        // It is looked at again when somebody asks.
        disk.remove(rule);
        let is_seen = async || process.dir.further_aside(id(0)).is_none_or(|aside| aside.whole.is_some());
        until("it is seen", is_seen).await;
        assert_eq!(told(&process), (fetched < 12).then_some((12, 23, Some(1))));
        assert_eq!(process.dir.known_end_damaged(id(0)), Some(23));
    }
}

#[tokio::test]
async fn what_nobody_knows_to_be_whole_counts_no_more_once_it_was_moved_away() {
    let (mem, _, process, _) = set_aside(1, 5).await;
    drop(process);
    let mem = mem.kill();
    let disk = FaultDisk::over_mem(&mem);
    disk.add(unseen());
    let process = Process::start(Arc::new(disk));
    assert!(process.dir.further_aside(id(0)).is_some());
    let [aside] = kept(&mem).try_into().unwrap();
    mem.rename(&aside, Path::new("/elsewhere")).unwrap();
    until("it is forgotten", async || process.dir.further_aside(id(0)).is_none()).await;
    assert_eq!((process.dir.damaged_kept(), process.dir.known_end_damaged(id(0))), (vec![], None));
}

/// It goes from one map to the other and back while another thread writes down what is known.
#[tokio::test]
async fn a_checkpoint_misses_no_log_that_is_set_aside_or_taken_back_meanwhile() {
    let (mem, _, process, _) = set_aside(7, 0).await;
    let (dir, over) = (process.dir.clone(), Arc::new(AtomicBool::new(false)));
    let (is_over, (tell, told)) = (Arc::clone(&over), oneshot::channel());
    let threads = TestOs::threads(Arc::new(mem.clone())).unwrap();
    threads.block(Box::new(move || {
        while !is_over.load(Ordering::Acquire) {
            dir.checkpoint().unwrap();
        }
        tell.send(()).unwrap();
    }));
    // With others who ask it waits between the two maps.
    for _ in 0..2 {
        let (dir, is_over) = (process.dir.clone(), Arc::clone(&over));
        threads.block(Box::new(move || {
            while !is_over.load(Ordering::Acquire) {
                dir.damaged_kept();
            }
        }));
    }
    for _ in 0..5_000 {
        assert!(process.dir.take_damaged_back(id(0), 12).await.unwrap().is_some());
        process.dir.set_damaged_aside(vec![id(0)]).await.unwrap();
    }
    over.store(true, Ordering::Release);
    told.await.unwrap();
    drop(process);
    let disk = FaultDisk::over_mem(&mem.kill());
    disk.add(unseen());
    // Only the checkpoint says how far it went.
    assert_eq!(Process::start(Arc::new(disk)).dir.known_end_damaged(id(0)), Some(22));
}

/// The one in its place is deleted by and by, and never taken for a log again.
#[tokio::test(start_paused = true)]
async fn what_was_in_its_place_goes() {
    let (mem, _, process, _) = set_aside(5, 5).await;
    assert!(process.dir.take_damaged_back(id(0), 12).await.unwrap().is_some());
    tokio::time::sleep(Duration::from_secs(10)).await;
    let folders = mem.list(Path::new(DIR)).unwrap().into_iter().filter(|entry| entry.is_dir);
    let folders: Vec<_> = folders.map(|entry| Path::new(DIR).join(entry.name)).collect();
    assert_eq!(folders, [process.dir.unusable()[0].path.clone()]);
}

/// One that was in use until then, and of which the last checkpoint knows less.
#[tokio::test]
async fn how_far_a_log_went_that_was_in_use_is_known_whatever_becomes_of_it() {
    let mem = MemDisk::new(1);
    let disk = FaultDisk::over_mem(&mem);
    let process = Process::start(Arc::new(disk.clone()));
    let log = process.create(0, small()).await;
    process.dir.checkpoint().unwrap();
    fill(&log, 5).await;
    disk.add(unseen());
    process.dir.set_damaged_aside(vec![id(0)]).await.unwrap();
    assert!(log.is_closed());
    process.dir.create_partition(id(0), "flights", small()).unwrap();
    let is_looked_at = async || process.dir.further_aside_still(id(0)).unwrap().what.contains(": list: ");
    until("it was looked at in vain", is_looked_at).await;
    drop(process);
    let disk = FaultDisk::over_mem(&mem.kill());
    disk.add(unseen());
    let process = Process::start(Arc::new(disk));
    assert_eq!(process.dir.known_end_damaged(id(0)), Some(5));
    assert!(process.dir.further_aside(id(0)).is_some(), "the empty one has not come as far");
}

#[tokio::test]
async fn many_are_set_aside_for_one_sync_and_one_that_cannot_be_holds_up_no_other() {
    let disk = FaultDisk::over_mem(&MemDisk::new(1));
    let process = Process::start(Arc::new(disk.clone()));
    let wanted = (0..100).map(|number| (id(number), "flights".to_owned(), small()));
    process.dir.create_partitions(wanted).unwrap();
    // What is new is in it before long: not meanwhile.
    process.dir.checkpoint().unwrap();
    let fails = Rule::on([Op::Rename], Effect::Fail(Fault::NoSpace));
    let fails = disk.add(fails.path(|path| path.to_string_lossy().contains("flights-7.")));
    disk.start_trace();
    let failed = process.dir.set_damaged_aside((0..100).map(id).collect()).await.unwrap();
    let trace = disk.take_trace();
    assert_eq!(failed.iter().map(|(id, _)| id.partition).collect::<Vec<_>>(), [7]);
    assert_eq!(trace.iter().filter(|event| event.op == Op::SyncDir).count(), 1);
    assert_eq!((process.dir.damaged_kept().len(), process.dir.is_all_aside(id(7))), (99, false));
    disk.remove(fails);
    assert!(process.dir.set_damaged_aside(vec![id(7)]).await.unwrap().is_empty());
    assert_eq!((process.dir.damaged_kept().len(), process.dir.is_all_aside(id(7))), (100, true));
}
