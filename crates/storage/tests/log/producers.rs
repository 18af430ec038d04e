//! More producers than a log remembers: nobody's first batch is taken for new because others have come in between.

use std::sync::Arc;
use std::time::Duration;

use weir_io::MemDisk;
use weir_storage::{AppendError, LogConfig, Outcome, OutcomeQuery, Partition, Refused, UnknownCause};
use weir_types::{Durability, Producer, ProducerId};

use crate::support::*;

const MINUTE_MS: i64 = 60_000;
const YEARS_MS: i64 = 73 * 365 * 24 * 60 * MINUTE_MS;

const FULL: AppendError = AppendError::Refused(Refused::ProducersTooMany { max: 3 });

fn three() -> LogConfig {
    LogConfig { producers_max: 3, ..config(Durability::Fsync) }
}

/// A batch of one record: its offset, and whether it was there.
async fn sends(log: &Partition, producer: i64, sequence: i32) -> Result<(i64, bool), AppendError> {
    let batch = by(producer, 0, sequence, batch(vec![producer as u8], 1));
    produce(log, batch).await.map(|receipt| (receipt.base_offset, receipt.duplicate))
}

#[tokio::test]
async fn a_first_batch_that_is_sent_again_is_a_duplicate_however_many_have_come_since() {
    let mem = MemDisk::new(1);
    let process = Process::start(Arc::new(mem.clone()));
    let log = process.create(0, three()).await;
    for (offset, producer) in [1, 2, 3].into_iter().enumerate() {
        assert_eq!(sends(&log, producer, 0).await, Ok((offset as i64, false)));
        process.os.advance_wall_ms(MINUTE_MS);
    }
    for newcomer in 4..10 {
        assert_eq!(sends(&log, newcomer, 0).await, Err(FULL));
    }
    // Nor is room made by asking for what became of a batch that never was.
    let producer = Producer { id: ProducerId(4), epoch: 0 };
    let query = OutcomeQuery { producer, base_sequence: 0, seal: true };
    assert_eq!(log.append_outcome(query).await.unwrap(), Err(FULL));
    assert_eq!(sends(&log, 1, 0).await, Ok((0, true)));
    assert_eq!(sends(&log, 2, 1).await, Ok((3, false)), "who is known writes on");
    // Without a producer there is no question.
    assert!(produce(&log, batch("x", 1)).await.is_ok());
    process.dir.checkpoint().unwrap();
    let now_ms = weir_runtime::Os::wall_ms(&process.os);
    // A start knows the same.
    let process = Process::start(Arc::new(mem.kill()));
    process.os.set_wall_ms(now_ms);
    let log = process.lead(0, 2).await;
    assert_eq!(sends(&log, 4, 0).await, Err(FULL));
    assert_eq!(sends(&log, 1, 0).await, Ok((0, true)));
}

#[tokio::test]
async fn who_has_been_silent_for_ten_minutes_makes_room_for_one_that_is_new() {
    let process = Process::start(Arc::new(MemDisk::new(1)));
    let log = process.create(0, three()).await;
    for producer in [1, 2, 3] {
        sends(&log, producer, 0).await.unwrap();
        process.os.advance_wall_ms(MINUTE_MS);
    }
    process.os.advance_wall_ms(7 * MINUTE_MS - 1);
    assert_eq!(sends(&log, 4, 0).await, Err(FULL));
    process.os.advance_wall_ms(1);
    assert_eq!(sends(&log, 4, 0).await, Ok((3, false)));
    assert_eq!(sends(&log, 5, 0).await, Err(FULL), "one goes for one that comes");
    // It is told that it was forgotten.
    assert_eq!(sends(&log, 1, 1).await, Err(AppendError::Refused(Refused::ProducerUnknown)));
    let query =
        OutcomeQuery { producer: Producer { id: ProducerId(1), epoch: 0 }, base_sequence: 0, seal: false };
    let outcome = log.append_outcome(query).await.unwrap();
    assert_eq!(outcome, Ok(Outcome::Unknown(UnknownCause::Expired)));
}

/// A process whose clock is believed whenever it is set.
fn believing(disk: MemDisk) -> Process {
    Process::start_with(Arc::new(disk), |options| options.retention_pause = Duration::ZERO).unwrap()
}

