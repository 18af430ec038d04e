//! Wall clocks that are wrong for a while: ahead by years, behind by years, and set right again. What the log says of
//! time is right again with the first append after the clock is believed, here and wherever its frames are read.

use std::sync::Arc;
use std::time::Duration;

use weir_io::{Disk, MemDisk};
use weir_runtime::testing::{START_WALL_MS, TestOs};
use weir_storage::{
    AppendError, Control, Limit, LogConfig, NewBatch, Outcome, OutcomeQuery, Partition, Refused, UnknownCause,
};
use weir_types::{Durability, Producer, ProducerId};

use crate::support::*;

const SECOND_MS: i64 = 1000;
const HOUR_MS: i64 = 3600 * SECOND_MS;
const YEARS_MS: i64 = 73 * 365 * 24 * HOUR_MS;

/// After so many seconds without a jump a clock is believed.
const BELIEVED_AFTER: i64 = 600;

/// A process whose clock is believed from the start, and whenever it is set.
fn believing(disk: Arc<dyn Disk>) -> Process {
    Process::start_with(disk, |options| options.retention_pause = Duration::ZERO)
        .expect("the directory opens")
}

/// Both clocks go on.
async fn pass(os: &TestOs, seconds: i64) {
    for _ in 0..seconds {
        tokio::time::sleep(Duration::from_secs(1)).await;
        os.advance_wall_ms(SECOND_MS);
    }
}

/// When a batch is appended.
async fn appended_ms(log: &Partition, batch: NewBatch) -> i64 {
    produce(log, batch).await.unwrap().append_time_ms
}

/// Known, forgotten, or neither, by what is said of the first batch.
async fn fate(log: &Partition, producer: i64) -> Outcome {
    let producer = Producer { id: ProducerId(producer), epoch: 0 };
    let query = OutcomeQuery { producer, base_sequence: 0, seal: false };
    log.append_outcome(query).await.unwrap().unwrap()
}

fn expiring() -> LogConfig {
    LogConfig { producer_expiry_ms: HOUR_MS, ..config(Durability::Fsync) }
}

/// Where the append time stands for the timestamps.
fn stamped() -> NewBatch {
    NewBatch { append_time: true, ..batch(vec![0; 112], 1) }
}

#[tokio::test(start_paused = true)]
async fn the_time_goes_back_once_a_clock_that_was_far_ahead_is_believed_again() {
    let mem = MemDisk::new(1);
    let process = Process::start(Arc::new(mem.clone()));
    let (log, os) = (process.create(0, config(Durability::Fsync)).await, &process.os);
    let steps = || process.dir.stats().time_steps_back.get();
    pass(os, BELIEVED_AFTER).await;
    let first_ms = appended_ms(&log, batch("a", 1)).await;
    os.advance_wall_ms(YEARS_MS);
    assert_eq!(appended_ms(&log, batch("b", 1)).await, first_ms + YEARS_MS);
    // Right again, but it has just jumped.
    os.advance_wall_ms(-YEARS_MS);
    assert_eq!(appended_ms(&log, batch("c", 1)).await, first_ms + YEARS_MS);
    pass(os, BELIEVED_AFTER - 1).await;
    assert_eq!(appended_ms(&log, batch("d", 1)).await, first_ms + YEARS_MS);
    assert_eq!((steps(), log.describe().segments), (0, 2));
    pass(os, 2).await;
    let right_ms = first_ms + (BELIEVED_AFTER + 1) * SECOND_MS;
    assert_eq!(appended_ms(&log, batch("e", 1)).await, right_ms);
    // A segment begins there, and its time is the log's.
    assert_eq!((steps(), log.describe().segments), (1, 3));
    assert_eq!(log.describe().last_append_ms, Some(right_ms));
    // By little it never goes back.
    os.advance_wall_ms(-59 * SECOND_MS);
    assert_eq!(appended_ms(&log, batch("f", 1)).await, right_ms);
    // A start goes on from the last frame.
    let process = believing(Arc::new(mem.kill()));
    let log = process.lead(0, 2).await;
    process.os.set_wall_ms(right_ms - 30 * SECOND_MS);
    assert_eq!(appended_ms(&log, batch("g", 1)).await, right_ms);
    assert_eq!(all(&log).await.len(), 7);
}

