//! How far a replica is behind is said by whoever leads: in its metrics, and to those who ask about the partition.

use weir_proto::v1::admin_service_client::AdminServiceClient;
use weir_proto::v1::{
    DescribePartitionsRequest, FollowerDescription, ListBrokersRequest, RemoveBrokerRequest,
};
use weir_runtime::testing::until;
use weir_tests::cluster::Cluster;

use crate::failover::three;
use crate::support::{until_in_sync, write};

/// The follower on a broker, as any broker describes it.
async fn follower(cluster: &Cluster, asked: usize, of: usize) -> Option<FollowerDescription> {
    let request =
        DescribePartitionsRequest { topic: "orders".to_owned(), ..DescribePartitionsRequest::default() };
    let answer = AdminServiceClient::new(cluster.channel(asked)).describe_partitions(request).await;
    let partition = answer.unwrap().into_inner().partitions.into_iter().next()?;
    partition.followers.into_iter().find(|follower| follower.broker_id == cluster.id(of))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_is_away_is_behind_and_then_is_not() {
    let mut cluster = Cluster::start_as(three()).await;
    cluster.create("orders", 1, 3, &[("min_insync_replicas", "2")]).await;
    until_in_sync(&cluster, 0, "orders", 3).await;
    write(&cluster, 0, "orders", 0, "both have this").await;
    let leader = cluster.leaders("orders").await[0];
    let (late, other) = ((leader + 1) % 3, (leader + 2) % 3);
    let name =
        |what: &str, at: usize| format!("weir_replication_lag_{what}{{follower=\"{}\"}}", cluster.id(at));
    let (bytes, seconds) = (name("bytes", late), name("seconds", late));
    let others = name("bytes", other);
    until("nobody is behind", async || cluster.metric(leader, &bytes).await == Some(0.0)).await;
    cluster.stop_broker(late).await;
    for number in 0..20 {
        write(&cluster, other, "orders", 0, &format!("{number}")).await;
    }
    until_in_sync(&cluster, other, "orders", 2).await;
    assert!(cluster.metric(leader, &bytes).await > Some(20.0 * 88.0));
    assert!(cluster.metric(leader, &seconds).await > Some(0.0));
    assert_eq!(cluster.metric(leader, "weir_partitions_under_replicated").await, Some(1.0));
    assert_eq!(cluster.metric(leader, "weir_partitions_unwritable").await, Some(0.0));
    until("the other one is not", async || cluster.metric(leader, &others).await == Some(0.0)).await;
    for asked in [leader, other] {
        let away = follower(&cluster, asked, late).await.unwrap();
        assert_eq!((away.lag_records, away.log_end_offset, away.in_sync), (20, 1, false), "{away:?}");
        assert!(away.lag_bytes > 20 * 88 && away.lag_ms > 0, "{away:?}");
        let there = follower(&cluster, asked, other).await.unwrap();
        assert_eq!((there.lag_records, there.lag_bytes, there.lag_ms, there.in_sync), (0, 0, 0, true));
    }
    cluster.start_broker(late).await;
    until_in_sync(&cluster, other, "orders", 3).await;
    until("it has caught up", async || cluster.metric(leader, &bytes).await == Some(0.0)).await;
    assert_eq!(follower(&cluster, leader, late).await.unwrap().lag_records, 0);
    assert_eq!(cluster.metric(leader, "weir_partitions_under_replicated").await, Some(0.0));
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_was_taken_out_of_the_cluster_is_behind_no_more() {
    let mut cluster = Cluster::start_as(three()).await;
    cluster.create("orders", 1, 3, &[("min_insync_replicas", "2")]).await;
    until_in_sync(&cluster, 0, "orders", 3).await;
    let leader = cluster.leaders("orders").await[0];
    let (gone, other) = ((leader + 1) % 3, (leader + 2) % 3);
    let lines = ["bytes", "seconds"]
        .map(|what| format!("weir_replication_lag_{what}{{follower=\"{}\"}}", cluster.id(gone)));
    cluster.stop_broker(gone).await;
    write(&cluster, other, "orders", 0, "it never has this").await;
    for line in &lines {
        until("it is behind", async || cluster.metric(leader, line).await > Some(0.0)).await;
    }
    let mut admin = AdminServiceClient::new(cluster.channel(leader));
    let listed = admin.list_brokers(ListBrokersRequest::default()).await.unwrap().into_inner().brokers;
    let known = listed.iter().find(|broker| broker.broker_id == cluster.id(gone)).unwrap();
    let lost = RemoveBrokerRequest {
        broker_id: known.broker_id,
        disk_lost: true,
        expected_epoch: Some(known.broker_epoch),
        ..RemoveBrokerRequest::default()
    };
    admin.remove_broker(lost).await.unwrap();
    for line in &lines {
        until("it has no line", async || cluster.metric(leader, line).await.is_none()).await;
    }
    let others = format!("weir_replication_lag_bytes{{follower=\"{}\"}}", cluster.id(other));
    assert!(cluster.metric(leader, &others).await.is_some(), "who is still there has one");
    cluster.stop().await;
}
