//! Commands, as they stand in the raft log and come in calls.

use weir_metadata::{
    AlterPartition, AlterPartitions, AssignDirectories, BrokerEpoch, Command, CreateCluster, CreateTopic,
    DeleteTopic, ElectLeader, ElectPreferred, Entry, FailDirectory, FinalizeLevel, JoinController,
    RecoverPartitions, Recovery, RegisterBroker, RemoveController, ReplicaEnd, ReportDamage,
    SetClusterConfig, SetSlow, StuckReplica, TrustBroker, UpdateTopic,
};
use weir_proto::internal::v1 as pb;
use weir_proto::internal::v1::command::Command as Kind;
use weir_types::{BrokerId, ClusterId, DirectoryId, PartitionId, TopicId};

use super::{Row, RowError, all, incarnation, incarnation_to_wire, optional, required, wires};

impl Row for Entry {
    type Wire = pb::Entry;

    fn to_wire(&self) -> pb::Entry {
        pb::Entry { at_ms: self.at_ms, commands: wires(&self.commands), author: self.author }
    }

    fn from_wire(wire: pb::Entry) -> Result<Self, RowError> {
        Ok(Self { at_ms: wire.at_ms, author: wire.author, commands: all(wire.commands)? })
    }
}

impl Row for Command {
    type Wire = pb::Command;

    fn to_wire(&self) -> pb::Command {
        let command = match self {
            Self::CreateCluster(command) => Kind::CreateCluster(command.to_wire()),
            Self::JoinController(command) => Kind::JoinController(command.to_wire()),
            Self::RegisterBroker(command) => Kind::RegisterBroker(command.to_wire()),
            Self::UnfenceBroker(by) => Kind::UnfenceBroker(by.to_wire()),
            Self::FenceBroker(by) => Kind::FenceBroker(by.to_wire()),
            Self::StopBroker(by) => Kind::StopBroker(by.to_wire()),
            Self::DrainBroker(by) => Kind::DrainBroker(by.to_wire()),
            Self::AssignDirectories(command) => Kind::AssignDirectories(command.to_wire()),
            Self::AlterPartitions(command) => Kind::AlterPartitions(command.to_wire()),
            Self::ElectLeader(command) => Kind::ElectLeader(command.to_wire()),
            Self::CreateTopic(command) => Kind::CreateTopic(command.to_wire()),
            Self::UpdateTopic(command) => Kind::UpdateTopic(command.to_wire()),
            Self::DeleteTopic(command) => Kind::DeleteTopic(command.to_wire()),
            Self::SetClusterConfig(command) => Kind::SetClusterConfig(command.to_wire()),
            Self::AllocateProducerIds(by) => Kind::AllocateProducerIds(by.to_wire()),
            Self::FinalizeLevel(command) => Kind::FinalizeLevel(command.to_wire()),
            Self::RemoveBroker(by) => Kind::RemoveBroker(by.to_wire()),
            Self::RemoveController(command) => Kind::RemoveController(command.to_wire()),
            Self::ElectPreferred(command) => Kind::ElectPreferred(command.to_wire()),
            Self::RecoverPartitions(command) => Kind::RecoverPartitions(command.to_wire()),
            Self::SetSlow(command) => Kind::SetSlow(command.to_wire()),
            Self::ReportDamage(command) => Kind::ReportDamage(command.to_wire()),
            Self::LoseBroker(by) => Kind::LoseBroker(by.to_wire()),
            Self::FailDirectory(command) => Kind::FailDirectory(command.to_wire()),
            Self::TrustBroker(command) => Kind::TrustBroker(command.to_wire()),
        };
        pb::Command { command: Some(command) }
    }

