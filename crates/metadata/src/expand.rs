//! What an event does to an image. Controllers that decide and watchers that follow run this same code, which is
//! why an image plus its deltas is the image.

use std::sync::Arc;

use weir_types::{BrokerId, DirectoryId, Durability, PartitionId};

use crate::broker::{Broker, BrokerState, DirectoryFacts, FailedDirectory};
use crate::event::{Delta, Event};
use crate::image::Image;
use crate::isr::{self, Rules};
use crate::mutant::Mutant;
use crate::settings::{Layers, TopicSettings};
use crate::topic::{Partition, Replica, Topic, TopicSummary};

/// A delta that does not continue an image: something between was missed, start over from a snapshot.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the image is at version {image}, the delta continues {delta}")]
pub struct Gap {
    /// The image's version.
    pub image: i64,
    /// The version the delta continues.
    pub delta: i64,
}

impl Image {
    /// Follows one delta. An image that already has it (its version is not below the delta's) stays as it is.
    ///
    /// # Errors
    /// [`Gap`] if the delta does not continue the image, which is left as it was.
    pub fn follow(&mut self, delta: &Delta) -> Result<(), Gap> {
        if delta.version <= self.version {
            return Ok(());
        }
        if delta.previous != self.version {
            return Err(Gap { image: self.version, delta: delta.previous });
        }
        for event in &delta.events {
            self.expand(event);
        }
        self.advance(delta);
        Ok(())
    }

    /// Everything of a delta is carried out.
    pub(crate) fn advance(&mut self, delta: &Delta) {
        // Whatever is between the two versions changed nothing in this history.
        self.authors.note(delta.previous.saturating_add(1), delta.author);
        self.version = delta.version;
    }

    /// Carries out one event, with everything that follows from it.
    pub(crate) fn expand(&mut self, event: &Event) {
        match event {
            Event::ClusterCreated { cluster_id, feature_level, settings } => {
                self.cluster_id = Some(*cluster_id);
                self.feature_level = *feature_level;
                self.settings = Arc::new(settings.clone());
            }
            Event::BrokerRegistered { broker, facts, damaged } => self.register(broker, facts, damaged),
            Event::BrokerUnfenced { broker } => {
                self.set_state(*broker, BrokerState::Active);
                self.change_partitions_of(*broker, |_, _, _| ());
            }
            Event::BrokerFenced { broker } => {
                // Below the level that has an event for it, it is not on record: an earlier version applies alike.
                self.fence(*broker, false);
            }
            Event::BrokerStopped { broker } => self.fence(*broker, true),
            Event::BrokerDraining { broker } => {
                self.set_state(*broker, BrokerState::Draining);
                self.change_partitions_of(*broker, |_, _, partition| isr::drain(partition, *broker));
            }
            Event::BrokerSlow { broker, slow } => {
                self.set_state(*broker, if *slow { BrokerState::Slow } else { BrokerState::Active });
                self.change_partitions_of(*broker, |_, _, _| ());
            }
            Event::TopicCreated { topic, partitions } => self.create_topic(topic, partitions),
            Event::TopicConfigured { topic_id, config, revision } => {
                let Some(topic) = self.topic_mut(*topic_id) else { return };
                topic.config.clone_from(config);
                topic.revision = *revision;
                let topic = topic.clone();
                let min_insync = self.topic_settings(&topic).min_insync_replicas;
                self.change_partitions(&topic, |_, partition| {
                    if partition.min_insync != min_insync {
                        isr::set_min_insync(partition, min_insync);
                    }
                });
            }
            Event::PartitionsAdded { topic_id, partitions, revision } => {
                let Some(topic) = self.topic_mut(*topic_id) else { return };
                topic.revision = *revision;
                let first = topic.partition_count();
                for (number, partition) in (first..).zip(partitions) {
                    self.put_partition(
                        PartitionId { topic: *topic_id, partition: number },
                        partition.clone(),
                    );
                }
            }
            Event::TopicDeleted { topic_id } => self.remove_topic(*topic_id),
            Event::PartitionsChanged { partitions } => {
                for (id, partition) in partitions {
                    self.put_partition(*id, partition.clone());
                }
            }
            Event::ClusterConfigured { settings } => self.settings = Arc::new(settings.clone()),
            Event::ProducerIdsAllocated { next } => self.next_producer_id = *next,
            Event::ControllerJoined { controller } => {
                Arc::make_mut(&mut self.controllers).insert(controller.id, controller.clone());
            }
            Event::LevelFinalized { level } => self.feature_level = *level,
            Event::BrokerRemoved { broker } => {
                self.set_state(*broker, BrokerState::Removed);
                self.change_partitions_of(*broker, |_, _, partition| {
                    partition.elr.retain(|member| member != broker);
                });
            }
            Event::DirectoryFailed { broker, directory, failures } => {
                self.fail(*broker, *directory, failures);
            }
            Event::BrokerTrusted { broker, failures } => {
                if let Some(broker) = Arc::make_mut(&mut self.brokers).get_mut(broker) {
                    let meant = broker.failed.iter_mut().filter(|failed| failures.contains(&failed.failure));
                    meant.for_each(|failed| failed.trusted = true);
                }
            }
            Event::ControllerRemoved { id } => {
                Arc::make_mut(&mut self.controllers).remove(id);
            }
        }
    }

