//! A disk without room: what is refused was not done and is not done later, and room can be made.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;
use weir_io::{Disk, Effect, Fault, FaultDisk, MemDisk, Op, Rule};
use weir_runtime::testing::{PATIENCE, Said, TestOs, until};
use weir_storage::{Acks, AppendError, Control, DirOptions, LogConfig, Partition, Refused};
use weir_types::Durability;

use crate::support::*;

/// Five frames a segment.
fn small() -> LogConfig {
    LogConfig { segment_bytes: 1000, ..config(Durability::Fsync) }
}

#[tokio::test]
async fn a_start_that_could_not_be_moved_is_not_moved_later() {
    let mem = MemDisk::new(1);
    let disk = FaultDisk::over_mem(&mem);
    let process = Process::start(Arc::new(disk.clone()));
    let log = process.create(0, small()).await;
    fill_by(&log, 1, 12).await;
    let rule = disk.add(Rule::on([Op::Write], Effect::Fail(Fault::NoSpace)).ends_with("checkpoint.tmp"));
    let said = log.control(Control::SetLogStart { offset: 7 }).await.unwrap_err();
    assert!(said.to_string().contains("checkpoint.tmp"), "{said}");
    assert_eq!((log.ends().log_start, all(&log).await.len()), (0, 12));
    assert!(process.fatal.lock().is_empty());
    disk.remove(rule);
    process.dir.close().await.unwrap();
    let process = Process::start(Arc::new(mem.kill()));
    let log = process.lead(0, 2).await;
    assert_eq!((log.ends().log_start, all(&log).await.len()), (0, 12), "{said}");
}

#[tokio::test]
async fn a_cut_that_had_no_room_to_begin_changes_nothing() {
    // The whole of it, and the copy of what is kept of a sealed segment.
    for ending in ["checkpoint.tmp", ".log.tmp"] {
        let mem = MemDisk::new(1);
        let disk = FaultDisk::over_mem(&mem);
        let process = Process::start(Arc::new(disk.clone()));
        let log = process.create(0, small()).await;
        let held = Leader { epoch: 1, holds_at: Some(2) };
        log.control(Control::SetAdmission(Box::new(held))).await.unwrap();
        let (appends, answers): (Vec<_>, Vec<_>) =
            (0..12).map(|_| append(batch(vec![7; 112], 1), Acks::Leader)).unzip();
        log.submit(appends);
        for answer in answers {
            answer.await.unwrap().unwrap();
        }
        let rule = disk.add(Rule::on([Op::Write], Effect::Fail(Fault::NoSpace)).ends_with(ending));
        log.control(Control::Truncate { to: 3, below_high_watermark: false, following: None })
            .await
            .unwrap_err();
        assert_eq!((log.ends().log_end, all(&log).await.len()), (12, 12), "{ending}");
        assert!(process.fatal.lock().is_empty(), "{ending}");
        disk.remove(rule);
        lead(&log, 2).await;
        assert_eq!(produce(&log, batch("b", 1)).await.unwrap().base_offset, 12);
        let process = Process::start(Arc::new(mem.kill()));
        assert_eq!(all(&process.lead(0, 3).await).await.len(), 13, "{ending}");
    }
}

#[tokio::test]
async fn a_cut_that_cannot_be_finished_acknowledges_nothing_behind_it() {
    for nth in 1..4 {
        let mem = MemDisk::new(1);
        let disk = FaultDisk::over_mem(&mem);
        let process = Process::start(Arc::new(disk.clone()));
        let log = process.create(0, LogConfig::default()).await;
        let held = Leader { epoch: 1, holds_at: Some(2) };
        log.control(Control::SetAdmission(Box::new(held))).await.unwrap();
        for _ in 0..5 {
            let (one, answer) = append(batch("a", 1), Acks::Leader);
            log.submit(vec![one]);
            answer.await.unwrap().unwrap();
        }
        let full = Rule::on([Op::Write], Effect::Fail(Fault::NoSpace)).ends_with("checkpoint.tmp").nth(nth);
        let rule = disk.add(full);
        let cut =
            log.control(Control::Truncate { to: 2, below_high_watermark: false, following: None }).await;
        // A leader that goes on as if nothing had happened.
        let _ = log.control(Control::SetAdmission(Leader::boxed(2))).await;
        let got = produce(&log, batch("b", 1)).await;
        disk.remove(rule);
        assert_eq!(cut.is_ok(), got.is_ok() && log.ends().log_end == 3 || nth == 3, "{cut:?} {got:?}");
        let process = Process::start(Arc::new(mem.kill()));
        assert_eq!(process.report.damaged, []);
        let log = process.lead(0, 3).await;
        if let Ok(got) = got {
            assert!(log.ends().log_end > got.last_offset, "acknowledged at {} and gone", got.last_offset);
        }
    }
}

