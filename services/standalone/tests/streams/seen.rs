//! What an operator sees: the metrics, and where a partition stands.

use weir_proto::v1::admin_service_client::AdminServiceClient;
use weir_proto::v1::{ConsumeRequest, DescribePartitionsRequest, ListOffsetsRequest, OffsetQuery};
use weir_runtime::testing::until;

use crate::world::World;

/// Waits until the metrics have this line.
async fn scraped(world: &World, line: &str) {
    until(line, async || world.http("/metrics").await.contains(line)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_is_open_until_it_ends_and_counts_by_its_end() {
    const OPEN: &str = "weir_streams{call=\"Consume\"}";
    let world = World::start(&[]).await;
    world.create("flights", 1).await;
    world.write("flights", 0, b"one").await;
    let request = ConsumeRequest { topics: vec!["flights".into()], ..ConsumeRequest::default() };
    let mut follows = world.consumer().consume(request.clone()).await.unwrap().into_inner();
    follows.message().await.unwrap().unwrap();
    assert_eq!(world.metric(OPEN).await, 1.0);
    assert!(!world.http("/metrics").await.contains("weir_calls_total{call=\"Consume\""), "it has not ended");

    let until_end = ConsumeRequest { until_end: true, ..request };
    let mut ends = world.consumer().consume(until_end).await.unwrap().into_inner();
    while ends.message().await.unwrap().is_some() {}
    scraped(&world, "weir_calls_total{call=\"Consume\",code=\"Ok\"} 1\n").await;
    drop(follows);
    scraped(&world, "weir_calls_total{call=\"Consume\",code=\"Cancelled\"} 1\n").await;
    world.metric_is(OPEN, |open| open == 0.0).await;

    let request = ConsumeRequest { topics: vec!["none".into()], ..ConsumeRequest::default() };
    let refused = match world.consumer().consume(request).await {
        Ok(mut answers) => answers.get_mut().message().await.unwrap_err(),
        Err(status) => status,
    };
    assert_eq!(refused.code(), tonic::Code::NotFound);
    scraped(&world, "weir_calls_total{call=\"Consume\",code=\"NotFound\"} 1\n").await;
    // What is told to go on elsewhere counts apart; the process says what it takes.
    assert!(world.metric("process_open_fds").await > 0.0);
    assert!(world.metric("process_resident_memory_bytes").await > 0.0);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_are_refused_are_counted() {
    let world = World::start(&[("--connections-per-address-max", "1")]).await;
    assert_eq!(world.metric("weir_connections_refused_total").await, 0.0);
    // Whether a connection that is closed at once counts as made is the client's to say.
    let second = world.endpoint().connect().await;
    world.metric_is("weir_connections_refused_total", |refused| refused >= 1.0).await;
    drop(second);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_message_is_the_callers_mistake_and_no_defect() {
    let world = World::start(&[]).await;
    let (binary, text) = ("application/grpc-web+proto", "application/grpc-web-text+proto");
    let cases: [(&str, &[u8]); 3] = [(binary, b""), (binary, &[0, 0, 0, 0, 2, 0xff, 0xff]), (text, b"%%%%")];
    for (form, body) in cases {
        let answer = world.post("/weir.v1.ProducerService/Produce", form, body).await;
        assert!(answer.contains("grpc-status: 3\r\n"), "{form} {body:?}: {answer}");
        assert!(answer.contains("the%20request%20is%20no%20message"), "{form} {body:?}: {answer}");
        assert!(answer.contains("grpc-status-details-bin: "), "{form} {body:?}: {answer}");
    }
    scraped(&world, "weir_calls_total{call=\"Produce\",code=\"InvalidArgument\"} 3\n").await;
    assert!(!world.http("/metrics").await.contains("code=\"Internal\""));
    world.stop().await;
}

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
