//! What a partition is after a start: torn or rotten (correctness rule 36).
//!
//! After an orderly stop nothing is scanned. Otherwise the frames behind the last sidecar are walked through; those
//! behind the recovery point are checked to the last byte, from the disk and not from the page cache. A bad frame
//! ends the log if nothing says that it was ever durable: then it was torn by the crash, and nobody was told that it
//! is there. If the checkpoint, a sidecar, or a good frame behind it says that the log was durable beyond it, the
//! disk has lost what it had: the partition is damaged, its files are left as they are, and it stays offline.

use std::cmp::Ordering;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use arc_swap::ArcSwap;
use bytes::BytesMut;
use parking_lot::{Mutex, RwLock};
use tokio::sync::watch;
use weir_io::{Access, File};
use weir_types::{Durability, Incarnation, Offset, PartitionId, TopicId};

use crate::checkpoint::{self, RecoveryPoint};
use crate::claim::Claim;
use crate::config::{LogConfig, Mutant};
use crate::core::{Core, Tail};
use crate::dir::DirCore;
use crate::ends::Ends;
use crate::epochs::Epochs;
use crate::error::Error;
use crate::frame::Seed;
use crate::index::LiveIndex;
use crate::jobs;
use crate::keeper;
use crate::owner::{Owner, Start};
use crate::producers::ProducerTable;
use crate::read::Places;
use crate::scan::{self, Found, State, Walk};
use crate::segment::{Index, Segment, file_name, parse_file_name};
use crate::sidecar::{self, SIDECAR_BYTES_MAX, SUMMARY_BYTES, Sidecar, Summary};

/// What the page cache is made of, or a multiple of it.
const PAGE_BYTES: u64 = 64 << 10;

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
    /// How much of its end was torn.
    pub(crate) truncated_bytes: u64,
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
pub(crate) fn create(
    dir: &Arc<DirCore>,
    place: Place,
    config: LogConfig,
    base: Offset,
) -> Result<Arc<Core>, Error> {
    let segment = Arc::new(Segment::new(&place.path, base, 0, false, Index::Live(LiveIndex::new(base))));
    let handles = &dir.handles;
    let file = handles
        .retry(|| handles.disk.open(&segment.path, Access::CreateNew))
        .map_err(Error::io(&*segment.path, "create"))?;
    segment.adopt(&dir.handles, file);
    let state = State {
        producers: ProducerTable::new(config.producer_limits()),
        epochs: Epochs::default(),
        last_append_ms: i64::MIN,
    };
    let entry = default_entry(place.incarnation, base, &config);
    let ends =
        Ends { log_start: base, last_stable: base, high_watermark: base, flushed_end: base, log_end: base };
    Ok(assemble(dir, place, config, vec![segment], state, ends, entry))
}

