//! Records that are deleted are deleted on every replica that may lead next.

use std::time::Duration;

use tonic::Request;
use weir_proto::v1::topic_service_client::TopicServiceClient;
use weir_proto::v1::{Applied, DeleteRecordsRequest, ErrorReason, RecordsBefore};
use weir_runtime::testing::until;
use weir_tests::cluster::{Cluster, Plan};
use weir_tests::refusal::Refusal;

use crate::support::{read, until_in_sync, write};

async fn delete(cluster: &Cluster, at: usize, offset: i64) -> Result<Vec<i64>, Refusal> {
    let before = vec![RecordsBefore { partition: 0, offset }];
    let mut request = Request::new(DeleteRecordsRequest { topic: "orders".to_owned(), before });
    request.set_timeout(Duration::from_secs(2));
    match TopicServiceClient::new(cluster.channel(at)).delete_records(request).await {
        Ok(answer) => Ok(answer.into_inner().log_start.into_iter().map(|start| start.offset).collect()),
        Err(status) => Err(Refusal::of_status(&status).unwrap()),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deletion_is_answered_when_all_in_sync_have_it() {
    let plan = Plan { session: Duration::from_secs(1), ..Plan::of(3) }.flag("--replica-lag-ms-max", "60s");
    let mut cluster = Cluster::start_as(plan).await;
    cluster.create("orders", 1, 3, &[("min_insync_replicas", "2")]).await;
    until_in_sync(&cluster, 0, "orders", 3).await;
    for number in 0..10 {
        write(&cluster, 0, "orders", 0, &format!("{number}")).await;
    }
    let leader = cluster.leaders("orders").await[0];
    assert_eq!(delete(&cluster, leader, 4).await.unwrap(), [4]);

    let (one, other) = ((leader + 1) % 3, (leader + 2) % 3);
    let links = [one, other].map(|follower| cluster.link(follower, leader));
    links.iter().for_each(|link| link.hold());
    let late = delete(&cluster, leader, 6).await.unwrap_err();
    assert_eq!((late.reason, late.applied), (ErrorReason::DeadlineExceeded, Applied::Yes), "{late:?}");
    let lacks: Vec<_> = late.facts.get("brokers").unwrap().split(", ").map(str::to_owned).collect();
    assert_eq!(lacks.len(), 2, "{late:?}");
    links.iter().for_each(|link| link.release());
    assert_eq!(delete(&cluster, leader, 8).await.unwrap(), [8], "they have followed by themselves");

    // Whoever leads next has not what was deleted.
    cluster.kill_broker(leader).await;
    until("another one leads", async || {
        let now = cluster.leaders_seen_by(one, "orders").await;
        now.iter().all(|id| *id > 0 && *id != cluster.id(leader)) && !now.is_empty()
    })
    .await;
    assert_eq!(read(&cluster, one, "orders").await, ["8", "9"]);
    cluster.stop().await;
}
