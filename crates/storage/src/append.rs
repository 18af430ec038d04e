//! What goes into a log, and what comes back.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use weir_types::{LeaderEpoch, Offset, Producer};

use crate::admission::Holders;

/// A batch on its way into a log. Its checksum and shape were checked by whoever took it in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewBatch {
    /// The last record's offset less the first one's: 0 for one record.
    pub last_offset_delta: i32,
    /// How many records there are.
    pub record_count: i32,
    /// The first record's timestamp, milliseconds since 1970 UTC.
    pub base_timestamp_ms: i64,
    /// The largest timestamp.
    pub max_timestamp_ms: i64,
    /// Whether the append time is to stand for the timestamps.
    pub append_time: bool,
    /// The number of the codec, 0 to 15.
    pub codec: u8,
    /// The payload's length before compression, in bytes.
    pub uncompressed_bytes: u32,
    /// CRC-32 (IEEE) of the payload.
    pub crc: u32,
    /// Who writes it, if exactly once is asked for.
    pub producer: Option<Producer>,
    /// The first record's sequence number; meaningless without a producer.
    pub base_sequence: i32,
    /// Whether it belongs to a transaction.
    pub transactional: bool,
    /// Whether it is a marker and not data.
    pub control: bool,
    /// Whether a broker compressed it.
    pub broker_compressed: bool,
    /// The bytes, at most 2 GiB less a header.
    pub payload: Bytes,
}

/// When an append is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Acks {
    /// When it is written; nobody looks at the answer.
    None,
    /// When it is written here; in class fsync, when it is on this disk.
    Leader,
    /// When it is committed: below the high watermark.
    #[default]
    All,
}

/// Called exactly once, from a task or thread of the log's: it must not block. Also called when the partition is
/// closed and when the process stops.
pub type Done = Box<dyn FnOnce(Result<Appended, AppendError>) + Send>;

/// One append.
pub struct Append {
    /// What.
    pub batch: NewBatch,
    /// When it is answered.
    pub acks: Acks,
    /// Append only if this is the next offset.
    pub expected_next_offset: Option<Offset>,
    /// The row of appends that it belongs to, if a failure is to stop the row.
    pub gate: Option<Arc<Gate>>,
    /// Whether the row goes on with this one in spite of a failure before.
    pub resume: bool,
    /// The answer.
    pub done: Done,
}

impl fmt::Debug for Append {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Append")
            .field("records", &self.batch.record_count)
            .field("bytes", &self.batch.payload.len())
            .field("acks", &self.acks)
            .field("producer", &self.batch.producer)
            .field("base_sequence", &self.batch.base_sequence)
            .field("expected_next_offset", &self.expected_next_offset)
            .finish_non_exhaustive()
    }
}

/// An append of a row that was refused before it got here. It takes its turn all the same: what came before it is
/// not touched by it, and what comes behind it finds the gate shut (correctness rules D1 and 42).
pub struct Refusal {
    /// The row that it belongs to.
    pub gate: Arc<Gate>,
    /// Called exactly once, when its turn has come, as [`Done`] is.
    pub done: Box<dyn FnOnce() + Send>,
}

impl Refusal {
    /// Its turn has come.
    pub(crate) fn give(self) {
        self.gate.shut();
        (self.done)();
    }
}

impl fmt::Debug for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Refusal").field("gate", &self.gate).finish_non_exhaustive()
    }
}

/// A row of appends of one writer to one partition: once one of them fails, those behind it fail too, so that
/// nothing is appended out of order (correctness rule 42). Looked at and shut in the partition's claim.
#[derive(Debug, Default)]
pub struct Gate(AtomicBool);

impl Gate {
    /// Whether an append of the row has failed since it was last resumed.
    pub fn is_shut(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }

    /// Makes what follows fail. The log does so itself; a caller that refuses an append of the row says so with a
    /// [`Refusal`], or here where there is no log that could put it in order.
    pub fn shut(&self) {
        self.0.store(true, Ordering::Release);
    }

    pub(crate) fn open(&self) {
        self.0.store(false, Ordering::Release);
    }
}

/// An append that was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    /// The first record's offset.
    pub base_offset: Offset,
    /// The last record's offset.
    pub last_offset: Offset,
    /// The leadership it was appended in: of a duplicate, that of then.
    pub leader_epoch: LeaderEpoch,
    /// When it was appended, milliseconds since 1970 UTC.
    pub append_time_ms: i64,
    /// Whether it was in the log already.
    pub duplicate: bool,
    /// Whether it is below the high watermark.
    pub committed: bool,
    /// Whether it is on this disk.
    pub flushed: bool,
    /// Who had it when it was acknowledged.
    pub holders: Holders,
}

