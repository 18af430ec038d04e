//! Which partitions a directory has: made, found, opened again, deleted.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::oneshot;
use weir_types::{Incarnation, PartitionId};

use super::{DirCore, LogDir, Unusable};
use crate::claim::{self, Entry};
use crate::config::{LogConfig, Mutant};
use crate::control::Command;
use crate::core::Core;
use crate::deleter;
use crate::error::Error;
use crate::partition::Partition;
use crate::recovery::{self, Place};

/// How many folders are made durable one by one before all are at once.
const SYNC_EACH_MAX: usize = 8;

/// What became of a partition that was to be created.
pub type Created = (PartitionId, Result<Partition, Error>);

impl LogDir {
    /// The partitions that can be used, in no order.
    pub fn partitions(&self) -> Vec<Partition> {
        self.core().all().into_iter().map(Partition).collect()
    }

    /// One of them.
    pub fn partition(&self, id: PartitionId) -> Option<Partition> {
        self.core().partitions.read().get(&id).cloned().map(Partition)
    }

    /// Those that cannot be used.
    pub fn unusable(&self) -> Vec<Unusable> {
        self.core().unusable()
    }

    /// Tries again to open a partition that could not be opened for now. `None`: there is no such one here. Damage that
    /// comes to light is an error, then and ever after. Not while the partition is deleted or set aside. Blocking.
    ///
    /// # Errors
    /// [`Error::Damaged`]; [`Error::Io`] if it cannot be opened now, either.
    pub fn reopen(&self, id: PartitionId) -> Result<Option<Partition>, Error> {
        let dir = self.core();
        let _held = dir.hold().filter(|_| !dir.failed()).ok_or(Error::Closed)?;
        dir.reopen(id).map(|core| core.map(Partition))
    }

    /// Creates a partition; it is durable when this returns. The topic's name is for people who look at the folder.
    /// Blocking.
    ///
    /// # Errors
    /// [`Error::Exists`]; [`Error::Io`] for want of space or of a descriptor: nothing is left of it then; [`Error::Failed`].
    pub fn create_partition(
        &self,
        id: PartitionId,
        topic_name: &str,
        config: LogConfig,
    ) -> Result<Partition, Error> {
        let mut created = self.create_partitions([(id, topic_name.to_owned(), config)])?;
        created.pop().map_or(Err(Error::Closed), |(_, outcome)| outcome)
    }

    /// Creates many partitions for the price of one sync, each with its own outcome: one that cannot be made holds up
    /// no other. An error of the whole is one of the directory: then none was made. Blocking.
    ///
    /// # Errors
    /// As [`LogDir::create_partition`], of the directory.
    pub fn create_partitions(
        &self,
        wanted: impl IntoIterator<Item = (PartitionId, String, LogConfig)>,
    ) -> Result<Vec<Created>, Error> {
        let dir = self.core();
        let _held = dir.hold().filter(|_| !dir.failed()).ok_or(Error::Closed)?;
        let mut taken: BTreeSet<PartitionId> =
            dir.unusable.read().values().map(|unusable| unusable.id).collect();
        let mut created = Vec::new();
        for (id, topic_name, config) in wanted {
            let exists = !taken.insert(id) || dir.partitions.read().contains_key(&id);
            let core = if exists { Err(Error::Exists(id)) } else { dir.create(id, &topic_name, config) };
            created.push((id, core));
        }
        let made: Vec<&Arc<Core>> = created.iter().filter_map(|(_, core)| core.as_ref().ok()).collect();
        if let Err(error) = dir.sync_created(&made) {
            made.iter().for_each(|core| dir.undo_create(&core.path));
            return Err(error);
        }
        let mut partitions = dir.partitions.write();
        for core in made {
            for segment in core.segments.load().iter() {
                segment.set_named();
            }
            partitions.insert(core.id, Arc::clone(core));
        }
        drop(partitions);
        dir.has_new_partitions();
        Ok(created.into_iter().map(|(id, core)| (id, core.map(Partition))).collect())
    }
}

