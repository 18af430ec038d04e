//! Which leadership wrote what: where each epoch of a log begins (correctness rule 1).

use weir_types::{LeaderEpoch, Offset};

/// The epochs of a log, each with its first offset; both rise. The first one may have begun before the log does: it is the
/// one in force there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Epochs(Vec<(LeaderEpoch, Offset)>);

impl Epochs {
    pub(crate) fn from_entries(entries: Vec<(LeaderEpoch, Offset)>) -> Self {
        Self(entries)
    }

    pub(crate) fn entries(&self) -> &[(LeaderEpoch, Offset)] {
        &self.0
    }

    pub(crate) fn last(&self) -> Option<LeaderEpoch> {
        self.0.last().map(|(epoch, _)| *epoch)
    }

    /// A frame of this epoch was appended at this offset. Whether that is news.
    pub(crate) fn note(&mut self, epoch: LeaderEpoch, offset: Offset) -> bool {
        if self.last().is_some_and(|last| last >= epoch) {
            return false;
        }
        self.0.push((epoch, offset));
        true
    }

    /// The log ends here now, whether bytes were cut or not.
    pub(crate) fn cut(&mut self, end: Offset) {
        while self.0.last().is_some_and(|(_, start)| *start >= end) {
            self.0.pop();
        }
    }

    /// The log begins here now: what matters of those before is the last. It stays as it is, so that a log which is cut back
    /// to its start still knows in which epoch what went before it was written.
    pub(crate) fn cut_front(&mut self, log_start: Offset) {
        let before = self.0.iter().take_while(|(_, start)| *start < log_start).count();
        self.0.drain(..before.saturating_sub(1));
    }

    /// The largest epoch not above the one asked for, and its end: the start of the next one, or the log's end.
    /// An epoch below all known ones ends where the log starts.
    pub(crate) fn end_of(
        &self,
        epoch: LeaderEpoch,
        log_start: Offset,
        log_end: Offset,
    ) -> (LeaderEpoch, Offset) {
        let after = self.0.partition_point(|(known, _)| *known <= epoch);
        let end = self.0.get(after).map_or(log_end, |(_, start)| *start);
        match after.checked_sub(1).and_then(|i| self.0.get(i)) {
            Some((known, _)) => (*known, end),
            None => (epoch, if self.0.is_empty() { log_end } else { end.max(log_start) }),
        }
    }

    /// The epoch of what is just before this offset; `None`: the log begins there.
    pub(crate) fn before(&self, offset: Offset, log_start: Offset) -> Option<LeaderEpoch> {
        if offset <= log_start {
            return None;
        }
        let after = self.0.partition_point(|(_, start)| *start < offset);
        self.0.get(after.checked_sub(1)?).map(|(epoch, _)| *epoch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_epoch_ends_where_the_next_one_begins() {
        let mut epochs = Epochs::default();
        assert!(epochs.note(2, 0) && epochs.note(5, 10) && !epochs.note(5, 20));
        assert_eq!(epochs.end_of(2, 0, 30), (2, 10));
        assert_eq!(epochs.end_of(4, 0, 30), (2, 10));
        assert_eq!(epochs.end_of(9, 0, 30), (5, 30));
        assert_eq!(epochs.end_of(1, 0, 30), (1, 0));
    }

    #[test]
    fn every_offset_has_the_epoch_of_what_is_before_it() {
        let epochs = Epochs::from_entries(vec![(2, 5), (7, 10)]);
        let before = [4, 5, 6, 10, 11, 30].map(|offset| epochs.before(offset, 5));
        assert_eq!(before, [None, None, Some(2), Some(2), Some(7), Some(7)]);
    }

    #[test]
    fn cutting_either_end_keeps_what_is_still_true() {
        let mut epochs = Epochs::from_entries(vec![(1, 0), (2, 10), (3, 20)]);
        epochs.cut(20);
        assert_eq!(epochs.entries(), [(1, 0), (2, 10)]);
        epochs.cut_front(15);
        assert_eq!(epochs.entries(), [(2, 10)]);
        assert_eq!((epochs.before(15, 15), epochs.before(16, 15)), (None, Some(2)));
        // At its start the log is empty, and what was there before it was written in epoch 2.
        epochs.note(7, 15);
        epochs.cut_front(15);
        epochs.cut(15);
        assert_eq!(epochs.end_of(9, 15, 15), (2, 15));
        assert_eq!(epochs.end_of(1, 15, 15), (1, 15));
    }
}
