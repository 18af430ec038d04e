//! What a log says of its producers: for each the epoch and the last five batches (correctness rules 17, 18).
//! Hot path.
//!
//! It is a function of the state at the log's start and of the frames behind it, and of nothing else: no clock, no
//! order of arrival. A producer expires by the append times of later frames, and when there are too many the one
//! that has not written for longest goes, in log order: so replicas, and a restart, come to the same table.
//!
//! Whoever is forgotten and sends its first batch once more is taken for new. So nobody is forgotten for want of room who
//! may still do that; whoever is really new has to wait.

mod by_id;

use std::collections::VecDeque;

use weir_types::{KnownBatch, KnownProducer, Offset, Producer, ProducerId, sequence_add};

use self::by_id::ById;
use crate::frame::FrameHeader;

/// How many batches are remembered of a producer: as many as it may have in flight.
const BATCHES_REMEMBERED: usize = 5;

/// The producers of one log.
#[derive(Clone, Debug)]
pub struct ProducerTable {
    by_id: ById,
    /// Who wrote when, in log order. An item whose offset is not its producer's last one is out of date.
    order: VecDeque<(Offset, i64)>,
    limits: ProducerLimits,
    /// Whether a producer was ever forgotten: if not, one that is not known never wrote.
    forgot: bool,
    /// What undoes the changes since the last [`ProducerTable::keep`].
    undo: Vec<Undo>,
    /// A planted bug: what is in the future stays there.
    keeps_future: bool,
}

/// When producers are forgotten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ProducerLimits {
    /// After so many milliseconds without a batch, by the append times of others.
    pub(crate) expiry_ms: i64,
    /// When there are more than this, but not before `kept_ms` have passed.
    pub(crate) count_max: usize,
    /// For so long after its last batch a producer may send its first one again, milliseconds.
    pub(crate) kept_ms: i64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) epoch: i32,
    pub(crate) last_offset: Offset,
    pub(crate) last_time_ms: i64,
    /// The last frame is a fence: the batches are those of the epoch before, kept to tell what became of them.
    pub(crate) sealed: bool,
    len: u8,
    batches: [KnownBatch; BATCHES_REMEMBERED],
}

impl Entry {
    pub(crate) fn new(epoch: i32, last_offset: Offset, last_time_ms: i64) -> Self {
        Self { epoch, last_offset, last_time_ms, sealed: false, len: 0, batches: Default::default() }
    }

    pub(crate) fn batches(&self) -> &[KnownBatch] {
        self.batches.get(..usize::from(self.len)).unwrap_or_default()
    }

    pub(crate) fn push(&mut self, batch: KnownBatch) {
        if usize::from(self.len) == BATCHES_REMEMBERED {
            self.batches.rotate_left(1);
            self.len -= 1;
        }
        if let Some(place) = self.batches.get_mut(usize::from(self.len)) {
            *place = batch;
            self.len += 1;
        }
    }
}

/// The producers of a log as they were at some moment, to be written down by somebody who is not in a hurry.
#[derive(Clone, Debug)]
pub(crate) struct Snapshot(ById);

impl Snapshot {
    /// All of them, the one that has not written for longest first.
    pub(crate) fn in_log_order(&self) -> Vec<(ProducerId, Entry)> {
        let mut entries: Vec<_> = self.0.iter().map(|(id, entry)| (ProducerId(id), *entry)).collect();
        entries.sort_unstable_by_key(|(_, entry)| entry.last_offset);
        entries
    }
}

/// What a log knows of a batch that somebody asks about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trace {
    Found(KnownBatch),
    NotSoFar,
    /// Not appended, and a fence keeps it out for good.
    Never {
        next_epoch: i32,
    },
    Expired,
    Window,
    Fenced,
}

#[derive(Clone, Debug)]
enum Undo {
    /// The producer was this before.
    Put(i64, Option<Entry>),
    /// This was taken from the front of the order.
    Front(Offset, i64),
    /// Something was put at the back of the order.
    Back,
    /// All producers were these before.
    All(ById),
}

