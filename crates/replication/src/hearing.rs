//! Whom a leader hears first that was elected from the eligible (rule 8).
//!
//! Nobody in sync is left where that is done: all of them went down, and by what was on record each has everything. A disk
//! that has lost the end of what it held says nothing of that, and the others can tell. So such a leader first hears them,
//! each of which says at its subscription how far its log goes. As long as it has not, nobody joins it, so that nothing is
//! acknowledged, and nothing that they have can be passed over; and if one goes further, it is asked for as the leader
//! instead. One that stays away is waited for for a while only: its disk may be gone.
//!
//! Why the furthest is the right one, as long as one disk at a time has lost its end. Let a record be acknowledged that the
//! short log lacks. Whoever is whole has it, so that its last epoch is not below that of the record, and where it is the
//! same, its end is behind it. The short log is what it was earlier, before that record: its last epoch is not above that of
//! the record, and where it is the same, it ends before it.

use std::collections::BTreeMap;

use weir_types::{BrokerId, LeaderEpoch, Offset};

use crate::mutant::Mutant;
use crate::record::Member;

/// For so many times the longest lag somebody is waited for.
const PATIENCE: u64 = 3;

/// How far a log goes: the leader epoch of its last record, and its end.
pub(crate) type Reach = (Option<LeaderEpoch>, Offset);

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Hearing {
    /// Who may go further, and since when nothing else is known.
    unheard: BTreeMap<BrokerId, u64>,
    /// Of those that do, the furthest.
    further: Option<(Member, Reach)>,
}

impl Hearing {
    pub(crate) fn begin(eligible: &[BrokerId], now_ms: u64) -> Self {
        Self { unheard: eligible.iter().map(|broker| (*broker, now_ms)).collect(), further: None }
    }

    /// These are eligible by now: whoever is not any more has nothing to say.
    pub(crate) fn observe(&mut self, eligible: &[BrokerId]) {
        self.unheard.retain(|broker, _| eligible.contains(broker));
        self.forget_further();
    }

    /// One that is eligible says how far its log goes. Whether that is further than the leader's own.
    pub(crate) fn hear(&mut self, who: Member, reach: Reach, own: Reach, now_ms: u64) -> bool {
        if self.further.is_some_and(|(known, _)| known.broker == who.broker && known.epoch > who.epoch) {
            // Another process of that broker has spoken since.
            return true;
        }
        if reach <= own || Mutant::FurtherCut.is_planted() {
            self.unheard.remove(&who.broker);
            self.forget_further();
            return false;
        }
        self.unheard.insert(who.broker, now_ms);
        if self.further.is_none_or(|(known, its)| known.broker == who.broker || its < reach) {
            self.further = Some((who, reach));
        }
        true
    }

    /// Waits no longer for who has been silent for too long; `lag_ms` is the longest that a follower may be behind.
    pub(crate) fn lose_patience(&mut self, now_ms: u64, lag_ms: u64) {
        let patience_ms = lag_ms.saturating_mul(PATIENCE);
        self.unheard.retain(|_, since_ms| now_ms.saturating_sub(*since_ms) <= patience_ms);
        self.forget_further();
    }

    /// Who is waited for, those that go further among them.
    pub(crate) fn unheard(&self) -> impl Iterator<Item = BrokerId> {
        self.unheard.keys().copied()
    }

    pub(crate) fn is_over(&self) -> bool {
        self.unheard.is_empty()
    }

    /// Who goes furthest, beyond the leader.
    pub(crate) fn further(&self) -> Option<Member> {
        self.further.map(|(member, _)| member)
    }

    fn forget_further(&mut self) {
        self.further = self.further.filter(|(member, _)| self.unheard.contains_key(&member.broker));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: Reach = (Some(3), 100);

    fn member(broker: i32) -> Member {
        Member { broker: BrokerId(broker), epoch: 7 }
    }

    fn begin() -> Hearing {
        Hearing::begin(&[BrokerId(2), BrokerId(3)], 0)
    }

    fn unheard(hearing: &Hearing) -> Vec<i32> {
        hearing.unheard().map(|broker| broker.0).collect()
    }

    #[test]
    fn who_does_not_go_further_was_heard() {
        let mut hearing = begin();
        assert!(!hearing.hear(member(2), OWN, OWN, 1));
        assert!(
            !hearing.hear(member(3), (Some(2), 200), OWN, 1),
            "what it has of an older leadership is cut"
        );
        assert!(hearing.is_over());
        assert!(!hearing.hear(member(2), (None, 0), OWN, 1), "it says so again");
    }

    #[test]
    fn the_furthest_shall_lead() {
        let mut hearing = begin();
        assert!(hearing.hear(member(2), (Some(3), 101), OWN, 1));
        assert_eq!((hearing.further(), unheard(&hearing)), (Some(member(2)), vec![2, 3]));
        assert!(hearing.hear(member(3), (Some(4), 50), OWN, 1), "a newer leadership wrote that");
        assert_eq!(hearing.further(), Some(member(3)));
        assert!(hearing.hear(member(2), (Some(3), 101), OWN, 2));
        assert_eq!(hearing.further(), Some(member(3)));
        let again = Member { epoch: 8, ..member(3) };
        assert!(hearing.hear(again, (Some(3), 102), OWN, 2));
        assert_eq!(hearing.further(), Some(again), "it began anew, and says what it has by now");
        assert!(hearing.hear(member(3), OWN, OWN, 3));
        assert_eq!(hearing.further(), Some(again), "said before that");
    }

    #[test]
    fn who_is_not_eligible_any_more_is_not_waited_for() {
        let mut hearing = begin();
        hearing.hear(member(3), (Some(3), 101), OWN, 1);
        hearing.observe(&[BrokerId(2)]);
        assert_eq!((hearing.further(), unheard(&hearing)), (None, vec![2]));
    }

    #[test]
    fn patience_ends_for_each_since_it_was_heard_of() {
        let mut hearing = begin();
        hearing.lose_patience(30, 10);
        assert_eq!(unheard(&hearing), [2, 3]);
        hearing.hear(member(3), (Some(3), 101), OWN, 20);
        hearing.lose_patience(31, 10);
        assert_eq!((hearing.further(), unheard(&hearing)), (Some(member(3)), vec![3]));
        hearing.lose_patience(51, 10);
        assert!(hearing.is_over() && hearing.further().is_none());
    }
}
