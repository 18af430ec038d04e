//! What an owner does on the pool, because it has to wait for the disk: cut, close. The claim goes
//! along, so nothing else happens to the partition meanwhile.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::BytesMut;
use weir_io::{Access, File, Folder};
use weir_types::Offset;

use crate::checkpoint::RecoveryPoint;
use crate::config::{LogConfig, Mutant};
use crate::control::Answer;
use crate::core::Core;
use crate::error::Error;
use crate::flusher;
use crate::keeper;
use crate::owner::{Job, Owner};
use crate::recovery;
use crate::scan::{self, Walk};
use crate::segment::{Index, Pin, Segment};

/// How much is copied at a time when a sealed segment is cut.
const COPY_BYTES: usize = 1 << 20;

fn answering(
    answer: Answer<()>,
    job: impl FnOnce(&Arc<Core>, &mut Owner) -> Result<(), Error> + Send + 'static,
) -> Job {
    Box::new(move |core, owner| {
        let result = job(core, owner);
        owner.advance(core);
        // Whoever asked may have gone.
        drop(answer.send(result));
    })
}

/// What the next start, and retention, have to know of a partition's settings.
pub(crate) fn note_config(core: &Core, config: &LogConfig) {
    let mut durable = core.durable.lock();
    durable.durability = config.durability;
    durable.producer_expiry_ms = config.producer_expiry_ms;
    durable.producers_max = config.producers_max as u64;
    drop(durable);
    *core.rules.lock() = config.into();
}

/// Cuts the log.
pub(crate) fn truncate(to: Offset, below_high_watermark: bool, answer: Answer<()>) -> Job {
    answering(answer, move |core, owner| {
        if !below_high_watermark {
            return cut_log(core, owner, to, owner.ends.high_watermark);
        }
        // Until it is done no start moves: none that was decided by the high watermark as it was.
        let _moving = core.dir.moving.lock();
        let begun = core.durable.lock().log_start;
        cut_log(core, owner, to, begun.max(owner.ends.log_start))
    })
}

/// Why nothing acknowledged can be lost here: everything from `to` on is above the high watermark, or whoever asks
/// accepts that it is lost. What is kept is synced before the checkpoint says so, and the checkpoint is durable before
/// anything is appended where something else was (correctness rule 38). A crash in between finds the cut in the
/// checkpoint and finishes it.
///
/// Whoever reads meanwhile reads again: the ends that are told fall before anything is cut, and with them the log's count
/// of cuts rises, before the first frame is appended behind it.
fn cut_log(core: &Arc<Core>, owner: &mut Owner, to: Offset, min: Offset) -> Result<(), Error> {
    let ends = owner.ends;
    if owner.closed {
        return Err(Error::Closed);
    }
    if to < min || to > ends.log_end {
        return Err(Error::OutOfRange { given: to, min, max: ends.log_end });
    }
    if to == ends.log_end {
        owner.cut_epochs(core, to);
        return Ok(());
    }
    let _files = core.files.lock();
    let segments = core.segments.load_full();
    let Some(segment) = Core::segments_from(&segments, to).first().cloned() else {
        return Err(Error::Closed);
    };
    let found = recovery::state_until(core, &segment, to, &owner.config)?;
    let (state, position, index) = (found.state, found.found.position, found.found.index);
    if found.found.end != to {
        return Err(Error::damaged(
            &*segment.path,
            format!("no frame begins at offset {to}: nothing was cut"),
        ));
    }
    let point = RecoveryPoint { offset: to, segment: segment.base, position };
    let reached = segment.base == owner.active.base;
    // All that takes room or descriptors comes first: without it nothing has happened, and nothing will.
    let folder = core.dir.handles.open_dir(&core.path).map_err(Error::io(&*core.path, "open"))?;
    let kept = Kept::prepare(core, &segment, position, reached)?;
    begin_cut(core, point).inspect_err(|_| kept.forget(core))?;
    owner.waits.cut(to);
    owner.cut_epochs(core, to);
    core.dir.synced(segment.cut(position));
    owner.ends.log_end = to;
    owner.ends.flushed_end = ends.flushed_end.min(to);
    owner.ends.high_watermark = ends.high_watermark.min(to);
    owner.ends.last_stable = ends.last_stable.min(to);
    owner.publish();
    core.places.clear();
    core.spots.cut(to);
    let early = core.dir.has(Mutant::GenerationBeforeKept);
    let begun = if early { finish_cut(core, point) } else { Ok(()) };
    let result = begun.and_then(|()| cut_files(core, (&segments, &segment), position, kept, &*folder));
    let active = match result {
        Ok(active) => active,
        Err(error) => {
            core.dir.fatal_error("truncate", &error);
            return Err(error);
        }
    };
    *active.index.write() = Index::Live(index);
    active.set_end(None);
    *active.facts.lock() = None;
    let mut left: Vec<_> = segments.iter().filter(|other| other.base < segment.base).cloned().collect();
    left.push(Arc::clone(&active));
    core.segments.store(Arc::new(left));
    owner.active = active;
    owner.position = position;
    owner.allocated = position;
    owner.noted = 0;
    owner.next = to;
    owner.ends.flushed_end = to;
    owner.cuts += 1;
    if !core.dir.has(Mutant::ProducersKept) {
        owner.producers = state.producers;
    }
    owner.last_append_ms = state.last_append_ms;
    *core.tail.lock() = owner.tail();
    owner.publish();
    if early {
        return Ok(());
    }
    // The files are cut: as long as the checkpoint says that they are to be, nothing may be appended.
    finish_cut(core, point).inspect_err(|error| core.dir.fatal_error("truncate", error))
}

