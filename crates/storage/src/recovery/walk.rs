//! The walk through a partition's files, and the judgement of where it ends.

use std::cmp::Ordering;
use std::sync::Arc;

use weir_io::File;
use weir_types::{Durability, Offset, ProducerId};

use super::Place;
use super::files::{START, WITNESSES};
use crate::checkpoint;
use crate::config::{LogConfig, Mutant};
use crate::dir::DirCore;
use crate::epochs::Epochs;
use crate::error::Error;
use crate::frame::Seed;
use crate::producers::{Entry, ProducerTable};
use crate::scan::{self, Found, State, Walk};
use crate::segment::{Facts, Index, Segment, Synced};
use crate::sidecar::{Sidecar, Summary};

/// The page cache is made of folios of this size at most, and drops only whole ones: where the file system has large
/// ones (XFS, ext4 by now), of 2 MiB.
const FOLIO_BYTES: u64 = 2 << 20;

/// One partition while it is being opened.
pub(super) struct Recovery<'a> {
    pub(super) dir: &'a Arc<DirCore>,
    pub(super) seed: Seed,
    pub(super) place: &'a Place,
    pub(super) config: &'a LogConfig,
    pub(super) truncated_bytes: u64,
    /// From where on the log was torn.
    pub(super) torn_from: Option<Offset>,
}

/// What the walk has found.
pub(super) struct Scanned {
    pub(super) segments: Vec<Arc<Segment>>,
    pub(super) state: State,
    pub(super) end: Offset,
    pub(super) last_base: Option<Offset>,
}

impl<'a> Recovery<'a> {
    pub(super) fn new(dir: &'a Arc<DirCore>, place: &'a Place, config: &'a LogConfig) -> Self {
        let seed = Seed::of(place.id, place.incarnation);
        Self { dir, seed, place, config, truncated_bytes: 0, torn_from: None }
    }

    /// The first `count` segments, which no walk looks at. Each ends where the next one begins: one that was lost between
    /// them is not passed over. A sidecar was written when all of its segment was durable, so it says how much of the file
    /// is in use, too: less is damage, and what is more is left of a cut (see [`Recovery::scan`]). Those without a sidecar
    /// are walked through when they are read.
    fn sealed(&self, bases: &[Offset], count: usize) -> Result<Vec<Arc<Segment>>, Error> {
        let mut segments = Vec::with_capacity(bases.len());
        for pair in bases.get(..count.saturating_add(1)).unwrap_or(bases).windows(2) {
            let [base, next] = *pair else { continue };
            let (file, mut len) = self.open(base)?;
            if let Some(said) = self.seal(base)? {
                let used = said.log_bytes;
                if said.end != next {
                    let what = format!("it ends at offset {}, the next segment begins at {next}", said.end);
                    return Err(Error::damaged(self.path(base, "log"), what));
                }
                if len < used {
                    let what = format!(
                        "it ends at byte {len}, but {used} were durable: the disk has lost what it had"
                    );
                    return Err(Error::damaged(self.path(base, "log"), what));
                }
                if len > used {
                    self.shorten(&*file, base, used)?;
                    len = used;
                }
            }
            segments.push(self.segment(base, len, Index::Unloaded));
        }
        Ok(segments)
    }

    /// How far the log was durable, by what was written beside a segment: that is done when all it speaks of is synced.
    /// A cut takes it away before anything else, so that it outlives nothing it speaks of; what a cut that went further
    /// back has left of a `.tail` is of an older generation.
    pub(super) fn witnessed(&self, base: Offset, entry: &checkpoint::Entry) -> Result<Offset, Error> {
        let mut proven = 0;
        for kind in WITNESSES {
            let said = self.summary(base, kind)?;
            let counts = |said: &Summary| kind == "seal" || said.generation == entry.generation;
            proven = proven.max(said.filter(counts).map_or(0, |said| said.end));
        }
        Ok(proven)
    }

    pub(super) fn empty_state(&self, forgot: bool) -> State {
        State {
            producers: self.producers(Vec::new(), forgot),
            epochs: Epochs::default(),
            last_append_ms: i64::MIN,
        }
    }

    pub(super) fn producers(&self, entries: Vec<(ProducerId, Entry)>, forgot: bool) -> ProducerTable {
        let keeps_future = self.dir.has(Mutant::OthersLeftInFuture);
        ProducerTable::from_entries(self.config.producer_limits(), entries, forgot).planted(keeps_future)
    }

