//! The keeper: one loop a directory that seals segments, writes the checkpoint, looks at free space and retention, and
//! moves the starts of logs. No append waits for it: only files that want to be closed, and who deletes records.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use weir_io::Access;
use weir_runtime::Step;

use crate::claim::{self, Entry};
use crate::control::Command;
use crate::core::Core;
use crate::dir::DirCore;
use crate::error::Error;
use crate::index::LiveIndex;
use crate::moves::{self, Move};
use crate::owner::Owner;
use crate::recovery;
use crate::retention;
use crate::segment::{Facts, Index, Segment};
use crate::sidecar::{self, SIDECAR_BYTES_MAX, Sidecar, Summary};
use crate::strays;
use crate::writeback::PARTS;

/// How often free space is looked at.
const SPACE_INTERVAL: Duration = Duration::from_secs(1);

/// A segment that was closed and has no sidecar yet.
pub(crate) struct SealJob {
    pub(crate) core: Arc<Core>,
    pub(crate) segment: Arc<Segment>,
}

/// Starts the loop.
pub(crate) fn start(dir: &Arc<DirCore>) {
    let mut keeper = Keeper::new(dir);
    let waker = dir.os.spawn_loop("keeper", Box::new(move || keeper.step()));
    *dir.keeper.write() = Some(waker);
}

struct Keeper {
    dir: Arc<DirCore>,
    next_checkpoint: Instant,
    next_writeback: Instant,
    next_retention: Instant,
    /// What owners have handed over and is not durable yet.
    notes: Vec<TailNote>,
    /// Logs whose start has moved: the sidecars of what went are to follow.
    begun: Vec<Arc<Core>>,
}

impl Keeper {
    fn new(dir: &Arc<DirCore>) -> Self {
        let now = Instant::now();
        Self {
            next_checkpoint: now + dir.options.checkpoint_interval,
            next_writeback: now + dir.options.checkpoint_interval / PARTS,
            next_retention: now + dir.options.retention_interval,
            notes: Vec::new(),
            begun: Vec::new(),
            dir: Arc::clone(dir),
        }
    }

    fn step(&mut self) -> Step {
        let Some(_held) = self.dir.hold().filter(|_| !self.dir.failed()) else { return Step::Done };
        let now = Instant::now();
        self.dir.look_at_space();
        self.dir.give_back_space();
        self.dir.flush.request_put_off();
        // By a clock that is not believed nothing goes: it would delete what is young.
        let believed_ms = self.dir.clock.believed_ms();
        self.dir.stats.retention_paused.set(u64::from(believed_ms.is_none()));
        strays::delete_due(&self.dir, now, believed_ms);
        seal_pending(&self.dir);
        if now >= self.next_writeback {
            self.next_writeback = now + self.dir.options.checkpoint_interval / PARTS;
            self.dir.writeback.large_due(&self.dir.options);
        }
        let is_time = now >= self.next_checkpoint;
        if is_time {
            self.next_checkpoint = now + self.dir.options.checkpoint_interval;
            // What this makes durable is in the next one.
            self.dir.writeback.all_due();
        }
        if is_time || self.dir.is_checkpoint_due() {
            self.notes.extend(self.dir.take_notes());
            let said = self.take_durable_notes();
            match self.dir.write_checkpoint() {
                Ok(()) => said.iter().for_each(TailNote::write_if_true),
                Err(error) => tracing::error!(%error, "the checkpoint could not be written"),
            }
            self.ask_for_notes();
        }
        // What an owner has not got to by now is caught up with when the start moves again.
        self.begun.drain(..).for_each(|core| recovery::drop_old_sidecars(&core));
        let moving = self.dir.moving.lock();
        let mut moves = moves::asked(&self.dir);
        if now >= self.next_retention {
            self.next_retention = now + self.dir.options.retention_interval;
            moves.extend(self.retain(believed_ms));
        }
        self.begun = moves::make(&self.dir, moves);
        drop(moving);
        Step::Wait(SPACE_INTERVAL)
    }

