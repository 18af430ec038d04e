//! A replica that begins anew knows what the other one knows there; a damaged one is kept as long as it may be needed.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use weir_io::{Access, Disk, Effect, Fault, FaultDisk, MemDisk, Op, Rule, Survival};
use weir_storage::{Control, Error, LogConfig, Partition, StartState};
use weir_types::{Durability, Offset};

use crate::support::*;

/// Five frames a segment.
fn small() -> LogConfig {
    LogConfig { segment_bytes: 1000, ..config(Durability::Fsync) }
}

/// A log of 13 batches by producer 7, in two leaderships, that begins at an offset.
async fn begun_at(log_start: Offset) -> (Process, Partition) {
    let process = Process::start(Arc::new(MemDisk::new(1)));
    let leader = process.create(0, small()).await;
    fill_by(&leader, 7, 8).await;
    lead(&leader, 3).await;
    for n in 8..13 {
        produce(&leader, by(7, 0, n, batch(vec![n as u8; 112], 1))).await.unwrap();
    }
    leader.control(Control::SetLogStart { offset: log_start }).await.unwrap();
    (process, leader)
}

/// What a leader sends to whoever is to begin where its log begins.
async fn state_of(leader: &Partition) -> StartState {
    StartState::from_bytes(&leader.start_state().await.unwrap().to_bytes()).unwrap()
}

/// A log that is led knows the batches of its producer, those before its start too.
async fn knows_the_producer(log: &Partition, epoch: i32) {
    lead(log, epoch).await;
    for n in 8..13 {
        let again = produce(log, by(7, 0, n, batch(vec![n as u8; 112], 1))).await.unwrap();
        assert_eq!((again.duplicate, again.base_offset), (true, n.into()));
    }
    assert_eq!(produce(log, by(7, 0, 13, batch("b", 1))).await.unwrap().base_offset, 13);
}

fn folders(disk: &MemDisk) -> Vec<String> {
    let entries = disk.list(Path::new(DIR)).unwrap();
    entries.into_iter().filter(|entry| entry.is_dir).map(|entry| entry.name).collect()
}

#[tokio::test]
pub(crate) async fn a_log_that_begins_anew_knows_what_its_leader_knows_there() {
    // At the beginning, within a segment, where one begins, at the end.
    for log_start in [0, 7, 10, 13] {
        let (_leading, leader) = begun_at(log_start).await;
        let state = state_of(&leader).await;
        assert_eq!((state.offset(), state.id()), (log_start, id(0)));
        let mem = MemDisk::new(2);
        let process = Process::start(Arc::new(mem.clone()));
        let old = process.create(0, small()).await;
        fill(&old, 3).await;
        let log = process.dir.start_over("flights", small(), state).await.unwrap();
        assert!(old.is_closed() && old.incarnation() != log.incarnation());
        assert_eq!((log.ends().log_start, log.ends().log_end), (log_start, log_start));
        assert_eq!(log.ends().high_watermark, log_start);
        // As it is, and after a loss of power.
        let process = Process::start(Arc::new(mem.power_loss(Survival::Nothing)));
        assert_eq!((&process.report.damaged, process.report.partitions), (&vec![], 1));
        let log = process.dir.partition(id(0)).unwrap();
        follow(&log, 3).await;
        catch_up(&leader, &log, 3).await;
        for epoch in 0..5 {
            assert_eq!(log.epoch_end(epoch), leader.epoch_end(epoch), "{log_start} {epoch}");
        }
        assert_eq!(state_of(&log).await, state_of(&leader).await);
        knows_the_producer(&log, 4).await;
    }
}

#[tokio::test]
async fn a_start_within_a_frame_is_copied_from_where_the_frame_begins() {
    let process = Process::start(Arc::new(MemDisk::new(1)));
    let leader = process.create(0, small()).await;
    produce(&leader, batch("a", 3)).await.unwrap();
    produce(&leader, batch("b", 3)).await.unwrap();
    leader.control(Control::SetLogStart { offset: 4 }).await.unwrap();
    let state = state_of(&leader).await;
    assert_eq!(state.offset(), 3);
    let other = Process::start(Arc::new(MemDisk::new(2)));
    let log = other.dir.start_over("flights", small(), state).await.unwrap();
    follow(&log, 1).await;
    catch_up(&leader, &log, 1).await;
    log.control(Control::SetLogStart { offset: 4 }).await.unwrap();
    assert_eq!(log.ends().log_start, 4);
    assert_eq!(state_of(&log).await, state_of(&leader).await);
}

#[tokio::test]
async fn cut_off_anywhere_there_is_the_old_log_or_the_new_one() {
    let (_leading, leader) = begun_at(10).await;
    let state = state_of(&leader).await;
    for changes in 0.. {
        let mem = MemDisk::new(changes);
        let disk = FaultDisk::over_mem(&mem);
        let process = Process::start(Arc::new(disk.clone()));
        let old = process.create(0, small()).await;
        fill(&old, 3).await;
        process.dir.checkpoint().unwrap();
        drop(old);
        disk.die_after(changes);
        let done = process.dir.start_over("flights", small(), state.clone()).await.is_ok();
        let died = disk.is_dead();
        drop(process);
        let survival = if changes % 2 == 0 { Survival::Nothing } else { Survival::Drawn(changes) };
        let mem = if changes % 3 == 0 { mem.kill() } else { mem.power_loss(survival) };
        let process = Process::start(Arc::new(mem.clone()));
        assert_eq!(process.report.damaged, [], "{changes}");
        let log = process.dir.partition(id(0)).expect("one of the two");
        let ends = log.ends();
        if ends.log_end == 3 {
            assert!(!done && all(&log).await.len() == 3, "{changes}");
        } else {
            assert_eq!((ends.log_start, ends.log_end), (10, 10), "{changes}");
            follow(&log, 3).await;
            catch_up(&leader, &log, 3).await;
            knows_the_producer(&log, 4).await;
        }
        // Nothing else is left of either.
        drop((log, process));
        let mem = mem.kill();
        let process = Process::start(Arc::new(mem.clone()));
        tokio::time::timeout(Duration::from_secs(60), async {
            while folders(&mem).len() > 1 {
                tokio::task::yield_now().await;
            }
        })
        .await
        .unwrap_or_else(|_| panic!("{changes}: {:?}", folders(&mem)));
        assert_eq!(process.dir.partitions().len(), 1, "{changes}");
        if !died {
            assert!(done && changes > 5);
            return;
        }
    }
}

