//! What writers were told and readers saw, and everything in it that a log must never do.
//!
//! The kinds of anomaly are those that checkers of Kafka-like systems look for (Jepsen's names in brackets), as
//! far as they apply without transactions, and three that the payload shows: changed, unknown and refused records.
//! Each record says whose it is and the how-manieth, and its bytes follow from that, so that nothing has to be
//! remembered of it.

mod anomaly;
mod receipt;
mod register;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use anyhow::{Context, Result};

use crate::dice::Dice;

pub use anomaly::Anomaly;
pub use receipt::{Claim, Promise};
pub use register::{Attempt, Register};

/// A partition.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The topic.
    pub topic: String,
    /// The partition's number.
    pub partition: i32,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.topic, self.partition)
    }
}

/// A record's identity: whose it is, and its number among that writer's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mark {
    /// The writer.
    pub writer: u32,
    /// Its records count from 0.
    pub number: u64,
}

impl Mark {
    /// The record's value: the mark in words, and a filling of 0 to 1,500 bytes that follows from it.
    #[must_use]
    pub fn value(self) -> Vec<u8> {
        let mut dice = Dice::new((u64::from(self.writer) << 40) ^ self.number);
        let mut value = format!("{}-{} ", self.writer, self.number).into_bytes();
        let filling = dice.below(1_500);
        value.extend((0..filling).map(|_| b'a' + u8::try_from(dice.below(26)).unwrap_or(0)));
        value
    }

    /// The mark of a value.
    fn of(value: &[u8]) -> Option<Self> {
        let words = std::str::from_utf8(value).ok()?.split_once(' ')?.0;
        let (writer, number) = words.split_once('-')?;
        Some(Self { writer: writer.parse().ok()?, number: number.parse().ok()? })
    }
}

/// What a writer knows of a record it sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// Nothing: there was no answer, or one that said so.
    Open,
    /// It is there, at this offset.
    Acknowledged(i64),
    /// It is not there, and never will be.
    Refused,
}

/// The records of a partition, as these readings show it.
#[must_use]
pub fn holds(place: &Place, readings: &[Reading]) -> BTreeMap<i64, Mark> {
    let here = readings.iter().filter(|reading| reading.place == *place);
    let records = here.flat_map(|reading| reading.polls.iter().flatten());
    records.filter_map(|(at, value)| Some((*at, Mark::of(value)?))).collect()
}

/// Everything that writers sent and were told.
#[derive(Debug, Default)]
pub struct History {
    sent: BTreeMap<Mark, (Place, Fate)>,
    /// What is below may have been deleted.
    starts: BTreeMap<Place, i64>,
    /// Behind the last that was acknowledged.
    ends: BTreeMap<Place, i64>,
}

/// What one reader got of one partition, message by message.
#[derive(Clone, Debug)]
pub struct Reading {
    /// The partition.
    pub place: Place,
    /// The end of what was committed when it was read.
    pub high_watermark: i64,
    /// The records of each message: offset and value.
    pub polls: Vec<Vec<(i64, Vec<u8>)>>,
}

impl History {
    /// A writer sends a record, before it does.
    pub fn sent(&mut self, mark: Mark, place: &Place) {
        self.sent.entry(mark).or_insert_with(|| (place.clone(), Fate::Open));
    }

    /// The record was acknowledged at this offset.
    ///
    /// # Errors
    /// It was never sent, or told something else before.
    pub fn acknowledged(&mut self, mark: Mark, offset: i64) -> Result<()> {
        self.told(mark, Fate::Acknowledged(offset))
    }

    /// The record was refused, as not applied.
    ///
    /// # Errors
    /// It was never sent, or told something else before.
    pub fn refused(&mut self, mark: Mark) -> Result<()> {
        self.told(mark, Fate::Refused)
    }

    /// Somebody is about to delete the records of a partition below this offset: from here on they may be gone.
    pub fn deleted(&mut self, place: &Place, before: i64) {
        let start = self.starts.entry(place.clone()).or_insert(before);
        *start = before.max(*start);
    }

