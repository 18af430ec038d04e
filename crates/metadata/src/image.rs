//! The image: all cluster metadata at one version.
//!
//! A clone is cheap and shares what did not change, so readers keep one for as long as they like. Maps are
//! sorted: nothing that is decided here depends on the order of a hash.

use std::collections::BTreeMap;
use std::sync::Arc;

use weir_types::{BrokerId, ClusterId, DirectoryId, PartitionId, TopicId, nearest};

use crate::authors::Authors;
use crate::broker::{Broker, FailedDirectory};
use crate::event::Controller;
use crate::settings::{Layers, Settings, TopicSettings};
use crate::shared_map::SharedMap;
use crate::topic::{Partition, Topic};
use crate::{Error, isr};

/// How many replicas and leaderships a broker has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Replicas it holds.
    pub replicas: i64,
    /// Partitions it leads.
    pub leaders: i64,
}

/// How many partitions are not as they should be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// Nobody leads them.
    pub leaderless: i64,
    /// Nobody leads them, and nobody will until a person decides: no replica is known to be complete.
    pub waiting: i64,
    /// Some of their replicas are not in sync.
    pub under_replicated: i64,
    /// Fewer are in sync than a write needs.
    pub below_min_insync: i64,
    /// Led by another replica than the preferred one.
    pub not_preferred: i64,
}

/// All cluster metadata at one version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    pub(crate) version: i64,
    pub(crate) authors: Authors,
    pub(crate) cluster_id: Option<ClusterId>,
    pub(crate) feature_level: i32,
    pub(crate) settings: Arc<Settings>,
    pub(crate) brokers: Arc<BTreeMap<BrokerId, Broker>>,
    pub(crate) next_broker_id: i32,
    pub(crate) next_producer_id: i64,
    pub(crate) controllers: Arc<BTreeMap<i64, Controller>>,
    pub(crate) topics: SharedMap<TopicId, Arc<Topic>>,
    /// Derived: ids by name.
    pub(crate) names: SharedMap<Arc<str>, TopicId>,
    /// Derived: how many partitions there are.
    pub(crate) partition_count: i64,
    /// Derived: what each broker carries.
    pub(crate) loads: Arc<BTreeMap<BrokerId, Load>>,
    /// Derived: how the partitions are.
    pub(crate) health: Health,
}

impl Default for Image {
    fn default() -> Self {
        Self {
            version: 0,
            authors: Authors::default(),
            cluster_id: None,
            feature_level: 0,
            settings: Arc::default(),
            brokers: Arc::default(),
            next_broker_id: 1,
            next_producer_id: crate::PRODUCER_ID_FIRST,
            controllers: Arc::default(),
            topics: SharedMap::new(),
            names: SharedMap::new(),
            partition_count: 0,
            loads: Arc::default(),
            health: Health::default(),
        }
    }
}

impl Image {
    /// The raft index of the entry that changed it last. Never goes back.
    pub fn version(&self) -> i64 {
        self.version
    }

    /// Who wrote this version; 0: that is not known.
    pub fn author(&self) -> u64 {
        self.authors.of(self.version).unwrap_or(0)
    }

    /// Whether this is a later version of what somebody has seen who has seen `version` by `author`: it came to be by the
    /// same history, as far as that is known. Of what is not known, or is later than this, nothing is said.
    pub fn continues(&self, version: i64, author: u64) -> bool {
        let known = self.authors.of(version).filter(|_| version <= self.version && author != 0);
        known.is_none_or(|known| known == author)
    }

    /// The cluster's id; `None` until it is initialised.
    pub fn cluster_id(&self) -> Option<ClusterId> {
        self.cluster_id
    }

    /// The feature level: nothing newer is written to disks and wires (correctness rule D4).
    pub fn feature_level(&self) -> i32 {
        self.feature_level
    }

    /// The cluster's settings, canonical values by name.
    pub fn cluster_settings(&self) -> &Settings {
        &self.settings
    }

    /// A broker.
    pub fn broker(&self, id: BrokerId) -> Option<&Broker> {
        self.brokers.get(&id)
    }

    /// All brokers by id.
    pub fn brokers(&self) -> impl Iterator<Item = &Broker> {
        self.brokers.values()
    }

