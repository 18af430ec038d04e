//! How a partition's record may change: who is in sync, who is still known to be complete, who leads.
//!
//! Why no acknowledged record is lost here. A record is acknowledged only when every member of the ISR has it and
//! the ISR has at least `min_insync` members. So each member of the ISR is complete. Who leaves an ISR of at
//! least `min_insync` members that keeps that many may miss what comes next, and is forgotten. Who leaves so that
//! fewer remain misses nothing, because from then on nothing is acknowledged: it enters the ELR, in the same
//! change, and stays until the ISR has `min_insync` members again. Leaders come from the ISR, else from the ELR,
//! else not at all (correctness rule 8, KIP-966).

use std::collections::BTreeMap;

use weir_types::BrokerId;

use crate::broker::{Broker, BrokerState, Turn};
use crate::mutant::Mutant;
use crate::settings::UncleanRecovery;
use crate::topic::{Partition, Replica};

/// The brokers, as far as an election asks for them.
pub(crate) type Brokers = BTreeMap<BrokerId, Broker>;

/// What else an election goes by.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules {
    /// Who may lead when nobody is known to be complete.
    pub(crate) recovery: UncleanRecovery,
    /// The cluster's feature level: below the one that knows it, no epoch of an unclean election is noted.
    pub(crate) level: i32,
}

/// Changes a record by `change`, elects where that leaves no leader, and counts the epochs. `None` if nothing is
/// different after that.
pub(crate) fn transition(
    old: &Partition,
    brokers: &Brokers,
    rules: Rules,
    change: impl FnOnce(&mut Partition),
) -> Option<Partition> {
    let mut new = old.clone();
    change(&mut new);
    stand_back(&mut new, brokers);
    if new.leader.is_none_or(|leader| !new.isr.contains(&leader) || gives_way(&new, brokers, leader)) {
        new.leader = elect(&mut new, brokers, rules);
    }
    new.from_elr = rules.level >= crate::CLUSTER_LEVEL && is_from_elr(old, &new);
    if new == *old {
        return None;
    }
    if new.leader != old.leader {
        new.leader_epoch = new.leader_epoch.saturating_add(1);
        new.last_known_leader = match new.leader {
            Some(_) => None,
            None => old.leader,
        };
        // Whoever was in neither set was not known to be complete, however it came to lead.
        let known = |leader: BrokerId| old.isr.contains(&leader) || old.elr.contains(&leader);
        let unclean = !old.is_fresh() && new.leader.is_some_and(|leader| !known(leader));
        if unclean && rules.level >= crate::CLUSTER_LEVEL {
            new.unclean_epoch = new.leader_epoch;
        }
    }
    new.partition_epoch = new.partition_epoch.saturating_add(1);
    Some(new)
}

/// Whether a leader came from the ELR, or has joined one that did, and others are left there: what that one's disk has lost
/// unnoticed, who has joined it lacks as well.
fn is_from_elr(old: &Partition, new: &Partition) -> bool {
    let Some(leader) = new.leader.filter(|_| !new.elr.is_empty()) else { return false };
    if old.isr.contains(&leader) {
        return old.from_elr;
    }
    // Before the first leader there was nothing that a disk could lose.
    old.elr.contains(&leader) && !old.is_fresh() && !Mutant::ElrUnsaid.is_planted()
}

/// Lets one of the ELR lead instead of a leader that came from there and has heard that it goes further. Since that was elected
/// fewer than `min_insync` have been in sync, or there would be no ELR: nothing was acknowledged. Who was in sync is eligible
/// again.
pub(crate) fn lead_instead(partition: &mut Partition, broker: BrokerId) {
    partition.leader = Some(broker);
    set_isr(partition, vec![broker]);
}

/// Replaces the ISR. Who leaves so that fewer than `min_insync` remain enters the ELR.
pub(crate) fn set_isr(partition: &mut Partition, isr: Vec<BrokerId>) {
    let old = std::mem::replace(&mut partition.isr, isr);
    settle_elr(partition, &old);
}

