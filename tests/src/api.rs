//! The public API as a program with nothing but stubs sees it: one address, default channel settings.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use tonic::transport::{Channel, Endpoint};
use weir_proto::v1::admin_service_client::AdminServiceClient;
use weir_proto::v1::consumer_service_client::ConsumerServiceClient;
use weir_proto::v1::metadata_service_client::MetadataServiceClient;
use weir_proto::v1::producer_service_client::ProducerServiceClient;
use weir_proto::v1::topic_service_client::TopicServiceClient;
use weir_proto::v1::{
    ConsumeRequest, CreateTopicRequest, ListOffsetsRequest, NewRecord, OffsetQuery, ProduceRequest, StartAt,
    StoredRecord, Topic,
};

/// One connection, with whatever the stock client does by default.
#[derive(Clone, Debug)]
pub struct Api(Channel);

impl Api {
    /// Connects.
    ///
    /// # Errors
    /// Nobody listens there.
    pub async fn connect(addr: &str) -> Result<Self> {
        let endpoint = Endpoint::from_shared(format!("http://{addr}"))?;
        Ok(Self(endpoint.connect().await.with_context(|| format!("cannot connect to {addr}"))?))
    }

    /// The connection.
    #[must_use]
    pub fn channel(&self) -> Channel {
        self.0.clone()
    }

    /// Calls that write.
    #[must_use]
    pub fn producer(&self) -> ProducerServiceClient<Channel> {
        ProducerServiceClient::new(self.channel())
    }

    /// Calls that read.
    #[must_use]
    pub fn consumer(&self) -> ConsumerServiceClient<Channel> {
        ConsumerServiceClient::new(self.channel())
    }

    /// Calls about the map.
    #[must_use]
    pub fn metadata(&self) -> MetadataServiceClient<Channel> {
        MetadataServiceClient::new(self.channel())
    }

    /// Calls about topics.
    #[must_use]
    pub fn topics(&self) -> TopicServiceClient<Channel> {
        TopicServiceClient::new(self.channel())
    }

    /// Calls for operators.
    #[must_use]
    pub fn admin(&self) -> AdminServiceClient<Channel> {
        AdminServiceClient::new(self.channel())
    }

    /// Makes a topic that keeps its records for ever.
    ///
    /// # Errors
    /// It is not made.
    pub async fn create_topic(&self, name: &str, partitions: i32, config: &[(&str, &str)]) -> Result<Topic> {
        let keep = [("retention_ms", "unlimited")];
        let config: BTreeMap<String, String> = keep
            .iter()
            .chain(config)
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        let topic = Topic { name: name.to_owned(), partitions, config, ..Topic::default() };
        let request = CreateTopicRequest { topic: Some(topic), ..CreateTopicRequest::default() };
        let response = self.topics().create_topic(request).await?.into_inner();
        response.topic.context("a topic that was made")
    }

    /// Writes plain values without keys to one partition, in one call. Gives the first offset.
    ///
    /// # Errors
    /// They are not written.
    pub async fn write<V: Into<Vec<u8>>>(
        &self,
        topic: &str,
        partition: i32,
        values: impl IntoIterator<Item = V>,
    ) -> Result<i64> {
        let records = values.into_iter().map(new_record).collect();
        let request = ProduceRequest {
            topic: topic.to_owned(),
            partition: Some(partition),
            records,
            ..Default::default()
        };
        let response = self.producer().produce(request).await?.into_inner();
        Ok(response.receipts.first().context("a receipt")?.base_offset)
    }

    /// Reads all records that a topic holds now.
    ///
    /// # Errors
    /// Not all can be read.
    pub async fn read_all(&self, topic: &str) -> Result<Vec<StoredRecord>> {
        let request =
            ConsumeRequest { topics: vec![topic.to_owned()], until_end: true, ..ConsumeRequest::default() };
        let mut stream = self.consumer().consume(request).await?.into_inner();
        let mut records = Vec::new();
        while let Some(message) = stream.message().await? {
            records.extend(message.records);
        }
        Ok(records)
    }

    /// The end of every partition of a topic.
    ///
    /// # Errors
    /// They cannot be told.
    pub async fn ends(&self, topic: &str, partitions: i32) -> Result<Vec<i64>> {
        let query = |partition| OffsetQuery {
            topic: topic.to_owned(),
            partition,
            start_at: StartAt::Latest.into(),
            timestamp_ms: None,
        };
        let queries = (0..partitions).map(query).collect();
        let request = ListOffsetsRequest { queries, ..ListOffsetsRequest::default() };
        let response = self.consumer().list_offsets(request).await?.into_inner();
        Ok(response.offsets.iter().map(|answer| answer.offset).collect())
    }
}

/// A record of a value alone.
pub fn new_record(value: impl Into<Vec<u8>>) -> NewRecord {
    NewRecord { value: Some(value.into().into()), ..NewRecord::default() }
}
