//! `weir controller recover`: the last way out, without a server.

use std::path::{Path, PathBuf};

use clap::Args;
use weir_standalone::{FoundController, LostController};

use crate::clock;
use crate::error::{Error, Result};
use crate::output::View;
use crate::prompt;
use crate::session::Session;
use crate::units;

/// Where a process keeps its controller, below the data directory.
const CONTROLLER: &str = "controller";
/// What makes a folder a controller's.
const MARK: &str = "raft.redb";

/// Make one stopped controller the only one, when the quorum is lost for good
#[derive(Debug, Args)]
#[command(after_help = "\
What the lost controllers had decided, and this one had not heard, is lost: topics, settings, who
leads. Choose the folder whose log goes furthest (--dry-run shows it). Afterwards start this
controller, and then new ones with empty folders; the others are never heard again.

Examples:
  $ weir controller recover ./weir-data --dry-run
  $ weir controller recover ./weir-data/controller --yes
  $ weir controller recover ./weir-data --others-are-gone --yes")]
pub(crate) struct Recover {
    /// The data directory of the stopped controller
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// Also if other controllers of the cluster answer: there will be two histories
    #[arg(long)]
    others_are_gone: bool,
}

impl Recover {
    pub(crate) async fn run(self, session: &Session) -> Result<()> {
        let failed = |error: &dyn std::fmt::Display| Error::Failed(error.to_string());
        let dir = folder(&self.dir);
        let lost = LostController::open(session.os().clone(), &dir).await.map_err(|error| failed(&error))?;
        let found = lost.found().clone();
        let answering = lost.answering().await;
        if !answering.is_empty() && !self.others_are_gone {
            let who: Vec<String> = answering.iter().map(|(id, at)| format!("{id} at {at}")).collect();
            return Err(Error::Failed(format!(
                "controllers of this cluster answer: {}. As long as a majority of them can be started, nothing is lost; \
                 say --others-are-gone only if they shall never be used again",
                who.join(", ")
            )));
        }
        let mut view = View::sentence(said(&found), found.node_id.to_string(), object(&found));
        if session.dry_run() {
            view.line("dry run: nothing changed");
            return session.print(&view);
        }
        session.say(0, &said(&found));
        prompt::confirm(
            session,
            "Make it the only controller of the cluster? What it has not heard is lost.",
        )
        .await?;
        lost.take_over().await.map_err(|error| failed(&error))?;
        session.set_changed();
        let done = format!(
            "controller {} is the only one of cluster {}: start it, then others with empty folders",
            found.node_id, found.cluster_id
        );
        session.print(&View::sentence(done, found.node_id.to_string(), object(&found)))
    }
}

/// The controller's folder, also if the data directory around it was meant.
fn folder(dir: &Path) -> PathBuf {
    let below = dir.join(CONTROLLER);
    if !dir.join(MARK).exists() && below.join(MARK).exists() { below } else { dir.to_owned() }
}

/// How far it goes, in words.
fn said(found: &FoundController) -> String {
    let when = match found.last_ms {
        Some(ms) => format!(" of {}", clock::show(ms)),
        None => String::new(),
    };
    format!(
        "controller {} of cluster {}: its log ends with entry {} (term {}){when}; it knows {} and {}, and {} to be given \
         up",
        found.node_id,
        found.cluster_id,
        found.last_index,
        found.last_term,
        units::counted(found.topics as u64, "topic"),
        units::counted(found.brokers as u64, "broker"),
        units::counted(found.others.len() as u64, "other controller"),
    )
}

fn object(found: &FoundController) -> serde_json::Value {
    let others =
        found.others.iter().map(|(id, endpoint)| serde_json::json!({"id": id, "endpoint": endpoint}));
    serde_json::json!({
        "clusterId": found.cluster_id.to_string(), "controllerId": found.node_id,
        "lastIndex": found.last_index, "lastTerm": found.last_term, "lastMs": found.last_ms,
        "topics": found.topics, "brokers": found.brokers, "others": others.collect::<Vec<_>>(),
    })
}