#[tokio::test]
async fn on_a_disk_without_a_free_page_records_can_be_deleted() {
    for sealed in [true, false] {
        let mem = MemDisk::new(1);
        let process = Process::start(Arc::new(mem.clone()));
        let log = process.create(0, small()).await;
        fill_by(&log, 1, 32).await;
        if sealed {
            process.dir.checkpoint().unwrap();
            log.control(Control::SetLogStart { offset: 1 }).await.unwrap();
            // The last of those that are closed.
            let sidecar = log.describe().path.join("00000000000000000025.seal");
            until("the keeper seals", async || mem.exists(&sidecar).unwrap()).await;
        }
        let space = mem.space(Path::new("/")).unwrap();
        mem.set_capacity(space.total_bytes - space.available_bytes);
        // Again and again: nothing else may take what the checkpoint needs.
        for offset in 11..15 {
            log.control(Control::SetLogStart { offset }).await.unwrap();
            assert_eq!(log.ends().log_start, offset, "sealed {sealed}");
        }
        let process = Process::start(Arc::new(mem.kill()));
        assert_eq!(process.report.damaged, []);
        let log = process.lead(0, 2).await;
        assert_eq!((log.ends().log_start, log.ends().log_end), (14, 32));
        assert!(produce(&log, by(1, 0, 31, batch(vec![7; 112], 1))).await.unwrap().duplicate);
    }
}

#[tokio::test]
async fn a_repetition_of_what_is_in_the_log_is_never_called_not_applied() {
    let disk = FaultDisk::over_mem(&MemDisk::new(1));
    let process = Process::start(Arc::new(disk.clone()));
    let log = process.create(0, config(Durability::Fsync)).await;
    let held = Leader { epoch: 1, holds_at: Some(0) };
    log.control(Control::SetAdmission(Box::new(held))).await.unwrap();
    let (original, first) = append(by(1, 0, 0, batch("a", 1)), Acks::All);
    log.submit(vec![original]);
    let rule = disk.add(Rule::on([Op::Write], Effect::Torn(50, Fault::NoSpace)).ends_with(".log"));
    let (new, refused) = append(batch("b", 1), Acks::All);
    let (again, second) = append(by(1, 0, 0, batch("a", 1)), Acks::All);
    let (both, neither) = append(by(2, 0, 0, batch("c", 1)), Acks::All);
    let (both_again, neither_again) = append(by(2, 0, 0, batch("c", 1)), Acks::All);
    log.submit(vec![new, again, both, both_again]);
    // The write fails: what was judged with it is refused, but what was in the log before it stays there.
    for refused in [refused, neither, neither_again] {
        assert!(matches!(refused.await.unwrap(), Err(AppendError::DiskFull { .. })));
    }
    disk.remove(rule);
    lead(&log, 1).await;
    let first = first.await.unwrap().unwrap();
    let second = second.await.unwrap().unwrap();
    assert_eq!((first.base_offset, second.base_offset, second.duplicate), (0, 0, true));
    // The log is cut or closed below it: nobody knows.
    let held = Leader { epoch: 1, holds_at: Some(1) };
    log.control(Control::SetAdmission(Box::new(held))).await.unwrap();
    let (original, first) = append(by(1, 0, 1, batch("d", 1)), Acks::All);
    let (again, second) = append(by(1, 0, 1, batch("d", 1)), Acks::All);
    log.submit(vec![original, again]);
    log.control(Control::Truncate { to: 1, below_high_watermark: false, following: None }).await.unwrap();
    assert_eq!(first.await.unwrap(), Err(AppendError::Indeterminate));
    assert_eq!(second.await.unwrap(), Err(AppendError::Indeterminate));
}

const MIB: u64 = 1 << 20;
const RESERVED: u64 = 8 * MIB;
const PARTITIONS: i32 = 3;

/// Appends a little everywhere until nothing is taken any more. The bytes that each log then holds.
async fn until_refused(logs: &[Partition]) -> u64 {
    let mut full = false;
    while !full {
        full = true;
        for log in logs {
            match produce(log, batch(vec![7; 128 << 10], 1)).await {
                Ok(_) => full = false,
                Err(AppendError::DiskFull { .. }) => {}
                Err(other) => panic!("{other}"),
            }
        }
    }
    logs.iter().map(|log| log.describe().bytes).sum()
}

fn available(mem: &MemDisk) -> u64 {
    mem.space(Path::new("/")).unwrap().available_bytes
}

