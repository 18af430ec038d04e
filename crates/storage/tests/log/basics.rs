//! Appending, reading, restarting in order.

use std::sync::Arc;

use crate::support::*;
use tokio::sync::oneshot;
use weir_io::MemDisk;
use weir_storage::{
    Acks, AppendError, Control, Gate, Limit, LogConfig, Progress, ReadError, ReadRequest, Refusal, Refused,
};
use weir_types::Durability;

#[tokio::test]
async fn what_is_appended_is_read() {
    let process = Process::start(Arc::new(MemDisk::new(1)));
    let log = process.create(0, config(Durability::Fsync)).await;
    let first = produce(&log, batch("hello", 3)).await.unwrap();
    assert_eq!((first.base_offset, first.last_offset, first.leader_epoch), (0, 2, 1));
    assert!(first.committed && first.flushed && !first.duplicate);
    let second = produce(&log, batch("world", 1)).await.unwrap();
    assert_eq!(second.base_offset, 3);
    let chunk = read(&log, 1).await;
    assert_eq!(chunk.next_offset, 4);
    let payloads: Vec<_> = chunk.frames().map(|frame| frame.payload).collect();
    assert_eq!(payloads, ["hello", "world"]);
    assert_eq!(chunk.frames().next().unwrap().header.base_offset, 0);
    assert!(read(&log, 4).await.is_empty());
    let request = ReadRequest { from: 5, bytes_max: 10, limit: Limit::HighWatermark };
    assert_eq!(log.read(request).await.unwrap_err(), ReadError::OutOfRange { log_start: 0, end: 4 });
}

#[tokio::test]
async fn class_replicated_is_committed_when_written() {
    let process = Process::start(Arc::new(MemDisk::new(1)));
    let log = process.create(0, config(Durability::Replicated)).await;
    let (one, mut answered) = append(batch("x", 1), Acks::All);
    log.submit(vec![one]);
    let receipt = answered.try_recv().expect("answered at once").unwrap();
    assert!(receipt.committed && !receipt.flushed);
}

#[tokio::test]
async fn a_group_is_one_write_and_answers_in_order() {
    let process = Process::start(Arc::new(MemDisk::new(1)));
    let log = process.create(0, config(Durability::Fsync)).await;
    let (appends, answers): (Vec<_>, Vec<_>) =
        (0..200).map(|n| append(batch(format!("payload {n}"), 2), Acks::All)).unzip();
    log.submit(appends);
    for (n, answer) in answers.into_iter().enumerate() {
        assert_eq!(answer.await.unwrap().unwrap().base_offset, 2 * n as i64);
    }
    assert!(process.dir.stats().append_groups.get() <= 200 / 64 + 1);
    assert_eq!(all(&log).await.len(), 200);
}

#[tokio::test]
async fn nothing_is_admitted_without_a_leader() {
    let process = Process::start(Arc::new(MemDisk::new(1)));
    let log = process.dir.create_partition(id(0), "t", LogConfig::default()).unwrap();
    assert_eq!(produce(&log, batch("x", 1)).await, Err(AppendError::Refused(Refused::NotLeader)));
}

#[tokio::test]
async fn a_repeated_batch_is_told_where_it_was() {
    let process = Process::start(Arc::new(MemDisk::new(1)));
    let log = process.create(0, config(Durability::Fsync)).await;
    let first = produce(&log, by(7, 0, 0, batch("a", 2))).await.unwrap();
    produce(&log, by(7, 0, 2, batch("b", 1))).await.unwrap();
    let again = produce(&log, by(7, 0, 0, batch("a", 2))).await.unwrap();
    assert!(again.duplicate && again.committed);
    assert_eq!((again.base_offset, again.last_offset), (first.base_offset, first.last_offset));
    assert_eq!(
        produce(&log, by(7, 0, 9, batch("z", 1))).await,
        Err(AppendError::Refused(Refused::SequenceGap { expected: 3 }))
    );
    assert_eq!(log.ends().log_end, 3);
}

#[tokio::test]
pub(crate) async fn a_shut_gate_stops_the_row_until_resumed() {
    let process = Process::start(Arc::new(MemDisk::new(1)));
    let log = process.create(0, config(Durability::Fsync)).await;
    let gate = Arc::new(Gate::default());
    let (mut good, good_answer) = append(batch("a", 1), Acks::All);
    let (mut bad, bad_answer) = append(by(1, 0, 5, batch("b", 1)), Acks::All);
    let (mut late, late_answer) = append(batch("c", 1), Acks::All);
    let (mut resumed, resumed_answer) = append(batch("d", 1), Acks::All);
    for append in [&mut good, &mut bad, &mut late, &mut resumed] {
        append.gate = Some(Arc::clone(&gate));
    }
    resumed.resume = true;
    log.submit(vec![good, bad, late, resumed]);
    assert_eq!(good_answer.await.unwrap().unwrap().base_offset, 0);
    assert_eq!(bad_answer.await.unwrap(), Err(AppendError::Refused(Refused::ProducerUnknown)));
    assert_eq!(late_answer.await.unwrap(), Err(AppendError::Poisoned));
    assert_eq!(resumed_answer.await.unwrap().unwrap().base_offset, 1);
}

