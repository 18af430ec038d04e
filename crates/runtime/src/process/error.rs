//! What can go wrong here beyond plain I/O.

use thiserror::Error as ThisError;

/// An error of this crate.
#[derive(Debug, ThisError)]
pub enum Error {
    /// The filter for logs cannot be read.
    #[error(
        "log filter {filter:?} is not valid ({source}); write a level or levels by module: \"info\", \"warn,weir_storage=debug\""
    )]
    LogFilter {
        /// As it was given.
        filter: String,
        /// What is wrong with it.
        source: tracing_subscriber::filter::ParseError,
    },
    /// Logs already go somewhere.
    #[error("logging was already set up in this process")]
    LogTwice,
}
