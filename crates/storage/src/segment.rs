//! One file of a log: frames one after the other, from one offset on.
//!
//! A segment is written by its partition's owner, synced by the flusher, and read by anybody; what they share are the
//! atomics here. Its handle is opened when it is needed and closed when too many are open, but never with unsynced
//! writes in it: an error of writing back is reported once, to a descriptor that was open at the time. Once its log is
//! closed for good it is let go of: a file that is deleted gives its space back only when nobody has it open or mapped,
//! and who still knows the log is not asked.

use std::collections::VecDeque;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::{Mutex, RwLock};
use weir_io::{Access, Disk, File, Folder};
use weir_types::Offset;

use crate::epochs::Epochs;
use crate::index::{LiveIndex, Marks};
use crate::producers;
use crate::sidecar::Sidecar;

/// The name of a segment's file of one kind: `log`, `seal`, `tail`.
pub(crate) fn file_name(base: Offset, kind: &str) -> String {
    format!("{base:020}.{kind}")
}

/// The first offset in a segment file's name, and its kind.
pub(crate) fn parse_file_name(name: &str) -> Option<(Offset, &str)> {
    let (digits, kind) = name.split_once('.')?;
    if digits.len() != 20 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    Some((digits.parse().ok()?, kind))
}

#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) base: Offset,
    /// Its `.log`.
    pub(crate) path: PathBuf,
    /// Its length, as far as readers may look.
    written: AtomicU64,
    synced: Mutex<Synced>,
    /// Up to where its pages were handed to the disk, which says nothing of what the disk holds.
    sent: AtomicU64,
    /// Whether its name is durable.
    named: AtomicBool,
    /// The offset after its last frame once nothing is appended any more; `i64::MAX` until then.
    end: AtomicI64,
    pub(crate) index: RwLock<Index>,
    /// What its sidecar says of times, once that was loaded.
    known_times: Mutex<Option<Times>>,
    /// Whether its marks were used since the keeper of maps last looked.
    index_used: AtomicBool,
    /// What its sidecar has to say beside its marks, from the moment it is closed until it is sealed.
    pub(crate) facts: Mutex<Option<Facts>>,
    handle: Mutex<Option<Arc<dyn File>>>,
    /// Its log is closed for good: nothing of it is opened or mapped any more.
    is_let_go: AtomicBool,
    /// Held by whoever syncs it: an error is reported to a descriptor once, so of two at a time only one would hear
    /// of it, and the other would acknowledge what is lost.
    pub(crate) syncing: Mutex<()>,
    /// Writes under way: the handle stays open.
    pins: AtomicU32,
    /// Whether it was used since the keeper of handles last looked.
    used: AtomicBool,
}

/// The largest timestamp and append time, and the append time of the first frame.
pub(crate) type Times = (i64, i64, Option<i64>);

/// What is known at the end of a segment.
#[derive(Clone, Debug)]
pub(crate) struct Facts {
    pub(crate) end: Offset,
    pub(crate) epochs: Epochs,
    pub(crate) producers: producers::Snapshot,
    pub(crate) forgot: bool,
}

/// How much of a segment was synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Synced {
    /// How often it was cut: a sync that began before a cut says nothing after it.
    pub(crate) cuts: u64,
    pub(crate) bytes: u64,
}

/// What is known of where things are.
#[derive(Debug)]
pub(crate) enum Index {
    /// In memory: not sealed yet.
    Live(LiveIndex),
    /// In the sidecar.
    Sealed(Arc<Sidecar>),
    /// In the sidecar, which nobody has asked for yet.
    Unloaded,
}

impl Segment {
    /// A segment that exists, with so much in it; all of it and its name are durable if `synced`.
    pub(crate) fn new(dir: &Path, base: Offset, written: u64, synced: bool, index: Index) -> Self {
        Self {
            base,
            path: dir.join(file_name(base, "log")),
            written: AtomicU64::new(written),
            synced: Mutex::new(Synced { cuts: 0, bytes: if synced { written } else { 0 } }),
            sent: AtomicU64::new(0),
            named: AtomicBool::new(synced),
            end: AtomicI64::new(i64::MAX),
            index: RwLock::new(index),
            known_times: Mutex::new(None),
            index_used: AtomicBool::new(true),
            facts: Mutex::new(None),
            handle: Mutex::new(None),
            is_let_go: AtomicBool::new(false),
            syncing: Mutex::new(()),
            pins: AtomicU32::new(0),
            used: AtomicBool::new(true),
        }
    }

