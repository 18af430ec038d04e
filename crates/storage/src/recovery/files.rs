//! The files of a partition while it is opened: which there are, what stands beside segments, what is taken away. What
//! they mean for the log is for the walk to say.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::BytesMut;
use weir_io::{Access, File};
use weir_types::Offset;

use super::walk::Recovery;
use crate::checkpoint;
use crate::error::Error;
use crate::index::LiveIndex;
use crate::scan::{Found, State};
use crate::segment::{file_name, parse_file_name};
use crate::sidecar::{self, SIDECAR_BYTES_MAX, SUMMARY_BYTES, Sidecar, Summary};

/// What is written beside a segment once it is durable.
pub(super) const WITNESSES: [&str; 2] = ["seal", "tail"];

/// What is written beside the first segment of a log that another replica's state was copied for: what was known where it
/// begins, in the format of the other two.
pub(super) const START: &str = "start";

impl Recovery<'_> {
    pub(super) fn path(&self, base: Offset, kind: &str) -> PathBuf {
        self.place.path.join(file_name(base, kind))
    }

    /// The segments there are, in order.
    pub(super) fn bases(&self) -> Result<Vec<Offset>, Error> {
        self.of_kind("log")
    }

    /// The first offsets of the files of one kind, in order.
    pub(super) fn of_kind(&self, wanted: &str) -> Result<Vec<Offset>, Error> {
        let disk = &self.dir.handles.disk;
        let entries = disk.list(&self.place.path).map_err(Error::io(&self.place.path, "list"))?;
        let named = entries.iter().filter_map(|entry| parse_file_name(&entry.name));
        Ok(named.filter(|(_, kind)| *kind == wanted).map(|(base, _)| base).collect())
    }

    pub(super) fn unlink(&self, base: Offset, kind: &str) -> Result<(), Error> {
        let path = self.path(base, kind);
        match self.dir.handles.disk.unlink(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(self.dir.passing_or_fatal(&path, "unlink", error))
            }
            _ => Ok(()),
        }
    }

    pub(super) fn sync_folder(&self) -> Result<(), Error> {
        let path = &self.place.path;
        let folder = self.dir.handles.open_dir(path).map_err(Error::io(path, "open"))?;
        self.dir.sync_names(path, &*folder)
    }

    /// Takes away what says of this segment, or of one behind it, that it was durable. Those whose segment is gone
    /// already, too: another one may come to begin where it did.
    pub(super) fn remove_witnesses(&self, from: Offset) -> Result<(), Error> {
        let path = &self.place.path;
        let entries = self.dir.handles.disk.list(path).map_err(Error::io(path, "list"))?;
        for (base, kind) in entries.iter().filter_map(|entry| parse_file_name(&entry.name)) {
            if base >= from && WITNESSES.contains(&kind) {
                self.unlink(base, kind)?;
            }
        }
        self.sync_folder()
    }

    /// Takes away what lies behind a cut that was begun; the file that the cut lies in follows later.
    pub(super) fn remove_behind(&self, bases: &mut Vec<Offset>, to: Offset) -> Result<(), Error> {
        while let Some(last) = bases.last().copied().filter(|last| *last > to) {
            self.unlink(last, "log")?;
            bases.pop();
        }
        self.remove_witnesses(bases.last().copied().unwrap_or(to))
    }

    /// Takes away what lies before the log's start, as far as a sidecar says what was known at its end. It need not be
    /// that of a segment which is still there: those that retention has begun to delete may have gone in any order.
    pub(super) fn remove_before(&self, bases: &mut Vec<Offset>, log_start: Offset) -> Result<(), Error> {
        let before = bases.iter().skip(1).take_while(|base| **base <= log_start).count();
        let seals = if before > 0 { self.of_kind("seal")? } else { Vec::new() };
        for at in (1..=before).rev() {
            let Some(base) = bases.get(at) else { continue };
            let Some(last) = seals.iter().rev().find(|seal| *seal < base) else { continue };
            let known = match self.read_sidecar(*last, "seal") {
                Err(error) if error.passes() => return Err(error),
                read => read.unwrap_or_default(),
            };
            if known.is_some_and(|known| known.summary.end == *base) {
                return bases.drain(..at).try_for_each(|gone| self.unlink(gone, "log"));
            }
        }
        Ok(())
    }

    /// What a sidecar says, by its first bytes, if it holds and belongs to this life of the partition.
    pub(super) fn summary(&self, base: Offset, kind: &str) -> Result<Option<Summary>, Error> {
        let path = self.path(base, kind);
        let handles = &self.dir.handles;
        let file = match handles.retry(|| handles.disk.open(&path, Access::Read)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened.map_err(Error::io(&path, "open"))?,
        };
        let mut bytes = BytesMut::with_capacity(SUMMARY_BYTES);
        file.read_at(&mut bytes, SUMMARY_BYTES, 0).map_err(Error::io(&path, "read"))?;
        Ok(sidecar::summary(&bytes, self.seed).filter(|summary| self.is_ours(base, summary)))
    }

    /// What the sidecar of a sealed segment says. One that nobody can read is none, and that is said; one that cannot be
    /// read for now is asked for again with the rest of the log.
    pub(super) fn seal(&self, base: Offset) -> Result<Option<Summary>, Error> {
        match self.summary(base, "seal") {
            Err(error) if !error.passes() => {
                tracing::warn!(%error, "a sidecar cannot be read: what its segment has lost is seen when that is read");
                Ok(None)
            }
            said => said,
        }
    }

    /// A sidecar that holds and belongs to this life of the partition. One that cannot be read is as good as none:
    /// for those whose frames are there.
    pub(super) fn sidecar(&self, base: Offset, kind: &str) -> Option<Sidecar> {
        self.read_sidecar(base, kind).unwrap_or_default()
    }

    /// The same; an error if nobody knows what it says.
    pub(super) fn read_sidecar(&self, base: Offset, kind: &str) -> Result<Option<Sidecar>, Error> {
        let path = self.path(base, kind);
        let handles = &self.dir.handles;
        let bytes = match handles.retry(|| handles.disk.read(&path, SIDECAR_BYTES_MAX)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            read => read.map_err(Error::io(&path, "read"))?,
        };
        Ok(Sidecar::held(bytes, self.seed).ok().filter(|sidecar| self.is_ours(base, &sidecar.summary)))
    }

    /// Whether it is of this segment, in this life of the partition.
    fn is_ours(&self, base: Offset, summary: &Summary) -> bool {
        summary.base == base && summary.incarnation == self.place.incarnation.0
    }

    pub(super) fn open(&self, base: Offset) -> Result<(Arc<dyn File>, u64), Error> {
        let path = self.path(base, "log");
        let handles = &self.dir.handles;
        let file =
            handles.retry(|| handles.disk.open(&path, Access::Write)).map_err(Error::io(&path, "open"))?;
        let len = file.len().map_err(Error::io(&path, "stat"))?;
        Ok((file, len))
    }

    pub(super) fn shorten(&self, file: &dyn File, base: Offset, len: u64) -> Result<(), Error> {
        let path = self.path(base, "log");
        file.set_len(len).map_err(|error| self.dir.passing_or_fatal(&path, "cut", error))
    }

    pub(super) fn write_seal(
        &self,
        base: Offset,
        found: &Found,
        state: &State,
        entry: &checkpoint::Entry,
    ) -> Result<(), Error> {
        let summary = Summary {
            base,
            end: found.end,
            log_bytes: found.position,
            incarnation: self.place.incarnation.0,
            generation: entry.generation,
            max_timestamp_ms: found.index.max_timestamp_ms,
            max_append_time_ms: found.index.max_append_time_ms,
            first_append_time_ms: found.index.first_append_time_ms,
            forgot: state.producers.forgot(),
        };
        let path = self.path(base, "seal");
        let bytes = self.sidecar_bytes(&summary, &found.index, state);
        self.dir.handles.disk.replace_durably(&path, &bytes).map_err(Error::io(&path, "write"))
    }

    /// Writes what is known where the log begins, beside a segment of which nothing is left.
    pub(super) fn write_gone(
        &self,
        base: Offset,
        state: &State,
        entry: &checkpoint::Entry,
    ) -> Result<(), Error> {
        self.write_known((base, entry.log_start), "seal", state, entry.generation)
    }

    /// Writes what is known where a log begins that has nothing in front of that.
    pub(super) fn write_start(&self, begin: Offset, state: &State) -> Result<(), Error> {
        self.write_known((begin, begin), START, state, 0)
    }

    fn write_known(
        &self,
        (base, end): (Offset, Offset),
        kind: &str,
        state: &State,
        generation: u64,
    ) -> Result<(), Error> {
        let summary = Summary {
            base,
            end,
            log_bytes: 0,
            incarnation: self.place.incarnation.0,
            generation,
            max_timestamp_ms: i64::MIN,
            max_append_time_ms: state.last_append_ms,
            first_append_time_ms: None,
            forgot: state.producers.forgot(),
        };
        let path = self.path(base, kind);
        let bytes = self.sidecar_bytes(&summary, &LiveIndex::new(base), state);
        let written = self.dir.handles.disk.replace_durably(&path, &bytes);
        written.map_err(|error| self.dir.passing_or_fatal(&path, "write", error))
    }

    fn sidecar_bytes(&self, summary: &Summary, index: &LiveIndex, state: &State) -> Vec<u8> {
        let producers = state.producers.snapshot().in_log_order();
        sidecar::encode(summary, index, &state.epochs, &producers, self.seed)
    }
}
