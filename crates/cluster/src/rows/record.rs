//! Records: brokers, controllers, topics, partitions.

use std::sync::Arc;

use bytes::Bytes;
use weir_metadata::{
    Broker, BrokerState, Controller, DirectoryFacts, Endpoint, FailedDirectory, Partition, Replica,
    TopicSummary,
};
use weir_proto::internal::v1 as pb;
use weir_types::{BrokerId, DirectoryId, TopicId};

use super::{Row, RowError, all, broker_ids, incarnation, incarnation_to_wire, numbers, wires};

impl Row for BrokerState {
    type Wire = i32;

    fn to_wire(&self) -> i32 {
        let state = match self {
            Self::Registered => pb::BrokerState::Registered,
            Self::Active => pb::BrokerState::Active,
            Self::Slow => pb::BrokerState::Slow,
            Self::Draining => pb::BrokerState::Draining,
            Self::Fenced => pb::BrokerState::Fenced,
            Self::Removed => pb::BrokerState::Removed,
        };
        state.into()
    }

    fn from_wire(wire: i32) -> Result<Self, RowError> {
        match pb::BrokerState::try_from(wire) {
            Ok(pb::BrokerState::Registered) => Ok(Self::Registered),
            Ok(pb::BrokerState::Active) => Ok(Self::Active),
            Ok(pb::BrokerState::Slow) => Ok(Self::Slow),
            Ok(pb::BrokerState::Draining) => Ok(Self::Draining),
            Ok(pb::BrokerState::Fenced) => Ok(Self::Fenced),
            Ok(pb::BrokerState::Removed) => Ok(Self::Removed),
            Ok(pb::BrokerState::Unspecified) => Err(RowError::Missing("broker state")),
            Err(_) => Err(RowError::Unknown("broker state")),
        }
    }
}

impl Row for Endpoint {
    type Wire = pb::Endpoint;

    fn to_wire(&self) -> pb::Endpoint {
        pb::Endpoint { listener: self.listener.clone(), host: self.host.clone(), port: self.port.into() }
    }

    fn from_wire(wire: pb::Endpoint) -> Result<Self, RowError> {
        let port = u16::try_from(wire.port).map_err(|_| RowError::Malformed("port"))?;
        Ok(Self { listener: wire.listener, host: wire.host, port })
    }
}

impl Row for DirectoryFacts {
    type Wire = pb::DirectoryFacts;

    fn to_wire(&self) -> pb::DirectoryFacts {
        pb::DirectoryFacts {
            directory_id: self.id.to_wire(),
            clean_epoch: self.clean_epoch,
            persisted_epoch: self.persisted_epoch,
            same_boot: self.same_boot,
            failures: self.failures.clone(),
        }
    }

    fn from_wire(wire: pb::DirectoryFacts) -> Result<Self, RowError> {
        Ok(Self {
            id: DirectoryId::from_wire(wire.directory_id)?,
            clean_epoch: wire.clean_epoch,
            persisted_epoch: wire.persisted_epoch,
            same_boot: wire.same_boot,
            failures: wire.failures,
        })
    }
}

impl Row for Broker {
    type Wire = pb::Broker;

    fn to_wire(&self) -> pb::Broker {
        pb::Broker {
            broker_id: self.id.0,
            epoch: self.epoch,
            state: self.state.to_wire(),
            persisted_epoch: self.persisted_epoch,
            directory_ids: wires(&self.directories),
            rack: self.rack.clone(),
            endpoints: wires(&self.endpoints),
            version: self.version.clone(),
            registered_ms: self.registered_ms,
            incarnation: incarnation_to_wire(self.incarnation),
            failed: wires(&self.failed),
            stopped: self.stopped,
        }
    }

    fn from_wire(wire: pb::Broker) -> Result<Self, RowError> {
        Ok(Self {
            id: BrokerId(wire.broker_id),
            epoch: wire.epoch,
            state: BrokerState::from_wire(wire.state)?,
            persisted_epoch: wire.persisted_epoch,
            directories: all(wire.directory_ids)?,
            rack: wire.rack,
            endpoints: all(wire.endpoints)?,
            version: wire.version,
            registered_ms: wire.registered_ms,
            incarnation: incarnation(&wire.incarnation)?,
            failed: all(wire.failed)?,
            stopped: wire.stopped,
        })
    }
}

