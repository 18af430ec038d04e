//! `weir segment verify`.

use clap::Args;
use weir_storage::inspect;

use super::{Found, Place, name};
use crate::error::{Error, Result};
use crate::output::{Column, Table, View};
use crate::session::Session;
use crate::units;

/// Check every byte: checksums, offsets, epochs, sidecars
#[derive(Debug, Args)]
#[command(after_help = "\
Exit code 1 if anything is wrong. Of a batch that does not hold it says which offsets are lost with
it, and from which on the log is whole again: there a reader goes on, or up to there it is trimmed.

Examples:
  $ weir segment verify ./weir-data
  $ weir segment verify ./weir-data flights
  $ weir segment verify ./weir-data flights/0 -o json")]
pub(crate) struct Verify {
    #[command(flatten)]
    place: Place,
}

impl Verify {
    pub(crate) fn run(self, session: &Session) -> Result<()> {
        let disk = session.os().disk();
        let Found { directory, partitions } = self.place.open(&*disk)?;
        let mut view = View::default();
        let mut table = Table::new(&[
            Column::left("PARTITION"),
            Column::right("SEGMENTS"),
            Column::right("SIDECARS"),
            Column::right("BATCHES"),
            Column::right("RECORDS"),
            Column::right("SIZE"),
            Column::left("STATUS"),
        ]);
        let mut problems = Vec::new();
        for files in &partitions {
            let found = inspect::verify(&*disk, files).map_err(|error| Error::Failed(error.to_string()))?;
            let status = match found.problems.len() {
                0 => "ok".to_owned(),
                n => units::counted(n as u64, "problem"),
            };
            table.row([
                name(files),
                files.segments.len().to_string(),
                found.sidecars.to_string(),
                units::count(found.frames),
                units::count(found.records),
                units::bytes(found.bytes),
                status,
            ]);
            view.names.push(name(files));
            let bad_batches = found.bad_batches.iter().map(|bad| {
                serde_json::json!({
                    "segment": bad.segment, "position": bad.position, "firstOffset": bad.first,
                    "lastOffset": bad.last, "wholeFrom": bad.whole_from,
                })
            });
            view.objects.push(serde_json::json!({
                "partition": name(files), "segments": files.segments.len(), "sidecars": found.sidecars,
                "batches": found.frames, "records": found.records, "bytes": found.bytes,
                "problems": found.problems, "badBatches": bad_batches.collect::<Vec<_>>(),
            }));
            problems.extend(found.problems);
        }
        view.table(table);
        let of_checkpoint = directory.and_then(|directory| directory.checkpoint_problem);
        problems.extend(of_checkpoint.map(|problem| format!("checkpoint: {problem}")));
        problems.iter().for_each(|problem| view.line(problem));
        session.print(&view)?;
        match problems.len() {
            0 => Ok(()),
            n => {
                let (found, dir) = (units::counted(n as u64, "problem"), self.place.path.display());
                Err(Error::Failed(format!("{found} in {dir}; a server that opens it decides what they mean")))
            }
        }
    }
}
