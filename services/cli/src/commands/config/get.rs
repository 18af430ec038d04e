//! `weir config get`.

use clap::Args;

use super::{levels, view};
use crate::error::{Error, Result};
use crate::session::Session;
use weir_types::{did_you_mean, nearest};

/// One setting, with its value, where that comes from, and what it does
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ weir config get retention_ms
  $ weir config get retention_ms -o wide
  $ weir config get retention_ms -o json")]
pub(crate) struct Get {
    /// Its name
    name: String,
    /// Of this broker [default: of the cluster, and of the broker that answers]
    #[arg(long, value_name = "ID", value_parser = crate::commands::broker::parse_id)]
    broker: Option<i32>,
}

impl Get {
    pub(crate) async fn run(self, session: &Session) -> Result<()> {
        session
            .show(|| async {
                let levels = levels(session, self.broker).await?;
                let all = levels.iter().flat_map(|l| l.settings.iter().map(|setting| (l.name(), setting)));
                let found: Vec<_> = all.filter(|(_, setting)| setting.name == self.name).collect();
                if found.is_empty() {
                    let names = levels.iter().flat_map(|l| l.settings.iter().map(|s| s.name.as_str()));
                    let hint = did_you_mean(nearest(&self.name, names));
                    let name = &self.name;
                    return Err(Error::NotFound(format!("no setting \"{name}\"{hint} (weir config list)")));
                }
                Ok(view(found))
            })
            .await
    }
}
