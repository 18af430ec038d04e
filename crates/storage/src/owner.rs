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

mod commands;
mod group;
mod replicated;

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::watch;
use weir_types::{Durability, KnownBatch, LeaderEpoch, Offset, Producer};

use crate::admission::{Admission, Holders, LogView, NotLeading, Verdict};
use crate::append::{Acks, Append, AppendError, Appended, NewBatch, Refused, Reply};
use crate::claim::Entry;
use crate::config::{LogConfig, Mutant, SEGMENT_BYTES_MAX};
use crate::core::{Core, Tail};
use crate::ends::Ends;
use crate::frame::{FrameHeader, HEADER_BYTES};
use crate::producers::ProducerTable;
use crate::replicate::{ReplicateError, ReplicatedReply};
use crate::segment::Segment;
use crate::waits::{Then, Wait, Waits};

/// Offsets in a segment are stored as 32 bits from its first one; no frame may reach beyond.
const DELTA_MAX: i64 = u32::MAX as i64;

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
    /// What of the free space was taken for it.
    taken_bytes: u64,
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
    Replicated(ReplicatedReply, Result<(), ReplicateError>),
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
            admission: Box::new(NotLeading),
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
                Entry::Replicated(replicated) if self.must_wait(core) => {
                    self.batch.push_front(Entry::Replicated(replicated));
                    self.finish(core);
                    return Step::NoRoom;
                }
                Entry::Replicated(replicated) => self.replicated(core, replicated),
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

    /// The append time that the next frame gets.
    fn now_ms(&self, core: &Core) -> i64 {
        core.dir.clock.append_ms(self.last_append_ms)
    }

    fn judge(&mut self, now_ms: i64, append: &Append) -> Verdict {
        if let Some(verdict) = self.verdicts.pop_front() {
            return verdict;
        }
        // The view borrows what the admission does not own: taken out for the call, which cannot reach it.
        let mut admission = std::mem::replace(&mut self.admission, Box::new(NotLeading));
        let verdict = admission.admit(&self.view(now_ms), append);
        self.admission = admission;
        verdict
    }

    /// Answers what waits for nothing more.
    fn done(&mut self, wait: Wait) {
        let mut admission = std::mem::replace(&mut self.admission, Box::new(NotLeading));
        let view = self.view(self.last_append_ms);
        wait.done(&self.ends, &mut |end| admission.holders(&view, end));
        self.admission = admission;
    }

    /// Answers what waited for ends that have come this far.
    fn complete(&mut self) {
        let mut admission = std::mem::replace(&mut self.admission, Box::new(NotLeading));
        let mut waits = std::mem::take(&mut self.waits);
        let view = self.view(self.last_append_ms);
        waits.complete(&self.ends, |end| admission.holders(&view, end));
        (self.admission, self.waits) = (admission, waits);
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
                tracing::error!(
                    name = core.name(),
                    leader_epoch,
                    last = self.last_epoch,
                    "an older leadership"
                );
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
                let (now, then) = (self.ends.high_watermark, self.next);
                let end = if core.dir.has(Mutant::MismatchEarly) { now } else { then };
                // Shut now: what comes behind must not overtake an answer that is only being held back.
                reply.shut_gate();
                Owed::Committed(Wait { end, then: Then::Refuse(reply, refused) })
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
            } else if gate.is_shut() && !core.dir.has(Mutant::RowGoesOn) {
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

    /// Makes sure that there is room for its producer, and for its frame.
    fn room_for(&mut self, core: &Arc<Core>, batch: &NewBatch, now_ms: i64) -> Result<(), AppendError> {
        let has_room = |producer: Producer| self.producers.has_room_for(producer.id, now_ms);
        if !batch.producer.is_none_or(has_room) {
            core.dir.stats.refused.add(1);
            return Err(Refused::ProducersTooMany { max: self.config.producers_max }.into());
        }
        core.dir.check_headroom(0)?;
        let frame_bytes = HEADER_BYTES as u64 + batch.payload.len() as u64;
        self.room_for_frame(core, frame_bytes, self.next + i64::from(batch.last_offset_delta), now_ms)
    }

    /// Makes sure that there is room on the disk, and in the active segment, which may mean a new one, for a frame of
    /// this length, with this last offset and append time.
    fn room_for_frame(
        &mut self,
        core: &Arc<Core>,
        frame_bytes: u64,
        last: Offset,
        append_time_ms: i64,
    ) -> Result<(), AppendError> {
        let position = self.position + self.group.bytes;
        // Where time goes back a segment begins: within one it rises, and all of its times are right, or none.
        let full = position + frame_bytes > self.config.segment_bytes()
            || last - self.active.base > DELTA_MAX
            || append_time_ms < self.last_append_ms
            || self.is_old(append_time_ms);
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
        let position = self.position + self.group.bytes;
        let end = position + frame_bytes;
        let new_bytes = end - self.allocated.clamp(position, end);
        core.dir.take_space(new_bytes)?;
        self.group.taken_bytes += new_bytes;
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
            holders: Holders::default(),
        };
        let wait = Wait { end: original.last_offset + 1, then: Then::Appended(reply, appended) };
        if core.dir.has(Mutant::DuplicateEarly) { Owed::Written(wait) } else { Owed::Committed(wait) }
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
        holders: Holders::default(),
    }
}
