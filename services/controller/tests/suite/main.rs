//! What a controller promises, seen through its calls: real sockets, disks in memory that can lose power.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "helpers of tests may stop at the first surprise, like tests"
)]

mod brokers;
mod common;
mod life;
mod liveness;
mod loss;
mod quorum;
mod snapshots;
mod watching;
