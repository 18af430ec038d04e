//! What an acknowledgement says of replicas, and what a caller may insist on.

use std::time::Duration;

use tonic::Request;
use weir_proto::v1::producer_service_client::ProducerServiceClient;
use weir_proto::v1::{Acks, AppendReceipt, Applied, DurabilityFloor, ErrorReason, NewRecord, ProduceRequest};
use weir_tests::cluster::{Cluster, Plan};
use weir_tests::refusal::Refusal;

use crate::support::{partitions, until_in_sync};

/// A follower that is held up stays in sync for as long as the test takes.
fn patient() -> Plan {
    Plan::of(3).flag("--replica-lag-ms-max", "60s")
}

async fn produce(
    cluster: &Cluster,
    at: usize,
    acks: Acks,
    floor: (i32, i32),
) -> Result<AppendReceipt, Refusal> {
    let (replicas, zones) = floor;
    let mut request = Request::new(ProduceRequest {
        topic: "orders".to_owned(),
        partition: Some(0),
        acks: acks.into(),
        floor: Some(DurabilityFloor { durability: 0, replicas, zones }),
        records: vec![NewRecord { value_text: "one".to_owned(), ..NewRecord::default() }],
        ..ProduceRequest::default()
    });
    request.set_timeout(Duration::from_secs(2));
    match ProducerServiceClient::new(cluster.channel(at)).produce(request).await {
        Ok(answer) => Ok(answer.into_inner().receipts.remove(0)),
        Err(status) => Err(Refusal::of_status(&status).unwrap()),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_receipt_says_who_has_it_and_a_floor_is_met_or_refused() {
    let mut cluster = Cluster::start_as(patient()).await;
    cluster.create("orders", 1, 3, &[("min_insync_replicas", "2")]).await;
    until_in_sync(&cluster, 0, "orders", 3).await;
    let leader = cluster.leaders("orders").await[0];
    // It is the leader who judges: others may hear of it first.
    until_in_sync(&cluster, leader, "orders", 3).await;
    let receipt = produce(&cluster, leader, Acks::All, (3, 1)).await.unwrap();
    let held = (receipt.committed, receipt.replicas_written, receipt.replicas_flushed, receipt.zones);
    assert_eq!(held, (true, 3, 3, 1), "{receipt:?}");
    // Not committed, and yet on all of them.
    let receipt = produce(&cluster, leader, Acks::Leader, (3, 0)).await.unwrap();
    assert_eq!((receipt.replicas_written, receipt.replicas_flushed > 0), (3, true), "{receipt:?}");

    let refused = produce(&cluster, leader, Acks::All, (3, 2)).await.unwrap_err();
    assert_eq!((refused.reason, refused.applied), (ErrorReason::FloorNotMet, Applied::No), "{refused:?}");
    let other = (leader + 1) % 3;
    cluster.stop_broker(other).await;
    until_in_sync(&cluster, leader, "orders", 2).await;
    let refused = produce(&cluster, leader, Acks::All, (3, 0)).await.unwrap_err();
    assert_eq!((refused.reason, refused.applied), (ErrorReason::FloorNotMet, Applied::No), "{refused:?}");
    assert!(refused.message.contains("3 replicas, 2 are in sync"), "{refused:?}");
    let receipt = produce(&cluster, leader, Acks::All, (2, 0)).await.unwrap();
    assert_eq!((receipt.replicas_written, receipt.replicas_flushed), (2, 2), "{receipt:?}");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_floor_that_is_not_met_in_time_is_no_success() {
    let cluster = Cluster::start_as(patient()).await;
    cluster.create("orders", 1, 3, &[("min_insync_replicas", "2")]).await;
    until_in_sync(&cluster, 0, "orders", 3).await;
    let leader = cluster.leaders("orders").await[0];
    // It is the leader who judges: others may hear of it first.
    until_in_sync(&cluster, leader, "orders", 3).await;
    let links = [1, 2].map(|next| cluster.link((leader + next) % 3, leader));
    links.iter().for_each(|link| link.hold());
    let refused = produce(&cluster, leader, Acks::Leader, (2, 0)).await.unwrap_err();
    assert_eq!((refused.reason, refused.applied), (ErrorReason::FloorNotMet, Applied::Maybe), "{refused:?}");
    links.iter().for_each(|link| link.release());
    assert_eq!(partitions(&cluster, leader, "orders").await[0].isr.len(), 3, "they were in sync all along");
    // It is there all the same.
    let receipt = produce(&cluster, leader, Acks::All, (3, 0)).await.unwrap();
    assert_eq!(receipt.base_offset, 1);
    cluster.stop().await;
}
