//! What a partition is after a start: torn or rotten (correctness rule 36).
//!
//! After an orderly stop nothing is scanned. Otherwise the frames behind the last sidecar are walked through; those
//! behind the recovery point are checked to the last byte, from the disk and not from the page cache (class replicated
//! on a machine that has not been started again: from the page cache, which is all that the class counts on). A bad frame
//! ends the log if nothing says that it was ever durable: then it was torn by the crash, and nobody was told that it
//! is there. If the checkpoint, a sidecar, or a good frame behind it says that the log was durable beyond it, the
//! disk has lost what it had: the partition is damaged, its files are left as they are, and it stays offline.
//!
//! Only that is damage ([`Error::Damaged`]). What cannot be read now, for want of descriptors or because of the disk,
//! says nothing about what is there: the partition is offline until it is tried again. A sync or another change that
//! fails ends the process.

mod files;
mod sidecars;
mod walk;
mod whole;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use arc_swap::ArcSwap;
use parking_lot::{Mutex, RwLock};
use tokio::sync::watch;
use weir_io::Access;
use weir_types::{Incarnation, Offset, PartitionId, TopicId};

pub(crate) use self::sidecars::{StateUntil, drop_old_sidecars, load_sidecar, state_until, times_of};
use self::walk::{Recovery, Scanned};
pub use self::whole::Whole;
pub(crate) use self::whole::whole;
use crate::checkpoint::{self, RecoveryPoint};
use crate::claim::Claim;
use crate::config::{LogConfig, Mutant};
use crate::core::{Core, Tail};
use crate::dir::DirCore;
use crate::ends::Ends;
use crate::error::Error;
use crate::frame::Seed;
use crate::index::LiveIndex;
use crate::keeper::SealJob;
use crate::owner::{Owner, Start};
use crate::read::Places;
use crate::scan::State;
use crate::segment::{Index, Segment, parse_file_name};
use crate::spots::Spots;
use crate::start_state::StartState;

/// A folder that holds a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) id: PartitionId,
    pub(crate) incarnation: Incarnation,
    pub(crate) path: PathBuf,
}

/// The name of a partition's folder. The topic's name is for people.
pub(crate) fn folder_name(id: PartitionId, topic_name: &str, incarnation: Incarnation) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || c == '-' || c == '_' { c } else { '_' };
    let topic: String = topic_name.chars().take(100).map(plain).collect();
    format!("{topic}-{}.{}.{incarnation}", id.partition, id.topic)
}

/// A partition as people know it, `flights/3`, by its folder: for the log. The topic may be cut, and have `_` for other
/// signs; where it is known, it is said by who knows it.
pub(crate) fn shown_name(folder: &Path) -> String {
    let name = folder.file_name().unwrap_or_default().to_string_lossy();
    // NAME-PARTITION.TOPIC_ID.INCARNATION
    let front = name.split('.').next().unwrap_or_default();
    front.rsplit_once('-').map_or_else(|| name.to_string(), |(topic, number)| format!("{topic}/{number}"))
}

/// What a folder's name says; `None`: no partition's.
pub(crate) fn parse_folder_name(name: &str) -> Option<(PartitionId, Incarnation)> {
    let (rest, incarnation) = name.rsplit_once('.')?;
    let (rest, topic) = rest.rsplit_once('.')?;
    let (_, partition) = rest.rsplit_once('-')?;
    let topic: TopicId = topic.parse().ok()?;
    let partition: i32 = partition.parse().ok().filter(|number| *number >= 0)?;
    Some((PartitionId { topic, partition }, incarnation.parse().ok()?))
}

/// A partition that is usable again.
pub(crate) struct Recovered {
    pub(crate) core: Arc<Core>,
    /// How much was cut off its end.
    pub(crate) truncated_bytes: u64,
    /// From which offset on it was torn, if it was.
    pub(crate) torn_from: Option<Offset>,
    /// Whether it was walked through.
    pub(crate) scanned: bool,
}

