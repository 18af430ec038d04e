//! What was judged goes to the file, and what is in the file is told: the group, the ends, the next segment. Hot path.

use std::io;
use std::sync::Arc;

use weir_io::{Access, File};

use super::{Owed, Owner};
use crate::admission::NotLeading;
use crate::append::AppendError;
use crate::checkpoint::RecoveryPoint;
use crate::config::Mutant;
use crate::core::{Core, Tail};
use crate::ends::Ends;
use crate::flusher;
use crate::index::LiveIndex;
use crate::keeper::SealJob;
use crate::segment::{Facts, Index, Segment};
use crate::waits::Waits;

/// Blocks are reserved ahead in steps between these: of so many times what a segment holds, or of the log's share
/// ([`DirCore::share_ahead`](crate::dir::DirCore::share_ahead)) if that is more. Few steps and early: ext4 keeps four
/// extents in the inode, and a sync behind an append splits one and joins it again. A file of more has them in a block
/// of its own, which is written with each such sync, or even made and freed (and discarded) by it.
const ALLOCATE_MIN_BYTES: u64 = 256 << 10;
/// A log whose share is so large reserves it with its first byte: what a small log is written to without, ext4 puts
/// wherever there is a little room, piece by piece.
const ALLOCATE_AT_ONCE_BYTES: u64 = 1 << 20;
const ALLOCATE_MAX_BYTES: u64 = 64 << 20;
const ALLOCATE_TIMES: u64 = 4;

impl Owner {
    /// Writes the group and owes its answers, or takes all of it back.
    pub(super) fn write_group(&mut self, core: &Arc<Core>) {
        if !self.group.frames.is_empty() {
            self.group.headers.clear();
            let seed = core.seed;
            self.group.headers.extend(self.group.frames.iter().map(|header| header.encode(seed)));
            // Until it is known that there is something unsynced in it.
            let _pin = self.active.pin();
            let written = self.write_out(core);
            core.dir.space.end(std::mem::take(&mut self.group.taken_bytes));
            match written {
                Ok(()) => self.written(core),
                Err(error) => self.take_back(core, error),
            }
            self.group.frames.clear();
            self.group.payloads.clear();
            self.group.bytes = 0;
        }
        let mut owed = std::mem::take(&mut self.group.owed);
        for owed in owed.drain(..) {
            match owed {
                Owed::Now(reply, error) => reply.give(Err(error)),
                Owed::Written(wait) => self.done(wait),
                Owed::Flushed(wait) => self.waits.flushed(wait),
                Owed::Committed(wait) => self.waits.committed(wait),
                Owed::Replicated(reply, result) => reply.give(result.map(|()| self.ends)),
            }
        }
        self.group.owed = owed;
    }

