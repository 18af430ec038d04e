//! A log that was found damaged while it is in use (correctness rule 36): a reader met bytes that are not those which were
//! written. Whoever else is in sync has them, so that another replica leads and this one is fetched anew.
//!
//! Why nothing is lost by it. Who leaves leaves as one that lags: `min_insync` members stay, each of which is complete, and
//! all that is acknowledged from then on is theirs as well. Where fewer would stay nobody leaves, for a log that lacks
//! one batch is still the second copy of every other; it only leads no more.
//!
//! Who leaves is about to set its log aside, and must not be let in again for what that has by then: a follower is let in for
//! what it has said under one leader epoch. So another one begins, whoever leads in it, in which it has said nothing yet.
//!
//! Some damage keeps a replica from following at all: its log cannot be cut to its leader's. Once it lags it is not in sync;
//! but it may be known as complete (ELR), and set its log aside only when nobody counts on it. The leader has all that it
//! has, so it is known as that no more, and another leader epoch begins.
//!
//! A leader whose log cannot be used at all leads nothing, and lets in nobody. Whoever else is known to be complete leads
//! instead, one of the ELR as well; it stays what it was, for its log may only be out of reach.

use weir_types::{BrokerId, LeaderEpoch, PartitionId};

use crate::CLUSTER_LEVEL;
use crate::broker::Turn;
use crate::image::Image;
use crate::isr::{self, Brokers};
use crate::mutant::Mutant;
use crate::topic::Partition;

/// What a member gives up whose log is damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GivesUp {
    /// Its place in the in-sync set.
    Place,
    /// The lead alone, to this one: it is needed.
    Lead(BrokerId),
}

/// Carries out what is to become of a member whose log is damaged, if anything.
pub(crate) fn give_up(partition: &mut Partition, brokers: &Brokers, id: BrokerId) {
    match gives_up(partition, brokers, id) {
        Some(GivesUp::Place) => {
            isr::leave(partition, id);
            // It ends with the leader where that is who leaves.
            if partition.leader != Some(id) && !Mutant::RottenLetIn.is_planted() {
                partition.leader_epoch = partition.leader_epoch.saturating_add(1);
            }
        }
        Some(GivesUp::Lead(leader)) => partition.leader = Some(leader),
        None => {}
    }
}

/// Lets a replica fetch its log anew that cannot follow in this leader epoch, and is not in sync.
pub(crate) fn begin_anew(partition: &mut Partition, id: BrokerId, leader_epoch: LeaderEpoch) {
    if begins_anew(partition, id, leader_epoch) {
        partition.elr.retain(|member| *member != id);
        partition.leader_epoch = partition.leader_epoch.saturating_add(1);
    }
}

/// Lets another one lead instead of a leader whose log cannot be used, if one is known to be complete.
pub(crate) fn hand_over(partition: &mut Partition, brokers: &Brokers, id: BrokerId) {
    match instead(partition, brokers, id) {
        Some(leader) if partition.isr.contains(&leader) => partition.leader = Some(leader),
        Some(leader) => isr::lead_instead(partition, leader),
        None => {}
    }
}

/// Who that is: of those in sync, or else of the ELR. Where there is an ELR fewer than `min_insync` are in sync, and have
/// acknowledged nothing since. The next one in the order of the replicas, so that where the logs of two cannot be used each of the
/// others has its turn.
fn instead(partition: &Partition, brokers: &Brokers, id: BrokerId) -> Option<BrokerId> {
    if partition.leader != Some(id) || Mutant::UnusableLeads.is_planted() {
        return None;
    }
    let at = partition.replicas.iter().position(|replica| replica.broker == id)?;
    let (before, behind) = partition.replicas.split_at(at);
    let able = |members: &[BrokerId], turn| {
        let mut others = behind.iter().skip(1).chain(before).map(|replica| replica.broker);
        others.find(|other| members.contains(other) && isr::can_lead(partition, brokers, *other, turn))
    };
    // One in sync whose disk is slow would give way to this one again.
    able(&partition.isr, Turn::First).or_else(|| able(&partition.elr, Turn::Slow))
}

/// What has begun since is another matter, and whoever leads by now is whole as far as it leads.
fn begins_anew(partition: &Partition, id: BrokerId, leader_epoch: LeaderEpoch) -> bool {
    let is_replica = partition.replicas.iter().any(|replica| replica.broker == id);
    let others_lead = partition.leader.is_some_and(|leader| leader != id);
    let is_in_sync = partition.isr.contains(&id) && !Mutant::StuckInSync.is_planted();
    is_replica && others_lead && !is_in_sync && partition.leader_epoch == leader_epoch
}

