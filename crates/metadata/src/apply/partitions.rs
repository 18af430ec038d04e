//! Partitions: where replicas are, who is in sync, who leads.

use std::collections::BTreeMap;

use weir_types::{BrokerId, DirectoryId, PartitionId, TopicId};

use crate::apply::{Decided, current};
use crate::broker::{Broker, BrokerState, Turn};
use crate::command::{
    AlterPartition, AlterPartitions, AssignDirectories, ElectLeader, ElectPreferred, RecoverPartitions,
    Recovery, ReportDamage,
};
use crate::event::Event;
use crate::image::Image;
use crate::isr::{self, Rules};
use crate::mutant::Mutant;
use crate::reply::Reply;
use crate::rotten;
use crate::settings::UncleanRecovery;
use crate::topic::{Partition, Replica};
use crate::{CLUSTER_LEVEL, Error};

/// Records as they become while one command is decided: a partition may be named twice.
struct Pending<'a> {
    image: &'a Image,
    changed: BTreeMap<PartitionId, Partition>,
    /// Looked up once a topic, not once a partition.
    recovery: BTreeMap<TopicId, UncleanRecovery>,
}

impl<'a> Pending<'a> {
    fn new(image: &'a Image) -> Self {
        Self { image, changed: BTreeMap::new(), recovery: BTreeMap::new() }
    }

    fn get(&self, id: PartitionId) -> Result<&Partition, Error> {
        let recorded = || self.image.partition(id).map(AsRef::as_ref);
        self.changed.get(&id).or_else(recorded).ok_or(Error::PartitionNotFound(id))
    }

    /// Changes a record, and elects where that leaves no leader.
    fn change(&mut self, id: PartitionId, change: impl FnOnce(&mut Partition)) -> Result<(), Error> {
        let rules = Rules { recovery: self.recovery(id.topic), level: self.image.feature_level };
        if let Some(new) = isr::transition(self.get(id)?, &self.image.brokers, rules, change) {
            self.changed.insert(id, new);
        }
        Ok(())
    }

    /// Counts the record on where a change has left it as it was: the leader asks for the set that there is in order that
    /// whatever it asked for before can have no effect any more.
    fn settle(&mut self, id: PartitionId, seen: i32) -> Result<(), Error> {
        let record = self.get(id)?;
        if record.partition_epoch == seen && self.image.feature_level >= CLUSTER_LEVEL {
            let next = Partition { partition_epoch: seen.saturating_add(1), ..record.clone() };
            self.changed.insert(id, next);
        }
        Ok(())
    }

    /// What a topic says about replicas that are not known to be complete.
    fn recovery(&mut self, topic: TopicId) -> UncleanRecovery {
        let image = self.image;
        *self.recovery.entry(topic).or_insert_with(|| {
            let topic = image.topic(topic);
            topic.map_or(UncleanRecovery::Manual, |topic| image.topic_settings(topic).unclean_recovery)
        })
    }

    fn decided(self, reply: Reply) -> Decided {
        if self.changed.is_empty() {
            return Decided::nothing(reply);
        }
        Decided::new(vec![Event::PartitionsChanged { partitions: self.changed.into_iter().collect() }], reply)
    }
}

/// A replica is created only where the record says unassigned, and from then on it is where it is.
pub(super) fn assign_directories(image: &Image, command: &AssignDirectories) -> Result<Decided, Error> {
    let broker = current(image, command.by)?;
    let mut pending = Pending::new(image);
    let mut refused = Vec::new();
    for (id, directory) in &command.assignments {
        if let Err(error) = assign(&mut pending, broker, *id, *directory) {
            refused.push((*id, error));
        }
    }
    Ok(pending.decided(Reply::Partitions { refused }))
}

fn assign(
    pending: &mut Pending<'_>,
    broker: &Broker,
    id: PartitionId,
    directory: DirectoryId,
) -> Result<(), Error> {
    let mismatch = |current: String| Error::DirectoryMismatch {
        partition: id,
        broker: broker.id,
        current,
        given: directory.to_string(),
    };
    let replica = pending.get(id)?.replica(broker.id);
    let replica = replica.ok_or(Error::NotAReplica { partition: id, broker: broker.id })?;
    if !broker.has_directory(directory) {
        return Err(mismatch("one that this registration named".to_owned()));
    }
    if let Some(current) = replica.directory().filter(|current| *current != directory) {
        return Err(mismatch(current.to_string()));
    }
    pending.change(id, |partition| {
        for replica in partition.replicas.iter_mut().filter(|replica| replica.broker == broker.id) {
            *replica = Replica::new(broker.id, Some(directory));
        }
        isr::assigned(partition, broker.id);
    })
}

