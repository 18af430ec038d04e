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

    /// The largest epoch not above the one asked for, and its end: the start of the next one, or the log's end. An epoch
    /// below all known ones ends where the first of these begins, which may be before the log does: what another log has of
    /// it from there on is of another history, also where this one has deleted what it had there.
    pub(crate) fn end_of(&self, epoch: LeaderEpoch, log_end: Offset) -> (LeaderEpoch, Offset) {
        let after = self.0.partition_point(|(known, _)| *known <= epoch);
        let end = self.0.get(after).map_or(log_end, |(_, start)| *start);
        let known = after.checked_sub(1).and_then(|i| self.0.get(i));
        (known.map_or(epoch, |(known, _)| *known), end)
    }

    /// The epoch of what is just before this offset; `None`: the log begins there.
    pub(crate) fn before(&self, offset: Offset, log_start: Offset) -> Option<LeaderEpoch> {
        if offset <= log_start { None } else { self.last_before(offset) }
    }

    /// The same also of what was deleted, as far as it is known.
    fn last_before(&self, offset: Offset) -> Option<LeaderEpoch> {
        let after = self.0.partition_point(|(_, start)| *start < offset);
        self.0.get(after.checked_sub(1)?).map(|(epoch, _)| *epoch)
    }

    /// Where a reader goes back to whose position is not on this history: a position, with the epoch of what is before it
    /// here. `None`: the reader's own is. `epoch` is that of the last record that was read, `in_force` the leadership that
    /// judges.
    ///
    /// Only the leader of an epoch writes in it, and whoever has something of an epoch has everything that its leader had
    /// before that. So a log that has the reader's epoch is the reader's as far as that epoch goes, and parts from it at its
    /// end. A log that lacks it has lost what was read last, whatever is there by now: after two elections that lost
    /// records it may be more, of an earlier epoch. Where the two part then only the reader could say, who knows which
    /// epochs it has read: not before the last earlier epoch here begins, if it has read of that one. Whoever goes on
    /// there, and names what it has read before, is judged again.
    pub(crate) fn parts(
        &self,
        (offset, epoch): (Offset, LeaderEpoch),
        in_force: LeaderEpoch,
        (log_start, log_end): (Offset, Offset),
    ) -> Option<(Offset, Option<LeaderEpoch>)> {
        let (shared, end) = self.end_of(epoch, log_end);
        let is_known = epoch == in_force || shared == epoch;
        // Of a history of which nothing is known nothing differs; a known one goes on with later epochs only at its end.
        let is_here = self.last_before(offset).is_none_or(|last| is_known && last <= epoch);
        if is_here && offset <= log_end {
            return None;
        }
        let earlier = self.0.partition_point(|(known, start)| *known <= epoch && *start < offset);
        let at = match earlier.checked_sub(1).and_then(|last| self.0.get(last)) {
            Some((_, start)) if !is_known => *start,
            _ => end,
        };
        let at = at.max(log_start).min(offset);
        Some((at, self.last_before(at)))
    }
}

#[cfg(test)]
mod tests {
    use weir_io::Dice;

    use super::*;

    #[test]
    fn an_epoch_ends_where_the_next_one_begins() {
        let mut epochs = Epochs::default();
        assert!(epochs.note(2, 0) && epochs.note(5, 10) && !epochs.note(5, 20));
        assert_eq!(epochs.end_of(2, 30), (2, 10));
        assert_eq!(epochs.end_of(4, 30), (2, 10));
        assert_eq!(epochs.end_of(9, 30), (5, 30));
        assert_eq!(epochs.end_of(1, 30), (1, 0));
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
        assert_eq!(epochs.end_of(9, 15), (2, 15));
        assert_eq!(epochs.end_of(1, 15), (1, 10), "2 has begun there, and the log later");
    }

    #[test]
    fn a_longer_log_of_an_earlier_epoch_is_not_what_was_read() {
        // 5 had written up to 12, and was lost; 7 began at 8, and was lost; what 5 had leads again.
        let epochs = Epochs::from_entries(vec![(3, 0), (5, 4)]);
        assert_eq!(epochs.parts((10, 7), 8, (0, 12)), Some((4, Some(3))));
        assert_eq!(epochs.parts((10, 5), 8, (0, 12)), None);
        assert_eq!(epochs.parts((13, 5), 8, (0, 12)), Some((12, Some(5))));
        // The leadership in force has nothing of its own yet: what it has is its history.
        assert_eq!(epochs.parts((12, 8), 8, (0, 12)), None);
        assert_eq!(epochs.parts((13, 8), 8, (0, 12)), Some((12, Some(5))));
        // What 5 had was deleted, and that it was 5 is known still.
        let deleted = Epochs::from_entries(vec![(5, 4), (9, 20)]);
        assert_eq!(deleted.parts((20, 3), 9, (20, 30)), Some((20, Some(5))));
        assert_eq!(deleted.parts((20, 5), 9, (20, 30)), None);
        assert_eq!(Epochs::default().parts((20, 3), 9, (20, 20)), None, "nothing is known");
    }

    /// A log as everybody can see it: which epoch wrote the record at each offset. Two records are the same where their
    /// offset and epoch are.
    type Records = Vec<LeaderEpoch>;

