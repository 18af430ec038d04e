//! What the tests of the log share: a directory on a disk in memory, a leader that admits, and batches.

use std::cell::Cell;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use bytes::Bytes;
use parking_lot::{Condvar, Mutex};
use tokio::sync::oneshot;
use tokio::time::timeout;
use weir_io::{Disk, Effect, FaultDisk, Op, Rule};
use weir_runtime::testing::{PATIENCE, TestOs, until};
use weir_storage::{
    Acks, Admission, Append, AppendError, Appended, Chunk, Control, DirOptions, Ends, Fatal, Frame, Limit,
    LogConfig, LogDir, LogView, Mutant, NewBatch, OpenReport, Partition, ReadError, ReadRequest, Refused,
    ReplicateError, Replicated, Verdict, decode_frames,
};
use weir_types::{Durability, LeaderEpoch, Offset, PartitionId, Producer, ProducerId, TopicId, sequence_add};

/// A leader that is alone, as the core of replication would be.
pub(crate) struct Leader {
    pub(crate) epoch: LeaderEpoch,
    /// Nothing is committed beyond this, as if a follower lagged.
    pub(crate) holds_at: Option<Offset>,
}

impl Leader {
    pub(crate) fn boxed(epoch: LeaderEpoch) -> Box<Self> {
        Box::new(Self { epoch, holds_at: None })
    }
}

impl Admission for Leader {
    fn leader_epoch(&self) -> Option<LeaderEpoch> {
        Some(self.epoch)
    }

    fn admit(&mut self, log: &LogView<'_>, append: &Append) -> Verdict {
        if let Some(producer) = append.batch.producer {
            let base = append.batch.base_sequence;
            let known = log.producer(producer.id).filter(|known| {
                producer.epoch < known.epoch || (producer.epoch == known.epoch && !known.batches.is_empty())
            });
            if let Some(known) = known {
                if producer.epoch < known.epoch {
                    return Verdict::Refuse(Refused::ProducerFenced { current: known.epoch });
                }
                if let Some(batch) = known.batches.iter().find(|batch| batch.base_sequence == base) {
                    return Verdict::Duplicate(*batch);
                }
                let last = known.batches.last().expect("checked above");
                let expected =
                    sequence_add(last.base_sequence, (last.last_offset - last.base_offset + 1) as i32);
                if base != expected {
                    return Verdict::Refuse(Refused::SequenceGap { expected });
                }
            } else if base != 0 {
                return Verdict::Refuse(Refused::ProducerUnknown);
            }
        }
        match append.expected_next_offset {
            Some(expected) if expected != log.log_end => {
                Verdict::RefuseWhenCommitted(Refused::OffsetMismatch { next: log.log_end })
            }
            _ => Verdict::Append { leader_epoch: self.epoch },
        }
    }

    fn high_watermark(&mut self, log: &LogView<'_>) -> Offset {
        let end = match log.durability {
            Durability::Fsync => log.flushed_end,
            Durability::Replicated => log.log_end,
        };
        self.holds_at.map_or(end, |held| end.min(held))
    }
}

/// A replica that follows one leadership, and notes how far it is written and flushed whenever it is asked.
pub(crate) struct Following {
    pub(crate) epoch: LeaderEpoch,
    /// The leader's high watermark, as far as it was told.
    pub(crate) leader: Arc<AtomicI64>,
    pub(crate) seen: Arc<Mutex<Vec<(Offset, Offset)>>>,
}

impl Following {
    pub(crate) fn boxed(epoch: LeaderEpoch) -> Box<Self> {
        Box::new(Self { epoch, leader: Arc::new(AtomicI64::new(i64::MAX)), seen: Arc::default() })
    }
}

impl Admission for Following {
    fn leader_epoch(&self) -> Option<LeaderEpoch> {
        None
    }

    fn follows(&self) -> Option<LeaderEpoch> {
        Some(self.epoch)
    }

    fn admit(&mut self, _log: &LogView<'_>, _append: &Append) -> Verdict {
        Verdict::Refuse(Refused::NotLeader)
    }

    fn high_watermark(&mut self, log: &LogView<'_>) -> Offset {
        self.seen.lock().push((log.log_end, log.flushed_end));
        self.leader.load(Ordering::Acquire).min(log.log_end)
    }
}

pub(crate) async fn follow(log: &Partition, epoch: LeaderEpoch) {
    log.control(Control::SetAdmission(Following::boxed(epoch))).await.expect("follows");
}

