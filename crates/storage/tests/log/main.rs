//! The log from outside, on a disk in memory.

mod basics;
mod failures;
mod support;
