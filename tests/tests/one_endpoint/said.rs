//! What these tests say to brokers.

use tonic::transport::Channel;
use tonic::{Response, Status};
use tonic_types::StatusExt;
use weir_proto::v1::consumer_service_client::ConsumerServiceClient;
use weir_proto::v1::producer_service_client::ProducerServiceClient;
use weir_proto::v1::{
    FetchPartition, FetchRequest, FetchResponse, NewRecord, ProduceRequest, ProduceResponse, Route,
};
use weir_tests::cluster::Cluster;

/// A cluster of three, and a topic whose partitions are led by all.
pub(crate) async fn cluster_with(topic: &str, partitions: i32) -> Cluster {
    let cluster = Cluster::start(3).await;
    cluster.create(topic, partitions, 1, &[]).await;
    cluster
}

/// A broker that does not lead a partition, and the one that does.
pub(crate) async fn stranger_and_leader(cluster: &Cluster, topic: &str, partition: usize) -> (usize, usize) {
    let leader = cluster.leaders(topic).await[partition];
    ((leader + 1) % 3, leader)
}

pub(crate) fn producer(channel: Channel) -> ProducerServiceClient<Channel> {
    ProducerServiceClient::new(channel)
}

pub(crate) fn consumer(channel: Channel) -> ConsumerServiceClient<Channel> {
    ConsumerServiceClient::new(channel)
}

/// A record of this value.
pub(crate) fn record(value: &str) -> NewRecord {
    NewRecord { value: Some(value.to_owned().into()), ..NewRecord::default() }
}

/// One record for one partition.
pub(crate) fn to_one(topic: &str, partition: i32, value: &str) -> ProduceRequest {
    ProduceRequest {
        topic: topic.to_owned(),
        partition: Some(partition),
        records: vec![record(value)],
        ..ProduceRequest::default()
    }
}

/// Writes it at a broker.
pub(crate) async fn write(
    cluster: &Cluster,
    at: usize,
    request: ProduceRequest,
) -> Result<Response<ProduceResponse>, Status> {
    producer(cluster.channel(at)).produce(request).await
}

/// Where to read these partitions from their beginnings.
pub(crate) fn all_of(topic: &str, partitions: impl IntoIterator<Item = i32>) -> FetchRequest {
    let partitions = partitions
        .into_iter()
        .map(|partition| FetchPartition { topic: topic.to_owned(), partition, ..FetchPartition::default() })
        .collect();
    FetchRequest { partitions, wait_ms: Some(0), ..FetchRequest::default() }
}

/// Reads at a broker.
pub(crate) async fn fetch(cluster: &Cluster, at: usize, request: FetchRequest) -> Response<FetchResponse> {
    consumer(cluster.channel(at)).fetch(request).await.unwrap()
}

/// The same, and never passed on.
pub(crate) fn direct(request: ProduceRequest) -> ProduceRequest {
    ProduceRequest { route: Route::Direct.into(), ..request }
}

/// The values of a fetched partition.
pub(crate) fn values(answer: &FetchResponse, place: usize) -> Vec<String> {
    let records = &answer.partitions[place].records;
    records.iter().map(|record| String::from_utf8(record.value.clone().unwrap().into()).unwrap()).collect()
}

/// What a response says of whom it was passed on to.
pub(crate) fn forwarded<T>(response: &Response<T>) -> Option<String> {
    response.metadata().get("weir-forwarded").map(|said| said.to_str().unwrap().to_owned())
}

/// The reason that a status names, and a fact.
pub(crate) fn reason(status: &Status) -> String {
    status.get_details_error_info().map(|info| info.reason).unwrap_or_default()
}

/// A fact that a status names.
pub(crate) fn fact(status: &Status, name: &str) -> Option<String> {
    status.get_details_error_info()?.metadata.get(name).cloned()
}
