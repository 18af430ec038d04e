//! The replication of one partition, as a pure state machine: what a leader admits and how far its high watermark
//! goes. No clock, socket, file or task is in here; a broker plugs it into the partition's claim, where it is
//! asked in the step that assigns the offset (correctness rule D1), and a model checker runs the same code.
//!
//! Today a partition has one replica: followers, the in-sync set and elections are not here yet.

mod admission;
mod leader;

pub use admission::{Attempt, Refusal, Verdict};
pub use leader::{Leader, Log};