/// Why an append was not acknowledged.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// The partition's leader says no. Not applied.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// An append of the same row failed before it. Not applied.
    #[error("an earlier append of this row failed")]
    Poisoned,
    /// The batch cannot be stored in any log. Not applied.
    #[error("the batch is malformed: {0}")]
    Malformed(&'static str),
    /// Too little space is left. Not applied.
    #[error(
        "{available_bytes} bytes are left in the log directory, {reserved_bytes} are reserved: free space or add some"
    )]
    DiskFull {
        /// What is left.
        available_bytes: u64,
        /// What is kept in reserve.
        reserved_bytes: u64,
    },
    /// The process has no file descriptor left. Not applied; it may be tried again.
    #[error("no file descriptor is left: raise the process's limit (ulimit -n), or lower open_files_max")]
    NoHandles,
    /// The partition was closed before. Not applied.
    #[error("the partition is closed")]
    Closed,
    /// It may be in the log, and may stay there or not.
    #[error(
        "the partition was closed or cut before the append was acknowledged: it may be in the log or not"
    )]
    Indeterminate,
}

/// Why a partition's leader says no. Nothing was applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// This replica leads nothing.
    #[error("this replica does not lead the partition")]
    NotLeader,
    /// This replica leads, as far as it knows, and another one may by now: what epochs do not protect is not taken.
    #[error("another replica may lead the partition by now")]
    Unsure,
    /// Fewer replicas in sync than min.insync.
    #[error("{have} replicas are in sync, {need} are needed")]
    NotEnoughReplicas {
        /// How many are in sync.
        have: usize,
        /// How many there must be.
        need: usize,
    },
    /// A newer epoch of this producer exists.
    #[error("the producer is fenced: its epoch is {current} by now")]
    ProducerFenced {
        /// The epoch in force.
        current: i32,
    },
    /// The log knows nothing of this producer, and this is not its beginning.
    #[error("the producer is not known (any more)")]
    ProducerUnknown,
    /// The producer is new, and as many as are remembered have written in the last ten minutes.
    #[error("{max} producers have written in the last ten minutes, and no more are remembered: try again")]
    ProducersTooMany {
        /// How many are remembered.
        max: usize,
    },
    /// A batch before this one is missing.
    #[error("a batch is missing: sequence {expected} comes next")]
    SequenceGap {
        /// The sequence number that comes next.
        expected: i32,
    },
    /// Older than what is remembered: whether it was appended cannot be said.
    #[error("the sequence is older than what is remembered, which begins at {oldest}")]
    SequenceTooOld {
        /// The oldest sequence number remembered.
        oldest: i32,
    },
    /// The condition does not hold.
    #[error("the next offset is {next}")]
    OffsetMismatch {
        /// The actual next offset.
        next: Offset,
    },
}

/// An answer that is owed. Whatever happens to it, it is given: dropped, it says what is true then.
pub(crate) struct Reply {
    done: Option<Done>,
    gate: Option<Arc<Gate>>,
    /// What a drop says: whether something may have been written.
    maybe_applied: bool,
}

impl Reply {
    pub(crate) fn new(done: Done, gate: Option<Arc<Gate>>) -> Self {
        Self { done: Some(done), gate, maybe_applied: false }
    }

    /// From here on a drop is "maybe".
    pub(crate) fn set_applied(&mut self) {
        self.maybe_applied = true;
    }

    /// It has failed: at this place of the row, whenever it is said. So only the first time counts, or it would be
    /// shut again behind a resume.
    pub(crate) fn shut_gate(&mut self) {
        if let Some(gate) = self.gate.take() {
            gate.shut();
        }
    }

    pub(crate) fn give(mut self, answer: Result<Appended, AppendError>) {
        self.answer(answer);
    }

    fn answer(&mut self, answer: Result<Appended, AppendError>) {
        if answer.is_err() {
            self.shut_gate();
        }
        if let Some(done) = self.done.take() {
            done(answer);
        }
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        if self.done.is_some() {
            let error = if self.maybe_applied { AppendError::Indeterminate } else { AppendError::Closed };
            self.answer(Err(error));
        }
    }
}