/// Whether there is anything in a partition's folder: a frame, or a segment that others have gone before.
pub(crate) fn holds_frames(dir: &DirCore, place: &Place) -> Result<bool, Error> {
    let disk = &dir.handles.disk;
    for entry in disk.list(&place.path).map_err(Error::io(&*place.path, "list"))? {
        let Some((base, "log")) = parse_file_name(&entry.name) else { continue };
        let path = place.path.join(&entry.name);
        let len = disk.open(&path, Access::Read).and_then(|file| file.len());
        if base > 0 || len.map_err(Error::io(&*path, "stat"))? > 0 {
            return Ok(true);
        }
    }
    Ok(false)
}

/// A fresh partition, whose folder exists and is empty.
pub(crate) fn create(dir: &Arc<DirCore>, place: Place, config: LogConfig) -> Result<Arc<Core>, Error> {
    let entry = default_entry(place.incarnation, 0, &config);
    let state = Recovery::new(dir, &place, &config).empty_state(false);
    create_with(dir, place, config, entry, state, Access::CreateNew)
}

/// What a log needs to begin with what another replica knows: its first segment, and beside it that. The folder exists and
/// is empty; all that is in it is durable when this returns.
pub(crate) fn write_beginning(
    dir: &Arc<DirCore>,
    place: &Place,
    config: &LogConfig,
    state: StartState,
) -> Result<(), Error> {
    let recovery = Recovery::new(dir, place, config);
    let path = recovery.path(state.offset, "log");
    let handles = &dir.handles;
    handles.retry(|| handles.disk.open(&path, Access::CreateNew)).map_err(Error::io(&*path, "create"))?;
    let begin = state.offset;
    let known = State {
        producers: recovery.producers(state.producers, state.forgot),
        epochs: state.epochs,
        last_append_ms: state.last_append_ms,
    };
    // Makes the names in the folder durable.
    recovery.write_start(begin, &known)
}

/// Opens what was made so, under its own name.
pub(crate) fn open_beginning(
    dir: &Arc<DirCore>,
    place: Place,
    begin: Offset,
    config: LogConfig,
) -> Result<Arc<Core>, Error> {
    let state = Recovery::new(dir, &place, &config).state_before(begin)?;
    let entry = default_entry(place.incarnation, begin, &config);
    let core = create_with(dir, place, config, entry, state, Access::Write)?;
    core.segments.load().iter().for_each(|segment| segment.set_named());
    Ok(core)
}

/// A log without frames that begins where the entry says.
fn create_with(
    dir: &Arc<DirCore>,
    place: Place,
    config: LogConfig,
    entry: checkpoint::Entry,
    state: State,
    access: Access,
) -> Result<Arc<Core>, Error> {
    let base = entry.log_start;
    let segment = Arc::new(Segment::new(&place.path, base, 0, false, Index::Live(LiveIndex::new(base))));
    let handles = &dir.handles;
    let file = handles
        .retry(|| handles.disk.open(&segment.path, access))
        .map_err(Error::io(&*segment.path, "create"))?;
    segment.adopt(&dir.handles, file);
    let ends = Ends {
        log_start: base,
        last_stable: base,
        high_watermark: base,
        flushed_end: base,
        log_end: base,
        epoch_start: 0,
        may_lack: false,
    };
    Ok(assemble(dir, place, config, vec![segment], state, ends, entry))
}

/// A log without frames, durably: nothing is left of what it held, so that it is in a generation of its own, and what was
/// written beside segments from here on says nothing of the ones that come to begin where they did (rule 38). The
/// generation is in the checkpoint before anything is appended.
fn begin_anew(recovery: &Recovery<'_>, before: &checkpoint::Entry, state: State) -> Result<Arc<Core>, Error> {
    let (dir, place, config) = (recovery.dir, recovery.place, recovery.config);
    let begun = default_entry(place.incarnation, before.log_start, config);
    recovery.remove_witnesses(before.log_start)?;
    let entry = checkpoint::Entry { generation: before.generation + 1, ..begun };
    let core = create_with(dir, place.clone(), config.clone(), entry, state, Access::CreateNew)?;
    sync_folder(dir, &core)?;
    Ok(core)
}

fn sync_folder(dir: &DirCore, core: &Core) -> Result<(), Error> {
    let folder = dir.handles.open_dir(&core.path).map_err(Error::io(&*core.path, "open"))?;
    dir.sync_names(&core.path, &*folder)
}

