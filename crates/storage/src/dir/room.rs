//! What there is room for: unsynced bytes, free space, descriptors; and what happens when a disk fails.

use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use weir_io::{File, Folder};
use weir_types::{Durability, PartitionId};

use super::DirCore;
use crate::append::AppendError;
use crate::claim::{self, Entry};
use crate::config::{Fatal, Mutant};
use crate::control::Command;
use crate::core::Core;
use crate::error::{Error, is_no_space};
use crate::failed;
use crate::segment::is_no_handle;

/// What the logs of a directory may reserve ahead however little they hold, at most, and as a part of the free space.
const AHEAD_BYTES: u64 = 256 << 20;
const AHEAD_PART: u64 = 64;

/// What is written and not known to be on the disk.
#[derive(Clone, Copy)]
pub(crate) struct Backlog {
    pub(crate) bytes: u64,
    /// Whether it is so much that appends will soon have to wait.
    pub(crate) is_much: bool,
}

impl DirCore {
    /// So much is about to be unsynced. Counted before the flusher can see it, which counts it off.
    pub(crate) fn will_be_dirty(&self, bytes: u64) {
        self.dirty_bytes.fetch_add(bytes, Ordering::AcqRel);
    }

    /// Something was written to a partition: who makes it durable, and when.
    pub(crate) fn wrote(&self, core: &Arc<Core>, durability: Durability) {
        match durability {
            Durability::Fsync => self.flush.request(core),
            Durability::Replicated => self.writeback.wrote(core, self.backlog().is_much),
        }
    }

    pub(crate) fn backlog(&self) -> Backlog {
        let bytes = self.dirty_bytes.load(Ordering::Acquire);
        Backlog { bytes, is_much: bytes > self.options.dirty_budget_bytes / 2 }
    }

    /// So much of it is synced by now, or gone.
    pub(crate) fn synced(&self, bytes: u64) {
        self.dirty_bytes.fetch_sub(bytes, Ordering::AcqRel);
    }

    /// A sync has taken long: who waits for it, waits as long.
    pub(crate) fn synced_slowly(&self, took: Duration) {
        self.stats.slow_flushes.add(1);
        if let Some(others) = self.slow_sync_said.now() {
            let path = self.path.display();
            tracing::warn!(%path, ?took, others, "a sync was slow, and producers wait as long: is the disk busy or ill?");
        }
    }

    /// The append time of a log has gone back: the clock was ahead before, or it is behind now.
    pub(crate) fn time_went_back(&self, core: &Core, by_ms: i64) {
        self.stats.time_steps_back.add(1);
        if let Some(others) = self.step_back_said.now() {
            let name = core.name();
            tracing::warn!(
                name,
                by_ms,
                others,
                "the append time of a log goes back: the clock of its leader was ahead, or this one is behind; ages are \
                 wrong by as much: are all clocks set by the same time?"
            );
        }
    }

    pub(crate) fn has_room(&self) -> bool {
        self.dirty_bytes.load(Ordering::Acquire) < self.options.dirty_budget_bytes
    }

    /// A partition waits until there is room.
    pub(crate) fn wait_for_room(&self, core: &Arc<Core>) {
        self.stats.dirty_waits.add(1);
        if !core.stalled_listed.swap(true, Ordering::AcqRel) {
            self.stalled.lock().push(Arc::clone(core));
        }
        self.writeback.all_due();
        // It may have come just before.
        self.tell_room();
    }

    pub(crate) fn tell_room(&self) {
        if !self.has_room() && !self.failed() {
            return;
        }
        let stalled = std::mem::take(&mut *self.stalled.lock());
        for core in stalled {
            core.stalled_listed.store(false, Ordering::Release);
            claim::post(&core, Entry::Resume);
        }
    }

    pub(crate) fn look_at_space(&self) {
        // A disk that does not say is taken for one that has room: a write will tell.
        let look = || self.handles.disk.space(&self.path).map_or(u64::MAX, |space| space.available_bytes);
        self.space.look(look);
        let available = self.space.available();
        self.stats.available_bytes.set(available);
        if self.is_short_of_space() {
            return self.refused_for_space(1);
        }
        let (path, reserved) = (self.path.display(), self.options.disk_reserved_bytes);
        let missing = self.missing_bytes.load(Ordering::Acquire);
        if missing > 0 && available >= reserved.saturating_add(missing) {
            self.missing_bytes.store(0, Ordering::Release);
            self.none_taken_said.store(false, Ordering::Release);
            tracing::info!(%path, available, reserved, "the disk has room again: appends are taken");
            self.room_again.send_replace(());
        }
    }

