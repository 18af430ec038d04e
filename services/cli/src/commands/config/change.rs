//! `weir config set` and `weir config unset`: one call, two spellings.

use clap::Args;
use weir_proto::v1::{ConfigValue, UpdateConfigsRequest};

use super::shown;
use crate::commands::topic::parse_setting;
use crate::error::Result;
use crate::output::{self, View};
use crate::session::Session;

/// Change settings of the cluster, or of one broker
#[derive(Debug, Args)]
#[command(after_help = "\
A topic's setting, set here, is the value of all topics that do not set it themselves.

Examples:
  $ weir config set retention_ms=14d
  $ weir config set default_partitions=4 --dry-run
  $ weir config set retention_ms=unlimited")]
pub(crate) struct Set {
    /// Settings, such as retention_ms=14d
    #[arg(required = true, value_name = "NAME=VALUE", value_parser = parse_setting)]
    settings: Vec<(String, String)>,
    /// Of this broker [default: of the cluster]
    #[arg(long, value_name = "ID")]
    broker: Option<i32>,
}

/// Take settings back to what they were before anybody set them
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ weir config unset retention_ms
  $ weir config unset retention_ms --dry-run
  $ weir config unset retention_ms retention_bytes")]
pub(crate) struct Unset {
    /// Their names
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
    /// Of this broker [default: of the cluster]
    #[arg(long, value_name = "ID")]
    broker: Option<i32>,
}

impl Set {
    pub(crate) async fn run(self, session: &Session) -> Result<()> {
        let set_config = self.settings.into_iter().collect();
        change(session, UpdateConfigsRequest { broker_id: self.broker, set_config, ..Default::default() })
            .await
    }
}

impl Unset {
    pub(crate) async fn run(self, session: &Session) -> Result<()> {
        let request = UpdateConfigsRequest {
            broker_id: self.broker,
            unset_config: self.names,
            ..UpdateConfigsRequest::default()
        };
        change(session, request).await
    }
}

async fn change(session: &Session, mut request: UpdateConfigsRequest) -> Result<()> {
    request.validate_only = session.dry_run();
    request.request_id = session.request_id();
    let mut client = session.admin().await?;
    let answer = session.change(client.update_configs(session.request(request))).await?;
    let mut view = View::default();
    for after in &answer.after {
        let before = answer.before.iter().find(|setting| setting.name == after.name);
        view.line(line(before, after));
        view.names.push(after.name.clone());
        view.objects.push(output::proto_json(after, "weir.v1.ConfigValue"));
    }
    if session.dry_run() {
        view.line("dry run: nothing changed");
    }
    session.print(&view)
}

fn line(before: Option<&ConfigValue>, after: &ConfigValue) -> String {
    let old = before.map_or("(unset)".to_owned(), |before| shown(before, &before.value));
    let restart = if after.needs_restart { "  after a restart" } else { "" };
    format!("{} {old} -> {}{restart}", after.name, shown(after, &after.value))
}
