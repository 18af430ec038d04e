//! `weir dev start`: starts a node that does not run.

use clap::Args;
use tokio::time::Instant;

use super::folder::Folder;
use super::node::{Node, Role};
use super::{At, held};
use crate::error::{Error, Result};
use crate::output::View;
use crate::session::Session;

/// Start nodes that were killed, and wait until they are ready
#[derive(Debug, Args)]
#[command(after_help = "\
weir dev up starts everything that does not run.

Examples:
  $ weir dev start broker-1
  $ weir dev start controller-1 broker-1
  $ weir dev start broker-1 --dir ./weir-dev")]
pub(super) struct Start {
    /// Nodes: broker-1, controller-2 (weir dev status)
    #[arg(value_name = "NAME", required = true)]
    names: Vec<String>,
    #[command(flatten)]
    at: At,
}

impl Start {
    pub(super) async fn run(self, session: &Session) -> Result<()> {
        let until = Instant::now() + session.timeout();
        let folder = Folder::existing(&self.at.dir)?;
        let _lock = folder.lock(session)?;
        if !folder.founded() {
            let dir = folder.path().display();
            return Err(Error::Failed(format!("the cluster in {dir} has not begun: weir dev up begins it")));
        }
        let nodes = folder.named(&self.names)?;
        for node in &nodes {
            if node.alive()?.is_none() {
                held::refuse(node)?;
                spawn(&folder, node)?;
            }
        }
        let mut view = View::default();
        for node in nodes {
            node.ready(&**session.os(), until).await?;
            view.names.push(node.name());
            view.objects.push(serde_json::json!({ "name": node.name(), "state": "READY" }));
            view.line(format!("{} is ready", node.name()));
        }
        session.print(&view)
    }
}

/// Starts a node of a cluster that has begun. A controller that is new, or has lost its disk, or was killed before it had one,
/// asks the others for a place; one that has a place does not.
pub(super) fn spawn(folder: &Folder, node: &Node) -> Result<()> {
    let others = folder.of(Role::Controller).filter(|other| *other != node);
    let others: Vec<String> = others.map(|other| other.addr.to_string()).collect();
    let may_ask = node.role == Role::Controller && !others.is_empty();
    let flags = if may_ask { vec!["--join".to_owned(), others.join(",")] } else { Vec::new() };
    node.spawn(&flags)
}