    fn from_wire(wire: pb::Command) -> Result<Self, RowError> {
        Ok(match wire.command.ok_or(RowError::Unknown("command"))? {
            Kind::CreateCluster(command) => Self::CreateCluster(Row::from_wire(command)?),
            Kind::JoinController(command) => Self::JoinController(Row::from_wire(command)?),
            Kind::RegisterBroker(command) => Self::RegisterBroker(Row::from_wire(command)?),
            Kind::UnfenceBroker(by) => Self::UnfenceBroker(Row::from_wire(by)?),
            Kind::FenceBroker(by) => Self::FenceBroker(Row::from_wire(by)?),
            Kind::StopBroker(by) => Self::StopBroker(Row::from_wire(by)?),
            Kind::DrainBroker(by) => Self::DrainBroker(Row::from_wire(by)?),
            Kind::AssignDirectories(command) => Self::AssignDirectories(Row::from_wire(command)?),
            Kind::AlterPartitions(command) => Self::AlterPartitions(Row::from_wire(command)?),
            Kind::ElectLeader(command) => Self::ElectLeader(Row::from_wire(command)?),
            Kind::CreateTopic(command) => Self::CreateTopic(Row::from_wire(command)?),
            Kind::UpdateTopic(command) => Self::UpdateTopic(Row::from_wire(command)?),
            Kind::DeleteTopic(command) => Self::DeleteTopic(Row::from_wire(command)?),
            Kind::SetClusterConfig(command) => Self::SetClusterConfig(Row::from_wire(command)?),
            Kind::AllocateProducerIds(by) => Self::AllocateProducerIds(Row::from_wire(by)?),
            Kind::FinalizeLevel(command) => Self::FinalizeLevel(Row::from_wire(command)?),
            Kind::RemoveBroker(by) => Self::RemoveBroker(Row::from_wire(by)?),
            Kind::RemoveController(command) => Self::RemoveController(Row::from_wire(command)?),
            Kind::ElectPreferred(command) => Self::ElectPreferred(Row::from_wire(command)?),
            Kind::RecoverPartitions(command) => Self::RecoverPartitions(Row::from_wire(command)?),
            Kind::ReportDamage(command) => Self::ReportDamage(Row::from_wire(command)?),
            Kind::SetSlow(command) => Self::SetSlow(Row::from_wire(command)?),
            Kind::LoseBroker(by) => Self::LoseBroker(Row::from_wire(by)?),
            Kind::FailDirectory(command) => Self::FailDirectory(Row::from_wire(command)?),
            Kind::TrustBroker(row) => Self::TrustBroker(Row::from_wire(row)?),
        })
    }
}

impl Row for BrokerEpoch {
    type Wire = pb::BrokerEpoch;

    fn to_wire(&self) -> pb::BrokerEpoch {
        pb::BrokerEpoch { broker_id: self.broker.0, epoch: self.epoch }
    }

    fn from_wire(wire: pb::BrokerEpoch) -> Result<Self, RowError> {
        Ok(Self { broker: BrokerId(wire.broker_id), epoch: wire.epoch })
    }
}

impl Row for SetSlow {
    type Wire = pb::SetSlow;

    fn to_wire(&self) -> pb::SetSlow {
        pb::SetSlow { by: Some(self.by.to_wire()), slow: self.slow }
    }

    fn from_wire(wire: pb::SetSlow) -> Result<Self, RowError> {
        Ok(Self { by: required(wire.by, "broker")?, slow: wire.slow })
    }
}

impl Row for ReportDamage {
    type Wire = pb::ReportDamage;

    fn to_wire(&self) -> pb::ReportDamage {
        let (partitions, unusable) = (wires(&self.partitions), wires(&self.unusable));
        pb::ReportDamage { by: Some(self.by.to_wire()), partitions, stuck: wires(&self.stuck), unusable }
    }

    fn from_wire(wire: pb::ReportDamage) -> Result<Self, RowError> {
        let (partitions, unusable) = (all(wire.partitions)?, all(wire.unusable)?);
        Ok(Self { by: required(wire.by, "broker")?, partitions, stuck: all(wire.stuck)?, unusable })
    }
}

impl Row for StuckReplica {
    type Wire = pb::StuckReplica;