    /// What a broker carries.
    pub fn load(&self, id: BrokerId) -> Load {
        self.loads.get(&id).copied().unwrap_or_default()
    }

    /// How many partitions are not as they should be. Kept as records change: it costs nothing to ask.
    pub fn health(&self) -> Health {
        self.health
    }

    /// The controllers by id.
    pub fn controllers(&self) -> impl Iterator<Item = &Controller> {
        self.controllers.values()
    }

    /// The id the next new broker gets.
    pub fn next_broker_id(&self) -> i32 {
        self.next_broker_id
    }

    /// The first id of the next block of producer ids.
    pub fn next_producer_id(&self) -> i64 {
        self.next_producer_id
    }

    /// How many partitions there are.
    pub fn partition_count(&self) -> i64 {
        self.partition_count
    }

    /// A topic by its id.
    pub fn topic(&self, id: TopicId) -> Option<&Topic> {
        self.topics.get(&id).map(Arc::as_ref)
    }

    /// A topic by its name.
    pub fn topic_named(&self, name: &str) -> Option<&Topic> {
        self.topic(*self.names.get(name)?)
    }

    /// A topic by its name, or the error that offers the name that was probably meant.
    ///
    /// # Errors
    /// [`Error::TopicNotFound`].
    pub fn find_topic(&self, name: &str) -> Result<&Topic, Error> {
        self.topic_named(name).ok_or_else(|| {
            let candidates = self.names.iter().map(|(name, _)| name.as_ref());
            Error::TopicNotFound {
                name: name.chars().take(64).collect(),
                nearest: nearest(name, candidates).map(str::to_owned),
            }
        })
    }

    /// All topics by id.
    pub fn topics(&self) -> impl Iterator<Item = &Topic> {
        self.topics.values().map(Arc::as_ref)
    }

    /// The topics whose names are greater than `name`, by name: the next page of a listing. "" begins it.
    pub fn topics_after(&self, name: &str) -> impl Iterator<Item = &Topic> {
        self.names.after(name).filter_map(|(_, id)| self.topic(*id))
    }

    /// A partition's record.
    pub fn partition(&self, id: PartitionId) -> Option<&Arc<Partition>> {
        self.topics.get(&id.topic)?.partitions.get(&id.partition)
    }

    /// Whether a partition takes a replica into its in-sync set whose broker's disk is slow (correctness rule 41).
    pub fn admits_slow(&self, id: PartitionId) -> bool {
        self.partition(id).is_some_and(|partition| isr::admits_slow(partition, &self.brokers))
    }

    /// The topics that differ between an older image and this one, by id: made, deleted, or anything in them.
    pub fn topics_changed_since(&self, older: &Image) -> Vec<TopicId> {
        self.topics.differences(&older.topics)
    }

    /// The partitions that differ between an older image and this one: made, deleted, or their record. Costs what
    /// changed, not what there is.
    pub fn partitions_changed_since(&self, older: &Image) -> Vec<PartitionId> {
        let none = SharedMap::new();
        let mut changed = Vec::new();
        for topic in self.topics_changed_since(older) {
            let of = |image: &'_ Image| image.topics.get(&topic).map(|topic| topic.partitions.clone());
            let (new, old) = (of(self), of(older));
            let numbers = new.as_ref().unwrap_or(&none).differences(old.as_ref().unwrap_or(&none));
            changed.extend(numbers.into_iter().map(|partition| PartitionId { topic, partition }));
        }
        changed
    }