/// `None`: it stays as it is, because nobody else is known to be complete, or is there.
fn gives_up(partition: &Partition, brokers: &Brokers, id: BrokerId) -> Option<GivesUp> {
    if !partition.isr.contains(&id) || Mutant::RottenStays.is_planted() {
        return None;
    }
    let mut replicas = partition.replicas.iter().map(|replica| replica.broker);
    let is_able = |other: &BrokerId| {
        *other != id
            && partition.isr.contains(other)
            && isr::can_lead(partition, brokers, *other, Turn::First)
    };
    let other = replicas.find(is_able)?;
    if partition.isr.len() > isr::needed(partition) || Mutant::RottenLeavesTooFew.is_planted() {
        return Some(GivesUp::Place);
    }
    (partition.leader == Some(id)).then_some(GivesUp::Lead(other))
}

impl Image {
    /// Whether a broker gives up its place in a partition, or the lead, once it says that its log is damaged.
    /// `None`: nothing changes.
    pub fn gives_up_damaged(&self, broker: BrokerId, id: PartitionId) -> Option<GivesUp> {
        // Below that level no controller would carry it out.
        let record = self.partition(id).filter(|_| self.feature_level >= CLUSTER_LEVEL)?;
        gives_up(record, &self.brokers, broker)
    }

    /// Whether another one leads instead of a broker that cannot use its log of a partition, once it says so.
    pub fn hands_over(&self, broker: BrokerId, id: PartitionId) -> bool {
        let record = self.partition(id).filter(|_| self.feature_level >= CLUSTER_LEVEL);
        record.is_some_and(|record| instead(record, &self.brokers, broker).is_some())
    }

