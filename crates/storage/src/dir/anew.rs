//! A replica that begins anew: with what another one knows where its log begins, because the two have nothing in common
//! any more (correctness rules 15, 16), or because its own is damaged (rule 36).
//!
//! Why nothing is lost that is not lost already, wherever it is cut off:
//!
//! - The new log is a folder with a name that no start takes for a log's, `<folder>.begun`, until all of it is durable.
//! - Then the old one gets another name, durably, and only then the new one its own. A start that finds a `.begun` beside
//!   a log goes on with the log; beside none it finishes what was begun.
//! - An old log that is not damaged has nothing that the leader's start does not lie behind: it is deleted. A damaged one
//!   is set aside (`aside.rs`).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use weir_runtime::blocking;
use weir_types::{Incarnation, Offset, PartitionId};

use super::{DirCore, LogDir};
use crate::config::{LogConfig, Mutant};
use crate::core::Core;
use crate::deleter::{self, deleted_name};
use crate::error::Error;
use crate::partition::Partition;
use crate::recovery::{self, Place};
use crate::start_state::StartState;

/// The end of the name of a folder in which a log is made that is to take another one's place.
const BEGUN: &str = "begun";

impl LogDir {
    /// Begins a partition's log anew where another replica's begins, with what that knows there, under a new incarnation;
    /// whether there is one here or not, and whatever became of it. What was here is closed and gone, or set aside if it
    /// was damaged. Durable when this returns; cut off before, either the old log is there or the new one. Not while the
    /// same partition is created, deleted or set aside.
    ///
    /// # Errors
    /// [`Error::Io`] for want of space or of a descriptor: the old log is as it was, but may be closed until the next
    /// start. [`Error::Closed`], [`Error::Failed`].
    pub async fn start_over(
        &self,
        topic_name: &str,
        config: LogConfig,
        state: StartState,
    ) -> Result<Partition, Error> {
        let dir = Arc::clone(self.core());
        let (id, topic_name) = (state.id, topic_name.to_owned());
        let new = blocking(&self.core().os, move || {
            let _held = dir.hold().filter(|_| !dir.failed()).ok_or(Error::Closed)?;
            dir.begin(&topic_name, config, state)
        });
        // Dropped here or later the folder stays, and the next start takes it away or finishes it.
        let new = new.await?;
        let dir = Arc::clone(self.core());
        dir.abandon(&dir.open_of(&[id])).await;
        let begun = blocking(&self.core().os, move || {
            let _held = dir.hold().filter(|_| !dir.failed()).ok_or(Error::Closed)?;
            dir.take_place(new).inspect_err(|error| dir.stays_closed_in_place(id, error))
        });
        begun.await.map(Partition)
    }
}

/// A log that was made and has no name yet.
struct Begun {
    id: PartitionId,
    incarnation: Incarnation,
    begin: Offset,
    /// Its folder's name now, and the one that it is to have.
    temp: PathBuf,
    path: PathBuf,
    config: LogConfig,
}

impl DirCore {
    /// Makes a log that begins with this state, durably, under a name that is no log's.
    fn begin(
        self: &Arc<Self>,
        topic_name: &str,
        config: LogConfig,
        mut state: StartState,
    ) -> Result<Begun, Error> {
        if self.has(Mutant::StartForgotten) {
            (state.epochs, state.producers) = Default::default();
        }
        let incarnation = Incarnation(self.os.random_u64());
        let (id, begin) = (state.id, state.offset);
        let path = self.path().join(recovery::folder_name(id, topic_name, incarnation));
        let temp = suffixed(&path, BEGUN);
        let disk = &self.handles.disk;
        self.handles.retry(|| disk.create_dir(&temp)).map_err(Error::io(&*temp, "create"))?;
        let place = Place { id, incarnation, path: temp.clone() };
        let made =
            recovery::write_beginning(self, &place, &config, state).and_then(|()| self.sync_own_names());
        made.inspect_err(|_| self.undo_create(&temp))?;
        Ok(Begun { id, incarnation, begin, temp, path, config })
    }

    /// The new log takes the place of the old one.
    fn take_place(self: &Arc<Self>, new: Begun) -> Result<Arc<Core>, Error> {
        let Begun { id, incarnation, begin, temp, path, config } = new;
        let _turn = self.reopening.lock();
        if self.open_of(&[id]).iter().any(|core| !core.is_closed()) {
            self.undo_create(&temp);
            return Err(Error::Exists(id));
        }
        let gone = self.make_way(id).inspect_err(|_| self.undo_create(&temp))?;
        self.sync_own_names()?;
        // From here on the old one is gone: if the process ends, the next start does the rest.
        self.handles.disk.rename(&temp, &path).map_err(|error| {
            self.fatal(&temp, "rename", &error);
            Error::Failed
        })?;
        self.sync_own_names()?;
        self.forget(&[id]);
        for folder in gone {
            deleter::push_folder(self, &folder).map_err(Error::io(&*folder, "list"))?;
        }
        let place = Place { id, incarnation, path: path.clone() };
        let core = recovery::open_beginning(self, place.clone(), begin, config)
            .inspect_err(|error| self.could_not_open(&place, None, error))?;
        self.partitions.write().insert(id, Arc::clone(&core));
        self.has_new_partitions();
        Ok(core)
    }

    /// Takes the logs of a partition out of the way, which is durable with the names of the directory: a damaged one is set
    /// aside, any other one is to be deleted. The folders of the latter.
    pub(super) fn make_way(&self, id: PartitionId) -> Result<Vec<PathBuf>, Error> {
        let is_damaged = |folder: &Path| self.unusable.read().get(folder).is_some_and(|one| one.is_damaged);
        let mut gone = Vec::new();
        for folder in self.folders_of(id) {
            match is_damaged(&folder) {
                true => self.put_aside(&folder)?,
                false => gone.push(self.rename_to(&folder, deleted_name(&folder))?),
            }
        }
        Ok(gone)
    }

    pub(super) fn rename_to(&self, folder: &Path, to: PathBuf) -> Result<PathBuf, Error> {
        self.handles.disk.rename(folder, &to).map_err(Error::io(folder, "rename"))?;
        Ok(to)
    }

    /// Finishes what an earlier process has begun, or takes it away. The logs there are now.
    pub(super) fn finish_begun(
        &self,
        begun: Vec<PathBuf>,
        places: &mut BTreeMap<PartitionId, Vec<Place>>,
    ) -> Result<(), Error> {
        for temp in begun {
            let Some((id, incarnation)) = with_suffix(&temp, BEGUN) else { continue };
            if places.contains_key(&id) {
                let gone = self.rename_to(&temp, deleted_name(&temp))?;
                deleter::push_folder(self, &gone).map_err(Error::io(&*gone, "list"))?;
                continue;
            }
            let path = self.rename_to(&temp, temp.with_extension(""))?;
            places.insert(id, vec![Place { id, incarnation, path }]);
        }
        Ok(())
    }
}

/// Whether it is a log that was begun and has not taken its place.
pub(super) fn is_begun_name(folder: &Path) -> bool {
    with_suffix(folder, BEGUN).is_some()
}

pub(super) fn suffixed(folder: &Path, kind: &str) -> PathBuf {
    let mut name = folder.as_os_str().to_owned();
    name.push(".");
    name.push(kind);
    name.into()
}

/// Which life of which partition it was or is to be, if it has this ending.
pub(super) fn with_suffix(folder: &Path, kind: &str) -> Option<(PartitionId, Incarnation)> {
    folder.extension().filter(|found| *found == kind)?;
    recovery::parse_folder_name(folder.file_stem()?.to_str()?)
}