fn default_entry(incarnation: Incarnation, base: Offset, config: &LogConfig) -> checkpoint::Entry {
    checkpoint::Entry {
        incarnation,
        generation: 0,
        log_start: base,
        recovery_point: RecoveryPoint { offset: base, segment: base, position: 0 },
        high_watermark: base,
        log_end: base,
        leader_epoch: -1,
        durability: config.durability,
        cut_to: None,
        producer_expiry_ms: config.producer_expiry_ms,
        producers_max: config.producers_max as u64,
        in_place: true,
        missing: false,
        forgotten: false,
    }
}

/// What a checkpoint says of a log of which nothing is known any more.
pub(crate) fn forgotten(place: &Place) -> checkpoint::Entry {
    checkpoint::Entry { forgotten: true, ..default_entry(place.incarnation, 0, &LogConfig::default()) }
}

/// `segments` are in order; the last one is written to.
fn assemble(
    dir: &Arc<DirCore>,
    place: Place,
    config: LogConfig,
    segments: Vec<Arc<Segment>>,
    state: State,
    ends: Ends,
    durable: checkpoint::Entry,
) -> Arc<Core> {
    let (published, seen) = watch::channel(ends.checked());
    let Place { id, incarnation, path } = place;
    for pair in segments.windows(2) {
        if let [segment, next] = pair {
            segment.set_end(Some(next.base));
        }
    }
    let active = segments.last().cloned().unwrap_or_else(|| {
        Arc::new(Segment::new(&path, ends.log_end, 0, false, Index::Live(LiveIndex::new(ends.log_end))))
    });
    if active.written() > 0 {
        dir.may_be_ahead(id);
    }
    let rules = (&config).into();
    let owner = Owner::new(Start {
        config,
        producers: state.producers,
        active,
        ends,
        published,
        last_epoch: state.epochs.last(),
        last_append_ms: state.last_append_ms,
    });
    let tail: Tail = owner.tail();
    Arc::new(Core {
        id,
        seed: Seed::of(id, incarnation),
        incarnation,
        path,
        dir: Arc::clone(dir),
        ends: seen,
        segments: ArcSwap::from_pointee(segments),
        epochs: RwLock::new(state.epochs),
        tail: Mutex::new(tail),
        durable: Mutex::new(durable),
        rules: Mutex::new(rules),
        claim: Claim::new(Box::new(owner)),
        flush_queued: AtomicBool::new(false),
        stalled_listed: AtomicBool::new(false),
        lazy_listed: AtomicBool::new(false),
        note_listed: AtomicBool::new(false),
        closed: AtomicBool::new(false),
        leads: AtomicBool::new(false),
        places: Places::default(),
        spots: Spots::default(),
        files: Mutex::default(),
    })
}