    fn create_topic(&mut self, summary: &TopicSummary, partitions: &[Partition]) {
        self.put_topic(Topic {
            id: summary.id,
            name: summary.name.clone(),
            replication_factor: summary.replication_factor,
            config: summary.config.clone(),
            copied: summary.copied.clone(),
            revision: summary.revision,
            created_ms: summary.created_ms,
            partitions: (0..).zip(partitions).map(|(number, p)| (number, Arc::new(p.clone()))).collect(),
        });
    }

    /// `stopped`: it has stopped in order.
    fn fence(&mut self, broker: BrokerId, stopped: bool) {
        self.set_state(broker, BrokerState::Fenced);
        if let Some(known) = Arc::make_mut(&mut self.brokers).get_mut(&broker) {
            known.stopped = stopped;
        }
        self.change_partitions_of(broker, |_, _, partition| isr::leave(partition, broker));
    }

    fn set_state(&mut self, id: BrokerId, state: BrokerState) {
        if let Some(broker) = Arc::make_mut(&mut self.brokers).get_mut(&id) {
            broker.state = state;
            if state == BrokerState::Active {
                broker.persisted_epoch = broker.epoch;
                broker.stopped = false;
            }
        }
    }

    /// A directory has failed. Its broker's process ends: it is fenced like one that was silent, and stays eligible where
    /// it was complete, for to give up the last such replica would make a loss of what may be a loose cable. It can be
    /// elected only once it is registered again, which takes a person, and then it is judged what it can prove.
    fn fail(&mut self, id: BrokerId, directory: DirectoryId, failures: &[u64]) {
        let Some(broker) = Arc::make_mut(&mut self.brokers).get_mut(&id) else { return };
        let epoch = broker.epoch;
        let failed =
            |failure: &u64| FailedDirectory { id: directory, failure: *failure, epoch, trusted: false };
        broker.failed.extend(failures.iter().map(failed));
        broker.failed.sort_by_key(|failed| (failed.id, failed.failure));
        if broker.state.is_there() {
            broker.state = BrokerState::Fenced;
        }
        self.change_partitions_of(id, |_, _, partition| isr::leave(partition, id));
    }

    /// A new registration ends the old epoch (correctness rule 8).
    fn register(&mut self, new: &Broker, facts: &[DirectoryFacts], damaged: &[PartitionId]) {
        let old = self.brokers.get(&new.id).cloned();
        Arc::make_mut(&mut self.brokers).insert(new.id, new.clone());
        self.next_broker_id = self.next_broker_id.max(new.id.0.saturating_add(1));
        let Some(old) = old else { return };
        let proof = Proof { old: &old, facts };
        self.change_partitions_of(new.id, |id, durability, partition| {
            let directory = partition.replica(new.id).and_then(Replica::directory);
            // Who is eligible without a directory is so because nothing was acknowledged yet.
            let complete = partition.is_fresh()
                || !damaged.contains(&id)
                    && directory.is_none_or(|directory| proof.holds(directory, durability));
            let leads_on = complete && partition.leader == Some(new.id) && Mutant::LeadsOn.is_planted();
            if !leads_on && !Mutant::UncleanKeptInIsr.is_planted() {
                isr::leave(partition, new.id);
            }
            if !complete && !Mutant::UncleanKeptInElr.is_planted() {
                partition.elr.retain(|member| *member != new.id);
            }
        });
    }

