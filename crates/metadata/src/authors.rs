//! Who wrote the metadata, version by version: what tells two histories apart that have come to the same number.
//!
//! Each process that proposes draws a number, and writes it into its entries. A controller that is put back from an old
//! backup goes on as another process: from there on the same versions have another author, and whoever has acted upon
//! one of the first history knows that this is not it, also once the second has more of them (correctness rule 33).
//! Not a proof of what was written, and not remembered for ever.

use std::sync::Arc;

/// So many changes of the author are remembered: one for each change of the controller that leads.
const REMEMBERED: usize = 1_024;

/// See the module. A clone is cheap.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Authors(Arc<Vec<Author>>);

/// Who wrote from a version on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Author {
    /// The first version.
    pub from: i64,
    /// The number of the process.
    pub number: u64,
}

impl Authors {
    /// What was remembered before.
    pub fn new(remembered: Vec<Author>) -> Self {
        Self(Arc::new(remembered))
    }

    /// All that is remembered, in order.
    pub fn iter(&self) -> impl Iterator<Item = &Author> {
        self.0.iter()
    }

    /// Who wrote a version; `None`: that is not known here.
    pub(crate) fn of(&self, version: i64) -> Option<u64> {
        let after = self.0.partition_point(|author| author.from <= version);
        Some(self.0.get(after.checked_sub(1)?)?.number)
    }

    /// From this version on that one writes. 0: it does not say, and whoever follows it does not know.
    pub(crate) fn note(&mut self, from: i64, number: u64) {
        if number == 0 || self.0.last().is_some_and(|last| last.number == number) {
            return;
        }
        let authors = Arc::make_mut(&mut self.0);
        authors.push(Author { from, number });
        if authors.len() > REMEMBERED {
            authors.remove(0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_version_has_the_author_that_wrote_it_as_long_as_that_is_remembered() {
        let mut authors = Authors::default();
        authors.note(1, 0);
        assert_eq!(authors.of(1), None);
        authors.note(3, 7);
        authors.note(5, 7);
        authors.note(9, 8);
        assert_eq!(
            [1, 3, 8, 9, 50].map(|version| authors.of(version)),
            [None, Some(7), Some(7), Some(8), Some(8)]
        );
        assert_eq!(authors.iter().count(), 2);
        for version in 10..10 + REMEMBERED as i64 {
            authors.note(version, version as u64);
        }
        assert_eq!(authors.iter().count(), REMEMBERED);
        assert_eq!((authors.of(9), authors.of(10)), (None, Some(10)));
    }
}
