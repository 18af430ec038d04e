//! `weir topic set`: shows what changes, asks where records or the place of keys are at stake, then changes it.

use clap::Args;
use weir_proto::v1::{ErrorReason, Topic, UpdateTopicRequest};

use super::{parse_setting, setting};
use crate::error::{Error, Result};
use crate::offsets;
use crate::output::{self, View};
use crate::prompt;
use crate::reference::parse_topic;
use crate::session::Session;
use crate::units;

/// Change a topic's settings, or give it more partitions
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ weir topic set flights retention_ms=30d
  $ weir topic set flights retention_ms=1d --partitions 12 --dry-run
  $ weir topic set flights --unset retention_ms --yes")]
pub(crate) struct Set {
    /// The topic
    #[arg(value_parser = parse_topic)]
    name: String,
    /// Settings, such as retention_ms=7d
    #[arg(value_name = "NAME=VALUE", value_parser = parse_setting)]
    settings: Vec<(String, String)>,
    /// A setting to take back to the cluster's value; may be repeated
    #[arg(long, value_name = "NAME")]
    unset: Vec<String>,
    /// The new number of partitions; only more than now
    #[arg(short, long, value_name = "N", allow_negative_numbers = true, value_parser = units::parse_count)]
    partitions: Option<i32>,
}

impl Set {
    pub(crate) async fn run(self, session: &Session) -> Result<()> {
        if self.settings.is_empty() && self.unset.is_empty() && self.partitions.is_none() {
            return Err(Error::Usage(
                "nothing to change: name a setting (retention_ms=7d), --unset NAME or --partitions N"
                    .to_owned(),
            ));
        }
        let mut client = session.topics().await?;
        let mut request = UpdateTopicRequest {
            name: self.name.clone(),
            set_config: self.settings.into_iter().collect(),
            unset_config: self.unset,
            partitions: self.partitions,
            validate_only: true,
            ..UpdateTopicRequest::default()
        };
        let answer = match session.read(client.update_topic(session.request(request.clone()))).await {
            // The controller knows no neighbours.
            Err(error) if error.reason() == Some(ErrorReason::TopicNotFound) => {
                offsets::topics(session, std::slice::from_ref(&self.name)).await?;
                return Err(error);
            }
            answer => answer?,
        };
        let (before, after) = (answer.before.unwrap_or_default(), answer.after.unwrap_or_default());
        let change = changes(&before, &after);
        let mut view = View::default();
        change.lines.iter().for_each(|line| view.line(line));
        view.names.push(self.name.clone());
        view.objects.push(output::proto_json(&after, "weir.v1.Topic"));
        if change.lines.is_empty() {
            view.line(format!("{} is like that already: nothing changed", self.name));
            return session.print(&view);
        }
        if session.dry_run() {
            view.line("dry run: nothing changed");
            return session.print(&view);
        }
        if !change.risks.is_empty() {
            let question = format!("{}: {}.", self.name, change.risks.join("; "));
            prompt::confirm(session, &question).await?;
        }
        request.validate_only = false;
        request.request_id = session.request_id();
        // What was shown is what is changed: nobody else's change in between is overwritten.
        request.expected_revision = Some(before.revision);
        session.change(client.update_topic(session.request(request))).await?;
        session.print(&view)
    }
}

/// What a change comes to.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Changes {
    /// A line for each thing that changes.
    pub(super) lines: Vec<String>,
    /// What cannot be taken back.
    risks: Vec<String>,
}

pub(super) fn changes(before: &Topic, after: &Topic) -> Changes {
    let mut changes = Changes::default();
    let mut names: Vec<&str> = Vec::new();
    for topic in [before, after] {
        names.extend(topic.effective.iter().map(|setting| setting.name.as_str()));
        names.extend(topic.config.keys().map(String::as_str));
    }
    names.sort_unstable();
    names.dedup();
    for name in names {
        let (old, new) = (setting(before, name), setting(after, name));
        if old == new {
            continue;
        }
        let unit = unit(before, after, name);
        let shown = |value: Option<&str>| value.map_or("(cluster's)".to_owned(), |v| units::setting(v, unit));
        changes.lines.push(format!("{name} {} -> {}", shown(old), shown(new)));
        if keeps_less(name, old, new) {
            changes.risks.push("less is kept than before, and the rest is deleted".to_owned());
        }
    }
    if before.partitions != after.partitions {
        let warning = "keys map to other partitions from now on";
        changes
            .lines
            .push(format!("partitions {} -> {}  warning: {warning}", before.partitions, after.partitions));
        changes.risks.push(warning.to_owned());
    }
    changes.risks.dedup();
    changes
}

/// What a setting counts, where neither answer says so by the name.
fn unit<'a>(before: &'a Topic, after: &'a Topic, name: &str) -> &'a str {
    let stated = before.effective.iter().chain(&after.effective).find(|setting| setting.name == name);
    match stated {
        Some(setting) => &setting.unit,
        None if name.ends_with("_ms") => "ms",
        None if name.contains("bytes") => "bytes",
        None => "",
    }
}

/// Whether a setting's change means that less is kept than before; -1 keeps everything.
pub(crate) fn keeps_less(name: &str, old: Option<&str>, new: Option<&str>) -> bool {
    let kept = |value: Option<&str>| match value.and_then(|v| v.parse::<i64>().ok()) {
        Some(limit) if limit >= 0 => limit,
        _ => i64::MAX,
    };
    name.starts_with("retention_") && kept(new) < kept(old)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topic(partitions: i32, settings: &[(&str, &str)]) -> Topic {
        let config = settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Topic { partitions, config, ..Topic::default() }
    }

    #[test]
    fn what_changes_is_shown_and_what_is_lost_is_asked_about() {
        let before = topic(8, &[("retention_ms", "604800000"), ("compression", "zstd")]);
        let after = topic(12, &[("retention_ms", "86400000"), ("compression", "zstd")]);
        let change = changes(&before, &after);
        assert_eq!(
            change.lines,
            [
                "retention_ms 7d -> 1d",
                "partitions 8 -> 12  warning: keys map to other partitions from now on"
            ]
        );
        assert_eq!(change.risks.len(), 2);
    }

    #[test]
    fn keeping_more_is_no_risk() {
        let before = topic(1, &[("retention_ms", "86400000"), ("retention_bytes", "1048576")]);
        let after = topic(1, &[("retention_ms", "-1"), ("retention_bytes", "2097152")]);
        let change = changes(&before, &after);
        assert_eq!(change.lines, ["retention_bytes 1MiB -> 2MiB", "retention_ms 1d -> unlimited"]);
        assert_eq!(change.risks, Vec::<String>::new());
        assert_eq!(changes(&after, &before).risks.len(), 1);
        assert_eq!(changes(&after, &after), Changes::default());
    }
}
