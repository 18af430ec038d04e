//! The one door to the outside world: sockets, disks, threads, wall clock and randomness.
//!
//! Everything that would make one run of Weir differ from the next goes through [`Os`], real in production and
//! simulated in tests. Beside it stand the things every process needs once: shutdown, signals, telemetry.
//! Time is plain `tokio::time` and tasks are plain `tokio::spawn`, which a simulator controls by itself.

mod executors;
mod net;
mod os;
mod real;
pub mod testing;
mod threads;

pub use executors::{Executors, ExecutorsConfig};
pub use os::{Connection, Incoming, Listener, Os, Step, Waker, random_u64};
pub use real::RealOs;
