//! A start: what is in a directory, and which of it is a partition that can be used.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;
use weir_types::PartitionId;

use super::{DirCore, OpenReport, Unusable, anew, missing};
use crate::checkpoint::{self, Checkpoint};
use crate::config::Mutant;
use crate::core::Core;
use crate::deleter::{self, deleted_name, is_deleted_name};
use crate::dirfile::{self, BROKER_EPOCH, BrokerEpoch, CLEAN, METADATA_VERSION, MetadataVersion};
use crate::error::Error;
use crate::failed;
use crate::recovery::{self, Place, Recovered, Whole};
use crate::strays;

impl DirCore {
    /// Opens every partition there is.
    pub(super) fn recover(self: &Arc<Self>) -> Result<OpenReport, Error> {
        let started = Instant::now();
        let disk = &self.handles.disk;
        let clean_path = self.path.join(CLEAN);
        let was_clean = dirfile::read_json::<BrokerEpoch>(&**disk, &clean_path).unwrap_or_else(|error| {
            tracing::warn!(%error, "the marker of an orderly stop cannot be read: it counts as none");
            None
        });
        let was_clean = was_clean.is_some();
        let checkpoint = self.read_checkpoint()?;
        // A directory gets its checkpoint before its first log.
        let has_forgotten = checkpoint.is_none();
        let mut checkpoint = checkpoint.unwrap_or_default();
        let of_epoch = self.path.join(BROKER_EPOCH);
        let mut broker_epoch: Option<BrokerEpoch> = dirfile::read_json(&**disk, &of_epoch)?;
        if has_forgotten && broker_epoch.is_some() && !self.has(Mutant::ForgottenBelieved) {
            // It proves nothing until it is registered again, whoever starts it until then: a log that is gone as well is
            // missed by nobody here.
            self.or_fatal(disk.unlink_durably(&of_epoch).map_err(Error::io(&*of_epoch, "unlink")))?;
            broker_epoch = None;
        }
        self.broker_epoch.lock().clone_from(&broker_epoch);
        // Without an orderly stop everything is still there if the machine has not been started again since.
        let boot_id = self.os.boot_id();
        let is_there = |epoch: &BrokerEpoch| !epoch.boot_id.is_empty() && epoch.boot_id == boot_id;
        // After a failure what the system remembers is not what the disk has, and some of it may be gone.
        let failures = failed::noted(&**disk, &self.path)?;
        self.noted.lock().clone_from(&failures);
        let is_same_boot = failures.is_empty() && broker_epoch.as_ref().is_some_and(is_there);
        self.same_boot.store(is_same_boot, Ordering::Release);
        self.in_order.store(was_clean || is_same_boot || broker_epoch.is_none(), Ordering::Release);
        let seen: Option<MetadataVersion> = dirfile::read_json(&**disk, &self.path.join(METADATA_VERSION))?;
        if was_clean {
            self.or_fatal(self.outlives_the_marker(&mut broker_epoch))?;
        }
        let has_marker = disk.exists(&clean_path).map_err(Error::io(&*clean_path, "stat"))?;
        if has_marker && !self.has(Mutant::MarkerStays) {
            // Before the first write: from here on it is not in order.
            self.or_fatal(disk.unlink_durably(&clean_path).map_err(Error::io(&*clean_path, "unlink")))?;
        }
        // What is acted on must not be undone by a power loss afterwards: a process that was killed may have left
        // names that are only in memory.
        self.or_fatal(disk.sync_dir(&self.path).map_err(Error::io(&*self.path, "fsync of a folder")))?;
        let mut report = OpenReport {
            clean: was_clean,
            created: false,
            directory_id: self.directory_id,
            identity: self.file.lock().identity.clone(),
            broker_epoch,
            same_boot: is_same_boot,
            failures,
            metadata_version: seen.map_or(0, |seen| seen.metadata_version),
            metadata_author: seen.map_or(0, |seen| seen.author),
            partitions: 0,
            truncated: Vec::new(),
            damaged: Vec::new(),
            offline: Vec::new(),
            duration: Duration::ZERO,
        };
        let mut logs = self.find_logs()?;
        self.stand_in_for_missing(&mut logs, &mut checkpoint)?;
        let mut places = Vec::with_capacity(logs.len());
        for places_of_one in logs.into_values() {
            places.push(self.one_place(places_of_one, &checkpoint)?);
        }
        if has_forgotten {
            self.believe_none(&places, &mut checkpoint)?;
        }
        report.truncated = self.open_all(places, &checkpoint, was_clean, started);
        (report.damaged, report.offline) =
            self.unusable().into_iter().partition(|unusable| unusable.is_damaged);
        // As it is on the disk: of partitions that are gone nothing is kept in the next one, of those that may come back what is
        // known of them.
        self.checkpoint.lock().last = checkpoint;
        report.partitions = self.partitions.read().len();
        self.write_checkpoint()?;
        Ok(report)
    }