    fn to_wire(&self) -> pb::StuckReplica {
        pb::StuckReplica { partition: Some(self.partition.to_wire()), leader_epoch: self.leader_epoch }
    }

    fn from_wire(wire: pb::StuckReplica) -> Result<Self, RowError> {
        Ok(Self { partition: required(wire.partition, "partition")?, leader_epoch: wire.leader_epoch })
    }
}

impl Row for FailDirectory {
    type Wire = pb::FailDirectory;

    fn to_wire(&self) -> pb::FailDirectory {
        pb::FailDirectory {
            by: Some(self.by.to_wire()),
            directory_id: self.directory.to_wire(),
            failure: self.failure,
        }
    }

    fn from_wire(wire: pb::FailDirectory) -> Result<Self, RowError> {
        Ok(Self {
            by: required(wire.by, "broker")?,
            directory: DirectoryId::from_wire(wire.directory_id)?,
            failure: wire.failure,
        })
    }
}

impl Row for TrustBroker {
    type Wire = pb::TrustBroker;

    fn to_wire(&self) -> pb::TrustBroker {
        pb::TrustBroker { broker_id: self.broker.0, failures: self.failures.clone() }
    }

    fn from_wire(wire: pb::TrustBroker) -> Result<Self, RowError> {
        Ok(Self { broker: BrokerId(wire.broker_id), failures: wire.failures })
    }
}

impl Row for CreateCluster {
    type Wire = pb::CreateCluster;

    fn to_wire(&self) -> pb::CreateCluster {
        pb::CreateCluster {
            cluster_id: self.cluster_id.to_wire(),
            feature_level: self.feature_level,
            settings: self.settings.clone(),
            controller: Some(self.controller.to_wire()),
        }
    }

    fn from_wire(wire: pb::CreateCluster) -> Result<Self, RowError> {
        Ok(Self {
            cluster_id: ClusterId::from_wire(wire.cluster_id)?,
            feature_level: wire.feature_level,
            settings: wire.settings,
            controller: required(wire.controller, "controller")?,
        })
    }
}

impl Row for JoinController {
    type Wire = pb::JoinController;

    fn to_wire(&self) -> pb::JoinController {
        pb::JoinController { directory_id: self.directory.to_wire(), endpoint: self.endpoint.clone() }
    }

    fn from_wire(wire: pb::JoinController) -> Result<Self, RowError> {
        Ok(Self { directory: DirectoryId::from_wire(wire.directory_id)?, endpoint: wire.endpoint })
    }
}

impl Row for RegisterBroker {
    type Wire = pb::RegisterBroker;

    fn to_wire(&self) -> pb::RegisterBroker {
        pb::RegisterBroker {
            cluster_id: self.cluster_id.map(|id| id.to_wire()),
            broker_id: self.broker_id.map(|id| id.0),
            directories: wires(&self.directories),
            damaged: wires(&self.damaged),
            rack: self.rack.clone(),
            endpoints: wires(&self.endpoints),
            version: self.version.clone(),
            feature_level: self.feature_level,
            metadata_version: self.metadata_version,
            metadata_author: self.metadata_author,
            incarnation: incarnation_to_wire(self.incarnation),
        }
    }

    fn from_wire(wire: pb::RegisterBroker) -> Result<Self, RowError> {
        Ok(Self {
            cluster_id: optional(wire.cluster_id)?,
            broker_id: wire.broker_id.map(BrokerId),
            directories: all(wire.directories)?,
            damaged: all(wire.damaged)?,
            rack: wire.rack,
            endpoints: all(wire.endpoints)?,
            version: wire.version,
            feature_level: wire.feature_level,
            metadata_version: wire.metadata_version,
            metadata_author: wire.metadata_author,
            incarnation: incarnation(&wire.incarnation)?,
        })
    }
}

impl Row for AssignDirectories {
    type Wire = pb::AssignDirectories;