    /// Partitions whose preferred replica could lead and does not, at most so many. Looks at all of them, unless there
    /// are none.
    pub fn preferring(&self, most: usize) -> Vec<PartitionId> {
        if self.health.not_preferred == 0 {
            return Vec::new();
        }
        let of = |topic: &'_ Topic| {
            let wanting =
                topic.partitions.iter().filter(|(_, record)| record.preferred(&self.brokers).is_some());
            wanting.map(|(number, _)| PartitionId { topic: topic.id, partition: *number }).collect::<Vec<_>>()
        };
        self.topics().flat_map(of).take(most).collect()
    }

    /// Who would lead a partition if it were given back to its preferred replica; `None`: nothing would change.
    pub fn preferred_leader(&self, id: PartitionId) -> Option<BrokerId> {
        self.partition(id)?.preferred(&self.brokers)
    }

    /// Partitions of which no replica is known to hold every acknowledged record, at most so many. Looks at all of them,
    /// unless there are none.
    pub fn waiting(&self, most: usize) -> Vec<PartitionId> {
        if self.health.waiting == 0 {
            return Vec::new();
        }
        let of = |topic: &'_ Topic| {
            let waiting = topic.partitions.iter().filter(|(_, record)| record.waits_for_a_person());
            waiting.map(|(number, _)| PartitionId { topic: topic.id, partition: *number }).collect::<Vec<_>>()
        };
        self.topics().flat_map(of).take(most).collect()
    }

    /// Where a topic's settings are looked up.
    pub fn layers<'a>(&'a self, topic: &'a Topic) -> Layers<'a> {
        Layers { topic: &topic.config, copied: &topic.copied, cluster: &self.settings }
    }

    /// The settings in force for a topic.
    pub fn topic_settings(&self, topic: &Topic) -> TopicSettings {
        TopicSettings::resolve(self.layers(topic))
    }

    /// Who has a log directory.
    pub fn directory_owner(&self, id: DirectoryId) -> Option<&Broker> {
        self.brokers.values().find(|broker| broker.has_directory(id))
    }

    /// What is on record of the failures of a directory, and at whom.
    pub(crate) fn failures_of(&self, id: DirectoryId) -> impl Iterator<Item = (&Broker, &FailedDirectory)> {
        let all = self.brokers.values().flat_map(|of| of.failed.iter().map(move |failed| (of, failed)));
        all.filter(move |(_, failed)| failed.id == id)
    }

    /// Puts a topic in, with its partitions: the one way in, which keeps what is derived right.
    pub(crate) fn put_topic(&mut self, topic: Topic) {
        self.remove_topic(topic.id);
        self.names.insert(topic.name.clone(), topic.id);
        self.partition_count += i64::from(topic.partition_count());
        for partition in topic.partitions.values() {
            self.count(partition, 1);
        }
        self.topics.insert(topic.id, Arc::new(topic));
    }

    /// Takes a topic out.
    pub(crate) fn remove_topic(&mut self, id: TopicId) {
        let Some(topic) = self.topics.remove(&id) else { return };
        self.names.remove(topic.name.as_ref());
        self.partition_count -= i64::from(topic.partition_count());
        for partition in topic.partitions.values() {
            self.count(partition, -1);
        }
    }

    /// A topic to be changed; not its partitions.
    pub(crate) fn topic_mut(&mut self, id: TopicId) -> Option<&mut Topic> {
        self.topics.get_mut(&id).map(Arc::make_mut)
    }

    /// Sets a partition's record: the one way in for records of topics that exist.
    pub(crate) fn put_partition(&mut self, id: PartitionId, partition: Partition) {
        let new = Arc::new(partition);
        let Some(topic) = self.topic_mut(id.topic) else { return };
        let old = topic.partitions.insert(id.partition, new.clone());
        match old {
            Some(old) => self.count(&old, -1),
            None => self.partition_count += 1,
        }
        self.count(&new, 1);
    }

    fn count(&mut self, partition: &Partition, by: i64) {
        let loads = Arc::make_mut(&mut self.loads);
        let mut add = |broker: BrokerId, replicas: i64, leaders: i64| {
            let load = loads.entry(broker).or_default();
            load.replicas += replicas;
            load.leaders += leaders;
            if *load == Load::default() {
                loads.remove(&broker);
            }
        };
        for replica in &partition.replicas {
            add(replica.broker, by, 0);
        }
        if let Some(leader) = partition.leader {
            add(leader, 0, by);
        }
        let preferred = partition.replicas.first().map(|replica| replica.broker);
        let note = |count: &mut i64, holds: bool| *count += if holds { by } else { 0 };
        note(&mut self.health.leaderless, partition.leader.is_none());
        note(&mut self.health.waiting, partition.waits_for_a_person());
        note(&mut self.health.under_replicated, partition.isr.len() < partition.replicas.len());
        note(&mut self.health.below_min_insync, partition.lacks_members());
        note(&mut self.health.not_preferred, partition.leader.is_some() && partition.leader != preferred);
    }
}
