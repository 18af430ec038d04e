//! The types openraft is used with, and their form on disk and on the wire.

use std::collections::{BTreeMap, BTreeSet};

use openraft::{BasicNode, CommittedLeaderId, EntryPayload, LeaderId};
use weir_cluster::{Row, RowError};
use weir_metadata::{Entry as Commands, Error, Reply};
use weir_proto::internal::v1 as pb;
use weir_proto::internal::v1::log_row::Payload;

use crate::machine::SnapshotFile;

/// What a committed entry answers.
#[derive(Debug, Default)]
pub(crate) struct Answer {
    /// The version of the image after it.
    pub(crate) version: i64,
    /// The answer to each command. Empty for entries without commands.
    pub(crate) outcomes: Vec<Result<Reply, Error>>,
}

openraft::declare_raft_types!(
    /// openraft with Weir's types.
    pub(crate) Types:
        D = Commands,
        R = Answer,
        NodeId = u64,
        Node = BasicNode,
        Entry = openraft::Entry<Types>,
        SnapshotData = SnapshotFile,
        AsyncRuntime = weir_runtime::RaftRuntime,
);

pub(crate) type Raft = openraft::Raft<Types>;
pub(crate) type LogEntry = openraft::Entry<Types>;
pub(crate) type LogId = openraft::LogId<u64>;
pub(crate) type Vote = openraft::Vote<u64>;
pub(crate) type StoredMembership = openraft::StoredMembership<u64, BasicNode>;
pub(crate) type SnapshotMeta = openraft::SnapshotMeta<u64, BasicNode>;
pub(crate) type StorageError = openraft::StorageError<u64>;
pub(crate) type StorageIoError = openraft::StorageIOError<u64>;
type Membership = openraft::Membership<u64, BasicNode>;

/// Of the image: versions, epochs and ids are raft indices, and stay far below the sign.
pub(crate) fn version_of(index: u64) -> i64 {
    i64::try_from(index).unwrap_or(i64::MAX)
}

/// [`Row`], for the types of openraft: neither they nor the trait are of this crate.
pub(crate) trait RaftRow: Sized {
    type Wire;
    fn to_wire(&self) -> Self::Wire;
    fn from_wire(wire: Self::Wire) -> Result<Self, RowError>;
}

impl RaftRow for Vote {
    type Wire = pb::RaftVote;

    fn to_wire(&self) -> pb::RaftVote {
        pb::RaftVote { term: self.leader_id.term, node_id: self.leader_id.node_id, committed: self.committed }
    }

    fn from_wire(wire: pb::RaftVote) -> Result<Self, RowError> {
        Ok(Self { leader_id: LeaderId::new(wire.term, wire.node_id), committed: wire.committed })
    }
}

impl RaftRow for LogId {
    type Wire = pb::LogId;

    fn to_wire(&self) -> pb::LogId {
        pb::LogId { term: self.leader_id.term, node_id: self.leader_id.node_id, index: self.index }
    }

    fn from_wire(wire: pb::LogId) -> Result<Self, RowError> {
        Ok(Self::new(CommittedLeaderId::new(wire.term, wire.node_id), wire.index))
    }
}

/// Present, as every version writes it.
pub(crate) fn required<T: RaftRow>(wire: Option<T::Wire>, name: &'static str) -> Result<T, RowError> {
    T::from_wire(wire.ok_or(RowError::Missing(name))?)
}

/// Present or not.
pub(crate) fn optional<T: RaftRow>(wire: Option<T::Wire>) -> Result<Option<T>, RowError> {
    wire.map(T::from_wire).transpose()
}

impl RaftRow for Membership {
    type Wire = pb::Membership;

    fn to_wire(&self) -> pb::Membership {
        pb::Membership {
            voters: self
                .get_joint_config()
                .iter()
                .map(|set| pb::VoterSet { node_ids: set.iter().copied().collect() })
                .collect(),
            nodes: self.nodes().map(|(id, node)| (*id, node.addr.clone())).collect(),
        }
    }

