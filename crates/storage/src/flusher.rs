//! Group commit: while one round of syncs runs, the next group gathers.
//!
//! A round takes every partition that waits. Why what is reported flushed is on the disk: the end of the log is noted
//! before the first of its files is synced, everything before that end was written by then, and it is reported only
//! after every file that was dirty has been synced, the name of a new file included. A sync that fails ends the
//! process; it is never tried again (correctness rule 35). One that could not be begun, because there was no descriptor
//! left, is: until then nothing is reported.

use std::collections::VecDeque;
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use tokio::time::Instant;
use weir_io::File;
use weir_runtime::Step;

use crate::claim;
use crate::config::Mutant;
use crate::core::Core;
use crate::dir::DirCore;
use crate::error::Error;
use crate::segment::{Segment, Synced};

/// How long an idle loop sleeps; waking ends it at once.
pub(crate) const IDLE: Duration = Duration::from_secs(3600);

pub(crate) type Waker = Arc<dyn Fn() + Send + Sync>;

/// How a round makes what waits durable. One way today, each file by itself; a journal would be another.
trait Commit: Send {
    /// Begins a round. Each partition is reported by itself as soon as it is durable; `true` if the round is over
    /// when this returns.
    fn round(&mut self, dir: &Arc<DirCore>, group: Vec<Arc<Core>>) -> bool;

    /// Whether the round that was begun is over.
    fn is_over(&self) -> bool;
}

/// What waits for a sync.
#[derive(Default)]
pub(crate) struct FlushQueue {
    waiting: Mutex<Vec<Arc<Core>>>,
    /// Those that could not be synced for want of a descriptor.
    later: Mutex<Vec<Arc<Core>>>,
    waker: RwLock<Option<Waker>>,
}

impl FlushQueue {
    /// Asks for a sync of what is written to a partition by now.
    pub(crate) fn request(&self, core: &Arc<Core>) {
        if !core.flush_queued.swap(true, Ordering::AcqRel) {
            self.waiting.lock().push(Arc::clone(core));
            self.wake();
        }
    }

    /// It was asked for and could not be begun: it waits for the keeper's next turn, whoever asks meanwhile.
    fn put_off(&self, core: &Arc<Core>) {
        if !core.flush_queued.swap(true, Ordering::AcqRel) {
            self.later.lock().push(Arc::clone(core));
        }
    }

    /// There may be descriptors again.
    pub(crate) fn request_put_off(&self) {
        let later = std::mem::take(&mut *self.later.lock());
        if !later.is_empty() {
            self.waiting.lock().extend(later);
            self.wake();
        }
    }

    fn take(&self) -> Vec<Arc<Core>> {
        std::mem::take(&mut *self.waiting.lock())
    }

    pub(crate) fn wake(&self) {
        if let Some(waker) = &*self.waker.read() {
            waker();
        }
    }
}

/// Starts the flusher and its helpers.
pub(crate) fn start(dir: &Arc<DirCore>) {
    let shared = Arc::new(Direct { work: Mutex::default(), left: AtomicUsize::new(0) });
    let helpers = (1..dir.options.flush_threads.max(1)).map(|n| start_helper(dir, &shared, n)).collect();
    let mut commit: Box<dyn Commit> = Box::new(DirectCommit { shared, helpers });
    let of = Arc::clone(dir);
    let waker = dir.os.spawn_loop(
        "flush",
        Box::new(move || {
            let Some(_held) = of.hold() else { return Step::Done };
            if !commit.is_over() {
                return Step::Wait(IDLE);
            }
            let group = of.flush.take();
            if group.is_empty() {
                return Step::Wait(IDLE);
            }
            of.stats.flush_files.record(group.len() as u64);
            if commit.round(&of, group) { Step::Again } else { Step::Wait(IDLE) }
        }),
    );
    *dir.flush.waker.write() = Some(waker);
    dir.flush.wake();
}

/// Each file by itself, several at a time.
struct DirectCommit {
    shared: Arc<Direct>,
    helpers: Vec<Waker>,
}

/// What a round still has to do.
struct Direct {
    work: Mutex<VecDeque<Arc<Core>>>,
    left: AtomicUsize,
}

impl Commit for DirectCommit {
    fn round(&mut self, dir: &Arc<DirCore>, group: Vec<Arc<Core>>) -> bool {
        self.shared.left.store(group.len(), Ordering::Release);
        let help = self.helpers.iter().take(group.len() - 1);
        self.shared.work.lock().extend(group);
        help.for_each(|wake| wake());
        while self.shared.one(dir) {}
        self.is_over()
    }

    fn is_over(&self) -> bool {
        self.shared.left.load(Ordering::Acquire) == 0
    }
}

impl Drop for DirectCommit {
    /// The flusher has ended: its helpers are to notice.
    fn drop(&mut self) {
        self.helpers.iter().for_each(|wake| wake());
    }
}

impl Direct {
    /// Takes care of one partition. Whether there was one.
    fn one(&self, dir: &Arc<DirCore>) -> bool {
        let next = self.work.lock().pop_front();
        let Some(core) = next else { return false };
        // Before the end is noted: whoever writes after that asks again.
        core.flush_queued.store(false, Ordering::Release);
        flush(dir, &core);
        self.left.fetch_sub(1, Ordering::AcqRel);
        true
    }
}