/// What a leader sends a follower whose log ends there: about so many bytes.
pub(crate) async fn sent(leader: &Partition, from: Offset, bytes_max: usize) -> Vec<Frame> {
    let request = ReadRequest { from, bytes_max, limit: Limit::LogEnd };
    let chunk = leader.read(request).await.expect("readable");
    let (frames, bad) = decode_frames(chunk.bytes, leader.id(), leader.incarnation());
    assert_eq!(bad, None, "as the leader wrote them");
    frames
}

/// Gives a follower frames that were sent in this leadership.
pub(crate) async fn replicate(
    log: &Partition,
    leader_epoch: LeaderEpoch,
    frames: Vec<Frame>,
) -> Result<Ends, ReplicateError> {
    let (tell, told) = oneshot::channel();
    let done = Box::new(move |result| drop(tell.send(result)));
    log.replicate(Replicated { leader_epoch, frames, done });
    timeout(PATIENCE, told).await.expect("answered").expect("every one is answered")
}

/// Gives a follower all that its leader has.
pub(crate) async fn catch_up(leader: &Partition, follower: &Partition, leader_epoch: LeaderEpoch) {
    while follower.ends().log_end < leader.ends().log_end {
        let frames = sent(leader, follower.ends().log_end, 1000).await;
        replicate(follower, leader_epoch, frames).await.expect("taken");
    }
}

pub(crate) const DIR: &str = "/data";

pub(crate) fn id(partition: i32) -> PartitionId {
    PartitionId { topic: TopicId(0xfeed), partition }
}

pub(crate) fn batch(payload: impl Into<Vec<u8>>, records: i32) -> NewBatch {
    let payload = Bytes::from(payload.into());
    NewBatch {
        last_offset_delta: records - 1,
        record_count: records,
        base_timestamp_ms: 100,
        max_timestamp_ms: 200,
        append_time: false,
        codec: 0,
        uncompressed_bytes: payload.len() as u32,
        crc: crc32fast::hash(&payload),
        producer: None,
        base_sequence: 0,
        transactional: false,
        control: false,
        broker_compressed: false,
        payload,
    }
}

pub(crate) fn by(producer: i64, epoch: i32, base_sequence: i32, batch: NewBatch) -> NewBatch {
    NewBatch { producer: Some(Producer { id: ProducerId(producer), epoch }), base_sequence, ..batch }
}

pub(crate) type Answered = oneshot::Receiver<Result<Appended, AppendError>>;

/// An append whose answer can be waited for.
pub(crate) fn append(batch: NewBatch, acks: Acks) -> (Append, Answered) {
    let (tell, told) = oneshot::channel();
    let append = Append {
        batch,
        acks,
        expected_next_offset: None,
        gate: None,
        resume: false,
        done: Box::new(move |result| drop(tell.send(result))),
    };
    (append, told)
}

pub(crate) async fn produce(log: &Partition, batch: NewBatch) -> Result<Appended, AppendError> {
    let (append, answered) = append(batch, Acks::All);
    log.submit(vec![append]);
    answered.await.expect("every append is answered")
}

thread_local! {
    /// The bug that processes have which this test starts.
    static PLANTED: Cell<Option<Mutant>> = const { Cell::new(None) };
}

/// Runs a test that passes with a bug planted in whatever it starts, and says whether it noticed.
pub(crate) fn notices(test: fn(), bug: Mutant) -> bool {
    test();
    PLANTED.set(Some(bug));
    let noticed = std::panic::catch_unwind(test).is_err();
    PLANTED.set(None);
    noticed
}

/// A process that uses the directory.
pub(crate) struct Process {
    pub(crate) os: TestOs,
    pub(crate) dir: LogDir,
    pub(crate) report: OpenReport,
    pub(crate) fatal: Arc<Mutex<Vec<Fatal>>>,
}

impl Process {
    pub(crate) fn start(disk: Arc<dyn Disk>) -> Self {
        Self::start_with(disk, |_| {}).expect("the directory opens")
    }

    /// The same with a bug planted.
    pub(crate) fn planted(disk: Arc<dyn Disk>, bug: Option<Mutant>) -> Self {
        Self::start_with(disk, |options| options.mutant = bug).expect("the directory opens")
    }

    pub(crate) fn start_with(
        disk: Arc<dyn Disk>,
        change: impl FnOnce(&mut DirOptions),
    ) -> Result<Self, weir_storage::Error> {
        let os = TestOs::new(disk);
        Self::start_on(os, change)
    }