/// Replaces the `min_insync` in force (correctness rule 3).
pub(crate) fn set_min_insync(partition: &mut Partition, min_insync: i32) {
    partition.min_insync = min_insync;
    settle_elr(partition, &[]);
}

fn settle_elr(partition: &mut Partition, leaving: &[BrokerId]) {
    let in_sync = i32::try_from(partition.isr.len()).unwrap_or(i32::MAX);
    let is_kept = Mutant::ElrKept.is_planted() && leaving.is_empty();
    if in_sync >= partition.min_insync && !is_kept || Mutant::NoElr.is_planted() {
        partition.elr.clear();
        return;
    }
    for broker in leaving {
        if !partition.elr.contains(broker) {
            partition.elr.push(*broker);
        }
    }
    let isr = &partition.isr;
    partition.elr.retain(|broker| !isr.contains(broker));
}

/// Lets a replica lead that is not known to be complete: what it lacks is lost, and nobody else is known to match the
/// history that begins now.
pub(crate) fn lead_uncleanly(partition: &mut Partition, broker: BrokerId) {
    partition.leader = Some(broker);
    set_isr(partition, vec![broker]);
    partition.elr.clear();
}

/// A broker's epoch ended (it was fenced, or registered anew): out of the ISR.
pub(crate) fn leave(partition: &mut Partition, broker: BrokerId) {
    if partition.isr.contains(&broker) {
        set_isr(partition, partition.isr.iter().copied().filter(|member| *member != broker).collect());
    }
}

/// A broker asked to go: out of the ISR, unless it is the last member, which goes on serving until it stops.
pub(crate) fn drain(partition: &mut Partition, broker: BrokerId) {
    if partition.isr.len() > 1 {
        leave(partition, broker);
    }
}

/// Members whose disks are slow leave while enough are in sync without them, those that were placed last first; never
/// all, and not where nobody quick is in sync: slow is better than nobody (correctness rule 41). Whoever stays is needed
/// for `min_insync`, and is waited for.
///
/// Nothing is lost by it: `min_insync` members remain, so who leaves is not known to be complete any more and is
/// forgotten, as one is that lags.
fn stand_back(partition: &mut Partition, brokers: &Brokers) {
    let in_sync = partition.replicas.iter().rev().map(|replica| replica.broker);
    let slow: Vec<_> = in_sync.filter(|id| partition.isr.contains(id) && is_slow(brokers, *id)).collect();
    if slow.is_empty() || !has_quick(partition, brokers) || Mutant::SlowStays.is_planted() {
        return;
    }
    let needed = match Mutant::SlowLeavesTooFew.is_planted() {
        true => 1,
        false => needed(partition),
    };
    for broker in slow {
        if partition.isr.len() > needed {
            leave(partition, broker);
        }
    }
}

/// How many are in sync before one whose disk is slow, or whose log is damaged, may go.
pub(crate) fn needed(partition: &Partition) -> usize {
    usize::try_from(partition.min_insync).unwrap_or(0).max(2)
}

/// Whether one whose disk is slow may join: it would not be sent away at once.
pub(crate) fn admits_slow(partition: &Partition, brokers: &Brokers) -> bool {
    partition.isr.len() < needed(partition) || !has_quick(partition, brokers)
}

/// Whether a leader's disk is slow while that of somebody else in sync is not.
pub(crate) fn gives_way(partition: &Partition, brokers: &Brokers, leader: BrokerId) -> bool {
    is_slow(brokers, leader) && has_quick(partition, brokers) && !Mutant::SlowStays.is_planted()
}

fn is_slow(brokers: &Brokers, id: BrokerId) -> bool {
    brokers.get(&id).is_some_and(|broker| broker.state == BrokerState::Slow)
}

