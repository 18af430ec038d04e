//! A damaged log that is to go on as far as it is whole, because there is nobody to fetch it from: a person has given up
//! what lies behind (correctness rule 36).
//!
//! Why nothing is destroyed, and nothing half done, wherever it is cut off:
//!
//! - First all files that lose something are copied, whole, into a folder beside the log, `<folder>.gG-FROM-TO.damaged`
//!   (the generation it was cut in, and which records it lost). Until the copy is durable it has another name, of that one
//!   try; the log is as it was, damaged.
//! - Then the checkpoint says that a cut was begun. From there on every start finishes it, as that of any cut.
//! - Nobody leads by this. A log that is cut here belongs to no in-sync set, and is one that is behind.
//!
//! The copy is deleted with its topic, or by a person; nothing reads it but `weir segment`.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::BytesMut;
use weir_io::Access;
use weir_types::{Incarnation, Offset, PartitionId};

use super::anew::suffixed;
use super::aside::{DAMAGED, of};
use super::{DirCore, LogDir, Unusable};
use crate::config::Mutant;
use crate::core::Core;
use crate::deleter;
use crate::error::Error;
use crate::partition::Partition;
use crate::recovery::{self, Place, Whole};
use crate::segment::parse_file_name;

/// The end of the name of a copy that is not whole yet.
const COPYING: &str = "copying";
/// What is copied at a time.
const CHUNK_BYTES: usize = 1 << 20;

/// A copy of what was cut off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct CutOff {
    id: PartitionId,
    incarnation: Incarnation,
    /// That of the log before the cut.
    generation: u64,
    /// Which records are in the copy alone.
    from: Offset,
    to: Offset,
    path: PathBuf,
}

impl CutOff {
    fn of(place: &Place, whole: &Whole) -> Self {
        let (generation, from, to) = (whole.cut.generation, whole.end, whole.known_end);
        let path = suffixed(&suffixed(&place.path, &format!("g{generation}-{from}-{to}")), DAMAGED);
        Self { id: place.id, incarnation: place.incarnation, generation, from, to, path }
    }

    /// What a folder's name says; `None`: it is no such copy.
    fn named(path: &Path) -> Option<Self> {
        let name = path.file_name()?.to_str()?.strip_suffix(DAMAGED)?.strip_suffix('.')?;
        let (folder, cut) = name.rsplit_once('.')?;
        let (id, incarnation) = recovery::parse_folder_name(folder)?;
        let mut numbers = cut.strip_prefix('g')?.split('-');
        let (generation, from, to) = (numbers.next()?, numbers.next()?, numbers.next()?);
        let (generation, from, to) = (generation.parse().ok()?, from.parse().ok()?, to.parse().ok()?);
        Some(Self { id, incarnation, generation, from, to, path: path.to_owned() })
    }
}

/// What is said of a damaged log after a cut that has failed, before the reason.
const WHY: &str = "; it could not be cut: ";

pub(super) fn say_not_cut(damaged: &mut Unusable, error: &Error) {
    unsay_not_cut(damaged);
    damaged.what.push_str(&format!("{WHY}{error}"));
}

pub(super) fn unsay_not_cut(damaged: &mut Unusable) {
    damaged.what.truncate(damaged.what.find(WHY).unwrap_or(damaged.what.len()));
}

impl LogDir {
    /// Copies what a damaged log is about to lose, if it is [whole](Unusable::whole) up to exactly that offset: the part of
    /// [`cut_damaged`](LogDir::cut_damaged) that takes its time, and keeps nobody else from the directory meanwhile. It
    /// ends when a stop begins. Blocking.
    ///
    /// # Errors
    /// [`Error::Io`] for want of space or of a descriptor, or if what is to be kept cannot be read; [`Error::Closed`],
    /// [`Error::Failed`]. Nothing of it is left.
    pub fn keep_damaged(&self, id: PartitionId, to: Offset) -> Result<(), Error> {
        let dir = self.core();
        let _held = dir.hold().filter(|_| !dir.failed()).ok_or(Error::Closed)?;
        let Some((place, whole)) = dir.whole_to(id, to) else { return Ok(()) };
        dir.is_tried(id);
        dir.keep_damaged(&place, &whole).inspect_err(|error| dir.could_not_cut(id, error))
    }

    /// Cuts a damaged log where it is [whole](Unusable::whole) up to, and opens it. What it loses is kept beside it. Only
    /// for a log that nobody counts on: of a partition without any other replica, or one that is in no in-sync set. Durable
    /// when this returns; cut off before, the log is as it was, or the next start does the rest. `None`: there is no damaged
    /// log here that is whole up to exactly that offset. Not while the partition is deleted or set aside. Blocking.
    ///
    /// # Errors
    /// [`Error::Io`] for want of space or of a descriptor, or if what is to be kept cannot be read: it is as it was.
    /// [`Error::Damaged`] if it turns out to be worse than it was; [`Error::Closed`], [`Error::Failed`].
    pub fn cut_damaged(&self, id: PartitionId, to: Offset) -> Result<Option<Partition>, Error> {
        let dir = self.core();
        let _held = dir.hold().filter(|_| !dir.failed()).ok_or(Error::Closed)?;
        let cut = dir.cut_damaged(id, to).inspect_err(|error| dir.could_not_cut(id, error))?;
        Ok(cut.map(Partition))
    }

