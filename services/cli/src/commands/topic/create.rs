//! `weir topic create`.

use clap::Args;
use weir_proto::v1::{CreateTopicRequest, Topic, UpdateTopicRequest};

use super::{get, parse_setting, set, summary};
use crate::error::Result;
use crate::output::{self, View};
use crate::reference::parse_topic;
use crate::session::Session;
use crate::units;

/// Create a topic
#[derive(Debug, Args)]
#[command(after_help = "\
The settings a topic can have, with their defaults: weir topic describe NAME -o wide

Examples:
  $ weir topic create orders
  $ weir topic create events -p 8 --set retention_ms=30d --set compression=zstd
  $ weir topic create flights --if-absent")]
pub(crate) struct Create {
    /// Its name: letters, digits, . _ -
    #[arg(value_parser = parse_topic)]
    name: String,
    /// How many partitions [default: the cluster's, 1 unless set]
    #[arg(short, long, value_name = "N", allow_negative_numbers = true, value_parser = units::parse_count)]
    partitions: Option<i32>,
    /// How many replicas of each [default: the cluster's, 1 on a standalone]
    #[arg(
        short,
        long,
        value_name = "N",
        alias = "replication-factor",
        allow_negative_numbers = true,
        value_parser = units::parse_count
    )]
    replicas: Option<i32>,
    /// A setting, such as retention_ms=7d; may be repeated
    #[arg(long = "set", value_name = "NAME=VALUE", value_parser = parse_setting)]
    settings: Vec<(String, String)>,
    /// Be content if a topic of that name exists
    #[arg(long)]
    if_absent: bool,
}

impl Create {
    pub(crate) async fn run(self, session: &Session) -> Result<()> {
        let mut client = session.topics().await?;
        let asked = (self.partitions, self.replicas, self.settings.clone());
        let request = CreateTopicRequest {
            topic: Some(Topic {
                name: self.name.clone(),
                partitions: self.partitions.unwrap_or_default(),
                replication_factor: self.replicas.unwrap_or_default(),
                config: self.settings.into_iter().collect(),
                ..Topic::default()
            }),
            if_absent: self.if_absent,
            validate_only: session.dry_run(),
            request_id: session.request_id(),
        };
        let answer = session.change(client.create_topic(session.request(request))).await?;
        let mut topic = answer.topic.unwrap_or_default();
        if topic.effective.is_empty() && !session.dry_run() {
            topic = get(session, &self.name).await?;
        }
        let what = match (session.dry_run(), answer.created) {
            (true, _) => "would create",
            (false, true) => "created",
            (false, false) => "exists",
        };

        // Whoever is content with what there is learns how it differs from what was asked for.
        let differs = match answer.created {
            true => Vec::new(),
            false => differences(session, &topic, asked).await?,
        };
        let line = format!("{what} {}: {}", self.name, summary(&topic));
        let mut view = View::sentence(line, &self.name, output::proto_json(&topic, "weir.v1.Topic"));
        differs.iter().for_each(|line| view.line(format!("  not as asked for: {line}")));
        if session.dry_run() {
            view.line("dry run: nothing changed");
        }
        session.print(&view)
    }
}

/// What there is and what was asked for, where they differ: partitions, replicas, settings.
async fn differences(
    session: &Session,
    there: &Topic,
    (partitions, replicas, settings): (Option<i32>, Option<i32>, Vec<(String, String)>),
) -> Result<Vec<String>> {
    let mut lines = Vec::new();
    for (what, is, asked) in
        [("partitions", there.partitions, partitions), ("replicas", there.replication_factor, replicas)]
    {
        lines.extend(asked.filter(|asked| *asked != is).map(|asked| format!("{what} {is}, not {asked}")));
    }
    if !settings.is_empty() {
        // What a change to them would come to: values are compared by those who know what they mean.
        let mut client = session.topics().await?;
        let request = UpdateTopicRequest {
            name: there.name.clone(),
            set_config: settings.into_iter().collect(),
            validate_only: true,
            ..UpdateTopicRequest::default()
        };
        let answer = session.read(client.update_topic(session.request(request))).await?;
        let (before, after) = (answer.before.unwrap_or_default(), answer.after.unwrap_or_default());
        lines.extend(set::changes(&before, &after).lines);
    }
    Ok(lines)
}