/// Whether somebody is in sync who could lead and is neither slow nor about to stop.
fn has_quick(partition: &Partition, brokers: &Brokers) -> bool {
    partition.isr.iter().any(|id| can_lead(partition, brokers, *id, Turn::First))
}

/// The directory of a replica became known. While nobody has ever led the partition, that replica is complete.
pub(crate) fn assigned(partition: &mut Partition, broker: BrokerId) {
    if partition.is_fresh() && !partition.elr.contains(&broker) {
        partition.elr.push(broker);
    }
}

/// Who shall lead: the first replica, in their order, that is in the ISR; else the first of the ELR, which is
/// then the whole ISR; active ones before slow and draining ones; only where the replica's directory is online.
fn elect(partition: &mut Partition, brokers: &Brokers, rules: Rules) -> Option<BrokerId> {
    let first_of = |members: &[BrokerId]| {
        let able = |turn| {
            let mut replicas = partition.replicas.iter().map(|replica| replica.broker);
            replicas.find(|broker| members.contains(broker) && can_lead(partition, brokers, *broker, turn))
        };
        [Turn::First, Turn::Slow, Turn::Last].into_iter().find_map(able)
    };
    if let Some(leader) = first_of(&partition.isr) {
        return Some(leader);
    }
    if partition.is_fresh() {
        return begin(partition, brokers, rules);
    }
    if let Some(leader) = first_of(&partition.elr) {
        // The others stay in the ELR only while nothing is acknowledged without them: not if one is enough.
        set_isr(partition, vec![leader]);
        return Some(leader);
    }
    if let Some(last) = partition.last_known_leader
        && Mutant::LastLeaderElected.is_planted()
        && can_lead(partition, brokers, last, Turn::Slow)
    {
        set_isr(partition, vec![last]);
        return Some(last);
    }
    if let (UncleanRecovery::Longest, [only]) = (rules.recovery, partition.replicas.as_slice())
        && partition.elr.is_empty()
        && can_lead(partition, brokers, only.broker, Turn::Slow)
    {
        // The only replica has the longest log there is.
        let leader = only.broker;
        set_isr(partition, vec![leader]);
        return Some(leader);
    }
    None
}

/// The first leadership of a partition. It waits for the first replica whose broker serves, so that leaders are
/// where placement put them and not where a folder was made fastest; if that broker dies first, its fencing comes
/// by here again. Nothing was ever written, so whoever has its directory begins in sync.
///
/// As long as fewer than `min_insync` are, nothing is acknowledged: until then everybody else is as complete as the
/// leader, also who has no directory yet, and is therefore in the ELR. So a leader that is lost before anybody has
/// joined it takes nothing with it.
fn begin(partition: &mut Partition, brokers: &Brokers, rules: Rules) -> Option<BrokerId> {
    let serves = |turn: Turn| {
        let is_there = |id| brokers.get(&id).and_then(|broker: &Broker| broker.state.turn()) == Some(turn);
        partition.replicas.iter().find(|replica| is_there(replica.broker)).map(|replica| (replica, turn))
    };
    // One whose disk is slow only where all are.
    let (first, turn) = serves(Turn::First).or_else(|| serves(Turn::Slow))?;
    first.directory()?;
    let able = |id: BrokerId| partition.elr.contains(&id) && can_lead(partition, brokers, id, turn);
    let isr: Vec<_> =
        partition.replicas.iter().map(|replica| replica.broker).filter(|id| able(*id)).collect();
    let leader = isr.first().copied()?;
    if rules.level >= crate::CLUSTER_LEVEL {
        // But for those who never come back.
        let is_removed = |id| brokers.get(&id).is_some_and(|broker| broker.state == BrokerState::Removed);
        let replicas = partition.replicas.iter().map(|replica| replica.broker);
        partition.elr = replicas.filter(|id| !is_removed(*id)).collect();
    }
    set_isr(partition, isr);
    Some(leader)
}

