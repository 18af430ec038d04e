//! Connections to a server under test.

use anyhow::Context;
use tonic::Code;
use tonic::transport::{Channel, Endpoint};
use weir_proto::v1::consumer_service_client::ConsumerServiceClient;
use weir_proto::v1::topic_service_client::TopicServiceClient;
use weir_proto::v1::{CreateTopicRequest, ListOffsetsRequest, OffsetQuery, StartAt, Topic};

/// The largest message that the load generator takes.
pub const MESSAGE_BYTES_MAX: usize = 64 << 20;

/// A connection of its own, tuned like the SDK's.
///
/// # Errors
/// If nobody listens there.
pub async fn connect(server: &str) -> anyhow::Result<Channel> {
    let endpoint = Endpoint::from_shared(format!("http://{server}"))?;
    weir_rpc::tuning::endpoint(endpoint).connect().await.with_context(|| format!("connecting to {server}"))
}

/// A topic to be written to.
#[derive(Clone, Debug)]
pub struct NewTopic {
    /// Its name.
    pub name: String,
    /// How many partitions.
    pub partitions: i32,
    /// `fsync` or `replicated`.
    pub durability: String,
    /// How many replicas of each. None: the cluster's.
    pub replicas: Option<i32>,
    /// How many must be in sync for an append. None: the cluster's.
    pub min_insync: Option<i32>,
}

impl From<NewTopic> for Topic {
    fn from(new: NewTopic) -> Self {
        let min_insync = new.min_insync.map(|min| ("min_insync_replicas".to_owned(), min.to_string()));
        let config = [("durability".to_owned(), new.durability)].into_iter().chain(min_insync).collect();
        Self {
            name: new.name,
            partitions: new.partitions,
            replication_factor: new.replicas.unwrap_or_default(),
            config,
            ..Self::default()
        }
    }
}

/// Makes the topic unless the server keeps none (the floor takes any name).
///
/// # Errors
/// If the server refuses.
pub async fn create_topic(server: &str, topic: NewTopic) -> anyhow::Result<()> {
    let name = topic.name.clone();
    let topic = Topic::from(topic);
    let request = CreateTopicRequest { topic: Some(topic), ..CreateTopicRequest::default() };
    match TopicServiceClient::new(connect(server).await?).create_topic(request).await {
        Ok(_) => Ok(()),
        Err(status) if status.code() == Code::Unimplemented => Ok(()),
        Err(status) => Err(status).with_context(|| format!("creating topic {name}")),
    }
}

/// Each partition's end: the offset that the next record will get.
///
/// # Errors
/// If the server refuses, or leaves a partition out.
pub async fn end_offsets(server: &str, topic: &str, partitions: i32) -> anyhow::Result<Vec<i64>> {
    let queries = (0..partitions)
        .map(|partition| OffsetQuery {
            topic: topic.to_owned(),
            partition,
            start_at: StartAt::Latest.into(),
            ..OffsetQuery::default()
        })
        .collect();
    let request = ListOffsetsRequest { queries, ..ListOffsetsRequest::default() };
    let answer = ConsumerServiceClient::new(connect(server).await?).list_offsets(request).await?.into_inner();
    anyhow::ensure!(answer.offsets.len() == usize::try_from(partitions)?, "an answer for each partition");
    Ok(answer.offsets.iter().map(|o| o.offset).collect())
}
