//! The checkpoint's file. It is replaced whole, and blocks are kept for the one that comes next: on a disk without a
//! free block records can still be deleted, which a checkpoint has to say.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use weir_io::{Access, File};
use weir_types::{Incarnation, PartitionId};

use super::DirCore;
use crate::checkpoint::{self, CHECKPOINT_BYTES_MAX, Checkpoint, ENTRY_BYTES, HEADER_BYTES};
use crate::core::Core;
use crate::dirfile::CHECKPOINT;
use crate::error::Error;
use crate::moves::Move;

/// Blocks are reserved in multiples of this, with a quarter to grow.
const RESERVED_STEP_BYTES: u64 = 64 << 10;

/// What was written last, and where the next one goes.
#[derive(Debug, Default)]
pub(super) struct CheckpointFile {
    /// Entries of partitions that cannot be used, and of those set aside, stay in it.
    pub(super) last: Checkpoint,
    /// An empty file with blocks reserved, under the temporary name.
    next: Option<Arc<dyn File>>,
}

impl DirCore {
    pub(super) fn read_checkpoint(&self) -> Result<Option<Checkpoint>, Error> {
        let path = self.path.join(CHECKPOINT);
        let bytes = match self.handles.disk.read(&path, CHECKPOINT_BYTES_MAX) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::io(path, "read")(error)),
        };
        checkpoint::decode(&bytes, self.directory_id.0).map(Some).map_err(|what| {
            // It is replaced whole, so this is no torn write: the disk has lost what it had.
            let advice = "it says what was durable and what was deleted; check the disk, and bring it back as it was, or move \
                          it away: then no log of this directory is believed; each is fetched anew where another replica \
                          leads, and where none does a person decides about what is whole of it (weir partition elect)";
            Error::damaged(path, format!("{what}: {advice}"))
        })
    }

    /// Makes durable what is known of every partition by now.
    pub(crate) fn write_checkpoint(&self) -> Result<(), Error> {
        self.checkpoint_with(None, &[], |(), _| {})
    }

    /// The same with a log that is about to be one of the directory's.
    pub(super) fn write_checkpoint_with(&self, opened: &Core) -> Result<(), Error> {
        let known = ((opened.id, opened.incarnation), opened.checkpoint_entry());
        self.checkpoint_with(Some(known), &[], |(), _| {})
    }

    /// The same with what is to be known of a log that cannot be used: it is in force once this returns.
    pub(super) fn write_checkpoint_of(
        &self,
        log: (PartitionId, Incarnation),
        entry: checkpoint::Entry,
    ) -> Result<(), Error> {
        self.checkpoint_with(Some((log, entry)), &[], |(), _| {})
    }

    /// The same with a change of one partition, which is in force once it is durable, and otherwise never was. An
    /// error for want of space or of a descriptor leaves everything as it was; any other ends the process.
    pub(crate) fn change_durably(
        &self,
        core: &Arc<Core>,
        change: impl Fn(&mut checkpoint::Entry),
    ) -> Result<(), Error> {
        self.checkpoint_with(None, &[(core, ())], |(), entry| change(entry))
    }

    /// The same for the starts of many logs. They never move back, whoever else moves them meanwhile.
    pub(crate) fn move_starts(&self, moves: &[Move]) -> Result<(), Error> {
        let moves: Vec<_> = moves.iter().map(|one| (&one.core, one.front.start)).collect();
        self.checkpoint_with(None, &moves, |start, entry| entry.log_start = entry.log_start.max(start))
    }

    /// Nobody needs the claim of a partition for this: what its owner notes meanwhile stays, because a change is made
    /// once more, to what is known by then, as soon as it is durable.
    fn checkpoint_with<T: Copy>(
        &self,
        also: Option<((PartitionId, Incarnation), checkpoint::Entry)>,
        changed: &[(&Arc<Core>, T)],
        change: impl Fn(T, &mut checkpoint::Entry),
    ) -> Result<(), Error> {
        let mut file = self.checkpoint.lock();
        if self.failed() {
            return Err(Error::Failed);
        }
        if self.stopping() {
            // Its partitions are gone from the map: what it would say is not true.
            return Err(Error::Closed);
        }
        // What moves from here on may be in it, and is in the next one.
        self.uncheckpointed_bytes.store(0, Ordering::Release);
        self.has_new.store(false, Ordering::Release);
        let mut next = Checkpoint::new();
        // A log that goes from one of these maps to another is put into the one before it is taken out of the other. With
        // the maps held while the next one is read it is met in one of the two, whichever way it goes.
        let partitions = self.partitions.read();
        let (kept, unusable) = self.kept_and_unusable();
        let in_place = self.unusable_in_place();
        for (key, entry) in &file.last {
            if kept.contains(key) || unusable.contains(&key.0) {
                next.insert(*key, checkpoint::Entry { in_place: in_place.contains(key), ..*entry });
            }
        }
        next.extend(partitions.values().map(|core| ((core.id, core.incarnation), core.checkpoint_entry())));
        next.extend(also.map(|(key, entry)| (key, checkpoint::Entry { in_place: true, ..entry })));
        for (core, to) in changed {
            // Not one that was deleted or set aside meanwhile: nobody would take it out again.
            let is_held = partitions.get(&core.id).is_some_and(|held| Arc::ptr_eq(held, core));
            if let Some(entry) = next.get_mut(&(core.id, core.incarnation)).filter(|_| is_held) {
                change(*to, entry);
            }
        }
        drop(partitions);
        if next != file.last {
            self.replace_checkpoint(&mut file, &checkpoint::encode(&next, self.directory_id.0))?;
            file.last = next;
            self.stats.checkpoints.add(1);
        }
        self.reserve_next(&mut file);
        for (core, to) in changed {
            change(*to, &mut core.durable.lock());
        }
        Ok(())
    }

    /// What was set aside, and what cannot be used: what is known of it is kept as long as it is.
    pub(super) fn kept_and_unusable(&self) -> (BTreeSet<(PartitionId, Incarnation)>, BTreeSet<PartitionId>) {
        let damaged = self.damaged.lock();
        let unusable = self.unusable.read().values().map(|unusable| unusable.id).collect();
        let mut kept = self.strays.partitions();
        kept.extend(damaged.keys());
        (kept, unusable)
    }

    pub(super) fn replace_checkpoint(
        &self,
        checkpoint: &mut CheckpointFile,
        bytes: &[u8],
    ) -> Result<(), Error> {
        let disk = &self.handles.disk;
        let path = self.path.join(CHECKPOINT);
        let temp = path.with_extension("tmp");
        let next = match checkpoint.next.take() {
            Some(next) => next,
            None => self
                .handles
                .retry(|| disk.open(&temp, Access::CreateOrTruncate))
                .map_err(|error| self.passing_or_fatal(&temp, "create", error))?,
        };
        let len = bytes.len() as u64;
        let written = next.write_all_at(bytes, 0).and_then(|()| {
            // A longer one may have been begun in it.
            if next.len()? > len { next.set_len(len) } else { Ok(()) }
        });
        if let Err(error) = written {
            // The old one is still there and still true; the blocks are kept for a shorter one.
            checkpoint.next = Some(next);
            return Err(self.passing_or_fatal(&temp, "write", error));
        }
        next.sync_all().map_err(|error| self.passing_or_fatal(&temp, "fsync", error))?;
        // From here on nobody knows which of the two is there after a crash.
        if let Err(error) = disk.rename(&temp, &path) {
            self.fatal(&path, "replace", &error);
            return Err(Error::Failed);
        }
        self.sync_own_names()
    }

    /// Makes sure that there are blocks for the next one: what the last one took is free by now. If they cannot be had
    /// the next turn tries again.
    fn reserve_next(&self, checkpoint: &mut CheckpointFile) {
        if checkpoint.next.is_some() {
            return;
        }
        let temp = self.path.join(CHECKPOINT).with_extension("tmp");
        let Ok(next) = self.handles.disk.open(&temp, Access::CreateOrTruncate) else { return };
        let len = (HEADER_BYTES + checkpoint.last.len() * ENTRY_BYTES) as u64;
        // As above.
        let _ = next.allocate(0, (len + len / 4).next_multiple_of(RESERVED_STEP_BYTES));
        checkpoint.next = Some(next);
    }
}
