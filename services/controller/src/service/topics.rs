//! Topics: what clients ask of brokers, which forward it here as it came.

use weir_cluster::public::{topic, topic_in_full};
use weir_metadata::{Command, CreateTopic, DeleteTopic, Reply, UpdateTopic};
use weir_proto::internal::v1 as pb;
use weir_proto::v1;
use weir_proto::v1::ErrorReason;
use weir_rpc::Problem;
use weir_types::TopicId;

use super::{Parts, defect, required};

pub(super) async fn create(
    parts: &Parts,
    request: pb::CreateTopicRequest,
) -> Result<pb::CreateTopicResponse, Problem> {
    let internal = request.internal;
    let asked = required(request.request, "request")?;
    let wanted = required(asked.topic, "topic")?;
    let command = CreateTopic {
        name: wanted.name,
        topic_id: TopicId(parts.os.random_u128()),
        partitions: wanted.partitions,
        replication_factor: wanted.replication_factor,
        config: wanted.config,
        if_absent: asked.if_absent,
        internal,
        request_id: asked.request_id,
    };
    let (reply, metadata_version) = parts.run(Command::CreateTopic(command), asked.validate_only).await?;
    let Reply::TopicCreated { topic, created } = reply else { return Err(defect()) };
    let image = parts.machine.hub().image();
    let topic = Some(topic_in_full(&topic, image.cluster_settings()));
    let response = Some(v1::CreateTopicResponse { topic, created });
    Ok(pb::CreateTopicResponse { response, metadata_version })
}

pub(super) async fn update(
    parts: &Parts,
    request: pb::UpdateTopicRequest,
) -> Result<pb::UpdateTopicResponse, Problem> {
    let asked = required(request.request, "request")?;
    let command = UpdateTopic {
        name: asked.name,
        set_config: asked.set_config,
        unset_config: asked.unset_config,
        partitions: asked.partitions,
        expected_revision: asked.expected_revision,
        request_id: asked.request_id,
    };
    let (reply, metadata_version) = parts.run(Command::UpdateTopic(command), asked.validate_only).await?;
    let Reply::TopicUpdated { before, after } = reply else { return Err(defect()) };
    let image = parts.machine.hub().image();
    let in_full = |topic| Some(topic_in_full(topic, image.cluster_settings()));
    let response = Some(v1::UpdateTopicResponse { before: in_full(&before), after: in_full(&after) });
    Ok(pb::UpdateTopicResponse { response, metadata_version })
}

pub(super) async fn delete(
    parts: &Parts,
    request: pb::DeleteTopicRequest,
) -> Result<pb::DeleteTopicResponse, Problem> {
    let asked = required(request.request, "request")?;
    let guard = Some(asked.topic_id).filter(|id| !id.is_empty());
    let topic_id = guard.map(|id| id.parse()).transpose().map_err(|error: weir_types::ParseIdError| {
        Problem::new(ErrorReason::FieldMalformed, error.to_string()).fact("field", "topic_id")
    })?;
    let command = DeleteTopic { name: asked.name, topic_id, request_id: asked.request_id };
    let (reply, metadata_version) = parts.run(Command::DeleteTopic(command), asked.validate_only).await?;
    let Reply::TopicDeleted { topic: deleted } = reply else { return Err(defect()) };
    let response = Some(v1::DeleteTopicResponse { topic: Some(topic(&deleted)) });
    Ok(pb::DeleteTopicResponse { response, metadata_version })
}
