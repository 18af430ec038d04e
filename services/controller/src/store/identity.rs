//! Who a controller is. It lives on its disk and nowhere else: a lost disk is another controller.

use bytes::Bytes;
use weir_cluster::{Row, RowError};
use weir_proto::internal::v1 as pb;
use weir_types::{ClusterId, DirectoryId};

/// Who a controller is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    /// Its directory, random, from the first start on.
    pub(crate) directory: DirectoryId,
    /// The cluster and its id in the quorum, once it has them.
    pub(crate) member: Option<Member>,
}

/// A controller's place in a quorum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Member {
    /// The cluster.
    pub(crate) cluster_id: ClusterId,
    /// Its id: the raft index of the entry that let it join, 1 for the one that made the cluster.
    pub(crate) node_id: u64,
    /// The quorum: 0 at first, another one after a recovery. Those whose quorum was given up must not be heard.
    pub(crate) quorum_id: u128,
}

impl Member {
    /// The quorum as messages name it.
    pub(crate) fn quorum(&self) -> Bytes {
        match self.quorum_id {
            0 => Bytes::new(),
            id => Bytes::copy_from_slice(&id.to_be_bytes()),
        }
    }
}

/// The quorum that a message names.
pub(crate) fn quorum(wire: &Bytes) -> Result<u128, RowError> {
    if wire.is_empty() {
        return Ok(0);
    }
    let bytes: [u8; 16] = wire.as_ref().try_into().map_err(|_| RowError::Malformed("quorum id"))?;
    Ok(u128::from_be_bytes(bytes))
}

impl Row for Identity {
    type Wire = pb::Identity;

    fn to_wire(&self) -> pb::Identity {
        pb::Identity {
            cluster_id: self.member.map(|member| member.cluster_id.to_wire()).unwrap_or_default(),
            node_id: self.member.map_or(0, |member| member.node_id),
            directory_id: self.directory.to_wire(),
            quorum_id: self.member.map(|member| member.quorum()).unwrap_or_default(),
        }
    }

    fn from_wire(wire: pb::Identity) -> Result<Self, RowError> {
        let member = match wire.node_id {
            0 => None,
            node_id => Some(Member {
                cluster_id: ClusterId::from_wire(wire.cluster_id)?,
                node_id,
                quorum_id: quorum(&wire.quorum_id)?,
            }),
        };
        Ok(Self { directory: DirectoryId::from_wire(wire.directory_id)?, member })
    }
}