    /// One vectored write, as many calls as the system needs for it.
    fn write_out(&mut self, core: &Arc<Core>) -> io::Result<()> {
        let file = self.active.open(&core.dir.handles)?;
        self.allocate(core, &*file);
        let mut slices = Vec::with_capacity(2 * self.group.frames.len());
        for (header, payload) in self.group.headers.iter().zip(&self.group.payloads) {
            slices.push(io::IoSlice::new(header));
            if !payload.is_empty() {
                slices.push(io::IoSlice::new(payload));
            }
        }
        let mut rest = slices.as_mut_slice();
        let mut position = self.position;
        while !rest.is_empty() {
            match file.write_at(rest, position) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => {
                    position += n as u64;
                    io::IoSlice::advance_slices(&mut rest, n);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Reserves blocks ahead, in steps that grow with the segment.
    fn allocate(&mut self, core: &Core, file: &dyn File) {
        let until = self.position + self.group.bytes;
        if until <= self.allocated {
            return;
        }
        let is_small = until <= core.dir.options.preallocate_from_bytes;
        // Looked at with the first byte, and not again with each append to a small log.
        if is_small && self.position > 0 {
            return;
        }
        let share = core.dir.share_ahead();
        if is_small && share < ALLOCATE_AT_ONCE_BYTES {
            return;
        }
        let grown = (ALLOCATE_TIMES * until).next_power_of_two();
        let step = grown.max(share).clamp(ALLOCATE_MIN_BYTES, ALLOCATE_MAX_BYTES);
        let target = (until + step).min(self.config.segment_bytes()).max(until);
        let from = self.position.max(self.allocated);
        // What the group needs of it is taken.
        if core.dir.allocate(core.id, file, from..target, target - until) {
            self.allocated = target;
        }
    }

    /// Gives back what is reserved beyond the end; that it fails costs space, nothing else.
    pub(super) fn give_back(&mut self, core: &Core) {
        if self.closed {
            return;
        }
        let _pin = self.active.pin();
        match self.active.open(&core.dir.handles) {
            Ok(file) => {
                let _ = file.trim();
                self.allocated = self.position;
            }
            Err(_) => core.dir.may_be_ahead(core.id),
        }
    }

    /// The group is in the page cache.
    fn written(&mut self, core: &Arc<Core>) {
        {
            let mut index = self.active.index.write();
            if let Index::Live(index) = &mut *index {
                let mut position = self.position;
                for header in &self.group.frames {
                    index.note(header, position as u32);
                    position += header.frame_bytes();
                }
            }
        }
        // A frame that goes back begins a segment, and so a group.
        let before_ms = self.group.before.last_append_ms;
        if let Some(first) = self.group.frames.first().filter(|first| first.append_time_ms < before_ms) {
            core.dir.time_went_back(core, before_ms - first.append_time_ms);
        }
        if self.last_epoch != self.group.before.last_epoch {
            let mut epochs = core.epochs.write();
            for header in &self.group.frames {
                epochs.note(header.leader_epoch, header.base_offset);
            }
        }
        self.producers.keep();
        let end = self.position + self.group.bytes;
        core.dir.will_be_dirty(self.group.bytes);
        self.position = end;
        self.active.set_written(self.position);
        self.ends.log_end = self.next;
        *core.tail.lock() = self.tail();
        self.publish();
        let stats = &core.dir.stats;
        stats.appends.add(self.group.frames.len() as u64);
        stats.append_bytes.add(self.group.bytes);
        stats.append_groups.add(1);
        stats.group_appends.record(self.group.frames.len() as u64);
        core.dir.wrote(core, self.config.durability);
        if self.position.saturating_sub(self.noted) >= core.dir.options.note_every_bytes {
            core.dir.has_grown(core);
        }
    }

    pub(crate) fn tail(&self) -> Tail {
        let point =
            RecoveryPoint { offset: self.ends.log_end, segment: self.active.base, position: self.position };
        Tail { cuts: self.cuts, point }
    }

    /// The write failed: what was judged since the group began never was, or the process ends.
    fn take_back(&mut self, core: &Arc<Core>, error: io::Error) {
        let refusal = core.dir.refusal_or_fatal(&self.active.path, "write", error);
        if !matches!(refusal, AppendError::NoHandles) {
            self.cut_back(core);
        }
        if core.dir.failed() {
            // Dropped unanswered: each says by itself that it may have been applied.
            self.group.owed.clear();
            return;
        }
        self.allocated = self.position;
        self.producers.undo();
        let before = self.group.before;
        self.next = before.next;
        self.last_epoch = before.last_epoch;
        self.last_append_ms = before.last_append_ms;
        core.dir.stats.disk_full.add(self.group.owed.len() as u64);
        for owed in self.group.owed.drain(..) {
            match owed {
                Owed::Now(reply, _) => reply.give(Err(refusal.clone())),
                Owed::Replicated(reply, _) => reply.give(Err(refusal.clone().into())),
                // It was judged by what is in the log: the repetition of a batch that is there, above all.
                Owed::Committed(wait) if wait.end <= before.next => self.waits.committed(wait),
                Owed::Written(wait) | Owed::Flushed(wait) | Owed::Committed(wait) => {
                    wait.refuse(refusal.clone())
                }
            }
        }
    }

    /// What was written of a group that is refused goes, for good: otherwise a power loss could bring whole batches back
    /// that somebody was told are not applied. Seldom enough to wait for the disk here: what there is room for is known
    /// beforehand, unless somebody else fills the disk.
    fn cut_back(&self, core: &Core) {
        let cut = self.active.open(&core.dir.handles).and_then(|file| {
            let is_longer = file.len()? > self.position;
            if is_longer {
                file.set_len(self.position)?;
            }
            Ok(Some(file).filter(|_| is_longer))
        });
        match cut {
            // That it fails it says by itself.
            Ok(Some(file)) => drop(flusher::sync_cut(&core.dir, &self.active, &*file)),
            Ok(None) => {}
            Err(error) => core.dir.fatal(&self.active.path, "cut back a short append", &error),
        }
    }

    /// A sync has made the log durable up to there.
    pub(crate) fn flushed(&mut self, core: &Core, tail: Tail) {
        if tail.cuts == self.cuts && tail.point.offset >= self.ends.flushed_end {
            self.ends.flushed_end = tail.point.offset;
            let before = std::mem::replace(&mut core.durable.lock().recovery_point, tail.point);
            core.dir.recovery_point_moved(tail.point.bytes_since(&before));
        }
    }

    /// Asks how far the log is committed, publishes it, and answers who waited for it.
    pub(crate) fn advance(&mut self, core: &Arc<Core>) {
        if core.dir.failed() {
            // Nothing is acknowledged any more: dropped, each says that it may have been applied.
            self.waits = Waits::default();
            return;
        }
        let mut admission = std::mem::replace(&mut self.admission, Box::new(NotLeading));
        let mut view = self.view(self.last_append_ms);
        if core.dir.has(Mutant::AckBeforeFlush) {
            view.flushed_end = view.log_end;
        }
        let asked = admission.high_watermark(&view);
        self.ends.may_lack = admission.may_lack();
        self.admission = admission;
        self.ends.high_watermark = asked.min(self.ends.log_end).max(self.ends.high_watermark);
        // Without transactions everything committed is stable.
        self.ends.last_stable = self.ends.high_watermark;
        self.publish();
        self.complete();
    }

    /// Publishes the ends. Who watches is woken if readers can see a difference.
    pub(crate) fn publish(&self) {
        let ends = self.ends.checked();
        if let Some(published) = &self.published {
            published.send_if_modified(|old| {
                let visible = |ends: &Ends| {
                    let Ends { log_start, last_stable, high_watermark, epoch_start, may_lack, .. } = *ends;
                    (log_start, last_stable, high_watermark, epoch_start, may_lack)
                };
                let tell = visible(old) != visible(&ends);
                *old = ends;
                tell
            });
        }
    }

    /// Closes the active segment and begins the next one at the log's end. Its name becomes durable with the first
    /// sync of what is in it: nothing in it is reported flushed before.
    pub(crate) fn roll(&mut self, core: &Arc<Core>) -> io::Result<()> {
        let segment =
            Arc::new(Segment::new(&core.path, self.next, 0, false, Index::Live(LiveIndex::new(self.next))));
        let handles = &core.dir.handles;
        let file = handles.retry(|| handles.disk.open(&segment.path, Access::CreateNew))?;
        segment.adopt(handles, file);
        *self.active.facts.lock() = Some(self.facts(core));
        self.active.set_end(Some(self.next));
        let mut segments = Vec::clone(&core.segments.load());
        segments.push(Arc::clone(&segment));
        core.segments.store(Arc::new(segments));
        core.dir.seal_later(SealJob {
            core: Arc::clone(core),
            segment: std::mem::replace(&mut self.active, segment),
        });
        self.position = 0;
        self.allocated = 0;
        self.noted = 0;
        *core.tail.lock() = self.tail();
        core.dir.stats.segments_rolled.add(1);
        Ok(())
    }

    /// What is known at the end of the log. Costs little, however many producers there are.
    pub(crate) fn facts(&self, core: &Core) -> Facts {
        Facts {
            end: self.next,
            epochs: core.epochs.read().clone(),
            producers: self.producers.snapshot(),
            forgot: self.producers.forgot(),
        }
    }
}
