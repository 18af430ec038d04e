//! A whole Weir in this process: what goes in comes out, also after a stop.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test stops at the first surprise")]

use std::path::Path;
use std::sync::Arc;

use tokio_stream::StreamExt;
use tonic::transport::Channel;
use weir_config::{Loader, Standalone as Config};
use weir_proto::v1::consumer_service_client::ConsumerServiceClient;
use weir_proto::v1::metadata_service_client::MetadataServiceClient;
use weir_proto::v1::producer_service_client::ProducerServiceClient;
use weir_proto::v1::topic_service_client::TopicServiceClient;
use weir_proto::v1::{
    ConsumeRequest, CreateTopicRequest, Durability, GetServerInfoRequest, NewRecord, ProduceRequest, Topic,
};
use weir_runtime::{ExecutorsConfig, Os, RealOs};
use weir_standalone::Standalone;

fn config(dir: &Path) -> Config {
    let data_dir = dir.to_str().unwrap();
    Loader::new()
        .flag("--data-dir", data_dir)
        .flag("--listen", "127.0.0.1:0")
        .flag("--http-listen", "127.0.0.1:0")
        .flag("--controller-listen", "127.0.0.1:0")
        .load::<Config>()
        .unwrap()
        .config
}

async fn start(dir: &Path) -> Standalone {
    let os: Arc<dyn Os> = Arc::new(RealOs::new(4).unwrap());
    let executors =
        weir_runtime::Executors::current(&ExecutorsConfig { data_runtimes: 2, control_threads: 1 });
    Standalone::start(os, &executors, &config(dir)).await.unwrap()
}

async fn connect(weir: &Standalone) -> Channel {
    Channel::from_shared(format!("http://{}", weir.addr())).unwrap().connect().await.unwrap()
}

async fn create(channel: &Channel, name: &str, partitions: i32, config: &[(&str, &str)]) {
    let config = config.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    let topic = Topic { name: name.to_owned(), partitions, config, ..Topic::default() };
    let request = CreateTopicRequest { topic: Some(topic), ..CreateTopicRequest::default() };
    let made = TopicServiceClient::new(channel.clone()).create_topic(request).await.unwrap().into_inner();
    assert!(made.created);
}

async fn produce(channel: &Channel, topic: &str, key: &str, value: &str) -> weir_proto::v1::AppendReceipt {
    let record = NewRecord {
        key_text: key.to_owned(),
        value: Some(value.as_bytes().to_vec().into()),
        ..NewRecord::default()
    };
    let request =
        ProduceRequest { topic: topic.to_owned(), records: vec![record], ..ProduceRequest::default() };
    let answer = ProducerServiceClient::new(channel.clone()).produce(request).await.unwrap().into_inner();
    answer.receipts[0].clone()
}

async fn consume_all(channel: &Channel, topic: &str) -> Vec<String> {
    let request =
        ConsumeRequest { topics: vec![topic.to_owned()], until_end: true, ..ConsumeRequest::default() };
    let mut answers =
        ConsumerServiceClient::new(channel.clone()).consume(request).await.unwrap().into_inner();
    let mut values = Vec::new();
    while let Some(answer) = answers.next().await {
        let records = answer.unwrap().records;
        values.extend(records.iter().map(|r| String::from_utf8(r.value.clone().unwrap().to_vec()).unwrap()));
    }
    values
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_come_back_also_after_an_orderly_stop() {
    let dir = tempfile::tempdir().unwrap();
    let weir = start(dir.path()).await;
    let channel = connect(&weir).await;
    create(&channel, "flights", 3, &[]).await;
    create(&channel, "memory", 1, &[("durability", "replicated")]).await;

    let mut sent: Vec<String> = (0..100).map(|i| format!("record {i}")).collect();
    for (i, value) in sent.iter().enumerate() {
        let receipt = produce(&channel, "flights", &format!("key {i}"), value).await;
        assert!(receipt.committed);
        assert_eq!(receipt.durability(), Durability::Disk);
    }
    let receipt = produce(&channel, "memory", "", "volatile").await;
    assert_eq!(receipt.durability(), Durability::Memory);

    let mut got = consume_all(&channel, "flights").await;
    got.sort();
    sent.sort();
    assert_eq!(got, sent);

    let cluster_id = weir.cluster_id();
    drop(channel);
    weir.stop().await.unwrap();

    let weir = start(dir.path()).await;
    assert_eq!(weir.cluster_id(), cluster_id);
    let channel = connect(&weir).await;
    let mut got = consume_all(&channel, "flights").await;
    got.sort();
    assert_eq!(got, sent);
    let receipt = produce(&channel, "memory", "", "again").await;
    assert_eq!((receipt.base_offset, receipt.leader_epoch > 1), (1, true));
    let info = MetadataServiceClient::new(channel.clone())
        .get_server_info(GetServerInfoRequest {})
        .await
        .unwrap()
        .into_inner();
    assert_eq!(info.cluster_id, cluster_id);
    drop(channel);
    weir.stop().await.unwrap();
}