impl DirCore {
    fn create(
        self: &Arc<Self>,
        id: PartitionId,
        topic_name: &str,
        config: LogConfig,
    ) -> Result<Arc<Core>, Error> {
        let incarnation = Incarnation(if self.has(Mutant::NoIncarnation) { 0 } else { self.os.random_u64() });
        let path = self.path.join(recovery::folder_name(id, topic_name, incarnation));
        let disk = &self.handles.disk;
        let made = self.handles.retry(|| disk.create_dir(&path)).map_err(Error::io(&*path, "create"));
        let place = Place { id, incarnation, path: path.clone() };
        made.and_then(|()| recovery::create(self, place, config)).inspect_err(|_| self.undo_create(&path))
    }

    /// Takes away, durably, what a creation that failed may have made.
    pub(super) fn undo_create(&self, folder: &Path) {
        match deleter::delete_folder(self, folder) {
            Err(error) if !error.is_not_found() => {
                // It is empty, and the next start takes it away.
                tracing::warn!(%error, "the folder of a partition that was not created is left behind");
            }
            _ => {}
        }
    }

    fn sync_created(&self, cores: &[&Arc<Core>]) -> Result<(), Error> {
        if cores.len() > SYNC_EACH_MAX {
            return self.sync_all();
        }
        for core in cores {
            let folder = self.handles.open_dir(&core.path).map_err(Error::io(&*core.path, "open"))?;
            self.sync_names(&core.path, &*folder)?;
        }
        self.sync_own_names()
    }

    /// Closes partitions at once, and for good: what waits is told that it may have been applied, nothing is synced any more,
    /// and none of their files stays open or mapped, whoever still knows them. Else a log that is deleted would take its
    /// space for as long as somebody does.
    pub(crate) async fn abandon(&self, cores: &[Arc<Core>]) {
        let mut closing = Vec::with_capacity(cores.len());
        for core in cores {
            let (answer, answered) = oneshot::channel();
            claim::submit(core, [Entry::Command(Command::Abandon(answer))]);
            closing.push(answered);
        }
        for (core, answered) in cores.iter().zip(closing) {
            // Closed already is as good.
            let _ = answered.await;
            for segment in core.segments.load().iter() {
                self.synced(segment.give_up());
                // Where the directory is being closed it may not be: then that syncs it.
                if core.is_closed() {
                    segment.let_go();
                }
            }
        }
    }

    /// Those of these that are open.
    pub(crate) fn open_of(&self, ids: &[PartitionId]) -> Vec<Arc<Core>> {
        let partitions = self.partitions.read();
        ids.iter().filter_map(|id| partitions.get(id).cloned()).collect()
    }

    /// Where a partition is: one folder, or several if it is damaged in that way.
    pub(crate) fn folders_of(&self, id: PartitionId) -> Vec<PathBuf> {
        let partitions = self.partitions.read();
        let unusable = self.unusable.read();
        let unusable = unusable.values().filter(|other| other.id == id).map(|other| other.path.clone());
        partitions.get(&id).map(|core| core.path.clone()).into_iter().chain(unusable).collect()
    }

    /// The folders of these are gone.
    pub(crate) fn forget(&self, ids: &[PartitionId]) {
        let mut partitions = self.partitions.write();
        ids.iter().for_each(|id| drop(partitions.remove(id)));
        let ids: BTreeSet<_> = ids.iter().collect();
        self.ahead.lock().retain(|id| !ids.contains(id));
        self.unusable.write().retain(|_, unusable| !ids.contains(&unusable.id));
    }

    pub(super) fn unusable(&self) -> Vec<Unusable> {
        self.unusable.read().values().cloned().collect()
    }

    pub(crate) fn all(&self) -> Vec<Arc<Core>> {
        self.partitions.read().values().cloned().collect()
    }
}
