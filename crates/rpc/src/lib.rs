//! What every listener shares: how failures are said, deadlines kept, connections counted and tuned.
//!
//! It knows the public error registry and HTTP/2, and nothing of logs, topics or clusters.

pub mod deadline;
mod problem;
pub mod reasons;
pub mod tuning;

pub use problem::Problem;
