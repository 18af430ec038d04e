//! What an acknowledgement says of replicas, and what a caller may insist on.

use std::time::Duration;

use tokio::task::JoinHandle;
use tonic::Request;
use weir_proto::v1::admin_service_client::AdminServiceClient;
use weir_proto::v1::producer_service_client::ProducerServiceClient;
use weir_proto::v1::topic_service_client::TopicServiceClient;
use weir_proto::v1::{
    Acks, AppendReceipt, Applied, DurabilityFloor, ElectLeadersRequest, ErrorReason, NewRecord,
    ProduceRequest, TopicPartition, UpdateTopicRequest,
};
use weir_runtime::testing::{PATIENCE, until};
use weir_tests::cluster::{Cluster, Plan};
use weir_tests::refusal::Refusal;

use crate::support::{partitions, until_in_sync, until_unheard};

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
    producing(cluster, at, acks, floor, Duration::from_secs(2)).await.unwrap()
}

/// One that goes on by itself, for so long.
fn producing(
    cluster: &Cluster,
    at: usize,
    acks: Acks,
    floor: (i32, i32),
    patience: Duration,
) -> JoinHandle<Result<AppendReceipt, Refusal>> {
    let (replicas, zones) = floor;
    let mut request = Request::new(ProduceRequest {
        topic: "orders".to_owned(),
        partition: Some(0),
        acks: acks.into(),
        floor: Some(DurabilityFloor { durability: 0, replicas, zones }),
        records: vec![NewRecord { value_text: "one".to_owned(), ..NewRecord::default() }],
        ..ProduceRequest::default()
    });
    request.set_timeout(patience);
    let mut client = ProducerServiceClient::new(cluster.channel(at));
    tokio::spawn(async move {
        match client.produce(request).await {
            Ok(answer) => Ok(answer.into_inner().receipts.remove(0)),
            Err(status) => Err(Refusal::of_status(&status).unwrap()),
        }
    })
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

/// Who has what a leader wrote that was deposed before it was committed, only its successor knows, who commits it by the rules of
/// then.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_was_deposed_claims_no_more_than_it_knows() {
    let plan = Plan { session: Duration::from_secs(1), ..patient() };
    let mut cluster = Cluster::start_as(plan).await;
    cluster.create("orders", 1, 3, &[("min_insync_replicas", "3")]).await;
    until_in_sync(&cluster, 0, "orders", 3).await;
    let preferred = cluster.leaders("orders").await[0];
    cluster.stop_broker(preferred).await;
    cluster.start_broker(preferred).await;
    until_in_sync(&cluster, preferred, "orders", 3).await;
    let leader = cluster.leaders("orders").await[0];
    assert_ne!(leader, preferred);
    let last = 3 - preferred - leader;
    until_in_sync(&cluster, leader, "orders", 3).await;
    for to in [leader, preferred] {
        cluster.link(last, to).hold();
    }
    let received = "weir_replication_received_bytes_total";
    let before = cluster.metric(preferred, received).await;
    let producing = producing(&cluster, leader, Acks::All, (0, 0), PATIENCE);
    until("the next leader has it", async || cluster.metric(preferred, received).await > before).await;
    let partitions = vec![TopicPartition { topic: "orders".to_owned(), partition: 0 }];
    let request = ElectLeadersRequest { partitions, ..ElectLeadersRequest::default() };
    AdminServiceClient::new(cluster.channel(preferred)).elect_leaders(request).await.unwrap();
    let next = [cluster.id(preferred)];
    until("it follows", async || cluster.leaders_seen_by(leader, "orders").await == next).await;
    let set_config = [("min_insync_replicas".to_owned(), "2".to_owned())].into();
    let request =
        UpdateTopicRequest { name: "orders".to_owned(), set_config, ..UpdateTopicRequest::default() };
    TopicServiceClient::new(cluster.channel(preferred)).update_topic(request).await.unwrap();
    // The two are enough now.
    cluster.kill_broker(last).await;
    let receipt = tokio::time::timeout(PATIENCE, producing).await.unwrap().unwrap().unwrap();
    let held = (receipt.committed, receipt.replicas_written, receipt.replicas_flushed, receipt.zones);
    assert_eq!(held, (true, 2, 2, 1), "{receipt:?}");
    cluster.stop().await;
}

/// What the leader alone has, and followers get late: by then somebody else may lead, who has not got it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_floor_that_is_met_after_the_session_is_no_success() {
    let plan = Plan { session: Duration::from_secs(2), ..patient() };
    let cluster = Cluster::start_as(plan).await;
    cluster.create("orders", 1, 3, &[("min_insync_replicas", "2")]).await;
    until_in_sync(&cluster, 0, "orders", 3).await;
    let leader = cluster.leaders("orders").await[0];
    until_in_sync(&cluster, leader, "orders", 3).await;
    let links = [1, 2].map(|next| cluster.link((leader + next) % 3, leader));
    links.iter().for_each(|link| link.hold());
    let acknowledged = "weir_acknowledged_records_total";
    let before = cluster.metric(leader, acknowledged).await;
    let producing = producing(&cluster, leader, Acks::Leader, (2, 0), PATIENCE);
    until("the leader has it", async || cluster.metric(leader, acknowledged).await > before).await;
    // Nobody hears of another leader, and nobody may promise anything.
    (0..3).for_each(|at| cluster.link_to_controller(at).hold());
    until_unheard(&cluster, leader, "orders").await;
    assert!(!producing.is_finished(), "its floor was not met");
    links.iter().for_each(|link| link.release());
    let refused = tokio::time::timeout(PATIENCE, producing).await.unwrap().unwrap().unwrap_err();
    assert_eq!(
        (refused.reason, refused.applied),
        (ErrorReason::OutcomeUnknown, Applied::Maybe),
        "{refused:?}"
    );
    (0..3).for_each(|at| cluster.link_to_controller(at).release());
    cluster.stop().await;
}
