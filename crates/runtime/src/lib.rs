//! The one door to the outside world: sockets, disks, threads, wall clock and randomness.
//!
//! Everything that would make one run of Weir differ from the next goes through [`Os`], real in production and
//! simulated in tests. Beside it stand the things every process needs once: shutdown, signals, telemetry.
//! Time is plain `tokio::time` and tasks are plain `tokio::spawn`, which a simulator controls by itself.

mod blocking;
mod error;
mod executors;
mod life;
mod limits;
mod net;
mod os;
#[cfg(feature = "raft")]
mod raft_runtime;
mod real;
mod seldom;
mod signals;
mod stop;
mod telemetry;
pub mod testing;
mod threads;
mod usage;

pub use blocking::blocking;
pub use error::Error;
pub use executors::{Executors, ExecutorsConfig};
pub use life::{OnEnd, Role, TaskEnd};
pub use limits::{avoid_huge_pages, memory_bytes, raise_open_files};
pub use os::{Connection, Incoming, Listener, Os, Step, Waker, random_u64, random_u128};
#[cfg(feature = "raft")]
pub use raft_runtime::{RaftRng, RaftRuntime, RaftSender};
pub use real::RealOs;
pub use seldom::Seldom;
pub use signals::watch_signals;
pub use stop::{Reason, Signal, Stop};
pub use telemetry::{LogFormat, init_telemetry};
pub use usage::{Usage, cpu_seconds};
