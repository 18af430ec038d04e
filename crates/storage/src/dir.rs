//! A log directory: the partitions in it, and the loops that serve them all.

mod anew;
mod aside;
mod checkpoints;
mod cut_off;
mod later;
mod missing;
mod pace;
mod partitions;
mod room;
mod space;
mod start;
mod unseen;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use parking_lot::{Mutex, RwLock};
use tokio::runtime::Handle;
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;
use weir_io::{Folder, LockGuard, Space, make_dirs};
use weir_runtime::{Os, Seldom, blocking};
use weir_types::{DirectoryId, Incarnation, PartitionId};

use self::aside::Aside;
pub(crate) use self::aside::DAMAGED;
use self::checkpoints::CheckpointFile;
use self::cut_off::CutOff;
pub(crate) use self::missing::is_stand_in;
pub use self::partitions::Created;
use self::space::FreeSpace;
use crate::claim::{self, Entry};
use crate::clock::WallClock;
use crate::config::{DirIdentity, DirOptions, Mutant};
use crate::control::{Command, Control};
use crate::core::Core;
use crate::deleter::{self, DeleteQueue};
use crate::dirfile::{
    self, BROKER_EPOCH, BrokerEpoch, CLEAN, DIR_JSON, DirFile, METADATA_VERSION, MetadataVersion,
};
use crate::error::Error;
use crate::failed;
use crate::flusher::{self, FlushQueue, Waker};
use crate::keeper::{self, SealJob, TailNote};
use crate::moves::MoveQueue;
use crate::pace::Pace;
use crate::recovery::Whole;
use crate::segment::Handles;
use crate::stats::Stats;
use crate::strays::Strays;
use crate::writeback::{self, Writeback};

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
    /// Who used it last, if anybody did, and what was known of its logs then is still there.
    pub broker_epoch: Option<BrokerEpoch>,
    /// Whether all that was written in that epoch is there, on the disk or not: the machine has not been started again
    /// since, and no write or sync has failed.
    pub same_boot: bool,
    /// The numbers of the writes and syncs that have failed here, and that no registration has got over, sorted; 0: one
    /// whose number is not known.
    pub failures: Vec<u64>,
    /// The highest version of the metadata that was acted upon here; 0: none.
    pub metadata_version: i64,
    /// Who wrote that version; 0: not known.
    pub metadata_author: u64,
    /// The partitions that can be used.
    pub partitions: usize,
    /// Those whose end was torn by a crash, and how much of it, in bytes. Nobody was told that it was there.
    pub truncated: Vec<(PartitionId, u64)>,
    /// Those that cannot be used, because the disk has lost what it had. Their files are left as they are.
    pub damaged: Vec<Unusable>,
    /// Those that cannot be used now: something could not be read, or there was no room or descriptor. Nothing is known
    /// to be lost; see [`LogDir::reopen`].
    pub offline: Vec<Unusable>,
    /// How long it took.
    pub duration: Duration,
}

/// A partition that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unusable {
    /// Which.
    pub id: PartitionId,
    /// Its folder.
    pub path: PathBuf,
    /// What is wrong.
    pub what: String,
    /// Whether the disk has lost what it had; else it may be there.
    pub is_damaged: bool,
    /// How far it is whole, if it is damaged and can be cut there: see [`LogDir::cut_damaged`].
    pub whole: Option<Whole>,
}