async fn asks(log: &Partition, producer: i64, seal: bool) -> Result<Outcome, AppendError> {
    let producer = Producer { id: ProducerId(producer), epoch: 0 };
    let query = OutcomeQuery { producer, base_sequence: 0, seal };
    tokio::time::timeout(Duration::from_secs(60), log.append_outcome(query)).await.unwrap().unwrap()
}

/// Whose first batch this log remembers.
async fn remembered(log: &Partition) -> Vec<i64> {
    let mut found = Vec::new();
    for producer in 1..10 {
        if matches!(asks(log, producer, false).await, Ok(Outcome::Appended(_))) {
            found.push(producer);
        }
    }
    found
}

#[tokio::test(start_paused = true)]
async fn a_partition_that_a_wrong_clock_has_filled_has_room_ten_minutes_after_it_was_set_right() {
    let mem = MemDisk::new(1);
    let process = believing(mem.clone());
    let log = process.create(0, three()).await;
    process.os.advance_wall_ms(YEARS_MS);
    for producer in [1, 2, 3] {
        sends(&log, producer, 0).await.unwrap();
    }
    process.os.advance_wall_ms(-YEARS_MS);
    // The frame that the time goes back with is let in, and nobody goes: how old they are is not known.
    assert_eq!(sends(&log, 4, 0).await, Ok((3, false)));
    assert_eq!(process.dir.stats().time_steps_back.get(), 1);
    process.os.advance_wall_ms(10 * MINUTE_MS - 1);
    assert_eq!(sends(&log, 5, 0).await, Err(FULL));
    assert_eq!((sends(&log, 1, 0).await, remembered(&log).await), (Ok((0, true)), vec![1, 2, 3, 4]));
    process.os.advance_wall_ms(1);
    assert_eq!((sends(&log, 5, 0).await, remembered(&log).await), (Ok((4, false)), vec![3, 4, 5]));
    // A start that reads the frames, and one that reads what was written down, know the same.
    let now_ms = weir_runtime::Os::wall_ms(&process.os);
    let (mut process, mut mem) = (process, mem);
    for clean in [false, true] {
        if clean {
            process.dir.close().await.unwrap();
        }
        mem = mem.kill();
        process = believing(mem.clone());
        assert_eq!(process.report.clean, clean);
        process.os.set_wall_ms(now_ms);
        assert_eq!(remembered(&process.lead(0, 2).await).await, [3, 4, 5]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_fence_for_somebody_new_takes_the_time_back_as_well() {
    let process = believing(MemDisk::new(1));
    let log = process.create(0, three()).await;
    process.os.advance_wall_ms(YEARS_MS);
    for producer in [1, 2, 3] {
        sends(&log, producer, 0).await.unwrap();
    }
    // As long as the clock stays, nobody becomes older.
    assert_eq!(asks(&log, 4, true).await, Err(FULL));
    process.os.advance_wall_ms(-YEARS_MS);
    assert_eq!(asks(&log, 4, true).await, Ok(Outcome::Never { next_epoch: 1 }));
    assert_eq!(asks(&log, 5, true).await, Err(FULL));
    process.os.advance_wall_ms(10 * MINUTE_MS);
    assert_eq!(asks(&log, 5, true).await, Ok(Outcome::Never { next_epoch: 1 }));
}

#[tokio::test(start_paused = true)]
async fn while_a_clock_that_was_set_right_is_not_believed_nobody_new_is_let_in() {
    let process = Process::start(Arc::new(MemDisk::new(1)));
    let log = process.create(0, three()).await;
    process.os.advance_wall_ms(YEARS_MS);
    for producer in [1, 2, 3] {
        sends(&log, producer, 0).await.unwrap();
    }
    process.os.advance_wall_ms(-YEARS_MS);
    assert_eq!(sends(&log, 4, 0).await, Err(FULL));
    tokio::time::advance(Duration::from_millis(10 * MINUTE_MS as u64 - 1)).await;
    process.os.advance_wall_ms(10 * MINUTE_MS - 1);
    assert_eq!(sends(&log, 4, 0).await, Err(FULL));
    tokio::time::advance(Duration::from_millis(1)).await;
    process.os.advance_wall_ms(1);
    assert_eq!((sends(&log, 4, 0).await, sends(&log, 5, 0).await), (Ok((3, false)), Err(FULL)));
    process.os.advance_wall_ms(10 * MINUTE_MS);
    assert_eq!(sends(&log, 5, 0).await, Ok((4, false)));
}
