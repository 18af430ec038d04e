//! Partitions that the metadata does not name any more: set aside under another name, kept for a while, then deleted
//! (rule 14).
//!
//! Whoever said that a topic is gone may be wrong; a controller restored from an old backup is. As long as its folder
//! is kept, a partition comes back by giving it its old name while nothing runs, once the metadata names it again.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::time::Instant;
use weir_runtime::blocking;
use weir_types::{Incarnation, PartitionId};

use crate::deleter;
use crate::dir::{DirCore, LogDir};
use crate::error::Error;
use crate::recovery;

impl LogDir {
    /// Takes partitions out of use because the metadata names them no more, damaged ones too: closed, and durably out
    /// of the way when this returns, for the price of one sync; their folders are kept for `stray_retention` (rule 14).
    /// What was not synced by then the system writes in its own time. Says which could not be renamed; those stay
    /// closed.
    ///
    /// # Errors
    /// [`Error::Closed`], [`Error::Io`] if the directory's folder cannot be opened: nothing was renamed. [`Error::Failed`].
    pub async fn set_aside(&self, ids: Vec<PartitionId>) -> Result<Vec<(PartitionId, Error)>, Error> {
        let dir = Arc::clone(self.core());
        dir.abandon(&dir.open_of(&ids)).await;
        blocking(&self.core().os, move || {
            let _held = dir.hold().ok_or(Error::Closed)?;
            set_aside(&dir, &ids)
        })
        .await
    }
}

/// How many logs are named in one line.
const NAMED_MAX: usize = 5;

/// The end of the name of a folder that was set aside: `<name>.<when, milliseconds since 1970>.stray`.
pub(crate) const STRAY: &str = "stray";

/// The folders, the oldest first.
#[derive(Default)]
pub(crate) struct Strays(Mutex<BTreeMap<(i64, PathBuf), Option<Instant>>>);

impl Strays {
    pub(crate) fn count(&self) -> usize {
        self.0.lock().len()
    }

    /// What they were, and are again under their old names: what is known of them is kept as long as they are.
    pub(crate) fn partitions(&self) -> BTreeSet<(PartitionId, Incarnation)> {
        self.0.lock().keys().filter_map(|(_, folder)| partition_of(folder)).collect()
    }

    fn note(&self, since_ms: i64, path: PathBuf, seen: Option<Instant>) {
        self.0.lock().insert((since_ms, path), seen);
    }

    fn pop_if(&self, due: impl FnOnce(i64, Option<Instant>) -> bool) -> Option<Stray> {
        let mut strays = self.0.lock();
        let oldest = strays.first_entry()?;
        if !due(oldest.key().0, *oldest.get()) {
            return None;
        }
        let ((since_ms, path), seen) = oldest.remove_entry();
        Some(Stray { since_ms, path, seen })
    }
}

/// One of them.
struct Stray {
    since_ms: i64,
    path: PathBuf,
    /// When this process has set it aside, if it has.
    seen: Option<Instant>,
}

/// When a folder was set aside; `None`: it was not.
fn since_ms(name: &str) -> Option<i64> {
    let (rest, kind) = name.rsplit_once('.')?;
    let (_, since) = rest.rsplit_once('.')?;
    since.parse().ok().filter(|_| kind == STRAY)
}

fn partition_of(folder: &Path) -> Option<(PartitionId, Incarnation)> {
    let (rest, _kind) = folder.file_name()?.to_str()?.rsplit_once('.')?;
    let (rest, _since) = rest.rsplit_once('.')?;
    recovery::parse_folder_name(rest)
}

/// Notes a folder that an earlier process may have set aside.
pub(crate) fn find(dir: &DirCore, name: &str) {
    if let Some(since_ms) = since_ms(name) {
        // A time that is yet to come was written under a wrong clock.
        dir.strays.note(since_ms.min(dir.os.wall_ms()), dir.path().join(name), None);
    }
}

/// Gives the folders of closed partitions their other name; durable when this returns. Those that failed are left.
fn set_aside(dir: &DirCore, ids: &[PartitionId]) -> Result<Vec<(PartitionId, Error)>, Error> {
    let mut failed = Vec::new();
    let mut gone = Vec::new();
    let mut named = Vec::new();
    for id in ids {
        let folders = dir.folders_of(*id);
        match folders.iter().try_for_each(|folder| rename(dir, folder)) {
            Ok(()) => {
                if named.len() < NAMED_MAX {
                    named.extend(folders.first().map(|folder| recovery::shown_name(folder)));
                }
                gone.push(*id);
            }
            Err(error) => failed.push((*id, error)),
        }
    }
    dir.sync_own_names()?;
    if !gone.is_empty() {
        // A topic may have thousands of partitions.
        let more = if gone.len() > named.len() { ", …" } else { "" };
        tracing::info!(
            count = gone.len(), logs = named.join(", ") + more, kept = ?dir.options.stray_retention,
            "the metadata names these logs no more: set aside beside the others, as *.stray"
        );
    }
    // Not before: as long as one may come back, the checkpoint has to know it.
    dir.forget(&gone);
    Ok(failed)
}

fn rename(dir: &DirCore, folder: &Path) -> Result<(), Error> {
    let since_ms = dir.os.wall_ms();
    let mut stray = folder.to_owned().into_os_string();
    stray.push(format!(".{since_ms}.{STRAY}"));
    let stray = PathBuf::from(stray);
    dir.handles.disk.rename(folder, &stray).map_err(Error::io(folder, "rename"))?;
    tracing::debug!(folder = %stray.display(), "set aside");
    dir.strays.note(since_ms, stray, Some(Instant::now()));
    Ok(())
}

/// Deletes what was kept long enough. `now_ms` is the wall clock; `None` while it is not to be trusted. Where space
/// runs out the oldest goes earlier: appends that are acknowledged count for more than what nobody names.
pub(crate) fn delete_due(dir: &DirCore, now: Instant, now_ms: Option<i64>) {
    let keep = dir.options.stray_retention;
    let keep_ms = i64::try_from(keep.as_millis()).unwrap_or(i64::MAX);
    let is_old = |since_ms: i64, seen: Option<Instant>| {
        let by_wall = now_ms.is_some_and(|now_ms| now_ms.saturating_sub(since_ms) >= keep_ms);
        // By the clock that does not jump, if it ran all the time.
        let by_ours = seen.is_none_or(|seen| now.saturating_duration_since(seen) >= keep);
        keep.is_zero() || by_wall && by_ours
    };
    while let Some(stray) = dir.strays.pop_if(is_old) {
        if !delete(dir, stray) {
            return;
        }
    }
    if dir.missing_bytes() > 0
        && dir.deletes.is_empty()
        && let Some(stray) = dir.strays.pop_if(|_, _| true)
    {
        tracing::warn!(folder = %stray.path.display(), "space runs out: a log that was set aside goes early");
        delete(dir, stray);
    }
}

/// Whether the others may go as well: not while it cannot be written down that they are missed no more.
fn delete(dir: &DirCore, stray: Stray) -> bool {
    let Stray { since_ms, path, seen } = stray;
    let said = partition_of(&path).map_or(Ok(()), |(id, _)| dir.is_missed_no_more(id));
    if let Err(error) = said {
        tracing::debug!(%error, folder = %path.display(), "a log that was set aside is not deleted yet");
        dir.strays.note(since_ms, path, seen);
        return false;
    }
    if let Err(error) = deleter::delete_folder(dir, &path) {
        // The next start finds it again.
        tracing::warn!(%error, "a log that was set aside cannot be deleted");
    }
    true
}