/// Each change is a compare-and-set on leader epoch and partition epoch (correctness rule 5).
pub(super) fn alter(image: &Image, command: &AlterPartitions) -> Result<Decided, Error> {
    let leader = current(image, command.by)?;
    let mut pending = Pending::new(image);
    let mut refused = Vec::new();
    for change in &command.changes {
        if let Err(error) = alter_one(&mut pending, leader, change) {
            refused.push((change.partition, error));
        }
    }
    Ok(pending.decided(Reply::Partitions { refused }))
}

fn alter_one(pending: &mut Pending<'_>, leader: &Broker, change: &AlterPartition) -> Result<(), Error> {
    let (image, id) = (pending.image, change.partition);
    let old = pending.get(id)?;
    let seen = (change.leader_epoch, change.partition_epoch);
    let is_newest = if Mutant::NoEpochs.is_planted() {
        true
    } else if Mutant::NoPartitionEpoch.is_planted() {
        change.leader_epoch == old.leader_epoch
    } else {
        seen == (old.leader_epoch, old.partition_epoch)
    };
    if old.leader != Some(leader.id) || !is_newest {
        return Err(Error::PartitionEpochStale {
            partition: id,
            leader_epoch: old.leader_epoch,
            partition_epoch: old.partition_epoch,
        });
    }
    let mut isr = Vec::with_capacity(change.isr.len());
    for member in &change.isr {
        let broker = match Mutant::NoBrokerEpoch.is_planted() {
            true => image.broker(member.broker).ok_or(Error::BrokerNotFound(member.broker))?,
            false => current(image, *member)?,
        };
        let refuse = |why| Err(Error::IneligibleMember { partition: id, broker: member.broker, why });
        if isr.contains(&member.broker) {
            return refuse("it is named twice");
        }
        if !old.isr.contains(&member.broker) {
            // Only who joins is judged: members that are fenced leave by themselves.
            match broker.state {
                BrokerState::Active => {}
                BrokerState::Slow if isr::admits_slow(old, &image.brokers) => {}
                BrokerState::Slow => return refuse("its disk is slow, and enough are in sync"),
                _ if Mutant::FencedAdmitted.is_planted() => {}
                _ => return refuse("it is not active"),
            }
            match old.replica(member.broker).map(Replica::directory) {
                None => return refuse("it holds no replica"),
                Some(None) => return refuse("its directory is not known yet"),
                Some(Some(directory)) if !broker.has_directory(directory) => {
                    return refuse("its directory is offline");
                }
                Some(Some(_)) => {}
            }
        }
        isr.push(member.broker);
    }
    if let [further] = isr[..]
        && old.unheard().contains(&further)
    {
        return pending.change(id, |partition| isr::lead_instead(partition, further));
    }
    if !isr.contains(&leader.id) {
        return Err(Error::IneligibleMember {
            partition: id,
            broker: leader.id,
            why: "the leader itself must stay",
        });
    }
    // One order for one set: that of the replicas.
    let isr =
        old.replicas.iter().map(|replica| replica.broker).filter(|broker| isr.contains(broker)).collect();
    pending.change(id, |partition| isr::set_isr(partition, isr))?;
    pending.settle(id, change.partition_epoch)
}

/// Whose log was found damaged gives up what others can take. One that is needed stays as it is, which is no error: it says
/// so again.
pub(super) fn report_damage(image: &Image, command: &ReportDamage) -> Result<Decided, Error> {
    let by = current(image, command.by)?;
    let mut pending = Pending::new(image);
    let mut refused = Vec::new();
    for id in &command.partitions {
        let changed = pending.change(*id, |partition| rotten::give_up(partition, &image.brokers, by.id));
        refused.extend(changed.err().map(|error| (*id, error)));
    }
    for stuck in &command.stuck {
        let changed = pending
            .change(stuck.partition, |partition| rotten::begin_anew(partition, by.id, stuck.leader_epoch));
        refused.extend(changed.err().map(|error| (stuck.partition, error)));
    }
    for id in &command.unusable {
        let changed = pending.change(*id, |partition| rotten::hand_over(partition, &image.brokers, by.id));
        refused.extend(changed.err().map(|error| (*id, error)));
    }
    Ok(pending.decided(Reply::Partitions { refused }))
}

