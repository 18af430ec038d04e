//! What the metadata core promises, seen from outside.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "helpers of tests may stop at the first surprise, like tests"
)]

mod brokers;
mod common;
mod failed;
mod leaders;
mod levels;
mod random;
mod reference;
mod topics;