    fn state_of(&self, sidecar: &Sidecar) -> State {
        State {
            producers: self.producers(sidecar.producers(), sidecar.summary.forgot),
            epochs: sidecar.epochs(),
            last_append_ms: sidecar.summary.max_append_time_ms,
        }
    }

    fn segment(&self, base: Offset, len: u64, index: Index) -> Arc<Segment> {
        Arc::new(Segment::new(&self.place.path, base, len, true, index))
    }

    /// After an orderly stop: everything from what was written down then.
    pub(super) fn tail(
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
        let mut segments = self.sealed(bases, sealed.len())?;
        let mut state = self.state_of(&tail);
        if summary.end == *last {
            // Nothing was appended since it was begun: when the last append was, the one before says.
            let (from, before) = self.start(bases)?;
            if from < sealed.len() {
                return Ok(None);
            }
            state.last_append_ms = before.last_append_ms;
        }
        segments.push(self.segment(*last, len, Index::Live(tail.live_index())));
        Ok(Some(Scanned { segments, state, end: summary.end, last_base: None }))
    }

    /// The first segment to be walked through, and what is known where it begins.
    pub(super) fn start(&self, bases: &[Offset]) -> Result<(usize, State), Error> {
        for at in (1..bases.len()).rev() {
            let (Some(before), Some(base)) = (bases.get(at - 1), bases.get(at)) else { continue };
            let sidecar = self.sidecar(*before, "seal").filter(|sidecar| sidecar.summary.end == *base);
            let len = self.open(*before).map_or(0, |(_, len)| len);
            let is_there =
                |used| if self.dir.has(Mutant::LeftoverCounts) { used == len } else { used <= len };
            if let Some(sidecar) = sidecar.filter(|sidecar| is_there(sidecar.summary.log_bytes)) {
                return Ok((at, self.state_of(&sidecar)));
            }
        }
        Ok((0, self.state_before(bases.first().copied().unwrap_or(0))?))
    }

    /// What is known where the log begins: from the sidecar of the last segment that was deleted. There are no frames
    /// to make it again from. One that cannot be read or does not hold is damage: a producer that nobody knows any more
    /// could append twice what it repeats. If there is none, whoever wrote before is forgotten, and no answer is given
    /// as if nobody had.
    pub(super) fn state_before(&self, first: Offset) -> Result<State, Error> {
        let path = &self.place.path;
        // A log that begins with another replica's state, and has not moved its start since.
        let copied = self.of_kind(START)?.into_iter().find(|base| *base == first).map(|base| (base, START));
        let gone = || Ok(self.of_kind("seal")?.into_iter().filter(|base| *base < first).max());
        let said = match copied {
            Some(copied) => Some(copied),
            None => gone()?.map(|base| (base, "seal")),
        };
        if let Some((base, kind)) = said {
            let Some(sidecar) = self.read_sidecar(base, kind)? else {
                let what = format!(
                    "it does not hold, and nothing else says who wrote before offset {first}, where the log begins: \
                     the disk has lost what it had; move it away, and those producers are forgotten"
                );
                return Err(Error::damaged(self.path(base, kind), what));
            };
            if sidecar.summary.end == first {
                return Ok(self.state_of(&sidecar));
            }
        }
        let forgot = first > 0;
        if forgot {
            tracing::warn!(path = %path.display(), first, "nothing says who wrote before the log begins: forgotten");
        }
        Ok(self.empty_state(forgot))
    }