    /// Changes every partition that has a replica on a broker, and elects where there is no leader.
    ///
    /// This visits every partition of the cluster: some tens of milliseconds at a million, once per broker that
    /// comes or goes, against an index that every change would have to keep.
    fn change_partitions_of(
        &mut self,
        broker: BrokerId,
        change: impl Fn(PartitionId, Durability, &mut Partition),
    ) {
        let brokers = self.brokers.clone();
        let mut changed = Vec::new();
        for topic in self.topics.values() {
            let mut settings = None;
            for (number, partition) in topic.partitions.iter() {
                if partition.replica(broker).is_none() {
                    continue;
                }
                let settings: &TopicSettings = settings.get_or_insert_with(|| self.topic_settings(topic));
                let id = PartitionId { topic: topic.id, partition: *number };
                let rules = Rules { recovery: settings.unclean_recovery, level: self.feature_level };
                let new = isr::transition(partition, &brokers, rules, |partition| {
                    change(id, settings.durability, partition);
                });
                changed.extend(new.map(|new| (id, new)));
            }
        }
        for (id, partition) in changed {
            self.put_partition(id, partition);
        }
    }

    fn change_partitions(&mut self, topic: &Topic, change: impl Fn(i32, &mut Partition)) {
        let brokers = self.brokers.clone();
        let layers = Layers { topic: &topic.config, copied: &topic.copied, cluster: &self.settings.clone() };
        let recovery = TopicSettings::resolve(layers).unclean_recovery;
        let rules = Rules { recovery, level: self.feature_level };
        for (number, partition) in topic.partitions.iter() {
            let new = isr::transition(partition, &brokers, rules, |partition| change(*number, partition));
            if let Some(new) = new {
                self.put_partition(PartitionId { topic: topic.id, partition: *number }, new);
            }
        }
    }
}

/// Whether what a broker found in its directories proves that a replica still holds all it held when the old
/// epoch ended.
struct Proof<'a> {
    old: &'a Broker,
    facts: &'a [DirectoryFacts],
}

impl Proof<'_> {
    fn holds(&self, directory: DirectoryId, durability: Durability) -> bool {
        let is_it = |found: &&DirectoryFacts| found.id == directory || Mutant::AnyDirectory.is_planted();
        let Some(found) = self.facts.iter().find(is_it) else { return false };
        // In an epoch that ended so neither the system's memory says anything nor a marker: nothing was stopped in order.
        let ended_so = |failed: &FailedDirectory| failed.id == directory && failed.epoch == self.old.epoch;
        let has_failed = self.old.failed.iter().any(ended_so);
        if self.stopped_clean() && !has_failed {
            return true;
        }
        // Older than what the broker had said to be on its disks: the directory is a copy from before.
        let current = found.persisted_epoch.is_some_and(|epoch| epoch >= self.old.persisted_epoch)
            || Mutant::NoEpochFile.is_planted();
        match durability {
            Durability::Fsync => current,
            Durability::Replicated => {
                current && (found.same_boot && !has_failed || Mutant::AnyBoot.is_planted())
            }
        }
    }

    /// A marker in every directory the broker had, written when it last stopped serving or since. Not only in the epoch
    /// that ends now: a registration whose answer was lost is sent again, with the same marker, and nothing was
    /// written in between.
    fn stopped_clean(&self) -> bool {
        let since_it_served = self.old.persisted_epoch..=self.old.epoch;
        let clean = |id: &DirectoryId| {
            let marker = self.facts.iter().find(|found| found.id == *id).and_then(|found| found.clean_epoch);
            marker.is_some_and(|epoch| since_it_served.contains(&epoch) || Mutant::StaleMarker.is_planted())
        };
        self.old.directories.iter().all(clean)
    }
}