    /// The logs in the directory: more than one place for a partition if it has more than one folder. What was set aside
    /// or is to be deleted is noted.
    fn find_logs(&self) -> Result<BTreeMap<PartitionId, Vec<Place>>, Error> {
        let mut places: BTreeMap<PartitionId, Vec<Place>> = BTreeMap::new();
        let mut begun = Vec::new();
        for entry in self.handles.disk.list(&self.path).map_err(Error::io(&*self.path, "list"))? {
            let path = self.path.join(&entry.name);
            if entry.is_dir && is_deleted_name(&path) {
                deleter::push_folder(self, &path).map_err(Error::io(&*path, "list"))?;
            }
            if entry.is_dir {
                strays::find(self, &entry.name);
            }
            if entry.is_dir {
                self.find_aside(&path);
                self.find_cut_off(&path)?;
            }
            if entry.is_dir && anew::is_begun_name(&path) {
                begun.push(path.clone());
            }
            let parsed = recovery::parse_folder_name(&entry.name).filter(|_| entry.is_dir);
            let Some((id, incarnation)) = parsed else { continue };
            places.entry(id).or_default().push(Place { id, incarnation, path });
        }
        self.finish_begun(begun, &mut places)?;
        self.options.progress.logs.set(places.len() as u64);
        Ok(places)
    }