    /// Walks through everything that no sidecar answers for.
    ///
    /// A segment is over where the next one begins, whatever comes behind that in its file. Files are cut: a short append
    /// is taken back, a torn end is cut by a start, and neither new length is durable before something else is. If the
    /// next append begins a new segment nothing more is written to the file, and a power loss brings its old length back,
    /// with what was cut in it, behind a log that goes on elsewhere. That is no damage, because every offset is there; it
    /// is no part of the log, whole frames or not, because it was cut; and it is cut again, so that whoever reads the file
    /// by itself finds frames alone. It need not be durable this time either.
    ///
    /// To sync each cut before a segment is begun behind it would do as well for what is found here, but not for a log
    /// that an earlier version has left, and it would lose what a power loss spared of the next segment where the sync did
    /// not come to its end. Nothing is passed over by this: a segment that was lost in between leaves a gap, and what was
    /// cut was never called durable by anything (see [`Recovery::drop_leftover`]).
    pub(super) fn scan(
        &mut self,
        bases: &[Offset],
        entry: &checkpoint::Entry,
        known: bool,
    ) -> Result<Scanned, Error> {
        let (from, mut state) = self.start(bases)?;
        let mut segments = self.sealed(bases, from)?;
        let open = bases.get(from..).unwrap_or_default();
        let waits = Self::waits_for_the_disk(entry);
        let mut end = open.first().copied().unwrap_or(0);
        let mut last_base = None;
        for (at, base) in open.iter().enumerate() {
            let rest = open.get(at + 1..).unwrap_or_default();
            let (file, len) = self.open(*base)?;
            let from = if at == 0 { self.known_beginning(*base, len, entry, &mut state) } else { None };
            let durable_until = self.durable_until(*base, entry, known);
            let believes = self.dir.has(Mutant::TrustTornTail);
            let left_counts = self.dir.has(Mutant::LeftoverCounts);
            let verify_from = if believes { u64::MAX } else { durable_until.unwrap_or(0) };
            if !self.survives_in_memory(entry) {
                self.drop_cache(&*file, *base, len, verify_from)?;
            }
            let walk = Walk {
                file: &*file,
                seed: self.seed,
                base: *base,
                len,
                verify_from,
                until: rest.first().copied().filter(|_| !left_counts).or(entry.cut_to),
                from,
                passed_bytes: Some(&self.dir.options.progress.scanned_bytes),
            };
            let found = scan::walk(walk, &mut state).map_err(Error::io(&self.path(*base, "log"), "read"))?;
            let broken = found.bad.is_some() || rest.first().is_some_and(|next| *next != found.end);
            end = found.end;
            last_base = found.last_base.or(last_base);
            if broken || found.end < self.witnessed(*base, entry)? {
                self.judge(&*file, len, &found, rest, entry)?;
                self.torn_from = Some(found.end);
                self.cut(&*file, *base, len, found.position, rest)?;
            } else if found.position < len && rest.is_empty() {
                // A cut that was begun.
                self.cut(&*file, *base, len, found.position, &[])?;
            } else if found.position < len {
                self.drop_leftover(&*file, len, &found)?;
            }
            if waits {
                let path = self.path(*base, "log");
                self.dir.sync_or_fatal(&path, "fdatasync", || file.sync_data())?;
            }
            let durable_until = if waits { Some(u64::MAX) } else { durable_until };
            let segment = self.walked(found, durable_until, file);
            segments.push(Arc::clone(&segment));
            if broken || rest.is_empty() {
                break;
            }
            *segment.facts.lock() = Some(Facts {
                end,
                epochs: state.epochs.clone(),
                producers: state.producers.snapshot(),
                forgot: state.producers.forgot(),
            });
        }
        if end < entry.recovery_point.offset {
            let what = format!("it ends at offset {end}, {} were durable", entry.recovery_point.offset);
            return Err(Error::damaged(&*self.place.path, what));
        }
        if waits {
            self.sync_folder()?;
        }
        Ok(Scanned { segments, state, end, last_base })
    }

    /// A segment that was walked through, durable up to there. The handle of one that is not durable yet stays open: an
    /// error of writing it back is reported once, to a descriptor that is open by then.
    fn walked(&self, found: Found, durable_until: Option<u64>, file: Arc<dyn File>) -> Arc<Segment> {
        let (base, len) = (found.index.base(), found.position);
        let synced = durable_until.is_some_and(|until| until >= len);
        let index = Index::Live(found.index);
        let segment = Arc::new(Segment::new(&self.place.path, base, len, synced, index));
        if !synced {
            segment.raise_synced(Synced { cuts: 0, bytes: durable_until.unwrap_or(0) });
            segment.adopt(&self.dir.handles, file);
        }
        segment
    }

    /// How much of a segment was durable, its name included: from there on every byte is checked. `None`: not even
    /// its name.
    fn durable_until(&self, base: Offset, entry: &checkpoint::Entry, known: bool) -> Option<u64> {
        let point = entry.recovery_point;
        match base.cmp(&point.segment) {
            Ordering::Less if known => Some(u64::MAX),
            Ordering::Equal if known => Some(point.position),
            _ => None,
        }
    }

