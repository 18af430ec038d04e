//! Topics: listings from our own copy of the metadata, changes by the controller. A change is answered when this
//! broker has seen it, so that the caller can use what it made.

use std::sync::Arc;
use std::time::Duration;

use tonic::{Request, Response, Status};
use weir_cluster::public;
use weir_metadata::{Image, Partition};
use weir_proto::internal::v1 as wire;
use weir_proto::v1::{
    CreateTopicRequest, CreateTopicResponse, DeleteTopicRequest, DeleteTopicResponse, GetTopicRequest,
    GetTopicResponse, ListTopicsRequest, ListTopicsResponse, Topic, UpdateTopicRequest, UpdateTopicResponse,
};
use weir_rpc::Problem;
use weir_types::units::show_bytes;

use crate::broker::Broker;
use crate::calls::shared::{of_controller, page};
use crate::cluster::{answer_by, ensure_request_id};
use crate::topic_map;

/// How long the other replicas of a new partition are waited for: their brokers live, and have nothing to catch up with.
const JOIN: Duration = Duration::from_secs(1);
/// The leader epoch of a partition's first leadership.
const FIRST_EPOCH: i32 = 1;

/// Makes a topic.
pub(crate) async fn create(
    broker: &Arc<Broker>,
    request: Request<CreateTopicRequest>,
) -> Result<Response<CreateTopicResponse>, Status> {
    let until = answer_by(&request);
    let mut request = request.into_inner();
    let validate_only = request.validate_only;
    let batch_bytes_max =
        request.topic.as_ref().and_then(|topic| topic.config.get("batch_bytes_max")).cloned();
    check_batch_bytes(broker, batch_bytes_max.as_deref())?;
    ensure_request_id(&*broker.os, &mut request.request_id);
    let request = wire::CreateTopicRequest { request: Some(request), internal: false };
    let answer = broker
        .cluster
        .change_by(until, request, |mut client, request| async move { client.create_topic(request).await })
        .await?;
    let mut response = of_controller(answer.response)?;
    if !validate_only {
        let name = response.topic.as_ref().map(|topic| topic.name.clone()).unwrap_or_default();
        usable(broker, &name, answer.metadata_version).await;
        fill_effective(broker, &mut response.topic);
    }
    Ok(Response::new(response))
}

/// Waits until a topic that was changed can be used: its partitions are led, for the replicas are made after the topic is; and,
/// for a moment more, new ones take appends. A leader begins in sync with whoever has made his replica by then, which may be too
/// few, and the others join it at once. Where one does not, whoever asked for the change need not wait for it.
async fn usable(broker: &Broker, name: &str, version: i64) {
    let cluster = &broker.cluster;
    cluster
        .seen_where(|image| image.version() >= version && all(image, name, |it| it.leader.is_some()))
        .await;
    cluster
        .seen_within(JOIN, |image| {
            all(image, name, |it| it.leader_epoch > FIRST_EPOCH || !it.lacks_members())
        })
        .await;
    broker.replicas.settled(cluster.image().version()).await;
}

/// Whether something holds of each partition of a topic, if it is there.
fn all(image: &Image, name: &str, mut holds: impl FnMut(&Partition) -> bool) -> bool {
    image.topic_named(name).is_none_or(|topic| topic.partitions.values().all(|partition| holds(partition)))
}

/// Topics may not allow what this server cannot receive.
pub(crate) fn check_batch_bytes(broker: &Broker, asked: Option<&str>) -> Result<(), Problem> {
    let Some(asked) = asked.and_then(|asked| weir_types::units::bytes(asked).ok()) else { return Ok(()) };
    let limit = broker.config.batch_bytes_max();
    let show = |bytes: usize| show_bytes(i64::try_from(bytes).unwrap_or(i64::MAX));
    match usize::try_from(asked) {
        Ok(over) if over > limit => Err(Problem::out_of_range(
            "batch_bytes_max",
            show_bytes(asked),
            &format!(
                "this server takes requests of {} (request_bytes_max), so batches of {}: raise request_bytes_max \
                 first, a setting of the process, or choose less",
                show(broker.config.request_bytes_max),
                show(limit)
            ),
        )),
        _ => Ok(()),
    }
}