/// A log without frames, durably.
fn begin_anew(dir: &Arc<DirCore>, place: Place, config: LogConfig, base: Offset) -> Result<Arc<Core>, Error> {
    let core = create(dir, place, config, base)?;
    dir.handles.sync_dir(&core.path).map_err(Error::io(&*core.path, "fsync of a folder"))?;
    Ok(core)
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
    }
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
        seed: Seed::of(id),
        incarnation,
        path,
        dir: Arc::clone(dir),
        ends: seen,
        segments: ArcSwap::from_pointee(segments),
        epochs: RwLock::new(state.epochs),
        tail: Mutex::new(tail),
        durable: Mutex::new(durable),
        claim: Claim::new(Box::new(owner)),
        flush_queued: AtomicBool::new(false),
        stalled_listed: AtomicBool::new(false),
        lazy_listed: AtomicBool::new(false),
        closed: AtomicBool::new(false),
        places: Places::default(),
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
    let config = LogConfig {
        durability: entry.durability,
        producer_expiry_ms: entry.producer_expiry_ms,
        producers_max: usize::try_from(entry.producers_max).unwrap_or(usize::MAX),
        ..LogConfig::default()
    };
    let mut recovery =
        Recovery { dir, seed: Seed::of(place.id), place: &place, config: &config, truncated_bytes: 0 };
    let mut bases = recovery.bases()?;
    if !known {
        entry.log_start = bases.first().copied().unwrap_or(0);
    }
    if let Some(to) = entry.cut_to {
        recovery.remove_behind(&mut bases, to)?;
    }
    recovery.remove_before(&mut bases, entry.log_start)?;
    let Some(first) = bases.first().copied() else {
        if entry.recovery_point.offset > entry.log_start || entry.log_end > entry.log_start {
            return Err(Error::damaged(&*place.path, "its segments are missing"));
        }
        let core = begin_anew(dir, place, config, entry.log_start)?;
        return Ok(Recovered { core, truncated_bytes: 0 });
    };
    if first > entry.log_start {
        let what = format!("offsets {} to {first} are missing", entry.log_start);
        return Err(Error::damaged(&*place.path, what));
    }
    let scanned = match recovery.tail(&bases, &entry, clean)? {
        Some(scanned) => scanned,
        None => recovery.scan(&bases, &entry, known)?,
    };
    let Scanned { segments, state, mut end, last_base } = scanned;
    if dir.has(Mutant::ReuseOffset) {
        end = last_base.unwrap_or(end).max(entry.log_start);
    }
    let truncated_bytes = recovery.truncated_bytes;
    if end < entry.log_start {
        // Nothing behind the start was durable: class replicated, and the machine lost its power. Until the new segment
        // is there the old ones show that none is missing.
        let core = begin_anew(dir, place, config, entry.log_start)?;
        for segment in &segments {
            let disk = &dir.handles.disk;
            disk.unlink(&segment.path).map_err(Error::io(&*segment.path, "unlink"))?;
        }
        // Before a checkpoint says that the log is durable up to its start.
        dir.handles.sync_dir(&core.path).map_err(Error::io(&*core.path, "fsync of a folder"))?;
        return Ok(Recovered { core, truncated_bytes });
    }
    let mut state = state;
    state.epochs.cut_front(entry.log_start);
    let high_watermark = entry.high_watermark.max(entry.log_start).min(end);
    let ends = Ends {
        log_start: entry.log_start,
        last_stable: high_watermark,
        high_watermark,
        flushed_end: end,
        log_end: end,
    };
    let (segment, position) = segments.last().map_or((end, 0), |segment| (segment.base, segment.written()));
    entry.recovery_point = RecoveryPoint { offset: end, segment, position };
    if entry.cut_to.take().is_some() {
        entry.generation += 1;
    }
    let core = assemble(dir, place, config, segments, state, ends, entry);
    Ok(Recovered { core, truncated_bytes })
}

struct Recovery<'a> {
    dir: &'a Arc<DirCore>,
    seed: Seed,
    place: &'a Place,
    config: &'a LogConfig,
    truncated_bytes: u64,
}

struct Scanned {
    segments: Vec<Arc<Segment>>,
    state: State,
    end: Offset,
    last_base: Option<Offset>,
}

