//! Remembered answers, as they stand in snapshots.

use weir_metadata::{Remembered, Reply};
use weir_proto::internal::v1 as pb;
use weir_proto::internal::v1::remembered_reply::Reply as Kind;

use super::{Row, RowError, required};

impl Row for Remembered {
    type Wire = pb::RememberedReply;

    fn to_wire(&self) -> pb::RememberedReply {
        let reply = match &self.reply {
            Reply::TopicCreated { topic, created } => Some(Kind::TopicCreated(pb::TopicCreatedReply {
                topic: Some(topic.to_wire()),
                created: *created,
            })),
            Reply::TopicUpdated { before, after } => Some(Kind::TopicUpdated(pb::TopicUpdatedReply {
                before: Some(before.to_wire()),
                after: Some(after.to_wire()),
            })),
            Reply::TopicDeleted { topic } => Some(Kind::TopicDeleted(topic.to_wire())),
            Reply::ClusterConfigSet { before, after } => {
                Some(Kind::ClusterConfigSet(pb::ClusterConfigReply {
                    before: before.clone(),
                    after: after.clone(),
                }))
            }
            // Commands with these answers carry no request id, so nobody remembers them.
            Reply::Done
            | Reply::ControllerJoined { .. }
            | Reply::BrokerRegistered { .. }
            | Reply::BrokerDistrusted { .. }
            | Reply::Partitions { .. }
            | Reply::ProducerIds { .. } => None,
        };
        pb::RememberedReply { request_id: self.request_id.clone(), at_ms: self.at_ms, reply }
    }

    fn from_wire(wire: pb::RememberedReply) -> Result<Self, RowError> {
        let reply = match wire.reply.ok_or(RowError::Unknown("reply"))? {
            Kind::TopicCreated(row) => {
                Reply::TopicCreated { topic: required(row.topic, "topic")?, created: row.created }
            }
            Kind::TopicUpdated(row) => Reply::TopicUpdated {
                before: required(row.before, "topic before")?,
                after: required(row.after, "topic after")?,
            },
            Kind::TopicDeleted(row) => Reply::TopicDeleted { topic: Row::from_wire(row)? },
            Kind::ClusterConfigSet(row) => Reply::ClusterConfigSet { before: row.before, after: row.after },
        };
        Ok(Self { request_id: wire.request_id, at_ms: wire.at_ms, reply })
    }
}
