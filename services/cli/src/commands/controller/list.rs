//! `weir controller list`.

use clap::Args;

use super::{all, role, state};
use crate::error::Result;
use crate::output::{self, Column, Table, UNKNOWN, View};
use crate::session::Session;

/// The controllers: who leads, who votes, who is away, how far each log is
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ weir controller list
  $ weir controller list -o json
  $ weir controller list --watch")]
pub(crate) struct List {}

impl List {
    pub(crate) async fn run(self, session: &Session) -> Result<()> {
        session.show(|| look(session)).await
    }
}

async fn look(session: &Session) -> Result<View> {
    let mut view = View::default();
    let mut table = Table::new(&[
        Column::right("ID"),
        Column::left("ROLE"),
        Column::left("STATE"),
        Column::left("ENDPOINT"),
        Column::right("LOG"),
        Column::right("BEHIND"),
    ]);
    let voters = all(session).await?;
    let newest = voters.iter().map(|voter| voter.log_index).max().unwrap_or(0);
    for voter in voters {
        // Only the one that leads knows of the others.
        let known = voter.log_index > 0;
        let or_unknown = |number: i64| if known { number.to_string() } else { UNKNOWN.to_owned() };
        table.row([
            voter.voter_id.to_string(),
            role(&voter).to_owned(),
            state(&voter),
            voter.endpoint.clone(),
            or_unknown(voter.log_index),
            or_unknown(newest - voter.log_index),
        ]);
        view.names.push(voter.voter_id.to_string());
        view.objects.push(output::proto_json(&voter, "weir.v1.Voter"));
    }
    view.table(table);
    Ok(view)
}