    pub(crate) fn start_on(
        os: TestOs,
        change: impl FnOnce(&mut DirOptions),
    ) -> Result<Self, weir_storage::Error> {
        weir_runtime::testing::listen();
        let fatal = Arc::new(Mutex::new(Vec::new()));
        let note = Arc::clone(&fatal);
        let mut options = DirOptions::new(move |error| note.lock().push(error.clone()));
        options.flush_threads = 2;
        options.mutant = PLANTED.get();
        change(&mut options);
        let (dir, report) = LogDir::open(Arc::new(os.clone()), Path::new(DIR), None, options)?;
        Ok(Self { os, dir, report, fatal })
    }

    /// A partition of its own class, led in epoch 1.
    pub(crate) async fn create(&self, partition: i32, config: LogConfig) -> Partition {
        let log = self.dir.create_partition(id(partition), "flights", config).expect("created");
        lead(&log, 1).await;
        log
    }

    /// A partition that was there, led in this epoch.
    pub(crate) async fn lead(&self, partition: i32, epoch: LeaderEpoch) -> Partition {
        let log = self.dir.partition(id(partition)).expect("recovered");
        lead(&log, epoch).await;
        log
    }
}

pub(crate) async fn lead(log: &Partition, epoch: LeaderEpoch) {
    log.control(Control::SetAdmission(Leader::boxed(epoch))).await.expect("leads");
}

pub(crate) fn config(durability: Durability) -> LogConfig {
    LogConfig { durability, ..LogConfig::default() }
}

pub(crate) async fn read(log: &Partition, from: Offset) -> Chunk {
    let request = ReadRequest { from, bytes_max: 1 << 20, limit: Limit::LogEnd };
    log.read(request).await.expect("readable")
}

/// Every frame of a log, payloads checked.
pub(crate) async fn all(log: &Partition) -> Vec<Frame> {
    try_all(log).await.expect("readable")
}

/// The same of a log that may not be readable any more.
pub(crate) async fn try_all(log: &Partition) -> Result<Vec<Frame>, ReadError> {
    let mut frames = Vec::new();
    let mut from = log.ends().log_start;
    loop {
        let chunk = log.read(ReadRequest { from, bytes_max: 1 << 20, limit: Limit::LogEnd }).await?;
        if chunk.is_empty() {
            return Ok(frames);
        }
        for frame in chunk.frames() {
            if let Err(error) = frame.header.verify_payload(&frame.payload) {
                return Err(ReadError::Damaged(format!("offset {}: {error}", frame.header.base_offset)));
            }
            frames.push(frame);
        }
        assert!(chunk.next_offset > from, "a read makes progress");
        from = chunk.next_offset;
    }
}

/// Appends so many batches of one record of 112 bytes: frames of 200, which are told apart by their payload.
pub(crate) async fn fill(log: &Partition, frames: u8) {
    for n in 0..frames {
        produce(log, batch(vec![n; 112], 1)).await.expect("appended");
    }
}

/// The same, by a producer: the numbers of its batches are their offsets in an empty log.
pub(crate) async fn fill_by(log: &Partition, producer: i64, frames: u8) {
    for n in 0..frames {
        produce(log, by(producer, 0, n.into(), batch(vec![n; 112], 1))).await.expect("appended");
    }
}

/// Holds up one kind of call in one folder until it is dropped. For tests with real threads.
pub(crate) struct Held(Arc<Door>);

#[derive(Default)]
struct Door {
    state: Mutex<Passing>,
    opened: Condvar,
}

#[derive(Default)]
struct Passing {
    somebody: bool,
    open: bool,
}

impl Held {
    pub(crate) fn new(disk: &FaultDisk, op: Op, folder: &Path) -> Self {
        Self::at(disk, Rule::on, op, folder)
    }

    /// The same for the first call alone.
    pub(crate) fn first(disk: &FaultDisk, op: Op, folder: &Path) -> Self {
        Self::at(disk, |ops, effect| Rule::on(ops, effect).once(), op, folder)
    }

    fn at(disk: &FaultDisk, rule: impl FnOnce([Op; 1], Effect) -> Rule, op: Op, folder: &Path) -> Self {
        let door = Arc::new(Door::default());
        let before = Arc::clone(&door);
        let wait = move || {
            let mut state = before.state.lock();
            state.somebody = true;
            before.opened.wait_while(&mut state, |state| !state.open);
        };
        let folder = folder.to_owned();
        let rule = rule([op], Effect::Hook(Arc::new(wait)));
        disk.add(rule.path(move |path| path.starts_with(&folder)));
        Self(door)
    }

    /// Waits until somebody waits here.
    pub(crate) async fn has_somebody(&self) {
        until("somebody comes", async || self.0.state.lock().somebody).await;
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.state.lock().open = true;
        self.0.opened.notify_all();
    }
}