impl Row for FailedDirectory {
    type Wire = pb::FailedDirectory;

    fn to_wire(&self) -> pb::FailedDirectory {
        pb::FailedDirectory {
            directory_id: self.id.to_wire(),
            failure: self.failure,
            trusted: self.trusted,
            epoch: self.epoch,
        }
    }

    fn from_wire(wire: pb::FailedDirectory) -> Result<Self, RowError> {
        Ok(Self {
            id: DirectoryId::from_wire(wire.directory_id)?,
            failure: wire.failure,
            trusted: wire.trusted,
            epoch: wire.epoch,
        })
    }
}

impl Row for Controller {
    type Wire = pb::Controller;

    fn to_wire(&self) -> pb::Controller {
        pb::Controller {
            controller_id: self.id,
            directory_id: self.directory.to_wire(),
            endpoint: self.endpoint.clone(),
        }
    }

    fn from_wire(wire: pb::Controller) -> Result<Self, RowError> {
        Ok(Self {
            id: wire.controller_id,
            directory: DirectoryId::from_wire(wire.directory_id)?,
            endpoint: wire.endpoint,
        })
    }
}

impl Row for TopicSummary {
    type Wire = pb::Topic;

    fn to_wire(&self) -> pb::Topic {
        pb::Topic {
            topic_id: self.id.to_wire(),
            name: self.name.to_string(),
            partitions: self.partitions,
            replication_factor: self.replication_factor,
            config: self.config.clone(),
            copied: self.copied.clone(),
            revision: self.revision,
            created_ms: self.created_ms,
        }
    }

    fn from_wire(wire: pb::Topic) -> Result<Self, RowError> {
        Ok(Self {
            id: TopicId::from_wire(wire.topic_id)?,
            name: Arc::from(wire.name),
            partitions: wire.partitions,
            replication_factor: wire.replication_factor,
            config: wire.config,
            copied: wire.copied,
            revision: wire.revision,
            created_ms: wire.created_ms,
        })
    }
}

impl Row for Partition {
    type Wire = pb::Partition;

    fn to_wire(&self) -> pb::Partition {
        let directory = |replica: &Replica| replica.directory().map_or_else(Bytes::new, |id| id.to_wire());
        let broker = |id: Option<BrokerId>| id.map_or(0, |id| id.0);
        pb::Partition {
            replicas: self.replicas.iter().map(|replica| replica.broker.0).collect(),
            directory_ids: self.replicas.iter().map(directory).collect(),
            leader: broker(self.leader),
            leader_epoch: self.leader_epoch,
            partition_epoch: self.partition_epoch,
            min_insync: self.min_insync,
            isr: numbers(&self.isr),
            elr: numbers(&self.elr),
            adding: numbers(&self.adding),
            removing: numbers(&self.removing),
            last_known_leader: broker(self.last_known_leader),
            unclean_epoch: self.unclean_epoch,
            from_elr: self.from_elr,
        }
    }

    fn from_wire(wire: pb::Partition) -> Result<Self, RowError> {
        if wire.replicas.len() != wire.directory_ids.len() {
            return Err(RowError::Malformed("list of directories"));
        }
        let replica = |(broker, id): (i32, Bytes)| {
            let directory = if id.is_empty() { None } else { Some(DirectoryId::from_wire(id)?) };
            Ok(Replica::new(BrokerId(broker), directory))
        };
        let broker = |id: i32| Some(BrokerId(id)).filter(|id| id.0 != 0);
        Ok(Self {
            replicas: wire
                .replicas
                .into_iter()
                .zip(wire.directory_ids)
                .map(replica)
                .collect::<Result<_, _>>()?,
            leader: broker(wire.leader),
            leader_epoch: wire.leader_epoch,
            partition_epoch: wire.partition_epoch,
            min_insync: wire.min_insync,
            isr: broker_ids(wire.isr),
            elr: broker_ids(wire.elr),
            adding: broker_ids(wire.adding),
            removing: broker_ids(wire.removing),
            last_known_leader: broker(wire.last_known_leader),
            unclean_epoch: wire.unclean_epoch,
            from_elr: wire.from_elr,
        })
    }
}