/// A person chooses. Clean: one of the ISR or ELR. Unclean: any replica; what it lacks is lost.
pub(super) fn elect_leader(image: &Image, command: &ElectLeader) -> Result<Decided, Error> {
    let id = command.partition;
    let old = image.partition(id).ok_or(Error::PartitionNotFound(id))?;
    if old.partition_epoch != command.partition_epoch {
        return Err(Error::PartitionEpochStale {
            partition: id,
            leader_epoch: old.leader_epoch,
            partition_epoch: old.partition_epoch,
        });
    }
    let refuse = |why| Err(Error::IneligibleLeader { partition: id, broker: command.broker, why });
    let complete =
        old.isr.contains(&command.broker) || old.leader.is_none() && old.elr.contains(&command.broker);
    if !isr::can_lead(old, &image.brokers, command.broker, Turn::Last) {
        return refuse("it is not active, or its directory is not online");
    }
    if isr::gives_way(old, &image.brokers, command.broker) {
        return refuse("its disk is slow, and somebody else is in sync");
    }
    if !complete && !command.unclean {
        return refuse(
            "it is not known to hold every acknowledged record (an unclean election would lose some)",
        );
    }
    if !complete && old.leader.is_some() {
        return refuse("the partition has a leader that is complete");
    }
    let mut pending = Pending::new(image);
    pending.change(id, |partition| {
        if !complete {
            return isr::lead_uncleanly(partition, command.broker);
        }
        partition.leader = Some(command.broker);
        if !partition.isr.contains(&command.broker) {
            isr::set_isr(partition, vec![command.broker]);
        }
    })?;
    Ok(pending.decided(Reply::Done))
}

/// Whose preferred replica is in sync and serves gets its leader back; the others stay as they are, which is no error:
/// by the time this is applied the world may have moved on.
pub(super) fn elect_preferred(image: &Image, command: &ElectPreferred) -> Decided {
    let mut pending = Pending::new(image);
    let mut refused = Vec::new();
    for id in &command.partitions {
        let changed = pending.get(*id).map(|old| old.preferred(&image.brokers)).and_then(|preferred| {
            preferred
                .map_or(Ok(()), |broker| pending.change(*id, |partition| partition.leader = Some(broker)))
        });
        refused.extend(changed.err().map(|error| (*id, error)));
    }
    pending.decided(Reply::Partitions { refused })
}

/// Lets the longest log lead where the topic allows that. The facts are those of replicas that answered; whether the
/// topic allows it, and whether they still may lead, is decided here.
pub(super) fn recover(image: &Image, command: &RecoverPartitions) -> Decided {
    let mut pending = Pending::new(image);
    let mut refused = Vec::new();
    for recovery in &command.partitions {
        if let Err(error) = recover_one(&mut pending, recovery) {
            refused.push((recovery.partition, error));
        }
    }
    pending.decided(Reply::Partitions { refused })
}

fn recover_one(pending: &mut Pending<'_>, recovery: &Recovery) -> Result<(), Error> {
    let (image, id) = (pending.image, recovery.partition);
    let old = pending.get(id)?;
    if old.partition_epoch != recovery.partition_epoch || !old.waits_for_a_person() {
        return Err(Error::PartitionEpochStale {
            partition: id,
            leader_epoch: old.leader_epoch,
            partition_epoch: old.partition_epoch,
        });
    }
    // In the order of the replicas, so that the first of several equally long ones is the one that is preferred.
    let longest = old.replicas.iter().filter_map(|replica| {
        let end = recovery.ends.iter().find(|end| end.by.broker == replica.broker)?;
        let current = image.broker(replica.broker).is_some_and(|broker| broker.epoch == end.by.epoch);
        let able = current && isr::can_lead(old, &image.brokers, replica.broker, Turn::Slow);
        able.then_some((end.last_epoch, end.log_end, replica.broker))
    });
    let longest = longest.reduce(|best, next| if (next.0, next.1) > (best.0, best.1) { next } else { best });
    let refuse = |broker, why| Err(Error::IneligibleLeader { partition: id, broker, why });
    let Some((_, _, leader)) = longest else {
        return refuse(BrokerId(0), "no replica that answered is active, with its directory online");
    };
    if pending.recovery(id.topic) != UncleanRecovery::Longest {
        return refuse(leader, "its topic waits for a person (unclean_recovery = manual)");
    }
    pending.change(id, |partition| isr::lead_uncleanly(partition, leader))
}