#[tokio::test(start_paused = true)]
pub(crate) async fn a_clock_that_is_set_soon_after_the_start_makes_nobody_older() {
    let mem = MemDisk::new(1);
    let process = Process::start(Arc::new(mem.clone()));
    let log = process.create(0, expiring()).await;
    assert_eq!(appended_ms(&log, by(1, 0, 0, batch("a", 1))).await, START_WALL_MS);
    // The next start does not know the time yet: it is 1970.
    let process = Process::start_on(
        {
            let os = TestOs::new(Arc::new(mem.kill()));
            os.set_wall_ms(5 * SECOND_MS);
            os
        },
        |_| {},
    )
    .unwrap();
    let log = process.lead(0, 2).await;
    pass(&process.os, 30).await;
    assert_eq!(appended_ms(&log, by(1, 0, 1, batch("b", 1))).await, START_WALL_MS);
    process.os.set_wall_ms(START_WALL_MS + HOUR_MS / 2);
    assert_eq!(appended_ms(&log, by(1, 0, 2, batch("c", 1))).await, START_WALL_MS + HOUR_MS / 2);
    assert_eq!(process.dir.stats().time_steps_back.get(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_producer_from_the_future_is_forgotten_like_any_other() {
    let mem = MemDisk::new(1);
    let process = believing(Arc::new(mem.clone()));
    let (log, os) = (process.create(0, expiring()).await, &process.os);
    os.advance_wall_ms(YEARS_MS);
    produce(&log, by(1, 0, 0, batch("a", 1))).await.unwrap();
    os.advance_wall_ms(-YEARS_MS);
    produce(&log, by(2, 0, 0, batch("b", 1))).await.unwrap();
    // It is as old as the frame that went back: neither older nor younger.
    os.advance_wall_ms(HOUR_MS - 1);
    produce(&log, by(3, 0, 0, batch("c", 1))).await.unwrap();
    assert!(matches!(fate(&log, 1).await, Outcome::Appended(_)));
    os.advance_wall_ms(1);
    produce(&log, by(3, 0, 1, batch("d", 1))).await.unwrap();
    let forgotten = Outcome::Unknown(UnknownCause::Expired);
    assert_eq!((fate(&log, 1).await, fate(&log, 2).await), (forgotten, forgotten));
    let end_ms = os_ms(&process);
    let (mut process, mut mem) = (process, mem);
    for clean in [false, true] {
        if clean {
            process.dir.close().await.unwrap();
        }
        mem = mem.kill();
        process = believing(Arc::new(mem.clone()));
        assert_eq!(process.report.clean, clean);
        process.os.set_wall_ms(end_ms);
        let log = process.lead(0, 2).await;
        assert_eq!((fate(&log, 1).await, fate(&log, 2).await), (forgotten, forgotten));
        let late = produce(&log, by(1, 0, 1, batch("e", 1))).await.unwrap_err();
        assert_eq!(late, AppendError::Refused(Refused::ProducerUnknown));
        assert!(produce(&log, by(3, 0, 1, batch("d", 1))).await.unwrap().duplicate);
    }
}

fn os_ms(process: &Process) -> i64 {
    weir_runtime::Os::wall_ms(&process.os)
}

#[tokio::test(start_paused = true)]
async fn a_step_back_that_finds_no_room_has_changed_nobody() {
    let mem = MemDisk::new(1);
    let disk = weir_io::FaultDisk::over_mem(&mem);
    let process = believing(Arc::new(disk.clone()));
    let (log, os) = (process.create(0, expiring()).await, &process.os);
    os.advance_wall_ms(YEARS_MS);
    produce(&log, by(1, 0, 0, batch("a", 1))).await.unwrap();
    os.advance_wall_ms(-YEARS_MS);
    let full = weir_io::Effect::Fail(weir_io::Fault::NoSpace);
    disk.add(weir_io::Rule::on([weir_io::Op::Write], full).ends_with(".log").once());
    let refused = produce(&log, by(2, 0, 0, batch("b", 1))).await;
    assert!(matches!(refused, Err(AppendError::DiskFull { .. })), "{refused:?}");
    assert_eq!(process.dir.stats().time_steps_back.get(), 0);
    // The time is still that of the frame that is there, and the next one goes back.
    produce(&log, by(2, 0, 0, batch("b", 1))).await.unwrap();
    os.advance_wall_ms(HOUR_MS - 1);
    assert_eq!(process.dir.stats().time_steps_back.get(), 1);
    assert!(produce(&log, by(1, 0, 1, batch("c", 1))).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn what_is_from_the_future_goes_as_soon_as_what_was_written_behind_it() {
    let mem = MemDisk::new(1);
    let at_rest =
        LogConfig { retention_ms: Some(HOUR_MS), segment_ms: HOUR_MS / 4, ..config(Durability::Fsync) };
    let process = believing(Arc::new(mem.clone()));
    let (log, os) = (process.create(0, at_rest).await, &process.os);
    os.advance_wall_ms(YEARS_MS);
    for _ in 0..3 {
        produce(&log, stamped()).await.unwrap();
        log.control(Control::Roll).await.unwrap();
    }
    os.advance_wall_ms(-YEARS_MS);
    a_look().await;
    // Nothing says how old they are.
    assert_eq!(log.ends().log_start, 0);
    produce(&log, stamped()).await.unwrap();
    os.advance_wall_ms(HOUR_MS - 1);
    produce(&log, stamped()).await.unwrap();
    a_look().await;
    assert_eq!(log.ends().log_start, 0);
    // The first right one is old enough; what has come since is not.
    os.advance_wall_ms(1);
    a_look().await;
    assert_eq!((log.ends().log_start, log.ends().log_end), (4, 5));
    // An idle log is rolled again, and goes.
    os.advance_wall_ms(HOUR_MS);
    a_look().await;
    a_look().await;
    assert_eq!(log.ends().log_start, 5);
}

/// So long that the keeper has looked at retention.
async fn a_look() {
    tokio::time::sleep(Duration::from_secs(31)).await;
}

#[tokio::test(start_paused = true)]
async fn a_lookup_by_time_passes_over_what_is_from_the_future() {
    let mem = MemDisk::new(1);
    let process = believing(Arc::new(mem.clone()));
    let (log, os) = (process.create(0, config(Durability::Fsync)).await, &process.os);
    // 0 and 1 in their time, 2 and 3 in 2096, in two segments, 4 and 5 in their time again.
    for minutes in [0, 5] {
        os.set_wall_ms(START_WALL_MS + minutes * 60_000);
        produce(&log, stamped()).await.unwrap();
    }
    os.advance_wall_ms(YEARS_MS);
    produce(&log, stamped()).await.unwrap();
    log.control(Control::Roll).await.unwrap();
    produce(&log, stamped()).await.unwrap();
    for minutes in [10, 15] {
        os.set_wall_ms(START_WALL_MS + minutes * 60_000);
        produce(&log, stamped()).await.unwrap();
    }
    let first_since = async |log: &Partition, minutes: i64| {
        let found = log.offset_for_timestamp(START_WALL_MS + minutes * 60_000, Limit::LogEnd).await.unwrap();
        found.map(|found| found.offset)
    };
    let finds = async |log: &Partition| {
        let mut found = Vec::new();
        for minutes in [0, 1, 5, 7, 10, 11, 15, 16] {
            found.push(first_since(log, minutes).await);
        }
        found
    };
    // Between 5 and 10 lie those from the future: they are not older than what is before them.
    let expected = [Some(0), Some(1), Some(1), Some(2), Some(2), Some(5), Some(5), None];
    assert_eq!(finds(&log).await, expected);
    // From the sidecars it is the same.
    process.dir.close().await.unwrap();
    let process = believing(Arc::new(mem.kill()));
    process.os.set_wall_ms(START_WALL_MS + 20 * 60_000);
    let log = process.lead(0, 2).await;
    assert_eq!(finds(&log).await, expected);
    // Where producers say the time, theirs counts, whatever it is.
    let log = process.create(1, config(Durability::Fsync)).await;
    process.os.advance_wall_ms(YEARS_MS);
    let now_ms = os_ms(&process);
    let future = NewBatch { max_timestamp_ms: now_ms + 1, ..batch("x", 1) };
    produce(&log, future).await.unwrap();
    process.os.advance_wall_ms(-YEARS_MS);
    produce(&log, batch("y", 1)).await.unwrap();
    assert_eq!(first_since(&log, 60).await, Some(0));
}
