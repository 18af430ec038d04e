//! `weir dev status`: what runs.

use clap::Args;

use super::At;
use super::folder::Folder;
use super::id;
use super::node::Node;
use crate::error::Result;
use crate::output::{Column, Table, View};
use crate::session::Session;

/// Which nodes there are, which run, and where
#[derive(Debug, Args)]
#[command(after_help = "\
weir status -s localhost:9347 says how the cluster is, as it sees itself.

Examples:
  $ weir dev status
  $ weir dev status -o wide
  $ weir dev status --dir ./weir-dev -o json")]
pub(super) struct Status {
    #[command(flatten)]
    at: At,
}

impl Status {
    pub(super) async fn run(self, session: &Session) -> Result<()> {
        session.show(|| async { view(session, &Folder::existing(&self.at.dir)?).await }).await
    }
}

/// All nodes.
pub(super) async fn view(session: &Session, folder: &Folder) -> Result<View> {
    let columns = [
        Column::left("NODE"),
        Column::right("ID"),
        Column::left("STATE"),
        Column::right("PID"),
        Column::left("ADDRESS"),
        Column::left("HTTP"),
        Column::left("LOG").wide(),
    ];
    let mut table = Table::new(&columns);
    let mut view = View::default();
    for node in &folder.nodes {
        let (state, pid, why) = state(session, node).await?;
        let (name, log) = (node.name(), node.log().display().to_string());
        let shown = if why.is_empty() { state.to_owned() } else { format!("{state}: {why}") };
        let http = format!("localhost:{}", node.http.port());
        let pid_shown = pid.map_or_else(String::new, |pid| pid.to_string());
        let id = id::of(node, state == "ready" || state == "not ready").await;
        let id_shown = id.map_or_else(String::new, |id| id.to_string());
        table.row([&name, &id_shown, &shown, &pid_shown, &address(node), &http, &log]);
        view.objects.push(serde_json::json!({
            "name": name, "role": node.role.word(), "state": state.to_uppercase().replace(' ', "_"), "why": why,
            "id": id, "pid": pid,
            "address": address(node), "http": http, "log": log,
        }));
        view.names.push(name);
    }
    view.table(table);
    Ok(view)
}

/// Where clients, or brokers, connect to.
pub(super) fn address(node: &Node) -> String {
    format!("localhost:{}", node.addr.port())
}

/// How a node is, its process, and why it is not ready.
async fn state(session: &Session, node: &Node) -> Result<(&'static str, Option<i32>, String)> {
    let Some(alive) = node.alive()? else { return Ok(("stopped", None, String::new())) };
    let pid = Some(alive.pid);
    if alive.paused {
        // It would not answer.
        return Ok(("paused", pid, String::new()));
    }
    Ok(match node.page(&**session.os(), "/readyz").await {
        Ok((200, _)) => ("ready", pid, String::new()),
        Ok((_, why)) => ("not ready", pid, why),
        Err(error) => ("not ready", pid, error.to_string()),
    })
}
