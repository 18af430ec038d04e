//! The owner of a partition: the one place where it changes. Hot path.
//!
//! Appends are judged, get their offsets and are written in the order they came, as one vectored write for all that
//! came together. Why no acknowledged record can be lost here:
//!
//! - An append is judged by everything before it, written or about to be written in the same group: what the
//!   admission sees is what the log will be (correctness rule D1).
//! - Nothing is answered before its group is written. If the write fails for want of space, the file is cut back and
//!   everything judged since the group began is refused, because it was judged by frames that do not exist. If the
//!   write fails otherwise, or the cut fails, the process ends and answers nothing.
//! - "Committed" and "flushed" are answered by ends that were published before: the flushed end is one that was
//!   written before the sync began that made it durable.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use tokio::sync::watch;
use weir_io::{Access, File};
use weir_types::{Durability, LeaderEpoch, Offset, Producer};

use crate::admission::{Admission, LogView, NoLeader, Verdict};
use crate::append::{Acks, Append, AppendError, Appended, NewBatch, Refused, Reply};
use crate::checkpoint::RecoveryPoint;
use crate::claim::Entry;
use crate::config::{LogConfig, Mutant, SEGMENT_BYTES_MAX};
use crate::control::{Answer, Command, Control, Outcome, OutcomeQuery, UnknownCause};
use crate::core::{Core, Tail};
use crate::ends::Ends;
use crate::error::Error;
use crate::frame::{FrameHeader, HEADER_BYTES};
use crate::index::LiveIndex;
use crate::jobs;
use crate::keeper::{self, SealJob};
use crate::producers::{KnownBatch, ProducerTable, Trace};
use crate::segment::{Facts, Index, Segment};
use crate::waits::{Then, Wait, Waits};

/// Offsets in a segment are stored as 32 bits from its first one; no frame may reach beyond.
const DELTA_MAX: i64 = u32::MAX as i64;

/// Blocks are reserved ahead in steps between these.
const ALLOCATE_MIN_BYTES: u64 = 4 << 20;
const ALLOCATE_MAX_BYTES: u64 = 64 << 20;

/// The state that comes and goes with the claim.
pub(crate) struct Owner {
    /// What this claim is to do.
    pub(crate) batch: VecDeque<Entry>,
    /// How far the log is durable, if that is news.
    pub(crate) durable: Option<Tail>,
    pub(crate) admission: Box<dyn Admission>,
    pub(crate) config: LogConfig,
    pub(crate) producers: ProducerTable,
    pub(crate) active: Arc<Segment>,
    /// The offset that the next frame gets, with those of the group counted.
    pub(crate) next: Offset,
    /// Where the next group is written in the active segment.
    pub(crate) position: u64,
    pub(crate) ends: Ends,
    /// Gone once the partition is closed: that tells those who watch.
    pub(crate) published: Option<watch::Sender<Ends>>,
    pub(crate) cuts: u64,
    pub(crate) last_epoch: Option<LeaderEpoch>,
    pub(crate) last_append_ms: i64,
    pub(crate) waits: Waits,
    /// Blocks are reserved up to here.
    pub(crate) allocated: u64,
    /// The `.tail` was written for so much of the active segment.
    pub(crate) noted: u64,
    pub(crate) closed: bool,
    group: Group,
    verdicts: VecDeque<Verdict>,
}

/// What was judged and is not written yet.
#[derive(Default)]
struct Group {
    headers: Vec<[u8; HEADER_BYTES]>,
    payloads: Vec<Bytes>,
    frames: Vec<FrameHeader>,
    bytes: u64,
    owed: Vec<Owed>,
    /// What to go back to.
    before: Before,
}

#[derive(Clone, Copy, Default)]
struct Before {
    next: Offset,
    last_epoch: Option<LeaderEpoch>,
    last_append_ms: i64,
}

/// An answer to be given once the group is written.
enum Owed {
    Now(Reply, AppendError),
    Written(Wait),
    Flushed(Wait),
    Committed(Wait),
}

/// How a turn of work ended.
pub(crate) enum Step {
    /// What was in the batch is done.
    Again,
    /// Too much is unsynced: the batch waits.
    NoRoom,
    /// The next thing may wait for the disk: it is done on the pool, with the owner's state taken along.
    Away(Job),
}