fn start_helper(dir: &Arc<DirCore>, shared: &Arc<Direct>, n: usize) -> Waker {
    let (of, shared) = (Arc::clone(dir), Arc::clone(shared));
    dir.os.spawn_loop(
        &format!("flush-{n}"),
        Box::new(move || {
            let Some(_held) = of.hold() else { return Step::Done };
            if !shared.one(&of) {
                return Step::Wait(IDLE);
            }
            if shared.left.load(Ordering::Acquire) == 0 {
                of.flush.wake();
            }
            Step::Again
        }),
    )
}

/// Makes what is written to a partition durable, and tells its owner.
pub(crate) fn flush(dir: &Arc<DirCore>, core: &Arc<Core>) {
    let tail = *core.tail.lock();
    match sync_segments(dir, core) {
        Ok(()) => claim::flushed(core, tail),
        Err(error) if error.passes() => dir.flush.put_off(core),
        Err(_) => {}
    }
    dir.tell_room();
}

/// Syncs every file of a partition that has unsynced writes. An error that passes is want of a descriptor, and nothing
/// was tried; with any other the process ends.
pub(crate) fn sync_segments(dir: &DirCore, core: &Core) -> Result<(), Error> {
    core.dirty_segments().iter().try_for_each(|segment| sync_segment(dir, core, segment))
}

fn sync_segment(dir: &DirCore, core: &Core, segment: &Arc<Segment>) -> Result<(), Error> {
    let _pin = segment.pin();
    let _turn = segment.syncing.lock();
    if dir.failed() {
        return Err(Error::Failed);
    }
    if segment.is_unsynced() {
        sync_bytes(dir, segment)?;
    }
    if !segment.is_named() {
        let folder = match dir.handles.open_dir(&core.path) {
            Ok(folder) => folder,
            // Deleted or set aside in the meantime.
            Err(error) if error.kind() == io::ErrorKind::NotFound && core.is_closed() => return Ok(()),
            Err(error) => return Err(dir.passing_or_fatal(&core.path, "open for a sync", error)),
        };
        dir.sync_names(&core.path, &*folder)?;
        segment.set_named();
    }
    Ok(())
}

fn sync_bytes(dir: &DirCore, segment: &Arc<Segment>) -> Result<(), Error> {
    let cuts = segment.synced().cuts;
    let now = Synced { cuts, bytes: segment.written() };
    let file = match segment.open(&dir.handles) {
        Ok(file) => file,
        // Deleted by retention or with its partition in the meantime.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(dir.passing_or_fatal(&segment.path, "open for a sync", error)),
    };
    let unsynced = now.bytes.saturating_sub(segment.synced().bytes);
    let started = Instant::now();
    let sync = dir.pace.begin(started, unsynced);
    let synced = sync_file(dir, segment, &*file);
    let took = dir.os.took(started);
    dir.pace.end(sync, synced.is_ok().then_some(took));
    synced?;
    let news = segment.raise_synced(now);
    dir.synced(news);
    dir.stats.flushes.add(1);
    dir.stats.flushed_bytes.add(news);
    dir.stats.flush_us.record(u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
    if took >= dir.options.slow_sync {
        dir.synced_slowly(took);
    }
    Ok(())
}

fn sync_file(dir: &DirCore, segment: &Segment, file: &dyn File) -> Result<(), Error> {
    if dir.has(Mutant::SkipSync) {
        return Ok(());
    }
    let mut result = file.sync_data();
    if result.is_err() && dir.has(Mutant::RetryFsync) {
        result = file.sync_data();
    }
    result.map_err(|error| {
        dir.fatal(&segment.path, "fdatasync", &error);
        Error::Failed
    })
}

/// Hands the next slice of what is unsynced in a partition to the disk: nothing is durable by that. `false`: there is
/// less than a slice left, or the process is ending.
pub(crate) fn write_slice(dir: &DirCore, core: &Core) -> bool {
    let slice = dir.options.writeback_bytes.max(1);
    let next = core.dirty_segments().into_iter().find_map(|segment| Some((segment.unsent(slice)?, segment)));
    next.is_some_and(|(range, segment)| start_writeback(dir, &segment, range))
}

fn start_writeback(dir: &DirCore, segment: &Arc<Segment>, range: Range<u64>) -> bool {
    let _pin = segment.pin();
    // As for a sync: nobody says whether an error that is reported here is reported there, too.
    let _turn = segment.syncing.lock();
    if dir.failed() {
        return false;
    }
    // Without a handle it is left to the sync, which knows what to do then.
    let Ok(file) = segment.open(&dir.handles) else { return false };
    if let Err(error) = file.start_writeback(range.start, range.end - range.start) {
        dir.fatal(&segment.path, "sync_file_range", &error);
        return false;
    }
    segment.set_sent(range.end);
    if dir.has(Mutant::WritebackForSync) {
        let cuts = segment.synced().cuts;
        dir.synced(segment.raise_synced(Synced { cuts, bytes: range.end }));
    }
    true
}

/// Syncs a segment that was just cut, which is so even if nothing in it is unsynced.
pub(crate) fn sync_cut(dir: &DirCore, segment: &Segment, file: &dyn File) -> Result<(), Error> {
    let _turn = segment.syncing.lock();
    if dir.failed() {
        return Err(Error::Failed);
    }
    sync_file(dir, segment, file)
}
