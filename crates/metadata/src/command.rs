//! Commands: what may be asked of the cluster metadata. They carry facts and expected versions; apply decides
//! (correctness rule D3). Ids and times are drawn by whoever proposes and travel in the command, so that every
//! replica of the log applies alike.

use std::collections::BTreeMap;

use weir_types::{BrokerId, ClusterId, DirectoryId, LeaderEpoch, PartitionId, TopicId};

use crate::broker::{DirectoryFacts, Endpoint};
use crate::settings::Settings;

/// One raft entry: commands that were gathered while the entry before was on its way, applied one after another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The proposer's wall clock, milliseconds since 1970 UTC.
    pub at_ms: i64,
    /// The number of the process that proposes; 0: it does not say. See [`Authors`](crate::Authors).
    pub author: u64,
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
    /// A broker was not heard of.
    FenceBroker(BrokerEpoch),
    /// A broker has stopped in order: its last word.
    StopBroker(BrokerEpoch),
    /// A broker is about to stop.
    DrainBroker(BrokerEpoch),
    /// A broker's disk has become slow, or is quick again.
    SetSlow(SetSlow),
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
    /// Raises the feature level. Proposed only when everybody who follows the log understands the new one.
    FinalizeLevel(FinalizeLevel),
    /// Takes a broker out of the cluster for good.
    RemoveBroker(BrokerEpoch),
    /// The same, with the replicas that it holds: a person says that its disks are gone.
    LoseBroker(BrokerEpoch),
    /// A write or sync has failed in a log directory.
    FailDirectory(FailDirectory),
    /// A broker's readers have met damage in logs that are in use.
    ReportDamage(ReportDamage),
    /// A person lets a broker use its failed directories again.
    TrustBroker(TrustBroker),
    /// Forgets a controller that votes no more.
    RemoveController(RemoveController),
    /// Gives leaderships back to the replicas that are preferred for them.
    ElectPreferred(ElectPreferred),
    /// Says what replicas hold of partitions whose topics let the longest log lead.
    RecoverPartitions(RecoverPartitions),
}

/// A broker in one registration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BrokerEpoch {
    /// The broker.
    pub broker: BrokerId,
    /// The epoch of its registration.
    pub epoch: i64,
}

/// See [`Command::SetSlow`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SetSlow {
    /// The broker.
    pub by: BrokerEpoch,
    /// Whether its disk is slow now.
    pub slow: bool,
}

/// See [`Command::ReportDamage`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReportDamage {
    /// The broker.
    pub by: BrokerEpoch,
    /// The partitions of which its log is damaged; each is decided for itself.
    pub partitions: Vec<PartitionId>,
    /// The partitions that it cannot even follow because of that; each is decided for itself.
    pub stuck: Vec<StuckReplica>,
    /// The partitions that it leads with a log that cannot be used; each is decided for itself.
    pub unusable: Vec<PartitionId>,
}

/// A replica that cannot follow its leader for what is damaged in its log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StuckReplica {
    /// The partition.
    pub partition: PartitionId,
    /// The leadership that it cannot follow.
    pub leader_epoch: LeaderEpoch,
}

/// A person lets a broker use its directories again in spite of the failures that were shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrustBroker {
    /// The broker.
    pub broker: BrokerId,
    /// Their numbers.
    pub failures: Vec<u64>,
}

/// See [`Command::FailDirectory`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FailDirectory {
    /// Whose it is, in the registration in which it failed.
    pub by: BrokerEpoch,
    /// The directory.
    pub directory: DirectoryId,
    /// The number of the failure: said twice, it is one.
    pub failure: u64,
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
    /// Who wrote that version; 0: that is not known.
    pub metadata_author: u64,
    /// A random number of the process: a registration that is sent again, or that comes late by another way, is the same
    /// one. 0: not said.
    pub incarnation: u128,
}

/// See [`Command::FinalizeLevel`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FinalizeLevel {
    /// The new level.
    pub level: i32,
    /// The level that was seen; else nothing changes.
    pub expected: i32,
}

/// See [`Command::RemoveController`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RemoveController {
    /// Its id.
    pub id: i64,
}

/// See [`Command::ElectPreferred`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ElectPreferred {
    /// The partitions; each is decided for itself, and those whose preferred replica cannot lead stay as they are.
    pub partitions: Vec<PartitionId>,
}

/// See [`Command::RecoverPartitions`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecoverPartitions {
    /// The partitions; each is decided for itself.
    pub partitions: Vec<Recovery>,
}

/// What replicas hold of one partition that nobody may lead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recovery {
    /// The partition.
    pub partition: PartitionId,
    /// The partition epoch that was seen.
    pub partition_epoch: i32,
    /// The replicas that answered.
    pub ends: Vec<ReplicaEnd>,
}

/// How far a replica's log goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplicaEnd {
    /// Whose replica, in the registration that said so.
    pub by: BrokerEpoch,
    /// The leader epoch of its last batch; 0: it holds none.
    pub last_epoch: i32,
    /// The end of its log.
    pub log_end: i64,
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
    /// The feature level from which on it may be proposed: below, some controller would not understand it, and apply
    /// must be the same everywhere (correctness rule D4).
    pub fn feature_level(&self) -> i32 {
        match self {
            Self::SetClusterConfig(command) if !command.expected.is_empty() => 2,
            Self::StopBroker(_)
            | Self::RemoveBroker(_)
            | Self::LoseBroker(_)
            | Self::FailDirectory(_)
            | Self::TrustBroker(_)
            | Self::SetSlow(_)
            | Self::ReportDamage(_)
            | Self::RemoveController(_)
            | Self::ElectPreferred(_)
            | Self::RecoverPartitions(_) => 2,
            _ => 1,
        }
    }

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
