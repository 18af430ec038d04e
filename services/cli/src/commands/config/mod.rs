//! `weir config`: settings of the cluster and of brokers, with where each value comes from.

mod change;
mod get;
mod list;

use clap::{Args, Subcommand};
use weir_proto::v1::{ConfigSource, ConfigValue, ErrorReason, GetServerInfoRequest, ListConfigsRequest};

use crate::error::Result;
use crate::output::{self, Column, Table, View};
use crate::session::Session;
use crate::units;

/// Settings of the cluster and of brokers, and where each value comes from
#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "\
Settings of a topic: weir topic describe NAME -o wide. Of a process before it starts:
weir standalone --print-config.

Examples:
  $ weir config
  $ weir config get retention_ms
  $ weir config set retention_ms=14d"
)]
pub(crate) struct Config {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    #[command(alias = "ls")]
    List(list::List),
    #[command(aliases = ["show", "describe"])]
    Get(get::Get),
    #[command(alias = "alter")]
    Set(change::Set),
    #[command(alias = "rm")]
    Unset(change::Unset),
}

impl Config {
    pub(crate) fn watchable(&self) -> bool {
        matches!(self.command, None | Some(Command::List(_) | Command::Get(_)))
    }

    pub(crate) async fn run(self, session: &Session) -> Result<()> {
        match self.command.unwrap_or(Command::List(list::List::default())) {
            Command::List(command) => command.run(session).await,
            Command::Get(command) => command.run(session).await,
            Command::Set(command) => command.run(session).await,
            Command::Unset(command) => command.run(session).await,
        }
    }
}

/// Settings of one level.
struct Level {
    /// `None`: the cluster.
    broker: Option<i32>,
    settings: Vec<ConfigValue>,
}

impl Level {
    fn name(&self) -> String {
        self.broker.map_or("cluster".to_owned(), |id| format!("broker {id}"))
    }
}

/// The settings of one broker; without one, the cluster's and those of the broker that answers.
async fn levels(session: &Session, broker: Option<i32>) -> Result<Vec<Level>> {
    let wanted = match broker {
        Some(id) => vec![Some(id)],
        None => {
            let mut client = session.metadata().await?;
            let info = session.read(client.get_server_info(session.request(GetServerInfoRequest {}))).await?;
            vec![None, Some(info.broker_id)]
        }
    };
    let mut client = session.admin().await?;
    let mut levels = Vec::new();
    for broker in wanted {
        let request = session.request(ListConfigsRequest { broker_id: broker });
        match session.read(client.list_configs(request)).await {
            Ok(answer) => levels.push(Level { broker, settings: answer.configs }),
            // Nobody asked for a broker's: a server that cannot say them has said the cluster's.
            Err(error) if error.reason() == Some(ErrorReason::NotSupported) && !levels.is_empty() => {
                session.say(1, &error.to_string());
            }
            Err(error) => return Err(error),
        }
    }
    Ok(levels)
}

/// Settings as a table.
fn view<'a>(settings: impl IntoIterator<Item = (String, &'a ConfigValue)>) -> View {
    let mut view = View::default();
    let mut table = Table::new(&[
        Column::left("OF"),
        Column::left("SETTING"),
        Column::left("VALUE"),
        Column::left("FROM"),
        Column::left("DEFAULT").wide(),
        Column::left("WHAT IT DOES").wide(),
    ]);
    for (of, setting) in settings {
        table.row([
            of.clone(),
            setting.name.clone(),
            shown(setting, &setting.value),
            from(setting).to_owned(),
            shown(setting, &setting.default_value),
            setting.help.clone(),
        ]);
        let mut object = output::proto_json(setting, "weir.v1.ConfigValue");
        output::set(&mut object, "of", of);
        view.objects.push(object);
        view.names.push(setting.name.clone());
    }
    view.table(table);
    view
}

/// A value as people read it.
fn shown(setting: &ConfigValue, value: &str) -> String {
    if setting.sensitive { "(hidden)".to_owned() } else { units::setting(value, &setting.unit) }
}

/// Where a value comes from, as exactly as the server says.
fn from(setting: &ConfigValue) -> &str {
    if setting.origin.is_empty() { source(setting.source()) } else { &setting.origin }
}

/// Where a value comes from, in a word.
pub(super) fn source(source: ConfigSource) -> &'static str {
    match source {
        ConfigSource::Default | ConfigSource::Unspecified => "default",
        ConfigSource::Cluster => "cluster",
        ConfigSource::Broker => "broker",
        ConfigSource::Topic => "topic",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exact_place_is_shown_where_it_is_known() {
        let setting = |source: ConfigSource, origin: &str| ConfigValue {
            source: source.into(),
            origin: origin.to_owned(),
            ..ConfigValue::default()
        };
        for place in ["flag --listen", "env WEIR_LISTEN", "weir.toml:3", "default"] {
            assert_eq!(from(&setting(ConfigSource::Broker, place)), place);
        }
        assert_eq!(from(&setting(ConfigSource::Cluster, "")), "cluster");
    }
}
