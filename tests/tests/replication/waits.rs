//! Appends that are not acknowledged because a replica is dead that nobody takes out of those in sync: whoever asks, and
//! whoever waits, hears whom they wait for.

use std::time::Duration;

use tonic::Request;
use weir_client::{Client, ProducerConfig};
use weir_proto::v1::producer_service_client::ProducerServiceClient;
use weir_proto::v1::{Applied, ErrorReason, NewRecord, ProduceRequest};
use weir_runtime::testing::until;
use weir_tests::cluster::{Cluster, Plan};
use weir_tests::refusal::Refusal;

use crate::support::{troubled, until_in_sync, until_unheard, write};

const TOPIC: &str = "orders";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_appends_wait_for_is_said_to_whoever_asks_and_whoever_waits() {
    let plan = Plan::of(3).flag("--replica-lag-ms-max", "1s");
    let mut cluster = Cluster::start_as(Plan { session: Duration::from_secs(2), ..plan }).await;
    cluster.create(TOPIC, 1, 3, &[("min_insync_replicas", "2")]).await;
    until_in_sync(&cluster, 0, TOPIC, 3).await;
    let leader = cluster.leaders(TOPIC).await[0];
    until_in_sync(&cluster, leader, TOPIC, 3).await;
    write(&cluster, leader, TOPIC, 0, "all have this").await;
    assert_eq!(troubled(&cluster, leader).await, [], "all is well");
    let (dead, other) = ((leader + 1) % 3, (leader + 2) % 3);
    let whom =
        format!("appends wait for the replica on broker {}, which has taken nothing for ", cluster.id(dead));

    // No controller is heard any more, and the set that is waited for stays.
    (0..3).for_each(|broker| cluster.link_to_controller(broker).hold());
    until_unheard(&cluster, leader, TOPIC).await;
    assert_eq!(troubled(&cluster, other).await, [], "appends are acknowledged all the same");
    cluster.kill_broker(dead).await;
    for asked in [leader, other] {
        let mut told = Vec::new();
        until("it is said whom appends wait for", async || {
            told = troubled(&cluster, asked).await;
            !told.is_empty()
        })
        .await;
        let said = &told[0].appends_wait;
        assert!(
            said.starts_with(&whom) && said.contains("no controller has answered this leader for"),
            "{said}"
        );
        let named: Vec<_> = told[0].awaited.iter().map(|one| one.broker_id).collect();
        assert_eq!((named, told[0].isr.len()), (vec![cluster.id(dead)], 3));
    }

    let mut request = Request::new(ProduceRequest {
        topic: TOPIC.to_owned(),
        partition: Some(0),
        records: vec![NewRecord { value_text: "not everywhere".to_owned(), ..NewRecord::default() }],
        ..ProduceRequest::default()
    });
    request.set_timeout(Duration::from_secs(2));
    let late = ProducerServiceClient::new(cluster.channel(other)).produce(request).await.unwrap_err();
    let late = Refusal::of_status(&late).unwrap();
    assert_eq!((late.reason, late.applied), (ErrorReason::DeadlineExceeded, Applied::Maybe), "{late:?}");
    assert!(late.message.contains(&whom), "{late:?}");

    let client = Client::connect(&cluster.addr(other).to_string()).await.unwrap();
    let config = ProducerConfig::new().delivery_timeout(Duration::from_secs(5));
    let producer = client.producer(config).unwrap();
    let receipt = producer.send(TOPIC, "nor this").await.unwrap();
    let given_up = receipt.await.unwrap_err().to_string();
    assert!(given_up.contains("the outcome is unknown") && given_up.contains(&whom), "{given_up}");

    // What was started again takes part, and nobody waits any more.
    (0..3).for_each(|broker| cluster.link_to_controller(broker).release());
    cluster.start_broker(dead).await;
    until("nobody is waited for", async || troubled(&cluster, leader).await.is_empty()).await;
    cluster.stop().await;
}
