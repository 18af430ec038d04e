//! The log on disk: partitions, offsets, epochs, bytes.
//!
//! It opens a directory, creates and deletes partitions in it, appends batches, reads from an offset, finds an offset
//! by time, cuts, moves the start, syncs, and after a crash finds out what is true. It knows nothing of gRPC, of
//! groups, or of who may append: that is asked of an [`Admission`] in the step that assigns the offset. On the way of
//! a batch it stands between the broker's produce call and the disk, and again between the disk and a fetch.
//!
//! ```text
//!  submit ──▶ queue ──▶ claim: the owner judges, assigns, writes ──▶ segment files ──▶ read
//!                         ▲ flushed                      │ asks
//!                         └────────── flusher ◀──────────┘        keeper: seals, checkpoint, retention
//! ```
//!
//! Everything goes through [`weir_io::Disk`], so that what it does to a disk can be watched, broken and cut off.
//! The rules it keeps are in docs/correctness.md; where a comment says "rule 36", that is the one.
//!
//! Planted bugs: with the feature `mutants` a directory can be opened with one rule taken out ([`Mutant`]), to show
//! that the tests notice. Without it the compiler removes the question.

mod admission;
mod append;
mod bytes;
mod checkpoint;
mod claim;
mod clock;
mod config;
mod control;
mod core;
mod deleter;
mod dir;
mod dirfile;
mod ends;
mod epochs;
mod error;
mod failed;
mod flusher;
mod frame;
mod index;
pub mod inspect;
mod jobs;
mod keeper;
mod moves;
mod owner;
mod pace;
mod partition;
mod producers;
mod read;
mod recovery;
mod replicate;
mod retention;
mod scan;
mod segment;
mod sidecar;
mod spots;
mod start_state;
mod stats;
mod strays;
mod waits;
mod writeback;

pub use admission::{Admission, Holders, LogView, NotLeading, Verdict};
pub use append::{Acks, Append, AppendError, Appended, Done, Gate, NewBatch, Refusal, Refused};
pub use config::{DirIdentity, DirOptions, Fatal, LogConfig, Mutant, SEGMENT_BYTES_MAX};
pub use control::{Control, Outcome, OutcomeQuery, UnknownCause};
pub use dir::{Created, LogDir, OpenReport, Unusable};
pub use dirfile::{BrokerEpoch, Whose, whose};
pub use ends::{Ends, Limit};
pub use error::{Error, ReadError};
pub use frame::{FrameError, FrameHeader, HEADER_BYTES, Seed};
pub use pace::Pacing;
pub use partition::{Description, Partition};
pub use producers::ProducerTable;
pub use read::{Chunk, Frame, Frames, ReadRequest, TimestampOffset, decode_frames};
pub use recovery::Whole;
pub use replicate::{ReplicateError, Replicated, ReplicatedDone};
pub use spots::Spot;
pub use start_state::StartState;
pub use stats::{Counter, Gauge, Histogram, Progress, Stats};
