//! Logs that the checkpoint names and whose folders are not there: somebody has taken them away while nothing ran, or a check
//! of the file system has. Such a log is damaged (correctness rule 36): an empty folder stands for it, so that it is told of,
//! set aside and fetched anew, or cut at nothing when a person gives up what it had, as any other damaged log.
//!
//! Why nothing is told of that was taken away in order:
//!
//! - The checkpoint says of each log whether it is the one in its partition's place. A log that was set aside, or that another
//!   one took the place of, is not, as of the next checkpoint; nor is it missed before: what is there under another name is
//!   not missing, nor is a log whose partition has another one in place, or was set aside as a whole.
//! - Nothing of a partition is deleted for good before a checkpoint is durable that does not name it in its place any more
//!   ([`DirCore::is_missed_no_more`]). So whenever the process ends, either the name is in the directory still, or no start
//!   asks for it.
//! - What an earlier version has written says of no log that it is in its place. One start with this version, and it does.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;

use weir_types::{Incarnation, PartitionId};

use super::DirCore;
use super::anew::with_suffix;
use super::aside::of;
use crate::checkpoint::{self, Checkpoint};
use crate::config::Mutant;
use crate::deleter::DELETED;
use crate::error::Error;
use crate::recovery::{self, Place};

/// In the name of a folder that stands for a log, in the place of the topic's name, which the checkpoint does not know.
const NAME: &str = "missing";

/// Whether a folder has such a name.
pub(crate) fn is_stand_in(folder: &Path) -> bool {
    let name = folder.file_name().and_then(|name| name.to_str());
    name.and_then(|name| name.split('.').next()?.rsplit_once('-')).is_some_and(|(topic, _)| topic == NAME)
}

impl DirCore {
    /// Adds the places of logs that are missing to those that were found. That they are is durable before anything is made
    /// in their places.
    pub(super) fn stand_in_for_missing(
        &self,
        places: &mut BTreeMap<PartitionId, Vec<Place>>,
        checkpoint: &mut Checkpoint,
    ) -> Result<(), Error> {
        let missing = self.missing(places, checkpoint)?;
        if missing.is_empty() || self.has(Mutant::MissingUnnoticed) {
            return Ok(());
        }
        for key in &missing {
            checkpoint.get_mut(key).into_iter().for_each(|entry| entry.missing = true);
        }
        self.begin_with(checkpoint)?;
        for (id, incarnation) in missing {
            let path = self.path.join(recovery::folder_name(id, NAME, incarnation));
            places.entry(id).or_default().push(Place { id, incarnation, path });
        }
        Ok(())
    }

    /// Writes the first checkpoint of a directory that has none: what is known of the logs that are there is lost.
    pub(super) fn believe_none(
        &self,
        places: &[Result<Place, Vec<Place>>],
        checkpoint: &mut Checkpoint,
    ) -> Result<(), Error> {
        if !self.has(Mutant::ForgottenBelieved) {
            // What was set aside has its entry as well: somebody may take it back.
            for place in self.places_aside() {
                let entry = checkpoint::Entry { in_place: false, ..recovery::forgotten(&place) };
                checkpoint.insert((place.id, place.incarnation), entry);
            }
            let found = places.iter().flat_map(|places| match places {
                Ok(place) => std::slice::from_ref(place),
                Err(places) => places,
            });
            checkpoint.extend(found.map(|place| ((place.id, place.incarnation), recovery::forgotten(place))));
        }
        self.begin_with(checkpoint)
    }

    /// Makes what a start has found out durable, before it acts upon that.
    fn begin_with(&self, checkpoint: &Checkpoint) -> Result<(), Error> {
        let said = checkpoint::encode(checkpoint, self.directory_id.0);
        self.replace_checkpoint(&mut self.checkpoint.lock(), &said)
    }

    /// Of each partition one at most: the one that has gone furthest.
    fn missing(
        &self,
        places: &BTreeMap<PartitionId, Vec<Place>>,
        checkpoint: &Checkpoint,
    ) -> Result<Vec<(PartitionId, Incarnation)>, Error> {
        let (strays, damaged) = (self.strays.partitions(), self.damaged.lock());
        let strays: BTreeSet<_> = strays.into_iter().map(|(id, _)| id).collect();
        let is_gone = |key: &(PartitionId, Incarnation), entry: &checkpoint::Entry| {
            let is_elsewhere = damaged.contains_key(key) || strays.contains(&key.0);
            entry.in_place && !places.contains_key(&key.0) && !is_elsewhere
        };
        let mut gone: Vec<_> = checkpoint.iter().filter(|(key, entry)| is_gone(key, entry)).collect();
        if gone.is_empty() {
            return Ok(Vec::new());
        }
        // Cut off on its way back, a log that was set aside has had the one in its place out of its way.
        let found = self.handles.disk.list(&self.path).map_err(Error::io(&*self.path, "list"))?;
        let deleted: BTreeSet<_> =
            found.iter().filter_map(|entry| with_suffix(entry.name.as_ref(), DELETED)).collect();
        gone.retain(|(key, _)| !deleted.contains(key));
        let mut furthest: BTreeMap<PartitionId, (Incarnation, i64)> = BTreeMap::new();
        for ((id, incarnation), entry) in gone {
            let known = furthest.entry(*id).or_insert((*incarnation, entry.said_end()));
            if entry.said_end() > known.1 {
                *known = (*incarnation, entry.said_end());
            }
        }
        Ok(furthest.into_iter().map(|(id, (incarnation, _))| (id, incarnation)).collect())
    }

    /// Makes the folder that stands for a log. One that somebody has brought back is left as it is.
    pub(crate) fn stand_in(&self, place: &Place) -> Result<(), Error> {
        match self.handles.retry(|| self.handles.disk.create_dir(&place.path)) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                let what = format!(
                    "this folder is missing, with all that was in it, and cannot be made anew: {error}"
                );
                Err(Error::damaged(&*place.path, what))
            }
            _ => Ok(()),
        }
    }

    /// Before something that a partition had is deleted for good: from here on no start misses it.
    ///
    /// # Errors
    /// The checkpoint cannot be written now: what is to go has to stay.
    pub(crate) fn is_missed_no_more(&self, id: PartitionId) -> Result<(), Error> {
        let is_named = self.checkpoint.lock().last.range(of(id)).any(|(_, entry)| entry.in_place);
        if is_named && !self.has(Mutant::DeletedUnsaid) {
            self.write_checkpoint()?;
        }
        Ok(())
    }

    /// The logs that cannot be used and are in their places.
    pub(super) fn unusable_in_place(&self) -> BTreeSet<(PartitionId, Incarnation)> {
        let unusable = self.unusable.read();
        unusable.keys().filter_map(|path| recovery::parse_folder_name(path.file_name()?.to_str()?)).collect()
    }
}
