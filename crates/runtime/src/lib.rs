//! The one door to the outside world: sockets, disks, threads, wall clock and randomness.
//!
//! Everything that would make one run of Weir differ from the next goes through [`Os`], real in production and
//! simulated in tests. Beside it stand the things every process needs once: shutdown, and, with the feature `process`,
//! signals, telemetry, limits.
//! Time is plain `tokio::time` and tasks are plain `tokio::spawn`, which a simulator controls by itself.

mod blocking;
mod executors;
mod net;
mod os;
#[cfg(feature = "process")]
mod process;
#[cfg(feature = "raft")]
mod raft_runtime;
mod real;
mod seldom;
mod stop;
pub mod testing;
mod threads;

pub use blocking::blocking;
pub use executors::{Executors, ExecutorsConfig};
pub use os::{Connection, Incoming, Listener, Os, Step, Waker, spread_ms};
#[cfg(feature = "process")]
pub use process::{
    Error, LogFormat, OnEnd, Role, TaskEnd, Usage, avoid_huge_pages, cpu_seconds, init_telemetry,
    memory_bytes, raise_open_files, watch_signals,
};
#[cfg(feature = "raft")]
pub use raft_runtime::{RaftRng, RaftRuntime, RaftSender};
pub use real::RealOs;
pub use seldom::Seldom;
pub use stop::{Reason, Signal, Stop};
