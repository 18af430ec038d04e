//! One version of the map, and how an answer changes it.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use weir_proto::v1;

use weir_types::{Endpoint, near};

/// Brokers and topics. Topics that nobody of this client uses are not in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Map {
    /// The newest version that was heard of; the brokers are of it.
    pub(crate) version: i64,
    pub(crate) brokers: BTreeMap<i32, Broker>,
    pub(crate) topics: BTreeMap<String, Arc<Topic>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Broker {
    pub(crate) id: i32,
    pub(crate) address: Endpoint,
    /// Where it stands; empty: unknown.
    pub(crate) rack: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Topic {
    pub(crate) name: Arc<str>,
    pub(crate) id: String,
    /// The version in which this was seen.
    pub(crate) version: i64,
    pub(crate) partitions: Vec<Leader>,
    /// By partition: the brokers whose replicas are in sync.
    pub(crate) in_sync: Vec<Vec<i32>>,
}

/// Who leads a partition; `broker` is -1 while nobody does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Leader {
    pub(crate) broker: i32,
    pub(crate) epoch: i32,
}

impl Map {
    /// The broker that leads a partition, and its epoch; `None` if nobody is known to.
    pub(crate) fn leader(&self, topic: &str, partition: i32) -> Option<(&Broker, i32)> {
        let leader = self.topics.get(topic)?.leader(partition)?;
        Some((self.brokers.get(&leader.broker)?, leader.epoch))
    }

    /// A broker in this rack that can be read instead of the leader: where that does not stand there itself. `None`: the
    /// leader is to be read, or no rack is given.
    pub(crate) fn near(&self, topic: &str, partition: i32, rack: &str) -> Option<&Broker> {
        let (leader, _) = self.leader(topic, partition).filter(|_| !rack.is_empty())?;
        let in_sync = self.topics.get(topic)?.in_sync.get(usize::try_from(partition).ok()?)?;
        let stands_there = |id: &i32| self.brokers.get(id).is_some_and(|broker| broker.rack == rack);
        self.brokers.get(&near(partition, leader.id, in_sync, stands_there)?)
    }

    /// The version that everything here is of, at least: the question for what is newer.
    pub(crate) fn version_of_all(&self) -> i64 {
        self.topics.values().map(|topic| topic.version).fold(self.version, i64::min)
    }

    /// Whether another says the same of brokers and topics, of whatever version it is.
    pub(super) fn says_the_same(&self, other: &Self) -> bool {
        let pairs = || self.topics.values().zip(other.topics.values());
        self.brokers == other.brokers
            && self.topics.len() == other.topics.len()
            && pairs().all(|(one, another)| Arc::ptr_eq(one, another) || one.says_the_same(another))
    }

    /// The names of the topics, sorted.
    pub(crate) fn names(&self) -> Vec<String> {
        self.topics.keys().cloned().collect()
    }

    /// The map after an answer to a question about `asked`: names missing from the answer do not exist.
    pub(crate) fn after(&self, asked: &[String], answer: &v1::GetMetadataResponse) -> Self {
        let missing = |topic: &Topic| {
            asked.iter().any(|name| **name == *topic.name)
                && !answer.topics.iter().any(|there| there.name == *topic.name)
        };
        self.with(answer.version, &answer.brokers, &answer.topics, missing)
    }

    /// The map without topics that did not exist in this version.
    pub(crate) fn without(&self, gone: &HashSet<String>, version: i64) -> Self {
        self.with(version, &[], &[], |topic| gone.contains(&*topic.name))
    }

    /// The map after a message of a watch.
    pub(crate) fn told(&self, message: &v1::WatchMetadataResponse) -> Self {
        let deleted = |topic: &Topic| message.deleted_topic_ids.contains(&topic.id);
        let mut next = self.with(message.version, &message.brokers, &message.topics, deleted);
        for change in &message.changed_topics {
            // What is newer here already has the change.
            let known = next.topics.get(&change.name).filter(|known| known.version <= message.version);
            if let Some(known) = known.filter(|known| known.id == change.topic_id) {
                let mut topic = Topic { version: message.version, ..Topic::clone(known) };
                topic.put(change);
                next.topics.insert(change.name.clone(), Arc::new(topic));
            }
        }
        next
    }

