//! `weir topic delete`.

use std::collections::BTreeSet;

use clap::Args;
use serde_json::Value;
use weir_proto::v1::{DeleteTopicRequest, Topic};

use super::get;
use crate::error::{Error, Result};
use crate::offsets;
use crate::output::{self, View};
use crate::prompt;
use crate::reference::Reference;
use crate::reference::parse_topic;
use crate::session::Session;
use crate::units;

/// Delete topics with all their records
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ weir topic delete orders --if-exists --dry-run
  $ weir topic delete orders --if-exists --yes
  $ weir topic delete orders events --if-exists --yes")]
pub(crate) struct Delete {
    /// The topics
    #[arg(required = true, value_name = "NAME", value_parser = parse_topic)]
    names: Vec<String>,
    /// Be content if there is no topic of that name
    #[arg(long)]
    if_exists: bool,
}

impl Delete {
    pub(crate) async fn run(self, session: &Session) -> Result<()> {
        let mut deleted = 0;
        let mut named = BTreeSet::new();
        for name in self.names.iter().filter(|name| named.insert(*name)) {
            match delete(session, name).await {
                Ok(()) if session.dry_run() => {}
                Ok(()) => deleted += 1,
                Err(error) if self.if_exists && error.exit_code() == 3 => {
                    let absent = Topic { name: name.clone(), ..Topic::default() };
                    session.print(&View::sentence(
                        format!("no topic {name}"),
                        name,
                        object(&absent, false),
                    ))?;
                }
                // Some are gone and some are not: the exit code says so.
                Err(error) if deleted > 0 => {
                    let words =
                        format!("{error} (before that, {} deleted)", units::counted(deleted, "topic"));
                    return Err(Error::Partly(words));
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

async fn delete(session: &Session, name: &str) -> Result<()> {
    let topic = get(session, name).await?;
    let reference = Reference { topic: name.to_owned(), partition: None, offset: None };
    let partitions = offsets::partitions(session, &[reference]).await?;
    // A topic whose partitions do not answer can be deleted all the same.
    let records = match offsets::extents(session, &partitions).await {
        Ok(extents) => {
            let count: i64 = extents.iter().map(|extent| extent.end - extent.start).sum();
            units::counted(count, "record")
        }
        Err(_) => "an unknown number of records".to_owned(),
    };
    let what = format!("{name}, {}, {records}", units::counted(topic.partitions, "partition"));
    let dry_run = session.dry_run();
    if !dry_run {
        prompt::confirm(session, &format!("Delete {what}?")).await?;
    }
    let request = DeleteTopicRequest {
        name: name.to_owned(),
        // Exactly the topic that was asked about, not one made since under its name.
        topic_id: topic.topic_id.clone(),
        validate_only: dry_run,
        request_id: session.request_id(),
    };
    let mut client = session.topics().await?;
    session.change(client.delete_topic(session.request(request))).await?;
    let line = if dry_run { format!("would delete {what}") } else { format!("deleted {what}") };
    let mut view = View::sentence(line, name, object(&topic, !dry_run));
    if dry_run {
        view.line("dry run: nothing changed");
    }
    session.print(&view)
}

/// The topic as it was, and whether it is gone by this.
fn object(topic: &Topic, deleted: bool) -> Value {
    let mut object = output::proto_json(topic, "weir.v1.Topic");
    output::set(&mut object, "deleted", deleted);
    object
}
