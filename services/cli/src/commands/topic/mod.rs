//! `weir topic`: topics and their settings.

mod create;
mod delete;
mod describe;
pub(crate) mod list;
pub(crate) mod set;
mod trim;

use clap::{Args, Subcommand};
use weir_proto::v1::{GetTopicRequest, Topic as TopicMessage};

use crate::error::Result;
use crate::session::Session;
use crate::units;

/// Create, change and remove topics
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ weir topic create payments -p 8
  $ weir topic list
  $ weir topic describe flights")]
pub(crate) struct Topic {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    #[command(alias = "add")]
    Create(create::Create),
    #[command(alias = "ls")]
    List(list::List),
    #[command(aliases = ["show", "get"])]
    Describe(describe::Describe),
    #[command(aliases = ["alter", "edit"])]
    Set(set::Set),
    #[command(alias = "trim-records")]
    Trim(trim::Trim),
    #[command(alias = "rm")]
    Delete(delete::Delete),
}

impl Topic {
    pub(crate) fn watchable(&self) -> bool {
        matches!(self.command, Command::List(_) | Command::Describe(_))
    }

    pub(crate) async fn run(self, session: &Session) -> Result<()> {
        match self.command {
            Command::Create(command) => command.run(session).await,
            Command::List(command) => command.run(session).await,
            Command::Describe(command) => command.run(session).await,
            Command::Set(command) => command.run(session).await,
            Command::Trim(command) => command.run(session).await,
            Command::Delete(command) => command.run(session).await,
        }
    }
}

/// A topic with every setting.
async fn get(session: &Session, name: &str) -> Result<TopicMessage> {
    let mut client = session.topics().await?;
    let request = session.request(GetTopicRequest { name: name.to_owned() });
    Ok(session.read(client.get_topic(request)).await?.topic.unwrap_or_default())
}

/// The value of a setting, where the answer carries it.
fn setting<'a>(topic: &'a TopicMessage, name: &str) -> Option<&'a str> {
    let effective = topic.effective.iter().find(|setting| setting.name == name);
    effective.map(|setting| setting.value.as_str()).or_else(|| topic.config.get(name).map(String::as_str))
}

/// How long a topic keeps records: `7 days`, `7 days or 1GiB a partition`, `everything`.
fn keeps(topic: &TopicMessage) -> Option<String> {
    let number = |name| setting(topic, name).and_then(|value| value.parse::<i64>().ok());
    let time = number("retention_ms")?;
    let size = number("retention_bytes").filter(|size| *size >= 0);
    let time = (time >= 0).then(|| units::duration_words(time));
    let size = size.map(|size| format!("{} a partition", units::setting(&size.to_string(), "bytes")));
    Some(match (time, size) {
        (Some(time), Some(size)) => format!("{time} or {size}"),
        (Some(one), None) | (None, Some(one)) => one,
        (None, None) => "everything".to_owned(),
    })
}

/// A topic in half a sentence: `8 partitions, 3 replicas, fsync, keeps 7 days`.
fn summary(topic: &TopicMessage) -> String {
    let mut parts = vec![
        units::counted(topic.partitions, "partition"),
        units::counted(topic.replication_factor, "replica"),
    ];
    parts.extend(setting(topic, "durability").map(str::to_owned));
    parts.extend(keeps(topic).map(|keeps| format!("keeps {keeps}")));
    parts.join(", ")
}

/// Reads `NAME=VALUE`.
pub(super) fn parse_setting(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.trim().to_owned(), value.trim().to_owned())),
        _ => Err(format!("\"{text}\" is no setting: write NAME=VALUE, such as retention_ms=7d")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use weir_proto::v1::ConfigValue;

    fn topic(settings: &[(&str, &str)]) -> TopicMessage {
        let effective = settings.iter().map(|(name, value)| ConfigValue {
            name: (*name).into(),
            value: (*value).into(),
            ..ConfigValue::default()
        });
        TopicMessage {
            partitions: 8,
            replication_factor: 1,
            effective: effective.collect(),
            ..TopicMessage::default()
        }
    }

    #[test]
    fn a_topic_in_half_a_sentence() {
        let week = ("retention_ms", "604800000");
        let fsync = ("durability", "fsync");
        assert_eq!(summary(&topic(&[fsync, week])), "8 partitions, 1 replica, fsync, keeps 7 days");
        assert_eq!(
            summary(&topic(&[fsync, week, ("retention_bytes", "1073741824")])),
            "8 partitions, 1 replica, fsync, keeps 7 days or 1GiB a partition"
        );
        let all = topic(&[("retention_ms", "-1"), ("retention_bytes", "-1")]);
        assert_eq!(summary(&all), "8 partitions, 1 replica, keeps everything");
        assert_eq!(summary(&topic(&[])), "8 partitions, 1 replica");
    }

    #[test]
    fn a_setting_has_a_name_and_a_value() {
        assert_eq!(parse_setting("a=b=c"), Ok(("a".to_owned(), "b=c".to_owned())));
        assert!(parse_setting("a").is_err());
        assert!(parse_setting("=a").is_err());
    }
}