    /// Whether what counts as there is what the system remembers: the machine has not been started again, and the
    /// class promises no more than to survive the death of a process. Class fsync goes by the disk: a page that the
    /// system failed to write reads well and counts as written, and whoever was told of it may have died of it before
    /// it could leave word.
    pub(super) fn survives_in_memory(&self, entry: &checkpoint::Entry) -> bool {
        let promises_less = entry.durability == Durability::Replicated && self.dir.is_same_boot();
        promises_less || self.dir.has(Mutant::CacheTrusted)
    }

    /// Whether what was found has to be durable before it is used. In class fsync it may have been acknowledged, and
    /// a high watermark that was shown is not to come back lower; a cut ends with what it keeps on the disk. In class
    /// replicated the flusher takes care of it, as of what comes after.
    fn waits_for_the_disk(entry: &checkpoint::Entry) -> bool {
        entry.durability == Durability::Fsync || entry.cut_to.is_some()
    }

    /// What is in the page cache may not be on the disk.
    pub(super) fn drop_cache(
        &self,
        file: &dyn File,
        base: Offset,
        len: u64,
        verify_from: u64,
    ) -> Result<(), Error> {
        let (from, bytes) = cached(len, verify_from);
        file.drop_cache(from, bytes).map_err(Error::io(&self.path(base, "log"), "drop from the page cache"))
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
        let before_ms = state.last_append_ms;
        *state = self.state_of(&tail);
        if end == base {
            // It has no frame to tell the time by.
            state.last_append_ms = before_ms;
        }
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
            .map_err(Error::io(&path, "read"))?
            .max(entry.recovery_point.offset)
            .max(self.witnessed(found.index.base(), entry)?);
        for base in rest {
            let (file, len) = self.open(*base)?;
            let says = scan::proven_behind(&*file, self.seed, len, 0, found.end, until)
                .map_err(Error::io(&self.path(*base, "log"), "read"))?;
            proven = proven.max(says).max(self.witnessed(*base, entry)?);
        }
        if found.end < proven {
            let why = match found.bad {
                Some(bad) => bad.to_string(),
                None if rest.is_empty() => "the file ends".to_owned(),
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

    /// Takes away what was torn: first, durably, what could say of it later on that it was not.
    fn cut(
        &mut self,
        file: &dyn File,
        base: Offset,
        len: u64,
        position: u64,
        rest: &[Offset],
    ) -> Result<(), Error> {
        self.remove_witnesses(base)?;
        for later in rest.iter().rev() {
            self.truncated_bytes += self.open(*later)?.1;
            self.unlink(*later, "log")?;
        }
        if !rest.is_empty() {
            self.sync_folder()?;
        }
        self.truncated_bytes += len - position;
        self.shorten(file, base, position)
    }

    /// Takes away what a cut has left behind the end of a segment. Of that no frame was ever durable, nor could one have
    /// been written that says so of another: where one does, it is the next segment that has no business there.
    fn drop_leftover(&self, file: &dyn File, len: u64, found: &Found) -> Result<(), Error> {
        let base = found.index.base();
        let path = self.path(base, "log");
        let proven = scan::proven_behind(file, self.seed, len, found.position, found.end, None)
            .map_err(Error::io(&path, "read"))?;
        if proven > found.end {
            let what = format!(
                "byte {}: the next segment begins at offset {}, but this one was durable up to offset {proven}",
                found.position, found.end
            );
            return Err(Error::damaged(path, what));
        }
        self.shorten(file, base, found.position)
    }
}

/// What to drop from the page cache, position and length, so that nothing of a file from a position on is left in it.
fn cached(len: u64, verify_from: u64) -> (u64, u64) {
    let from = verify_from.min(len) / FOLIO_BYTES * FOLIO_BYTES;
    (from, (len - from).next_multiple_of(FOLIO_BYTES))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_folios_are_dropped_to_the_end_of_the_file() {
        const MIB: u64 = 1 << 20;
        for (len, verify_from, dropped) in [
            (0, 0, (0, 0)),
            (100, 0, (0, 2 * MIB)),
            (5 * MIB, 3 * MIB, (2 * MIB, 4 * MIB)),
            (5 * MIB, 4 * MIB + 1, (4 * MIB, 2 * MIB)),
            (4 * MIB, u64::MAX, (4 * MIB, 0)),
        ] {
            assert_eq!(cached(len, verify_from), dropped, "{len} {verify_from}");
        }
    }
}
