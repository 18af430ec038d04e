//! Who serves what, from this broker's own copy of the cluster's metadata.

use prost::Message;
use tonic::{Request, Response, Status};
use weir_metadata::{Image, Partition, Topic};
use weir_proto::v1::{
    Broker as WireBroker, GetMetadataRequest, GetMetadataResponse, GetServerInfoResponse, PartitionMetadata,
    TopicMetadata,
};
use weir_rpc::Problem;

use crate::broker::Broker;
use crate::calls::shared::{hello, page};
use crate::serve::Entrance;

/// What a message says of topics: one more is begun below this, and the largest takes about as much. With the brokers
/// that stays far below what stock clients take.
pub(super) const TOPICS_BYTES: usize = 1 << 20;

/// The server itself.
pub(crate) fn server_info(broker: &Broker) -> GetServerInfoResponse {
    let image = broker.cluster.image();
    GetServerInfoResponse {
        cluster_id: image.cluster_id().map(|id| id.to_string()).unwrap_or_default(),
        broker_id: broker.cluster.broker_id().0,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        features: hello::FEATURES.iter().map(|feature| (*feature).to_owned()).collect(),
        limits: Some(broker.limits()),
        principal: String::new(),
        now_ms: broker.os.wall_ms(),
    }
}

/// One page of the map.
pub(crate) fn get(
    broker: &Broker,
    entrance: Entrance,
    request: Request<GetMetadataRequest>,
) -> Result<Response<GetMetadataResponse>, Status> {
    let request = request.into_inner();
    if request.if_newer_than < 0 {
        return Err(
            Problem::out_of_range("if_newer_than", request.if_newer_than, "must not be negative").into()
        );
    }
    let image = broker.cluster.image();
    let version = image.version();
    if request.if_newer_than > 0 && version <= request.if_newer_than {
        return Ok(Response::new(GetMetadataResponse { version, ..GetMetadataResponse::default() }));
    }
    let size = page::size(request.page_size)?;
    let after = page::after(&request.page_token)?;
    let mut topics = Vec::new();
    let mut bytes = 0;
    let mut next_page_token = String::new();
    for topic in wanted(&image, &request.topics, &after) {
        let full = topics.len() == size || bytes >= TOPICS_BYTES;
        if let Some(last) = topics.last().filter(|_| full) {
            let last: &TopicMetadata = last;
            next_page_token = page::token(version, &last.name);
            break;
        }
        let topic = topic_metadata(topic);
        bytes += topic.encoded_len();
        topics.push(topic);
    }
    Ok(Response::new(GetMetadataResponse {
        version,
        brokers: brokers(&image, entrance),
        topics,
        next_page_token,
    }))
}

/// The topics named, or all, behind a name, sorted.
pub(super) fn wanted<'a>(
    image: &'a Image,
    names: &[String],
    after: &'a str,
) -> Box<dyn Iterator<Item = &'a Topic> + 'a> {
    if names.is_empty() {
        return Box::new(image.topics_after(after));
    }
    let mut found: Vec<&Topic> = names
        .iter()
        .filter(|name| name.as_str() > after)
        .filter_map(|name| image.topic_named(name))
        .collect();
    found.sort_by(|a, b| a.name.cmp(&b.name));
    found.dedup_by(|a, b| a.id == b.id);
    Box::new(found.into_iter())
}

/// Who serves, and where on the listener that is asked.
pub(super) fn brokers(image: &Image, entrance: Entrance) -> Vec<WireBroker> {
    image
        .brokers()
        .filter(|broker| broker.state.is_alive())
        .map(|broker| WireBroker {
            broker_id: broker.id.0,
            rack: broker.rack.clone(),
            endpoint: broker
                .endpoint(entrance.name())
                .map(|endpoint| format!("{}:{}", endpoint.host, endpoint.port))
                .unwrap_or_default(),
        })
        .collect()
}

pub(super) fn topic_metadata(topic: &Topic) -> TopicMetadata {
    let partitions =
        topic.partitions.iter().map(|(number, partition)| partition_metadata(*number, partition));
    with_partitions(topic, partitions.collect())
}

/// The topic, with these of its partitions.
pub(super) fn with_partitions(topic: &Topic, partitions: Vec<PartitionMetadata>) -> TopicMetadata {
    TopicMetadata {
        name: topic.name.to_string(),
        topic_id: topic.id.to_string(),
        partition_count: topic.partition_count(),
        partitions,
    }
}

pub(super) fn partition_metadata(number: i32, partition: &Partition) -> PartitionMetadata {
    PartitionMetadata {
        partition: number,
        leader: partition.leader.map_or(-1, |leader| leader.0),
        leader_epoch: partition.leader_epoch,
        replicas: partition.replicas.iter().map(|replica| replica.broker.0).collect(),
        isr: partition.isr.iter().map(|broker| broker.0).collect(),
    }
}