/// From here on what lies behind this point proves nothing any more, and a start finishes the cut.
fn begin_cut(core: &Arc<Core>, point: RecoveryPoint) -> Result<(), Error> {
    if core.dir.has(Mutant::RecoveryPointKept) {
        return core.dir.write_checkpoint();
    }
    core.dir.change_durably(core, |entry| {
        entry.cut_to = Some(point.offset);
        if entry.recovery_point.offset > point.offset {
            entry.recovery_point = point;
        }
    })
}

/// The cut is done: durable before anything is appended behind it.
fn finish_cut(core: &Arc<Core>, point: RecoveryPoint) -> Result<(), Error> {
    core.dir.change_durably(core, |entry| {
        entry.generation += 1;
        if entry.cut_to.take().is_some() {
            entry.recovery_point = point;
        }
    })
}

/// The segment that a cut lies in, with all that is needed to cut it.
enum Kept {
    /// It is still written to: its file is cut.
    Open(Pin, Arc<dyn File>),
    /// Somebody may have mapped or be reading the sealed file: it is replaced by a copy of its beginning (rule 37).
    Copy(PathBuf, Arc<dyn File>),
}

impl Kept {
    fn prepare(
        core: &Arc<Core>,
        segment: &Arc<Segment>,
        position: u64,
        is_active: bool,
    ) -> Result<Self, Error> {
        let pin = segment.pin();
        let file = segment.open(&core.dir.handles).map_err(Error::io(&*segment.path, "open"))?;
        if is_active {
            return Ok(Self::Open(pin, file));
        }
        flusher::sync_segments(&core.dir, core)?;
        let handles = &core.dir.handles;
        let temp = segment.path.with_extension("log.tmp");
        let new = handles
            .retry(|| handles.disk.open(&temp, Access::CreateOrTruncate))
            .map_err(Error::io(&*temp, "create"))?;
        let kept = Self::Copy(temp.clone(), Arc::clone(&new));
        let copied = copy(core, segment, &*file, (&temp, &*new), position);
        copied.map(|()| kept).inspect_err(|_| drop(handles.disk.unlink(&temp)))
    }

    /// It does not come to the cut.
    fn forget(&self, core: &Core) {
        if let Self::Copy(temp, _) = self {
            // Left behind it is overwritten the next time.
            drop(core.dir.handles.disk.unlink(temp));
        }
    }
}