    pub(crate) fn sidecar_path(&self, kind: &str) -> PathBuf {
        self.path.with_extension(kind)
    }

    pub(crate) fn written(&self) -> u64 {
        self.written.load(Ordering::Acquire)
    }

    pub(crate) fn set_written(&self, written: u64) {
        self.written.store(written, Ordering::Release);
    }

    pub(crate) fn synced(&self) -> Synced {
        *self.synced.lock()
    }

    /// So much of it was in a sync that succeeded, as of that many cuts. How much of that is news.
    pub(crate) fn raise_synced(&self, now: Synced) -> u64 {
        let mut synced = self.synced.lock();
        if synced.cuts != now.cuts || synced.bytes >= now.bytes {
            return 0;
        }
        let news = now.bytes - synced.bytes;
        synced.bytes = now.bytes;
        news
    }

    /// It was cut. How much of what went was unsynced.
    pub(crate) fn cut(&self, written: u64) -> u64 {
        let mut synced = self.synced.lock();
        let dropped = self.written().saturating_sub(synced.bytes.max(written));
        self.set_written(written);
        synced.cuts += 1;
        synced.bytes = synced.bytes.min(written);
        self.sent.fetch_min(written, Ordering::AcqRel);
        dropped
    }

    /// It goes away: nobody syncs it any more. How much was unsynced.
    pub(crate) fn give_up(&self) -> u64 {
        let cuts = self.synced().cuts;
        let dropped = self.raise_synced(Synced { cuts, bytes: self.written() });
        self.set_named();
        dropped
    }

    /// The first slice that is unsynced and was not handed to the disk yet. Slices end at multiples of their size, so
    /// that a page is not sent twice.
    pub(crate) fn unsent(&self, slice: u64) -> Option<Range<u64>> {
        let start = self.sent.load(Ordering::Acquire).max(self.synced().bytes);
        let end = (start / slice + 1) * slice;
        (end <= self.written()).then_some(start..end)
    }

    /// It was handed to the disk up to there.
    pub(crate) fn set_sent(&self, sent: u64) {
        self.sent.store(sent, Ordering::Release);
    }

    /// Whether there are bytes in it that no sync has covered.
    pub(crate) fn is_unsynced(&self) -> bool {
        self.synced().bytes < self.written()
    }

    /// Whether a sync has something to do: bytes, or its name.
    pub(crate) fn is_dirty(&self) -> bool {
        self.is_unsynced() || !self.is_named()
    }

    pub(crate) fn is_named(&self) -> bool {
        self.named.load(Ordering::Acquire)
    }

    pub(crate) fn set_named(&self) {
        self.named.store(true, Ordering::Release);
    }

    /// The offset after its last frame, if nothing is appended to it any more.
    pub(crate) fn end(&self) -> Option<Offset> {
        Some(self.end.load(Ordering::Acquire)).filter(|end| *end != i64::MAX)
    }

    pub(crate) fn set_end(&self, end: Option<Offset>) {
        self.end.store(end.unwrap_or(i64::MAX), Ordering::Release);
    }

    /// The handle, if it is open.
    pub(crate) fn opened(&self) -> Option<Arc<dyn File>> {
        self.used.store(true, Ordering::Relaxed);
        self.handle.lock().clone()
    }

    /// The handle; opens the file if it is not open, which may wait for the disk. Of a log that is closed for good there
    /// is none.
    pub(crate) fn open(self: &Arc<Self>, handles: &Handles) -> io::Result<Arc<dyn File>> {
        if let Some(file) = self.opened() {
            return Ok(file);
        }
        if self.is_let_go() {
            return Err(io::ErrorKind::NotFound.into());
        }
        let file = handles.retry(|| handles.disk.open(&self.path, Access::Write))?;
        Ok(self.adopt(handles, file))
    }

