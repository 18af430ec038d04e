//! Partitions with several replicas: what is acknowledged is on them, and stays when one of them goes.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may stop at a surprise")]

mod anew;
mod chaos;
mod deletions;
mod failed_disk;
mod failover;
mod fresh;
mod lag;
mod lost_end;
mod missing;
mod near;
mod receipts;
mod rotten;
mod slow_disk;
mod support;
mod unheard;
mod waits;
