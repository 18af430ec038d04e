//! What changed: the unit that watchers get.

use std::sync::Arc;

use weir_types::{BrokerId, ClusterId, DirectoryId, PartitionId, TopicId};

use crate::broker::{Broker, DirectoryFacts};
use crate::settings::Settings;
use crate::topic::{Partition, TopicSummary};

/// One change. Events say the cause where the consequences follow from the image (a broker is fenced), so that
/// the death of a broker that led 10,000 partitions is one small event which everybody expands alike.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The cluster was initialised.
    ClusterCreated {
        /// Its id.
        cluster_id: ClusterId,
        /// The feature level it starts with.
        feature_level: i32,
        /// Its settings.
        settings: Settings,
    },
    /// A broker registered, for the first time or again. Its old epoch ends: it leaves every ISR, and the ELR of
    /// every partition it does not prove to hold completely.
    BrokerRegistered {
        /// Its new record, state `Registered`.
        broker: Broker,
        /// What it found in its directories.
        facts: Vec<DirectoryFacts>,
        /// Partitions whose files it found damaged.
        damaged: Vec<PartitionId>,
    },
    /// A broker has its epoch on its disks and serves.
    BrokerUnfenced {
        /// The broker.
        broker: BrokerId,
    },
    /// A broker was not heard of for a session.
    BrokerFenced {
        /// The broker.
        broker: BrokerId,
    },
    /// A broker has stopped in order, and is fenced by that, if it was not before.
    BrokerStopped {
        /// The broker.
        broker: BrokerId,
    },
    /// A broker is about to stop.
    BrokerDraining {
        /// The broker.
        broker: BrokerId,
    },
    /// A broker's disk is slow, or quick again. One that is slow leaves every ISR that is large enough without it, and
    /// gives its leaderships to those in sync whose disks are not.
    BrokerSlow {
        /// The broker.
        broker: BrokerId,
        /// Whether it is slow now.
        slow: bool,
    },
    /// A topic was made.
    TopicCreated {
        /// The topic.
        topic: TopicSummary,
        /// The records of its partitions, from 0.
        partitions: Vec<Partition>,
    },
    /// A topic's settings changed.
    TopicConfigured {
        /// The topic.
        topic_id: TopicId,
        /// All that is set on it now.
        config: Settings,
        /// Its new revision.
        revision: i64,
    },
    /// A topic got more partitions.
    PartitionsAdded {
        /// The topic.
        topic_id: TopicId,
        /// The records of the new ones, from the topic's partition count on.
        partitions: Vec<Partition>,
        /// Its new revision.
        revision: i64,
    },
    /// A topic was deleted.
    TopicDeleted {
        /// The topic.
        topic_id: TopicId,
    },
    /// Records of partitions changed.
    PartitionsChanged {
        /// The partitions and their new records.
        partitions: Vec<(PartitionId, Partition)>,
    },
    /// The cluster's settings changed.
    ClusterConfigured {
        /// All that is set now.
        settings: Settings,
    },
    /// A block of producer ids was given out.
    ProducerIdsAllocated {
        /// The first id of the next block.
        next: i64,
    },
    /// A controller asked to join.
    ControllerJoined {
        /// The controller.
        controller: Controller,
    },
    /// The feature level was raised.
    LevelFinalized {
        /// The new level.
        level: i32,
    },
    /// A broker was taken out of the cluster for good. Whoever comes with its disks is refused, so nothing that they hold
    /// is waited for any more: it leaves every ELR.
    BrokerRemoved {
        /// The broker.
        broker: BrokerId,
    },
    /// A write or sync has failed in a log directory: its broker is fenced, and is not registered with it until a person
    /// trusts it.
    DirectoryFailed {
        /// The broker that has it.
        broker: BrokerId,
        /// The directory.
        directory: DirectoryId,
        /// The numbers of the failures; 0: one whose number is not known.
        failures: Vec<u64>,
    },
    /// A person lets a broker use directories again in spite of these failures.
    BrokerTrusted {
        /// The broker.
        broker: BrokerId,
        /// Their numbers.
        failures: Vec<u64>,
    },
    /// A controller is no more.
    ControllerRemoved {
        /// Its id.
        id: i64,
    },
}

/// A controller that is, or will be, part of the quorum.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Controller {
    /// Its id: the raft index of the entry that let it join; 1 for the one that made the cluster.
    pub id: i64,
    /// The id of the directory it joined with: the same disk asking again is the same controller.
    pub directory: DirectoryId,
    /// `host:port` of its listener.
    pub endpoint: String,
}

/// What one raft entry changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delta {
    /// The version of the image this applies to.
    pub previous: i64,
    /// The version after it: the raft index of the entry.
    pub version: i64,
    /// The number of the process that wrote the entry; 0: it is not said.
    pub author: u64,
    /// The changes, in order.
    pub events: Vec<Event>,
}

/// A delta as it is handed around.
pub type SharedDelta = Arc<Delta>;
