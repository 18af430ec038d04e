//! Clients that are told of changes of the map, and what they are told.

use std::sync::Arc;
use std::time::Duration;

use weir_client::{Client, Producer, ProducerConfig, Record};
use weir_proto::v1;

use super::{Cluster, builder};

/// So long that no test sees the map asked for because it is old.
pub const NEVER: Duration = Duration::from_secs(100 * 3600);

/// A client that asks for the map only where it has a reason to.
pub async fn client(cluster: &Arc<Cluster>) -> Client {
    builder(cluster).metadata_age_max(NEVER).connect("broker1:1").await.unwrap()
}

/// A producer of single records that has sent one, whose client is being told of changes.
pub async fn told(cluster: &Arc<Cluster>) -> (Client, Producer) {
    let client = client(cluster).await;
    let producer = client.producer(ProducerConfig::new().batch_bytes(1)).unwrap();
    producer.send("a", Record::new("first").partition(0)).await.unwrap().await.unwrap();
    super::until("it watches", || async { cluster.calls("WatchMetadata") > 0 }).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    (client, producer)
}

/// What a watch tells of topics, as of a version.
pub fn telling(version: i64, snapshot: bool, map: v1::GetMetadataResponse) -> v1::WatchMetadataResponse {
    let v1::GetMetadataResponse { brokers, topics, .. } = map;
    v1::WatchMetadataResponse { version, snapshot, brokers, topics, ..Default::default() }
}
