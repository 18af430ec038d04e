//! A log directory: the partitions in it, and the loops that serve them all.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::time::Instant;
use weir_io::{LockGuard, Space};
use weir_runtime::{Os, random_u64};
use weir_types::{DirectoryId, Durability, Incarnation, PartitionId};

use crate::append::AppendError;
use crate::checkpoint::{self, CHECKPOINT_BYTES_MAX, Checkpoint};
use crate::claim::{self, Entry};
use crate::config::{DirIdentity, DirOptions, Fatal, LogConfig, Mutant};
use crate::control::{Command, Control};
use crate::core::Core;
use crate::deleter::{self, DELETED, DeleteQueue};
use crate::dirfile::{
    self, BROKER_EPOCH, BrokerEpoch, CHECKPOINT, CLEAN, DIR_JSON, DirFile, METADATA_VERSION, MetadataVersion,
};
use crate::error::Error;
use crate::flusher::{self, FlushQueue, Waker};
use crate::keeper::{self, SealJob, TailNote};
use crate::partition::Partition;
use crate::recovery::{self, Place};
use crate::segment::{Handles, Segment};
use crate::stats::Stats;
use crate::strays::{self, Strays};

/// How many folders are made durable one by one before all are at once.
const SYNC_EACH_MAX: usize = 8;

/// One log directory, open in this process. Cheap to clone.
///
/// When the last handle is dropped without [`LogDir::close`] its loops end, and nothing is synced any more: the next
/// start finds what it finds after a kill.
#[derive(Clone)]
pub struct LogDir(Arc<Opened>);

struct Opened(Arc<DirCore>);

impl Drop for Opened {
    fn drop(&mut self) {
        self.0.stop();
    }
}

/// What opening a directory found.
#[derive(Clone, Debug)]
pub struct OpenReport {
    /// Whether it was left in order: then nothing was scanned.
    pub clean: bool,
    /// Whether it was new.
    pub created: bool,
    /// The directory's id.
    pub directory_id: DirectoryId,
    /// Whose it is, if it is somebody's.
    pub identity: Option<DirIdentity>,
    /// Who used it last, if anybody did.
    pub broker_epoch: Option<BrokerEpoch>,
    /// The highest version of the metadata that was acted upon here; 0: none.
    pub metadata_version: i64,
    /// The partitions that can be used.
    pub partitions: usize,
    /// Those whose end was torn by a crash, and how much of it, in bytes. Nobody was told that it was there.
    pub truncated: Vec<(PartitionId, u64)>,
    /// Those that cannot be used. Their files are left as they are.
    pub damaged: Vec<Damaged>,
    /// How long it took.
    pub duration: Duration,
}

/// What became of a partition that was to be created.
pub type Created = (PartitionId, Result<Partition, Error>);

/// A partition that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damaged {
    /// Which.
    pub id: PartitionId,
    /// Its folder.
    pub path: PathBuf,
    /// What is wrong.
    pub what: String,
}

pub(crate) struct DirCore {
    pub(crate) os: Arc<dyn Os>,
    path: PathBuf,
    pub(crate) options: DirOptions,
    pub(crate) handles: Arc<Handles>,
    pub(crate) executor: Handle,
    pub(crate) flush: FlushQueue,
    pub(crate) deletes: DeleteQueue,
    pub(crate) strays: Strays,
    pub(crate) keeper: RwLock<Option<Waker>>,
    pub(crate) stats: Stats,
    file: Mutex<DirFile>,
    directory_id: DirectoryId,
    partitions: RwLock<HashMap<PartitionId, Arc<Core>>>,
    damaged: RwLock<BTreeMap<PathBuf, Damaged>>,
    seals: Mutex<Vec<SealJob>>,
    notes: Mutex<Vec<TailNote>>,
    /// The one that was written last; entries of damaged partitions stay in it.
    checkpoint: Mutex<Checkpoint>,
    dirty_bytes: AtomicU64,
    /// Those that wait for room.
    stalled: Mutex<Vec<Arc<Core>>>,
    available_bytes: AtomicI64,
    broker_epoch: Mutex<Option<BrokerEpoch>>,
    failed: AtomicBool,
    stopping: AtomicBool,
    lock: Mutex<Option<LockGuard>>,
}

