//! `weir cluster`: what concerns all of it.

mod finalize;

use clap::{Args, Subcommand};

use crate::error::Result;
use crate::session::Session;

/// The cluster as a whole: making an upgrade final
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ weir cluster finalize --dry-run
  $ weir cluster finalize --yes
  $ weir cluster finalize --dry-run -o json")]
pub(crate) struct Cluster {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Finalize(finalize::Finalize),
}

impl Cluster {
    pub(crate) async fn run(self, session: &Session) -> Result<()> {
        match self.command {
            Command::Finalize(command) => command.run(session).await,
        }
    }
}
