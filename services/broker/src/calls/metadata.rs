//! Who serves what, from this broker's own copy of the cluster's metadata.

use std::sync::Arc;

use futures::{Stream, stream};
use tokio::sync::watch;
use tonic::{Request, Response, Status};
use weir_metadata::{Image, Topic};
use weir_proto::v1::{
    Broker as WireBroker, GetMetadataRequest, GetMetadataResponse, GetServerInfoResponse, PartitionMetadata,
    TopicMetadata, WatchMetadataRequest, WatchMetadataResponse,
};
use weir_rpc::{LongCall, Problem};

use crate::broker::Broker;
use crate::calls::ending::Ending;
use crate::calls::{hello, page};

/// Topics in one message of a snapshot.
const SNAPSHOT_TOPICS: usize = 200;
/// Partitions in one message at most, so that a message stays far below what stock clients take.
const PARTITIONS_MAX: usize = 20_000;

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
    let mut partitions = 0;
    let mut next_page_token = String::new();
    for topic in wanted(&image, &request.topics, &after) {
        let full =
            topics.len() == size || (partitions > 0 && partitions + topic.partitions.len() > PARTITIONS_MAX);
        if let Some(last) = topics.last().filter(|_| full) {
            let last: &TopicMetadata = last;
            next_page_token = page::token(version, &last.name);
            break;
        }
        partitions += topic.partitions.len();
        topics.push(topic_metadata(topic));
    }
    Ok(Response::new(GetMetadataResponse { version, brokers: brokers(&image), topics, next_page_token }))
}

/// The topics named, or all, behind a name, sorted.
fn wanted<'a>(
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

fn brokers(image: &Image) -> Vec<WireBroker> {
    image
        .brokers()
        .filter(|broker| broker.state.is_alive())
        .map(|broker| WireBroker {
            broker_id: broker.id.0,
            rack: broker.rack.clone(),
            endpoint: broker
                .endpoint("public")
                .map(|endpoint| format!("{}:{}", endpoint.host, endpoint.port))
                .unwrap_or_default(),
        })
        .collect()
}

fn topic_metadata(topic: &Topic) -> TopicMetadata {
    let partitions = topic
        .partitions
        .iter()
        .map(|(number, partition)| PartitionMetadata {
            partition: *number,
            leader: partition.leader.map_or(-1, |leader| leader.0),
            leader_epoch: partition.leader_epoch,
            replicas: partition.replicas.iter().map(|replica| replica.broker.0).collect(),
            isr: partition.isr.iter().map(|broker| broker.0).collect(),
        })
        .collect();
    TopicMetadata {
        name: topic.name.to_string(),
        topic_id: topic.id.to_string(),
        partition_count: topic.partition_count(),
        partitions,
    }
}

/// What a watcher has been told.
struct Watching {
    broker: Arc<Broker>,
    changes: watch::Receiver<i64>,
    names: Vec<String>,
    told: Option<Arc<Image>>,
    /// What is left of a snapshot, in messages.
    pending: std::vec::IntoIter<WatchMetadataResponse>,
    done: bool,
    ending: Ending,
    _long: Option<LongCall>,
}

/// The map, then its changes. A change is told by comparing what the watcher has with what is now, so that a slow
/// watcher skips what is in between instead of queueing it.
pub(crate) fn watch(
    broker: Arc<Broker>,
    request: WatchMetadataRequest,
    long: Option<LongCall>,
) -> Result<impl Stream<Item = Result<WatchMetadataResponse, Status>> + Send + use<>, Status> {
    if request.from_version < 0 {
        return Err(
            Problem::out_of_range("from_version", request.from_version, "must not be negative").into()
        );
    }
    let changes = broker.cluster.versions();
    let ending = Ending::new(&broker, long.as_ref());
    let watching = Watching {
        broker,
        changes,
        names: request.topics,
        told: None,
        pending: Vec::new().into_iter(),
        done: false,
        ending,
        _long: long,
    };
    Ok(stream::unfold(watching, |mut watching| async move {
        let message = watching.next().await?;
        watching.done = message.is_err();
        Some((message, watching))
    }))
}

impl Watching {
    async fn next(&mut self) -> Option<Result<WatchMetadataResponse, Status>> {
        if self.done {
            return None;
        }
        loop {
            if let Some(message) = self.pending.next() {
                return Some(Ok(message));
            }
            if let Some(cause) = self.ending.now() {
                return Some(Err(cause.status()));
            }
            self.changes.borrow_and_update();
            let image = self.broker.cluster.image();
            let Some(told) = self.told.replace(image.clone()) else {
                self.pending = snapshot(&image, &self.names).into_iter();
                continue;
            };
            if image.version() > told.version()
                && let Some(change) = change(&told, &image, &self.names)
            {
                return Some(Ok(change));
            }
            tokio::select! {
                // It never ends before the broker does.
                _ = self.changes.changed() => {}
                () = tokio::time::sleep(self.broker.config.stream_heartbeat_ms) => {
                    return Some(Ok(WatchMetadataResponse { version: image.version(), ..Default::default() }));
                }
                () = self.ending.comes() => {}
            }
        }
    }
}

fn snapshot(image: &Image, names: &[String]) -> Vec<WatchMetadataResponse> {
    let topics: Vec<TopicMetadata> = wanted(image, names, "").map(topic_metadata).collect();
    let message = |topics: &[TopicMetadata]| WatchMetadataResponse {
        version: image.version(),
        snapshot: true,
        brokers: brokers(image),
        topics: topics.to_vec(),
        deleted_topic_ids: Vec::new(),
    };
    if topics.is_empty() { vec![message(&[])] } else { topics.chunks(SNAPSHOT_TOPICS).map(message).collect() }
}

/// What is different, as far as the watcher asked; `None`: nothing.
fn change(old: &Image, new: &Image, names: &[String]) -> Option<WatchMetadataResponse> {
    let asked = |topic: &Topic| names.is_empty() || names.iter().any(|name| **name == *topic.name);
    let changed = new.topics_changed_since(old);
    let topics: Vec<_> = changed
        .iter()
        .filter_map(|id| new.topic(*id))
        .filter(|topic| asked(topic))
        .map(topic_metadata)
        .collect();
    let deleted_topic_ids: Vec<_> = changed
        .iter()
        .filter(|id| new.topic(**id).is_none())
        .filter_map(|id| old.topic(*id))
        .filter(|topic| asked(topic))
        .map(|topic| topic.id.to_string())
        .collect();
    let (before, after) = (brokers(old), brokers(new));
    let brokers = if before == after { Vec::new() } else { after };
    let nothing = topics.is_empty() && deleted_topic_ids.is_empty() && brokers.is_empty();
    (!nothing).then(|| WatchMetadataResponse {
        version: new.version(),
        snapshot: false,
        brokers,
        topics,
        deleted_topic_ids,
    })
}