    /// Whether a broker that cannot follow a partition in this leader epoch, for what is damaged in its log, may fetch it
    /// anew once it says so.
    pub fn begins_anew(&self, broker: BrokerId, id: PartitionId, leader_epoch: LeaderEpoch) -> bool {
        let record = self.partition(id).filter(|_| self.feature_level >= CLUSTER_LEVEL);
        record.is_some_and(|record| begins_anew(record, broker, leader_epoch))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::BrokerState;
    use crate::isr::tests::{DOWN, MANUAL, UP, brokers, ids, partition};

    fn after(old: &Partition, id: i32, states: [BrokerState; 3]) -> Option<Partition> {
        let brokers = brokers(states);
        isr::transition(old, &brokers, MANUAL, |partition| give_up(partition, &brokers, BrokerId(id)))
    }

    #[test]
    fn a_damaged_leader_leaves_where_enough_are_in_sync_without_it() {
        let old = partition(Some(1), &[1, 2, 3], &[], 2);
        let new = after(&old, 1, [UP; 3]).unwrap();
        assert_eq!((new.leader, new.leader_epoch), (Some(BrokerId(2)), old.leader_epoch + 1));
        assert_eq!((new.isr, new.elr), (ids(&[2, 3]), ids(&[])));
    }

    /// What it has said in the epoch before counts for nothing.
    #[test]
    fn a_damaged_follower_that_leaves_ends_the_leader_epoch() {
        let old = partition(Some(1), &[1, 2, 3], &[], 2);
        let new = after(&old, 3, [UP; 3]).unwrap();
        assert_eq!((new.leader, new.isr), (Some(BrokerId(1)), ids(&[1, 2])));
        assert_eq!((new.leader_epoch, new.unclean_epoch), (old.leader_epoch + 1, 0));
    }

    #[test]
    fn a_damaged_follower_that_may_be_let_in_at_once_is_noticed() {
        assert!(Mutant::RottenLetIn.is_noticed_by(a_damaged_follower_that_leaves_ends_the_leader_epoch));
    }

    #[test]
    fn a_damaged_replica_that_is_needed_stays_and_leads_no_more() {
        let old = partition(Some(1), &[1, 2], &[], 2);
        let new = after(&old, 1, [UP, UP, DOWN]).unwrap();
        assert_eq!(
            (new.leader, new.isr.clone(), new.elr.clone()),
            (Some(BrokerId(2)), ids(&[1, 2]), ids(&[]))
        );
        assert_eq!(after(&new, 1, [UP, UP, DOWN]), None, "there is nothing more to give up");
        let second_of_two = after(&partition(Some(1), &[1, 2], &[], 1), 1, [UP, UP, DOWN]).unwrap();
        assert_eq!((second_of_two.leader, second_of_two.isr), (Some(BrokerId(2)), ids(&[1, 2])));
    }

    #[test]
    fn a_damaged_replica_stays_as_it_is_where_nobody_else_is_complete_and_there() {
        let alone = partition(Some(1), &[1], &[2], 2);
        assert_eq!(after(&alone, 1, [UP; 3]), None);
        assert_eq!(after(&partition(Some(2), &[2], &[1], 2), 1, [UP; 3]), None, "it may be the last copy");
        assert_eq!(after(&partition(Some(2), &[2, 3], &[], 2), 1, [UP; 3]), None, "it is not in sync");
        let about_to_go = partition(Some(1), &[1, 2], &[], 1);
        assert_eq!(after(&about_to_go, 1, [UP, BrokerState::Draining, DOWN]), None);
    }

    #[test]
    fn a_leader_whose_log_cannot_be_used_gives_way_to_whoever_is_complete() {
        let after = |old: &Partition, states| {
            let brokers = brokers(states);
            isr::transition(old, &brokers, MANUAL, |partition| hand_over(partition, &brokers, BrokerId(1)))
        };
        let in_sync = after(&partition(Some(1), &[1, 3], &[], 2), [UP; 3]).unwrap();
        assert_eq!((in_sync.leader, in_sync.isr), (Some(BrokerId(3)), ids(&[1, 3])));
        let old = partition(Some(1), &[1], &[2, 3], 2);
        let new = after(&old, [UP, DOWN, UP]).unwrap();
        assert_eq!((new.leader, new.leader_epoch), (Some(BrokerId(3)), old.leader_epoch + 1));
        assert_eq!((new.isr, new.elr, new.unclean_epoch), (ids(&[3]), ids(&[2, 1]), 0));
        assert!(new.from_elr, "it hears the others first");
        assert_eq!(after(&old, [UP, DOWN, DOWN]), None, "nobody else is there");
        let slow = [UP, BrokerState::Slow, UP];
        assert_eq!(after(&partition(Some(1), &[1, 2], &[], 2), slow), None, "it would give way at once");
        let up = brokers([UP; 3]);
        let mut led = partition(Some(1), &[1], &[2, 3], 2);
        for next in [2, 3, 1, 2] {
            let leader = led.leader.unwrap();
            led = isr::transition(&led, &up, MANUAL, |new| hand_over(new, &up, leader)).unwrap();
            assert_eq!(led.leader, Some(BrokerId(next)), "each has its turn");
        }
        assert_eq!(after(&partition(Some(1), &[1], &[], 1), [UP; 3]), None, "nobody else is complete");
        assert_eq!(after(&partition(Some(2), &[2], &[1], 2), [UP; 3]), None, "another one leads");
    }

    #[test]
    fn a_leader_whose_log_cannot_be_used_and_that_stays_is_noticed() {
        let test = a_leader_whose_log_cannot_be_used_gives_way_to_whoever_is_complete;
        assert!(Mutant::UnusableLeads.is_noticed_by(test));
    }

    fn stuck(old: &Partition, id: i32, leader_epoch: LeaderEpoch) -> Option<Partition> {
        isr::transition(old, &brokers([UP; 3]), MANUAL, |new| begin_anew(new, BrokerId(id), leader_epoch))
    }

    /// Nobody counts on what it is about to set aside: neither an election, nor its leader for what it has said.
    #[test]
    fn one_that_cannot_follow_is_known_as_complete_no_more_and_ends_the_leader_epoch() {
        let old = partition(Some(1), &[1], &[2], 2);
        let new = stuck(&old, 2, old.leader_epoch).unwrap();
        assert_eq!((new.leader, new.leader_epoch), (Some(BrokerId(1)), old.leader_epoch + 1));
        assert_eq!((new.isr.clone(), new.elr.clone()), (ids(&[1]), ids(&[])));
        assert_eq!(stuck(&new, 2, old.leader_epoch), None, "it has not tried to follow since");
        assert!(stuck(&partition(Some(1), &[1, 3], &[], 2), 2, old.leader_epoch).is_some());
    }

    #[test]
    fn one_that_cannot_follow_stays_where_it_is_counted_on() {
        let stays = |old: Partition, id: i32| {
            let mut new = old.clone();
            begin_anew(&mut new, BrokerId(id), old.leader_epoch);
            new == old
        };
        assert!(stays(partition(Some(1), &[1, 2], &[], 2), 2), "it is in sync");
        assert!(stays(partition(None, &[], &[1, 2], 2), 2), "nobody leads");
        assert!(stays(partition(Some(2), &[2], &[1], 2), 2), "it leads itself");
        assert!(stays(partition(Some(1), &[1], &[], 2), 4), "it is no replica");
        assert!(!stays(partition(Some(1), &[1], &[], 2), 2));
    }

    #[test]
    fn one_that_begins_anew_while_it_is_in_sync_is_noticed() {
        assert!(Mutant::StuckInSync.is_noticed_by(one_that_cannot_follow_stays_where_it_is_counted_on));
    }

    #[test]
    fn one_that_stays_or_leaves_too_few_is_noticed() {
        assert!(
            Mutant::RottenStays.is_noticed_by(a_damaged_leader_leaves_where_enough_are_in_sync_without_it)
        );
        let too_few = a_damaged_replica_that_is_needed_stays_and_leads_no_more;
        assert!(Mutant::RottenLeavesTooFew.is_noticed_by(too_few));
    }
}