    /// There is no room for so much beside what is kept free. Said once, until there is; and once more where there is none
    /// for a byte by then.
    fn refused_for_space(&self, bytes: u64) {
        let is_first = self.missing_bytes.fetch_max(bytes.max(1), Ordering::AcqRel) == 0;
        let (path, available, reserved) =
            (self.path.display(), self.space.available(), self.options.disk_reserved_bytes);
        if self.is_short_of_space() {
            if !self.none_taken_said.swap(true, Ordering::AcqRel) {
                let what = "the disk is full, less is free than disk_reserved_bytes: all appends are refused until there is room";
                tracing::warn!(%path, available, reserved, "{what}");
            }
        } else if is_first {
            let needed = bytes.max(1);
            tracing::warn!(
                %path, available, reserved, needed,
                "the disk is full: appends that need as much as this one are refused until there is room; smaller ones are \
                 taken as long as they leave disk_reserved_bytes free"
            );
        }
    }

    /// How much more would have to be free for the appends that were refused last, in bytes; 0: none is.
    pub(crate) fn missing_bytes(&self) -> u64 {
        match self.missing_bytes.load(Ordering::Acquire) {
            0 => 0,
            refused => {
                let wanted = self.options.disk_reserved_bytes.saturating_add(refused);
                // There may be room since, which nobody has looked at yet.
                wanted.saturating_sub(self.space.available()).max(1)
            }
        }
    }

    /// Whether there is no room for a byte.
    fn is_short_of_space(&self) -> bool {
        self.space.available() < self.options.disk_reserved_bytes
    }

    /// Reserves blocks for a partition, of which it has taken all but `bytes` already: if the disk has so many beside
    /// what is kept free. Only to make its writes cheaper: that it cannot be done shows when they are made. Whether it
    /// was done.
    pub(crate) fn allocate(&self, id: PartitionId, file: &dyn File, blocks: Range<u64>, bytes: u64) -> bool {
        if !self.space.begin(bytes, self.options.disk_reserved_bytes) {
            return false;
        }
        self.ahead.lock().insert(id);
        // Others write to this disk, too.
        self.look_at_space();
        let is_done =
            !self.is_short_of_space() && file.allocate(blocks.start, blocks.end - blocks.start).is_ok();
        self.space.end(bytes);
        if !is_done {
            self.look_at_space();
        }
        is_done
    }

    /// How much a log may reserve ahead, in bytes, however little it holds: an even share of what all may. So a few logs
    /// reserve in large pieces, and ten thousand small ones do not fill the disk (Redpanda's steps go by the number of
    /// partitions and the free space, too).
    pub(crate) fn share_ahead(&self) -> u64 {
        let all = AHEAD_BYTES.min(self.space.available() / AHEAD_PART);
        all / (self.partitions.read().len() as u64).max(1)
    }

    /// A partition of the process before may have blocks reserved ahead.
    pub(crate) fn may_be_ahead(&self, id: PartitionId) {
        self.ahead.lock().insert(id);
    }

    /// When space is short, what is reserved ahead is given back: by the owners, who alone know what they write.
    pub(crate) fn give_back_space(&self) {
        if !self.space.was_wanted() && !self.is_short_of_space() {
            return;
        }
        let ahead = std::mem::take(&mut *self.ahead.lock());
        let cores: Vec<_> = {
            let partitions = self.partitions.read();
            ahead.iter().filter_map(|id| partitions.get(id).cloned()).collect()
        };
        for core in cores {
            claim::post(&core, Entry::Command(Command::GiveBack));
        }
    }

    /// Takes so much of the free space for an append, if what is kept free stays free beside it. Given up or used, it
    /// has to be [ended](FreeSpace::end).
    pub(crate) fn take_space(&self, bytes: u64) -> Result<(), AppendError> {
        let reserved = if self.has(Mutant::NoReserve) { 0 } else { self.options.disk_reserved_bytes };
        if self.space.begin(bytes, reserved) {
            return Ok(());
        }
        self.space.want();
        self.stats.disk_full.add(1);
        self.refused_for_space(bytes);
        Err(self.disk_full())
    }

