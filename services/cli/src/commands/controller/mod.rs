//! `weir controller`: the controllers of the cluster.

mod list;
mod recover;
mod remove;

use std::time::Duration;

use clap::{Args, Subcommand};
use weir_proto::v1::{ListVotersRequest, Voter, VoterState};

use crate::error::Result;
use crate::output::UNKNOWN;
use crate::session::Session;
use crate::units;

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

/// Heartbeats come several times as often: who has been silent for so long may be about to be called away.
const SILENT: Duration = Duration::from_secs(1);

/// Whether a controller is there, in a word; and for how long it has said nothing, if that is long.
fn state(voter: &Voter) -> String {
    let silence = Duration::from_millis(voter.silent_ms.max(0).unsigned_abs());
    match voter.state() {
        VoterState::Rewound => "older copy".to_owned(),
        _ if !voter.note.is_empty() => "goes on apart".to_owned(),
        VoterState::Up if silence < SILENT => "up".to_owned(),
        VoterState::Up => format!("silent for {}", units::elapsed(silence)),
        VoterState::Away => "away".to_owned(),
        VoterState::Unspecified => UNKNOWN.to_owned(),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_controller_that_says_nothing_is_not_shown_as_up_until_it_is_called_away() {
        let shown = |known: VoterState, silent_ms| {
            state(&Voter { state: known.into(), silent_ms, ..Voter::default() })
        };
        assert_eq!(shown(VoterState::Up, 90), "up");
        assert_eq!(shown(VoterState::Up, 1_800), "silent for 1.8 s");
        assert_eq!(shown(VoterState::Away, 90_000), "away");
        assert_eq!(shown(VoterState::Unspecified, 0), UNKNOWN);
        let noted = |known: VoterState| {
            let note = "what to do".to_owned();
            state(&Voter { state: known.into(), note, ..Voter::default() })
        };
        assert_eq!(noted(VoterState::Up), "goes on apart");
        assert_eq!(noted(VoterState::Rewound), "older copy", "it goes nowhere");
    }
}
