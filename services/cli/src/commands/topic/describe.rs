//! `weir topic describe`.

use clap::Args;
use weir_proto::v1::{ConfigSource, DescribePartitionsRequest, Topic};

use super::{get, summary};
use crate::clock;
use crate::commands::{config, partition};
use crate::error::Result;
use crate::output::{self, Column, Table, View};
use crate::reference::parse_topic;
use crate::session::Session;
use crate::units;

/// A topic: its partitions, where they stand, and its settings
#[derive(Debug, Args)]
#[command(after_help = "\
Without -o wide, settings that nobody changed are left out.

Examples:
  $ weir topic describe flights
  $ weir topic describe flights greetings -o wide
  $ weir topic describe flights -o json")]
pub(crate) struct Describe {
    /// The topics
    #[arg(required = true, value_name = "NAME", value_parser = parse_topic)]
    names: Vec<String>,
}

impl Describe {
    pub(crate) async fn run(self, session: &Session) -> Result<()> {
        session.show(|| self.look(session)).await
    }

    async fn look(&self, session: &Session) -> Result<View> {
        let mut view = View::default();
        for (i, name) in self.names.iter().enumerate() {
            let topic = get(session, name).await?;
            let request = DescribePartitionsRequest { topic: name.clone(), ..Default::default() };
            let partitions = partition::described(session, request).await?;
            if i > 0 {
                view.line("");
            }
            view.line(format!("{name}: {}", summary(&topic)));
            view.line(format!("id {}, created {}", topic.topic_id, clock::show(topic.created_ms)));
            view.line("");
            view.table(partition::table(&partitions, false));
            let brokers = partition::awaited(session, &partitions).await?;
            partition::problems(&mut view, &partitions, &brokers);
            view.line("");
            view.table(settings(&topic, session.format() == output::Format::Wide));
            view.objects.push(output::proto_json(&topic, "weir.v1.Topic"));
            view.names.push(name.clone());
        }
        Ok(view)
    }
}

/// The settings: those that were set, or all of them.
fn settings(topic: &Topic, all: bool) -> Table {
    let mut table = Table::new(&[
        Column::left("SETTING"),
        Column::left("VALUE"),
        Column::left("FROM"),
        Column::left("DEFAULT").wide(),
        Column::left("WHAT IT DOES").wide(),
    ]);
    for setting in topic.effective.iter().filter(|s| all || s.source() != ConfigSource::Default) {
        let value = |value: &str| match setting.sensitive {
            true => "(hidden)".to_owned(),
            false => units::setting(value, &setting.unit),
        };
        table.row([
            setting.name.clone(),
            value(&setting.value),
            config::source(setting.source()).to_owned(),
            value(&setting.default_value),
            setting.help.clone(),
        ]);
    }
    table
}
