//! A start: what is in a directory, and which of it is a partition that can be used.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use parking_lot::Mutex;
use weir_types::PartitionId;

use super::{Damaged, DirCore, OpenReport};
use crate::checkpoint::{self, Checkpoint};
use crate::deleter::{self, deleted_name, is_deleted_name};
use crate::dirfile::{self, BROKER_EPOCH, BrokerEpoch, CLEAN, FAILED, METADATA_VERSION, MetadataVersion};
use crate::error::Error;
use crate::recovery::{self, Place};
use crate::strays;

impl DirCore {
    /// Opens every partition there is.
    pub(super) fn recover(self: &Arc<Self>) -> Result<OpenReport, Error> {
        let disk = &self.handles.disk;
        let clean_path = self.path.join(CLEAN);
        let was_clean = dirfile::read_json::<BrokerEpoch>(&**disk, &clean_path).ok().flatten().is_some();
        let mut broker_epoch: Option<BrokerEpoch> =
            dirfile::read_json(&**disk, &self.path.join(BROKER_EPOCH))?;
        self.broker_epoch.lock().clone_from(&broker_epoch);
        // Without an orderly stop everything is still there if the machine has not been started again since.
        let boot_id = self.os.boot_id();
        let is_there = |epoch: &BrokerEpoch| !epoch.boot_id.is_empty() && epoch.boot_id == boot_id;
        // After a failure what the system remembers is not what the disk has, and some of it may be gone.
        let failed = self.path.join(FAILED);
        let has_failed = disk.exists(&failed).map_err(Error::io(&*failed, "stat"))?;
        let is_same_boot = !has_failed && broker_epoch.as_ref().is_some_and(is_there);
        self.same_boot.store(is_same_boot, Ordering::Release);
        self.in_order.store(was_clean || is_same_boot || broker_epoch.is_none(), Ordering::Release);
        let seen: Option<MetadataVersion> = dirfile::read_json(&**disk, &self.path.join(METADATA_VERSION))?;
        let mut checkpoint = self.read_checkpoint()?;
        if was_clean {
            self.outlives_the_marker(&mut broker_epoch)?;
        }
        if disk.exists(&clean_path).map_err(Error::io(&*clean_path, "stat"))? {
            // Before the first write: from here on it is not in order.
            disk.unlink_durably(&clean_path).map_err(Error::io(&*clean_path, "unlink"))?;
        }
        // What is acted on must not be undone by a power loss afterwards: a process that was killed may have left
        // names that are only in memory.
        disk.sync_dir(&self.path).map_err(Error::io(&*self.path, "fsync of a folder"))?;
        let mut report = OpenReport {
            clean: was_clean,
            created: false,
            directory_id: self.directory_id,
            identity: self.file.lock().identity.clone(),
            broker_epoch,
            same_boot: is_same_boot,
            metadata_version: seen.map_or(0, |seen| seen.metadata_version),
            partitions: 0,
            truncated: Vec::new(),
            damaged: Vec::new(),
            duration: Duration::ZERO,
        };
        let mut places: BTreeMap<PartitionId, Vec<Place>> = BTreeMap::new();
        for entry in disk.list(&self.path).map_err(Error::io(&*self.path, "list"))? {
            let path = self.path.join(&entry.name);
            if entry.is_dir && is_deleted_name(&path) {
                deleter::push_folder(self, &path).map_err(Error::io(&*path, "list"))?;
            }
            if entry.is_dir {
                strays::find(self, &entry.name);
            }
            let parsed = recovery::parse_folder_name(&entry.name).filter(|_| entry.is_dir);
            let Some((id, incarnation)) = parsed else { continue };
            places.entry(id).or_default().push(Place { id, incarnation, path });
        }
        self.options.progress.logs.set(places.len() as u64);
        let mut row: Vec<Box<dyn FnOnce() + Send>> = Vec::with_capacity(places.len());
        let torn = Arc::new(Mutex::new(BTreeMap::new()));
        for (id, places) in places {
            match self.one_place(places, &checkpoint)? {
                Ok(place) => {
                    let known = checkpoint.get(&(id, place.incarnation)).copied();
                    let (dir, torn) = (Arc::clone(self), Arc::clone(&torn));
                    row.push(Box::new(move || {
                        if let Some(bytes) = dir.recover_one(place, known, was_clean) {
                            torn.lock().insert(id, bytes);
                        }
                        dir.options.progress.logs_done.add(1);
                    }));
                }
                Err(places) => {
                    places.into_iter().for_each(|place| self.two_places(place));
                    self.options.progress.logs_done.add(1);
                }
            }
        }
        // They share nothing but what is counted; an error is one partition's.
        self.os.run_all(row);
        report.truncated.extend(torn.lock().iter().map(|(id, bytes)| (*id, *bytes)));
        report.damaged.extend(self.damaged.read().values().cloned());
        // Of partitions that are gone nothing is kept; of those that may come back what is known of them.
        let strays = self.strays.partitions();
        checkpoint.retain(|key, _| {
            strays.contains(key) || report.damaged.iter().any(|damaged| damaged.id == key.0)
        });
        self.checkpoint.lock().last = checkpoint;
        report.partitions = self.partitions.read().len();
        self.write_checkpoint()?;
        Ok(report)
    }

