//! Partitions with several replicas: what is acknowledged is on them, and stays when one of them goes.

#![allow(clippy::unwrap_used, reason = "a test may stop at a surprise")]

mod anew;
mod chaos;
mod deletions;
mod failover;
mod receipts;
mod support;