pub(crate) type Job = Box<dyn FnOnce(&Arc<Core>, &mut Owner) + Send>;

/// What recovery or creation hands over.
pub(crate) struct Start {
    pub(crate) config: LogConfig,
    pub(crate) producers: ProducerTable,
    pub(crate) active: Arc<Segment>,
    pub(crate) ends: Ends,
    pub(crate) published: watch::Sender<Ends>,
    pub(crate) last_epoch: Option<LeaderEpoch>,
    pub(crate) last_append_ms: i64,
}

impl Owner {
    pub(crate) fn new(start: Start) -> Self {
        Self {
            batch: VecDeque::new(),
            durable: None,
            admission: Box::new(NoLeader),
            config: start.config,
            producers: start.producers,
            position: start.active.written(),
            allocated: start.active.written(),
            noted: 0,
            active: start.active,
            next: start.ends.log_end,
            ends: start.ends,
            published: Some(start.published),
            cuts: 0,
            last_epoch: start.last_epoch,
            last_append_ms: start.last_append_ms,
            waits: Waits::default(),
            closed: false,
            group: Group::default(),
            verdicts: VecDeque::new(),
        }
    }

    /// Works off the batch.
    pub(crate) fn work(&mut self, core: &Arc<Core>) -> Step {
        if let Some(tail) = self.durable.take() {
            self.flushed(core, tail);
        }
        if core.dir.has(Mutant::DecideEarly) {
            self.judge_early(core);
        }
        while let Some(entry) = self.batch.pop_front() {
            match entry {
                Entry::Append(append) if self.must_wait(core) => {
                    self.batch.push_front(Entry::Append(append));
                    self.finish(core);
                    return Step::NoRoom;
                }
                Entry::Append(append) => self.append(core, append),
                Entry::Refusal(refusal) => refusal.give(),
                Entry::Resume => {}
                Entry::Command(command) => {
                    self.finish(core);
                    if let Some(job) = self.command(core, command) {
                        return Step::Away(job);
                    }
                }
            }
        }
        self.finish(core);
        Step::Again
    }

    fn must_wait(&self, core: &Core) -> bool {
        !core.dir.has_room() && !self.closed && !core.dir.failed()
    }

    /// Writes what is to be written, and answers what can be answered.
    fn finish(&mut self, core: &Arc<Core>) {
        self.write_group(core);
        self.advance(core);
    }

