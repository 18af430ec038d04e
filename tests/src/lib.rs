//! What the tests of the whole share: reading the workspace, running the real program, and running what the
//! documents promise.
//!
//! The tests themselves are in `tests/tests/`, one file per behaviour. A test of one crate lives in that
//! crate; here stands what can only be said of several together. No product code depends on this crate.

pub mod api;
pub mod batch;
pub mod binary;
pub mod cluster;
pub mod dev;
pub mod dice;
pub mod docs;
pub mod flights;
pub mod history;
pub mod languages;
pub mod layering;
pub mod process;
pub mod reader;
pub mod refusal;
pub mod small_disk;
pub mod tools;
pub mod writer;