    /// Whether somebody has been about to delete it.
    #[must_use]
    pub fn may_be_gone(&self, place: &Place, offset: i64) -> bool {
        offset < self.start(place)
    }

    /// What is below may be gone.
    fn start(&self, place: &Place) -> i64 {
        self.starts.get(place).copied().unwrap_or(0)
    }

    fn told(&mut self, mark: Mark, fate: Fate) -> Result<()> {
        let (place, known) = self.sent.get_mut(&mark).with_context(|| format!("{mark:?} was never sent"))?;
        anyhow::ensure!(
            *known == Fate::Open || *known == fate,
            "{place}: {mark:?} was told {known:?}, then {fate:?}"
        );
        *known = fate;
        if let Fate::Acknowledged(offset) = fate {
            let end = self.ends.entry(place.clone()).or_default();
            *end = (offset + 1).max(*end);
        }
        Ok(())
    }

    /// The records that were acknowledged so far, by place and offset.
    #[must_use]
    pub fn acknowledged_so_far(&self) -> BTreeMap<Place, BTreeMap<i64, Mark>> {
        let mut told: BTreeMap<Place, BTreeMap<i64, Mark>> = BTreeMap::new();
        for (mark, (place, fate)) in &self.sent {
            if let Fate::Acknowledged(offset) = fate {
                told.entry(place.clone()).or_default().insert(*offset, *mark);
            }
        }
        told
    }

    /// A log was cut on purpose: of those that were `told` by then its last may be missing in what it `holds`, and are
    /// not asked for any more. Says how many are.
    ///
    /// # Errors
    /// One is missing below `end`, or in front of one that is there.
    pub fn give_up(
        &mut self,
        place: &Place,
        told: &BTreeMap<Place, BTreeMap<i64, Mark>>,
        holds: &BTreeMap<i64, Mark>,
        end: Option<i64>,
    ) -> Result<usize> {
        let mut lost: Vec<(i64, Mark)> = Vec::new();
        for (offset, mark) in told.get(place).into_iter().flatten() {
            if holds.get(offset) != Some(mark) {
                lost.push((*offset, *mark));
            } else if let Some((first, _)) = lost.first() {
                anyhow::bail!("{place}@{offset} is there, and {first} before it is lost");
            }
        }
        if let (Some((first, mark)), Some(end)) = (lost.first(), end) {
            anyhow::ensure!(
                *first >= end,
                "{mark:?} at {place}@{first} is lost, though all below {end} was to stay"
            );
        }
        for (_, mark) in &lost {
            if let Some((_, fate)) = self.sent.get_mut(mark) {
                *fate = Fate::Open;
            }
        }
        Ok(lost.len())
    }

    /// The end of what was acknowledged of a partition so far.
    #[must_use]
    pub fn end(&self, place: &Place) -> i64 {
        self.ends.get(place).copied().unwrap_or(0)
    }

    /// How many records were acknowledged.
    #[must_use]
    pub fn acknowledgements(&self) -> usize {
        self.sent.values().filter(|(_, fate)| matches!(fate, Fate::Acknowledged(_))).count()
    }

    /// Everything that is wrong. Each partition that was written must have been read, from its beginning.
    #[must_use]
    pub fn check(&self, readings: &[Reading]) -> BTreeSet<Anomaly> {
        let mut wrong = BTreeSet::new();
        let mut logs: BTreeMap<&Place, Log> = BTreeMap::new();
        for reading in readings {
            logs.entry(&reading.place).or_default().add(reading, &mut wrong);
        }
        self.check_writers(&logs, &mut wrong);
        for (place, log) in &logs {
            self.check_log(place, log, &mut wrong);
        }
        for reading in readings {
            if let Some(log) = logs.get(&reading.place) {
                log.check_polls(reading, self.start(&reading.place), &mut wrong);
            }
        }
        wrong
    }

