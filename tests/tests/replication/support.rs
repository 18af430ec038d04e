//! Writing to and looking at replicated topics.

use std::sync::Arc;

use tonic::{Code, Status};
use weir_io::MemDisk;
use weir_proto::v1::admin_service_client::AdminServiceClient;
use weir_proto::v1::consumer_service_client::ConsumerServiceClient;
use weir_proto::v1::metadata_service_client::MetadataServiceClient;
use weir_proto::v1::producer_service_client::ProducerServiceClient;
use weir_proto::v1::{
    ConsumeRequest, DescribePartitionsRequest, ErrorReason, GetMetadataRequest, ListOffsetsRequest,
    NewRecord, OffsetQuery, PartitionDescription, PartitionMetadata, ProduceRequest, StartAt,
};
use weir_runtime::testing::{PATIENCE, TestOs, until};
use weir_storage::{DirOptions, Frame, Limit, LogDir, ReadRequest};
use weir_tests::cluster::Cluster;
use weir_tests::refusal::Refusal;

/// What a broker that runs says of a topic's partitions.
pub(crate) async fn partitions(cluster: &Cluster, at: usize, topic: &str) -> Vec<PartitionMetadata> {
    let request = GetMetadataRequest { topics: vec![topic.to_owned()], ..GetMetadataRequest::default() };
    let answer = MetadataServiceClient::new(cluster.channel(at)).get_metadata(request).await;
    let topics = answer.map(|answer| answer.into_inner().topics).unwrap_or_default();
    topics.into_iter().flat_map(|topic| topic.partitions).collect()
}

/// What a broker says of partitions that have a problem.
pub(crate) async fn troubled(cluster: &Cluster, asked: usize) -> Vec<PartitionDescription> {
    let request = DescribePartitionsRequest { problems_only: true, ..DescribePartitionsRequest::default() };
    let answer = AdminServiceClient::new(cluster.channel(asked)).describe_partitions(request).await;
    answer.unwrap().into_inner().partitions
}

/// Waits until so many replicas of each partition are in sync.
pub(crate) async fn until_in_sync(cluster: &Cluster, at: usize, topic: &str, replicas: usize) {
    until(&format!("{replicas} replicas of each partition of {topic} are in sync"), async || {
        let partitions = partitions(cluster, at, topic).await;
        !partitions.is_empty() && partitions.iter().all(|partition| partition.isr.len() == replicas)
    })
    .await;
}

/// Waits until a leader, whose way to the controllers is held, has not been answered for a session, and says so.
pub(crate) async fn until_unheard(cluster: &Cluster, leader: usize, topic: &str) {
    until("the leader's session is over", async || {
        let latest =
            OffsetQuery { topic: topic.to_owned(), start_at: StartAt::Latest.into(), ..Default::default() };
        let request = ListOffsetsRequest { queries: vec![latest], ..ListOffsetsRequest::default() };
        let answer = ConsumerServiceClient::new(cluster.channel(leader)).list_offsets(request).await;
        let refused = answer.err().and_then(|status| Refusal::of_status(&status).ok());
        refused.is_some_and(|refused| refused.reason == ErrorReason::OffsetNotAvailable)
    })
    .await;
}

/// Writes a record to a partition, to whoever leads it, again while nobody does and nothing was applied.
pub(crate) async fn write(cluster: &Cluster, asked: usize, topic: &str, partition: i32, value: &str) -> i64 {
    write_batch(cluster, asked, topic, partition, &[value]).await
}

/// The same of several records, as one batch.
pub(crate) async fn write_batch(
    cluster: &Cluster,
    asked: usize,
    topic: &str,
    partition: i32,
    values: &[&str],
) -> i64 {
    let (mut offset, mut said) = (None, String::new());
    let what = format!("{values:?} is written to {topic}/{partition}");
    let written = until(&what, async || {
        let known = partitions(cluster, asked, topic).await;
        let leader = known.iter().find(|known| known.partition == partition).map_or(-1, |known| known.leader);
        let Ok(leader) = usize::try_from(leader - 1) else { return false };
        let record = |value: &&str| NewRecord { value_text: (*value).to_owned(), ..NewRecord::default() };
        let request = ProduceRequest {
            topic: topic.to_owned(),
            partition: Some(partition),
            records: values.iter().map(record).collect(),
            ..ProduceRequest::default()
        };
        match ProducerServiceClient::new(cluster.channel(leader)).produce(request).await {
            Ok(answer) => {
                offset = answer.into_inner().receipts.first().map(|receipt| receipt.base_offset);
                true
            }
            Err(status) => {
                let may_pass = [Code::Unavailable, Code::FailedPrecondition, Code::Unknown];
                assert!(may_pass.contains(&status.code()), "{status:?}");
                said = format!("{status:?}");
                false
            }
        }
    });
    if tokio::time::timeout(PATIENCE / 2, written).await.is_err() {
        panic!("{what}: it did not happen: {said}");
    }
    offset.unwrap()
}

/// All values of a topic, as a broker gives them, asked again while who leads does not answer yet.
pub(crate) async fn read(cluster: &Cluster, at: usize, topic: &str) -> Vec<String> {
    let mut values = Vec::new();
    until(&format!("{topic} is read"), async || match try_read(cluster, at, topic).await {
        Ok(read) => {
            values = read;
            true
        }
        Err(status) => {
            // Nobody leads yet, or who does has not taken it up.
            assert!([Code::Unavailable, Code::FailedPrecondition].contains(&status.code()), "{status:?}");
            false
        }
    })
    .await;
    values
}

/// The same, asked once.
pub(crate) async fn try_read(cluster: &Cluster, at: usize, topic: &str) -> Result<Vec<String>, Status> {
    let request = ConsumeRequest {
        topics: vec![topic.to_owned()],
        until_end: true,
        text: true,
        ..ConsumeRequest::default()
    };
    let mut answers = ConsumerServiceClient::new(cluster.channel(at)).consume(request).await?.into_inner();
    let mut values = Vec::new();
    while let Some(answer) = answers.message().await? {
        values.extend(answer.records.into_iter().map(|record| record.value_text));
    }
    Ok(values)
}

/// The frames of every log on the disk of a broker that does not run, by partition.
pub(crate) async fn frames(disk: &MemDisk) -> Vec<(i32, Vec<Frame>)> {
    let os =
        Arc::new(TestOs::threads(Arc::new(disk.after_power_loss(weir_io::Survival::Everything))).unwrap());
    let options = DirOptions::new(|fatal| panic!("{fatal}"));
    let (dir, _) = LogDir::open(os, std::path::Path::new("/logs"), None, options).unwrap();
    let mut logs = Vec::new();
    for log in dir.partitions() {
        let mut frames = Vec::new();
        let mut from = log.ends().log_start;
        loop {
            let request = ReadRequest { from, bytes_max: 1 << 20, limit: Limit::LogEnd };
            let chunk = log.read(request).await.unwrap();
            if chunk.is_empty() {
                break;
            }
            from = chunk.next_offset;
            frames.extend(chunk.frames().map(|mut frame| {
                // A replica's own.
                frame.header.flushed_end = None;
                frame
            }));
        }
        logs.push((log.id().partition, frames));
    }
    logs.sort_by_key(|(partition, _)| *partition);
    logs
}
