//! The controller: a quorum of these keeps the cluster metadata.
//!
//! A command is proposed, written to the raft log of a majority, applied to the state machine of `weir-metadata`,
//! and what changed is told to everybody who watches. The pieces, in the order a command meets them: `service`
//! (calls of brokers), `propose` (gathering into entries), `raft` and `store` (the log), `machine` (state,
//! snapshots, watchers). Beside them: `sessions` (who is alive), `members` (who is in the quorum), `barrier`
//! (reads that must be current), `changes` and `news` (what people are told).
//!
//! It decides nothing about metadata itself, and never talks to clients.

mod ahead;
mod barrier;
mod changes;
mod config;
mod controller;
mod elections;
mod error;
mod fences;
#[cfg(test)]
mod fixtures;
mod forward;
mod machine;
mod members;
mod metrics;
mod mutant;
mod news;
mod probe;
mod process;
mod propose;
mod raft;
mod recover;
mod reports;
mod running;
mod service;
mod sessions;
mod store;
mod unled;

pub use config::Config;
pub use controller::{Controller, Handle};
pub use error::Error;
pub use metrics::page as metrics_page;
pub use mutant::Mutant;
pub use process::main;
pub use recover::{Found, Lost};
pub use running::Running;
