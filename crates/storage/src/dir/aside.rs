//! Damaged logs that were set aside, because others had what was in them, and the way back where those others are lost for
//! good before the replica is in sync again (correctness rule 36).
//!
//! A damaged log is kept as `<folder>.damaged`, with what the checkpoint says of it. An empty one takes its place, and is
//! fetched anew. Until that has come as far as the damaged one is whole, the damaged one is the most that this replica
//! has. So how far it is whole is remembered, and looked up again by each start; and a person who gives up the rest gets
//! it back. Where it cannot be looked up (`unseen.rs`), it may be whole as far as the checkpoint says that it went.
//!
//! Why nothing is lost by the way back, wherever it is cut off:
//!
//! - It is taken only where the log in its place is behind: of an earlier leadership, or shorter in the same one. In one
//!   leadership both are copies of one leader's log, so that the longer one has all that the shorter one has; and of two
//!   leaderships the later one counts, as wherever the longest log leads.
//! - First the log in its place gets, durably, the name of one that is to be deleted, or is set aside if it is damaged as
//!   well. Only then the other one gets its own name again: no start finds two. Cut off between the two, a start finds none
//!   in place, and tells of the one aside as before. If the second name cannot be given, the first one is taken back.
//! - Nothing is cut by it, and nobody leads by it. From then on it is a damaged log again: it is cut as any other
//!   (`cut_off.rs`), or set aside once more if a leader has come back.

use std::io;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use weir_runtime::blocking;
use weir_types::{Incarnation, LeaderEpoch, Offset, PartitionId};

use super::anew::{suffixed, with_suffix};
use super::unseen::Unseen;
use super::{DirCore, LogDir, Unusable, cut_off};
use crate::checkpoint;
use crate::config::Mutant;
use crate::core::Core;
use crate::deleter;
use crate::error::{Error, shown};
use crate::recovery::{self, Place, Whole};

/// The end of the name of a damaged log's folder once it was set aside.
pub(crate) const DAMAGED: &str = "damaged";

/// What is wrong with such a log.
const WHAT: &str = "its log was damaged, and is set aside until it has been fetched anew";

/// A damaged log that was set aside.
#[derive(Debug)]
pub(super) struct Aside {
    pub(super) log: Unusable,
    /// What the checkpoint said of it.
    pub(super) known: Option<checkpoint::Entry>,
    /// Why nobody knows how far it is whole; of no account where that is known.
    pub(super) unseen: Unseen,
}

impl LogDir {
    /// Closes the logs of partitions that are to be [set aside](LogDir::set_damaged_aside) by and by: nobody uses them from here
    /// on.
    pub async fn close_damaged(&self, ids: &[PartitionId]) {
        let dir = self.core();
        dir.abandon(&dir.open_of(ids)).await;
    }

    /// Sets the damaged logs of partitions aside, durably and for the price of one sync, so that others can be created or
    /// [started over](LogDir::start_over): only once the controller has said that nobody counts on them (rule 36). They are
    /// kept until [`LogDir::delete_damaged`], and take up their space. One that is open is closed. Not while they are created
    /// or deleted. Says which could not be renamed, for want of space or of a descriptor; those are as they were, but may be
    /// closed until the next start.
    ///
    /// # Errors
    /// [`Error::Io`] for want of space: none was. [`Error::Closed`], [`Error::Failed`].
    pub async fn set_damaged_aside(&self, ids: Vec<PartitionId>) -> Result<Vec<(PartitionId, Error)>, Error> {
        self.close_damaged(&ids).await;
        let dir = Arc::clone(self.core());
        let aside = blocking(&self.core().os, move || {
            let _held = dir.hold().filter(|_| !dir.failed()).ok_or(Error::Closed)?;
            let _turn = dir.reopening.lock();
            // How far one went that was in use is known now, and perhaps never again.
            if !dir.open_of(&ids).is_empty() {
                dir.write_checkpoint()?;
            }
            let (mut aside, mut failed) = (Vec::with_capacity(ids.len()), Vec::new());
            for id in ids {
                match dir.folders_of(id).iter().try_for_each(|folder| dir.put_aside(folder)) {
                    Ok(()) => aside.push(id),
                    Err(error) => failed.push((id, error)),
                }
            }
            if !aside.is_empty() {
                dir.sync_own_names()?;
                dir.forget(&aside);
                dir.look_again(&aside);
            }
            Ok(failed)
        });
        aside.await
    }