impl ProducerTable {
    /// From what [`Snapshot::in_log_order`] gave.
    pub(crate) fn from_entries(
        limits: ProducerLimits,
        entries: Vec<(ProducerId, Entry)>,
        forgot: bool,
    ) -> Self {
        let order = entries.iter().map(|(id, entry)| (entry.last_offset, id.0)).collect();
        let by_id = entries.into_iter().map(|(id, entry)| (id.0, entry)).collect();
        Self { by_id, order, limits, forgot, undo: Vec::new(), keeps_future: false }
    }

    /// The same, perhaps with a bug.
    pub(crate) fn planted(self, keeps_future: bool) -> Self {
        Self { keeps_future, ..self }
    }

    /// What is known of a producer when a frame is appended at this time.
    pub fn get(&self, id: ProducerId, now_ms: i64) -> Option<KnownProducer<'_>> {
        let entry = self.by_id.get(id.0).filter(|entry| !self.is_expired(entry, now_ms))?;
        let batches = if entry.sealed { &[] } else { entry.batches() };
        Some(KnownProducer { epoch: entry.epoch, batches })
    }

    /// What became of a batch, as far as this log knows.
    pub(crate) fn trace(&self, producer: Producer, base_sequence: i32, now_ms: i64) -> Trace {
        let known = self.by_id.get(producer.id.0).filter(|entry| !self.is_expired(entry, now_ms));
        let Some(entry) = known else {
            let forgotten = self.forgot || self.by_id.get(producer.id.0).is_some();
            return if forgotten { Trace::Expired } else { Trace::NotSoFar };
        };
        let of_epoch = if entry.sealed { entry.epoch - 1 } else { entry.epoch };
        if producer.epoch > of_epoch {
            return Trace::NotSoFar;
        }
        if producer.epoch < of_epoch {
            return Trace::Fenced;
        }
        let batches = entry.batches();
        if let Some(batch) = batches.iter().rev().find(|batch| batch.base_sequence == base_sequence) {
            return Trace::Found(*batch);
        }
        let expected = batches.last().map_or(0, |last| {
            let count = i32::try_from(last.last_offset - last.base_offset + 1).unwrap_or(i32::MAX);
            sequence_add(last.base_sequence, count)
        });
        // Sequence numbers go round: "behind" is the shorter way.
        let ahead = base_sequence.wrapping_sub(expected) & i32::MAX;
        match ahead < i32::MAX / 2 {
            true if entry.sealed => Trace::Never { next_epoch: entry.epoch },
            true => Trace::NotSoFar,
            false => Trace::Window,
        }
    }

    /// Whether a producer was ever forgotten.
    pub(crate) fn forgot(&self) -> bool {
        self.forgot
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.by_id.len() == 0
    }

    pub(crate) fn set_limits(&mut self, limits: ProducerLimits) {
        self.limits = limits;
    }

    /// All of them as they are now. Costs little, however many there are.
    pub(crate) fn snapshot(&self) -> Snapshot {
        Snapshot(self.by_id.clone())
    }

    /// All of them, the one that has not written for longest first.
    #[cfg(test)]
    fn in_log_order(&self) -> Vec<(ProducerId, Entry)> {
        self.snapshot().in_log_order()
    }

    /// A frame was appended, or is read again.
    pub(crate) fn apply(&mut self, header: &FrameHeader) {
        self.step_back(header.append_time_ms);
        self.forget_expired(header.append_time_ms);
        let Some(producer) = header.producer else { return };
        let before = self.by_id.get(producer.id.0).copied();
        let last_offset = header.last_offset();
        let mut entry = match before {
            Some(entry) if entry.epoch == producer.epoch && !entry.sealed && !header.control => entry,
            // What it has are the batches of the epoch that is sealed, unless that was sealed from the beginning.
            Some(entry)
                if header.control && !entry.sealed && producer.epoch == entry.epoch.saturating_add(1) =>
            {
                Entry { epoch: producer.epoch, sealed: true, ..entry }
            }
            _ => Entry::new(producer.epoch, last_offset, header.append_time_ms),
        };
        entry.last_offset = last_offset;
        entry.last_time_ms = header.append_time_ms;
        if header.control {
            entry.sealed = true;
        } else {
            entry.push(KnownBatch {
                base_sequence: header.base_sequence,
                base_offset: header.base_offset,
                last_offset,
                leader_epoch: header.leader_epoch,
                append_time_ms: header.append_time_ms,
            });
        }
        self.by_id.insert(producer.id.0, entry);
        self.undo.push(Undo::Put(producer.id.0, before));
        self.order.push_back((last_offset, producer.id.0));
        self.undo.push(Undo::Back);
        let kept_ms = self.limits.kept_ms;
        let is_old = |entry: &Entry| entry.last_time_ms.saturating_add(kept_ms) <= header.append_time_ms;
        while self.by_id.len() > self.limits.count_max && self.forget_front(is_old) {}
        // What is at the front is its producer's last, for whoever asks who goes next.
        self.forget_front(|_| false);
    }

    /// Whether a frame of this producer finds room: it is known, or there are few, or one may go. Or it is the one with
    /// which the log's time goes back: nobody becomes older before that is applied. Then there is one too many, once.
    pub(crate) fn has_room_for(&self, id: ProducerId, now_ms: i64) -> bool {
        let goes_next = self.order.front().and_then(|(_, id)| self.by_id.get(*id));
        let kept_ms = self.limits.kept_ms.min(self.limits.expiry_ms);
        self.by_id.len() < self.limits.count_max
            || self.by_id.get(id.0).is_some()
            || self.goes_back(now_ms)
            || goes_next.is_none_or(|entry| entry.last_time_ms.saturating_add(kept_ms) <= now_ms)
    }

    /// What was applied since the last call stays.
    pub(crate) fn keep(&mut self) {
        self.undo.clear();
        if self.order.len() > 2 * self.by_id.len() + 64 {
            let by_id = &self.by_id;
            self.order
                .retain(|(offset, id)| by_id.get(*id).is_some_and(|entry| entry.last_offset == *offset));
        }
    }

    /// What was applied since the last [`ProducerTable::keep`] never was.
    pub(crate) fn undo(&mut self) {
        while let Some(step) = self.undo.pop() {
            match step {
                Undo::Put(id, Some(entry)) => self.by_id.insert(id, entry),
                Undo::Put(id, None) => self.by_id.remove(id),
                Undo::Front(offset, id) => self.order.push_front((offset, id)),
                // Left there it would be true again, in the wrong place, once the producer gets the same offset.
                Undo::Back => drop(self.order.pop_back()),
                Undo::All(by_id) => self.by_id = by_id,
            }
        }
    }

    fn is_expired(&self, entry: &Entry, now_ms: i64) -> bool {
        entry.last_time_ms.saturating_add(self.limits.expiry_ms) <= now_ms
    }

    /// Whoever wrote before a frame is not younger than it: where the log's time goes back, later times count as its own.
    /// Otherwise those from a time that nobody reaches would stay for ever, and keep those behind them. Seldom enough to
    /// look at all of them.
    fn step_back(&mut self, now_ms: i64) {
        if self.goes_back(now_ms) {
            self.undo.push(Undo::All(self.by_id.clone()));
            self.by_id.none_later_than(now_ms);
        }
    }

    /// Whether somebody wrote at a later time than this.
    fn goes_back(&self, now_ms: i64) -> bool {
        // Times rise in log order, so that the last one's is the latest.
        let newest = self.order.back().and_then(|(_, id)| self.by_id.get(*id));
        newest.is_some_and(|entry| entry.last_time_ms > now_ms) && !self.keeps_future
    }

    fn forget_expired(&mut self, now_ms: i64) {
        let expiry_ms = self.limits.expiry_ms;
        while self.forget_front(|entry| entry.last_time_ms.saturating_add(expiry_ms) <= now_ms) {}
    }

    /// Forgets the producer that has not written for longest, if it is to go. Whether it went.
    fn forget_front(&mut self, goes: impl Fn(&Entry) -> bool) -> bool {
        while let Some((offset, id)) = self.order.front().copied() {
            match self.by_id.get(id).copied().filter(|entry| entry.last_offset == offset) {
                Some(entry) if goes(&entry) => {
                    self.order.pop_front();
                    self.by_id.remove(id);
                    // Once a producer was forgotten in a group that never was, "it may have been" stays: harmless.
                    self.forgot = true;
                    self.undo.push(Undo::Front(offset, id));
                    self.undo.push(Undo::Put(id, Some(entry)));
                    return true;
                }
                Some(_) => return false,
                None => {
                    self.order.pop_front();
                    self.undo.push(Undo::Front(offset, id));
                }
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: ProducerLimits = ProducerLimits { expiry_ms: 1000, count_max: 3, kept_ms: 0 };

    fn empty() -> ProducerTable {
        ProducerTable::from_entries(LIMITS, Vec::new(), false)
    }

    fn frame(id: i64, epoch: i32, base_offset: Offset, time: i64) -> FrameHeader {
        FrameHeader {
            base_offset,
            last_offset_delta: 0,
            record_count: 1,
            base_timestamp_ms: 0,
            max_timestamp_ms: 0,
            append_time_ms: time,
            append_time: false,
            codec: 0,
            transactional: false,
            control: false,
            broker_compressed: false,
            uncompressed_bytes: 0,
            payload_bytes: 0,
            payload_crc: 0,
            producer: Some(Producer { id: ProducerId(id), epoch }),
            base_sequence: base_offset as i32,
            leader_epoch: 0,
            flushed_end: None,
        }
    }

    fn offsets(table: &ProducerTable, id: i64, now: i64) -> Option<Vec<Offset>> {
        table.get(ProducerId(id), now).map(|known| known.batches.iter().map(|b| b.base_offset).collect())
    }

    #[test]
    fn five_batches_are_remembered_and_a_new_epoch_starts_over() {
        let mut table = empty();
        for offset in 0..7 {
            table.apply(&frame(1, 0, offset, 0));
        }
        assert_eq!(offsets(&table, 1, 0), Some(vec![2, 3, 4, 5, 6]));
        table.apply(&frame(1, 1, 7, 0));
        assert_eq!(offsets(&table, 1, 0), Some(vec![7]));
        table.apply(&FrameHeader { control: true, record_count: 0, ..frame(1, 2, 8, 0) });
        assert_eq!(table.get(ProducerId(1), 0), Some(KnownProducer { epoch: 2, batches: &[] }));
    }

    #[test]
    fn what_became_of_a_batch_is_known_across_a_fence() {
        let mut table = empty();
        let me = |epoch| Producer { id: ProducerId(1), epoch };
        assert_eq!(table.trace(me(0), 0, 0), Trace::NotSoFar);
        for offset in 0..6 {
            table.apply(&frame(1, 0, offset, 0));
        }
        assert!(matches!(table.trace(me(0), 3, 0), Trace::Found(batch) if batch.base_offset == 3));
        assert_eq!(table.trace(me(0), 0, 0), Trace::Window);
        assert_eq!(table.trace(me(0), 6, 0), Trace::NotSoFar);
        table.apply(&FrameHeader { control: true, record_count: 0, ..frame(1, 1, 6, 0) });
        assert!(matches!(table.trace(me(0), 5, 0), Trace::Found(batch) if batch.base_offset == 5));
        assert_eq!(table.trace(me(0), 6, 0), Trace::Never { next_epoch: 1 });
        assert_eq!(table.trace(me(1), 0, 0), Trace::NotSoFar);
        table.apply(&frame(1, 1, 7, 0));
        assert_eq!(table.trace(me(0), 5, 0), Trace::Fenced);
        assert_eq!(table.trace(me(1), 7, 5000), Trace::Expired);
    }

    #[test]
    fn a_second_fence_leaves_nothing_of_the_epoch_before_the_first() {
        let mut table = empty();
        let me = |epoch| Producer { id: ProducerId(1), epoch };
        let fence =
            |epoch, offset| FrameHeader { control: true, record_count: 0, ..frame(1, epoch, offset, 0) };
        table.apply(&frame(1, 0, 0, 0));
        table.apply(&fence(1, 1));
        assert_eq!(table.trace(me(1), 0, 0), Trace::NotSoFar);
        table.apply(&fence(2, 2));
        assert_eq!(table.trace(me(1), 0, 0), Trace::Never { next_epoch: 2 });
        assert_eq!(table.trace(me(0), 0, 0), Trace::Fenced);
    }

    #[test]
    fn producers_expire_by_the_append_times_of_others() {
        let mut table = empty();
        table.apply(&frame(1, 0, 0, 0));
        table.apply(&frame(2, 0, 1, 999));
        assert_eq!(table.len(), 2);
        assert_eq!(offsets(&table, 1, 1000), None);
        table.apply(&frame(2, 0, 2, 1000));
        assert_eq!(table.len(), 1);
    }

    #[test]
    fn where_time_goes_back_nobody_is_younger_than_that() {
        let times = |table: &ProducerTable| {
            let entries = table.in_log_order();
            entries.iter().map(|(id, entry)| (id.0, entry.last_time_ms)).collect::<Vec<_>>()
        };
        let mut table = empty();
        table.apply(&frame(1, 0, 0, 500));
        table.apply(&frame(2, 0, 1, 1_000_000 - 500));
        table.apply(&frame(1, 0, 2, 1_000_000));
        table.keep();
        let before = table.in_log_order();
        table.apply(&FrameHeader { producer: None, ..frame(0, 0, 3, 600) });
        assert_eq!(times(&table), [(2, 600), (1, 600)]);
        table.apply(&frame(2, 0, 4, 700));
        table.undo();
        assert_eq!(table.in_log_order(), before);
        table.apply(&frame(3, 0, 3, 600));
        assert_eq!(times(&table), [(2, 600), (1, 600), (3, 600)]);
        // Written down in between it is the same.
        let mut again = ProducerTable::from_entries(LIMITS, table.in_log_order(), false);
        for table in [&mut table, &mut again] {
            table.apply(&frame(3, 0, 4, 1599));
            assert_eq!(table.len(), 3);
            table.apply(&frame(3, 0, 5, 1600));
            assert_eq!(times(table), [(3, 1600)]);
        }
        assert_eq!(table.trace(Producer { id: ProducerId(1), epoch: 0 }, 2, 1600), Trace::Expired);
    }

    #[test]
    fn too_many_producers_go_in_log_order() {
        let mut table = empty();
        for (offset, id) in [1, 2, 3, 1, 4].into_iter().enumerate() {
            table.apply(&frame(id, 0, offset as i64, 0));
        }
        assert_eq!((offsets(&table, 2, 0), offsets(&table, 1, 0)), (None, Some(vec![0, 3])));
    }

    #[test]
    fn nobody_goes_for_want_of_room_who_may_send_its_first_batch_again() {
        let limits = ProducerLimits { kept_ms: 100, ..LIMITS };
        let mut table = ProducerTable::from_entries(limits, Vec::new(), false);
        for (offset, id) in [1, 2, 3].into_iter().enumerate() {
            table.apply(&frame(id, 0, offset as i64, 10 * offset as i64));
        }
        let has_room_for = |table: &ProducerTable, id, now| table.has_room_for(ProducerId(id), now);
        assert_eq!([1, 4].map(|id| has_room_for(&table, id, 99)), [true, false]);
        assert!(has_room_for(&table, 4, 100));
        // Who has written again is not the one to go.
        table.apply(&frame(1, 0, 3, 50));
        table.apply(&frame(2, 0, 4, 60));
        assert_eq!([119, 120].map(|now| has_room_for(&table, 4, now)), [false, true]);
        // Nor would a leader that has let one in too many make anybody go.
        table.apply(&frame(4, 0, 5, 119));
        assert_eq!(table.len(), 4);
        table.apply(&frame(4, 0, 6, 120));
        assert_eq!((table.len(), offsets(&table, 3, 120)), (3, None));
    }

    #[test]
    fn one_finds_room_in_a_full_table_of_the_future_and_makes_all_others_as_young_as_itself() {
        let limits = ProducerLimits { expiry_ms: 1_000_000, kept_ms: 100, ..LIMITS };
        let mut table = ProducerTable::from_entries(limits, Vec::new(), false);
        // The first wrote before the clock was wrong.
        for (offset, (id, time)) in [(1, 550), (2, 10_000), (3, 10_001)].into_iter().enumerate() {
            table.apply(&frame(id, 0, offset as i64, time));
        }
        table.keep();
        let has_room_for = |table: &ProducerTable, id, now| table.has_room_for(ProducerId(id), now);
        assert!(has_room_for(&table, 4, 600));
        table.apply(&frame(4, 0, 3, 600));
        assert!(!has_room_for(&table, 5, 600), "it is one that is let in");
        // It could not be written: nothing has changed, and the next one is let in.
        table.undo();
        assert_eq!((table.len(), has_room_for(&table, 5, 600)), (3, true));
        table.apply(&frame(5, 0, 3, 600));
        let mut again = ProducerTable::from_entries(limits, table.in_log_order(), false);
        for table in [&mut table, &mut again] {
            assert_eq!(table.len(), 4);
            // From here on it is as ever: whoever has been silent for long enough goes.
            assert_eq!([649, 650].map(|now| has_room_for(table, 6, now)), [false, true]);
            table.apply(&frame(6, 0, 4, 650));
            assert_eq!((table.len(), offsets(table, 1, 650)), (4, None));
            assert_eq!([699, 700].map(|now| has_room_for(table, 7, now)), [false, true]);
            table.apply(&frame(7, 0, 5, 700));
            let left: Vec<i64> = table.in_log_order().iter().map(|(id, _)| id.0).collect();
            assert_eq!(left, [5, 6, 7]);
        }
    }

    #[test]
    fn what_never_was_leaves_no_trace() {
        let mut table = empty();
        for (offset, id) in [1, 2, 3].into_iter().enumerate() {
            table.apply(&frame(id, 0, offset as i64, 0));
        }
        table.keep();
        let before = table.in_log_order();
        table.apply(&frame(1, 0, 3, 10));
        table.apply(&frame(4, 0, 4, 10));
        table.apply(&frame(5, 3, 5, 5000));
        table.undo();
        assert_eq!(table.in_log_order(), before);
        // The order still works.
        table.apply(&frame(4, 0, 3, 10));
        assert_eq!(offsets(&table, 1, 10), None);
        assert_eq!(table.len(), 3);
    }

    #[test]
    fn an_offset_that_comes_again_has_no_place_from_before() {
        let mut table = empty();
        table.apply(&frame(1, 0, 0, 0));
        table.keep();
        table.apply(&frame(2, 0, 1, 0));
        table.apply(&frame(3, 0, 2, 0));
        table.undo();
        // Offset 2 is producer 3's again, behind another one that has got offset 1.
        for (offset, id) in [(1, 4), (2, 3), (3, 5), (4, 6)] {
            table.apply(&frame(id, 0, offset, 0));
        }
        let left: Vec<i64> = table.in_log_order().iter().map(|(id, _)| id.0).collect();
        assert_eq!(left, [3, 5, 6]);
    }

    #[test]
    fn a_table_survives_being_written_down() {
        let mut table = empty();
        for (offset, id) in [1, 2, 1, 3].into_iter().enumerate() {
            table.apply(&frame(id, 0, offset as i64, 0));
        }
        let mut again = ProducerTable::from_entries(LIMITS, table.in_log_order(), false);
        table.apply(&frame(9, 0, 4, 0));
        again.apply(&frame(9, 0, 4, 0));
        assert_eq!(again.in_log_order(), table.in_log_order());
    }
}
