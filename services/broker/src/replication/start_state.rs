//! What a log knows where it begins, on its way from a leader to a follower that begins there (correctness rules 15, 16).

use bytes::{Bytes, BytesMut};
use tonic::Status;
use weir_cluster::Row;
use weir_proto::internal::v1 as wire;
use weir_storage::StartState;

use crate::replication::followed::Followed;
use crate::replication::{Replication, link};

/// It is sent in pieces of so many bytes.
const CHUNK_BYTES: usize = 1 << 20;

/// Asks a leader.
///
/// # Errors
/// It does not answer, or not with a state of this partition.
pub(crate) async fn fetch(hub: &Replication, followed: &Followed) -> Result<StartState, Status> {
    let (mut client, hello) = link::client(hub, followed.leader)?;
    let request = wire::GetStartStateRequest {
        cluster_id: hello.cluster_id,
        follower: hello.follower,
        partition: Some(followed.id.to_wire()),
        leader_epoch: followed.epoch,
    };
    let mut chunks = client.get_start_state(request).await?.into_inner();
    let mut bytes = BytesMut::new();
    while let Some(chunk) = chunks.message().await? {
        if bytes.len() + chunk.chunk.len() > StartState::BYTES_MAX {
            return Err(Status::out_of_range(format!("it is longer than {} bytes", StartState::BYTES_MAX)));
        }
        bytes.extend_from_slice(&chunk.chunk);
    }
    let state = StartState::from_bytes(&bytes).map_err(|error| Status::data_loss(error.to_string()))?;
    if state.id() != followed.id {
        return Err(Status::data_loss(format!("it is of {}, not of {}", state.id(), followed.id)));
    }
    Ok(state)
}

/// A state in the pieces that it is sent in.
pub(crate) fn chunks(mut state: Bytes) -> Vec<Result<wire::GetStartStateResponse, Status>> {
    let mut chunks = Vec::new();
    while !state.is_empty() {
        let chunk = state.split_to(state.len().min(CHUNK_BYTES));
        chunks.push(Ok(wire::GetStartStateResponse { chunk }));
    }
    chunks
}