    /// Opens the logs, side by side. Says of which ones a torn end was cut, and how many bytes.
    fn open_all(
        self: &Arc<Self>,
        places: Vec<Result<Place, Vec<Place>>>,
        checkpoint: &Checkpoint,
        was_clean: bool,
        started: Instant,
    ) -> Vec<(PartitionId, u64)> {
        let mut row: Vec<Box<dyn FnOnce() + Send>> = Vec::with_capacity(places.len());
        let seen = Arc::new(Mutex::new(Seen::default()));
        let scanned_before = self.options.progress.scanned_bytes.get();
        for place in self.places_aside() {
            let known = checkpoint.get(&(place.id, place.incarnation)).copied();
            let dir = Arc::clone(self);
            row.push(Box::new(move || dir.look_at_aside(&place, known)));
        }
        for place in places {
            match place {
                Ok(place) => {
                    let known = checkpoint.get(&(place.id, place.incarnation)).copied();
                    let (dir, seen) = (Arc::clone(self), Arc::clone(&seen));
                    row.push(Box::new(move || {
                        dir.recover_one(place, known, was_clean, &seen);
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
        let Seen { mut truncated, scanned } = std::mem::take(&mut *seen.lock());
        truncated.sort_unstable();
        if !was_clean && scanned > 0 {
            let bytes = self.options.progress.scanned_bytes.get() - scanned_before;
            let (took, torn) = (started.elapsed(), truncated.len());
            tracing::info!(
                logs = scanned,
                bytes,
                torn,
                ?took,
                "the last stop was not in order: logs were scanned"
            );
        }
        truncated
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
                let known = checkpoint.get(&(place.id, place.incarnation));
                // What stands for a log that was missing gives way to that log.
                let is_named = known.is_some_and(|known| !known.missing);
                let holds = is_named || recovery::holds_frames(self, &place)?;
                if holds { &mut keep } else { &mut empty }.push(place);
            }
            if keep.is_empty() {
                // Also where the log that was missing has nothing in it.
                let stands_in = |place: &Place| missing::is_stand_in(&place.path);
                let own = empty.iter().rposition(|place| !stands_in(place));
                keep.extend(own.map(|at| empty.remove(at)).or_else(|| empty.pop()));
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
        self.stays_closed(Unusable { id: place.id, path: place.path, what, is_damaged: true, whole: None });
    }

    pub(super) fn stays_closed(&self, unusable: Unusable) {
        let Unusable { id, path, what, is_damaged, .. } = &unusable;
        let name = recovery::shown_name(path);
        if *is_damaged {
            tracing::error!(
                name, partition = %id, path = %path.display(), what,
                "a damaged log is not used: it is fetched anew where another replica leads, and offline where none does"
            );
        } else {
            tracing::error!(
                name, partition = %id, path = %path.display(), what,
                "a log cannot be opened now: its replica is offline until it can, which is tried on"
            );
        }
        self.unusable.write().insert(path.clone(), unusable);
    }

    /// Opens a partition, or says why not.
    fn recover_one(
        self: &Arc<Self>,
        place: Place,
        known: Option<checkpoint::Entry>,
        clean: bool,
        seen: &Mutex<Seen>,
    ) {
        match recovery::recover(self, place.clone(), known, clean) {
            Ok(recovered) => self.opened(recovered, seen),
            Err(error) => self.could_not_open(&place, known, &error),
        }
    }

    fn opened(&self, recovered: Recovered, seen: &Mutex<Seen>) {
        let Recovered { core, truncated_bytes: bytes, torn_from, scanned } = recovered;
        let id = core.id;
        recovery::leave_the_rest(&core);
        if let Some(offset) = torn_from {
            let (name, path) = (recovery::shown_name(&core.path), core.path.display());
            tracing::warn!(name, partition = %id, %path, bytes, offset, "the end of a log was torn, and is cut");
        }
        let mut seen = seen.lock();
        seen.scanned += usize::from(scanned);
        if bytes > 0 {
            seen.truncated.push((id, bytes));
        }
        self.partitions.write().insert(id, core);
    }

    /// Only what is known to be lost is damage: the controller is told of it, and acts. How much of such a log is whole
    /// is looked up at once: whoever is asked for it later has no time to read.
    pub(super) fn could_not_open(
        self: &Arc<Self>,
        place: &Place,
        known: Option<checkpoint::Entry>,
        error: &Error,
    ) {
        let is_damaged = matches!(error, Error::Damaged { .. });
        let whole = if is_damaged { self.whole_of(place, known).ok() } else { None };
        let (id, path) = (place.id, place.path.clone());
        self.stays_closed(Unusable { id, path, what: error.to_string(), is_damaged, whole });
    }

    pub(super) fn whole_of(
        self: &Arc<Self>,
        place: &Place,
        known: Option<checkpoint::Entry>,
    ) -> Result<Whole, Error> {
        let (path, seen) = (place.path.display(), recovery::whole(self, place, known));
        match &seen {
            Ok(Whole { end, known_end, .. }) => {
                tracing::warn!(%path, end, known_end, "a damaged log is whole up to an offset");
            }
            Err(error) => tracing::error!(%path, %error, "how much of a damaged log is whole cannot be said"),
        }
        seen
    }

    /// Tries a partition again that could not be opened for now. One at a time, so that no log gets two owners.
    ///
    /// As after a start, what was found and done is in the checkpoint before anything is appended: as long as that says of
    /// a cut that it was begun, or names the generation before it, a start would cut what came since (rule 38). Without
    /// room for that the partition stays as it is.
    pub(super) fn reopen(self: &Arc<Self>, id: PartitionId) -> Result<Option<Arc<Core>>, Error> {
        let _turn = self.reopening.lock();
        if let Some(core) = self.partitions.read().get(&id) {
            return Ok(Some(Arc::clone(core)));
        }
        let is_it = |unusable: &&Unusable| unusable.id == id && !unusable.is_damaged;
        let Some(path) = self.unusable.read().values().find(is_it).map(|unusable| unusable.path.clone())
        else {
            return Ok(None);
        };
        let name = path.file_name().and_then(|name| name.to_str());
        let Some((_, incarnation)) = name.and_then(recovery::parse_folder_name) else { return Ok(None) };
        let known = self.checkpoint.lock().last.get(&(id, incarnation)).copied();
        let place = Place { id, incarnation, path: path.clone() };
        let core = self.open_again(&place, known)?;
        let name = recovery::shown_name(&path);
        tracing::info!(name, partition = %id, "a partition that could not be opened is open now");
        Ok(Some(core))
    }

    /// Opens a log that could not be used, by what the checkpoint says of it. For whoever has the turn.
    pub(super) fn open_again(
        self: &Arc<Self>,
        place: &Place,
        known: Option<checkpoint::Entry>,
    ) -> Result<Arc<Core>, Error> {
        // What was written down at a stop in order says nothing of it if it was closed then.
        let recovered = recovery::recover(self, place.clone(), known, false)
            .and_then(|recovered| {
                if !self.has(Mutant::ReopenedCutKept) {
                    self.write_checkpoint_with(&recovered.core)?;
                }
                Ok(recovered)
            })
            .inspect_err(|error| self.could_not_open(place, known, error))?;
        let core = Arc::clone(&recovered.core);
        self.opened(recovered, &Mutex::default());
        self.unusable.write().remove(&place.path);
        Ok(core)
    }
}

/// What the walks have found.
#[derive(Default)]
struct Seen {
    truncated: Vec<(PartitionId, u64)>,
    /// How many logs were walked through.
    scanned: usize,
}