pub(crate) struct DirCore {
    pub(crate) os: Arc<dyn Os>,
    pub(crate) clock: WallClock,
    path: PathBuf,
    /// Open from start to end: to make its names durable takes no descriptor.
    folder: Arc<dyn Folder>,
    /// Held by whoever makes its names, or everything, durable: an error is reported once, so of two at a time only one
    /// would hear of it.
    syncing_names: Mutex<()>,
    syncing_all: Mutex<()>,
    /// Held by whoever moves starts of logs, from the look at their ends on, and by a cut below a high watermark, which
    /// takes the ground from under that.
    pub(crate) moving: Mutex<()>,
    pub(crate) options: DirOptions,
    pub(crate) handles: Arc<Handles>,
    pub(crate) executor: Handle,
    pub(crate) flush: FlushQueue,
    pub(crate) writeback: Writeback,
    pub(crate) deletes: DeleteQueue,
    /// Starts that were asked for.
    pub(crate) moves: MoveQueue,
    pub(crate) strays: Strays,
    pub(crate) keeper: RwLock<Option<Waker>>,
    pub(crate) stats: Stats,
    pub(crate) pace: Pace,
    file: Mutex<DirFile>,
    directory_id: DirectoryId,
    partitions: RwLock<BTreeMap<PartitionId, Arc<Core>>>,
    /// By their folders.
    unusable: RwLock<BTreeMap<PathBuf, Unusable>>,
    /// Damaged ones that were set aside, by their lives.
    damaged: Mutex<BTreeMap<(PartitionId, Incarnation), Aside>>,
    /// Copies of what was cut off damaged ones.
    cut_off: Mutex<Vec<CutOff>>,
    /// Held by whoever opens one of those, or takes it away.
    reopening: Mutex<()>,
    /// Held by whoever copies what a damaged log is about to lose.
    keeping: Mutex<()>,
    seals: Mutex<Vec<SealJob>>,
    /// Those that have grown much since the last note of them.
    grown: Mutex<Vec<Arc<Core>>>,
    notes: Mutex<Vec<TailNote>>,
    /// By how much recovery points have moved since the last checkpoint.
    uncheckpointed_bytes: AtomicU64,
    /// Whether the last checkpoint lacks a partition.
    has_new: AtomicBool,
    checkpoint: Mutex<CheckpointFile>,
    dirty_bytes: AtomicU64,
    /// Those that wait for room.
    stalled: Mutex<Vec<Arc<Core>>>,
    pub(crate) space: FreeSpace,
    /// Appends are refused for want of so much; 0: they are not. Then it was said, and is until there is room.
    missing_bytes: AtomicU64,
    /// Whether it was said, since there was room last, that there is none for a byte.
    none_taken_said: AtomicBool,
    /// Told when that is over.
    room_again: watch::Sender<()>,
    slow_sync_said: Seldom,
    step_back_said: Seldom,
    /// Those that may have blocks reserved ahead.
    ahead: Mutex<BTreeSet<PartitionId>>,
    broker_epoch: Mutex<Option<BrokerEpoch>>,
    /// Whether a stop may say that the directory was left in order: nothing was lost before this start, or the
    /// controller was told what was.
    in_order: AtomicBool,
    /// Whether the machine has not been started again since the directory was last used, and no write has failed.
    same_boot: AtomicBool,
    /// The failures that were noted down when it was opened.
    noted: Mutex<Vec<u64>>,
    failed: AtomicBool,
    stopping: AtomicBool,
    lock: ArcSwapOption<Held>,
}

/// The directory is this process's as long as somebody has this: whoever is at work in it has.
#[derive(Debug)]
pub(crate) struct Held {
    /// First, so that it is free when the other one tells.
    _lock: LockGuard,
    free: watch::Sender<()>,
}