impl Recovery<'_> {
    fn path(&self, base: Offset, kind: &str) -> PathBuf {
        self.place.path.join(file_name(base, kind))
    }

    fn io(path: &Path, what: &'static str) -> impl FnOnce(io::Error) -> Error {
        Error::io(path, what)
    }

    /// The segments there are, in order.
    fn bases(&self) -> Result<Vec<Offset>, Error> {
        let disk = &self.dir.handles.disk;
        let entries = disk.list(&self.place.path).map_err(Self::io(&self.place.path, "list"))?;
        let logs = entries.iter().filter_map(|entry| parse_file_name(&entry.name));
        Ok(logs.filter(|(_, kind)| *kind == "log").map(|(base, _)| base).collect())
    }

    fn unlink(&self, base: Offset, kind: &str) -> Result<(), Error> {
        let path = self.path(base, kind);
        match self.dir.handles.disk.unlink(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Self::io(&path, "unlink")(error)),
            _ => Ok(()),
        }
    }

    fn sync_folder(&self) -> Result<(), Error> {
        let path = &self.place.path;
        self.dir.handles.disk.sync_dir(path).map_err(Self::io(path, "fsync of a folder"))
    }

    /// Takes away what lies behind a cut that was begun; the file that the cut lies in follows later.
    fn remove_behind(&self, bases: &mut Vec<Offset>, to: Offset) -> Result<(), Error> {
        while let Some(last) = bases.last().copied().filter(|last| *last > to) {
            self.unlink(last, "log")?;
            self.unlink(last, "seal")?;
            bases.pop();
        }
        if let Some(last) = bases.last() {
            self.unlink(*last, "seal")?;
            self.unlink(*last, "tail")?;
        }
        self.sync_folder()
    }

    /// Takes away what lies before the log's start, as far as a sidecar says what was known at its end.
    fn remove_before(&self, bases: &mut Vec<Offset>, log_start: Offset) -> Result<(), Error> {
        let before = bases.iter().skip(1).take_while(|base| **base <= log_start).count();
        let known = (0..before).rev().find(|at| {
            let (Some(base), Some(next)) = (bases.get(*at), bases.get(at + 1)) else { return false };
            self.sidecar(*base, "seal").is_some_and(|sidecar| sidecar.summary.end == *next)
        });
        for base in bases.drain(..known.map_or(0, |at| at + 1)) {
            self.unlink(base, "log")?;
        }
        Ok(())
    }

    /// Every sealed segment ends where the next one begins: one that was lost between them is not passed over. Those
    /// without a sidecar are walked through, here or when they are read.
    fn check_row(&self, bases: &[Offset], walked_from: usize) -> Result<(), Error> {
        for pair in bases.get(..walked_from.saturating_add(1)).unwrap_or(bases).windows(2) {
            let [base, next] = pair else { continue };
            if let Some(end) = self.sealed_end(*base).filter(|end| end != next) {
                let what = format!("it ends at offset {end}, the next segment begins at {next}");
                return Err(Error::damaged(self.path(*base, "log"), what));
            }
        }
        Ok(())
    }

    /// Where a segment ends, by the first bytes of its sidecar.
    fn sealed_end(&self, base: Offset) -> Option<Offset> {
        let file = self.dir.handles.disk.open(&self.path(base, "seal"), Access::Read).ok()?;
        let mut bytes = BytesMut::with_capacity(SUMMARY_BYTES);
        file.read_at(&mut bytes, SUMMARY_BYTES, 0).ok()?;
        let summary = sidecar::summary(&bytes, self.seed)?;
        (summary.base == base && summary.incarnation == self.place.incarnation.0).then_some(summary.end)
    }

    fn empty_state(&self) -> State {
        State {
            producers: ProducerTable::new(self.config.producer_limits()),
            epochs: Epochs::default(),
            last_append_ms: i64::MIN,
        }
    }

    fn state_of(&self, sidecar: &Sidecar) -> State {
        let limits = self.config.producer_limits();
        State {
            producers: ProducerTable::from_entries(limits, sidecar.producers(), sidecar.summary.forgot),
            epochs: sidecar.epochs(),
            last_append_ms: sidecar.summary.max_append_time_ms,
        }
    }

    /// A sidecar that holds and belongs to this life of the partition.
    fn sidecar(&self, base: Offset, kind: &str) -> Option<Sidecar> {
        let bytes = self.dir.handles.disk.read(&self.path(base, kind), SIDECAR_BYTES_MAX).ok()?;
        let sidecar = Sidecar::held(bytes, self.seed).ok()?;
        (sidecar.summary.base == base && sidecar.summary.incarnation == self.place.incarnation.0)
            .then_some(sidecar)
    }

    fn open(&self, base: Offset) -> Result<(Arc<dyn File>, u64), Error> {
        let path = self.path(base, "log");
        let file = self.dir.handles.disk.open(&path, Access::Write).map_err(Self::io(&path, "open"))?;
        let len = file.len().map_err(Self::io(&path, "stat"))?;
        Ok((file, len))
    }

    fn segment(&self, base: Offset, len: u64, index: Index) -> Arc<Segment> {
        Arc::new(Segment::new(&self.place.path, base, len, true, index))
    }

    /// After an orderly stop: everything from what was written down then.
    fn tail(
        &self,
        bases: &[Offset],
        entry: &checkpoint::Entry,
        clean: bool,
    ) -> Result<Option<Scanned>, Error> {
        let Some((last, sealed)) = bases.split_last().filter(|_| clean && entry.cut_to.is_none()) else {
            return Ok(None);
        };
        let Some(tail) = self.sidecar(*last, "tail") else { return Ok(None) };
        let (_, len) = self.open(*last)?;
        let summary = tail.summary;
        if (summary.end, summary.log_bytes, summary.generation) != (entry.log_end, len, entry.generation) {
            return Ok(None);
        }
        self.check_row(bases, sealed.len())?;
        let mut segments = Vec::with_capacity(bases.len());
        for base in sealed {
            let (_, len) = self.open(*base)?;
            segments.push(self.segment(*base, len, Index::Unloaded));
        }
        segments.push(self.segment(*last, len, Index::Live(tail.live_index())));
        Ok(Some(Scanned { segments, state: self.state_of(&tail), end: summary.end, last_base: None }))
    }

    /// The first segment to be walked through, and what is known where it begins.
    fn start(&self, bases: &[Offset]) -> (usize, State) {
        for at in (1..bases.len()).rev() {
            let (Some(before), Some(base)) = (bases.get(at - 1), bases.get(at)) else { continue };
            let sidecar = self.sidecar(*before, "seal").filter(|sidecar| sidecar.summary.end == *base);
            let len = self.open(*before).map_or(0, |(_, len)| len);
            if let Some(sidecar) = sidecar.filter(|sidecar| sidecar.summary.log_bytes == len) {
                return (at, self.state_of(&sidecar));
            }
        }
        (0, self.state_before(bases.first().copied().unwrap_or(0)))
    }

    /// What is known where the log begins: from the sidecar of the last segment that was deleted.
    fn state_before(&self, first: Offset) -> State {
        let entries = self.dir.handles.disk.list(&self.place.path).unwrap_or_default();
        entries
            .iter()
            .filter_map(|entry| parse_file_name(&entry.name))
            .filter(|(base, kind)| *kind == "seal" && *base < first)
            .filter_map(|(base, _)| self.sidecar(base, "seal"))
            .find(|sidecar| sidecar.summary.end == first)
            .map_or_else(|| self.empty_state(), |sidecar| self.state_of(&sidecar))
    }

    /// Walks through everything that no sidecar answers for.
    fn scan(&mut self, bases: &[Offset], entry: &checkpoint::Entry, known: bool) -> Result<Scanned, Error> {
        let (from, mut state) = self.start(bases);
        self.check_row(bases, from)?;
        let (sealed, open) = bases.split_at_checked(from).unwrap_or((bases, &[]));
        let mut segments = Vec::with_capacity(bases.len());
        for base in sealed {
            let (_, len) = self.open(*base)?;
            segments.push(self.segment(*base, len, Index::Unloaded));
        }
        let mut end = open.first().copied().unwrap_or(0);
        let mut last_base = None;
        for (at, base) in open.iter().enumerate() {
            let rest = open.get(at + 1..).unwrap_or_default();
            let (file, len) = self.open(*base)?;
            let from = if at == 0 { self.known_beginning(*base, len, entry, &mut state) } else { None };
            let verify_from = self.verify_from(*base, entry, known);
            self.drop_cache(&*file, *base, len, verify_from)?;
            let walk = Walk {
                file: &*file,
                seed: self.seed,
                base: *base,
                len,
                verify_from,
                until: entry.cut_to,
                from,
            };
            let found = scan::walk(walk, &mut state).map_err(Self::io(&self.path(*base, "log"), "read"))?;
            let broken = found.bad.is_some() || rest.first().is_some_and(|next| *next != found.end);
            end = found.end;
            last_base = found.last_base.or(last_base);
            if broken {
                self.judge(&*file, len, &found, rest, entry)?;
                self.cut(&*file, *base, len, found.position, rest)?;
            } else if found.position < len {
                // A cut that was begun.
                self.cut(&*file, *base, len, found.position, &[])?;
            }
            let path = self.path(*base, "log");
            file.sync_data().map_err(Self::io(&path, "fdatasync"))?;
            let done = broken || rest.is_empty();
            if done {
                segments.push(self.segment(*base, found.position, Index::Live(found.index)));
                break;
            }
            self.write_seal(*base, &found, &state, entry)?;
            segments.push(self.segment(*base, found.position, Index::Unloaded));
        }
        if end < entry.recovery_point.offset {
            let what = format!("it ends at offset {end}, {} were durable", entry.recovery_point.offset);
            return Err(Error::damaged(&*self.place.path, what));
        }
        self.sync_folder()?;
        Ok(Scanned { segments, state, end, last_base })
    }

    /// From where on every byte of a segment is checked: what lies before was durable.
    fn verify_from(&self, base: Offset, entry: &checkpoint::Entry, known: bool) -> u64 {
        let point = entry.recovery_point;
        match base.cmp(&point.segment) {
            _ if self.dir.has(Mutant::TrustTornTail) => u64::MAX,
            Ordering::Less if known => u64::MAX,
            Ordering::Equal if known => point.position,
            _ => 0,
        }
    }

    /// What is in the page cache may not be on the disk. Only whole pages are dropped.
    fn drop_cache(&self, file: &dyn File, base: Offset, len: u64, verify_from: u64) -> Result<(), Error> {
        let unproven = verify_from.min(len) / PAGE_BYTES * PAGE_BYTES;
        let whole = (len - unproven).next_multiple_of(PAGE_BYTES);
        file.drop_cache(unproven, whole)
            .map_err(Self::io(&self.path(base, "log"), "drop from the page cache"))
    }

    /// What a `.tail` written meanwhile says of the first segment to be walked through, so that the walk is as long as
    /// what was written since and not as the segment. Only what lies before the recovery point: it was durable then,
    /// and no later cut has touched it.
    fn known_beginning(
        &self,
        base: Offset,
        len: u64,
        entry: &checkpoint::Entry,
        state: &mut State,
    ) -> Option<scan::From> {
        let tail = self.sidecar(base, "tail")?;
        let Summary { end, log_bytes, generation, .. } = tail.summary;
        let durable = end <= entry.recovery_point.offset && entry.cut_to.is_none_or(|to| end <= to);
        if !durable || generation != entry.generation || log_bytes > len {
            return None;
        }
        *state = self.state_of(&tail);
        Some(scan::From { index: tail.live_index(), end, position: log_bytes })
    }

    /// Torn or rotten: an error if anything says that the log was durable beyond the bad frame.
    fn judge(
        &self,
        file: &dyn File,
        len: u64,
        found: &Found,
        rest: &[Offset],
        entry: &checkpoint::Entry,
    ) -> Result<(), Error> {
        let path = self.path(found.index.base(), "log");
        let until = entry.cut_to;
        let mut proven = scan::proven_behind(file, self.seed, len, found.position, found.end, until)
            .map_err(Self::io(&path, "read"))?
            .max(entry.recovery_point.offset);
        for base in rest {
            let (file, len) = self.open(*base)?;
            let says = scan::proven_behind(&*file, self.seed, len, 0, found.end, until)
                .map_err(Self::io(&self.path(*base, "log"), "read"))?;
            proven = proven.max(says);
        }
        if found.end < proven {
            let why = match found.bad {
                Some(bad) => bad.to_string(),
                None => "the next segment does not follow".to_owned(),
            };
            let what = format!(
                "byte {}, offset {}: {why}; but the log was durable up to offset {proven}: the disk has lost what \
                 it had",
                found.position, found.end
            );
            return Err(Error::damaged(path, what));
        }
        Ok(())
    }

    /// Takes away what was torn.
    fn cut(
        &mut self,
        file: &dyn File,
        base: Offset,
        len: u64,
        position: u64,
        rest: &[Offset],
    ) -> Result<(), Error> {
        for later in rest.iter().rev() {
            self.truncated_bytes += self.open(*later)?.1;
            self.unlink(*later, "log")?;
            self.unlink(*later, "seal")?;
        }
        self.unlink(base, "seal")?;
        self.sync_folder()?;
        self.truncated_bytes += len - position;
        file.set_len(position).map_err(Self::io(&self.path(base, "log"), "cut"))
    }

    fn write_seal(
        &self,
        base: Offset,
        found: &Found,
        state: &State,
        entry: &checkpoint::Entry,
    ) -> Result<(), Error> {
        let summary = Summary {
            base,
            end: found.end,
            log_bytes: found.position,
            incarnation: self.place.incarnation.0,
            generation: entry.generation,
            max_timestamp_ms: found.index.max_timestamp_ms,
            max_append_time_ms: found.index.max_append_time_ms,
            first_append_time_ms: found.index.first_append_time_ms,
            forgot: state.producers.forgot(),
        };
        let producers = state.producers.in_log_order();
        let bytes = sidecar::encode(&summary, &found.index, &state.epochs, &producers, self.seed);
        let path = self.path(base, "seal");
        self.dir.handles.disk.replace_durably(&path, &bytes).map_err(Self::io(&path, "write"))
    }
}

