//! `weir dev`: a cluster of real processes on this machine, in one folder, for trying out and for tests.
//!
//! ```text
//!   weir-dev/
//!     lock  founded            who works on it; whether its cluster has begun
//!     controller-1/            weir.toml  data/  log  log-began  pid
//!     broker-1/                the same
//! ```
//!
//! The processes are this very program under the names `weir-controller` and `weir-broker`, with a configuration file
//! each, so that a person can start any of them by hand. What runs is known from pid files, which are believed only as
//! far as the system agrees ([`alive`]): a copy of the folder has them too, and is told from the one that runs.

mod alive;
mod down;
mod folder;
mod held;
mod id;
mod node;
mod signal;
mod start;
mod status;
mod up;

use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::error::Result;
use crate::session::Session;

/// A local cluster of real processes, in one folder
#[derive(Debug, Args)]
#[command(after_help = "\
Each node is a process of its own with a folder of its own (weir.toml, data, log). They go on when
this command has ended, and hear only on this machine.

Examples:
  $ weir dev up --brokers 1 --controllers 1
  $ weir dev status
  $ weir dev down")]
pub(crate) struct Dev {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Up(up::Up),
    Down(down::Down),
    Status(status::Status),
    Kill(signal::Kill),
    Pause(signal::Pause),
    Resume(signal::Resume),
    Start(start::Start),
}

/// Which cluster.
#[derive(Debug, Args)]
struct At {
    /// The folder with the cluster
    #[arg(long, default_value = "./weir-dev", value_name = "DIR")]
    dir: PathBuf,
}

impl Dev {
    pub(crate) async fn run(self, session: &Session) -> Result<()> {
        match self.command {
            Command::Up(command) => command.run(session).await,
            Command::Down(command) => command.run(session).await,
            Command::Status(command) => command.run(session).await,
            Command::Kill(command) => command.run(session).await,
            Command::Pause(command) => command.run(session),
            Command::Resume(command) => command.run(session),
            Command::Start(command) => command.run(session).await,
        }
    }

    /// Whether `--watch` makes sense.
    pub(crate) fn watchable(&self) -> bool {
        matches!(self.command, Command::Status(_))
    }

    /// Why it has no `--dry-run`, where it changes something.
    pub(crate) fn refuses_dry_run(&self) -> Option<String> {
        (!matches!(self.command, Command::Status(_))).then(|| {
            "this starts, stops or stuns processes, so it has no --dry-run; weir dev status shows them"
                .to_owned()
        })
    }
}
