//! How a program that serves ends: what it says, and its exit code.

use std::io::Write as _;
use std::process::ExitCode;

use clap::{CommandFactory, Parser};

/// Why it did not serve, or ended otherwise than asked. Messages are whole sentences without a full stop, and carry
/// the way out.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The command line, the environment or the file ask for something that makes no sense.
    #[error("{0}")]
    Usage(String),
    /// It does not start, or failed.
    #[error("{0}")]
    Failed(String),
    /// Whoever read its output has enough.
    #[error("the reader of the output is gone")]
    OutputClosed,
}

impl From<crate::Setup> for Error {
    fn from(error: crate::Setup) -> Self {
        Self::failed(error)
    }
}

impl Error {
    /// What could not be started or stopped, in its own words.
    pub fn failed(error: impl std::fmt::Display) -> Self {
        Self::Failed(error.to_string())
    }

    /// The exit code: 1 failed, 2 usage.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) => 2,
            Self::Failed(_) => 1,
            Self::OutputClosed => 0,
        }
    }
}

/// The main function of a program whose command line is `P`: reads it, runs it, and says on stderr why it ended if that
/// was not wanted.
pub fn main<P: Parser + CommandFactory>(run: impl FnOnce(P) -> Result<i32, Error>) -> ExitCode {
    let asked = match P::try_parse() {
        Ok(asked) => asked,
        Err(error) => {
            // Help and version are no errors; clap knows where each of its texts belongs.
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { 2 } else { 0 });
        }
    };
    match run(asked) {
        Ok(code) => ExitCode::from(u8::try_from(code).unwrap_or(1)),
        Err(error) => {
            if !matches!(error, Error::OutputClosed) {
                let _ = writeln!(std::io::stderr(), "error: {error}");
            }
            ExitCode::from(error.exit_code())
        }
    }
}