    /// What writers were told is so, and in the order of their sending.
    fn check_writers(&self, logs: &BTreeMap<&Place, Log>, wrong: &mut BTreeSet<Anomaly>) {
        let nothing = Log::default();
        let mut last: BTreeMap<(u32, &Place), (Mark, i64)> = BTreeMap::new();
        for (&mark, (place, fate)) in &self.sent {
            let Fate::Acknowledged(offset) = *fate else { continue };
            let place_owned = || place.clone();
            let log = logs.get(place).unwrap_or(&nothing);
            match log.by_offset.get(&offset) {
                Some(value) if Mark::of(value) == Some(mark) => {}
                Some(value) => {
                    let (one, other) = (format!("{mark:?}"), shown(value));
                    wrong.insert(Anomaly::Inconsistent { place: place_owned(), offset, one, other });
                }
                None if offset < self.start(place) => {}
                None if offset >= log.end => {
                    wrong.insert(Anomaly::Unseen { place: place_owned(), mark, offset, end: log.end });
                }
                None => {
                    wrong.insert(Anomaly::Lost { place: place_owned(), mark, offset });
                }
            }
            if let Some(&earlier) = last.get(&(mark.writer, place))
                && earlier.1 >= offset
            {
                wrong.insert(Anomaly::Reordered { place: place_owned(), earlier, later: (mark, offset) });
            }
            last.insert((mark.writer, place), (mark, offset));
        }
    }

    /// What is in a log was sent there, once, as it is, in order, and not refused.
    fn check_log(&self, place: &Place, log: &Log, wrong: &mut BTreeSet<Anomaly>) {
        let mut offsets: BTreeMap<Mark, Vec<i64>> = BTreeMap::new();
        let mut last: BTreeMap<u32, (Mark, i64)> = BTreeMap::new();
        for (&offset, value) in &log.by_offset {
            let known = Mark::of(value).and_then(|mark| Some((mark, self.sent.get(&mark)?)));
            let Some((mark, (_, fate))) = known.filter(|(_, (sent_to, _))| sent_to == place) else {
                wrong.insert(Anomaly::Unknown { place: place.clone(), offset, value: shown(value) });
                continue;
            };
            if mark.value() != *value {
                wrong.insert(Anomaly::Changed { place: place.clone(), offset, mark });
            }
            if *fate == Fate::Refused {
                wrong.insert(Anomaly::Refused { place: place.clone(), mark, offset });
            }
            if let Some(&earlier) = last.get(&mark.writer)
                && earlier.0 > mark
            {
                let (earlier, later) = ((mark, offset), earlier);
                wrong.insert(Anomaly::Reordered { place: place.clone(), earlier, later });
            }
            last.insert(mark.writer, (mark, offset));
            offsets.entry(mark).or_default().push(offset);
        }
        for (mark, offsets) in offsets {
            if offsets.len() > 1 {
                wrong.insert(Anomaly::Duplicate { place: place.clone(), mark, offsets });
            }
        }
    }
}

/// A partition, as all readings together show it.
#[derive(Debug, Default)]
struct Log {
    by_offset: BTreeMap<i64, Vec<u8>>,
    end: i64,
}

impl Log {
    fn add(&mut self, reading: &Reading, wrong: &mut BTreeSet<Anomaly>) {
        let place = || reading.place.clone();
        self.end = self.end.max(reading.high_watermark);
        for (offset, value) in reading.polls.iter().flatten() {
            let known = self.by_offset.entry(*offset).or_insert_with(|| value.clone());
            if known != value {
                let (one, other) = (shown(known), shown(value));
                wrong.insert(Anomaly::Inconsistent { place: place(), offset: *offset, one, other });
            }
            if *offset >= reading.high_watermark {
                let high_watermark = reading.high_watermark;
                wrong.insert(Anomaly::Uncommitted { place: place(), offset: *offset, high_watermark });
            }
        }
    }