    /// Takes a handle that was just opened, unless somebody was faster, or the log was closed for good: then whoever has
    /// opened it has it alone.
    pub(crate) fn adopt(self: &Arc<Self>, handles: &Handles, file: Arc<dyn File>) -> Arc<dyn File> {
        {
            let mut handle = self.handle.lock();
            if let Some(first) = &*handle {
                return Arc::clone(first);
            }
            if self.is_let_go() {
                return file;
            }
            *handle = Some(Arc::clone(&file));
        }
        handles.opened(self);
        file
    }

    /// Its log is closed for good: lets go of the handle and of the sidecar, for ever. Whoever is at work with one of them
    /// has it for that long: nothing is unmapped under a reader, and none is waited for but for a look at the marks.
    pub(crate) fn let_go(&self) {
        // First: whoever comes later with one sees it under the same lock that it is taken away under.
        self.is_let_go.store(true, Ordering::Release);
        let file = self.handle.lock().take();
        drop(file);
        self.unload();
    }

    pub(crate) fn is_let_go(&self) -> bool {
        self.is_let_go.load(Ordering::Acquire)
    }

    /// Keeps the handle open until the guard is dropped.
    pub(crate) fn pin(self: &Arc<Self>) -> Pin {
        self.pins.fetch_add(1, Ordering::AcqRel);
        Pin(Arc::clone(self))
    }

    /// Closes the handle if that is harmless. Whether it is closed.
    fn close(&self, dirty_too: bool) -> bool {
        let mut handle = self.handle.lock();
        let in_use = self.pins.load(Ordering::Acquire) > 0 || self.is_unsynced();
        if in_use && !dirty_too {
            return false;
        }
        *handle = None;
        true
    }

    /// Looks something up in the marks. `None`: the sidecar has to be loaded first.
    pub(crate) fn with_marks<T>(&self, look: impl FnOnce(&dyn MarksDyn) -> T) -> Option<T> {
        match &*self.index.read() {
            Index::Live(index) => Some(look(index)),
            Index::Sealed(sidecar) => {
                self.index_used.store(true, Ordering::Relaxed);
                Some(look(&**sidecar))
            }
            Index::Unloaded => None,
        }
    }

    /// Its marks are in this sidecar from now on, unless its log was closed for good. Others may have to go.
    pub(crate) fn set_sealed(self: &Arc<Self>, handles: &Handles, sidecar: Sidecar) {
        let summary = &sidecar.summary;
        let times = (summary.max_timestamp_ms, summary.max_append_time_ms, summary.first_append_time_ms);
        *self.known_times.lock() = Some(times);
        {
            let mut index = self.index.write();
            if self.is_let_go() {
                return;
            }
            *index = Index::Sealed(Arc::new(sidecar));
        }
        handles.mapped(self);
    }

    /// Lets go of the sidecar, which is loaded again when somebody asks for it.
    fn unload(&self) {
        let mut index = self.index.write();
        if matches!(&*index, Index::Sealed(_)) {
            *index = Index::Unloaded;
        }
    }

    /// The largest timestamp and append time in it, and the append time of its first frame. `None` as above.
    pub(crate) fn times(&self) -> Option<Times> {
        match &*self.index.read() {
            Index::Live(index) => {
                Some((index.max_timestamp_ms, index.max_append_time_ms, index.first_append_time_ms))
            }
            Index::Sealed(_) | Index::Unloaded => *self.known_times.lock(),
        }
    }
}

/// Whether the system or the process has no more descriptors (EMFILE, ENFILE): nothing is wrong with the disk.
pub(crate) fn is_no_handle(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(EMFILE | ENFILE))
}

const EMFILE: i32 = 24;
const ENFILE: i32 = 23;

/// [`Marks`] behind a pointer.
pub(crate) trait MarksDyn {
    fn position_of(&self, delta: u32) -> u32;
    fn position_of_timestamp(&self, timestamp_ms: i64) -> u32;
    fn boundary(&self, from: u64, until: u64, written: u64) -> u64;
}