#[tokio::test]
async fn without_room_the_old_log_stays_as_it_is() {
    let (_leading, leader) = begun_at(10).await;
    let state = state_of(&leader).await;
    for (op, ending) in [(Op::CreateDir, ".begun"), (Op::Create, ".log"), (Op::Write, ".start.tmp")] {
        let disk = FaultDisk::over_mem(&MemDisk::new(2));
        let process = Process::start(Arc::new(disk.clone()));
        let old = process.create(0, small()).await;
        fill(&old, 3).await;
        disk.add(Rule::on([op], Effect::Fail(Fault::NoSpace)).ends_with(ending).once());
        let refused = process.dir.start_over("flights", small(), state.clone()).await;
        assert!(refused.is_err_and(|error| error.is_no_space()), "{ending}");
        assert_eq!(produce(&old, batch("b", 1)).await.unwrap().base_offset, 3, "{ending}");
        process.dir.start_over("flights", small(), state.clone()).await.unwrap();
        assert!(old.is_closed(), "{ending}");
    }
}

#[tokio::test]
async fn a_state_of_the_start_that_does_not_hold_is_damage() {
    let (_leading, leader) = begun_at(10).await;
    let mem = MemDisk::new(2);
    let process = Process::start(Arc::new(mem.clone()));
    let log = process.dir.start_over("flights", small(), state_of(&leader).await).await.unwrap();
    let start = log.describe().path.join("00000000000000000010.start");
    drop(process);
    let mem = mem.kill();
    mem.open(&start, Access::Write).unwrap().write_all_at(&[0xa5], 100).unwrap();
    let process = Process::start(Arc::new(mem));
    assert_eq!(process.report.damaged.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_damaged_log_is_kept_until_its_replica_is_in_sync_again() {
    let mem = MemDisk::new(2);
    let process = Process::start(Arc::new(mem.clone()));
    let log = process.create(0, small()).await;
    fill(&log, 12).await;
    process.dir.checkpoint().unwrap();
    let first = log.describe().path.join("00000000000000000000.log");
    drop((log, process));
    let mem = mem.kill();
    mem.unlink(&first).unwrap();
    let process = Process::start(Arc::new(mem.clone()));
    assert_eq!(process.dir.unusable().len(), 1);
    process.dir.set_damaged_aside(vec![id(0)]).await.unwrap();
    assert_eq!((process.dir.unusable().len(), process.dir.damaged_kept()), (0, vec![id(0)]));
    let again = process.create(0, small()).await;
    fill(&again, 2).await;
    // A start takes it for no log, and does not forget it.
    drop((again, process));
    let process = Process::start(Arc::new(mem.clone()));
    assert_eq!((&process.report.damaged, process.report.partitions), (&vec![], 1));
    assert_eq!(process.dir.damaged_kept(), [id(0)]);
    assert_eq!(folders(&mem).iter().filter(|name| name.ends_with(".damaged")).count(), 1);
    process.dir.delete_damaged(id(0)).unwrap();
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!((process.dir.damaged_kept(), folders(&mem).len()), (vec![], 1));
}

#[tokio::test]
async fn what_takes_the_place_of_a_damaged_log_leaves_it_there() {
    let (_leading, leader) = begun_at(10).await;
    let mem = MemDisk::new(2);
    let process = Process::start(Arc::new(mem.clone()));
    let log = process.create(0, small()).await;
    fill(&log, 12).await;
    process.dir.checkpoint().unwrap();
    let first = log.describe().path.join("00000000000000000000.log");
    drop((log, process));
    let mem = mem.kill();
    mem.unlink(&first).unwrap();
    let process = Process::start(Arc::new(mem.clone()));
    let log = process.dir.start_over("flights", small(), state_of(&leader).await).await.unwrap();
    assert_eq!((process.dir.unusable().len(), process.dir.damaged_kept()), (0, vec![id(0)]));
    follow(&log, 3).await;
    catch_up(&leader, &log, 3).await;
    knows_the_producer(&log, 4).await;
}

#[tokio::test]
async fn of_two_that_begin_it_anew_one_does() {
    let (_leading, leader) = begun_at(10).await;
    let mem = MemDisk::new(2);
    let process = Process::start(Arc::new(mem.clone()));
    let state = state_of(&leader).await;
    let (one, two) = tokio::join!(
        process.dir.start_over("flights", small(), state.clone()),
        process.dir.start_over("flights", small(), state),
    );
    let refused = |tried: &Result<Partition, Error>| matches!(tried, Err(Error::Exists(_)));
    assert!(refused(&one) || refused(&two) || one.unwrap().is_closed());
    drop(process);
    let process = Process::start(Arc::new(mem.kill()));
    assert_eq!((&process.report.damaged, process.report.partitions), (&vec![], 1));
}