    /// How far a log went that was [cut](LogDir::cut_damaged), as long as nothing was appended to it since.
    pub fn end_before_cut(&self, id: PartitionId) -> Option<Offset> {
        let core = self.core().partitions.read().get(&id).cloned()?;
        let (generation, end) = (core.durable.lock().generation, core.ends().log_end);
        let cut_off = self.core().cut_off.lock();
        let lives = |one: &&CutOff| (one.id, one.incarnation) == (id, core.incarnation);
        let is_last = |one: &&CutOff| one.generation + 1 == generation && one.from == end;
        cut_off.iter().find(|one| lives(one) && is_last(one)).map(|one| one.to)
    }

    /// The partitions of which something is kept that was cut off.
    pub fn cut_off_kept(&self) -> Vec<PartitionId> {
        let mut kept: Vec<_> = self.core().cut_off.lock().iter().map(|one| one.id).collect();
        kept.dedup();
        kept
    }

    /// Deletes what was cut off a damaged log: its topic is deleted. Blocking.
    ///
    /// # Errors
    /// [`Error::Io`]: some of it is still there; it may be tried again. [`Error::Closed`], [`Error::Failed`].
    pub fn delete_cut_off(&self, id: PartitionId) -> Result<(), Error> {
        let dir = self.core();
        let _held = dir.hold().filter(|_| !dir.failed()).ok_or(Error::Closed)?;
        let kept: Vec<CutOff> = dir.cut_off.lock().iter().filter(|one| one.id == id).cloned().collect();
        for one in kept {
            match deleter::delete_folder(dir, &one.path) {
                // A person was quicker.
                Err(error) if !error.is_not_found() => return Err(error),
                _ => dir.cut_off.lock().retain(|other| *other != one),
            }
        }
        Ok(())
    }
}

impl DirCore {
    fn cut_damaged(self: &Arc<Self>, id: PartitionId, to: Offset) -> Result<Option<Arc<Core>>, Error> {
        let _turn = self.reopening.lock();
        let Some((place, whole)) = self.whole_to(id, to) else { return Ok(None) };
        self.is_tried(id);
        self.keep_damaged(&place, &whole)?;
        self.write_checkpoint_of((id, place.incarnation), whole.cut)?;
        // From here on it is cut: what is not done now, a start does.
        let core = self.open_again(&place, Some(whole.cut))?;
        let (name, Whole { end, known_end, .. }) = (recovery::shown_name(&place.path), whole);
        tracing::warn!(name, partition = %id, end, known_end, "a damaged log was cut: a person has given up what came behind");
        Ok(Some(core))
    }

    /// The one damaged log of a partition, if it is whole up to exactly that offset.
    fn whole_to(&self, id: PartitionId, to: Offset) -> Option<(Place, Whole)> {
        let unusable = self.unusable.read();
        let mut of_it = unusable.values().filter(|unusable| unusable.id == id);
        let (Some(Unusable { path, whole: Some(whole), .. }), None) = (of_it.next(), of_it.next()) else {
            return None;
        };
        let (_, incarnation) = recovery::parse_folder_name(path.file_name()?.to_str()?)?;
        (whole.end == to).then(|| (Place { id, incarnation, path: path.clone() }, *whole))
    }

    /// Whoever asks how the log is learns why it is not cut.
    fn could_not_cut(&self, id: PartitionId, error: &Error) {
        let mut unusable = self.unusable.write();
        unusable
            .values_mut()
            .filter(|one| one.id == id && one.is_damaged)
            .for_each(|one| say_not_cut(one, error));
    }

    /// A try begins: why an earlier one has failed is no news any more.
    pub(super) fn is_tried(&self, id: PartitionId) {
        self.damaged.lock().range_mut(of(id)).for_each(|(_, one)| unsay_not_cut(&mut one.log));
        self.unusable.write().values_mut().filter(|one| one.id == id).for_each(unsay_not_cut);
    }

    /// Copies all files that are going to lose something.
    fn keep_damaged(&self, place: &Place, whole: &Whole) -> Result<(), Error> {
        if self.has(Mutant::DamageUnkept) {
            return Ok(());
        }
        let kept = CutOff::of(place, whole);
        let disk = &self.handles.disk;
        let _turn = self.keeping.lock();
        if disk.exists(&kept.path).map_err(Error::io(&*kept.path, "stat"))? {
            // An earlier try came so far, and no further: the log is the same.
            return Ok(());
        }
        // What is left of an earlier try may still be on its way out.
        let this_try = format!("{:016x}", self.os.random_u64());
        let temp = suffixed(&suffixed(&kept.path, &this_try), COPYING);
        self.check_room(place, whole.cut_in, &temp)?;
        self.handles.retry(|| disk.create_dir(&temp)).map_err(Error::io(&*temp, "create"))?;
        self.copy_from(place, whole.cut_in, &temp).inspect_err(|_| self.undo_create(&temp))?;
        disk.rename(&temp, &kept.path).map_err(Error::io(&*temp, "rename"))?;
        self.sync_own_names()?;
        tracing::warn!(folder = %kept.path.display(), "what a damaged log is about to lose is kept");
        self.cut_off.lock().push(kept);
        Ok(())
    }