    /// Without room for a byte nothing is begun; nor what is known to need more than there is.
    pub(crate) fn check_headroom(&self, bytes: u64) -> Result<(), AppendError> {
        let is_enough = self.space.available() >= self.options.disk_reserved_bytes.saturating_add(bytes);
        if is_enough || self.has(Mutant::NoReserve) {
            return Ok(());
        }
        self.stats.disk_full.add(1);
        if bytes > 0 {
            self.space.want();
            self.refused_for_space(bytes);
        }
        Err(self.disk_full())
    }

    pub(crate) fn disk_full(&self) -> AppendError {
        AppendError::DiskFull {
            available_bytes: self.space.available(),
            reserved_bytes: self.options.disk_reserved_bytes,
        }
    }

    /// An error that is only want of space or of a descriptor is said to whoever appends; any other ends the process.
    pub(crate) fn refusal_or_fatal(&self, path: &Path, what: &'static str, error: io::Error) -> AppendError {
        if is_no_handle(&error) {
            return AppendError::NoHandles;
        }
        if !is_no_space(&error) {
            self.fatal(path, what, &error);
            return AppendError::Closed;
        }
        self.look_at_space();
        // The file system keeps something for itself: not before there is more than it says now.
        let seen = self.space.available().saturating_sub(self.options.disk_reserved_bytes);
        self.refused_for_space(seen.saturating_add(1));
        self.disk_full()
    }

    /// The same for what is not an append: an error that passes is said to whoever asked.
    pub(crate) fn passing_or_fatal(&self, path: &Path, what: &'static str, error: io::Error) -> Error {
        if is_no_space(&error) || is_no_handle(&error) {
            return Error::io(path, what)(error);
        }
        self.fatal(path, what, &error);
        Error::Failed
    }

    /// Makes the names in a folder durable. It was opened before anything was changed: an error is never for want of a
    /// descriptor, and ends the process.
    pub(crate) fn sync_names(&self, path: &Path, folder: &dyn Folder) -> Result<(), Error> {
        self.sync_or_fatal(path, "fsync of a folder", || folder.sync())
    }

    /// The same of the directory's own names.
    pub(crate) fn sync_own_names(&self) -> Result<(), Error> {
        let _turn = self.syncing_names.lock();
        self.sync_names(&self.path, &*self.folder)
    }

    /// Everything in the directory is durable.
    pub(super) fn sync_all(&self) -> Result<(), Error> {
        let _turn = self.syncing_all.lock();
        self.sync_or_fatal(&self.path, "syncfs", || self.folder.sync_fs())
    }

    pub(crate) fn sync_or_fatal(
        &self,
        path: &Path,
        what: &'static str,
        sync: impl FnOnce() -> io::Result<()>,
    ) -> Result<(), Error> {
        if self.failed() {
            // It may be what has failed: the second sync would succeed.
            return Err(Error::Failed);
        }
        sync().map_err(|error| {
            self.fatal(path, what, &error);
            Error::Failed
        })
    }

    /// A write or sync has failed: nothing is acknowledged any more, and the process is told to end.
    pub(crate) fn fatal(&self, path: &Path, what: &'static str, error: &io::Error) {
        if !self.failed.swap(true, Ordering::AcqRel) {
            // Positive also where numbers have a sign.
            let failure = (self.os.random_u64() >> 1).max(1);
            let error = error.to_string();
            let fatal = Fatal { path: path.to_owned(), what, error, failure: Some(failure) };
            tracing::error!(%fatal, "a log directory has failed");
            // For the next start. That it cannot be written, or that the process dies before, costs nothing in class
            // fsync; see `Recovery::survives_in_memory`.
            let _ = failed::note(&*self.handles.disk, &self.path, failure);
            self.moves.close();
            (self.options.on_fatal)(&fatal);
        }
    }

    /// Nobody knows what is in memory. What is on the disk is as good as after a kill.
    pub(crate) fn panicked(&self, path: &Path) {
        let (what, error) = ("work on a partition", "it panicked".to_owned());
        (self.options.on_fatal)(&Fatal { path: path.to_owned(), what, error, failure: None });
    }

    /// An error of a write or sync that does not pass ends the process, and is said to whoever asked as well.
    pub(crate) fn or_fatal<T>(&self, done: Result<T, Error>) -> Result<T, Error> {
        done.inspect_err(|error| {
            if !error.passes() {
                self.fatal_error("write", error);
            }
        })
    }

    pub(crate) fn fatal_error(&self, what: &'static str, error: &Error) {
        self.fatal(&self.path, what, &io::Error::other(error.to_string()));
    }
}
