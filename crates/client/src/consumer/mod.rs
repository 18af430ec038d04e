//! The consumer: batches as they are stored, from the leaders' streams to the caller, as borrowed views.
//!
//! ```text
//!  leader -- FetchStream --> fetcher (I/O runtime) -- queue, bounded by credit --> poll (caller's thread)
//!              ^ credit, assign                                                    checks CRC, decompresses
//! ```
//!
//! A *position* is where reading goes on. It moves past what was handed out and past all that was filtered on the
//! way (markers, aborted or compacted records), so that a partition of which nothing is to be seen still has an end
//! that is reached. After a broken connection the fetcher goes on where it stopped, and names the leader epoch of
//! what it read last: a leader whose log has another history says so instead of going on with other records.

mod batch;
mod config;
mod fetcher;
mod handle;
mod subscription;
mod suspect;

pub use batch::{Batch, OwnedRecord, RecordView, RecordViews};
pub use config::{ConsumerConfig, Reset};
pub use handle::{Consumer, PartitionPosition, UntilEnd};
