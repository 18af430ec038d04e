//! One version of the map, and how an answer changes it.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use weir_proto::v1;

use crate::address::Address;

/// Brokers and topics. Topics that nobody of this client uses are not in it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Map {
    /// The newest version that was heard of.
    pub(crate) version: i64,
    pub(crate) brokers: BTreeMap<i32, Broker>,
    pub(crate) topics: HashMap<String, Arc<Topic>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Broker {
    pub(crate) address: Address,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Topic {
    pub(crate) name: Arc<str>,
    pub(crate) id: String,
    /// The version in which this was seen.
    pub(crate) version: i64,
    pub(crate) partitions: Vec<Leader>,
}

/// Who leads a partition; `broker` is -1 while nobody does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Leader {
    pub(crate) broker: i32,
    pub(crate) epoch: i32,
}

impl Map {
    /// The map after an answer to a question about `asked`: names missing from the answer do not exist.
    pub(crate) fn after(&self, asked: &[String], answer: &v1::GetMetadataResponse) -> Self {
        let mut next = self.clone();
        if answer.version < self.version {
            // A broker that lags. What it knows of topics that are new to us is better than nothing.
            for topic in &answer.topics {
                next.topics
                    .entry(topic.name.clone())
                    .or_insert_with(|| Arc::new(read(topic, answer.version)));
            }
            return next;
        }
        next.version = answer.version;
        if !answer.brokers.is_empty() {
            next.brokers = answer.brokers.iter().filter_map(broker).collect();
        }
        for name in asked {
            if !answer.topics.iter().any(|topic| topic.name == *name) {
                next.topics.remove(name);
            }
        }
        for topic in &answer.topics {
            next.topics.insert(topic.name.clone(), Arc::new(read(topic, answer.version)));
        }
        next
    }
}

impl Topic {
    /// How many partitions there are; at least 1.
    pub(crate) fn partition_count(&self) -> i32 {
        i32::try_from(self.partitions.len()).unwrap_or(i32::MAX)
    }
}

fn broker(broker: &v1::Broker) -> Option<(i32, Broker)> {
    match broker.endpoint.parse() {
        Ok(address) => Some((broker.broker_id, Broker { address })),
        Err(error) => {
            tracing::warn!(broker = broker.broker_id, %error, "a broker without a usable endpoint");
            None
        }
    }
}

fn read(topic: &v1::TopicMetadata, version: i64) -> Topic {
    let nobody = Leader { broker: -1, epoch: -1 };
    let mut partitions = vec![nobody; usize::try_from(topic.partition_count).unwrap_or(0)];
    for partition in &topic.partitions {
        let slot = usize::try_from(partition.partition).ok().and_then(|at| partitions.get_mut(at));
        if let Some(slot) = slot {
            *slot = Leader { broker: partition.leader, epoch: partition.leader_epoch };
        }
    }
    Topic { name: topic.name.as_str().into(), id: topic.topic_id.clone(), version, partitions }
}
