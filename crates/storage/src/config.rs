//! What can be set: of one log, and of a log directory.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use weir_types::{BrokerId, ClusterId, Durability};

use crate::pace::Pacing;
use crate::producers::ProducerLimits;
use crate::stats::Progress;

/// The largest segment: positions in it fit 31 bits.
pub const SEGMENT_BYTES_MAX: u64 = (2 << 30) - 4096;

/// For so long after its last batch no producer is forgotten for want of room: longer than anybody repeats a batch that was
/// not answered (the SDK: two minutes unless told otherwise).
const PRODUCER_KEPT_MS: i64 = 600_000;

/// How one log is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogConfig {
    /// What "acknowledged" means.
    pub durability: Durability,
    /// A segment is closed before an append that would make it larger. At most [`SEGMENT_BYTES_MAX`].
    pub segment_bytes: u64,
    /// A segment is closed this long after its first frame, milliseconds.
    pub segment_ms: i64,
    /// Whole segments are deleted when all they hold is older than this, milliseconds. This and the next one count where
    /// the log is led; a follower's begins where its leader says.
    pub retention_ms: Option<i64>,
    /// Whole segments are deleted from the front as long as those behind them hold this much, bytes.
    pub retention_bytes: Option<u64>,
    /// A producer is forgotten after so many milliseconds without a batch, by the append times of others.
    pub producer_expiry_ms: i64,
    /// The most producers that are remembered. Of more, whoever has not written for longest is forgotten, but nobody within
    /// ten minutes: new ones are refused then.
    pub producers_max: usize,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self {
            durability: Durability::Fsync,
            segment_bytes: 1 << 30,
            segment_ms: 7 * 24 * 3_600_000,
            retention_ms: None,
            retention_bytes: None,
            producer_expiry_ms: 7 * 24 * 3_600_000,
            producers_max: 100_000,
        }
    }
}

impl LogConfig {
    pub(crate) fn segment_bytes(&self) -> u64 {
        self.segment_bytes.min(SEGMENT_BYTES_MAX)
    }

    pub(crate) fn producer_limits(&self) -> ProducerLimits {
        ProducerLimits {
            expiry_ms: self.producer_expiry_ms,
            count_max: self.producers_max.max(1),
            kept_ms: PRODUCER_KEPT_MS,
        }
    }
}

/// Whose directory it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirIdentity {
    /// The cluster.
    pub cluster_id: ClusterId,
    /// The broker in it.
    pub broker_id: i32,
}

impl DirIdentity {
    /// An identity.
    pub fn new(cluster_id: ClusterId, broker_id: BrokerId) -> Self {
        Self { cluster_id, broker_id: broker_id.0 }
    }
}

impl fmt::Display for DirIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "broker {} of cluster {}", self.broker_id, self.cluster_id)
    }
}

/// How a log directory is kept.
#[derive(Clone)]
pub struct DirOptions {
    /// Where is noted how far the start has come.
    pub progress: Arc<Progress>,
    /// Appends are refused while less than this is free, in bytes.
    pub disk_reserved_bytes: u64,
    /// So much may be written and not yet on the disk; appends beyond wait, so that the kernel never makes an
    /// executor wait.
    pub dirty_budget_bytes: u64,
    /// How often a checkpoint is written when something changed.
    pub checkpoint_interval: Duration,
    /// Also whenever so many bytes were synced since the last one: what a start has to read again is bounded by bytes,
    /// however fast they come.
    pub checkpoint_every_bytes: u64,
    /// With a checkpoint, what is known of a segment is written down beside it after each so many bytes in it: after a
    /// crash no more than about this is scanned of what was durable in a log.
    pub note_every_bytes: u64,
    /// How often retention is looked at.
    pub retention_interval: Duration,
    /// How long the wall clock is not believed after the start, and after it has jumped: nothing goes because of its age, and
    /// no log's time goes back.
    pub retention_pause: Duration,
    /// How long a partition is kept that was set aside because the metadata names it no more.
    pub stray_retention: Duration,
    /// How many segment files are kept open when nothing is unsynced in them.
    pub open_files_max: usize,
    /// How many indexes of sealed segments are kept mapped; the system allows a process 65,530 maps of any kind.
    pub mapped_sidecars_max: usize,
    /// How many files are synced at a time.
    pub flush_threads: usize,
    /// A sync that takes as long is counted, and said.
    pub slow_sync: Duration,
    /// When the whole disk counts as slow (correctness rule 41).
    pub pacing: Pacing,
    /// What nobody waits for is handed to the disk so much at a time, bytes, with pauses.
    pub writeback_bytes: u64,
    /// Blocks are reserved ahead in segments that hold more than this, in bytes; before, only where there are so few logs
    /// that it does no harm.
    pub preallocate_from_bytes: u64,
    /// Tasks of the log's own run here when no executor is at hand: a partition's remainder, and what follows a
    /// flush. `None`: the one that [`crate::LogDir::open`] is called on.
    pub executor: Option<tokio::runtime::Handle>,
    /// Called when a write or sync has failed, or work on a partition has panicked: the process has to end
    /// (correctness rule 35). Nothing is acknowledged any more.
    pub on_fatal: Arc<dyn Fn(&Fatal) + Send + Sync>,
    /// A bug to plant. Only with the feature `mutants`, for the tests that show that it is noticed.
    #[cfg(feature = "mutants")]
    pub mutant: Option<Mutant>,
}

