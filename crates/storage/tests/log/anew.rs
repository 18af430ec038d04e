//! A log that a power loss has made begin anew: what was written beside segments that a cut took away before says
//! nothing of the ones that come to begin where they did.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use weir_io::{Disk, Effect, Fault, FaultDisk, MemDisk, Op, Rule, Survival};
use weir_storage::{Acks, Control, LogConfig, Partition, inspect};
use weir_types::Durability;

use crate::support::*;

/// What is known of a segment is written down when it has grown by so much, bytes: soon, or never here.
const NOTED: u64 = 300;
const NOT_NOTED: u64 = 64 << 20;

fn start(mem: &MemDisk, note_every_bytes: u64) -> Process {
    Process::start_with(Arc::new(mem.clone()), |options| {
        options.note_every_bytes = note_every_bytes;
        options.checkpoint_interval = Duration::from_secs(1);
        options.retention_interval = Duration::from_secs(100_000);
    })
    .unwrap()
}

/// Appends so many frames of 200 bytes, in one group, and waits until the leader has them.
async fn fill_uncommitted(log: &Partition, frames: usize) {
    let (appends, answers): (Vec<_>, Vec<_>) =
        (0..frames).map(|_| append(batch(vec![7; 112], 1), Acks::Leader)).unzip();
    log.submit(appends);
    for answer in answers {
        answer.await.unwrap().unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_generation_is_not_given_twice() {
    let mem = MemDisk::new(1);
    let process = start(&mem, NOTED);
    // Ten frames of 200 bytes a segment.
    let small = LogConfig { segment_bytes: 2_000, ..config(Durability::Replicated) };
    let log = process.create(0, small.clone()).await;
    log.control(Control::SetAdmission(Box::new(Leader { epoch: 1, holds_at: Some(2) }))).await.unwrap();
    fill_uncommitted(&log, 17).await;
    // The second segment begins at 10; what is known of it up to 17 is written down.
    tokio::time::sleep(Duration::from_secs(10)).await;
    let folder = log.describe().path;
    assert!(mem.exists(&folder.join("00000000000000000010.tail")).unwrap());
    // Another leader's history parts at 3: a cut.
    log.control(Control::Truncate { to: 3, below_high_watermark: false, following: None }).await.unwrap();
    lead(&log, 2).await;
    fill_uncommitted(&log, 5).await;
    log.control(Control::SetLogStart { offset: 7 }).await.unwrap();
    // The power goes before the rest is durable: the log begins anew at 7.
    let mem = mem.power_loss(Survival::Nothing);
    let process = start(&mem, NOTED);
    assert_eq!(process.report.damaged, []);
    let log = process.dir.partition(id(0)).unwrap();
    assert_eq!((log.ends().log_start, log.ends().log_end), (7, 7));
    log.control(Control::Configure(small)).await.unwrap();
    lead(&log, 3).await;
    for _ in 0..3 {
        produce(&log, batch(vec![8; 112], 1)).await.unwrap();
    }
    log.control(Control::Roll).await.unwrap();
    // A segment begins at 10 again.
    for _ in 0..2 {
        produce(&log, batch(vec![9; 112], 1)).await.unwrap();
    }
    let mem = mem.kill();
    let process = start(&mem, NOTED);
    assert_eq!(process.report.damaged, [], "a healthy log");
    assert_eq!(process.dir.partition(id(0)).unwrap().ends().log_end, 12);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_acknowledged_for_what_a_history_that_was_cut_off_held() {
    let mem = MemDisk::new(1);
    let process = start(&mem, NOTED);
    let small = LogConfig { segment_bytes: 2_000, ..config(Durability::Replicated) };
    let log = process.create(0, small.clone()).await;
    log.control(Control::SetAdmission(Box::new(Leader { epoch: 1, holds_at: Some(2) }))).await.unwrap();
    fill_uncommitted(&log, 12).await;
    // A producer's first batch, at offset 12: never committed.
    let (first, unanswered) = append(by(42, 0, 0, batch(vec![42; 112], 1)), Acks::All);
    log.submit(vec![first]);
    fill_uncommitted(&log, 4).await;
    tokio::time::sleep(Duration::from_secs(10)).await;
    log.control(Control::Truncate { to: 3, below_high_watermark: false, following: None }).await.unwrap();
    assert!(unanswered.await.unwrap().is_err(), "it was cut off");
    lead(&log, 2).await;
    fill_uncommitted(&log, 5).await;
    log.control(Control::SetLogStart { offset: 7 }).await.unwrap();
    let mem = mem.power_loss(Survival::Nothing);
    // No note is due here.
    let process = start(&mem, NOT_NOTED);
    let log = process.dir.partition(id(0)).unwrap();
    assert_eq!((log.ends().log_start, log.ends().log_end), (7, 7));
    log.control(Control::Configure(small)).await.unwrap();
    lead(&log, 3).await;
    for _ in 0..3 {
        produce(&log, batch(vec![8; 112], 1)).await.unwrap();
    }
    log.control(Control::Roll).await.unwrap();
    for _ in 0..9 {
        produce(&log, batch(vec![9; 112], 1)).await.unwrap();
    }
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert_eq!(log.ends().flushed_end, 19);
    let process = start(&mem.kill(), NOT_NOTED);
    assert_eq!(process.report.damaged, []);
    let log = process.lead(0, 4).await;
    // The producer tries again what was cut off.
    let again = produce(&log, by(42, 0, 0, batch(vec![42; 112], 1))).await.unwrap();
    let there = all(&log).await.iter().any(|frame| frame.payload[..] == [42; 112]);
    assert!(there, "acknowledged, and not in the log: {again:?}");
}

/// The generation that a start would find.
fn generation(mem: &MemDisk) -> u64 {
    let found = inspect::directory(mem, Path::new(DIR)).unwrap();
    found.partitions[0].checkpoint.unwrap().generation
}

#[tokio::test(start_paused = true)]
async fn every_cut_and_every_new_beginning_has_a_generation_of_its_own() {
    let mem = MemDisk::new(1);
    let disk = FaultDisk::over_mem(&mem);
    let process = Process::start(Arc::new(disk.clone()));
    let log = process.create(0, config(Durability::Replicated)).await;
    log.control(Control::SetAdmission(Box::new(Leader { epoch: 1, holds_at: Some(2) }))).await.unwrap();
    fill_uncommitted(&log, 5).await;
    process.dir.checkpoint().unwrap();
    assert_eq!(generation(&mem), 0);
    log.control(Control::Truncate { to: 4, below_high_watermark: false, following: None }).await.unwrap();
    assert_eq!(generation(&mem), 1);
    // This one is begun, done, and never said to be done.
    disk.add(Rule::on([Op::Write], Effect::Fail(Fault::Io)).ends_with("checkpoint.tmp").nth(2));
    log.control(Control::Truncate { to: 3, below_high_watermark: false, following: None }).await.unwrap_err();
    let mem = mem.kill();
    assert_eq!(generation(&mem), 1);
    let process = Process::start(Arc::new(mem.clone()));
    assert_eq!((&process.report.damaged, generation(&mem)), (&vec![], 2), "finished by a start");
    let log = process.lead(0, 2).await;
    assert_eq!(log.ends().log_end, 3);
    fill_uncommitted(&log, 5).await;
    log.control(Control::SetLogStart { offset: 6 }).await.unwrap();
    assert_eq!(generation(&mem), 2, "a start that moves cuts nothing off");
    // Nothing behind the start was durable.
    let mem = mem.power_loss(Survival::Nothing);
    let process = Process::start(Arc::new(mem.clone()));
    let ends = process.dir.partition(id(0)).unwrap().ends();
    assert_eq!((ends.log_start, ends.log_end, generation(&mem)), (6, 6, 3), "begun anew");
}

#[tokio::test(start_paused = true)]
async fn a_log_begun_anew_has_nothing_beside_it_that_speaks_of_another_history() {
    let mem = MemDisk::new(1);
    let process = start(&mem, NOT_NOTED);
    let small = LogConfig { segment_bytes: 2_000, ..config(Durability::Replicated) };
    let log = process.create(0, small.clone()).await;
    log.control(Control::SetAdmission(Box::new(Leader { epoch: 1, holds_at: Some(2) }))).await.unwrap();
    fill_uncommitted(&log, 23).await;
    tokio::time::sleep(Duration::from_secs(10)).await;
    let folder = log.describe().path;
    let seal = folder.join("00000000000000000010.seal");
    let said = mem.read(&seal, 1 << 20).unwrap();
    log.control(Control::Truncate { to: 3, below_high_watermark: false, following: None }).await.unwrap();
    assert!(!mem.exists(&seal).unwrap());
    // As a cut would have left it that looks only beside the segments it knows.
    mem.replace_durably(&seal, &said).unwrap();
    lead(&log, 2).await;
    fill_uncommitted(&log, 5).await;
    log.control(Control::SetLogStart { offset: 7 }).await.unwrap();
    let mem = mem.power_loss(Survival::Nothing);
    let process = start(&mem, NOT_NOTED);
    assert_eq!(process.report.damaged, []);
    assert!(!mem.exists(&seal).unwrap());
    let log = process.dir.partition(id(0)).unwrap();
    log.control(Control::Configure(small)).await.unwrap();
    lead(&log, 3).await;
    fill_uncommitted(&log, 3).await;
    log.control(Control::Roll).await.unwrap();
    // A segment begins at 10 again.
    fill_uncommitted(&log, 2).await;
    let process = start(&mem.kill(), NOT_NOTED);
    assert_eq!(process.report.damaged, [], "a healthy log");
    assert_eq!(process.dir.partition(id(0)).unwrap().ends().log_end, 12);
}
