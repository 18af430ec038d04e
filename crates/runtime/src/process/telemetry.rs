//! Logs, for people or for machines, always on stderr: stdout belongs to data.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::io::{self, IsTerminal, Write};
use std::panic::PanicHookInfo;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::util::SubscriberInitExt;

use super::Error;

/// How logs are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// One short line an event, in colour on a terminal.
    #[default]
    People,
    /// One JSON object a line.
    Json,
}

/// openraft calls it an error, twenty times a second, that another controller does not answer. Whoever leads says it once. h2 warns
/// in its own words of calls that their callers have given up, as of a process that was stopped for a minute: it says
/// nothing of what became of them, and each caller says that himself.
const QUIET: &str = "openraft::replication=off,openraft::core::raft_core=off,h2=error";

/// Sends logs to stderr from now on, panics included. `filter` is a level, or levels by module:
/// `info`, `warn,weir_storage=debug`. Once in a process.
///
/// # Errors
/// [`Error::LogFilter`] if `filter` makes no sense, [`Error::LogTwice`].
pub fn init_telemetry(format: LogFormat, filter: &str) -> Result<(), Error> {
    let parsed = EnvFilter::builder()
        .parse(format!("{QUIET},{filter}"))
        .map_err(|source| Error::LogFilter { filter: filter.to_owned(), source })?;
    let builder = tracing_subscriber::fmt().with_env_filter(parsed).with_writer(io::stderr);
    match format {
        LogFormat::People => builder.with_ansi(io::stderr().is_terminal()).compact().finish().try_init(),
        LogFormat::Json => builder.json().flatten_event(true).finish().try_init(),
    }
    .map_err(|_| Error::LogTwice)?;
    std::panic::set_hook(Box::new(log_panic));
    Ok(())
}

/// Logs a panic like anything else, so that it is one line of JSON where the rest is.
fn log_panic(info: &PanicHookInfo<'_>) {
    let message = info.payload_as_str().unwrap_or("a panic without a text");
    let thread = std::thread::current();
    let thread = thread.name().unwrap_or("unnamed");
    let location = info.location().map(ToString::to_string).unwrap_or_default();
    if !tracing::enabled!(tracing::Level::ERROR) {
        // Whatever was filtered out, this was not meant. If stderr is gone there is nobody left to tell.
        let _ = writeln!(io::stderr(), "panic: {message} (thread {thread}, {location})");
        return;
    }
    let backtrace = Backtrace::capture();
    if backtrace.status() == BacktraceStatus::Captured {
        tracing::error!(thread, location, %backtrace, "panic: {message}");
    } else {
        tracing::error!(thread, location, "panic: {message}");
    }
}