    fn view(&self, now_ms: i64) -> LogView<'_> {
        LogView {
            log_start: self.ends.log_start,
            high_watermark: self.ends.high_watermark,
            flushed_end: self.ends.flushed_end,
            log_end: self.next,
            last_leader_epoch: self.last_epoch,
            durability: self.config.durability,
            producers: &self.producers,
            now_ms,
        }
    }

    /// The wall clock, never running backwards within a log (correctness rule 18).
    fn now_ms(&self, core: &Core) -> i64 {
        core.dir.os.wall_ms().max(self.last_append_ms)
    }

    fn judge(&mut self, now_ms: i64, append: &Append) -> Verdict {
        if let Some(verdict) = self.verdicts.pop_front() {
            return verdict;
        }
        // The view borrows what the admission does not own: taken out for the call, which cannot reach it.
        let mut admission = std::mem::replace(&mut self.admission, Box::new(NoLeader));
        let verdict = admission.admit(&self.view(now_ms), append);
        self.admission = admission;
        verdict
    }

    /// A planted bug: everything is judged by what the log is before any of it is applied.
    fn judge_early(&mut self, core: &Core) {
        let now_ms = self.now_ms(core);
        self.verdicts.clear();
        let batch = std::mem::take(&mut self.batch);
        let mut verdicts = VecDeque::new();
        for entry in &batch {
            if let Entry::Append(append) = entry {
                verdicts.push_back(self.judge(now_ms, append));
            }
        }
        self.batch = batch;
        self.verdicts = verdicts;
    }

    fn append(&mut self, core: &Arc<Core>, append: Append) {
        let now_ms = self.now_ms(core);
        let refused = self.refuse_early(core, &append);
        let verdict = match &refused {
            Some(_) => None,
            None => Some(self.judge(now_ms, &append)),
        };
        let Append { batch, acks, gate, done, .. } = append;
        let mut reply = Reply::new(done, gate);
        let owed = match (refused, verdict) {
            (Some(error), _) => self.no(reply, error),
            (None, Some(Verdict::Append { leader_epoch })) if Some(leader_epoch) < self.last_epoch => {
                // A start would take the frame for a torn one: whoever decides knows less than the log.
                tracing::error!(partition = %core.id, leader_epoch, last = self.last_epoch, "an older leadership");
                self.no(reply, Refused::NotLeader.into())
            }
            (None, Some(Verdict::Append { leader_epoch })) => match self.room_for(core, &batch, now_ms) {
                Ok(()) => self.admitted(batch, acks, reply, leader_epoch, now_ms),
                Err(error) => self.no(reply, error),
            },
            (None, Some(Verdict::Duplicate(original))) => {
                core.dir.stats.duplicates.add(1);
                self.duplicate(core, original, reply)
            }
            (None, Some(Verdict::Refuse(refused))) => {
                core.dir.stats.refused.add(1);
                self.no(reply, refused.into())
            }
            (None, Some(Verdict::RefuseWhenCommitted(refused))) => {
                core.dir.stats.refused.add(1);
                // Shut now: what comes behind must not overtake an answer that is only being held back.
                reply.shut_gate();
                Owed::Committed(Wait { end: self.next, then: Then::Refuse(reply, refused) })
            }
            (None, None) => self.no(reply, AppendError::Closed),
        };
        self.group.owed.push(owed);
    }

    fn no(&self, mut reply: Reply, error: AppendError) -> Owed {
        reply.shut_gate();
        Owed::Now(reply, error)
    }

    /// What needs no judgement.
    fn refuse_early(&self, core: &Core, append: &Append) -> Option<AppendError> {
        if self.closed || core.dir.failed() || core.dir.stopping() {
            return Some(AppendError::Closed);
        }
        if let Some(gate) = &append.gate {
            if append.resume {
                gate.open();
            } else if gate.is_shut() {
                return Some(AppendError::Poisoned);
            }
        }
        let batch = &append.batch;
        if batch.last_offset_delta < 0 || batch.record_count < 0 {
            return Some(AppendError::Malformed("a count is negative"));
        }
        if batch.codec > 15 {
            return Some(AppendError::Malformed("the codec's number is above 15"));
        }
        if batch.payload.len() as u64 + HEADER_BYTES as u64 > SEGMENT_BYTES_MAX {
            return Some(AppendError::Malformed("the payload is larger than any segment"));
        }
        None
    }

    /// Makes sure that the batch fits the disk and the active segment, which may mean a new one.
    fn room_for(&mut self, core: &Arc<Core>, batch: &NewBatch, now_ms: i64) -> Result<(), AppendError> {
        core.dir.check_headroom()?;
        let frame_bytes = HEADER_BYTES as u64 + batch.payload.len() as u64;
        let position = self.position + self.group.bytes;
        let last = self.next + i64::from(batch.last_offset_delta);
        let full = position + frame_bytes > self.config.segment_bytes()
            || last - self.active.base > DELTA_MAX
            || self.is_old(now_ms);
        if full && position > 0 {
            let judged_by = self.next;
            self.write_group(core);
            if core.dir.failed() {
                return Err(AppendError::Closed);
            }
            if self.next != judged_by {
                // What was in front of it could not be written, so it was judged by a log that is not.
                return Err(core.dir.disk_full());
            }
            self.roll(core)
                .map_err(|error| core.dir.refusal_or_fatal(&core.path, "create a segment", error))?;
        }
        Ok(())
    }

    /// Whether the active segment's time is over.
    pub(crate) fn is_old(&self, now_ms: i64) -> bool {
        let first = self.active.times().and_then(|(_, _, first)| first);
        first.is_some_and(|first| first.saturating_add(self.config.segment_ms) <= now_ms)
    }

    fn admitted(
        &mut self,
        batch: NewBatch,
        acks: Acks,
        mut reply: Reply,
        leader_epoch: LeaderEpoch,
        append_time_ms: i64,
    ) -> Owed {
        let header = FrameHeader {
            base_offset: self.next,
            last_offset_delta: batch.last_offset_delta,
            record_count: batch.record_count,
            base_timestamp_ms: batch.base_timestamp_ms,
            max_timestamp_ms: batch.max_timestamp_ms,
            append_time_ms,
            append_time: batch.append_time,
            codec: batch.codec,
            transactional: batch.transactional,
            control: batch.control,
            broker_compressed: batch.broker_compressed,
            uncompressed_bytes: batch.uncompressed_bytes,
            payload_bytes: batch.payload.len() as u32,
            payload_crc: batch.crc,
            producer: batch.producer,
            base_sequence: batch.base_sequence,
            leader_epoch,
            flushed_end: Some(self.ends.flushed_end),
        };
        self.push_frame(header, batch.payload);
        reply.set_applied();
        let wait = Wait { end: self.next, then: Then::Appended(reply, appended(&header)) };
        match (acks, self.config.durability) {
            (Acks::None, _) | (Acks::Leader, Durability::Replicated) => Owed::Written(wait),
            (Acks::Leader, Durability::Fsync) => Owed::Flushed(wait),
            (Acks::All, _) => Owed::Committed(wait),
        }
    }

    fn push_frame(&mut self, header: FrameHeader, payload: Bytes) {
        if self.group.frames.is_empty() {
            self.group.before =
                Before { next: self.next, last_epoch: self.last_epoch, last_append_ms: self.last_append_ms };
        }
        self.next = header.next_offset();
        self.last_epoch = self.last_epoch.max(Some(header.leader_epoch));
        self.last_append_ms = header.append_time_ms;
        self.producers.apply(&header);
        self.group.bytes += header.frame_bytes();
        self.group.frames.push(header);
        self.group.payloads.push(payload);
    }

    /// A duplicate is answered by what its original would be: when that is committed (rule 17).
    fn duplicate(&self, core: &Core, original: KnownBatch, mut reply: Reply) -> Owed {
        reply.set_applied();
        let appended = Appended {
            base_offset: original.base_offset,
            last_offset: original.last_offset,
            leader_epoch: original.leader_epoch,
            append_time_ms: original.append_time_ms,
            duplicate: true,
            committed: false,
            flushed: false,
        };
        let wait = Wait { end: original.last_offset + 1, then: Then::Appended(reply, appended) };
        if core.dir.has(Mutant::DuplicateEarly) { Owed::Written(wait) } else { Owed::Committed(wait) }
    }

    /// Writes the group and owes its answers, or takes all of it back.
    fn write_group(&mut self, core: &Arc<Core>) {
        if !self.group.frames.is_empty() {
            self.group.headers.clear();
            let seed = core.seed;
            self.group.headers.extend(self.group.frames.iter().map(|header| header.encode(seed)));
            match self.write_out(core) {
                Ok(()) => self.written(core),
                Err(error) => self.take_back(core, error),
            }
            self.group.frames.clear();
            self.group.payloads.clear();
            self.group.bytes = 0;
        }
        let mut owed = std::mem::take(&mut self.group.owed);
        for owed in owed.drain(..) {
            match owed {
                Owed::Now(reply, error) => reply.give(Err(error)),
                Owed::Written(wait) => wait.done(&self.ends),
                Owed::Flushed(wait) => self.waits.flushed(wait),
                Owed::Committed(wait) => self.waits.committed(wait),
            }
        }
        self.group.owed = owed;
    }

    /// One vectored write, as many calls as the system needs for it.
    fn write_out(&mut self, core: &Arc<Core>) -> io::Result<()> {
        let _pin = self.active.pin();
        let file = self.active.open(&core.dir.handles)?;
        self.allocate(core, &*file);
        let mut slices = Vec::with_capacity(2 * self.group.frames.len());
        for (header, payload) in self.group.headers.iter().zip(&self.group.payloads) {
            slices.push(io::IoSlice::new(header));
            if !payload.is_empty() {
                slices.push(io::IoSlice::new(payload));
            }
        }
        let mut rest = slices.as_mut_slice();
        let mut position = self.position;
        while !rest.is_empty() {
            match file.write_at(rest, position) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => {
                    position += n as u64;
                    io::IoSlice::advance_slices(&mut rest, n);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Reserves blocks ahead, in steps that grow with the segment. Only to make the writes cheaper: a failure shows
    /// when they are made.
    fn allocate(&mut self, core: &Core, file: &dyn File) {
        let until = self.position + self.group.bytes;
        if until <= self.allocated || until <= core.dir.options.preallocate_from_bytes {
            return;
        }
        let step = until.next_power_of_two().clamp(ALLOCATE_MIN_BYTES, ALLOCATE_MAX_BYTES);
        let target = (until + step).min(self.config.segment_bytes()).max(until);
        if file.allocate(self.position, target - self.position).is_ok() {
            self.allocated = target;
        }
    }

    /// The group is in the page cache.
    fn written(&mut self, core: &Arc<Core>) {
        {
            let mut index = self.active.index.write();
            if let Index::Live(index) = &mut *index {
                let mut position = self.position;
                for header in &self.group.frames {
                    index.note(header, position as u32);
                    position += header.frame_bytes();
                }
            }
        }
        if self.last_epoch != self.group.before.last_epoch {
            let mut epochs = core.epochs.write();
            for header in &self.group.frames {
                epochs.note(header.leader_epoch, header.base_offset);
            }
        }
        self.producers.keep();
        core.dir.will_be_dirty(self.group.bytes);
        self.position += self.group.bytes;
        self.active.set_written(self.position);
        self.ends.log_end = self.next;
        *core.tail.lock() = self.tail();
        self.publish();
        let stats = &core.dir.stats;
        stats.appends.add(self.group.frames.len() as u64);
        stats.append_bytes.add(self.group.bytes);
        stats.append_groups.add(1);
        stats.group_appends.record(self.group.frames.len() as u64);
        core.dir.wrote(core, self.config.durability);
    }

    pub(crate) fn tail(&self) -> Tail {
        let point =
            RecoveryPoint { offset: self.ends.log_end, segment: self.active.base, position: self.position };
        Tail { cuts: self.cuts, point }
    }

    /// The write failed: what was judged since the group began never was, or the process ends.
    fn take_back(&mut self, core: &Arc<Core>, error: io::Error) {
        let refusal = core.dir.refusal_or_fatal(&self.active.path, "write", error);
        if !matches!(refusal, AppendError::NoHandles) {
            let cut = self.active.open(&core.dir.handles).and_then(|file| file.set_len(self.position));
            if let Err(error) = cut {
                core.dir.fatal(&self.active.path, "cut back a short append", &error);
            }
        }
        if core.dir.failed() {
            // Dropped unanswered: each says by itself that it may have been applied.
            self.group.owed.clear();
            return;
        }
        self.allocated = self.position;
        self.producers.undo();
        let before = self.group.before;
        self.next = before.next;
        self.last_epoch = before.last_epoch;
        self.last_append_ms = before.last_append_ms;
        core.dir.stats.disk_full.add(self.group.owed.len() as u64);
        for owed in self.group.owed.drain(..) {
            match owed {
                Owed::Now(reply, _) => reply.give(Err(refusal.clone())),
                // It was judged by what is in the log: the repetition of a batch that is there, above all.
                Owed::Committed(wait) if wait.end <= before.next => self.waits.committed(wait),
                Owed::Written(wait) | Owed::Flushed(wait) | Owed::Committed(wait) => {
                    wait.refuse(refusal.clone())
                }
            }
        }
    }

    /// A sync has made the log durable up to there.
    pub(crate) fn flushed(&mut self, core: &Core, tail: Tail) {
        if tail.cuts == self.cuts && tail.point.offset >= self.ends.flushed_end {
            self.ends.flushed_end = tail.point.offset;
            core.durable.lock().recovery_point = tail.point;
        }
    }

    /// Asks how far the log is committed, publishes it, and answers who waited for it.
    pub(crate) fn advance(&mut self, core: &Arc<Core>) {
        if core.dir.failed() {
            // Nothing is acknowledged any more: dropped, each says that it may have been applied.
            self.waits = Waits::default();
            return;
        }
        let mut admission = std::mem::replace(&mut self.admission, Box::new(NoLeader));
        let mut view = self.view(self.last_append_ms);
        if core.dir.has(Mutant::AckBeforeFlush) {
            view.flushed_end = view.log_end;
        }
        let asked = admission.high_watermark(&view);
        self.admission = admission;
        self.ends.high_watermark = asked.min(self.ends.log_end).max(self.ends.high_watermark);
        // Without transactions everything committed is stable.
        self.ends.last_stable = self.ends.high_watermark;
        self.publish();
        self.waits.complete(&self.ends);
    }

    /// Publishes the ends. Who watches is woken if readers can see a difference.
    pub(crate) fn publish(&self) {
        let ends = self.ends.checked();
        if let Some(published) = &self.published {
            published.send_if_modified(|old| {
                let visible = |ends: &Ends| (ends.log_start, ends.last_stable, ends.high_watermark);
                let tell = visible(old) != visible(&ends);
                *old = ends;
                tell
            });
        }
    }

    /// Closes the active segment and begins the next one at the log's end. Its name becomes durable with the first
    /// sync of what is in it: nothing in it is reported flushed before.
    pub(crate) fn roll(&mut self, core: &Arc<Core>) -> io::Result<()> {
        let segment =
            Arc::new(Segment::new(&core.path, self.next, 0, false, Index::Live(LiveIndex::new(self.next))));
        let handles = &core.dir.handles;
        let file = handles.retry(|| handles.disk.open(&segment.path, Access::CreateNew))?;
        segment.adopt(handles, file);
        *self.active.facts.lock() = Some(self.facts(core));
        self.active.set_end(Some(self.next));
        let mut segments = Vec::clone(&core.segments.load());
        segments.push(Arc::clone(&segment));
        core.segments.store(Arc::new(segments));
        core.dir.seal_later(SealJob {
            core: Arc::clone(core),
            segment: std::mem::replace(&mut self.active, segment),
        });
        self.position = 0;
        self.allocated = 0;
        self.noted = 0;
        *core.tail.lock() = self.tail();
        core.dir.stats.segments_rolled.add(1);
        Ok(())
    }

    /// What is known at the end of the log.
    pub(crate) fn facts(&self, core: &Core) -> Facts {
        Facts {
            end: self.next,
            epochs: core.epochs.read().clone(),
            producers: self.producers.in_log_order(),
            forgot: self.producers.forgot(),
        }
    }

    fn command(&mut self, core: &Arc<Core>, command: Command) -> Option<Job> {
        if core.dir.failed() || core.dir.stopping() {
            command.refuse();
            return None;
        }
        match command {
            Command::Outcome(query, answer) => {
                self.outcome(core, query, answer);
                None
            }
            Command::Note => {
                self.note_tail(core);
                None
            }
            Command::Abandon(answer) => {
                self.abandon(core);
                // Whoever asked may have gone.
                drop(answer.send(Ok(())));
                None
            }
            Command::Control(control, answer) => self.control(core, control, answer),
        }
    }

    fn control(&mut self, core: &Arc<Core>, control: Control, answer: Answer<()>) -> Option<Job> {
        let result = match control {
            Control::SetAdmission(admission) => self.set_admission(core, admission),
            // Every command is followed by the question that this one is about.
            Control::Advance => Ok(()),
            Control::Configure(config) => {
                self.producers.set_limits(config.producer_limits());
                jobs::note_config(core, &config);
                self.config = config;
                Ok(())
            }
            Control::Roll => self.roll_now(core),
            Control::Truncate { to } => return Some(jobs::truncate(to, answer)),
            Control::SetLogStart { offset } => return Some(jobs::set_log_start(offset, answer)),
            Control::Retain { now_ms } => match jobs::retain(core, self, now_ms) {
                Some(job) => return Some(jobs::answered(job, answer)),
                None => Ok(()),
            },
            Control::Close => return Some(jobs::close(answer)),
        };
        // Whoever asked may have gone.
        drop(answer.send(result));
        None
    }

    /// A leadership that is over changes nothing: what would be appended in it would be cut at the next start.
    fn set_admission(&mut self, core: &Arc<Core>, admission: Box<dyn Admission>) -> Result<(), Error> {
        if let (Some(given), Some(last)) = (admission.leader_epoch(), self.last_epoch)
            && given < last
        {
            return Err(Error::StaleEpoch { given, last });
        }
        self.admission = admission;
        self.advance(core);
        Ok(())
    }

    /// Hands what is known of the active segment to the keeper, who writes it down.
    fn note_tail(&mut self, core: &Arc<Core>) {
        let grown = self.position.saturating_sub(self.noted);
        if self.closed
            || grown < core.dir.options.note_every_bytes
            || self.ends.flushed_end < self.ends.log_end
        {
            return;
        }
        if let Some(note) = keeper::TailNote::take(core, self) {
            self.noted = self.position;
            core.dir.note_later(note);
        }
    }

    /// Nothing is done here any more. What waits is told that it may have been applied.
    pub(crate) fn abandon(&mut self, core: &Arc<Core>) {
        self.closed = true;
        self.waits = Waits::default();
        core.closed.store(true, Ordering::Release);
        self.published = None;
        core.claim.close();
    }

    fn roll_now(&mut self, core: &Arc<Core>) -> Result<(), Error> {
        if self.closed {
            return Err(Error::Closed);
        }
        if self.position == 0 {
            return Ok(());
        }
        self.roll(core).map_err(Error::io(&*core.path, "create a segment"))
    }

    /// What became of an append, decided where appends are (rule 19).
    fn outcome(
        &mut self,
        core: &Arc<Core>,
        query: OutcomeQuery,
        answer: Answer<Result<Outcome, AppendError>>,
    ) {
        let now_ms = self.now_ms(core);
        let outcome = match self.producers.trace(query.producer, query.base_sequence, now_ms) {
            Trace::Found(batch) if batch.last_offset < self.ends.high_watermark => Outcome::Appended(batch),
            Trace::Found(batch) => Outcome::Pending(batch),
            Trace::Never { next_epoch } => {
                // The fence may not be committed yet: until it is, another leader may not have it.
                let end = self.ends.log_end;
                self.waits.committed(Wait { end, then: Then::Sealed(answer, next_epoch) });
                return;
            }
            Trace::NotSoFar if query.seal => return self.seal(core, query.producer, answer),
            Trace::NotSoFar => Outcome::NotSoFar,
            Trace::Expired => Outcome::Unknown(UnknownCause::Expired),
            Trace::Window => Outcome::Unknown(UnknownCause::Window),
            Trace::Fenced => Outcome::Unknown(UnknownCause::Fenced),
        };
        drop(answer.send(Ok(Ok(outcome))));
    }

    /// Appends a fence for the producer's next epoch: an empty frame that takes one offset.
    fn seal(&mut self, core: &Arc<Core>, producer: Producer, answer: Answer<Result<Outcome, AppendError>>) {
        let Some(next_epoch) = producer.epoch.checked_add(1) else {
            let last =
                "the producer's epoch is the last there is, and cannot be fenced: take a new producer id";
            drop(answer.send(Ok(Err(AppendError::Malformed(last)))));
            return;
        };
        let now_ms = self.now_ms(core);
        let batch = NewBatch {
            last_offset_delta: 0,
            record_count: 0,
            base_timestamp_ms: now_ms,
            max_timestamp_ms: now_ms,
            append_time: true,
            codec: 0,
            uncompressed_bytes: 0,
            crc: 0,
            producer: Some(Producer { id: producer.id, epoch: next_epoch }),
            base_sequence: 0,
            transactional: false,
            control: true,
            broker_compressed: false,
            payload: Bytes::new(),
        };
        let append = Append {
            batch,
            acks: Acks::All,
            expected_next_offset: None,
            gate: None,
            resume: false,
            done: Box::new(move |result| {
                drop(answer.send(Ok(result.map(|_| Outcome::Never { next_epoch }))));
            }),
        };
        self.append(core, append);
        self.finish(core);
    }
}

fn appended(header: &FrameHeader) -> Appended {
    Appended {
        base_offset: header.base_offset,
        last_offset: header.last_offset(),
        leader_epoch: header.leader_epoch,
        append_time_ms: header.append_time_ms,
        duplicate: false,
        committed: false,
        flushed: false,
    }
}
