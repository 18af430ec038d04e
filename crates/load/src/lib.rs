//! Load on a server that speaks `weir.v1`, and what came of it: what `weir bench` and the programs of `bench/` drive.
//!
//! [`payload`] makes ready batches, [`leaders`] finds who takes them, [`produce`] and [`consume`] move them over streams and check every answer,
//! [`machine`] says where a figure was taken, [`report`] what came out. Not the SDK: nothing is packed, tried again or
//! sent elsewhere while the clock runs.

pub mod connect;
pub mod consume;
pub mod leaders;
pub mod machine;
pub mod payload;
pub mod produce;
pub mod report;
