//! Runs programs one after the other, and says at the end how long each took and which failed.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// How a set of steps ended. A failed step has already said why on the terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// All ended with exit code 0.
    Passed,
    /// At least one did not.
    Failed,
    /// This machine lacks what it takes, which the summary says.
    Skipped,
}

impl Outcome {
    /// Failed, if either is.
    #[must_use]
    pub(crate) fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Failed, _) | (_, Self::Failed) => Self::Failed,
            _ => Self::Passed,
        }
    }
}

/// What ran so far.
#[derive(Debug)]
pub(crate) struct Steps {
    done: Vec<(String, Duration, Outcome)>,
}

impl Steps {
    pub(crate) fn new() -> Self {
        Self { done: Vec::new() }
    }

    /// Runs one program to its end, its output on the terminal. An error means it could not be started; the
    /// message says which program that was.
    pub(crate) fn run(&mut self, name: &str, command: &mut Command) -> Result<Outcome, String> {
        self.time(name, || {
            let status = command
                .status()
                .map_err(|e| format!("step {name:?}: cannot start {:?}: {e}", command.get_program()))?;
            Ok(if status.success() { Outcome::Passed } else { Outcome::Failed })
        })
    }

    /// Does something as a step of its own. `job` has said on the terminal why it failed, if it did.
    pub(crate) fn time(
        &mut self,
        name: &str,
        job: impl FnOnce() -> Result<Outcome, String>,
    ) -> Result<Outcome, String> {
        eprintln!("\n==> {name}");
        let begun = Instant::now();
        let outcome = job()?;
        self.done.push((name.to_owned(), begun.elapsed(), outcome));
        Ok(outcome)
    }

    /// Notes a step that this machine cannot do. On CI nothing may be left out: there it has failed.
    pub(crate) fn skip(&mut self, name: &str, why: &str) -> Outcome {
        eprintln!("\n==> {name}\n{why}");
        let outcome = if std::env::var_os("CI").is_some() { Outcome::Failed } else { Outcome::Skipped };
        self.done.push((format!("{name} ({why})"), Duration::ZERO, outcome));
        outcome
    }

    /// One line a step. Says nothing when fewer than two ran: cargo has said it all.
    pub(crate) fn print_summary(&self) {
        if self.done.len() < 2 {
            return;
        }
        eprintln!();
        for (name, took, outcome) in &self.done {
            let word = match outcome {
                Outcome::Passed => "ok",
                Outcome::Failed => "FAILED",
                Outcome::Skipped => "skipped",
            };
            eprintln!("{word:>7}  {:>7.1} s  {name}", took.as_secs_f64());
        }
    }
}

/// The top folder of the repository, where every step runs.
pub(crate) fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_path_buf()
}

/// The cargo that runs this, on the locked dependencies.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    command
}
