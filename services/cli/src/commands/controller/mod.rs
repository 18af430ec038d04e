//! `weir controller`: the controllers of the cluster.

mod list;
mod recover;
mod remove;

use clap::{Args, Subcommand};
use weir_proto::v1::{ListVotersRequest, Voter, VoterState};

use crate::error::Result;
use crate::output::UNKNOWN;
use crate::session::Session;

/// Controllers: who votes, who leads, who is taken out
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ weir controller list
  $ weir controller remove 14 --dry-run
  $ weir controller recover ./weir-data --dry-run")]
pub(crate) struct Controller {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    #[command(alias = "ls")]
    List(list::List),
    #[command(alias = "rm")]
    Remove(remove::Remove),
    Recover(recover::Recover),
}

impl Controller {
    /// Whether looking again makes sense.
    pub(crate) fn watchable(&self) -> bool {
        matches!(self.command, Command::List(_))
    }

    pub(crate) async fn run(self, session: &Session) -> Result<()> {
        match self.command {
            Command::List(command) => command.run(session).await,
            Command::Remove(command) => command.run(session).await,
            Command::Recover(command) => command.run(session).await,
        }
    }
}

/// The controllers, by id.
pub(super) async fn all(session: &Session) -> Result<Vec<Voter>> {
    let mut client = session.admin().await?;
    let mut voters = session.read(client.list_voters(session.request(ListVotersRequest {}))).await?.voters;
    voters.sort_by_key(|voter| voter.voter_id);
    Ok(voters)
}

/// Whether a controller is there, in a word.
fn state(voter: &Voter) -> &'static str {
    match voter.state() {
        VoterState::Up => "up",
        VoterState::Away => "away",
        VoterState::Unspecified => UNKNOWN,
    }
}

/// What a controller does in the quorum, in a word.
fn role(voter: &Voter) -> &'static str {
    match (voter.leader, voter.voting) {
        (true, _) => "leads",
        (false, true) => "votes",
        (false, false) => "learns",
    }
}