impl DirOptions {
    /// The defaults, with what ends the process.
    pub fn new(on_fatal: impl Fn(&Fatal) + Send + Sync + 'static) -> Self {
        Self {
            progress: Arc::default(),
            disk_reserved_bytes: 1 << 30,
            dirty_budget_bytes: 256 << 20,
            checkpoint_interval: Duration::from_secs(10),
            checkpoint_every_bytes: 128 << 20,
            note_every_bytes: 64 << 20,
            retention_interval: Duration::from_secs(30),
            retention_pause: Duration::from_secs(600),
            stray_retention: Duration::from_secs(24 * 3600),
            open_files_max: 4096,
            mapped_sidecars_max: 16_384,
            flush_threads: 16,
            slow_sync: Duration::from_millis(500),
            pacing: Pacing::default(),
            writeback_bytes: 8 << 20,
            preallocate_from_bytes: 64 << 10,
            executor: None,
            on_fatal: Arc::new(on_fatal),
            #[cfg(feature = "mutants")]
            mutant: None,
        }
    }

    /// Whether this bug is planted. Without the feature `mutants` the compiler sees that it never is.
    #[inline]
    pub(crate) fn has(&self, mutant: Mutant) -> bool {
        #[cfg(feature = "mutants")]
        if self.mutant == Some(mutant) {
            return true;
        }
        mutant.is_planted()
    }
}

impl fmt::Debug for DirOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DirOptions")
            .field("disk_reserved_bytes", &self.disk_reserved_bytes)
            .field("dirty_budget_bytes", &self.dirty_budget_bytes)
            .finish_non_exhaustive()
    }
}

// Bugs that can be planted, to show that the tests notice them, one rule each: see [`weir_types::mutants`]. In a directory that is
// opened with one (`DirOptions::mutant`), or in all of a thread's: so the simulation does it.
//
// To add one: a variant here, `options.has(Mutant::…)` at the line, and a test in `tests/log/mutants.rs` that fails to find it.
weir_types::mutants! {
    /// A sync is left out.
    SkipSync,
    /// Committed as soon as it is written, in class fsync.
    AckBeforeFlush,
    /// A failed sync is tried again.
    RetryFsync,
    /// Recovery believes a frame whose payload fails its checksum.
    TrustTornTail,
    /// What a cut has left behind the end of a segment counts.
    LeftoverCounts,
    /// A cut that is finished while a log is opened later is not written down.
    ReopenedCutKept,
    /// A truncation leaves the recovery point where it was.
    RecoveryPointKept,
    /// A truncation is made durable before what it keeps.
    GenerationBeforeKept,
    /// All lives of a partition in a directory have the same name and entry.
    NoIncarnation,
    /// The handle of a file with unsynced writes is closed when there are too many.
    EvictDirty,
    /// What was handed to the disk counts as synced.
    WritebackForSync,
    /// The first append after a start gets the offset of the last frame.
    ReuseOffset,
    /// Appends are judged before those in front of them are applied.
    DecideEarly,
    /// A duplicate is answered before its original is committed.
    DuplicateEarly,
    /// A start judges what the page cache says, and not what the disk has.
    CacheTrusted,
    /// The files of deleted segments go before the new start is durable.
    GoneBeforeStart,
    /// The owner hears of a new start before it is durable.
    HeardBeforeStart,
    /// The last segment to go is not sealed before.
    GoneUnsealed,
    /// Retention deletes beyond the last stable offset.
    RetainUnstable,
    /// A follower takes the frames of any leadership.
    AnyEpochFollowed,
    /// A truncation leaves the list of epochs as it was.
    EpochsKept,
    /// A truncation leaves what was known of producers.
    ProducersKept,
    /// Who does not lead deletes by its own settings.
    FollowerRetains,
    /// Where a log's time goes back, whoever wrote before keeps a time that is not reached.
    OthersLeftInFuture,
    /// A log that begins anew knows nothing of what was before its start.
    StartForgotten,
    /// Never is said of an append before the fence that makes it true is committed.
    NeverEarly,
    /// What does not meet its condition is refused before what it was judged by is committed.
    MismatchEarly,
    /// Appends take the room that is kept for what must go on.
    NoReserve,
    /// A clock that has just jumped is believed.
    JumpBelieved,
    /// What comes behind a failure in a row is taken as if nothing had happened.
    RowGoesOn,
    /// A start leaves the marker of the stop before it.
    MarkerStays,
    /// Readers have the segments mapped that they read.
    SegmentMapped,
    /// Who wrote the version of the metadata that was acted upon is not written down.
    AuthorForgotten,
    /// A damaged log is cut without a copy of what it loses.
    DamageUnkept,
    /// What was set aside of a damaged log is not told of.
    AsideUntold,
    /// A log whose folder is not there at a start is not missed.
    MissingUnnoticed,
    /// Logs are believed whose directory has lost its checkpoint.
    ForgottenBelieved,
    /// A log is deleted that the checkpoint still has in its place.
    DeletedUnsaid,
}

/// Why the process has to end.
#[derive(Clone, Debug, thiserror::Error)]
#[error(
    "{path}: {what} failed: {error}; what the disk holds is not known any more, so this process has to end \
     without acknowledging anything",
    path = path.display()
)]
pub struct Fatal {
    /// The file or folder.
    pub path: PathBuf,
    /// What was tried.
    pub what: &'static str,
    /// What the system said.
    pub error: String,
    /// The number of the failure of a write or sync, as the next start finds it. `None`: work on a partition panicked, and
    /// nothing is wrong with the directory.
    pub failure: Option<u64>,
}