    /// The partitions of which a damaged log is kept.
    pub fn damaged_kept(&self) -> Vec<PartitionId> {
        let mut kept: Vec<_> = self.core().damaged.lock().keys().map(|(id, _)| *id).collect();
        kept.dedup();
        kept
    }

    /// Whether a damaged log of a partition is kept.
    pub fn is_damaged_kept(&self, id: PartitionId) -> bool {
        self.core().damaged.lock().range(of(id)).next().is_some()
    }

    /// The damaged log of a partition that was set aside, if it is whole further than the log goes that is in its place, by
    /// leadership and then by end: [`LogDir::take_damaged_back`]. Of several the one that is whole furthest; else one of
    /// which nobody knows how far it is whole, if it is known to have gone further than the one in its place: it has no
    /// [`Unusable::whole`], and is looked at again. `None` also where it cannot be said how far the one goes that is in its
    /// place, because it could not be opened for now.
    pub fn further_aside(&self, id: PartitionId) -> Option<Unusable> {
        let dir = self.core();
        dir.look_again(&[id]);
        dir.further_aside(id)
    }

    /// The same, if it is still there: a person may have moved it away. What nobody can say is taken for there. Not while the
    /// partition's logs are set aside or taken back. Blocking.
    pub fn further_aside_still(&self, id: PartitionId) -> Option<Unusable> {
        let dir = self.core();
        dir.look_again(&[id]);
        loop {
            let aside = dir.further_aside(id)?;
            if dir.handles.disk.exists(&aside.path).unwrap_or(true) {
                return Some(aside);
            }
            dir.is_gone(&aside);
        }
    }

    /// Whether all that is here of a partition are damaged logs that were set aside.
    pub fn is_all_aside(&self, id: PartitionId) -> bool {
        self.is_damaged_kept(id) && self.core().folders_of(id).is_empty()
    }

    /// Whether nothing at all is here of a partition: no log, whole or not, and none that was set aside.
    pub fn is_gone(&self, id: PartitionId) -> bool {
        !self.is_damaged_kept(id) && self.core().folders_of(id).is_empty()
    }

    /// How far the damaged logs of a partition are known to have gone, those that were set aside and the one in its place.
    pub fn known_end_damaged(&self, id: PartitionId) -> Option<Offset> {
        let dir = self.core();
        let aside = dir.damaged.lock().range(of(id)).filter_map(|(_, one)| one.known_end()).max();
        let unusable = dir.unusable.read();
        let in_place = unusable.values().filter(|one| one.id == id && one.is_damaged).filter_map(|one| {
            let key = recovery::parse_folder_name(one.path.file_name()?.to_str()?)?;
            let said = dir.checkpoint.lock().last.get(&key).map(checkpoint::Entry::said_end);
            one.whole.map(|whole| whole.known_end).max(said)
        });
        aside.max(in_place.max())
    }

    /// How far the last checkpoint says that a log was committed that cannot be used: it may go further.
    pub fn committed_of_unusable(&self, id: PartitionId) -> Option<Offset> {
        let dir = self.core();
        let unusable = dir.unusable.read();
        let committed = unusable.values().filter(|one| one.id == id).filter_map(|one| {
            let key = recovery::parse_folder_name(one.path.file_name()?.to_str()?)?;
            dir.checkpoint.lock().last.get(&key).map(|entry| entry.high_watermark)
        });
        committed.max()
    }