#[tokio::test(start_paused = true)]
async fn what_is_reserved_ahead_is_not_taken_from_the_reserve_nor_kept_from_who_needs_it() {
    let mem = MemDisk::new(1);
    mem.set_capacity(64 * MIB);
    let small = |options: &mut DirOptions| options.disk_reserved_bytes = RESERVED;
    let process = Process::start_with(Arc::new(mem.clone()), small).unwrap();
    let mut logs = Vec::new();
    for number in 0..PARTITIONS {
        logs.push(process.create(number, config(Durability::Fsync)).await);
    }
    until_refused(&logs).await;
    let left = available(&mem);
    assert!(left + MIB > RESERVED, "{left} bytes are left");
    // Blocks that were reserved ahead are given back, and taken by whoever writes.
    for _ in 0..8 {
        tokio::time::sleep(Duration::from_secs(2)).await;
        until_refused(&logs[..1]).await;
    }
    let (held, left) = (until_refused(&logs).await, available(&mem));
    assert!(left + MIB > RESERVED, "{left} bytes are left");
    assert!(held + 3 * MIB > 64 * MIB - RESERVED, "{held} bytes are in the logs, {left} are left");
}

#[tokio::test]
async fn a_few_logs_reserve_in_large_pieces_and_many_do_not_fill_the_disk() {
    for (partitions, at_once, then) in [(2, 64 * MIB, 0), (64, 4 * MIB, 0), (1_024, 0, MIB / 2)] {
        let mem = MemDisk::new(1);
        mem.set_capacity(256 << 30);
        let process = Process::start(Arc::new(mem.clone()));
        let mut logs = Vec::new();
        for number in 0..partitions {
            logs.push(process.create(number, config(Durability::Fsync)).await);
        }
        for reserved in [at_once, then] {
            let before = available(&mem);
            produce(&logs[0], batch(vec![7; 40 << 10], 1)).await.unwrap();
            let taken = before - available(&mem);
            // Checkpoints take some, too.
            let what_is_written = 0..=256 << 10;
            assert!(
                what_is_written.contains(&(taken - reserved)),
                "{partitions} partitions: {taken} bytes were taken"
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_killed_process_reserved_ahead_the_next_one_gives_back() {
    let mem = MemDisk::new(1);
    let process = Process::start(Arc::new(mem.clone()));
    let log = process.create(0, config(Durability::Fsync)).await;
    for _ in 0..9 {
        produce(&log, batch(vec![7; 128 << 10], 1)).await.unwrap();
    }
    let mem = mem.kill();
    mem.set_capacity(128 * MIB);
    let options = |options: &mut DirOptions| options.disk_reserved_bytes = 128 * MIB;
    let _process = Process::start_with(Arc::new(mem.clone()), options).unwrap();
    let before = available(&mem);
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(available(&mem) > before + 2 * MIB, "{before}, then {}", available(&mem));
}

#[tokio::test]
pub(crate) async fn a_group_does_not_reach_into_the_reserve() {
    let mem = MemDisk::new(1);
    mem.set_capacity(64 * MIB);
    let process = Process::start_with(Arc::new(mem.clone()), |options| {
        options.disk_reserved_bytes = RESERVED;
        options.preallocate_from_bytes = u64::MAX;
    })
    .unwrap();
    let log = process.create(0, config(Durability::Fsync)).await;
    let mut refused = 0;
    while refused == 0 {
        let group = (0..60).map(|_| append(batch(vec![7; 16 << 10], 1), Acks::All));
        let (appends, answers): (Vec<_>, Vec<_>) = group.unzip();
        log.submit(appends);
        for answer in answers {
            refused += usize::from(answer.await.unwrap().is_err());
        }
    }
    let left = available(&mem);
    assert!(left + (64 << 10) > RESERVED, "{left} bytes are left");
    assert!(left < RESERVED + (64 << 10), "{left} bytes are left, and {refused} appends were refused");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn nobody_waits_for_blocks_that_are_reserved_for_another() {
    let disk = FaultDisk::over_mem(&MemDisk::new(1));
    let os = TestOs::threads(Arc::new(disk.clone())).unwrap();
    let process = Process::start_on(os, |options| options.preallocate_from_bytes = 0).unwrap();
    let slow = process.create(0, config(Durability::Replicated)).await;
    let other = process.create(1, config(Durability::Replicated)).await;
    let reserving = Held::new(&disk, Op::Allocate, &slow.describe().path);
    let waits = tokio::spawn(async move { produce(&slow, batch("a", 1)).await });
    reserving.has_somebody().await;
    let goes_on = tokio::spawn(async move { produce(&other, batch("b", 1)).await });
    timeout(PATIENCE, goes_on).await.expect("it has its own blocks").unwrap().unwrap();
    drop(reserving);
    waits.await.unwrap().unwrap();
    process.dir.close().await.unwrap();
}

#[tokio::test]
async fn who_is_forgotten_follows_from_the_log_also_after_a_group_that_found_no_room() {
    let mem = MemDisk::new(1);
    let disk = FaultDisk::over_mem(&mem);
    let process = Process::start(Arc::new(disk.clone()));
    let log = process.create(0, LogConfig { producers_max: 3, ..config(Durability::Fsync) }).await;
    produce(&log, by(50, 0, 0, batch("a", 1))).await.unwrap();
    let rule = disk.add(Rule::on([Op::Write], Effect::Fail(Fault::NoSpace)).ends_with(".log"));
    let (appends, answers): (Vec<_>, Vec<_>) =
        [90, 1].into_iter().map(|producer| append(by(producer, 0, 0, batch("b", 1)), Acks::All)).unzip();
    log.submit(appends);
    for answer in answers {
        answer.await.unwrap().unwrap_err();
    }
    disk.remove(rule);
    // Producer 1 gets the offset that it had in the group that never was.
    for (offset, producer) in (1..).zip([2, 1, 3, 4]) {
        // Long enough for the longest silent one to go.
        process.os.advance_wall_ms(200_000);
        let receipt = produce(&log, by(producer, 0, 0, batch("c", 1))).await.unwrap();
        assert_eq!(receipt.base_offset, offset);
    }
    let again = produce(&log, by(1, 0, 0, batch("c", 1))).await.unwrap();
    assert_eq!((again.base_offset, again.duplicate), (2, true));
    process.dir.checkpoint().unwrap();
    // The same as a start finds.
    let process = Process::start(Arc::new(mem.kill()));
    let log = process.lead(0, 2).await;
    assert!(produce(&log, by(1, 0, 0, batch("c", 1))).await.unwrap().duplicate);
    let forgotten = produce(&log, by(2, 0, 1, batch("d", 1))).await;
    assert_eq!(forgotten.unwrap_err(), AppendError::Refused(Refused::ProducerUnknown));
}

#[tokio::test(start_paused = true)]
async fn that_a_disk_fills_while_it_is_written_to_is_said_once_and_so_is_that_there_is_room() {
    const RESERVED: u64 = 1 << 20;
    let (notes, mem) = (Said::here(), MemDisk::new(1));
    let start = Process::start_with(Arc::new(mem.clone()), |options| options.disk_reserved_bytes = RESERVED);
    let process = start.unwrap();
    let log = process.create(0, config(Durability::Fsync)).await;
    let space = mem.space(Path::new("/")).unwrap();
    let used = space.total_bytes - space.available_bytes;
    mem.set_capacity(used + 2 * RESERVED);
    let room = process.dir.room_again();
    // It looks.
    tokio::time::sleep(Duration::from_secs(100)).await;
    assert_eq!(notes.count("the disk is full"), 0);
    let mut refused = 0;
    while refused < 5 {
        match produce(&log, batch(vec![7; 10_000], 1)).await {
            Ok(_) => assert_eq!(refused, 0),
            Err(AppendError::DiskFull { .. }) => refused += 1,
            Err(other) => panic!("{other}"),
        }
    }
    tokio::time::sleep(Duration::from_secs(100)).await;
    assert_eq!((notes.count("the disk is full"), notes.count("has room again")), (1, 0));
    assert!(!room.has_changed().unwrap());
    // It stopped short of a batch above what is kept free, and is full all the same: what was set aside goes early.
    assert!(process.dir.space().unwrap().available_bytes >= RESERVED && process.dir.missing_bytes() > 0);
    process.create(1, config(Durability::Fsync)).await;
    process.dir.set_aside(vec![id(1)]).await.unwrap();
    tokio::time::sleep(Duration::from_secs(100)).await;
    assert_eq!(process.dir.stats().strays.get(), 0);
    mem.set_capacity(used + 8 * RESERVED);
    tokio::time::sleep(Duration::from_secs(100)).await;
    assert!(room.has_changed().unwrap(), "who waits for room is told");
    produce(&log, batch(vec![7; 10_000], 1)).await.unwrap();
    assert_eq!((notes.count("the disk is full"), notes.count("has room again")), (1, 1));
    assert_eq!(process.dir.missing_bytes(), 0);
}

#[tokio::test(start_paused = true)]
async fn slow_syncs_are_counted_and_said_seldom() {
    let (notes, mem) = (Said::here(), MemDisk::new(1));
    let start = Process::start_with(Arc::new(mem), |options| options.slow_sync = Duration::ZERO);
    let process = start.unwrap();
    let log = process.create(0, config(Durability::Fsync)).await;
    fill_by(&log, 1, 3).await;
    assert_eq!((process.dir.stats().slow_flushes.get(), notes.count("a sync was slow")), (3, 1));
}
