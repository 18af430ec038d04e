//! A log is cut where its history parts from its leader's: what is known of it is what is left of it, whoever looks, and
//! a person may have it cut below its high watermark.

use std::sync::Arc;

use weir_io::{Effect, Fault, FaultDisk, MemDisk, Op, Rule, Survival};
use weir_runtime::testing::TestOs;
use weir_storage::{Acks, Control, Error, Limit, LogConfig, Partition, ReadRequest};
use weir_types::{Durability, LeaderEpoch, Offset};

use crate::support::*;

/// Five frames a segment.
fn small(durability: Durability) -> LogConfig {
    LogConfig { segment_bytes: 1000, ..config(durability) }
}

/// So many frames in one leadership, of which nothing is committed behind `held`.
async fn uncommitted(log: &Partition, epoch: LeaderEpoch, frames: u8, held: Offset) {
    log.control(Control::SetAdmission(Box::new(Leader { epoch, holds_at: Some(held) }))).await.unwrap();
    let (appends, answers): (Vec<_>, Vec<_>) =
        (0..frames).map(|n| append(batch(vec![n ^ epoch as u8; 112], 1), Acks::Leader)).unzip();
    log.submit(appends);
    for answer in answers {
        answer.await.unwrap().unwrap();
    }
}

async fn cut(log: &Partition, to: Offset, below_high_watermark: bool) -> Result<(), Error> {
    log.control(Control::Truncate { to, below_high_watermark, following: None }).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_reads_while_the_log_is_cut_gets_frames_that_are_whole() {
    let disk = FaultDisk::over_mem(&MemDisk::new(1));
    let process = Process::start_on(TestOs::threads(Arc::new(disk.clone())).unwrap(), |_| {}).unwrap();
    let log = process.create(0, config(Durability::Replicated)).await;
    uncommitted(&log, 1, 20, 2).await;
    // It knows where the log ends, and has not read yet.
    disk.add(Rule::on([Op::ReadCached], Effect::Fail(Fault::Io)));
    let reads = Held::first(&disk, Op::Read, &log.describe().path);
    let reader = tokio::spawn({
        let log = log.clone();
        async move { try_all(&log).await }
    });
    reads.has_somebody().await;
    cut(&log, 3, false).await.unwrap();
    uncommitted(&log, 2, 9, 2).await;
    drop(reads);
    let frames = reader.await.unwrap().expect("readable");
    assert_eq!(frames, all(&log).await);
    assert_eq!(frames.len(), 12);
}

#[tokio::test]
async fn an_epoch_ends_with_the_log_though_no_byte_goes() {
    let process = Process::start(Arc::new(MemDisk::new(1)));
    let log = process.create(0, small(Durability::Fsync)).await;
    uncommitted(&log, 1, 7, 2).await;
    uncommitted(&log, 4, 1, 2).await;
    // Twice, faster than anything is appended.
    for (to, last) in [(7, 1), (7, 1), (3, 1), (3, 1)] {
        cut(&log, to, false).await.unwrap();
        assert_eq!((log.last_epoch(), log.epoch_end(9)), (Some(last), (last, to)));
    }
    // Another leader's frames, in an epoch between the two.
    uncommitted(&log, 2, 1, 2).await;
    assert_eq!((log.epoch_end(1), log.epoch_end(3), log.epoch_end(4)), ((1, 3), (2, 4), (2, 4)));
}

#[tokio::test]
async fn a_person_may_have_it_cut_below_the_high_watermark() {
    for durability in [Durability::Fsync, Durability::Replicated] {
        let mem = MemDisk::new(1);
        let process = Process::start(Arc::new(mem.clone()));
        let log = process.create(0, small(durability)).await;
        fill_by(&log, 7, 13).await;
        log.control(Control::SetLogStart { offset: 2 }).await.unwrap();
        assert!(matches!(cut(&log, 8, false).await, Err(Error::OutOfRange { given: 8, min: 13, max: 13 })));
        assert!(matches!(cut(&log, 1, true).await, Err(Error::OutOfRange { given: 1, min: 2, max: 13 })));
        let mut watch = log.watch();
        log.control(Control::SetAdmission(Following::boxed(1))).await.unwrap();
        cut(&log, 8, true).await.unwrap();
        let ends = log.ends();
        assert_eq!((ends.log_start, ends.high_watermark, ends.log_end, ends.flushed_end), (2, 8, 8, 8));
        assert!(watch.has_changed().unwrap());
        watch.mark_unchanged();
        let request = ReadRequest { from: 8, bytes_max: 1000, limit: Limit::HighWatermark };
        assert!(log.read(request).await.unwrap().is_empty());
        // Neither does a start bring it back, nor what was known of who wrote it.
        let process = Process::start(Arc::new(mem.power_loss(Survival::Nothing)));
        let log = process.lead(0, 2).await;
        assert_eq!((log.ends().log_start, log.ends().high_watermark, log.ends().log_end), (2, 8, 8));
        let next = produce(&log, by(7, 0, 8, batch("b", 1))).await.unwrap();
        assert_eq!((next.base_offset, next.duplicate), (8, false));
    }
}

#[tokio::test]
async fn a_cut_below_the_high_watermark_is_done_whole_wherever_it_is_cut_off() {
    for changes in 0..40 {
        let mem = MemDisk::new(changes);
        let disk = FaultDisk::over_mem(&mem);
        let process = Process::start(Arc::new(disk.clone()));
        let log = process.create(0, small(Durability::Fsync)).await;
        fill_by(&log, 7, 13).await;
        process.dir.checkpoint().unwrap();
        disk.die_after(changes);
        let done = cut(&log, 6, true).await.is_ok();
        let died = disk.is_dead();
        drop((log, process));
        let process = Process::start(Arc::new(mem.power_loss(Survival::Drawn(changes))));
        assert_eq!(process.report.damaged, [], "{changes}");
        let log = process.lead(0, 2).await;
        let ends = log.ends();
        assert!(ends.log_end == 6 || !done && ends.log_end == 13, "{changes}: {ends:?}");
        assert_eq!(ends.high_watermark, ends.log_end, "{changes}");
        assert_eq!(all(&log).await.len() as i64, ends.log_end, "{changes}");
        let sequence = ends.log_end as i32;
        let next = produce(&log, by(7, 0, sequence, batch("b", 1))).await.unwrap();
        assert!(!next.duplicate, "{changes}");
        if !died {
            assert!(done);
            return;
        }
    }
    panic!("a cut takes fewer changes than that");
}

#[tokio::test]
async fn a_start_that_was_asked_for_does_not_pass_the_end_of_a_log_that_is_cut() {
    let mem = MemDisk::new(1);
    let process = Process::start(Arc::new(mem.clone()));
    let log = process.create(0, small(Durability::Fsync)).await;
    fill(&log, 13).await;
    // The keeper gets to it when the cut is done, or before it begins.
    let (moved, gone) = tokio::join!(log.control(Control::SetLogStart { offset: 9 }), cut(&log, 4, true));
    let ends = log.ends();
    match (moved, gone) {
        (Err(Error::OutOfRange { given: 9, max: 4, .. }), Ok(())) => assert_eq!(ends.log_end, 4),
        (Ok(()), Err(Error::OutOfRange { given: 4, min: 9, .. })) => assert_eq!(ends.log_start, 9),
        other => panic!("{other:?}: {ends:?}"),
    }
    let process = Process::start(Arc::new(mem.kill()));
    assert_eq!(process.report.damaged, []);
    let again = process.dir.partition(id(0)).unwrap().ends();
    assert_eq!((again.log_start, again.log_end), (ends.log_start, ends.log_end));
}

#[tokio::test]
async fn a_log_is_cut_by_the_leader_that_it_follows_alone() {
    let process = Process::start(Arc::new(MemDisk::new(1)));
    let log = process.create(0, small(Durability::Fsync)).await;
    uncommitted(&log, 1, 7, 2).await;
    let cut = async |epoch| {
        log.control(Control::Truncate { to: 3, below_high_watermark: false, following: Some(epoch) }).await
    };
    // It leads.
    assert!(matches!(cut(1).await, Err(Error::NotFollowed { given: 1, follows: None })));
    // Of which it has heard nothing yet.
    let following = Following { leader: Arc::default(), ..*Following::boxed(6) };
    log.control(Control::SetAdmission(Box::new(following))).await.unwrap();
    assert!(matches!(cut(5).await, Err(Error::NotFollowed { given: 5, follows: Some(6) })));
    assert_eq!(log.ends().log_end, 7);
    cut(6).await.unwrap();
    assert_eq!(log.ends().log_end, 3);
}