    /// Gives the damaged log of a partition that was set aside its place back, durably, if it is [the one that is whole
    /// further](LogDir::further_aside), and is so up to exactly that offset: a person takes what is whole of it, because
    /// nobody else has more. It is a damaged log again, and [cut](LogDir::cut_damaged) as any other. What was in its place is
    /// closed and gone, or set aside if it was damaged as well. `None`: there is no such one. Not while the partition is
    /// appended to, created, deleted or set aside.
    ///
    /// # Errors
    /// [`Error::Io`] for want of space or of a descriptor: it is set aside as before; what is in its place is as it was, or
    /// has to be [opened again](LogDir::reopen), or may be gone. So it is, but for that nothing is set aside any more, if
    /// somebody has taken the folder away. [`Error::Closed`], [`Error::Failed`].
    pub async fn take_damaged_back(&self, id: PartitionId, to: Offset) -> Result<Option<Unusable>, Error> {
        let dir = Arc::clone(self.core());
        let is_it = |aside: &Unusable| aside.whole.is_some_and(|whole| whole.end == to);
        let Some(mut aside) = dir.further_aside(id).filter(is_it) else { return Ok(None) };
        let aside = blocking(&self.core().os, move || {
            let _held = dir.hold().filter(|_| !dir.failed()).ok_or(Error::Closed)?;
            dir.is_tried(id);
            cut_off::unsay_not_cut(&mut aside);
            dir.is_still_there(&aside).inspect_err(|error| dir.not_taken_back(&aside, error))?;
            Ok(aside)
        });
        let aside = aside.await?;
        let dir = Arc::clone(self.core());
        dir.abandon(&dir.open_of(&[id])).await;
        let back = blocking(&self.core().os, move || {
            let _held = dir.hold().filter(|_| !dir.failed()).ok_or(Error::Closed)?;
            let _turn = dir.reopening.lock();
            dir.take_back(&aside).inspect_err(|error| {
                dir.stays_closed_in_place(id, error);
                dir.not_taken_back(&aside, error);
            })
        });
        back.await.map(Some)
    }

    /// Deletes what was set aside of a partition because it was damaged: the replica is in sync again. Blocking.
    ///
    /// # Errors
    /// [`Error::Io`]: some of it is still there; it may be tried again. [`Error::Closed`], [`Error::Failed`].
    pub fn delete_damaged(&self, id: PartitionId) -> Result<(), Error> {
        let dir = self.core();
        let _held = dir.hold().filter(|_| !dir.failed()).ok_or(Error::Closed)?;
        dir.is_missed_no_more(id)?;
        let kept: Vec<_> =
            dir.damaged.lock().range(of(id)).map(|(key, one)| (*key, one.log.path.clone())).collect();
        for (key, path) in kept {
            match deleter::delete_folder(dir, &path) {
                // A person was quicker.
                Err(error) if !error.is_not_found() => return Err(error),
                _ => drop(dir.damaged.lock().remove(&key)),
            }
        }
        Ok(())
    }
}

/// All lives of a partition.
pub(super) fn of(id: PartitionId) -> RangeInclusive<(PartitionId, Incarnation)> {
    (id, Incarnation(u64::MIN))..=(id, Incarnation(u64::MAX))
}

/// How far a log goes that others are compared with: the leadership that it ends in, and where. `None`: nothing of it is
/// known to be whole.
type Reach = Option<(Option<LeaderEpoch>, Offset)>;

fn reach_of(damaged: &Unusable) -> Reach {
    damaged.whole.map(|whole| (whole.last_epoch, whole.end))
}

impl DirCore {
    /// Sets one folder aside. It is durable with the names of the directory.
    pub(super) fn put_aside(&self, folder: &Path) -> Result<(), Error> {
        let kept = match self.rename_to(folder, suffixed(folder, DAMAGED)) {
            Err(error) if error.is_not_found() => {
                tracing::warn!(folder = %folder.display(), "a damaged log that is to be set aside is not there any more");
                return Ok(());
            }
            kept => kept?,
        };
        tracing::info!(folder = %kept.display(), "a damaged log is set aside, and kept until its replica is in sync again");
        let whole = self.unusable.read().get(folder).and_then(|damaged| damaged.whole);
        self.note_aside(&kept, whole);
        Ok(())
    }

    /// Notes a damaged log that an earlier process has set aside.
    pub(super) fn find_aside(&self, folder: &Path) {
        self.note_aside(folder, None);
    }

    fn note_aside(&self, folder: &Path, whole: Option<Whole>) {
        let Some(key) = with_suffix(folder, DAMAGED) else { return };
        let (id, path, what) = (key.0, folder.to_owned(), WHAT.to_owned());
        let known = self.checkpoint.lock().last.get(&key).copied();
        let log = Unusable { id, path, what, is_damaged: true, whole };
        self.damaged.lock().insert(key, Aside { log, known, unseen: Unseen::default() });
    }

    /// Where they are.
    pub(super) fn places_aside(&self) -> Vec<Place> {
        let damaged = self.damaged.lock();
        let place =
            |(&(id, incarnation), one): (&_, &Aside)| Place { id, incarnation, path: one.log.path.clone() };
        damaged.iter().map(place).collect()
    }