impl LogDir {
    /// Opens a directory, which is created if it is not there, and all partitions in it. Blocking: not for an executor.
    ///
    /// Without an identity a directory is taken as it is; a new one is nobody's until [`LogDir::bind_identity`].
    /// Has to be called within a tokio runtime, or `options.executor` has to name one.
    ///
    /// # Errors
    /// [`Error::Locked`], [`Error::Foreign`], [`Error::Newer`], [`Error::Damaged`] of its small files, [`Error::Io`]; what is
    /// wrong with a single partition is in the report. [`Error::Failed`] if a sync failed.
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
            make_dirs(&*disk, path).map_err(Error::io(path, "create"))?;
        }
        let lock = dirfile::lock(&*disk, path)?;
        let folder = disk.open_dir(path).map_err(Error::io(path, "open"))?;
        let file = dirfile::open(&*os, path, identity.as_ref())?;
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
            handles: Arc::new(Handles::new(
                disk,
                (options.open_files_max, options.mapped_sidecars_max),
                options.has(Mutant::EvictDirty),
            )),
            clock: WallClock::new(
                Arc::clone(&os),
                if options.has(Mutant::JumpBelieved) { Duration::ZERO } else { options.retention_pause },
            ),
            os,
            path: path.to_owned(),
            folder,
            syncing_names: Mutex::default(),
            syncing_all: Mutex::default(),
            moving: Mutex::default(),
            executor,
            flush: FlushQueue::default(),
            writeback: Writeback::default(),
            deletes: DeleteQueue::default(),
            moves: MoveQueue::default(),
            strays: Strays::default(),
            keeper: RwLock::default(),
            stats: Stats::default(),
            pace: Pace::new(options.pacing),
            file: Mutex::new(file),
            directory_id,
            partitions: RwLock::default(),
            unusable: RwLock::default(),
            damaged: Mutex::default(),
            cut_off: Mutex::default(),
            reopening: Mutex::default(),
            keeping: Mutex::default(),
            seals: Mutex::default(),
            grown: Mutex::default(),
            notes: Mutex::default(),
            uncheckpointed_bytes: AtomicU64::new(0),
            has_new: AtomicBool::new(false),
            checkpoint: Mutex::default(),
            dirty_bytes: AtomicU64::new(0),
            stalled: Mutex::default(),
            space: FreeSpace::new(),
            missing_bytes: AtomicU64::new(0),
            none_taken_said: AtomicBool::new(false),
            room_again: watch::Sender::new(()),
            slow_sync_said: Seldom::new(Duration::from_secs(60)),
            step_back_said: Seldom::new(Duration::from_secs(60)),
            ahead: Mutex::default(),
            broker_epoch: Mutex::default(),
            in_order: AtomicBool::new(false),
            same_boot: AtomicBool::new(false),
            noted: Mutex::default(),
            failed: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            lock: ArcSwapOption::from_pointee(Held { _lock: lock, free: watch::Sender::new(()) }),
            options,
        });
        // From here on an error stops it.
        let opened = Opened(dir);
        let dir = &opened.0;
        let mut report = dir.recover()?;
        dir.look_at_space();
        flusher::start(dir);
        writeback::start(dir);
        deleter::start(dir);
        keeper::start(dir);
        pace::start(dir);
        report.duration = started.elapsed();
        report.created = created;
        Ok((Self(Arc::new(opened)), report))
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
    ///
    /// # Errors
    /// [`Error::Foreign`] if it is somebody else's; [`Error::Io`] for want of space or of a descriptor, [`Error::Failed`]
    /// otherwise.
    pub fn bind_identity(&self, identity: &DirIdentity) -> Result<(), Error> {
        let _held = self.core().hold().ok_or(Error::Closed)?;
        let path = self.core().path.join(DIR_JSON);
        let mut file = self.core().file.lock();
        match &file.identity {
            Some(found) if found == identity => Ok(()),
            Some(found) => Err(dirfile::foreign(path, found, identity)),
            None => {
                let bound = DirFile { identity: Some(identity.clone()), ..file.clone() };
                let written = dirfile::write_json(&*self.core().handles.disk, &path, &bound);
                self.core().or_fatal(written)?;
                *file = bound;
                Ok(())
            }
        }
    }

    /// Notes durably who uses the directory from now on: after registration, before the first append (rules 8, 9).
    /// Blocking.
    ///
    /// # Errors
    /// [`Error::Io`] for want of space or of a descriptor, [`Error::Failed`] otherwise; [`Error::Closed`] after a stop.
    pub fn write_broker_epoch(&self, broker_epoch: i64) -> Result<(), Error> {
        let _held = self.core().hold().ok_or(Error::Closed)?;
        let epoch = BrokerEpoch { broker_epoch, boot_id: self.core().os.boot_id() };
        let path = self.core().path.join(BROKER_EPOCH);
        self.core().or_fatal(dirfile::write_json(&*self.core().handles.disk, &path, &epoch))?;
        *self.core().broker_epoch.lock() = Some(epoch);
        self.core().in_order.store(true, Ordering::Release);
        // What was lost with a failure, and that there was one, the controller has been told; but for what could not be
        // looked at. Of one since this was opened it has not: that note stays.
        if !self.core().failed() && self.unusable().iter().all(|unusable| unusable.is_damaged) {
            let noted = std::mem::take(&mut *self.core().noted.lock());
            self.core().or_fatal(failed::forget(&*self.core().handles.disk, &self.core().path, &noted))?;
        }
        Ok(())
    }

    /// Notes durably which version of the metadata, written by whom, is acted upon from now on: before anything is made, led or set
    /// aside because of it, so that nothing older is believed after a restart (rule 33). For want of space
    /// or of a descriptor it fails and changes nothing; any other error ends the process. Blocking.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Failed`].
    pub fn write_metadata_version(&self, metadata_version: i64, author: u64) -> Result<(), Error> {
        let dir = self.core();
        let _held = dir.hold().ok_or(Error::Closed)?;
        let path = dir.path.join(METADATA_VERSION);
        let author = if dir.has(Mutant::AuthorForgotten) { 0 } else { author };
        let version = MetadataVersion { metadata_version, author };
        dir.or_fatal(dirfile::write_json(&*dir.handles.disk, &path, &version))
    }

    /// Size and free space of the file system.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn space(&self) -> Result<Space, Error> {
        self.core().handles.disk.space(&self.core().path).map_err(Error::io(&*self.core().path, "statvfs"))
    }

    /// How much more would have to be free for the appends that were refused last for want of space, in bytes; 0: none is.
    /// Looked at once a second.
    pub fn missing_bytes(&self) -> u64 {
        self.core().missing_bytes()
    }

    /// Told whenever there is room again on a disk that was full: what else could not be done for want of it may be tried
    /// again.
    pub fn room_again(&self) -> watch::Receiver<()> {
        self.core().room_again.subscribe()
    }

    /// Whether the disk is slow, and has been for a time: others had better do what they can (correctness rule 41).
    pub fn is_slow(&self) -> bool {
        self.core().pace.is_slow()
    }

    /// What it counts.
    pub fn stats(&self) -> &Stats {
        self.core().stats.open_files.set(self.core().handles.count() as u64);
        self.core().stats.mapped_sidecars.set(self.core().handles.map_count() as u64);
        self.core().stats.strays.set(self.core().strays.count() as u64);
        self.core().stats.missing_bytes.set(self.core().missing_bytes());
        self.core().stats.dirty_bytes.set(self.core().dirty_bytes.load(Ordering::Relaxed));
        &self.core().stats
    }

    /// Writes a checkpoint now. Blocking.
    ///
    /// # Errors
    /// [`Error::Io`] for want of space or of a descriptor: then the last one still holds. [`Error::Failed`] otherwise.
    pub fn checkpoint(&self) -> Result<(), Error> {
        self.core().write_checkpoint()
    }

    /// Stops in order: closes every partition, syncs everything, and says at the very end that it was left in order.
    /// When this returns nothing of this process is at work in the directory any more, and its lock is free.
    ///
    /// A start that came to nothing may end so, too: without [`LogDir::write_broker_epoch`] a directory that something
    /// may have been lost from is not called in order, so that the next start can prove no more than this one.
    ///
    /// # Errors
    /// The first that a partition or the directory met: then it is not called in order, and the next start looks.
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
        let free = dir.lock.load().as_ref().map(|held| held.free.subscribe());
        let left = blocking(&self.core().os, move || {
            let left = result.and_then(|()| dir.leave());
            dir.stop();
            left
        })
        .await;
        if let Some(mut free) = free {
            // Nothing is ever sent: it ends with the last one who is at work.
            let _ = free.changed().await;
        }
        left
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

    pub(crate) fn failed(&self) -> bool {
        self.failed.load(Ordering::Acquire)
    }

    pub(crate) fn stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    pub(crate) fn is_same_boot(&self) -> bool {
        self.same_boot.load(Ordering::Acquire)
    }

    /// Whoever is at work in the directory holds it meanwhile. `None`: it was given up, and may be somebody else's.
    pub(crate) fn hold(&self) -> Option<Arc<Held>> {
        self.lock.load_full()
    }

    /// The same for a moment, on the hot path.
    pub(crate) fn hold_briefly(&self) -> arc_swap::Guard<Option<Arc<Held>>> {
        self.lock.load()
    }

    /// Everything is closed: the last words.
    fn leave(self: &Arc<Self>) -> Result<(), Error> {
        keeper::seal_pending(self);
        self.write_checkpoint()?;
        self.sync_all()?;
        if !self.in_order.load(Ordering::Acquire) {
            tracing::warn!("the directory is not marked clean: what its last user lost, nobody was told yet");
            return Ok(());
        }
        let unregistered = BrokerEpoch { broker_epoch: -1, boot_id: self.os.boot_id() };
        let epoch = self.broker_epoch.lock().clone().unwrap_or(unregistered);
        dirfile::write_json(&*self.handles.disk, &self.path.join(CLEAN), &epoch)
    }

    fn stop(&self) {
        {
            // A checkpoint that is being written is written to its end; none comes after.
            let _checkpoint = self.checkpoint.lock();
            if self.stopping.swap(true, Ordering::AcqRel) {
                return;
            }
        }
        self.moves.close();
        self.partitions.write().clear();
        self.lock.store(None);
        // They find that the directory is given up, and end.
        self.flush.wake();
        self.writeback.stop();
        self.deletes.wake();
        if let Some(wake) = &*self.keeper.read() {
            wake();
        }
    }
}