impl LogDir {
    /// Opens a directory, which is created if it is not there, and all partitions in it. Blocking: not for an executor.
    ///
    /// Without an identity a directory is taken as it is; a new one is nobody's until [`LogDir::bind_identity`].
    /// Has to be called within a tokio runtime, or `options.executor` has to name one.
    pub fn open(
        os: Arc<dyn Os>,
        path: &Path,
        identity: Option<DirIdentity>,
        options: DirOptions,
    ) -> Result<(Self, OpenReport), Error> {
        let started = Instant::now();
        let disk = os.disk();
        let file = path.join(DIR_JSON);
        let created = !disk.exists(&file).map_err(Error::io(&*file, "stat"))?;
        if created {
            match disk.create_dir(path) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                    return Err(Error::io(path, "create")(error));
                }
                _ => {}
            }
            // Also where it exists: whoever created it may have died before this.
            if let Some(parent) = path.parent() {
                disk.sync_dir(parent).map_err(Error::io(parent, "fsync of a folder"))?;
            }
        }
        let lock = dirfile::lock(&*disk, path)?;
        let file = dirfile::open(&*disk, path, identity.as_ref())?;
        let directory_id: DirectoryId =
            file.directory_id.parse().map_err(|error: weir_types::ParseIdError| {
                Error::damaged(path.join(DIR_JSON), error.to_string())
            })?;
        let executor = match &options.executor {
            Some(executor) => executor.clone(),
            None => Handle::try_current().map_err(|error| {
                Error::io(path, "open")(io::Error::other(format!("{error}: set DirOptions::executor")))
            })?,
        };
        let dir = Arc::new(DirCore {
            handles: Arc::new(Handles::new(disk, options.open_files_max, options.has(Mutant::EvictDirty))),
            os,
            path: path.to_owned(),
            executor,
            flush: FlushQueue::default(),
            deletes: DeleteQueue::default(),
            strays: Strays::default(),
            keeper: RwLock::default(),
            stats: Stats::default(),
            file: Mutex::new(file),
            directory_id,
            partitions: RwLock::default(),
            damaged: RwLock::default(),
            seals: Mutex::default(),
            notes: Mutex::default(),
            checkpoint: Mutex::default(),
            dirty_bytes: AtomicU64::new(0),
            stalled: Mutex::default(),
            available_bytes: AtomicI64::new(i64::MAX),
            broker_epoch: Mutex::default(),
            failed: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            lock: Mutex::new(Some(lock)),
            options,
        });
        let mut report = dir.recover()?;
        dir.look_at_space();
        flusher::start(&dir);
        deleter::start(&dir);
        keeper::start(&dir);
        report.duration = started.elapsed();
        report.created = created;
        Ok((Self(Arc::new(Opened(dir))), report))
    }

    pub(crate) fn core(&self) -> &Arc<DirCore> {
        &self.0.0
    }

    /// The directory's id: random, given when it was new.
    pub fn directory_id(&self) -> DirectoryId {
        self.core().directory_id
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.core().path
    }

    /// Whose it is, if it is somebody's.
    pub fn identity(&self) -> Option<DirIdentity> {
        self.core().file.lock().identity.clone()
    }

    /// Makes a new directory somebody's, durably; for its owner it changes nothing. Blocking.
    pub fn bind_identity(&self, identity: &DirIdentity) -> Result<(), Error> {
        let path = self.core().path.join(DIR_JSON);
        let mut file = self.core().file.lock();
        match &file.identity {
            Some(found) if found == identity => Ok(()),
            Some(found) => Err(dirfile::foreign(path, found, identity)),
            None => {
                let bound = DirFile { identity: Some(identity.clone()), ..file.clone() };
                dirfile::write_json(&*self.core().handles.disk, &path, &bound)?;
                *file = bound;
                Ok(())
            }
        }
    }

    /// Notes durably who uses the directory from now on: after registration, before the first append (rules 8, 9).
    /// Blocking.
    pub fn write_broker_epoch(&self, broker_epoch: i64) -> Result<(), Error> {
        let epoch = BrokerEpoch { broker_epoch, boot_id: self.core().os.boot_id() };
        dirfile::write_json(&*self.core().handles.disk, &self.core().path.join(BROKER_EPOCH), &epoch)?;
        *self.core().broker_epoch.lock() = Some(epoch);
        Ok(())
    }

    /// Notes durably which version of the metadata is acted upon from now on: before anything is made, led or set
    /// aside because of it, so that nothing older is believed after a restart (rule 33). For want of space
    /// it fails and changes nothing; any other error ends the process. Blocking.
    pub fn write_metadata_version(&self, metadata_version: i64) -> Result<(), Error> {
        let dir = self.core();
        let path = dir.path.join(METADATA_VERSION);
        let written = dirfile::write_json(&*dir.handles.disk, &path, &MetadataVersion { metadata_version });
        written.inspect_err(|error| {
            if !matches!(error, Error::Io { source, .. } if is_no_space(source)) {
                dir.fatal_error("write", error);
            }
        })
    }

    /// Size and free space of the file system.
    pub fn space(&self) -> Result<Space, Error> {
        self.core().handles.disk.space(&self.core().path).map_err(Error::io(&*self.core().path, "statvfs"))
    }

    /// What it counts.
    pub fn stats(&self) -> &Stats {
        self.core().stats.open_files.set(self.core().handles.count() as u64);
        self.core().stats.strays.set(self.core().strays.count() as u64);
        self.core().stats.dirty_bytes.set(self.core().dirty_bytes.load(Ordering::Relaxed));
        &self.core().stats
    }

    /// The partitions that can be used, in no order.
    pub fn partitions(&self) -> Vec<Partition> {
        self.core().all().into_iter().map(Partition).collect()
    }

    /// One of them.
    pub fn partition(&self, id: PartitionId) -> Option<Partition> {
        self.core().partitions.read().get(&id).cloned().map(Partition)
    }

    /// Those that cannot be used.
    pub fn damaged(&self) -> Vec<Damaged> {
        self.core().damaged.read().values().cloned().collect()
    }

    /// Creates a partition; it is durable when this returns. The topic's name is for people who look at the folder.
    /// Blocking.
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
    pub fn create_partitions(
        &self,
        wanted: impl IntoIterator<Item = (PartitionId, String, LogConfig)>,
    ) -> Result<Vec<Created>, Error> {
        let dir = self.core();
        if dir.stopping() || dir.failed() {
            return Err(Error::Closed);
        }
        let mut taken: BTreeSet<PartitionId> =
            dir.damaged.read().values().map(|damaged| damaged.id).collect();
        let mut created = Vec::new();
        for (id, topic_name, config) in wanted {
            let exists = !taken.insert(id) || dir.partitions.read().contains_key(&id);
            let core = if exists { Err(Error::Exists(id)) } else { dir.create(id, &topic_name, config) };
            created.push((id, core));
        }
        let made: Vec<&Arc<Core>> = created.iter().filter_map(|(_, core)| core.as_ref().ok()).collect();
        if let Err(error) = dir.sync_created(&made) {
            for core in made {
                // Left behind it is empty, and nobody's.
                let _ = deleter::delete_folder(dir, &core.path);
            }
            return Err(error);
        }
        let mut partitions = dir.partitions.write();
        for core in made {
            for segment in core.segments.load().iter() {
                segment.set_named();
            }
            partitions.insert(core.id, Arc::clone(core));
        }
        Ok(created.into_iter().map(|(id, core)| (id, core.map(Partition))).collect())
    }

    /// Deletes a partition: closed at once, durably gone when this returns; its blocks are given back by and by.
    pub async fn delete_partition(&self, partition: &Partition) -> Result<(), Error> {
        let core = Arc::clone(&partition.0);
        self.core().abandon(&[Arc::clone(&core)]).await;
        let dir = Arc::clone(self.core());
        let (done, deleted) = oneshot::channel();
        self.core().os.block(Box::new(move || {
            // Nobody waits any more if this fails.
            let _ = done.send(deleter::delete_folder(&dir, &core.path).map(|()| {
                // Not before: as long as it may come back, the checkpoint has to know it.
                dir.forget(&[core.id]);
            }));
        }));
        deleted.await.unwrap_or(Err(Error::Closed))
    }

    /// Writes a checkpoint now. Blocking.
    pub fn checkpoint(&self) -> Result<(), Error> {
        self.core().write_checkpoint()
    }

    /// Stops in order: closes every partition, syncs everything, and says at the very end that it was left in order.
    pub async fn close(&self) -> Result<(), Error> {
        let cores = self.core().all();
        let mut closing = Vec::with_capacity(cores.len());
        for core in &cores {
            let (answer, answered) = oneshot::channel();
            claim::submit(core, [Entry::Command(Command::Control(Control::Close, answer))]);
            closing.push(answered);
        }
        let mut result = Ok(());
        for answered in closing {
            // A partition that was deleted meanwhile is closed, too.
            if let Ok(Err(error)) = answered.await
                && !matches!(error, Error::Closed)
            {
                result = Err(error);
            }
        }
        let dir = Arc::clone(self.core());
        let (done, left) = oneshot::channel();
        self.core().os.block(Box::new(move || {
            let left = result.and_then(|()| dir.leave());
            dir.stop();
            // Nobody waits any more if this fails.
            let _ = done.send(left);
        }));
        left.await.unwrap_or(Err(Error::Closed))
    }
}