    fn shared(one: &[LeaderEpoch], other: &[LeaderEpoch]) -> usize {
        one.iter().zip(other).take_while(|(one, other)| one == other).count()
    }

    fn epochs_of(records: &[LeaderEpoch], log_start: usize) -> Epochs {
        let mut epochs = Epochs::default();
        for (offset, epoch) in records.iter().enumerate() {
            epochs.note(*epoch, offset as Offset);
        }
        epochs.cut_front(log_start as Offset);
        epochs
    }

    /// A replica that was away asks a leader that has deleted records meanwhile where the two part: what it keeps is the
    /// leader's as well, also before the leader's start. It does what `weir_replication::step` does.
    #[test]
    fn a_replica_that_keeps_its_log_under_a_leader_that_has_deleted_records_keeps_nothing_of_another_history()
    {
        let (mut kept, mut anew) = (0, 0);
        for seed in 0..20_000 {
            let mut dice = Dice::new(seed);
            let mut grown = |epochs: &[LeaderEpoch], log: &mut Records| {
                epochs.iter().for_each(|epoch| log.extend(vec![*epoch; dice.below(4) as usize]));
            };
            let (mut led, mut log) = (Records::new(), Records::new());
            grown(&[1, 2], &mut led);
            log.clone_from(&led);
            // Each leads without the other.
            grown(&[3], &mut log);
            grown(&[4, 5], &mut led);
            let mut begins = |log: &Records| dice.below(log.len() as u64 + 1) as usize;
            let (leaders_start, start) = (begins(&led), begins(&led).min(begins(&log)));
            let (leaders, end) = (epochs_of(&led, leaders_start), led.len() as Offset);
            for round in 0.. {
                assert!(round < 9, "{seed}: {log:?} from {start} under {led:?} from {leaders_start}");
                let (own, own_end) = (epochs_of(&log, start), log.len());
                if own_end < leaders_start {
                    anew += 1;
                    break;
                }
                let Some(last) = own.last() else { break };
                let (epoch, parts) = leaders.end_of(last, end);
                if epoch == last && own_end as Offset <= parts {
                    assert_eq!(log, led[..own_end], "{seed}: from {leaders_start}");
                    kept += 1;
                    break;
                }
                let to = own.end_of(epoch, own_end as Offset).1.min(parts);
                if to < start as Offset {
                    anew += 1;
                    break;
                }
                log.truncate(to as usize);
            }
        }
        assert!(kept > 1_000 && anew > 1_000, "{kept} {anew}");
    }

    /// Replicas that anybody may be elected of, whatever it has. Followers come as far as they come. The last leader is
    /// asked about everything that was read of any of them.
    #[test]
    fn readers_of_another_history_are_told_and_no_others() {
        let (mut kept, mut told) = (0, 0);
        for seed in 0..3_000 {
            let mut dice = Dice::new(seed);
            let mut logs: [Records; 3] = Default::default();
            let (mut leader, mut epoch) = (0, 0);
            let mut read: Vec<Records> = Vec::new();
            for _ in 0..1 + dice.below(8) {
                leader = dice.below(3) as usize;
                epoch += 1 + dice.below(2) as LeaderEpoch;
                for _ in 0..1 + dice.below(3) {
                    logs[leader].extend(vec![epoch; dice.below(4) as usize]);
                    read.push(logs[leader].clone());
                    let (led, follower) = (logs[leader].clone(), dice.below(3) as usize);
                    let same = shared(&led, &logs[follower]);
                    let upto = same + dice.below((led.len() - same) as u64 + 1) as usize;
                    logs[follower] = led[..upto.max(if follower == leader { led.len() } else { 0 })].to_vec();
                }
            }
            let log = &logs[leader];
            let log_start = dice.below(log.len() as u64 + 1) as usize;
            let (epochs, ends) = (epochs_of(log, log_start), (log_start as Offset, log.len() as Offset));
            for history in &read {
                for offset in log_start.max(1)..=history.len() {
                    let same = shared(&history[..offset], log);
                    let position = |offset: usize| (offset as Offset, history[offset - 1]);
                    let mut parts = epochs.parts(position(offset), epoch, ends);
                    assert_eq!(parts.is_none(), same == offset, "{seed}: {history:?}@{offset} of {log:?}");
                    let (mut at, mut again) = (offset, 0);
                    while let Some((back, before)) = parts {
                        // It is a position of this log, and not farther on.
                        let named = before.map(|before| epochs.parts((back, before), epoch, ends));
                        assert!(
                            named.is_none_or(|parts| parts.is_none()),
                            "{seed}: {back} {before:?} of {log:?}"
                        );
                        again = if (back as usize) < at { 0 } else { again + 1 };
                        at = back as usize;
                        parts = (at > log_start && again == 0)
                            .then(|| epochs.parts(position(at), epoch, ends))
                            .flatten();
                        told += 1;
                    }
                    assert!(
                        at <= same.max(log_start),
                        "{seed}: {history:?}@{offset} goes on at {at} of {log:?}"
                    );
                    kept += usize::from(at == offset);
                }
            }
        }
        assert!(kept > 1_000 && told > 1_000, "{kept} {told}");
    }
}
