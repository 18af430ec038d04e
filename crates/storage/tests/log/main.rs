//! The log from outside, on a disk in memory.

mod basics;
mod failures;
mod model;
mod mutants;
mod rng;
mod support;
