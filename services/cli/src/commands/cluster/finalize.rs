//! `weir cluster finalize`.

use clap::Args;
use weir_proto::v1::FinalizeFeatureLevelRequest;

use crate::error::Result;
use crate::output::{self, View};
use crate::prompt;
use crate::session::Session;

/// Make an upgrade final: what only the new version understands may be written
#[derive(Debug, Args)]
#[command(after_help = "\
Until then processes of the old and the new version work together, and the upgrade can be taken
back. All controllers must run, and every broker that serves; whoever is down must be upgraded
before it comes back.

Examples:
  $ weir cluster finalize --dry-run
  $ weir cluster finalize
  $ weir cluster finalize --yes")]
pub(crate) struct Finalize {}

impl Finalize {
    pub(crate) async fn run(self, session: &Session) -> Result<()> {
        let mut client = session.admin().await?;
        let trial = FinalizeFeatureLevelRequest { validate_only: true };
        let mut answer = session.read(client.finalize_feature_level(session.request(trial))).await?;
        let rises = answer.after > answer.before;
        if rises && !session.dry_run() {
            let question = format!(
                "Raise the feature level from {} to {}? Earlier versions cannot be started after that.",
                answer.before, answer.after
            );
            prompt::confirm(session, &question).await?;
            let request = FinalizeFeatureLevelRequest { validate_only: false };
            answer = session.change(client.finalize_feature_level(session.request(request))).await?;
        }
        let line = match (answer.after > answer.before, session.dry_run()) {
            (true, true) => {
                format!("would raise the feature level from {} to {}", answer.before, answer.after)
            }
            (true, false) => format!("raised the feature level from {} to {}", answer.before, answer.after),
            (false, _) => format!("the feature level stays at {}", answer.before),
        };
        let object = output::proto_json(&answer, "weir.v1.FinalizeFeatureLevelResponse");
        let mut view = View::sentence(line, answer.after.to_string(), object);
        answer.held_back_by.iter().for_each(|why| view.line(format!("  {why}")));
        if session.dry_run() {
            view.line("dry run: nothing changed");
        }
        session.print(&view)
    }
}
