//! Every broker answers every public call, whoever leads the partitions that it is about.

#![allow(clippy::unwrap_used, reason = "a test may stop at a surprise")]

mod placed;