    /// The names of the files of a log that belong to a segment or to one behind it.
    fn files_from(&self, place: &Place, from: Offset) -> Result<Vec<String>, Error> {
        let files = self.handles.disk.list(&place.path).map_err(Error::io(&*place.path, "list"))?;
        let names = files.into_iter().map(|file| file.name);
        Ok(names.filter(|name| parse_file_name(name).is_some_and(|(base, _)| base >= from)).collect())
    }

    /// What is kept free stays so: a copy is no reason for the disk to be full (correctness rule 39).
    fn check_room(&self, place: &Place, from: Offset, to: &Path) -> Result<(), Error> {
        let (disk, mut bytes) = (&self.handles.disk, self.options.disk_reserved_bytes);
        for name in self.files_from(place, from)? {
            let path = place.path.join(name);
            let file = self.handles.retry(|| disk.open(&path, Access::Read));
            let len = file.and_then(|file| file.len()).map_err(Error::io(&*path, "open"))?;
            bytes = bytes.saturating_add(len);
        }
        let space = disk.space(&self.path).map_err(Error::io(&*self.path, "statvfs"))?;
        if space.available_bytes >= bytes {
            return Ok(());
        }
        let said = format!(
            "to keep what is cut off, with disk_reserved_bytes, takes {bytes} bytes, and {} are free",
            space.available_bytes
        );
        Err(Error::io(to, "create")(io::Error::new(io::ErrorKind::StorageFull, said)))
    }

    /// Copies the files of a log that belong to a segment or to one behind it; durable when this returns.
    fn copy_from(&self, place: &Place, from: Offset, to: &Path) -> Result<(), Error> {
        for name in self.files_from(place, from)? {
            self.copy(&place.path.join(&name), &to.join(&name))?;
        }
        let folder = self.handles.open_dir(to).map_err(Error::io(to, "open"))?;
        self.sync_names(to, &*folder)
    }

    fn copy(&self, from: &Path, to: &Path) -> Result<(), Error> {
        let handles = &self.handles;
        let source =
            handles.retry(|| handles.disk.open(from, Access::Read)).map_err(Error::io(from, "open"))?;
        let target =
            handles.retry(|| handles.disk.open(to, Access::CreateNew)).map_err(Error::io(to, "create"))?;
        let mut at = 0;
        loop {
            if self.failed() {
                return Err(Error::Failed);
            }
            if self.stopping() {
                return Err(Error::Closed);
            }
            let mut chunk = BytesMut::with_capacity(CHUNK_BYTES);
            source.read_at(&mut chunk, CHUNK_BYTES, at).map_err(Error::io(from, "read"))?;
            if chunk.is_empty() {
                break;
            }
            let written = target.write_all_at(&chunk, at);
            written.map_err(|error| self.passing_or_fatal(to, "write", error))?;
            at += chunk.len() as u64;
        }
        // Nothing stands on the copy yet: for want of room it is taken away, and made another time.
        target.sync_all().map_err(|error| self.passing_or_fatal(to, "fsync", error))
    }

    /// Notes a copy that an earlier process has made; takes one away that it has not finished.
    pub(super) fn find_cut_off(&self, folder: &Path) -> Result<(), Error> {
        if let Some(kept) = CutOff::named(folder) {
            self.cut_off.lock().push(kept);
        } else if folder.extension().is_some_and(|kind| kind == COPYING) {
            let gone = deleter::deleted_name(folder);
            self.handles.disk.rename(folder, &gone).map_err(Error::io(folder, "rename"))?;
            deleter::push_folder(self, &gone).map_err(Error::io(&*gone, "list"))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use weir_types::TopicId;

    use super::*;

    #[test]
    fn the_name_of_a_copy_says_what_it_holds_and_is_no_logs() {
        let (id, incarnation) = (PartitionId { topic: TopicId(7), partition: 3 }, Incarnation(9));
        let folder = Path::new("/d/logs").join(recovery::folder_name(id, "a-b", incarnation));
        let name = suffixed(&suffixed(&folder, "g2-120-132"), DAMAGED);
        let found = CutOff::named(&name).unwrap();
        assert_eq!((found.id, found.incarnation), (id, incarnation));
        assert_eq!((found.generation, found.from, found.to), (2, 120, 132));
        assert_eq!(recovery::parse_folder_name(name.file_name().unwrap().to_str().unwrap()), None);
        // Neither the log itself nor one that was set aside whole.
        assert_eq!(CutOff::named(&folder), None);
        assert_eq!(CutOff::named(&suffixed(&folder, DAMAGED)), None);
    }
}
