//! `weir dev kill`, `pause`, `resume`: what happens to machines, done to processes.

use clap::Args;
use rustix::process::Signal;
use tokio::time::Instant;

use super::At;
use super::folder::Folder;
use super::node::{Node, io_error};
use crate::error::{Error, Result};
use crate::output::View;
use crate::session::Session;

/// Which nodes.
#[derive(Debug, Args)]
struct Nodes {
    /// Nodes: broker-1, controller-2 (weir dev status)
    #[arg(value_name = "NAME", required = true)]
    names: Vec<String>,
    #[command(flatten)]
    at: At,
}

/// Kill nodes where they stand (SIGKILL), as a crash would
#[derive(Debug, Args)]
#[command(after_help = "\
weir dev start starts them again.

Examples:
  $ weir dev kill broker-1
  $ weir dev kill broker-1 controller-1
  $ weir dev kill controller-1 --dir ./weir-dev")]
pub(super) struct Kill {
    #[command(flatten)]
    nodes: Nodes,
}

/// Stop nodes from doing anything (SIGSTOP), as a machine that hangs
#[derive(Debug, Args)]
#[command(after_help = "\
They keep their connections and say nothing until weir dev resume.

Examples:
  $ weir dev pause broker-1
  $ weir dev pause broker-1 controller-1
  $ weir dev pause broker-1 --dir ./weir-dev")]
pub(super) struct Pause {
    #[command(flatten)]
    nodes: Nodes,
}

/// Let paused nodes go on (SIGCONT)
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ weir dev resume broker-1
  $ weir dev resume broker-1 controller-1
  $ weir dev resume broker-1 --dir ./weir-dev")]
pub(super) struct Resume {
    #[command(flatten)]
    nodes: Nodes,
}

impl Kill {
    pub(super) async fn run(self, session: &Session) -> Result<()> {
        let until = Instant::now() + session.timeout();
        let folder = Folder::existing(&self.nodes.at.dir)?;
        let nodes = self.nodes.send(&folder, Signal::KILL)?;
        for node in &nodes {
            node.gone(until).await?;
        }
        // Whoever has the lock is about to start some of them, and notes others.
        if let Ok(_lock) = folder.lock(session) {
            nodes
                .iter()
                .filter(|node| matches!(node.alive(), Ok(None)))
                .try_for_each(|node| node.forget())?;
        }
        session.print(&said(&nodes, "is killed", "STOPPED"))
    }
}

impl Pause {
    pub(super) fn run(self, session: &Session) -> Result<()> {
        let folder = Folder::existing(&self.nodes.at.dir)?;
        session.print(&said(&self.nodes.send(&folder, Signal::STOP)?, "is paused", "PAUSED"))
    }
}

impl Resume {
    pub(super) fn run(self, session: &Session) -> Result<()> {
        let folder = Folder::existing(&self.nodes.at.dir)?;
        session.print(&said(&self.nodes.send(&folder, Signal::CONT)?, "goes on", "RUNNING"))
    }
}

impl Nodes {
    /// Sends a signal to all of them, if all of them run.
    fn send<'a>(&self, folder: &'a Folder, signal: Signal) -> Result<Vec<&'a Node>> {
        let nodes = folder.named(&self.names)?;
        let running = |node: &&Node| {
            let name = node.name();
            let hint = || Error::Failed(format!("{name} does not run (weir dev start {name})"));
            Ok((name.clone(), node.alive()?.ok_or_else(hint)?))
        };
        let alive = nodes.iter().map(running).collect::<Result<Vec<_>>>()?;
        for (name, alive) in alive {
            alive.send(signal).map_err(|source| io_error(format!("cannot signal {name}"), source))?;
        }
        Ok(nodes)
    }
}

fn said(nodes: &[&Node], what: &str, state: &str) -> View {
    let mut view = View::default();
    for node in nodes {
        let name = node.name();
        view.line(format!("{name} {what}"));
        view.objects.push(serde_json::json!({ "name": name, "state": state }));
        view.names.push(name);
    }
    view
}
