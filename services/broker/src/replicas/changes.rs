//! What differs between two images, as far as partitions are concerned. Pure. What it costs follows from what changed,
//! not from what there is: images share what they have in common, and that is not looked at.

use std::collections::BTreeSet;

use weir_metadata::{Image, Topic};
use weir_types::{PartitionId, TopicId};

/// The partitions that were made, deleted, or have another record or other settings.
pub(super) fn between(older: &Image, newer: &Image) -> BTreeSet<PartitionId> {
    let mut changed: BTreeSet<_> = newer.partitions_changed_since(older).into_iter().collect();
    let same_cluster = older.cluster_settings() == newer.cluster_settings();
    let topics: Vec<TopicId> = if same_cluster {
        newer.topics_changed_since(older)
    } else {
        // Any topic may have another value now.
        newer.topics().map(|topic| topic.id).collect()
    };
    for topic in topics {
        let (Some(old), Some(new)) = (older.topic(topic), newer.topic(topic)) else { continue };
        if older.topic_settings(old) != newer.topic_settings(new) {
            changed.extend(partitions(new));
        }
    }
    changed
}

fn partitions(topic: &Topic) -> impl Iterator<Item = PartitionId> {
    topic.partitions.iter().map(|(number, _)| PartitionId { topic: topic.id, partition: *number })
}