/// Opens a partition that was there before.
pub(crate) fn recover(
    dir: &Arc<DirCore>,
    place: Place,
    entry: Option<checkpoint::Entry>,
    clean: bool,
) -> Result<Recovered, Error> {
    let known = entry.is_some();
    let mut entry = entry.unwrap_or_else(|| default_entry(place.incarnation, 0, &LogConfig::default()));
    let config = entry.log_config();
    let is_missing = std::mem::take(&mut entry.missing);
    if is_missing {
        dir.stand_in(&place)?;
    }
    let mut recovery = Recovery::new(dir, &place, &config);
    let mut bases = recovery.bases()?;
    if !known {
        entry.log_start = bases.first().copied().unwrap_or(0);
    }
    // With its files somebody has brought it back; with a cut somebody has given up what it had.
    if is_missing && bases.is_empty() && entry.cut_to.is_none() {
        let what =
            "a start has not found this folder, and has made it anew, empty: all that was in it is missing";
        return Err(Error::damaged(&*place.path, what));
    }
    if entry.forgotten {
        let what = "how far it was durable, and where it began, is not known: the checkpoint of this directory, which said \
                    it, was not there at a start";
        return Err(Error::damaged(&*place.path, what));
    }
    if let Some(to) = entry.cut_to {
        recovery.remove_behind(&mut bases, to)?;
    }
    recovery.remove_before(&mut bases, entry.log_start)?;
    let Some(first) = bases.first().copied() else {
        if entry.recovery_point.offset > entry.log_start || entry.log_end > entry.log_start {
            return Err(Error::damaged(&*place.path, "its segments are missing"));
        }
        let core = begin_anew(&recovery, &entry, recovery.state_before(entry.log_start)?)?;
        return Ok(Recovered { core, truncated_bytes: 0, torn_from: None, scanned: false });
    };
    if first > entry.log_start {
        let what = format!("offsets {} to {first} are missing", entry.log_start);
        return Err(Error::damaged(&*place.path, what));
    }
    let noted = recovery.tail(&bases, &entry, clean)?;
    let scanned = noted.is_none();
    let Scanned { segments, mut state, mut end, last_base } = match noted {
        Some(noted) => noted,
        None => recovery.scan(&bases, &entry, known)?,
    };
    if dir.has(Mutant::ReuseOffset) {
        end = last_base.unwrap_or(end).max(entry.log_start);
    }
    let Recovery { truncated_bytes, torn_from, .. } = recovery;
    if end < entry.log_start {
        // Nothing behind the start was durable: class replicated, and the machine lost its power. Until the new segment
        // is there the old ones show that none is missing; from then on the sidecar of the last one says what is
        // known where the log begins, and they may go. Of the frames that are lost nobody knows who wrote them, so
        // that it is nobody's batch that "never" can be said of; their leaderships are known.
        if entry.leader_epoch >= 0 {
            state.epochs.note(entry.leader_epoch, entry.log_start);
        }
        state.epochs.cut_front(entry.log_start);
        let recovery = Recovery::new(dir, &place, &config);
        state.producers = recovery.producers(Vec::new(), true);
        let core = begin_anew(&recovery, &entry, state.clone())?;
        if let Some(last) = segments.last() {
            recovery.write_gone(last.base, &state, &entry)?;
        }
        for segment in &segments {
            recovery.unlink(segment.base, "log")?;
        }
        // Before a checkpoint says that the log is durable up to its start.
        sync_folder(dir, &core)?;
        return Ok(Recovered { core, truncated_bytes, torn_from, scanned });
    }
    state.epochs.cut_front(entry.log_start);
    if !segments.iter().any(|segment| segment.is_dirty()) {
        let (segment, position) =
            segments.last().map_or((end, 0), |segment| (segment.base, segment.written()));
        entry.recovery_point = RecoveryPoint { offset: end, segment, position };
    }
    if entry.cut_to.take().is_some() {
        entry.generation += 1;
    }
    let high_watermark = entry.high_watermark.max(entry.log_start).min(end);
    let ends = Ends {
        log_start: entry.log_start,
        last_stable: high_watermark,
        high_watermark,
        // A start that was moved says nothing of what is on the disk.
        flushed_end: entry.recovery_point.offset,
        log_end: end,
        epoch_start: 0,
        may_lack: false,
    };
    let core = assemble(dir, place, config, segments, state, ends, entry);
    Ok(Recovered { core, truncated_bytes, torn_from, scanned })
}

/// What the flusher and the keeper still have to do for a log that was walked through: as if its frames had just been
/// appended. Not before it is a log of the directory.
pub(crate) fn leave_the_rest(core: &Arc<Core>) {
    let durability = core.durable.lock().durability;
    let segments = core.segments.load();
    let unsynced: u64 = segments.iter().map(|segment| segment.written() - segment.synced().bytes).sum();
    core.dir.will_be_dirty(unsynced);
    for segment in segments.iter().filter(|segment| segment.facts.lock().is_some()) {
        core.dir.seal_later(SealJob { core: Arc::clone(core), segment: Arc::clone(segment) });
    }
    if segments.iter().any(|segment| segment.is_dirty()) {
        core.dir.wrote(core, durability);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partition_is_shown_by_its_folders_name() {
        let id = PartitionId { topic: TopicId(1), partition: 3 };
        let folder = Path::new("/d/logs").join(folder_name(id, "a-b.c", Incarnation(2)));
        assert_eq!(shown_name(&folder), "a-b_c/3");
        assert_eq!(shown_name(Path::new("/d/strange")), "strange");
    }
}