    /// Says of a directory that was left in order what is true of it until the machine is started again: everything of
    /// its last epoch is there. So a process that is killed between the marker's end and its own registration leaves
    /// as much of a proof behind as it found. Where there is no room for that, it does not.
    fn outlives_the_marker(&self, epoch: &mut Option<BrokerEpoch>) -> Result<(), Error> {
        let boot_id = self.os.boot_id();
        let Some(epoch) = epoch.as_mut().filter(|epoch| epoch.boot_id != boot_id) else { return Ok(()) };
        epoch.boot_id = boot_id;
        match dirfile::write_json(&*self.handles.disk, &self.path.join(BROKER_EPOCH), epoch) {
            Err(error) if error.is_no_space() => Ok(()),
            written => written,
        }
    }

    /// The one life of a partition that is there. A folder without a frame in it is what a creation that failed has
    /// left; it never stands for one with frames. Two with frames: an error, with all of them.
    fn one_place(
        &self,
        mut places: Vec<Place>,
        checkpoint: &Checkpoint,
    ) -> Result<Result<Place, Vec<Place>>, Error> {
        if places.len() > 1 {
            let mut keep = Vec::new();
            let mut empty = Vec::new();
            for place in places.drain(..) {
                let is_named = checkpoint.contains_key(&(place.id, place.incarnation));
                let holds = is_named || recovery::holds_frames(self, &place)?;
                if holds { &mut keep } else { &mut empty }.push(place);
            }
            if keep.is_empty() {
                keep.extend(empty.pop());
            }
            let disk = &self.handles.disk;
            for place in empty {
                let gone = deleted_name(&place.path);
                disk.rename(&place.path, &gone).map_err(Error::io(&*place.path, "rename"))?;
                deleter::push_folder(self, &gone).map_err(Error::io(&*gone, "list"))?;
            }
            places = keep;
        }
        Ok(match places.pop() {
            Some(place) if places.is_empty() => Ok(place),
            last => Err(places.into_iter().chain(last).collect()),
        })
    }

    /// Nobody knows which of them is the log.
    fn two_places(&self, place: Place) {
        let what = "another folder holds frames of the same partition: move one of them away".to_owned();
        self.stays_offline(Damaged { id: place.id, path: place.path, what });
    }

    fn stays_offline(&self, damaged: Damaged) {
        let Damaged { id, path, what } = &damaged;
        tracing::error!(partition = %id, path = %path.display(), what, "a partition stays offline");
        self.damaged.write().insert(path.clone(), damaged);
    }

    /// Opens a partition, or says why not. How much of its end was torn, if any.
    fn recover_one(
        self: &Arc<Self>,
        place: Place,
        known: Option<checkpoint::Entry>,
        clean: bool,
    ) -> Option<u64> {
        let id = place.id;
        let path = place.path.clone();
        match recovery::recover(self, place, known, clean) {
            Ok(recovered) => {
                self.partitions.write().insert(id, recovered.core);
                let bytes = Some(recovered.truncated_bytes).filter(|bytes| *bytes > 0)?;
                tracing::info!(partition = %id, bytes, "the torn end of a log was cut");
                Some(bytes)
            }
            Err(error) => {
                self.stays_offline(Damaged { id, path, what: error.to_string() });
                None
            }
        }
    }
}
