//! The replication of one partition, as pure state machines: what a leader admits and how far its high watermark goes,
//! who is in sync, whose data a follower takes and where its log is cut. No clock, socket, file or task is in here; a
//! broker plugs them into the partition's claim, where they are asked in the step that assigns the offset
//! (correctness rule D1), and a model checker runs the same code.
//!
//! ```text
//!                       controller: the record (leader, epochs, in-sync set, min.insync)
//!                          │ observe      ▲ propose
//!   appends ── admit ──▶ Leader ◀── subscribe, acknowledged ── Follower ── step ──▶ cut, start over
//! ```

mod admission;
mod ends;
mod follower;
mod hearing;
mod leader;
mod mutant;
mod record;
mod subscription;
#[cfg(test)]
mod tests;

pub use admission::{Attempt, Refusal, Verdict};
pub use ends::{Ends, History, Log};
pub use follower::Follower;
pub use leader::{Late, Leader};
pub use mutant::Mutant;
pub use record::{Member, Outcome, Proposal, Record};
pub use subscription::{Position, Step, Welcome, step};
