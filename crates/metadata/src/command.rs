//! Commands: what may be asked of the cluster metadata. They carry facts and expected versions; apply decides
//! (correctness rule D3). Ids and times are drawn by whoever proposes and travel in the command, so that every
//! replica of the log applies alike.

use std::collections::BTreeMap;

use weir_types::{BrokerId, ClusterId, DirectoryId, PartitionId, TopicId};

use crate::broker::{DirectoryFacts, Endpoint};
use crate::settings::Settings;

/// One raft entry: commands that were gathered while the entry before was on its way, applied one after another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The proposer's wall clock, milliseconds since 1970 UTC.
    pub at_ms: i64,
    /// The commands, in order.
    pub commands: Vec<Command>,
}

/// A command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Initialises the cluster; the first command of all.
    CreateCluster(CreateCluster),
    /// Lets a controller join the quorum.
    JoinController(JoinController),
    /// Registers a broker.
    RegisterBroker(RegisterBroker),
    /// A broker has its epoch on its disks.
    UnfenceBroker(BrokerEpoch),
    /// A broker was not heard of, or stopped.
    FenceBroker(BrokerEpoch),
    /// A broker is about to stop.
    DrainBroker(BrokerEpoch),
    /// A broker says which directories it made replicas in.
    AssignDirectories(AssignDirectories),
    /// A leader proposes in-sync sets.
    AlterPartitions(AlterPartitions),
    /// A person or a plan names a leader.
    ElectLeader(ElectLeader),
    /// Makes a topic.
    CreateTopic(CreateTopic),
    /// Changes a topic.
    UpdateTopic(UpdateTopic),
    /// Deletes a topic.
    DeleteTopic(DeleteTopic),
    /// Changes the cluster's settings.
    SetClusterConfig(SetClusterConfig),
    /// Gives out a block of producer ids.
    AllocateProducerIds(BrokerEpoch),
}

/// A broker in one registration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BrokerEpoch {
    /// The broker.
    pub broker: BrokerId,
    /// The epoch of its registration.
    pub epoch: i64,
}

/// See [`Command::CreateCluster`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreateCluster {
    /// A random id.
    pub cluster_id: ClusterId,
    /// The feature level to start with.
    pub feature_level: i32,
    /// The settings to start with, as people write them.
    pub settings: Settings,
    /// The controller that made the cluster.
    pub controller: JoinController,
}

/// See [`Command::JoinController`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinController {
    /// The id of its directory.
    pub directory: DirectoryId,
    /// `host:port` of its listener.
    pub endpoint: String,
}

/// See [`Command::RegisterBroker`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegisterBroker {
    /// The cluster the broker's directories belong to; `None`: they are new.
    pub cluster_id: Option<ClusterId>,
    /// The broker's id; `None`: the controller gives one, the old one if it knows one of the directories.
    pub broker_id: Option<BrokerId>,
    /// What it found in its directories.
    pub directories: Vec<DirectoryFacts>,
    /// Partitions whose files it found damaged.
    pub damaged: Vec<PartitionId>,
    /// Where it stands. Empty: unknown.
    pub rack: String,
    /// Where it listens.
    pub endpoints: Vec<Endpoint>,
    /// Its software version, for people.
    pub version: String,
    /// The highest feature level it understands.
    pub feature_level: i32,
    /// The highest version of the metadata that it has ever acted upon; 0: none (correctness rule 33).
    pub metadata_version: i64,
}

/// See [`Command::AssignDirectories`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AssignDirectories {
    /// Who made the replicas.
    pub by: BrokerEpoch,
    /// Which, and where.
    pub assignments: Vec<(PartitionId, DirectoryId)>,
}

/// See [`Command::AlterPartitions`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AlterPartitions {
    /// The leader.
    pub by: BrokerEpoch,
    /// What it proposes; each is decided for itself.
    pub changes: Vec<AlterPartition>,
}

/// A compare-and-set of one in-sync set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AlterPartition {
    /// The partition.
    pub partition: PartitionId,
    /// The leader epoch the proposer leads in.
    pub leader_epoch: i32,
    /// The partition epoch it has seen.
    pub partition_epoch: i32,
    /// The new in-sync set, each member in the registration that was judged.
    pub isr: Vec<BrokerEpoch>,
}

/// See [`Command::ElectLeader`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ElectLeader {
    /// The partition.
    pub partition: PartitionId,
    /// Who shall lead.
    pub broker: BrokerId,
    /// The partition epoch the decision was made at.
    pub partition_epoch: i32,
    /// Also a replica that is not known to be complete: acknowledged records may be lost.
    pub unclean: bool,
}

/// See [`Command::CreateTopic`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreateTopic {
    /// Its name.
    pub name: String,
    /// A random id.
    pub topic_id: TopicId,
    /// How many partitions; 0: the cluster's default.
    pub partitions: i32,
    /// How many replicas; 0: the cluster's default.
    pub replication_factor: i32,
    /// Settings, as people write them.
    pub config: BTreeMap<String, String>,
    /// Succeed, changing nothing, if a topic of that name exists.
    pub if_absent: bool,
    /// Whether it is the system's own: then, and only then, its name begins with "__".
    pub internal: bool,
    /// The same id again gets the same answer. Empty: not remembered.
    pub request_id: String,
}

/// See [`Command::UpdateTopic`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpdateTopic {
    /// Its name.
    pub name: String,
    /// Settings to set, as people write them.
    pub set_config: BTreeMap<String, String>,
    /// Settings to take back.
    pub unset_config: Vec<String>,
    /// The new number of partitions.
    pub partitions: Option<i32>,
    /// Change only if this is the topic's revision.
    pub expected_revision: Option<i64>,
    /// The same id again gets the same answer. Empty: not remembered.
    pub request_id: String,
}

/// See [`Command::DeleteTopic`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeleteTopic {
    /// Its name.
    pub name: String,
    /// Its id, as a guard.
    pub topic_id: Option<TopicId>,
    /// The same id again gets the same answer. Empty: not remembered.
    pub request_id: String,
}

/// See [`Command::SetClusterConfig`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetClusterConfig {
    /// Settings to set, as people write them.
    pub set: BTreeMap<String, String>,
    /// Settings to take back.
    pub unset: Vec<String>,
    /// The values that these settings must have, as people write them; else nothing changes.
    pub expected: BTreeMap<String, String>,
    /// The same id again gets the same answer. Empty: not remembered.
    pub request_id: String,
}

impl Command {
    /// The request id under which the answer is remembered.
    pub fn request_id(&self) -> Option<&str> {
        let id = match self {
            Self::CreateTopic(command) => &command.request_id,
            Self::UpdateTopic(command) => &command.request_id,
            Self::DeleteTopic(command) => &command.request_id,
            Self::SetClusterConfig(command) => &command.request_id,
            _ => return None,
        };
        Some(id.as_str()).filter(|id| !id.is_empty())
    }
}
