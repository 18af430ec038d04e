//! `weir dev down`: stops everything in order.

use clap::Args;
use rustix::process::Signal;
use tokio::time::Instant;

use super::At;
use super::folder::Folder;
use super::node::{Role, io_error};
use crate::error::Result;
use crate::output::View;
use crate::session::Session;
use crate::units;

/// Stop all nodes in order; their data stays
#[derive(Debug, Args)]
#[command(after_help = "\
Brokers first, which hand over what they lead, then the controllers. weir dev up starts them again.

Examples:
  $ weir dev down
  $ weir dev down --dir ./weir-dev
  $ weir dev down --timeout 60s")]
pub(super) struct Down {
    #[command(flatten)]
    at: At,
}

impl Down {
    pub(super) async fn run(self, session: &Session) -> Result<()> {
        let until = Instant::now() + session.timeout();
        let folder = Folder::existing(&self.at.dir)?;
        let _lock = folder.lock(session)?;
        let mut stopped = 0;
        for role in [Role::Broker, Role::Controller] {
            for node in folder.of(role) {
                let Some(alive) = node.alive()? else { continue };
                stopped += 1;
                // One that is paused hears of it when it goes on.
                alive
                    .send(Signal::TERM)
                    .and_then(|()| alive.send(Signal::CONT))
                    .map_err(|source| io_error(format!("cannot stop {}", node.name()), source))?;
            }
            for node in folder.of(role) {
                node.gone(until).await?;
                node.forget()?;
            }
        }
        let dir = folder.path().display().to_string();
        let line = match stopped {
            0 => format!("nothing runs in {dir}"),
            n => format!("stopped {}; their data stays in {dir}", units::counted(n, "node")),
        };
        let object = serde_json::json!({ "dir": dir, "stopped": stopped });
        session.print(&View::sentence(line, dir, object))
    }
}