/// What is known up to an offset in a segment.
pub(crate) struct StateUntil {
    pub(crate) state: State,
    pub(crate) found: Found,
}

/// Adds up a log's frames up to an offset in one of its segments.
pub(crate) fn state_until(
    core: &Arc<Core>,
    segment: &Arc<Segment>,
    until: Offset,
    config: &LogConfig,
) -> Result<StateUntil, Error> {
    let place = Place { id: core.id, incarnation: core.incarnation, path: core.path.clone() };
    let recovery = Recovery { dir: &core.dir, seed: core.seed, place: &place, config, truncated_bytes: 0 };
    let segments = core.segments.load_full();
    let bases: Vec<Offset> =
        segments.iter().map(|other| other.base).take_while(|base| *base <= segment.base).collect();
    let (from, mut state) = recovery.start(&bases);
    for before in segments.iter().skip(from).take_while(|other| other.base < segment.base) {
        jobs::walk_file(core, before, None, &mut state)?;
    }
    let found = jobs::walk_file(core, segment, Some(until), &mut state)?;
    Ok(StateUntil { state, found })
}

/// Makes sure that the marks of a sealed segment are at hand: from its sidecar, or made again if that does not hold.
pub(crate) fn load_sidecar(core: &Arc<Core>, segment: &Arc<Segment>) -> Result<(), Error> {
    if !matches!(&*segment.index.read(), Index::Unloaded) {
        return Ok(());
    }
    let _files = core.files.lock();
    let sidecar = match keeper::open_sidecar(core, segment, "seal") {
        Ok(sidecar) => sidecar,
        Err(error) => {
            tracing::warn!(partition = %core.id, %error, "a sidecar does not hold and is made again");
            rebuild_sidecar(core, segment)?;
            keeper::open_sidecar(core, segment, "seal")?
        }
    };
    let mut index = segment.index.write();
    if matches!(&*index, Index::Unloaded) {
        *index = Index::Sealed(Arc::new(sidecar));
    }
    Ok(())
}