    fn further_aside(&self, id: PartitionId) -> Option<Unusable> {
        if self.has(Mutant::AsideUntold) {
            return None;
        }
        let open = self.partitions.read().get(&id).cloned();
        let mut in_place: Reach = open.map(|core: Arc<Core>| {
            let last_epoch = core.epochs.read().last();
            (last_epoch, core.ends().log_end)
        });
        for one in self.unusable.read().values().filter(|one| one.id == id) {
            if !one.is_damaged {
                return None;
            }
            in_place = in_place.max(reach_of(one));
        }
        let damaged = self.damaged.lock();
        let furthest = damaged.range(of(id)).map(|(_, one)| &one.log).max_by_key(|one| reach_of(one))?;
        if reach_of(furthest) > in_place {
            return Some(furthest.clone());
        }
        let in_place = in_place.map(|(_, end)| end);
        damaged.range(of(id)).find_map(|(_, one)| one.unseen_beyond(in_place))
    }

    /// Whether nobody has taken away what was set aside: then there is nothing to take back, and what is in its place must
    /// stay.
    fn is_still_there(&self, aside: &Unusable) -> Result<(), Error> {
        if self.handles.disk.exists(&aside.path).map_err(Error::io(&*aside.path, "stat"))? {
            return Ok(());
        }
        self.is_gone(aside);
        let said = "the damaged log that was set aside is not there any more: what is in its place is all that there is";
        Err(Error::io(&*aside.path, "rename")(io::Error::new(io::ErrorKind::NotFound, said)))
    }

    /// Somebody has taken it away: it counts no more.
    pub(super) fn is_gone(&self, aside: &Unusable) {
        let Some(key) = with_suffix(&aside.path, DAMAGED) else { return };
        tracing::warn!(folder = shown(&aside.path), "a damaged log that was set aside was taken away");
        self.damaged.lock().remove(&key);
    }

    /// The log that was set aside takes the place of the one that has taken its own.
    fn take_back(&self, aside: &Unusable) -> Result<Unusable, Error> {
        let id = aside.id;
        let gone = self.make_way(id)?;
        self.sync_own_names()?;
        let path = match self.rename_to(&aside.path, aside.path.with_extension("")) {
            Ok(path) => path,
            Err(error) => {
                self.give_way_back(id, gone)?;
                return Err(error);
            }
        };
        self.sync_own_names()?;
        self.forget(&[id]);
        let back = Unusable { path, ..aside.clone() };
        tracing::warn!(folder = %back.path.display(), "a damaged log that was set aside has its place again");
        // Before it counts as set aside no more: the checkpoint must not forget it.
        self.stays_closed(back.clone());
        if let Some(key) = with_suffix(&aside.path, DAMAGED) {
            self.damaged.lock().remove(&key);
        }
        for folder in gone {
            if let Err(error) = deleter::push_folder(self, &folder) {
                tracing::warn!(folder = %folder.display(), %error, "a log that has lost its place is deleted by the next start");
            }
        }
        Ok(back)
    }

    /// What has made way for a log that cannot come gets its name back, so that it can be opened again.
    fn give_way_back(&self, id: PartitionId, gone: Vec<PathBuf>) -> Result<(), Error> {
        let mut is_back = false;
        for folder in gone {
            match self.rename_to(&folder, folder.with_extension("")) {
                Ok(_) => is_back = true,
                Err(error) => {
                    tracing::warn!(folder = %folder.display(), %error, "a log that has lost its place is deleted by the next start");
                }
            }
        }
        if !is_back {
            // There is none, or it was damaged as well and is set aside.
            self.forget(&[id]);
            return Ok(());
        }
        self.sync_own_names()
    }

    /// The log in its place was closed, and may be opened again.
    pub(super) fn stays_closed_in_place(&self, id: PartitionId, error: &Error) {
        for core in self.open_of(&[id]).into_iter().filter(|core| core.is_closed()) {
            let (path, what) = (core.path.clone(), format!("it was closed: {error}"));
            self.stays_closed(Unusable { id, path, what, is_damaged: false, whole: None });
            self.partitions.write().remove(&id);
        }
    }

    /// Whoever asks how the log is learns why it is not cut.
    fn not_taken_back(&self, aside: &Unusable, error: &Error) {
        let Some(key) = with_suffix(&aside.path, DAMAGED) else { return };
        if let Some(aside) = self.damaged.lock().get_mut(&key) {
            cut_off::say_not_cut(&mut aside.log, error);
        }
    }
}
