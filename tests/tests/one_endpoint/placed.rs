//! The cluster that these tests are about.

use weir_proto::v1::producer_service_client::ProducerServiceClient;
use weir_proto::v1::{NewRecord, ProduceRequest};
use weir_runtime::testing::until;
use weir_tests::cluster::Cluster;

#[tokio::test]
async fn partitions_are_led_by_all_brokers_and_a_killed_one_comes_back_with_what_it_had() {
    let mut cluster = Cluster::start(3).await;
    cluster.create("flights", 6, 1, &[]).await;
    let leaders = cluster.leaders("flights").await;
    for broker in 0..3 {
        assert_eq!(leaders.iter().filter(|leader| **leader == broker).count(), 2, "{leaders:?}");
    }
    let (killed, partition) = (leaders[0], 0);
    let write = async |cluster: &Cluster| {
        let record = NewRecord { value: Some("x".into()), ..NewRecord::default() };
        let request = ProduceRequest {
            topic: "flights".to_owned(),
            partition: Some(partition),
            records: vec![record],
            ..ProduceRequest::default()
        };
        let written = ProducerServiceClient::new(cluster.channel(killed)).produce(request).await;
        written.map(|written| written.into_inner().receipts[0].base_offset)
    };
    assert_eq!(write(&cluster).await.unwrap(), 0);
    cluster.kill_broker(killed).await;
    assert!(write(&cluster).await.is_err());
    cluster.start_broker(killed).await;
    let mut offset = None;
    until("a write is taken again", async || {
        offset = write(&cluster).await.ok();
        offset.is_some()
    })
    .await;
    assert_eq!(offset, Some(1));
    cluster.stop().await;
}
