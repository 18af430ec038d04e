//! From what is known of replicas to the map that calls use.

use std::collections::BTreeSet;
use std::sync::Arc;

use weir_metadata::{Image, Partition};
use weir_types::PartitionId;

use crate::ingest::BatchRules;
use crate::replicas::asked::{Asked, Me, Role};
use crate::replicas::{Known, Replicas};
use crate::topic_map::{Placed, Topic, TopicMap};

impl Replicas {
    /// Puts these partitions as they are now into the map that calls use.
    pub(super) fn publish(&self, known: &Known, older: &Image, due: &BTreeSet<PartitionId>) {
        let me = self.me(known.registered);
        let image = &known.image;
        let mut map = TopicMap::clone(&self.topics.load());
        let due: Vec<PartitionId> = due.iter().copied().collect();
        for of_topic in due.chunk_by(|a, b| a.topic == b.topic) {
            let Some(id) = of_topic.first().map(|id| id.topic) else { continue };
            let Some(topic) = image.topic(id) else {
                if let Some(topic) = older.topic(id) {
                    map.remove(&topic.name, id);
                }
                continue;
            };
            let settings = image.topic_settings(topic);
            let before = map.find(&topic.name).filter(|before| before.id == id);
            let mut partitions = before.map(|before| before.partitions.clone()).unwrap_or_default();
            for id in of_topic {
                match topic.partitions.get(&id.partition) {
                    Some(record) => {
                        drop(partitions.insert(id.partition, self.placed(known, &me, *id, record)))
                    }
                    None => drop(partitions.remove(&id.partition)),
                }
            }
            map.put(Topic {
                name: topic.name.clone(),
                id,
                rules: BatchRules::of(&settings),
                durability: settings.durability,
                partitions,
            });
        }
        self.topics.replace(map);
    }

    /// A partition as calls see it.
    fn placed(&self, known: &Known, me: &Me, id: PartitionId, record: &Partition) -> Placed {
        let failed = known.failed.get(&id).cloned();
        let log = known.logs.get(&id);
        let problem: Option<Arc<str>> = match me.asked(Some(record)) {
            Asked::Nothing | Asked::StandBack => None,
            Asked::Make => failed,
            Asked::Elsewhere(directory) => {
                Some(format!("it is in directory {directory}, which is not mounted here").into())
            }
            Asked::Keep(_) if log.is_some() => failed,
            Asked::Keep(_) => Some(match known.unusable.get(&id) {
                Some(unusable) => unusable.what.as_str().into(),
                // It may have been closed to be set aside.
                None => failed.unwrap_or_else(|| "its files are gone from the directory".into()),
            }),
        };
        let leads = log.filter(|log| matches!(log.role, Some(Role::Lead { .. })) && problem.is_none());
        let in_sync = record.isr.contains(&me.broker) && problem.is_none();
        let followed = log.filter(|log| in_sync && matches!(log.role, Some(Role::Follow { .. })));
        Placed {
            leader: record.leader,
            leader_epoch: record.leader_epoch,
            led: leads.and_then(|_| self.replication.led(id)),
            in_sync_here: followed.and_then(|_| self.replication.followed(id)),
            local: leads.map(|log| log.partition.clone()),
            mends: if problem.is_none() { self.mends(known, id, record) } else { None },
            problem,
            waits_for_a_person: record.waits_for_a_person(),
        }
    }
}