impl fmt::Debug for LogDir {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LogDir({}, {})", self.core().path.display(), self.core().directory_id)
    }
}

impl DirCore {
    pub(crate) fn has(&self, mutant: Mutant) -> bool {
        self.options.has(mutant)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    fn create(
        self: &Arc<Self>,
        id: PartitionId,
        topic_name: &str,
        config: LogConfig,
    ) -> Result<Arc<Core>, Error> {
        let incarnation = Incarnation(if self.has(Mutant::NoIncarnation) { 0 } else { random_u64() });
        let path = self.path.join(recovery::folder_name(id, topic_name, incarnation));
        self.handles.disk.create_dir(&path).map_err(Error::io(&*path, "create"))?;
        recovery::create(self, Place { id, incarnation, path: path.clone() }, config, 0).inspect_err(|_| {
            // Left behind it is empty, and nobody's.
            let _ = deleter::delete_folder(self, &path);
        })
    }

    fn sync_created(&self, cores: &[&Arc<Core>]) -> Result<(), Error> {
        let disk = &self.handles.disk;
        if cores.len() > SYNC_EACH_MAX {
            return disk.sync_fs(&self.path).map_err(Error::io(&*self.path, "syncfs"));
        }
        for core in cores {
            disk.sync_dir(&core.path).map_err(Error::io(&*core.path, "fsync of a folder"))?;
        }
        disk.sync_dir(&self.path).map_err(Error::io(&*self.path, "fsync of a folder"))
    }

    /// Closes partitions at once: what waits is told that it may have been applied, and nothing is synced any more.
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
        let damaged = self.damaged.read();
        let damaged = damaged.values().filter(|damaged| damaged.id == id).map(|damaged| damaged.path.clone());
        self.partitions.read().get(&id).map(|core| core.path.clone()).into_iter().chain(damaged).collect()
    }