    /// Owners of segments that have grown much hand over what a start would have to scan for.
    fn ask_for_notes(&self) {
        for core in self.dir.take_grown() {
            self.dir.stats.notes_asked.add(1);
            claim::post(&core, Entry::Command(Command::Note));
        }
    }

    /// The notes that say nothing but what the next checkpoint calls durable: a start believes no other. Of several of
    /// one partition the last. Those that cannot come true any more are dropped.
    fn take_durable_notes(&mut self) -> Vec<TailNote> {
        let mut said = BTreeMap::new();
        for note in std::mem::take(&mut self.notes) {
            if note.core.durable.lock().recovery_point.offset >= note.facts.end {
                said.insert(note.core.id, note);
            } else if note.may_come_true() {
                self.notes.push(note);
            }
        }
        said.into_values().collect()
    }

    /// Looks at every log without its claim. What is to go.
    fn retain(&self, now_ms: Option<i64>) -> Vec<Move> {
        let mut moves = Vec::new();
        for core in self.dir.all() {
            if let Some(now_ms) = now_ms
                && retention::should_roll(&core, now_ms)
            {
                claim::post(&core, Entry::Command(Command::RollOld { now_ms }));
            }
            match retention::plan(&core, now_ms) {
                Ok(Some(front)) => moves.push(Move::decided(core, front)),
                Ok(None) => {}
                Err(error) => {
                    tracing::error!(name = core.name(), %error, "what retention lets go could not be deleted");
                }
            }
        }
        moves
    }
}

/// Seals what can be sealed; what is unsynced yet comes at the next turn.
pub(crate) fn seal_pending(dir: &Arc<DirCore>) {
    for job in dir.take_seals() {
        let SealJob { core, segment } = &job;
        if core.is_closed() || !core.holds(segment) {
            continue;
        }
        if segment.is_dirty() {
            dir.seal_again(job);
            continue;
        }
        if let Err(error) = seal(core, segment) {
            // Its index stays in memory, and the next start makes the sidecar again.
            tracing::warn!(segment = %segment.path.display(), %error, "the sidecar could not be written");
        }
    }
}

/// Writes the sidecar of a closed segment whose frames are durable, and reads from it from now on. Does nothing if
/// there is nothing to do: it has one, it was deleted, or a cut has made it the active one again.
pub(crate) fn seal(core: &Core, segment: &Arc<Segment>) -> Result<(), Error> {
    let _files = core.files.lock();
    let facts = segment.facts.lock().clone();
    let Some(facts) = facts.filter(|facts| segment.end() == Some(facts.end) && core.holds(segment)) else {
        return Ok(());
    };
    let index = match &*segment.index.read() {
        Index::Live(index) => index.clone(),
        Index::Sealed(_) | Index::Unloaded => return Ok(()),
    };
    let bytes = encode(core, &summary(core, segment, &index, &facts), &index, &facts);
    replace(core, &segment.sidecar_path("seal"), &bytes)?;
    // What was written down while it grew says nothing more. Left behind it goes with the segment.
    let _ = core.dir.handles.disk.unlink(&segment.sidecar_path("tail"));
    if let Some(file) = segment.opened() {
        // Blocks reserved beyond its end are given back; that it fails costs space, nothing else.
        let _ = file.trim();
    }
    let sidecar = open_sidecar(core, segment, "seal")?;
    segment.set_sealed(&core.dir.handles, sidecar);
    *segment.facts.lock() = None;
    Ok(())
}

fn encode(core: &Core, summary: &Summary, index: &LiveIndex, facts: &Facts) -> Vec<u8> {
    sidecar::encode(summary, index, &facts.epochs, &facts.producers.in_log_order(), core.seed)
}

fn summary(core: &Core, segment: &Segment, index: &LiveIndex, facts: &Facts) -> Summary {
    Summary {
        base: segment.base,
        end: facts.end,
        log_bytes: segment.written(),
        incarnation: core.incarnation.0,
        generation: core.durable.lock().generation,
        max_timestamp_ms: index.max_timestamp_ms,
        max_append_time_ms: index.max_append_time_ms,
        first_append_time_ms: index.first_append_time_ms,
        forgot: facts.forgot,
    }
}