/// Whether a broker's replica can lead now, where those are asked whose turn has come: the broker lives, and the
/// directory on record is there.
pub(crate) fn can_lead(partition: &Partition, brokers: &Brokers, id: BrokerId, turn: Turn) -> bool {
    let directory = partition.replica(id).and_then(Replica::directory);
    brokers.get(&id).zip(directory).is_some_and(|(broker, directory)| {
        broker.state.turn().is_some_and(|its| its <= turn) && broker.has_directory(directory)
    })
}

impl Partition {
    /// The preferred replica, if another one leads and it could at once: in sync and serving.
    pub(crate) fn preferred(&self, brokers: &Brokers) -> Option<BrokerId> {
        let first = self.replicas.first()?.broker;
        let may = self.leader.is_some_and(|leader| leader != first) && self.isr.contains(&first);
        (may && can_lead(self, brokers, first, Turn::First)).then_some(first)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use weir_types::DirectoryId;

    use super::*;

    fn broker(id: i32, state: BrokerState) -> (BrokerId, Broker) {
        let broker = Broker {
            id: BrokerId(id),
            epoch: 1,
            state,
            persisted_epoch: 1,
            directories: vec![DirectoryId(id as u128)],
            rack: String::new(),
            endpoints: Vec::new(),
            version: String::new(),
            registered_ms: 0,
            incarnation: 0,
            failed: Vec::new(),
            stopped: false,
        };
        (BrokerId(id), broker)
    }

    pub(crate) fn brokers(states: [BrokerState; 3]) -> Brokers {
        (1..).zip(states).map(|(id, state)| broker(id, state)).collect()
    }

    pub(crate) fn ids(ids: &[i32]) -> Vec<BrokerId> {
        ids.iter().map(|id| BrokerId(*id)).collect()
    }

    pub(crate) fn partition(leader: Option<i32>, isr: &[i32], elr: &[i32], min_insync: i32) -> Partition {
        let mut partition = Partition::new(ids(&[1, 2, 3]), min_insync);
        for replica in &mut partition.replicas {
            *replica = Replica::new(replica.broker, Some(DirectoryId(replica.broker.0 as u128)));
        }
        Partition { leader: leader.map(BrokerId), leader_epoch: 5, isr: ids(isr), elr: ids(elr), ..partition }
    }

    pub(crate) const MANUAL: Rules = Rules { recovery: UncleanRecovery::Manual, level: crate::FEATURE_LEVEL };
    const LONGEST: Rules = Rules { recovery: UncleanRecovery::Longest, ..MANUAL };
    pub(crate) const UP: BrokerState = BrokerState::Active;
    pub(crate) const DOWN: BrokerState = BrokerState::Fenced;

    fn after_leaving(old: &Partition, gone: i32, brokers: &Brokers) -> Option<Partition> {
        transition(old, brokers, MANUAL, |p| leave(p, BrokerId(gone)))
    }

    #[test]
    fn the_leader_leaves_and_the_next_in_sync_replica_leads() {
        let new =
            after_leaving(&partition(Some(1), &[1, 2, 3], &[], 2), 1, &brokers([DOWN, UP, UP])).unwrap();
        assert_eq!((new.leader, new.leader_epoch, new.partition_epoch), (Some(BrokerId(2)), 6, 1));
        assert_eq!((new.isr, new.elr), (ids(&[2, 3]), ids(&[])));
    }

    #[test]
    fn who_leaves_too_few_behind_enters_the_elr() {
        let new = after_leaving(&partition(Some(2), &[1, 2], &[], 2), 1, &brokers([DOWN, UP, DOWN])).unwrap();
        assert_eq!((new.leader, new.leader_epoch), (Some(BrokerId(2)), 5));
        assert_eq!((new.isr, new.elr), (ids(&[2]), ids(&[1])));
    }

    #[test]
    fn the_last_one_leaves_and_comes_back() {
        let old = partition(Some(1), &[1], &[], 1);
        let gone = after_leaving(&old, 1, &brokers([DOWN, UP, UP])).unwrap();
        assert_eq!((gone.leader, gone.leader_epoch, gone.last_known_leader), (None, 6, Some(BrokerId(1))));
        assert_eq!((gone.isr.clone(), gone.elr.clone()), (ids(&[]), ids(&[1])));
        let back = transition(&gone, &brokers([UP, UP, UP]), MANUAL, |_| ()).unwrap();
        assert_eq!((back.leader, back.leader_epoch, back.last_known_leader), (Some(BrokerId(1)), 7, None));
        assert_eq!((back.isr, back.elr), (ids(&[1]), ids(&[])));
    }

    #[test]
    fn nobody_who_is_not_known_to_be_complete_is_elected() {
        let old = partition(None, &[], &[], 2);
        assert_eq!(transition(&old, &brokers([UP; 3]), LONGEST, |_| ()), None);
    }

    #[test]
    fn the_only_replica_is_the_longest() {
        let mut old = partition(None, &[], &[], 1);
        old.replicas.truncate(1);
        assert_eq!(transition(&old, &brokers([UP; 3]), MANUAL, |_| ()), None);
        let new = transition(&old, &brokers([UP; 3]), LONGEST, |_| ()).unwrap();
        assert_eq!((new.leader, new.isr.clone()), (Some(BrokerId(1)), ids(&[1])));
        assert_eq!(
            (new.leader_epoch, new.unclean_epoch),
            (6, 6),
            "what others hold beyond it is not history"
        );
        let older = Rules { level: 1, ..LONGEST };
        let new = transition(&old, &brokers([UP; 3]), older, |_| ()).unwrap();
        assert_eq!(
            (new.leader_epoch, new.unclean_epoch),
            (6, 0),
            "a version that knows it not applies alike"
        );
    }

    #[test]
    fn only_an_unclean_election_is_noted_as_one() {
        let noted = |old: &Partition, rules, change: fn(&mut Partition)| {
            transition(old, &brokers([UP; 3]), rules, change).unwrap().unclean_epoch
        };
        let leaderless = |elr: &[i32]| partition(None, &[], elr, 2);
        assert_eq!(noted(&leaderless(&[2]), MANUAL, |_| ()), 0, "one of the ELR");
        assert_eq!(noted(&partition(Some(1), &[1, 2], &[], 1), MANUAL, |p| leave(p, BrokerId(1))), 0);
        assert_eq!(noted(&leaderless(&[]), MANUAL, |p| lead_uncleanly(p, BrokerId(3))), 6);
        let before = Partition { unclean_epoch: 4, ..partition(Some(1), &[1, 2], &[], 1) };
        assert_eq!(noted(&before, MANUAL, |p| leave(p, BrokerId(1))), 4, "it is remembered");
    }

    #[test]
    fn one_of_the_elr_leads_and_the_others_stay_in_it() {
        let old = partition(None, &[], &[3, 2], 2);
        let new = transition(&old, &brokers([DOWN, UP, UP]), MANUAL, |_| ()).unwrap();
        assert_eq!((new.leader, new.isr.clone(), new.elr.clone()), (Some(BrokerId(2)), ids(&[2]), ids(&[3])));
        assert_eq!(new.unheard(), ids(&[3]));
    }

    #[test]
    fn the_others_are_forgotten_if_one_is_enough() {
        let old = partition(None, &[], &[3, 2], 1);
        let new = transition(&old, &brokers([DOWN, UP, UP]), MANUAL, |_| ()).unwrap();
        assert_eq!((new.leader, new.isr.clone(), new.elr.clone()), (Some(BrokerId(2)), ids(&[2]), ids(&[])));
        assert_eq!(new.unheard(), ids(&[]));
    }

    #[test]
    fn who_leads_hears_the_elr_only_if_it_came_from_there() {
        let up = brokers([UP; 3]);
        let unheard = |new: Option<Partition>| new.unwrap().unheard().to_vec();
        let from_isr = partition(Some(1), &[1, 2], &[3], 3);
        assert_eq!(unheard(after_leaving(&from_isr, 1, &up)), ids(&[]), "2 was in sync all the time");
        let led = transition(&partition(None, &[], &[2, 3], 2), &up, MANUAL, |_| ()).unwrap();
        assert_eq!(led.unheard(), ids(&[3]));
        let fewer = transition(&led, &up, MANUAL, |partition| partition.leader_epoch += 1);
        assert_eq!(unheard(fewer), ids(&[3]), "it leads on");
        assert_eq!(
            unheard(transition(&led, &up, MANUAL, |partition| set_isr(partition, ids(&[2, 1])))),
            ids(&[])
        );
        assert_eq!(unheard(transition(&led, &up, MANUAL, |partition| partition.elr.clear())), ids(&[]));
        let two = transition(&partition(None, &[], &[2, 3], 3), &up, MANUAL, |_| ()).unwrap();
        let two = transition(&two, &up, MANUAL, |partition| set_isr(partition, ids(&[2, 1]))).unwrap();
        let late = transition(&two, &up, MANUAL, |partition| lead_instead(partition, BrokerId(3))).unwrap();
        assert_eq!(
            (late.leader, late.unheard()),
            (Some(BrokerId(3)), &ids(&[2, 1])[..]),
            "2 was joined by 1"
        );
        let next = transition(&two, &up, MANUAL, |partition| leave(partition, BrokerId(2))).unwrap();
        assert_eq!((next.leader, next.unheard()), (Some(BrokerId(1)), &ids(&[3, 2])[..]), "1 has what 2 had");
        let preferred = transition(&two, &up, MANUAL, |partition| partition.leader = Some(BrokerId(1)));
        assert_eq!(unheard(preferred), ids(&[3]));
        let other = transition(&led, &up, MANUAL, |partition| lead_instead(partition, BrokerId(3))).unwrap();
        assert_eq!(
            (other.leader, other.isr.clone(), other.unheard()),
            (Some(BrokerId(3)), ids(&[3]), &ids(&[2])[..])
        );
        let older = Rules { level: 1, ..MANUAL };
        let led = transition(&partition(None, &[], &[2, 3], 2), &up, older, |_| ()).unwrap();
        assert_eq!((led.leader, led.unheard()), (Some(BrokerId(2)), &ids(&[])[..]));
    }

    #[test]
    fn a_replica_whose_directory_is_not_there_leads_nothing() {
        let mut old = partition(None, &[], &[1], 1);
        if let Some(replica) = old.replicas.first_mut() {
            *replica = Replica::new(replica.broker, Some(DirectoryId(77)));
        }
        assert_eq!(transition(&old, &brokers([UP; 3]), MANUAL, |_| ()), None);
    }

    #[test]
    fn a_lower_min_insync_empties_the_elr_only_if_the_isr_reaches_it() {
        let change = |min| {
            let old = partition(Some(1), &[1], &[2, 3], 3);
            transition(&old, &brokers([UP; 3]), MANUAL, |p| set_min_insync(p, min)).unwrap().elr
        };
        assert_eq!(change(2), ids(&[2, 3]));
        assert_eq!(change(1), ids(&[]));
    }

    fn assign(old: &Partition, brokers: &Brokers, id: i32) -> Partition {
        let assign = |partition: &mut Partition| {
            for replica in partition.replicas.iter_mut().filter(|replica| replica.broker == BrokerId(id)) {
                *replica = Replica::new(replica.broker, Some(DirectoryId(id as u128)));
            }
            assigned(partition, BrokerId(id));
        };
        transition(old, brokers, MANUAL, assign).unwrap()
    }

    #[test]
    fn a_fresh_partition_waits_for_its_first_living_replica() {
        let all = brokers([UP; 3]);
        let waits = assign(&Partition::new(ids(&[1, 2, 3]), 2), &all, 3);
        assert_eq!((waits.leader, waits.leader_epoch, waits.elr.clone()), (None, 0, ids(&[3])));
        let led = assign(&waits, &all, 1);
        assert_eq!((led.leader, led.leader_epoch), (Some(BrokerId(1)), 1));
        assert_eq!(
            (led.isr.clone(), led.elr.clone()),
            (ids(&[1, 3]), ids(&[])),
            "3 is complete: nothing was written"
        );
        let joined = assign(&led, &all, 2);
        assert_eq!(joined.isr, ids(&[1, 3]), "after the first leader a replica joins by catching up");

        let gone = after_leaving(&waits, 1, &brokers([DOWN, UP, UP]));
        assert_eq!(gone, None, "2 comes before 3 and lives");
        let gone = after_leaving(&waits, 1, &brokers([DOWN, DOWN, UP])).unwrap();
        assert_eq!((gone.leader, gone.isr), (Some(BrokerId(3)), ids(&[3])));
    }

    const SLOW: BrokerState = BrokerState::Slow;

    /// The record after its members' disks have become what they are.
    fn settled(old: &Partition, states: [BrokerState; 3]) -> Partition {
        transition(old, &brokers(states), MANUAL, |_| ()).unwrap_or_else(|| old.clone())
    }

    #[test]
    fn a_slow_broker_gives_up_its_leadership_and_its_place() {
        let new = settled(&partition(Some(1), &[1, 2, 3], &[], 2), [SLOW, UP, UP]);
        assert_eq!((new.leader, new.isr, new.elr), (Some(BrokerId(2)), ids(&[2, 3]), ids(&[])));
        let new = settled(&partition(Some(1), &[1, 2, 3], &[], 2), [UP, UP, SLOW]);
        assert_eq!((new.leader, new.leader_epoch, new.isr), (Some(BrokerId(1)), 5, ids(&[1, 2])));
    }

    #[test]
    fn a_slow_broker_stays_in_sync_where_it_is_needed() {
        let new = settled(&partition(Some(1), &[1, 2], &[], 2), [SLOW, UP, DOWN]);
        assert_eq!((new.leader, new.isr.clone()), (Some(BrokerId(2)), ids(&[1, 2])), "it leads no more");
        // Once the third is back and has caught up, it is needed no more.
        let grown = transition(&new, &brokers([SLOW, UP, UP]), MANUAL, |p| set_isr(p, ids(&[1, 2, 3])));
        assert_eq!(grown.unwrap().isr, ids(&[2, 3]));
        let all = settled(&partition(Some(1), &[1, 2, 3], &[], 3), [SLOW, SLOW, UP]);
        assert_eq!((all.leader, all.isr), (Some(BrokerId(3)), ids(&[1, 2, 3])));
        let below = settled(&partition(Some(1), &[1, 2], &[3], 3), [SLOW, UP, DOWN]);
        assert_eq!((below.leader, below.isr, below.elr), (Some(BrokerId(2)), ids(&[1, 2]), ids(&[3])));
    }

    #[test]
    fn the_second_of_two_stays_in_sync_however_slow() {
        let new = settled(&partition(Some(1), &[1, 2], &[], 1), [SLOW, UP, DOWN]);
        assert_eq!((new.leader, new.isr.clone()), (Some(BrokerId(2)), ids(&[1, 2])));
        // The other one was dead already.
        let gone = after_leaving(&new, 2, &brokers([SLOW, DOWN, DOWN])).unwrap();
        assert_eq!((gone.leader, gone.isr, gone.elr), (Some(BrokerId(1)), ids(&[1]), ids(&[])));
    }

    #[test]
    fn one_whose_disk_is_slow_joins_where_it_would_stay() {
        let admits =
            |isr: &[i32], min, states| admits_slow(&partition(Some(1), isr, &[], min), &brokers(states));
        assert!(admits(&[1], 1, [UP, UP, SLOW]), "the second of two");
        assert!(!admits(&[1, 2], 1, [UP, UP, SLOW]));
        assert!(admits(&[1, 2], 3, [UP, UP, SLOW]));
        assert!(admits(&[1, 2], 2, [SLOW; 3]), "nobody quick is there");
    }

    #[test]
    fn who_was_removed_is_not_eligible_to_lead() {
        let mut partition = Partition::new(ids(&[1, 2, 3]), 2);
        assigned(&mut partition, BrokerId(1));
        partition.replicas[0] = Replica::new(BrokerId(1), Some(DirectoryId(1)));
        let begun = transition(&partition, &brokers([UP, UP, BrokerState::Removed]), MANUAL, |_| ()).unwrap();
        assert_eq!((begun.leader, begun.elr), (Some(BrokerId(1)), ids(&[2])));
    }

    #[test]
    fn slow_is_better_than_nobody() {
        let alone = partition(Some(1), &[1], &[], 1);
        assert_eq!(transition(&alone, &brokers([SLOW, UP, UP]), MANUAL, |_| ()), None);
        let all = partition(Some(1), &[1, 2, 3], &[], 2);
        assert_eq!(transition(&all, &brokers([SLOW; 3]), MANUAL, |_| ()), None);
        let to_a_draining_one = partition(Some(1), &[1, 2], &[], 1);
        let states = brokers([SLOW, BrokerState::Draining, DOWN]);
        assert_eq!(transition(&to_a_draining_one, &states, MANUAL, |_| ()), None);
        let old = partition(Some(2), &[1, 2], &[], 2);
        let gone = after_leaving(&old, 2, &brokers([SLOW, DOWN, UP])).unwrap();
        assert_eq!((gone.leader, gone.isr, gone.elr), (Some(BrokerId(1)), ids(&[1]), ids(&[2])));
        let eligible = settled(&partition(None, &[], &[1], 2), [SLOW, UP, UP]);
        assert_eq!(eligible.leader, Some(BrokerId(1)));
    }

    #[test]
    fn the_first_leader_is_not_a_slow_one_unless_all_are() {
        let begun = |states| {
            let mut partition = Partition::new(ids(&[1, 2, 3]), 2);
            for replica in &mut partition.replicas {
                *replica = Replica::new(replica.broker, Some(DirectoryId(replica.broker.0 as u128)));
                partition.elr.push(replica.broker);
            }
            transition(&partition, &brokers(states), MANUAL, |_| ()).unwrap()
        };
        let one = begun([SLOW, UP, UP]);
        assert_eq!((one.leader, one.isr), (Some(BrokerId(2)), ids(&[2, 3])));
        let two = begun([SLOW, SLOW, UP]);
        assert_eq!((two.leader, two.isr, two.elr), (Some(BrokerId(3)), ids(&[3]), ids(&[1, 2])));
        let all = begun([SLOW; 3]);
        assert_eq!((all.leader, all.isr), (Some(BrokerId(1)), ids(&[1, 2, 3])));
    }

    #[test]
    fn a_slow_broker_that_stays_or_leaves_too_few_is_noticed() {
        assert!(Mutant::SlowStays.is_noticed_by(a_slow_broker_gives_up_its_leadership_and_its_place));
        assert!(Mutant::SlowLeavesTooFew.is_noticed_by(a_slow_broker_stays_in_sync_where_it_is_needed));
    }

    #[test]
    fn a_draining_broker_leads_only_what_nobody_else_can() {
        let brokers = brokers([BrokerState::Draining, UP, UP]);
        let old = partition(Some(1), &[1, 2], &[], 1);
        let new = transition(&old, &brokers, MANUAL, |p| drain(p, BrokerId(1))).unwrap();
        assert_eq!((new.leader, new.isr), (Some(BrokerId(2)), ids(&[2])));
        let alone = partition(Some(1), &[1], &[], 1);
        assert_eq!(transition(&alone, &brokers, MANUAL, |p| drain(p, BrokerId(1))), None);
    }
}