impl<M: Marks> MarksDyn for M {
    fn position_of(&self, delta: u32) -> u32 {
        Marks::position_of(self, delta)
    }
    fn position_of_timestamp(&self, timestamp_ms: i64) -> u32 {
        Marks::position_of_timestamp(self, timestamp_ms)
    }
    fn boundary(&self, from: u64, until: u64, written: u64) -> u64 {
        Marks::boundary(self, from, until, written)
    }
}

/// A write under way.
pub(crate) struct Pin(Arc<Segment>);

impl Drop for Pin {
    fn drop(&mut self) {
        self.0.pins.fetch_sub(1, Ordering::AcqRel);
    }
}

/// So many are looked at for each that comes: more than one, so that after a time when none could let go there are soon
/// no more than are allowed.
const LOOKS_MAX: usize = 16;

/// Segments with something of which there may be only so much, about the longest unused first.
struct Limited {
    having: Mutex<VecDeque<Weak<Segment>>>,
    max: usize,
}

impl Limited {
    fn new(max: usize) -> Self {
        Self { having: Mutex::default(), max: max.max(1) }
    }

    /// One more has it: others may have to let go, and say whether they did.
    fn add(&self, segment: &Arc<Segment>, mut let_go: impl FnMut(&Segment) -> bool) {
        let mut having = self.having.lock();
        having.push_back(Arc::downgrade(segment));
        // However many are busy, which a class that is synced late makes most of them: the others come round.
        let mut looks = LOOKS_MAX;
        while having.len() > self.max && looks > 0 {
            looks -= 1;
            let Some(oldest) = having.pop_front() else { return };
            let Some(held) = oldest.upgrade() else { continue };
            if Arc::ptr_eq(&held, segment) || !let_go(&held) {
                having.push_back(oldest);
            }
        }
    }

    fn count(&self) -> usize {
        self.having.lock().len()
    }
}

/// What the segments of a directory keep open and mapped.
pub(crate) struct Handles {
    pub(crate) disk: Arc<dyn Disk>,
    open: Limited,
    /// Mapped sidecars: a process may have only so many maps.
    maps: Limited,
    /// A planted bug: what is unsynced is closed too.
    evict_dirty: bool,
}

impl Handles {
    pub(crate) fn new(disk: Arc<dyn Disk>, (open_max, maps_max): (usize, usize), evict_dirty: bool) -> Self {
        Self { disk, open: Limited::new(open_max), maps: Limited::new(maps_max), evict_dirty }
    }

    /// One more is open.
    fn opened(&self, segment: &Arc<Segment>) {
        self.open.add(segment, |held| {
            let spared = held.used.swap(false, Ordering::Relaxed) && !self.evict_dirty;
            !spared && held.close(self.evict_dirty)
        });
    }

    /// One more sidecar is mapped.
    fn mapped(&self, segment: &Arc<Segment>) {
        self.maps.add(segment, |held| {
            let spared = held.index_used.swap(false, Ordering::Relaxed);
            if !spared {
                held.unload();
            }
            !spared
        });
    }

    /// How many sidecars are mapped.
    pub(crate) fn map_count(&self) -> usize {
        self.maps.count()
    }

    /// Makes a call that takes a descriptor. If there is none, all that are idle are closed, and it is made once more.
    pub(crate) fn retry<T>(&self, call: impl Fn() -> io::Result<T>) -> io::Result<T> {
        match call() {
            Err(error) if is_no_handle(&error) => {
                self.close_idle();
                call()
            }
            answer => answer,
        }
    }

    /// Opens a folder, to make its names durable.
    pub(crate) fn open_dir(&self, folder: &Path) -> io::Result<Arc<dyn Folder>> {
        self.retry(|| self.disk.open_dir(folder))
    }

    /// Closes all that can be closed.
    fn close_idle(&self) {
        let open = std::mem::take(&mut *self.open.having.lock());
        let busy = open.into_iter().filter(|held| held.upgrade().is_some_and(|held| !held.close(false)));
        let busy: Vec<_> = busy.collect();
        self.open.having.lock().extend(busy);
    }

    /// How many are open.
    pub(crate) fn count(&self) -> usize {
        self.open.count()
    }
}