/// Writes down what is known of the active segment at an orderly stop.
pub(crate) fn write_tail(core: &Arc<Core>, owner: &Owner) -> Result<(), Error> {
    // The keeper may be writing an older one.
    let _files = core.files.lock();
    if let Some(file) = owner.active.opened() {
        // As above.
        let _ = file.trim();
    }
    match TailNote::take(core, owner) {
        Some(note) => note.write(),
        None => Ok(()),
    }
}

/// What is known of an active segment up to an end: worth something once that is durable.
pub(crate) struct TailNote {
    core: Arc<Core>,
    segment: Arc<Segment>,
    summary: Summary,
    index: LiveIndex,
    facts: Facts,
    cuts: u64,
}

impl TailNote {
    /// With the claim in hand: what takes long is left for whoever writes it.
    pub(crate) fn take(core: &Arc<Core>, owner: &Owner) -> Option<Self> {
        let index = match &*owner.active.index.read() {
            Index::Live(index) => index.clone(),
            Index::Sealed(_) | Index::Unloaded => return None,
        };
        let facts = owner.facts(core);
        let summary = summary(core, &owner.active, &index, &facts);
        let (core, segment) = (Arc::clone(core), Arc::clone(&owner.active));
        Some(Self { core, segment, summary, index, facts, cuts: owner.cuts })
    }

    /// After a cut it says nothing; after a roll the segment has its `.seal`.
    fn may_come_true(&self) -> bool {
        let is_active = self.segment.end().is_none() && self.core.tail.lock().cuts == self.cuts;
        is_active && !self.core.is_closed()
    }

    fn write_if_true(&self) {
        let _files = self.core.files.lock();
        if !self.may_come_true() {
            return;
        }
        if let Err(error) = self.write() {
            // Then the next start scans more.
            tracing::warn!(name = self.core.name(), %error, "the .tail could not be written");
        }
    }

    fn write(&self) -> Result<(), Error> {
        let bytes = encode(&self.core, &self.summary, &self.index, &self.facts);
        replace(&self.core, &self.segment.sidecar_path("tail"), &bytes)
    }
}

/// Replaces a file beside a segment. An error that passes has changed nothing; any other ends the process, unless the
/// folder was taken away with its partition in the meantime.
fn replace(core: &Core, path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let handles = &core.dir.handles;
    handles.retry(|| handles.disk.replace_durably(path, bytes)).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound if core.is_closed() => Error::io(path, "write")(error),
        _ => core.dir.passing_or_fatal(path, "write", error),
    })
}

/// Maps a sidecar, or reads it where that cannot be done, and checks that it belongs to the segment as it is.
pub(crate) fn open_sidecar(core: &Core, segment: &Segment, kind: &str) -> Result<Sidecar, Error> {
    let path = segment.sidecar_path(kind);
    let handles = &core.dir.handles;
    let file = handles.retry(|| handles.disk.open(&path, Access::Read)).map_err(Error::io(&*path, "open"))?;
    let sidecar = match file.map() {
        Ok(mapping) => Sidecar::mapped(mapping, core.seed),
        // A process can have only so many maps: nothing is wrong with the file.
        Err(_) => {
            let bytes = handles.disk.read(&path, SIDECAR_BYTES_MAX).map_err(Error::io(&*path, "read"))?;
            Sidecar::held(bytes, core.seed)
        }
    };
    let sidecar = sidecar.map_err(|what| Error::damaged(&*path, what))?;
    let summary = &sidecar.summary;
    if summary.base != segment.base
        || summary.incarnation != core.incarnation.0
        || summary.log_bytes != segment.written()
        || segment.end().is_some_and(|end| end != summary.end)
    {
        return Err(Error::damaged(path, "it belongs to another segment"));
    }
    Ok(sidecar)
}
