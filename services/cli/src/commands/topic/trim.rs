//! `weir topic trim`: deletes the oldest records up to a position.

use clap::Args;
use weir_proto::v1::{DeleteRecordsRequest, RecordsBefore};

use crate::error::{Error, Result};
use crate::offsets::{self, Extent};
use crate::output::{Column, Table, View};
use crate::position::Position;
use crate::prompt;
use crate::reference::Reference;
use crate::session::Session;
use crate::units;

/// Delete the oldest records of a topic, up to a position
#[derive(Debug, Args)]
#[command(after_help = "\
Positions: start, end, an offset, -N (so many before the end), @2026-11-20T10:00Z or @-1h.

Examples:
  $ weir topic trim flights --before @-1h --dry-run
  $ weir topic trim flights/3 --before 100 --yes
  $ weir topic trim greetings --before end --yes")]
pub(crate) struct Trim {
    /// The topic, or one of its partitions (flights/3)
    #[arg(value_name = "TOPIC[/PARTITION]")]
    what: Reference,
    /// The first record to keep
    #[arg(long, value_name = "POSITION", allow_hyphen_values = true)]
    before: Position,
}

impl Trim {
    pub(crate) async fn run(self, session: &Session) -> Result<()> {
        if self.what.offset.is_some() {
            return Err(Error::Usage(format!(
                "{} is one record: say where to trim with --before",
                self.what
            )));
        }
        let partitions = offsets::partitions(session, std::slice::from_ref(&self.what)).await?;
        let extents = offsets::extents(session, &partitions).await?;
        if let Position::Offset(offset) = self.before {
            within(&extents, offset)?;
        }
        let keep_from = offsets::resolve(session, &extents, self.before, session.wall_ms()).await?;
        let mut table = Table::new(&[
            Column::left("PARTITION"),
            Column::right("START"),
            Column::right("NEW START"),
            Column::right("RECORDS DELETED"),
        ]);
        let mut view = View::default();
        let mut before = Vec::new();
        let mut records = 0;
        for (extent, keep) in extents.iter().zip(keep_from) {
            // Where the start is later already, it stays.
            let keep = keep.clamp(extent.start, extent.end);
            let name = format!("{}/{}", extent.topic, extent.partition);
            let deleted = keep - extent.start;
            table.row([name.clone(), units::count(extent.start), units::count(keep), units::count(deleted)]);
            view.objects.push(serde_json::json!({
                "topic": extent.topic, "partition": extent.partition,
                "logStartOffset": extent.start, "newLogStartOffset": keep, "records": deleted,
            }));
            view.names.push(name);
            records += deleted;
            if deleted > 0 {
                before.push(RecordsBefore { partition: extent.partition, offset: keep });
            }
        }
        view.table(table);
        if session.dry_run() || before.is_empty() {
            view.line(if session.dry_run() { "dry run: nothing changed" } else { "nothing to delete" });
            return session.print(&view);
        }
        let question = format!("Delete {} of {}?", units::counted(records, "record"), self.what);
        prompt::confirm(session, &question).await?;
        let request = DeleteRecordsRequest { topic: self.what.topic.clone(), before };
        let mut client = session.topics().await?;
        session.change(client.delete_records(session.request(request))).await?;
        view.line(format!("deleted {}", units::counted(records, "record")));
        session.print(&view)
    }
}

/// Refuses an offset that a partition does not have yet: what was mistyped must not delete everything.
fn within(extents: &[Extent], offset: i64) -> Result<()> {
    match extents.iter().find(|extent| extent.end < offset) {
        Some(Extent { topic, partition, end, .. }) => Err(Error::Failed(format!(
            "{topic}/{partition} ends at {end}, {offset} is beyond that, and nothing was deleted; \
             --before end deletes all that is there, and {topic}/{partition} names one partition"
        ))),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_offset_that_is_not_there_yet_is_refused() {
        let extent = |partition, end| Extent { topic: "t".into(), partition, start: 3, end };
        let extents = [extent(0, 100), extent(1, 50)];
        assert!(within(&extents, 50).is_ok() && within(&extents, 0).is_ok());
        let error = within(&extents, 51).unwrap_err();
        assert_eq!(error.exit_code(), crate::error::FAILED);
        assert!(error.to_string().starts_with("t/1 ends at 50, 51 is beyond"), "{error}");
    }
}
