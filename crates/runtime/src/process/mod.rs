//! What a process that serves needs once: roles with tasks that end as their kind says, signals, telemetry, limits, and
//! what it uses of the machine. Not for an application that only talks to Weir: it has its own.

mod error;
mod life;
mod limits;
mod signals;
mod telemetry;
mod usage;

pub use error::Error;
pub use life::{OnEnd, Role, TaskEnd};
pub use limits::{avoid_huge_pages, memory_bytes, raise_open_files};
pub use signals::watch_signals;
pub use telemetry::{LogFormat, init_telemetry};
pub use usage::{Usage, cpu_seconds};
