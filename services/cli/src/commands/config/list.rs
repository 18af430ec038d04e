//! `weir config list`.

use clap::Args;

use super::{levels, view};
use crate::error::Result;
use crate::session::Session;

/// All settings with their values and where these come from
#[derive(Debug, Default, Args)]
#[command(after_help = "\
Examples:
  $ weir config list
  $ weir config list -o wide
  $ weir config list -o json")]
pub(crate) struct List {
    /// Of this broker [default: of the cluster, and of the broker that answers]
    #[arg(long, value_name = "ID", value_parser = crate::commands::broker::parse_id)]
    broker: Option<i32>,
}

impl List {
    pub(crate) async fn run(self, session: &Session) -> Result<()> {
        session
            .show(|| async {
                let levels = levels(session, self.broker).await?;
                let each = levels.iter().flat_map(|l| l.settings.iter().map(|setting| (l.name(), setting)));
                Ok(view(each))
            })
            .await
    }
}