fn rebuild_sidecar(core: &Arc<Core>, segment: &Arc<Segment>) -> Result<(), Error> {
    let entry = *core.durable.lock();
    let config = LogConfig {
        durability: Durability::Fsync,
        producer_expiry_ms: entry.producer_expiry_ms,
        producers_max: usize::try_from(entry.producers_max).unwrap_or(usize::MAX),
        ..LogConfig::default()
    };
    let until = segment.end().unwrap_or(Offset::MAX);
    let StateUntil { state, found } = state_until(core, segment, until, &config)?;
    if found.end != until {
        let what = format!("it ends at offset {}, the next segment begins at {until}", found.end);
        return Err(Error::damaged(&*segment.path, what));
    }
    let place = Place { id: core.id, incarnation: core.incarnation, path: core.path.clone() };
    let recovery =
        Recovery { dir: &core.dir, seed: core.seed, place: &place, config: &config, truncated_bytes: 0 };
    recovery.write_seal(segment.base, &found, &state, &entry)
}

/// Removes the sidecars of deleted segments but the last one's, which says what was known where the log now begins.
pub(crate) fn drop_old_sidecars(core: &Core, first: Offset) {
    let entries = core.dir.handles.disk.list(&core.path).unwrap_or_default();
    let mut old: Vec<Offset> = entries
        .iter()
        .filter_map(|entry| parse_file_name(&entry.name))
        .filter(|(base, kind)| *kind == "seal" && *base < first)
        .map(|(base, _)| base)
        .collect();
    old.pop();
    for base in old {
        // Left behind it costs a little space until the next time.
        let _ = core.dir.handles.disk.unlink(&core.path.join(file_name(base, "seal")));
    }
}