    /// What a broker knew at `version`. It may lag behind another that was heard before: each topic, and the list of
    /// brokers, is of the newest version that it was heard of in.
    fn with(
        &self,
        version: i64,
        brokers: &[v1::Broker],
        topics: &[v1::TopicMetadata],
        gone: impl Fn(&Topic) -> bool,
    ) -> Self {
        let mut next = self.clone();
        if version >= self.version {
            next.version = version;
            if !brokers.is_empty() {
                next.brokers = brokers.iter().filter_map(broker).collect();
            }
        }
        next.topics.retain(|_, topic| topic.version > version || !gone(topic));
        for topic in topics {
            if next.topics.get(&topic.name).is_none_or(|known| known.version <= version) {
                next.topics.insert(topic.name.clone(), Arc::new(read(topic, version)));
            }
        }
        next
    }
}

impl Topic {
    /// Takes over the partitions that are described, and how many there are.
    fn put(&mut self, topic: &v1::TopicMetadata) {
        let count = usize::try_from(topic.partition_count).unwrap_or(0);
        self.partitions.resize(count, Leader { broker: -1, epoch: -1 });
        self.in_sync.resize(count, Vec::new());
        for partition in &topic.partitions {
            let Ok(at) = usize::try_from(partition.partition) else { continue };
            if let (Some(leader), Some(in_sync)) = (self.partitions.get_mut(at), self.in_sync.get_mut(at)) {
                *leader = Leader { broker: partition.leader, epoch: partition.leader_epoch };
                in_sync.clone_from(&partition.isr);
            }
        }
    }

    fn says_the_same(&self, other: &Self) -> bool {
        let Self { name, id, version: _, partitions, in_sync } = self;
        (name, id, partitions, in_sync) == (&other.name, &other.id, &other.partitions, &other.in_sync)
    }

    pub(crate) fn leader(&self, partition: i32) -> Option<Leader> {
        self.partitions.get(usize::try_from(partition).ok()?).copied()
    }

    /// How many partitions there are; at least 1.
    pub(crate) fn partition_count(&self) -> i32 {
        i32::try_from(self.partitions.len()).unwrap_or(i32::MAX)
    }
}

fn broker(broker: &v1::Broker) -> Option<(i32, Broker)> {
    match broker.endpoint.parse() {
        Ok(address) => {
            Some((broker.broker_id, Broker { id: broker.broker_id, address, rack: broker.rack.clone() }))
        }
        Err(error) => {
            tracing::warn!(broker = broker.broker_id, %error, "a broker without a usable endpoint");
            None
        }
    }
}

