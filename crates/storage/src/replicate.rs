//! What a follower is given: frames as they lie in its leader's log. Hot path.
//!
//! They come from [`crate::decode_frames`], and go into this log as they are, but for what a header says of the log that
//! it lies in: how far that is flushed, and the checksum. Nothing is judged here but whether they belong where they
//! come: that was for the leader, and a follower takes whatever its leader accepted.

use std::fmt;

use weir_types::{LeaderEpoch, Offset};

use crate::append::AppendError;
use crate::ends::Ends;
use crate::read::Frame;

/// Called exactly once, as [`crate::Done`] is, when the frames are written: in the page cache, and on their way to the
/// disk. The high watermark in the ends may be that of before.
pub type ReplicatedDone = Box<dyn FnOnce(Result<Ends, ReplicateError>) + Send>;

/// Frames of a leader, one after the other.
pub struct Replicated {
    /// The leadership that they were sent in; they may have been appended in earlier ones.
    pub leader_epoch: LeaderEpoch,
    /// The first one begins at the log's end.
    pub frames: Vec<Frame>,
    /// The answer.
    pub done: ReplicatedDone,
}

impl Replicated {
    pub(crate) fn payload_bytes(&self) -> usize {
        self.frames.iter().map(|frame| frame.payload.len()).sum()
    }

    /// It comes too late.
    pub(crate) fn refuse(self) {
        (self.done)(Err(ReplicateError::Closed));
    }
}

impl fmt::Debug for Replicated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Replicated")
            .field("leader_epoch", &self.leader_epoch)
            .field("from", &self.frames.first().map(|frame| frame.header.base_offset))
            .field("frames", &self.frames.len())
            .finish_non_exhaustive()
    }
}

/// Why frames were not taken. None of them is in the log; but for want of space or of a descriptor, where whole frames
/// from the front may be: the log's end says.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReplicateError {
    /// This replica follows another leadership, or nobody.
    #[error("they were sent in leader epoch {given}, and this replica follows {}", shown(*follows))]
    WrongEpoch {
        /// That of the frames.
        given: LeaderEpoch,
        /// The one that this replica follows.
        follows: Option<LeaderEpoch>,
    },
    /// They do not begin at the log's end, or one does not begin where the one before it ends.
    #[error("a frame has offset {given}, {expected} is next")]
    Gap {
        /// The offset that is next.
        expected: Offset,
        /// The frame's.
        given: Offset,
    },
    /// No leader sends that.
    #[error("a frame is malformed: {0}")]
    Malformed(&'static str),
    /// Too little space is left.
    #[error(
        "{available_bytes} bytes are left in the log directory, {reserved_bytes} are reserved: free space or add some"
    )]
    DiskFull {
        /// What is left.
        available_bytes: u64,
        /// What is kept in reserve.
        reserved_bytes: u64,
    },
    /// The process has no file descriptor left; it may be tried again.
    #[error("no file descriptor is left: raise the process's limit (ulimit -n), or lower open_files_max")]
    NoHandles,
    /// The partition was closed before.
    #[error("the partition is closed")]
    Closed,
    /// A write or sync failed, or this process ends otherwise: they may be in the log or not.
    #[error("this process is ending: they may be in the log or not")]
    Failed,
}

fn shown(epoch: Option<LeaderEpoch>) -> String {
    epoch.map_or_else(|| "nobody".to_owned(), |epoch| format!("leader epoch {epoch}"))
}

/// What a write is refused for.
impl From<AppendError> for ReplicateError {
    fn from(error: AppendError) -> Self {
        match error {
            AppendError::DiskFull { available_bytes, reserved_bytes } => {
                Self::DiskFull { available_bytes, reserved_bytes }
            }
            AppendError::NoHandles => Self::NoHandles,
            _ => Self::Failed,
        }
    }
}

/// An answer that is owed. Dropped, it says that the process ends.
pub(crate) struct ReplicatedReply(Option<ReplicatedDone>);

impl ReplicatedReply {
    pub(crate) fn new(done: ReplicatedDone) -> Self {
        Self(Some(done))
    }

    pub(crate) fn give(mut self, answer: Result<Ends, ReplicateError>) {
        self.answer(answer);
    }

    fn answer(&mut self, answer: Result<Ends, ReplicateError>) {
        if let Some(done) = self.0.take() {
            done(answer);
        }
    }
}

impl Drop for ReplicatedReply {
    fn drop(&mut self) {
        self.answer(Err(ReplicateError::Failed));
    }
}
