//! Partitions: where replicas are, who is in sync, who leads.

use weir_cluster::{Row, refusal_name};
use weir_metadata::{Command, Reply};
use weir_proto::internal::v1 as pb;
use weir_rpc::Problem;

use super::{Parts, defect, row};

pub(super) async fn assign_directories(
    parts: &Parts,
    request: pb::AssignDirectoriesRequest,
) -> Result<pb::AssignDirectoriesResponse, Problem> {
    let command = Command::AssignDirectories(row(request.assignments, "assignments")?);
    let (reply, metadata_version) = parts.run(command, false).await?;
    Ok(pb::AssignDirectoriesResponse { metadata_version, refused: refusals(reply)? })
}

pub(super) async fn alter(
    parts: &Parts,
    request: pb::AlterPartitionsRequest,
) -> Result<pb::AlterPartitionsResponse, Problem> {
    let command = Command::AlterPartitions(row(request.changes, "changes")?);
    let (reply, metadata_version) = parts.run(command, false).await?;
    Ok(pb::AlterPartitionsResponse { metadata_version, refused: refusals(reply)? })
}

pub(super) async fn elect_leader(
    parts: &Parts,
    request: pb::ElectLeaderRequest,
) -> Result<pb::ElectLeaderResponse, Problem> {
    let command = Command::ElectLeader(row(request.election, "election")?);
    let (_, metadata_version) = parts.run(command, false).await?;
    Ok(pb::ElectLeaderResponse { metadata_version })
}

fn refusals(reply: Reply) -> Result<Vec<pb::PartitionRefusal>, Problem> {
    let Reply::Partitions { refused } = reply else { return Err(defect()) };
    let refusal =
        |(partition, error): (weir_types::PartitionId, weir_metadata::Error)| pb::PartitionRefusal {
            partition: Some(partition.to_wire()),
            reason: refusal_name(&error).to_owned(),
            message: error.to_string(),
        };
    Ok(refused.into_iter().map(refusal).collect())
}