fn read(topic: &v1::TopicMetadata, version: i64) -> Topic {
    let (name, id) = (topic.name.as_str().into(), topic.topic_id.clone());
    let mut read = Topic { name, id, version, partitions: Vec::new(), in_sync: Vec::new() };
    read.put(topic);
    read
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(version: i64, topics: &[(&str, i32)]) -> v1::GetMetadataResponse {
        v1::GetMetadataResponse {
            version,
            brokers: vec![v1::Broker { broker_id: 1, rack: String::new(), endpoint: "h:1".into() }],
            topics: topics
                .iter()
                .map(|&(name, leader)| v1::TopicMetadata {
                    name: name.into(),
                    topic_id: "0".into(),
                    partition_count: 2,
                    partitions: vec![v1::PartitionMetadata {
                        partition: 0,
                        leader,
                        leader_epoch: 7,
                        ..Default::default()
                    }],
                })
                .collect(),
            next_page_token: String::new(),
        }
    }

    #[test]
    fn a_partition_that_was_not_described_has_no_leader() {
        let map = Map::default().after(&[], &answer(1, &[("a", 1)]));
        assert_eq!(map.leader("a", 0).map(|(broker, epoch)| (broker.id, epoch)), Some((1, 7)));
        assert_eq!(map.topics["a"].partition_count(), 2);
        assert!(map.leader("a", 1).is_none());
        assert!(map.leader("a", 2).is_none());
        assert!(map.leader("a", -1).is_none());
    }

    #[test]
    fn who_names_a_rack_reads_a_replica_there_that_is_in_sync() {
        let mut answer = answer(1, &[("a", 1)]);
        let broker =
            |id, rack: &str| v1::Broker { broker_id: id, rack: rack.into(), endpoint: format!("h:{id}") };
        answer.brokers = vec![broker(1, "x"), broker(2, "y"), broker(3, "z")];
        answer.topics[0].partitions[0].isr = vec![1, 2];
        let map = Map::default().after(&[], &answer);
        let near = |rack: &str| map.near("a", 0, rack).map(|broker| broker.id);
        assert_eq!(near("y"), Some(2));
        assert_eq!((near("x"), near("z"), near("w"), near("")), (None, None, None, None));
        assert!(map.near("a", 1, "y").is_none(), "it has no leader");
    }

    #[test]
    fn what_was_asked_for_and_is_not_answered_is_gone() {
        let map = Map::default().after(&[], &answer(1, &[("a", 1), ("b", 1)]));
        let map = map.after(&["a".into(), "c".into()], &answer(2, &[]));
        assert!(!map.topics.contains_key("a"));
        assert!(map.topics.contains_key("b"));
    }

    #[test]
    fn a_broker_that_lags_undoes_nothing() {
        let map = Map::default().after(&[], &answer(5, &[("a", 1)]));
        let map = map.after(&["a".into(), "b".into()], &answer(4, &[("a", 2), ("b", 1)]));
        assert_eq!(map.version, 5);
        assert_eq!(map.topics["a"].leader(0).map(|l| l.broker), Some(1));
        assert!(map.topics.contains_key("b"));
    }

    #[test]
    fn what_is_new_of_one_topic_makes_no_other_newer() {
        let map = Map::default().after(&[], &answer(5, &[("a", 1)]));
        let map = map.after(&["b".into()], &answer(7, &[("b", 1)]));
        assert_eq!(
            (map.version, map.version_of_all()),
            (7, 5),
            "a question for what is newer than 7 skips a"
        );
        // So what a broker knew in between is news about the one, and not about the other.
        let map = map.after(&["a".into(), "b".into()], &answer(6, &[("a", 2), ("b", 2)]));
        let leader = |topic: &str| map.topics[topic].leader(0).map(|leader| leader.broker);
        assert_eq!((leader("a"), leader("b")), (Some(2), Some(1)));
    }

    #[test]
    fn a_newer_version_of_the_same_says_the_same() {
        let map = Map::default().after(&[], &answer(1, &[("a", 1)]));
        let same = |answer: &v1::GetMetadataResponse| map.says_the_same(&map.after(&["a".into()], answer));
        assert!(same(&answer(2, &[("a", 1)])));
        assert!(!same(&answer(2, &[("a", 2)])), "another leads");
        assert!(!same(&answer(2, &[("a", 1), ("b", 1)])), "there is another topic");
        assert!(!same(&answer(2, &[])), "it is gone");
        let mut in_sync = answer(2, &[("a", 1)]);
        in_sync.topics[0].partitions[0].isr = vec![1];
        assert!(!same(&in_sync));
        let mut brokers = answer(2, &[("a", 1)]);
        brokers.brokers[0].rack = "r".into();
        assert!(!same(&brokers));
    }

    #[test]
    fn a_watch_tells_what_changed_and_what_is_gone() {
        let told = |version, topics: &[(&str, i32)], deleted: &[&str]| {
            let answer = answer(version, topics);
            v1::WatchMetadataResponse {
                version,
                topics: answer.topics,
                deleted_topic_ids: deleted.iter().map(|id| (*id).to_owned()).collect(),
                ..Default::default()
            }
        };
        let map = Map::default().after(&[], &answer(1, &[("a", 1), ("b", 1)]));
        let map = map.told(&told(2, &[("a", 2)], &[]));
        assert_eq!(map.topics["a"].leader(0).map(|leader| leader.broker), Some(2));
        assert_eq!(map.brokers.len(), 1, "none told means none changed");
        assert!(map.topics.contains_key("b"));
        let lacked = HashSet::from(["a".to_owned(), "b".to_owned()]);
        let map = map.without(&lacked, 1);
        assert!(map.topics.contains_key("a"), "it was seen later");
        assert!(!map.topics.contains_key("b"));
        assert_eq!(map.told(&told(1, &[], &["0"])).topics.len(), 1, "an old one removes nothing");
        assert!(map.told(&told(4, &[], &["0"])).topics.is_empty());
    }

    #[test]
    fn a_change_of_some_partitions_leaves_the_others() {
        let map = Map::default().after(&[], &answer(1, &[("a", 1)]));
        let change = |version, partition, count, leader| {
            let mut topics = answer(version, &[("a", leader)]).topics;
            for topic in &mut topics {
                topic.partition_count = count;
                topic.partitions.truncate(1);
                for described in &mut topic.partitions {
                    described.partition = partition;
                }
            }
            v1::WatchMetadataResponse { version, changed_topics: topics, ..Default::default() }
        };
        let leaders = |map: &Map| {
            let all = map.topics["a"].partitions.iter().map(|leader| leader.broker);
            all.collect::<Vec<_>>()
        };
        let first = leaders(&map)[0];
        let map = map.told(&change(3, 2, 3, 7));
        assert_eq!((leaders(&map)[0], leaders(&map)[2], leaders(&map).len()), (first, 7, 3));
        assert_eq!(map.topics["a"].version, 3);
        assert_eq!(leaders(&map.told(&change(2, 2, 3, 8))), leaders(&map), "an old one changes nothing");
    }
}
