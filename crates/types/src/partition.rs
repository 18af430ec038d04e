//! A partition's name, its offsets and its promise.

use std::fmt;

use crate::TopicId;

/// The number of a record in its partition, from 0. An *end* is the offset after the last one.
pub type Offset = i64;

/// Counts the leaderships of a partition, from 0. A frame carries that of the leader that wrote it.
pub type LeaderEpoch = i32;

/// A partition of a topic, by the topic's id: what logs and replicas are named by.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PartitionId {
    /// The topic.
    pub topic: TopicId,
    /// The partition's number, from 0.
    pub partition: i32,
}

impl fmt::Display for PartitionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.topic, self.partition)
    }
}

/// What "acknowledged" means for a topic; fixed when it is created (docs/correctness.md).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum Durability {
    /// On disk on every in-sync replica counted, by group commit. Survives the power loss of all.
    #[default]
    Fsync,
    /// In the page cache of every in-sync replica counted. Survives processes dying.
    Replicated,
}

impl fmt::Display for Durability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Fsync => "fsync",
            Self::Replicated => "replicated",
        })
    }
}
