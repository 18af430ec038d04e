//! The producer: from one record at a time on the caller's thread to batches on a stream, and back to receipts.
//!
//! ```text
//!  caller's thread                          compression pool           I/O runtime
//!  send -> buffer (one mutex, packs)  ----> compress, sum up  ----->   lane of the partition -> stream of its leader
//!            ^ full, or lingered, or idle                                 | answered, refused, lost
//!  receipt <------------------------------------------------------------ result of the batch
//! ```
//!
//! What keeps records once and in order, although connections break and leaders move, is in `lane`: every batch has
//! a sequence number that it keeps until its outcome is known, and no batch is given up without the partition being
//! asked what became of it.

mod buffer;
mod compress;
mod config;
mod handle;
mod lane;
mod parcel;
mod partitioner;
mod receipt;
mod sender;
mod settle;
mod stream;
mod verdict;

pub use config::{Acks, Floor, ProducerConfig};
pub use handle::{AppendOptions, Producer, Totals};
pub use partitioner::{Partitioner, Partitioning};
pub use receipt::{Delivery, Receipt};

pub(crate) use compress::compression_threads;