    fn to_wire(&self) -> pb::AssignDirectories {
        let assignment = |(partition, directory): &(PartitionId, DirectoryId)| pb::DirectoryAssignment {
            partition: Some(partition.to_wire()),
            directory_id: directory.to_wire(),
        };
        pb::AssignDirectories {
            by: Some(self.by.to_wire()),
            assignments: self.assignments.iter().map(assignment).collect(),
        }
    }

    fn from_wire(wire: pb::AssignDirectories) -> Result<Self, RowError> {
        let assignment = |row: pb::DirectoryAssignment| {
            Ok((required(row.partition, "partition")?, DirectoryId::from_wire(row.directory_id)?))
        };
        Ok(Self {
            by: required(wire.by, "broker")?,
            assignments: wire.assignments.into_iter().map(assignment).collect::<Result<_, _>>()?,
        })
    }
}

impl Row for AlterPartitions {
    type Wire = pb::AlterPartitions;

    fn to_wire(&self) -> pb::AlterPartitions {
        pb::AlterPartitions { by: Some(self.by.to_wire()), changes: wires(&self.changes) }
    }

    fn from_wire(wire: pb::AlterPartitions) -> Result<Self, RowError> {
        Ok(Self { by: required(wire.by, "broker")?, changes: all(wire.changes)? })
    }
}

impl Row for AlterPartition {
    type Wire = pb::AlterPartition;

    fn to_wire(&self) -> pb::AlterPartition {
        pb::AlterPartition {
            partition: Some(self.partition.to_wire()),
            leader_epoch: self.leader_epoch,
            partition_epoch: self.partition_epoch,
            isr: wires(&self.isr),
        }
    }

    fn from_wire(wire: pb::AlterPartition) -> Result<Self, RowError> {
        Ok(Self {
            partition: required(wire.partition, "partition")?,
            leader_epoch: wire.leader_epoch,
            partition_epoch: wire.partition_epoch,
            isr: all(wire.isr)?,
        })
    }
}

impl Row for ElectLeader {
    type Wire = pb::ElectLeader;

    fn to_wire(&self) -> pb::ElectLeader {
        pb::ElectLeader {
            partition: Some(self.partition.to_wire()),
            broker_id: self.broker.0,
            partition_epoch: self.partition_epoch,
            unclean: self.unclean,
        }
    }

    fn from_wire(wire: pb::ElectLeader) -> Result<Self, RowError> {
        Ok(Self {
            partition: required(wire.partition, "partition")?,
            broker: BrokerId(wire.broker_id),
            partition_epoch: wire.partition_epoch,
            unclean: wire.unclean,
        })
    }
}

impl Row for FinalizeLevel {
    type Wire = pb::FinalizeLevel;

    fn to_wire(&self) -> pb::FinalizeLevel {
        pb::FinalizeLevel { level: self.level, expected: self.expected }
    }

    fn from_wire(wire: pb::FinalizeLevel) -> Result<Self, RowError> {
        Ok(Self { level: wire.level, expected: wire.expected })
    }
}

impl Row for RemoveController {
    type Wire = pb::RemoveController;

    fn to_wire(&self) -> pb::RemoveController {
        pb::RemoveController { controller_id: self.id }
    }

    fn from_wire(wire: pb::RemoveController) -> Result<Self, RowError> {
        Ok(Self { id: wire.controller_id })
    }
}

impl Row for ElectPreferred {
    type Wire = pb::ElectPreferred;

    fn to_wire(&self) -> pb::ElectPreferred {
        pb::ElectPreferred { partitions: wires(&self.partitions) }
    }

    fn from_wire(wire: pb::ElectPreferred) -> Result<Self, RowError> {
        Ok(Self { partitions: all(wire.partitions)? })
    }
}

impl Row for RecoverPartitions {
    type Wire = pb::RecoverPartitions;

    fn to_wire(&self) -> pb::RecoverPartitions {
        pb::RecoverPartitions { partitions: wires(&self.partitions) }
    }

