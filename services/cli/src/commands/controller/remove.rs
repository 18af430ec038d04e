//! `weir controller remove`.

use clap::Args;
use weir_proto::v1::UpdateVotersRequest;

use super::{all, role};
use crate::error::{Error, Result};
use crate::output::{self, View};
use crate::prompt;
use crate::session::Session;

/// Take controllers out of the quorum: those that are lost, or were replaced
#[derive(Debug, Args)]
#[command(after_help = "\
A new controller joins by itself when it is started with an empty folder and the endpoints of those
that run; take out the one that it replaces then. Refused: the one that leads (stop it first), and
what would leave no majority alive.

Examples:
  $ weir controller remove 14 --dry-run
  $ weir controller remove 14 --yes
  $ weir controller remove 14 27 --yes")]
pub(crate) struct Remove {
    /// The ids of the controllers
    #[arg(required = true, value_name = "ID")]
    ids: Vec<i64>,
}

impl Remove {
    pub(crate) async fn run(self, session: &Session) -> Result<()> {
        let voters = all(session).await?;
        for id in &self.ids {
            if !voters.iter().any(|voter| voter.voter_id == *id) {
                let ids: Vec<String> = voters.iter().map(|voter| voter.voter_id.to_string()).collect();
                let there_are = ids.join(", ");
                return Err(Error::NotFound(format!("there is no controller {id}; there are {there_are}")));
            }
        }
        let named = voters.iter().filter(|voter| self.ids.contains(&voter.voter_id));
        let named: Vec<String> =
            named.map(|voter| format!("{} ({}, {})", voter.voter_id, voter.endpoint, role(voter))).collect();
        let what = named.join(", ");
        let dry_run = session.dry_run();
        if !dry_run {
            prompt::confirm(session, &format!("Take controller {what} out of the quorum?")).await?;
        }
        let request = UpdateVotersRequest { remove_voter_ids: self.ids.clone(), validate_only: dry_run };
        let mut client = session.admin().await?;
        let answer = session.change(client.update_voters(session.request(request))).await?;
        let done = if dry_run { "would remove" } else { "removed" };
        let left = answer.after.iter().filter(|voter| voter.voting).count();
        let mut view = View::sentence(
            format!("{done} controller {what}; {left} vote"),
            self.ids.first().map(ToString::to_string).unwrap_or_default(),
            output::proto_json(&answer, "weir.v1.UpdateVotersResponse"),
        );
        if dry_run {
            view.line("dry run: nothing changed");
        }
        session.print(&view)
    }
}