/// Copies the beginning of a segment, durably.
fn copy(
    core: &Core,
    segment: &Segment,
    old: &dyn File,
    (temp, new): (&Path, &dyn File),
    until: u64,
) -> Result<(), Error> {
    let mut at = 0;
    while at < until {
        let mut buf = BytesMut::with_capacity(COPY_BYTES);
        let wanted = (until - at).min(COPY_BYTES as u64) as usize;
        let n = old.read_at(&mut buf, wanted, at).map_err(Error::io(&*segment.path, "read"))?;
        if n == 0 {
            return Err(Error::damaged(&*segment.path, format!("it ends at byte {at}, {until} are in use")));
        }
        new.write_all_at(&buf, at).map_err(|error| core.dir.passing_or_fatal(temp, "write", error))?;
        at += n as u64;
    }
    new.sync_all().map_err(|error| core.dir.passing_or_fatal(temp, "fsync", error))
}

/// Takes away the files behind the cut, the last one first, and cuts the one it lies in. The segment to go on with.
fn cut_files(
    core: &Arc<Core>,
    (segments, segment): (&[Arc<Segment>], &Arc<Segment>),
    position: u64,
    kept: Kept,
    folder: &dyn Folder,
) -> Result<Arc<Segment>, Error> {
    let handles = &core.dir.handles;
    let sync_folder = || core.dir.sync_names(&core.path, folder);
    for later in segments.iter().rev().take_while(|later| later.base > segment.base) {
        core.dir.synced(later.give_up());
        remove(core, &later.path)?;
        remove(core, &later.sidecar_path("seal"))?;
        remove(core, &later.sidecar_path("tail"))?;
    }
    remove(core, &segment.sidecar_path("seal"))?;
    remove(core, &segment.sidecar_path("tail"))?;
    sync_folder()?;
    segments.iter().take_while(|kept| kept.base <= segment.base).for_each(|kept| kept.set_named());
    match kept {
        Kept::Open(_pin, file) => {
            file.set_len(position).map_err(Error::io(&*segment.path, "cut"))?;
            // The segments before it too; and the cut itself, whether anything was unsynced or not.
            flusher::sync_segments(&core.dir, core)?;
            flusher::sync_cut(&core.dir, segment, &*file)?;
            Ok(Arc::clone(segment))
        }
        Kept::Copy(temp, file) => {
            handles.disk.rename(&temp, &segment.path).map_err(Error::io(&*temp, "rename"))?;
            sync_folder()?;
            core.dir.synced(segment.give_up());
            let new = Arc::new(Segment::new(&core.path, segment.base, position, true, Index::Unloaded));
            new.adopt(handles, file);
            Ok(new)
        }
    }
}

pub(crate) fn remove(core: &Core, path: &Path) -> Result<(), Error> {
    match core.dir.handles.disk.unlink(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::io(path, "unlink")(error)),
        _ => Ok(()),
    }
}

/// Syncs everything and writes down what saves a scan at the next start.
pub(crate) fn close(answer: Answer<()>) -> Job {
    answering(answer, move |core, owner| {
        if owner.closed {
            return Ok(());
        }
        owner.closed = true;
        let tail = owner.tail();
        flusher::sync_segments(&core.dir, core)?;
        owner.flushed(core, tail);
        owner.advance(core);
        let kept = keeper::write_tail(core, owner);
        owner.abandon(core);
        kept
    })
}

/// Whether everything a walk was asked for is there.
pub(crate) fn walk_file(
    core: &Core,
    segment: &Arc<Segment>,
    until: Option<Offset>,
    state: &mut scan::State,
) -> Result<scan::Found, Error> {
    let file = segment.open(&core.dir.handles).map_err(Error::io(&*segment.path, "open"))?;
    let len = segment.written();
    let walk = Walk {
        file: &*file,
        seed: core.seed,
        base: segment.base,
        len,
        verify_from: u64::MAX,
        until,
        from: None,
        passed_bytes: None,
    };
    let found = scan::walk(walk, state).map_err(Error::io(&*segment.path, "read"))?;
    match found.bad {
        Some(bad) => Err(Error::damaged(&*segment.path, format!("byte {}: {bad}", found.position))),
        None => Ok(found),
    }
}
