//! Every broker answers every public call, whoever leads the partitions that it is about.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may stop at a surprise")]

mod direct;
mod placed;
mod produce_stream;
mod reading;
mod said;
mod sdk;
mod sealed;
mod unary;
mod unknown_fields;
