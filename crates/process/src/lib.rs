//! The process around a service: its command line, its data directory, its logs, runtimes and signals, and the plain
//! HTTP that machines watch it by.
//!
//! Whatever serves in a process of its own (a broker, a controller, a whole Weir) starts and ends here, in the same
//! way; what it serves is not known here. A program is a few lines:
//!
//! ```text
//!   Flags (file, environment, command line) -> data_dir::check -> run: logs, limits, runtimes, signals
//!     -> the part starts -> ready -> a signal, or a part that cannot go on -> the part stops -> exit code
//! ```

pub mod data_dir;
mod exit;
mod flags;
pub mod http;
mod life;
pub mod metrics;

pub use exit::{Error, main};
pub use flags::{Flags, ReadyFile};
pub use life::{Part, Setup, run};