#[tokio::test]
async fn a_failure_shuts_its_row_once_and_not_again_behind_a_resume() {
    let process = Process::start(Arc::new(MemDisk::new(1)));
    let log = process.create(0, config(Durability::Fsync)).await;
    let gate = Arc::new(Gate::default());
    // One is refused at once, the other when what it was judged by is committed.
    let (mut refused, refused_answer) = append(by(1, 0, 5, batch("b", 1)), Acks::All);
    let (mut resumed, resumed_answer) = append(batch("c", 1), Acks::All);
    let (mut held_back, held_back_answer) = append(batch("d", 1), Acks::All);
    let (mut resumed_again, resumed_again_answer) = append(batch("e", 1), Acks::All);
    held_back.expected_next_offset = Some(99);
    (resumed.resume, resumed_again.resume) = (true, true);
    for append in [&mut refused, &mut resumed, &mut held_back, &mut resumed_again] {
        append.gate = Some(Arc::clone(&gate));
    }
    log.submit(vec![refused, resumed, held_back, resumed_again]);
    assert_eq!(refused_answer.await.unwrap(), Err(AppendError::Refused(Refused::ProducerUnknown)));
    assert_eq!(resumed_answer.await.unwrap().unwrap().base_offset, 0);
    let mismatch = Refused::OffsetMismatch { next: 1 };
    assert_eq!(held_back_answer.await.unwrap(), Err(AppendError::Refused(mismatch)));
    assert_eq!(resumed_again_answer.await.unwrap().unwrap().base_offset, 1);
    let (mut next, next_answer) = append(batch("f", 1), Acks::All);
    next.gate = Some(gate);
    log.submit(vec![next]);
    assert_eq!(next_answer.await.unwrap().unwrap().base_offset, 2);
}

#[tokio::test]
async fn a_refusal_from_outside_takes_its_turn_behind_a_resume() {
    let process = Process::start(Arc::new(MemDisk::new(1)));
    let log = process.create(0, config(Durability::Fsync)).await;
    let gate = Arc::new(Gate::default());
    let (mut bad, _) = append(by(1, 0, 5, batch("b", 1)), Acks::All);
    let (mut resumed, resumed_answer) = append(batch("c", 1), Acks::All);
    let (mut late, late_answer) = append(batch("d", 1), Acks::All);
    resumed.resume = true;
    for append in [&mut bad, &mut resumed, &mut late] {
        append.gate = Some(Arc::clone(&gate));
    }
    let (mut first, first_answer) = append(batch("a", 1), Acks::None);
    let (tell, told) = oneshot::channel();
    let (same, answered) = (log.clone(), first.done);
    first.done = Box::new(move |result| {
        // The owner is at work here: all of this lies in the queue until it comes back to it.
        same.submit(vec![bad, resumed]);
        same.refuse(Refusal { gate, done: Box::new(move || tell.send(()).unwrap()) });
        same.submit(vec![late]);
        answered(result);
    });
    log.submit(vec![first]);
    assert_eq!(first_answer.await.unwrap().unwrap().base_offset, 0);
    told.await.unwrap();
    assert_eq!(resumed_answer.await.unwrap().unwrap().base_offset, 1);
    assert_eq!(late_answer.await.unwrap(), Err(AppendError::Poisoned));
    assert_eq!(log.ends().log_end, 2);
}