    /// The folders of these are gone.
    pub(crate) fn forget(&self, ids: &[PartitionId]) {
        let mut partitions = self.partitions.write();
        ids.iter().for_each(|id| drop(partitions.remove(id)));
        let ids: BTreeSet<_> = ids.iter().collect();
        self.damaged.write().retain(|_, damaged| !ids.contains(&damaged.id));
    }

    pub(crate) fn all(&self) -> Vec<Arc<Core>> {
        self.partitions.read().values().cloned().collect()
    }

    pub(crate) fn failed(&self) -> bool {
        self.failed.load(Ordering::Acquire)
    }

    pub(crate) fn stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    /// Opens every partition there is.
    fn recover(self: &Arc<Self>) -> Result<OpenReport, Error> {
        let disk = &self.handles.disk;
        let clean_path = self.path.join(CLEAN);
        let was_clean = dirfile::read_json::<BrokerEpoch>(&**disk, &clean_path).ok().flatten().is_some();
        if disk.exists(&clean_path).map_err(Error::io(&*clean_path, "stat"))? {
            // Before the first write: from here on it is not in order.
            disk.unlink_durably(&clean_path).map_err(Error::io(&*clean_path, "unlink"))?;
        }
        // What is acted on must not be undone by a power loss afterwards: a process that was killed may have left
        // names that are only in memory.
        disk.sync_dir(&self.path).map_err(Error::io(&*self.path, "fsync of a folder"))?;
        let broker_epoch: Option<BrokerEpoch> = dirfile::read_json(&**disk, &self.path.join(BROKER_EPOCH))?;
        self.broker_epoch.lock().clone_from(&broker_epoch);
        let seen: Option<MetadataVersion> = dirfile::read_json(&**disk, &self.path.join(METADATA_VERSION))?;
        let mut checkpoint = self.read_checkpoint()?;
        let mut report = OpenReport {
            clean: was_clean,
            created: false,
            directory_id: self.directory_id,
            identity: self.file.lock().identity.clone(),
            broker_epoch,
            metadata_version: seen.map_or(0, |seen| seen.metadata_version),
            partitions: 0,
            truncated: Vec::new(),
            damaged: Vec::new(),
            duration: Duration::ZERO,
        };
        for entry in disk.list(&self.path).map_err(Error::io(&*self.path, "list"))? {
            let path = self.path.join(&entry.name);
            if entry.is_dir && entry.name.ends_with(&format!(".{DELETED}")) {
                deleter::push_folder(self, &path).map_err(Error::io(&*path, "list"))?;
            }
            if entry.is_dir {
                strays::find(self, &entry.name);
            }
            let parsed = recovery::parse_folder_name(&entry.name).filter(|_| entry.is_dir);
            let Some((id, incarnation)) = parsed else { continue };
            let place = Place { id, incarnation, path };
            let known = checkpoint.get(&id).copied().filter(|entry| entry.incarnation == incarnation);
            self.recover_one(place, known, was_clean, &mut report);
        }
        // Of partitions that are gone nothing is kept; of damaged ones what is known of them.
        checkpoint.retain(|id, _| report.damaged.iter().any(|damaged| damaged.id == *id));
        *self.checkpoint.lock() = checkpoint;
        report.partitions = self.partitions.read().len();
        self.write_checkpoint()?;
        Ok(report)
    }

