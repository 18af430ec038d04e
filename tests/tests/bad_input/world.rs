//! A server with a few topics, and a look at everything in it that a call could change.

use anyhow::Result;
use tempfile::TempDir;
use weir_proto::v1::{
    DeleteRecordsRequest, ListConfigsRequest, ListTopicsRequest, OpenProducerRequest, ProducerIdentity,
    RecordsBefore,
};
use weir_tests::api::Api;
use weir_tests::process::{Process, Setup};

/// Ten records in its partition 0, of which the first four are deleted; nothing in partition 1.
pub(crate) const TOPIC: &str = "flights";
/// Class replicated.
pub(crate) const REPLICATED: &str = "weather";

pub(crate) struct World {
    _folder: TempDir,
    pub(crate) server: Process,
    pub(crate) api: Api,
    /// An identity that has written nothing yet.
    pub(crate) producer: ProducerIdentity,
}

impl World {
    pub(crate) async fn start() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let server = Setup::new(folder.path().join("data")).start().await?;
        let api = Api::connect(server.addr()).await?;
        api.create_topic(TOPIC, 2, &[]).await?;
        api.create_topic(REPLICATED, 1, &[("durability", "replicated")]).await?;
        api.write(TOPIC, 0, (0..10).map(|number| format!("record {number}"))).await?;
        let before = vec![RecordsBefore { partition: 0, offset: 4 }];
        api.topics().delete_records(DeleteRecordsRequest { topic: TOPIC.to_owned(), before }).await?;
        let opened = api.producer().open_producer(OpenProducerRequest::default()).await?.into_inner();
        let producer = opened.producer.unwrap_or_default();
        Ok(Self { _folder: folder, server, api, producer })
    }

    /// Ends, topics with their settings, settings of the cluster.
    pub(crate) async fn everything(&self) -> Result<Vec<String>> {
        let mut found = Vec::new();
        for (topic, partitions) in [(TOPIC, 2), (REPLICATED, 1)] {
            found.push(format!("{topic} ends at {:?}", self.api.ends(topic, partitions).await?));
        }
        let topics = self.api.topics().list_topics(ListTopicsRequest::default()).await?.into_inner();
        found.extend(topics.topics.iter().map(|topic| format!("{topic:?}")));
        let configs = self.api.admin().list_configs(ListConfigsRequest::default()).await?.into_inner();
        found.extend(configs.configs.iter().map(|config| format!("{} = {}", config.name, config.value)));
        Ok(found)
    }
}
