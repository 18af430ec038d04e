//! A partition that is written with conditions alone, held against what a register may do: a compare-and-set of where the log
//! ends (correctness rule 20).
//!
//! An append that expects an offset moves the end from there on by one, and is told so, or is told where the end is instead.
//! Either way whoever is told knows of an end that is committed, so it never lies before that again: whoever asks afterwards is
//! told of no lower one, whichever broker answers. What was never answered may have been appended or not, but only where it
//! expected to be.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};

use super::{Mark, Place, Reading};

/// What was asked of one partition, and told.
#[derive(Debug, Default)]
pub struct Register {
    /// The end does not lie before this any more.
    least: i64,
    /// Where each record was to be.
    expected: BTreeMap<Mark, i64>,
    /// Whose each place is, as far as somebody was told.
    told: BTreeMap<i64, Mark>,
}

/// An append on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// Its record.
    pub mark: Mark,
    /// What it expects.
    pub expected: i64,
    /// Where the end was known to lie at least when it was sent.
    least: i64,
}

impl Register {
    /// An append is about to be sent.
    pub fn sent(&mut self, mark: Mark, expected: i64) -> Attempt {
        self.expected.insert(mark, expected);
        Attempt { mark, expected, least: self.least }
    }

    /// Where the end is known to lie at least.
    #[must_use]
    pub fn least(&self) -> i64 {
        self.least
    }

    /// It was appended.
    ///
    /// # Errors
    /// It cannot have been.
    pub fn appended(&mut self, attempt: Attempt, offset: i64) -> Result<()> {
        let Attempt { mark, expected, least } = attempt;
        ensure!(offset == expected, "{mark:?} was to be appended at {expected}, and was at {offset}");
        ensure!(
            offset >= least,
            "{mark:?} was appended at {offset}, and before it was sent the log had been said to end at {least}"
        );
        let other = *self.told.entry(offset).or_insert(mark);
        ensure!(other == mark, "both {other:?} and {mark:?} were appended at {offset}");
        self.least = self.least.max(offset + 1);
        Ok(())
    }

    /// It was refused, because the log ends elsewhere.
    ///
    /// # Errors
    /// It cannot end there.
    pub fn mismatched(&mut self, attempt: Attempt, next: i64) -> Result<()> {
        let Attempt { mark, expected, .. } = attempt;
        ensure!(next != expected, "{mark:?} expected {expected}, and was refused because {next} is next");
        self.seen(attempt.least, next).with_context(|| format!("{mark:?} was refused"))
    }

    /// Somebody who asked when it was known to end at `least` or later was told that it ends here.
    ///
    /// # Errors
    /// It cannot end there.
    pub fn seen(&mut self, least: i64, end: i64) -> Result<()> {
        ensure!(end >= least, "it is said to end at {end}, and before that was asked it had been at {least}");
        self.least = self.least.max(end);
        Ok(())
    }

    /// Every record that is there is where it was to be, whatever its writer was told, and whoever was told of a place has it.
    ///
    /// # Errors
    /// The first one that does not.
    pub fn check(&self, place: &Place, readings: &[Reading]) -> Result<()> {
        let here = readings.iter().filter(|reading| reading.place == *place);
        for (offset, value) in here.flat_map(|reading| reading.polls.iter().flatten()) {
            let mark = Mark::of(value).with_context(|| format!("{place}@{offset} is nobody's"))?;
            let expected = self.expected.get(&mark).with_context(|| format!("{mark:?} was never sent"))?;
            ensure!(expected == offset, "{mark:?} was to be at {place}@{expected}, and is at {offset}");
            let told = self.told.get(offset).unwrap_or(&mark);
            ensure!(*told == mark, "{told:?} was told to be at {place}@{offset}, where {mark:?} is");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(writer: u32, number: u64) -> Mark {
        Mark { writer, number }
    }

    fn place() -> Place {
        Place { topic: "t".into(), partition: 0 }
    }

    fn reading(marks: &[(i64, Mark)]) -> Reading {
        let polls = vec![marks.iter().map(|(offset, mark)| (*offset, mark.value())).collect()];
        Reading { place: place(), high_watermark: 9, polls }
    }

    /// Two writers: the first was appended at 0, the second expected that, too, and was told of 1.
    fn register() -> Register {
        let mut register = Register::default();
        let (one, other) = (register.sent(mark(1, 0), 0), register.sent(mark(2, 0), 0));
        register.appended(one, 0).unwrap();
        register.mismatched(other, 1).unwrap();
        register
    }

    #[test]
    fn one_of_two_that_expect_the_same_is_appended() {
        let mut register = register();
        let (one, other) = (register.sent(mark(1, 1), 1), register.sent(mark(2, 1), 1));
        register.appended(other, 1).unwrap();
        assert!(register.appended(one, 1).is_err(), "another one is there");
        assert_eq!(register.least(), 2);
    }

    #[test]
    fn nobody_is_told_of_an_end_before_one_that_was_told_of_before() {
        let mut register = register();
        let early = register.sent(mark(1, 1), 1);
        let late = register.sent(mark(2, 1), 1);
        register.mismatched(late, 4).unwrap();
        // It was on its way at that time: it may have been answered first.
        assert!(register.mismatched(early, 3).is_ok());
        let later = register.sent(mark(2, 2), 2);
        assert!(register.appended(later, 2).is_err());
        assert!(register.mismatched(later, 3).is_err());
        assert!(register.seen(register.least(), 3).is_err());
        assert!(register.seen(register.least(), 4).is_ok());
    }

    #[test]
    fn an_answer_fits_what_was_expected() {
        let mut register = register();
        let attempt = register.sent(mark(1, 1), 1);
        assert!(register.mismatched(attempt, 1).is_err(), "that is what it expected");
        assert!(register.appended(attempt, 2).is_err());
    }

    #[test]
    fn what_is_there_is_where_it_was_to_be() {
        let mut register = register();
        // Nobody was told of this one.
        register.sent(mark(1, 1), 1);
        let check = |marks: &[(i64, Mark)]| register.check(&place(), &[reading(marks)]);
        assert!(check(&[(0, mark(1, 0))]).is_ok());
        assert!(check(&[(0, mark(1, 0)), (1, mark(1, 1))]).is_ok());
        assert!(check(&[(0, mark(1, 0)), (2, mark(1, 1))]).is_err());
        assert!(check(&[(0, mark(2, 0))]).is_err(), "another one was told to be there");
        assert!(check(&[(0, mark(7, 7))]).is_err());
    }
}
