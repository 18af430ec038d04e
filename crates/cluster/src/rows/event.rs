//! Events and deltas, as watchers get them.

use weir_metadata::{Delta, Event, Partition};
use weir_proto::internal::v1 as pb;
use weir_proto::internal::v1::event::Event as Kind;
use weir_types::{BrokerId, ClusterId, DirectoryId, PartitionId, TopicId};

use super::{Row, RowError, all, required, wires};

impl Row for Delta {
    type Wire = pb::Delta;

    fn to_wire(&self) -> pb::Delta {
        pb::Delta {
            previous: self.previous,
            version: self.version,
            events: wires(&self.events),
            author: self.author,
        }
    }

    fn from_wire(wire: pb::Delta) -> Result<Self, RowError> {
        Ok(Self {
            previous: wire.previous,
            version: wire.version,
            author: wire.author,
            events: all(wire.events)?,
        })
    }
}

impl Row for (PartitionId, Partition) {
    type Wire = pb::PartitionRow;

    fn to_wire(&self) -> pb::PartitionRow {
        pb::PartitionRow { partition: Some(self.0.to_wire()), record: Some(self.1.to_wire()) }
    }

    fn from_wire(wire: pb::PartitionRow) -> Result<Self, RowError> {
        Ok((required(wire.partition, "partition")?, required(wire.record, "partition record")?))
    }
}

impl Row for Event {
    type Wire = pb::Event;

    fn to_wire(&self) -> pb::Event {
        let event = match self {
            Self::ClusterCreated { cluster_id, feature_level, settings } => {
                Kind::ClusterCreated(pb::ClusterCreated {
                    cluster_id: cluster_id.to_wire(),
                    feature_level: *feature_level,
                    settings: settings.clone(),
                })
            }
            Self::BrokerRegistered { broker, facts, damaged } => {
                Kind::BrokerRegistered(pb::BrokerRegistered {
                    broker: Some(broker.to_wire()),
                    facts: wires(facts),
                    damaged: wires(damaged),
                })
            }
            Self::BrokerUnfenced { broker } => Kind::BrokerUnfenced(broker.0),
            Self::BrokerFenced { broker } => Kind::BrokerFenced(broker.0),
            Self::BrokerStopped { broker } => Kind::BrokerStopped(broker.0),
            Self::BrokerDraining { broker } => Kind::BrokerDraining(broker.0),
            Self::BrokerSlow { broker, slow } => {
                Kind::BrokerSlow(pb::BrokerSlow { broker_id: broker.0, slow: *slow })
            }
            Self::TopicCreated { topic, partitions } => Kind::TopicCreated(pb::TopicCreated {
                topic: Some(topic.to_wire()),
                partitions: wires(partitions),
            }),
            Self::TopicConfigured { topic_id, config, revision } => {
                Kind::TopicConfigured(pb::TopicConfigured {
                    topic_id: topic_id.to_wire(),
                    config: config.clone(),
                    revision: *revision,
                })
            }
            Self::PartitionsAdded { topic_id, partitions, revision } => {
                Kind::PartitionsAdded(pb::PartitionsAdded {
                    topic_id: topic_id.to_wire(),
                    partitions: wires(partitions),
                    revision: *revision,
                })
            }
            Self::TopicDeleted { topic_id } => Kind::TopicDeleted(topic_id.to_wire()),
            Self::PartitionsChanged { partitions } => {
                Kind::PartitionsChanged(pb::PartitionsChanged { partitions: wires(partitions) })
            }
            Self::ClusterConfigured { settings } => {
                Kind::ClusterConfigured(pb::ClusterConfigured { settings: settings.clone() })
            }
            Self::ProducerIdsAllocated { next } => Kind::ProducerIdsAllocated(*next),
            Self::ControllerJoined { controller } => Kind::ControllerJoined(controller.to_wire()),
            Self::LevelFinalized { level } => Kind::LevelFinalized(*level),
            Self::BrokerRemoved { broker } => Kind::BrokerRemoved(broker.0),
            Self::DirectoryFailed { broker, directory, failures } => {
                Kind::DirectoryFailed(pb::DirectoryFailed {
                    broker_id: broker.0,
                    directory_id: directory.to_wire(),
                    failures: failures.clone(),
                })
            }
            Self::BrokerTrusted { broker, failures } => {
                Kind::BrokerTrusted(pb::TrustBroker { broker_id: broker.0, failures: failures.clone() })
            }
            Self::ControllerRemoved { id } => Kind::ControllerRemoved(*id),
        };
        pb::Event { event: Some(event) }
    }

    fn from_wire(wire: pb::Event) -> Result<Self, RowError> {
        Ok(match wire.event.ok_or(RowError::Unknown("event"))? {
            Kind::ClusterCreated(row) => Self::ClusterCreated {
                cluster_id: ClusterId::from_wire(row.cluster_id)?,
                feature_level: row.feature_level,
                settings: row.settings,
            },
            Kind::BrokerRegistered(row) => Self::BrokerRegistered {
                broker: required(row.broker, "broker")?,
                facts: all(row.facts)?,
                damaged: all(row.damaged)?,
            },
            Kind::BrokerUnfenced(id) => Self::BrokerUnfenced { broker: BrokerId(id) },
            Kind::BrokerFenced(id) => Self::BrokerFenced { broker: BrokerId(id) },
            Kind::BrokerStopped(id) => Self::BrokerStopped { broker: BrokerId(id) },
            Kind::BrokerDraining(id) => Self::BrokerDraining { broker: BrokerId(id) },
            Kind::BrokerSlow(row) => Self::BrokerSlow { broker: BrokerId(row.broker_id), slow: row.slow },
            Kind::TopicCreated(row) => {
                Self::TopicCreated { topic: required(row.topic, "topic")?, partitions: all(row.partitions)? }
            }
            Kind::TopicConfigured(row) => Self::TopicConfigured {
                topic_id: TopicId::from_wire(row.topic_id)?,
                config: row.config,
                revision: row.revision,
            },
            Kind::PartitionsAdded(row) => Self::PartitionsAdded {
                topic_id: TopicId::from_wire(row.topic_id)?,
                partitions: all(row.partitions)?,
                revision: row.revision,
            },
            Kind::TopicDeleted(id) => Self::TopicDeleted { topic_id: TopicId::from_wire(id)? },
            Kind::PartitionsChanged(row) => Self::PartitionsChanged { partitions: all(row.partitions)? },
            Kind::ClusterConfigured(row) => Self::ClusterConfigured { settings: row.settings },
            Kind::ProducerIdsAllocated(next) => Self::ProducerIdsAllocated { next },
            Kind::ControllerJoined(row) => Self::ControllerJoined { controller: Row::from_wire(row)? },
            Kind::LevelFinalized(level) => Self::LevelFinalized { level },
            Kind::BrokerRemoved(id) => Self::BrokerRemoved { broker: BrokerId(id) },
            Kind::DirectoryFailed(row) => Self::DirectoryFailed {
                broker: BrokerId(row.broker_id),
                directory: DirectoryId::from_wire(row.directory_id)?,
                failures: row.failures,
            },
            Kind::BrokerTrusted(row) => {
                Self::BrokerTrusted { broker: BrokerId(row.broker_id), failures: row.failures }
            }
            Kind::ControllerRemoved(id) => Self::ControllerRemoved { id },
        })
    }
}