#[tokio::test]
pub(crate) async fn after_an_orderly_stop_nothing_is_scanned() {
    let disk = MemDisk::new(1);
    let process = Process::start(Arc::new(disk.clone()));
    assert!(process.report.created && !process.report.clean);
    let small = LogConfig { segment_bytes: 2000, ..config(Durability::Fsync) };
    let log = process.create(0, small).await;
    for n in 0..50 {
        produce(&log, by(7, 0, n, batch(vec![n as u8; 100], 1))).await.unwrap();
    }
    let frames = all(&log).await;
    let epochs = log.epoch_end(1);
    process.dir.close().await.unwrap();
    assert_eq!(produce(&log, batch("late", 1)).await, Err(AppendError::Closed));
    assert!(log.watch().changed().await.is_err());

    let process = Process::start(Arc::new(disk.clone()));
    assert!(process.report.clean, "{:?}", process.report);
    let log = process.lead(0, 2).await;
    assert_eq!(all(&log).await, frames);
    assert_eq!(log.epoch_end(1), epochs);
    let again = produce(&log, by(7, 0, 49, batch(vec![49; 100], 1))).await.unwrap();
    assert!(again.duplicate);
    assert_eq!(produce(&log, by(7, 0, 50, batch("x", 1))).await.unwrap().base_offset, 50);
    drop(process);

    // Killed this time: the same log, with the end scanned.
    let progress = Arc::<Progress>::default();
    let noted = Arc::clone(&progress);
    let process =
        Process::start_with(Arc::new(disk.kill()), |options| options.progress = noted).expect("it opens");
    assert!(!process.report.clean);
    assert_eq!((progress.logs.get(), progress.logs_done.get()), (1, 1));
    assert!(progress.scanned_bytes.get() > 0);
    let log = process.lead(0, 3).await;
    assert_eq!(log.ends().log_end, 51);
    assert!(produce(&log, by(7, 0, 50, batch("x", 1))).await.unwrap().duplicate);
}

#[tokio::test]
async fn large_and_small_frames_are_read_from_any_offset() {
    let process = Process::start(Arc::new(MemDisk::new(1)));
    let log = process.create(0, LogConfig { segment_bytes: 300_000, ..config(Durability::Replicated) }).await;
    let sizes = [10, 70_000, 300, 20_000, 5, 500_000, 100, 16_000, 16_400, 90_000];
    for round in 0..5 {
        for size in sizes {
            produce(&log, batch(vec![round; size], 3)).await.unwrap();
        }
    }
    let end = log.ends().log_end;
    assert_eq!(end, 150);
    for bytes_max in [1, 1000, 40_000, 1 << 20] {
        for from in 0..end {
            let chunk = log.read(ReadRequest { from, bytes_max, limit: Limit::LogEnd }).await.unwrap();
            let frames: Vec<_> = chunk.frames().collect();
            assert_eq!(frames[0].header.base_offset, from / 3 * 3);
            let total: usize = chunk.bytes.len();
            assert!(frames.len() == 1 || total <= bytes_max, "{total} bytes of at most {bytes_max}");
            assert_eq!(frames.last().unwrap().header.next_offset(), chunk.next_offset);
            let size = sizes[(from / 3 % 10) as usize];
            assert_eq!(frames[0].payload.len(), size);
        }
    }
}

#[tokio::test]
async fn a_log_is_cut_and_its_start_moved() {
    let disk = MemDisk::new(1);
    let process = Process::start(Arc::new(disk.clone()));
    let log = process.create(0, LogConfig { segment_bytes: 1000, ..config(Durability::Fsync) }).await;
    let held = Leader { epoch: 1, holds_at: Some(10) };
    log.control(Control::SetAdmission(Box::new(held))).await.unwrap();
    let mut answers = Vec::new();
    for n in 0..40 {
        let (one, answer) = append(batch(vec![n; 100], 1), Acks::All);
        log.submit(vec![one]);
        answers.push(answer);
    }
    let mut answers = answers.into_iter();
    for answer in answers.by_ref().take(10) {
        assert!(answer.await.unwrap().unwrap().committed);
    }
    assert!(
        log.control(Control::Truncate { to: 9, below_high_watermark: false, following: None }).await.is_err()
    );
    for to in [33, 15, 12] {
        log.control(Control::Truncate { to, below_high_watermark: false, following: None }).await.unwrap();
        assert_eq!(log.ends().log_end, to);
        assert_eq!(all(&log).await.len(), to as usize);
    }
    for answer in answers.skip(2) {
        assert_eq!(answer.await.unwrap(), Err(AppendError::Indeterminate));
    }
    lead(&log, 2).await;
    assert_eq!(produce(&log, batch("after", 1)).await.unwrap().base_offset, 12);
    assert_eq!(log.epoch_end(1), (1, 12));
    log.control(Control::SetLogStart { offset: 11 }).await.unwrap();
    assert_eq!(log.ends().log_start, 11);
    assert!(matches!(
        log.read(ReadRequest { from: 10, bytes_max: 1, limit: Limit::HighWatermark }).await,
        Err(ReadError::OutOfRange { log_start: 11, .. })
    ));
    let frames = all(&log).await;
    let process = Process::start(Arc::new(disk.kill()));
    assert_eq!(process.report.damaged, []);
    let log = process.lead(0, 3).await;
    assert_eq!((log.ends().log_start, log.ends().log_end), (11, 13));
    assert_eq!(all(&log).await, frames);
}