    fn from_wire(wire: pb::RecoverPartitions) -> Result<Self, RowError> {
        Ok(Self { partitions: all(wire.partitions)? })
    }
}

impl Row for Recovery {
    type Wire = pb::Recovery;

    fn to_wire(&self) -> pb::Recovery {
        pb::Recovery {
            partition: Some(self.partition.to_wire()),
            partition_epoch: self.partition_epoch,
            ends: wires(&self.ends),
        }
    }

    fn from_wire(wire: pb::Recovery) -> Result<Self, RowError> {
        Ok(Self {
            partition: required(wire.partition, "partition")?,
            partition_epoch: wire.partition_epoch,
            ends: all(wire.ends)?,
        })
    }
}

impl Row for ReplicaEnd {
    type Wire = pb::ReplicaEnd;

    fn to_wire(&self) -> pb::ReplicaEnd {
        pb::ReplicaEnd { by: Some(self.by.to_wire()), last_epoch: self.last_epoch, log_end: self.log_end }
    }

    fn from_wire(wire: pb::ReplicaEnd) -> Result<Self, RowError> {
        Ok(Self { by: required(wire.by, "broker")?, last_epoch: wire.last_epoch, log_end: wire.log_end })
    }
}

impl Row for CreateTopic {
    type Wire = pb::CreateTopic;

    fn to_wire(&self) -> pb::CreateTopic {
        pb::CreateTopic {
            name: self.name.clone(),
            topic_id: self.topic_id.to_wire(),
            partitions: self.partitions,
            replication_factor: self.replication_factor,
            config: self.config.clone(),
            if_absent: self.if_absent,
            internal: self.internal,
            request_id: self.request_id.clone(),
        }
    }

    fn from_wire(wire: pb::CreateTopic) -> Result<Self, RowError> {
        Ok(Self {
            name: wire.name,
            topic_id: TopicId::from_wire(wire.topic_id)?,
            partitions: wire.partitions,
            replication_factor: wire.replication_factor,
            config: wire.config,
            if_absent: wire.if_absent,
            internal: wire.internal,
            request_id: wire.request_id,
        })
    }
}

impl Row for UpdateTopic {
    type Wire = pb::UpdateTopic;

    fn to_wire(&self) -> pb::UpdateTopic {
        pb::UpdateTopic {
            name: self.name.clone(),
            set_config: self.set_config.clone(),
            unset_config: self.unset_config.clone(),
            partitions: self.partitions,
            expected_revision: self.expected_revision,
            request_id: self.request_id.clone(),
        }
    }

    fn from_wire(wire: pb::UpdateTopic) -> Result<Self, RowError> {
        Ok(Self {
            name: wire.name,
            set_config: wire.set_config,
            unset_config: wire.unset_config,
            partitions: wire.partitions,
            expected_revision: wire.expected_revision,
            request_id: wire.request_id,
        })
    }
}

impl Row for DeleteTopic {
    type Wire = pb::DeleteTopic;

    fn to_wire(&self) -> pb::DeleteTopic {
        pb::DeleteTopic {
            name: self.name.clone(),
            topic_id: self.topic_id.map(|id| id.to_wire()),
            request_id: self.request_id.clone(),
        }
    }

    fn from_wire(wire: pb::DeleteTopic) -> Result<Self, RowError> {
        Ok(Self { name: wire.name, topic_id: optional(wire.topic_id)?, request_id: wire.request_id })
    }
}

impl Row for SetClusterConfig {
    type Wire = pb::SetClusterConfig;

    fn to_wire(&self) -> pb::SetClusterConfig {
        pb::SetClusterConfig {
            set: self.set.clone(),
            unset: self.unset.clone(),
            expected: self.expected.clone(),
            request_id: self.request_id.clone(),
        }
    }

    fn from_wire(wire: pb::SetClusterConfig) -> Result<Self, RowError> {
        let pb::SetClusterConfig { set, unset, expected, request_id } = wire;
        Ok(Self { set, unset, expected, request_id })
    }
}