/// One topic.
pub(crate) fn get(
    broker: &Broker,
    request: Request<GetTopicRequest>,
) -> Result<Response<GetTopicResponse>, Status> {
    let name = request.into_inner().name;
    if name.is_empty() {
        return Err(Problem::required("name", "which topic").status());
    }
    let image = broker.cluster.image();
    let topic = image.topic_named(&name).ok_or_else(|| not_found(&image, &name))?;
    Ok(Response::new(GetTopicResponse { topic: Some(public::image_topic_in_full(&image, topic)) }))
}

fn not_found(image: &Image, name: &str) -> Problem {
    topic_map::not_found(name, image.topics().map(|topic| &*topic.name))
}

/// One page of the topics.
pub(crate) fn list(
    broker: &Broker,
    request: Request<ListTopicsRequest>,
) -> Result<Response<ListTopicsResponse>, Status> {
    let request = request.into_inner();
    let size = page::size(request.page_size)?;
    let after = page::after(&request.page_token)?;
    let image = broker.cluster.image();
    let mut listed = image
        .topics_after(&after)
        .filter(|topic| request.internal || !weir_metadata::is_internal(&topic.name));
    let topics: Vec<Topic> =
        listed.by_ref().take(size).map(|topic| public::topic(&topic.summary())).collect();
    let next_page_token = match (listed.next(), topics.last()) {
        (Some(_), Some(last)) => page::token(image.version(), &last.name),
        _ => String::new(),
    };
    Ok(Response::new(ListTopicsResponse { topics, next_page_token }))
}

/// Changes a topic.
pub(crate) async fn update(
    broker: &Arc<Broker>,
    request: Request<UpdateTopicRequest>,
) -> Result<Response<UpdateTopicResponse>, Status> {
    let until = answer_by(&request);
    let mut request = request.into_inner();
    let validate_only = request.validate_only;
    check_batch_bytes(broker, request.set_config.get("batch_bytes_max").map(String::as_str))?;
    ensure_request_id(&*broker.os, &mut request.request_id);
    let request = wire::UpdateTopicRequest { request: Some(request) };
    let answer = broker
        .cluster
        .change_by(until, request, |mut client, request| async move { client.update_topic(request).await })
        .await?;
    let mut response = of_controller(answer.response)?;
    if !validate_only {
        let name = response.after.as_ref().map(|topic| topic.name.clone()).unwrap_or_default();
        usable(broker, &name, answer.metadata_version).await;
        fill_effective(broker, &mut response.after);
    }
    Ok(Response::new(response))
}

/// Deletes a topic.
pub(crate) async fn delete(
    broker: &Arc<Broker>,
    request: Request<DeleteTopicRequest>,
) -> Result<Response<DeleteTopicResponse>, Status> {
    let until = answer_by(&request);
    let mut request = request.into_inner();
    ensure_request_id(&*broker.os, &mut request.request_id);
    let request = wire::DeleteTopicRequest { request: Some(request) };
    let answer = broker
        .cluster
        .change_by(until, request, |mut client, request| async move { client.delete_topic(request).await })
        .await?;
    broker.cluster.seen(answer.metadata_version).await;
    broker.replicas.settled(answer.metadata_version).await;
    Ok(Response::new(answer.response.unwrap_or_default()))
}

fn fill_effective(broker: &Broker, topic: &mut Option<Topic>) {
    let image = broker.cluster.image();
    let known = topic.as_ref().and_then(|topic| image.topic_named(&topic.name));
    if let Some(known) = known {
        *topic = Some(public::image_topic_in_full(&image, known));
    }
}
