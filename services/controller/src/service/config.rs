//! The cluster's settings and its producer ids.

use weir_cluster::public::cluster_configs_named;
use weir_metadata::{Command, Reply, SetClusterConfig};
use weir_proto::internal::v1 as pb;
use weir_proto::v1;
use weir_proto::v1::ErrorReason;
use weir_rpc::Problem;

use super::{Parts, defect, required, row};

pub(super) async fn update(
    parts: &Parts,
    request: pb::UpdateConfigsRequest,
) -> Result<pb::UpdateConfigsResponse, Problem> {
    let asked = required(request.request, "request")?;
    if let Some(broker) = asked.broker_id {
        let said = format!("broker {broker} has no settings in the cluster: change its configuration file");
        return Err(Problem::new(ErrorReason::NotSupported, said));
    }
    let names: Vec<String> = asked.set_config.keys().chain(&asked.unset_config).cloned().collect();
    let command = SetClusterConfig {
        set: asked.set_config,
        unset: asked.unset_config,
        expected: asked.expected_config,
        request_id: asked.request_id,
    };
    let (reply, metadata_version) =
        parts.run(Command::SetClusterConfig(command), asked.validate_only).await?;
    let Reply::ClusterConfigSet { before, after } = reply else { return Err(defect()) };
    let response = Some(v1::UpdateConfigsResponse {
        before: cluster_configs_named(&before, names.iter()),
        after: cluster_configs_named(&after, names.iter()),
    });
    Ok(pb::UpdateConfigsResponse { response, metadata_version })
}

pub(super) async fn allocate_producer_ids(
    parts: &Parts,
    request: pb::AllocateProducerIdsRequest,
) -> Result<pb::AllocateProducerIdsResponse, Problem> {
    let by = row(request.broker, "broker")?;
    let (reply, _) = parts.run(Command::AllocateProducerIds(by), false).await?;
    let Reply::ProducerIds { first, count } = reply else { return Err(defect()) };
    Ok(pb::AllocateProducerIdsResponse { first, count })
}