    /// A reader meets every record that was not deleted, in the order of their offsets.
    fn check_polls(&self, reading: &Reading, start: i64, wrong: &mut BTreeSet<Anomaly>) {
        let mut from = None;
        for (offset, _) in reading.polls.iter().flatten() {
            match from {
                Some(from) if from >= *offset => {
                    wrong.insert(Anomaly::WentBack { place: reading.place.clone(), from, to: *offset });
                }
                _ => {
                    let first = from.map_or(i64::MIN, |from| from + 1).max(start);
                    for (&offset, value) in self.by_offset.range(first.min(*offset)..*offset) {
                        let mark = Mark::of(value).unwrap_or(Mark { writer: u32::MAX, number: u64::MAX });
                        wrong.insert(Anomaly::Skipped { place: reading.place.clone(), mark, offset });
                    }
                }
            }
            from = Some(*offset);
        }
    }
}

fn shown(value: &[u8]) -> String {
    String::from_utf8_lossy(value.get(..40).unwrap_or(value)).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place() -> Place {
        Place { topic: "t".into(), partition: 0 }
    }

    fn mark(writer: u32, number: u64) -> Mark {
        Mark { writer, number }
    }

    /// Two writers whose records are where they were told; the last of writer 2 got no answer.
    fn history() -> History {
        let mut history = History::default();
        for (mark, offset) in [(mark(1, 0), 0), (mark(1, 1), 1), (mark(2, 0), 2), (mark(1, 2), 3)] {
            history.sent(mark, &place());
            history.acknowledged(mark, offset).unwrap();
        }
        history.sent(mark(2, 1), &place());
        history
    }

    fn reading(marks: &[(i64, Mark)]) -> Reading {
        let polls = marks.chunks(2).map(|poll| poll.iter().map(|(at, mark)| (*at, mark.value())).collect());
        Reading { place: place(), high_watermark: 10, polls: polls.collect() }
    }

    fn all() -> Vec<(i64, Mark)> {
        vec![(0, mark(1, 0)), (1, mark(1, 1)), (2, mark(2, 0)), (3, mark(1, 2))]
    }

    fn only(wrong: BTreeSet<Anomaly>) -> Anomaly {
        assert_eq!(wrong.len(), 1, "{wrong:?}");
        wrong.into_iter().next().unwrap()
    }

    #[test]
    fn what_got_no_answer_may_be_there_or_not() {
        assert_eq!(history().check(&[reading(&all())]), BTreeSet::new());
        let mut with = all();
        with.push((4, mark(2, 1)));
        assert_eq!(history().check(&[reading(&with)]), BTreeSet::new());
    }

    #[test]
    fn a_lost_record_is_found() {
        let gone: Vec<_> = all().into_iter().filter(|(offset, _)| *offset != 2).collect();
        assert!(matches!(only(history().check(&[reading(&gone)])), Anomaly::Lost { offset: 2, .. }));
        let cut = Reading { high_watermark: 3, ..reading(&all()[..3]) };
        assert!(matches!(only(history().check(&[cut])), Anomaly::Unseen { offset: 3, end: 3, .. }));
        assert_eq!(history().check(&[]).len(), 4, "nothing was read at all");
    }

    #[test]
    fn a_record_elsewhere_than_told_is_found() {
        let mut swapped = all();
        swapped.swap(1, 2);
        let swapped: Vec<_> = (0..).zip(swapped.into_iter().map(|(_, mark)| mark)).collect();
        let wrong = history().check(&[reading(&swapped)]);
        assert_eq!(wrong.len(), 2);
        assert!(wrong.iter().all(|anomaly| matches!(anomaly, Anomaly::Inconsistent { .. })), "{wrong:?}");
    }

    #[test]
    fn readers_that_see_different_logs_are_found() {
        let mut other = all();
        other.push((4, mark(2, 1)));
        let mut third = other.clone();
        third[4].1 = mark(1, 2);
        let wrong = history().check(&[reading(&other), reading(&third)]);
        assert!(matches!(only(wrong), Anomaly::Inconsistent { offset: 4, .. }));
    }

    #[test]
    fn a_duplicate_is_found() {
        let mut twice = all();
        twice.extend([(4, mark(2, 1)), (5, mark(2, 1))]);
        assert!(matches!(only(history().check(&[reading(&twice)])), Anomaly::Duplicate { .. }));
    }

    #[test]
    fn a_changed_order_is_found_in_what_was_told_and_in_what_is_there() {
        let mut told = History::default();
        for (mark, offset) in [(mark(1, 0), 1), (mark(1, 1), 0)] {
            told.sent(mark, &place());
            told.acknowledged(mark, offset).unwrap();
        }
        let there = reading(&[(0, mark(1, 1)), (1, mark(1, 0))]);
        let wrong = told.check(&[there]);
        assert!(wrong.iter().all(|anomaly| matches!(anomaly, Anomaly::Reordered { .. })), "{wrong:?}");

        let mut open = History::default();
        open.sent(mark(1, 0), &place());
        open.sent(mark(1, 1), &place());
        let wrong = open.check(&[reading(&[(0, mark(1, 1)), (1, mark(1, 0))])]);
        assert!(matches!(only(wrong), Anomaly::Reordered { .. }));
    }

    #[test]
    fn a_refused_record_that_is_there_is_found() {
        let mut history = history();
        history.refused(mark(2, 1)).unwrap();
        let mut with = all();
        with.push((4, mark(2, 1)));
        assert!(matches!(only(history.check(&[reading(&with)])), Anomaly::Refused { .. }));
    }

    #[test]
    fn what_is_read_before_it_is_committed_is_found() {
        let early = Reading { high_watermark: 3, ..reading(&all()) };
        let wrong = history().check(&[early]);
        assert!(matches!(only(wrong), Anomaly::Uncommitted { offset: 3, .. }));
    }

    #[test]
    fn a_reader_that_skips_or_goes_back_is_found() {
        let skips: Vec<_> = all().into_iter().filter(|(offset, _)| *offset != 1).collect();
        let wrong = history().check(&[reading(&all()), reading(&skips)]);
        assert!(matches!(only(wrong), Anomaly::Skipped { offset: 1, .. }));
        let mut back = all();
        back.insert(3, back[2]);
        let wrong = history().check(&[reading(&back)]);
        assert!(matches!(only(wrong), Anomaly::WentBack { from: 2, to: 2, .. }));
    }

    #[test]
    fn what_was_deleted_may_be_missing_and_nothing_else() {
        let mut history = history();
        history.deleted(&place(), 2);
        let rest: Vec<_> = all().into_iter().filter(|(offset, _)| *offset >= 2).collect();
        assert_eq!(history.check(&[reading(&rest)]), BTreeSet::new());
        assert_eq!(history.check(&[reading(&all()), reading(&rest)]), BTreeSet::new());
        let less: Vec<_> = rest.into_iter().filter(|(offset, _)| *offset != 2).collect();
        assert!(matches!(only(history.check(&[reading(&less)])), Anomaly::Lost { offset: 2, .. }));
    }

    #[test]
    fn changed_bytes_and_unknown_records_are_found() {
        let mut changed = reading(&all());
        if let Some(byte) = changed.polls[0][0].1.last_mut() {
            *byte ^= 1;
        }
        assert!(matches!(only(history().check(&[changed])), Anomaly::Changed { offset: 0, .. }));
        let mut more = all();
        more.push((4, mark(7, 7)));
        assert!(matches!(only(history().check(&[reading(&more)])), Anomaly::Unknown { offset: 4, .. }));
    }

    #[test]
    fn nobody_is_told_two_things() {
        let mut history = history();
        assert!(history.acknowledged(mark(1, 0), 0).is_ok());
        assert!(history.acknowledged(mark(1, 0), 1).is_err());
        assert!(history.refused(mark(1, 0)).is_err());
        assert!(history.acknowledged(mark(9, 9), 0).is_err());
    }
}