    fn from_wire(wire: pb::Membership) -> Result<Self, RowError> {
        let sets: Vec<BTreeSet<u64>> =
            wire.voters.into_iter().map(|set| set.node_ids.into_iter().collect()).collect();
        let nodes: BTreeMap<u64, BasicNode> =
            wire.nodes.into_iter().map(|(id, endpoint)| (id, BasicNode::new(endpoint))).collect();
        Ok(Self::new(sets, nodes))
    }
}

impl RaftRow for StoredMembership {
    type Wire = pb::StoredMembership;

    fn to_wire(&self) -> pb::StoredMembership {
        pb::StoredMembership {
            log_id: self.log_id().as_ref().map(RaftRow::to_wire),
            membership: Some(self.membership().to_wire()),
        }
    }

    fn from_wire(wire: pb::StoredMembership) -> Result<Self, RowError> {
        Ok(Self::new(optional(wire.log_id)?, required(wire.membership, "membership")?))
    }
}

impl RaftRow for SnapshotMeta {
    type Wire = pb::SnapshotMeta;

    fn to_wire(&self) -> pb::SnapshotMeta {
        pb::SnapshotMeta {
            last_log_id: self.last_log_id.as_ref().map(RaftRow::to_wire),
            last_membership: Some(self.last_membership.to_wire()),
            snapshot_id: self.snapshot_id.clone(),
        }
    }

    fn from_wire(wire: pb::SnapshotMeta) -> Result<Self, RowError> {
        Ok(Self {
            last_log_id: optional(wire.last_log_id)?,
            last_membership: required(wire.last_membership, "membership")?,
            snapshot_id: wire.snapshot_id,
        })
    }
}

impl RaftRow for LogEntry {
    type Wire = pb::LogRow;

    fn to_wire(&self) -> pb::LogRow {
        let payload = match &self.payload {
            EntryPayload::Blank => Payload::Blank(pb::Blank {}),
            EntryPayload::Normal(commands) => Payload::Entry(Row::to_wire(commands)),
            EntryPayload::Membership(membership) => Payload::Membership(membership.to_wire()),
        };
        pb::LogRow { log_id: Some(self.log_id.to_wire()), payload: Some(payload) }
    }

    fn from_wire(wire: pb::LogRow) -> Result<Self, RowError> {
        let payload = match wire.payload.ok_or(RowError::Unknown("payload"))? {
            Payload::Blank(_) => EntryPayload::Blank,
            Payload::Entry(entry) => EntryPayload::Normal(Row::from_wire(entry)?),
            Payload::Membership(membership) => EntryPayload::Membership(RaftRow::from_wire(membership)?),
        };
        Ok(Self { log_id: required(wire.log_id, "log id")?, payload })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_entries_read_back() {
        let log_id = LogId::new(CommittedLeaderId::new(3, 4), 5);
        let nodes = [(1, BasicNode::new("a:1")), (2, BasicNode::new("b:2")), (9, BasicNode::new("c:3"))];
        let membership =
            Membership::new(vec![[1].into(), [1, 2].into()], nodes.into_iter().collect::<BTreeMap<_, _>>());
        let commands = Commands { at_ms: 7, author: 8, commands: Vec::new() };
        for payload in [
            EntryPayload::Blank,
            EntryPayload::Normal(commands),
            EntryPayload::Membership(membership.clone()),
        ] {
            let entry = LogEntry { log_id, payload };
            assert_eq!(LogEntry::from_wire(entry.to_wire()), Ok(entry));
        }
        assert_eq!(LogEntry::from_wire(pb::LogRow::default()), Err(RowError::Unknown("payload")));
        let meta = SnapshotMeta {
            last_log_id: Some(log_id),
            last_membership: StoredMembership::new(Some(log_id), membership),
            snapshot_id: "s".to_owned(),
        };
        assert_eq!(SnapshotMeta::from_wire(meta.to_wire()), Ok(meta));
        let vote = Vote::new_committed(3, 4);
        assert_eq!(Vote::from_wire(vote.to_wire()), Ok(vote));
    }
}