    fn recover_one(
        self: &Arc<Self>,
        place: Place,
        known: Option<checkpoint::Entry>,
        clean: bool,
        report: &mut OpenReport,
    ) {
        let id = place.id;
        let path = place.path.clone();
        let twice = self.partitions.read().contains_key(&id);
        let recovered = if twice {
            Err(Error::damaged(&*path, "another folder holds the same partition"))
        } else {
            recovery::recover(self, place, known, clean)
        };
        match recovered {
            Ok(recovered) => {
                if recovered.truncated_bytes > 0 {
                    let bytes = recovered.truncated_bytes;
                    tracing::info!(partition = %id, bytes, "the torn end of a log was cut");
                    report.truncated.push((id, bytes));
                }
                self.partitions.write().insert(id, recovered.core);
            }
            Err(error) => {
                tracing::error!(partition = %id, %error, "a partition is damaged and stays offline");
                let damaged = Damaged { id, path: path.clone(), what: error.to_string() };
                report.damaged.push(damaged.clone());
                self.damaged.write().insert(path, damaged);
            }
        }
    }

    fn read_checkpoint(&self) -> Result<Checkpoint, Error> {
        let path = self.path.join(CHECKPOINT);
        let bytes = match self.handles.disk.read(&path, CHECKPOINT_BYTES_MAX) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Checkpoint::new()),
            Err(error) => return Err(Error::io(path, "read")(error)),
        };
        checkpoint::decode(&bytes, self.directory_id.0).map_err(|what| {
            // It is replaced whole, so this is no torn write: the disk has lost what it had.
            let advice = "it says what was durable and what was deleted; check the disk, and bring it back from a \
                          backup, or move it away: then every log is checked whole, what was torn cannot be told \
                          from what was lost, and deleted records may come back";
            Error::damaged(path, format!("{what}: {advice}"))
        })
    }

    /// Makes durable what is known of every partition by now.
    pub(crate) fn write_checkpoint(&self) -> Result<(), Error> {
        if self.failed() {
            return Err(Error::Failed);
        }
        let mut last = self.checkpoint.lock();
        let mut next = Checkpoint::new();
        let damaged: Vec<PartitionId> = self.damaged.read().values().map(|damaged| damaged.id).collect();
        next.extend(last.iter().filter(|(id, _)| damaged.contains(id)).map(|(id, entry)| (*id, *entry)));
        next.extend(self.partitions.read().values().map(|core| (core.id, core.checkpoint_entry())));
        if next == *last {
            return Ok(());
        }
        let path = self.path.join(CHECKPOINT);
        let bytes = checkpoint::encode(&next, self.directory_id.0);
        if let Err(error) = self.handles.disk.replace_durably(&path, &bytes) {
            if is_no_space(&error) {
                // The old one is still there and still true.
                return Err(Error::io(path, "write")(error));
            }
            self.fatal(&path, "write", &error);
            return Err(Error::Failed);
        }
        *last = next;
        self.stats.checkpoints.add(1);
        Ok(())
    }

    /// Everything is closed: the last words.
    fn leave(self: &Arc<Self>) -> Result<(), Error> {
        keeper::seal_pending(self);
        self.write_checkpoint()?;
        let disk = &self.handles.disk;
        disk.sync_fs(&self.path).map_err(Error::io(&*self.path, "syncfs"))?;
        let unregistered = BrokerEpoch { broker_epoch: -1, boot_id: self.os.boot_id() };
        let epoch = self.broker_epoch.lock().clone().unwrap_or(unregistered);
        dirfile::write_json(&**disk, &self.path.join(CLEAN), &epoch)
    }

    fn stop(&self) {
        if self.stopping.swap(true, Ordering::AcqRel) {
            return;
        }
        self.partitions.write().clear();
        self.flush.wake();
        self.deletes.wake();
        if let Some(wake) = &*self.keeper.read() {
            wake();
        }
        *self.lock.lock() = None;
    }

    pub(crate) fn seal_later(&self, job: SealJob) {
        self.seals.lock().push(job);
        if let Some(wake) = &*self.keeper.read() {
            wake();
        }
    }

    /// The same at the keeper's next turn.
    pub(crate) fn seal_again(&self, job: SealJob) {
        self.seals.lock().push(job);
    }

    /// The work on one segment, if it is still to be done.
    pub(crate) fn take_seal(&self, segment: &Arc<Segment>) -> Option<SealJob> {
        let mut seals = self.seals.lock();
        let at = seals.iter().position(|job| Arc::ptr_eq(&job.segment, segment))?;
        Some(seals.swap_remove(at))
    }

    pub(crate) fn note_later(&self, note: TailNote) {
        self.notes.lock().push(note);
        if let Some(wake) = &*self.keeper.read() {
            wake();
        }
    }

    pub(crate) fn take_notes(&self) -> Vec<TailNote> {
        std::mem::take(&mut *self.notes.lock())
    }

    pub(crate) fn take_seals(&self) -> Vec<SealJob> {
        std::mem::take(&mut *self.seals.lock())
    }

    pub(crate) fn delete_later(&self, path: PathBuf) {
        self.deletes.push(path);
    }

    /// So much is about to be unsynced. Counted before the flusher can see it, which counts it off.
    pub(crate) fn will_be_dirty(&self, bytes: u64) {
        self.dirty_bytes.fetch_add(bytes, Ordering::AcqRel);
        self.available_bytes.fetch_sub(i64::try_from(bytes).unwrap_or(i64::MAX), Ordering::Relaxed);
    }

    /// Something was written to a partition: who makes it durable, and when.
    pub(crate) fn wrote(&self, core: &Arc<Core>, durability: Durability) {
        let much = self.dirty_bytes.load(Ordering::Acquire) > self.options.dirty_budget_bytes / 2;
        if durability == Durability::Fsync || much {
            self.flush.request(core);
        } else {
            self.flush.note_lazy(core);
        }
    }

    /// So much of it is synced by now, or gone.
    pub(crate) fn synced(&self, bytes: u64) {
        self.dirty_bytes.fetch_sub(bytes, Ordering::AcqRel);
    }

    pub(crate) fn has_room(&self) -> bool {
        self.dirty_bytes.load(Ordering::Acquire) < self.options.dirty_budget_bytes
    }

    /// A partition waits until there is room.
    pub(crate) fn wait_for_room(&self, core: &Arc<Core>) {
        self.stats.dirty_waits.add(1);
        self.stalled.lock().push(Arc::clone(core));
        self.flush.request_lazy();
        // It may have come just before.
        self.tell_room();
    }

    pub(crate) fn tell_room(&self) {
        if !self.has_room() && !self.failed() {
            return;
        }
        let stalled = std::mem::take(&mut *self.stalled.lock());
        for core in stalled {
            claim::post(&core, Entry::Resume);
        }
    }

    pub(crate) fn look_at_space(&self) {
        // A disk that does not say is taken for one that has room: a write will tell.
        let available = self.handles.disk.space(&self.path).map_or(u64::MAX, |space| space.available_bytes);
        self.available_bytes.store(i64::try_from(available).unwrap_or(i64::MAX), Ordering::Relaxed);
        self.stats.available_bytes.set(available);
    }

    /// Whether appends are refused for want of space.
    pub(crate) fn is_short_of_space(&self) -> bool {
        let available = u64::try_from(self.available_bytes.load(Ordering::Relaxed)).unwrap_or(0);
        available < self.options.disk_reserved_bytes
    }

    pub(crate) fn check_headroom(&self) -> Result<(), AppendError> {
        if !self.is_short_of_space() {
            return Ok(());
        }
        self.stats.disk_full.add(1);
        Err(self.disk_full())
    }

    pub(crate) fn disk_full(&self) -> AppendError {
        AppendError::DiskFull {
            available_bytes: u64::try_from(self.available_bytes.load(Ordering::Relaxed)).unwrap_or(0),
            reserved_bytes: self.options.disk_reserved_bytes,
        }
    }

    /// An error that is only want of space is said to whoever appends; any other ends the process.
    pub(crate) fn no_space_or_fatal(&self, path: &Path, what: &'static str, error: io::Error) -> AppendError {
        if !is_no_space(&error) {
            self.fatal(path, what, &error);
            return AppendError::Closed;
        }
        self.look_at_space();
        self.disk_full()
    }

    /// A write or sync has failed: nothing is acknowledged any more, and the process is told to end.
    pub(crate) fn fatal(&self, path: &Path, what: &'static str, error: &io::Error) {
        if !self.failed.swap(true, Ordering::AcqRel) {
            let fatal = Fatal { path: path.to_owned(), what, error: error.to_string() };
            tracing::error!(%fatal, "a log directory has failed");
            (self.options.on_fatal)(&fatal);
        }
    }

    pub(crate) fn fatal_error(&self, what: &'static str, error: &Error) {
        self.fatal(&self.path, what, &io::Error::other(error.to_string()));
    }
}

fn is_no_space(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
