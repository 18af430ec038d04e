//! What every process needs.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::Kind;
use crate::section::section;

/// How logs are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// One short line an event.
    #[default]
    People,
    /// One JSON object a line.
    Json,
}

impl LogFormat {
    const WORDS: &'static [&'static str] = &["people", "json"];

    pub(crate) fn of(word: &str) -> Option<Self> {
        match word {
            "people" => Some(Self::People),
            "json" => Some(Self::Json),
            _ => None,
        }
    }
}

section! {
    /// What every process needs.
    "common": pub struct Common {
        /// Where everything is kept that must survive. Created if it is not there; one process at a time.
        data_dir: PathBuf = Kind::Path, "./weir-data";
        /// Where HTTP answers: /metrics, /healthz, /readyz. Port 0 takes a free one.
        http_listen: SocketAddr = Kind::Listen, "127.0.0.1:9348";
        /// How logs are written, to stderr: for people, or one JSON object a line.
        log_format: LogFormat = Kind::Choice(LogFormat::WORDS), "people";
        /// What is logged: error, warn, info, debug or trace, also by module: "info,weir_storage=debug".
        log_filter: String = Kind::Text, "info,openraft=error";
        /// How long an orderly stop waits for calls to end before it ends them.
        drain_ms: Duration = Kind::Time(0, 3_600_000), "30s";
        /// Threads of the control plane: metadata, administration, everything that is not per batch.
        control_threads: usize = Kind::Count(1, 64), "2";
        /// Threads for what waits for the disk. auto: four a core, 8 to 64.
        io_threads: Option<usize> = Kind::CountOrAuto(1, 1_024), "auto";
    }
}
