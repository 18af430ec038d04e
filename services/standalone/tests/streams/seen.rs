//! What an operator sees: the metrics, and where a partition stands.

use weir_proto::v1::admin_service_client::AdminServiceClient;
use weir_proto::v1::{DescribePartitionsRequest, ListOffsetsRequest, OffsetQuery};

use crate::world::World;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_metrics_say_what_the_start_found_and_what_queues_wait() {
    let world = World::start(&[]).await;
    world.create("flights", 3).await;
    world.write("flights", 0, b"one").await;
    for name in ["weir_recovery_logs", "weir_recovery_logs_done", "weir_recovery_scanned_bytes_total"] {
        assert_eq!(world.metric(name).await, 0.0, "{name} of a new directory");
    }
    assert!(world.http("/metrics").await.contains("weir_claim_wait_seconds_count"));
    let now = ["weir_append_seconds_count", "weir_connections", "weir_ready", "weir_partitions_led"];
    for (name, value) in now.into_iter().zip([1.0, 1.0, 1.0, 3.0]) {
        assert_eq!(world.metric(name).await, value, "{name}");
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_partition_says_where_it_stands_and_when_it_grew() {
    let world = World::start(&[]).await;
    world.create("flights", 2).await;
    world.write("flights", 0, b"one").await;
    let describe = async |problems_only| {
        let request =
            DescribePartitionsRequest { topic: "flights".into(), problems_only, ..Default::default() };
        let mut client = AdminServiceClient::new(world.channel.clone());
        client.describe_partitions(request).await.unwrap().into_inner().partitions
    };
    let described = describe(false).await;
    let ends: Vec<_> = described.iter().map(|p| (p.last_stable_offset, p.high_watermark)).collect();
    assert_eq!(ends, [(1, 1), (0, 0)]);
    let query = OffsetQuery { topic: "flights".into(), timestamp_ms: Some(0), ..OffsetQuery::default() };
    let request = ListOffsetsRequest { queries: vec![query], ..ListOffsetsRequest::default() };
    let written = world.consumer().list_offsets(request).await.unwrap().into_inner().offsets.remove(0);
    assert!(described[0].last_append_ms >= written.timestamp_ms && written.timestamp_ms > 0, "{described:?}");
    assert_eq!(described[1].last_append_ms, 0, "nothing was ever written");
    assert_eq!(describe(true).await, []);
    world.stop().await;
}