#[cfg(test)]
mod tests {
    use weir_io::MemDisk;
    use weir_types::{Incarnation, PartitionId, TopicId};

    use super::*;
    use crate::frame::Seed;
    use crate::sidecar::{self, Summary};

    #[test]
    fn each_that_comes_asks_few_to_let_go_however_many_cannot() {
        let limited = Limited::new(10);
        let segment = |base| Arc::new(Segment::new(Path::new("/"), base, 100, true, Index::Unloaded));
        let segments: Vec<_> = (0..1000).map(segment).collect();
        for new in &segments {
            let mut asked = 0;
            limited.add(new, |_| {
                asked += 1;
                false
            });
            assert!(asked <= LOOKS_MAX, "{asked}");
        }
        assert_eq!(limited.count(), 1000);
    }

    #[test]
    fn what_is_dirty_stays_open_and_is_closed_soon_after() {
        let disk: Arc<dyn Disk> = Arc::new(MemDisk::new(1));
        let handles = Handles::new(disk, (10, 10), false);
        let open = |base: Offset, synced| {
            let segment = Arc::new(Segment::new(Path::new("/"), base, 100, synced, Index::Unloaded));
            let file = handles.disk.open(&segment.path, Access::CreateOrTruncate).unwrap();
            segment.adopt(&handles, file);
            segment
        };
        let dirty: Vec<_> = (0..1000).map(|base| open(base, false)).collect();
        assert_eq!(handles.count(), 1000, "none of them is closed");
        for segment in &dirty {
            segment.give_up();
        }
        // Each is found used once, and the next time it is closed.
        let clean: Vec<_> = (1000..1200).map(|base| open(base, true)).collect();
        assert_eq!(handles.count(), 10);
        assert!(dirty.iter().all(|segment| segment.opened().is_none()));
        assert_eq!(clean.iter().filter(|segment| segment.opened().is_some()).count(), 10);
    }

    #[test]
    fn whoever_comes_with_a_file_or_a_sidecar_after_all_was_let_go_of_has_it_alone() {
        let disk: Arc<dyn Disk> = Arc::new(MemDisk::new(1));
        let handles = Handles::new(disk, (10, 10), false);
        let segment = Arc::new(Segment::new(Path::new("/"), 0, 100, true, Index::Unloaded));
        let open = || handles.disk.open(&segment.path, Access::CreateOrTruncate).unwrap();
        let sidecar = || {
            let times = (i64::MIN, i64::MIN, None);
            let summary = Summary {
                base: 0,
                end: 1,
                log_bytes: 100,
                incarnation: 1,
                generation: 0,
                max_timestamp_ms: times.0,
                max_append_time_ms: times.1,
                first_append_time_ms: times.2,
                forgot: false,
            };
            let id = PartitionId { topic: TopicId(1), partition: 0 };
            let seed = Seed::of(id, Incarnation(1));
            let bytes = sidecar::encode(&summary, &LiveIndex::new(0), &Epochs::default(), &[], seed);
            Sidecar::held(bytes.into(), seed).unwrap()
        };
        segment.adopt(&handles, open());
        segment.set_sealed(&handles, sidecar());
        assert!(segment.opened().is_some() && segment.with_marks(|_| ()).is_some());
        for _ in 0..2 {
            segment.let_go();
            assert!(segment.opened().is_none() && segment.with_marks(|_| ()).is_none());
            assert_eq!(segment.open(&handles).unwrap_err().kind(), io::ErrorKind::NotFound);
            let late = segment.adopt(&handles, open());
            assert_eq!(Arc::strong_count(&late), 1);
            segment.set_sealed(&handles, sidecar());
        }
        assert!(segment.with_marks(|_| ()).is_none());
    }

    #[test]
    fn file_names_sort_by_offset_and_read_back() {
        assert_eq!(file_name(42, "log"), "00000000000000000042.log");
        assert_eq!(parse_file_name("00000000000000000042.seal"), Some((42, "seal")));
        for other in ["42.log", "00000000000000000042", "0000000000000000004x.log", "checkpoint"] {
            assert_eq!(parse_file_name(other), None, "{other}");
        }
    }
}
