//! A disk that has lost the end of what was on it, and says nothing of that, while all brokers were down: whoever leads first
//! hears the others that are known to be complete.

use std::time::Duration;

use weir_client::ErrorReason;
use weir_io::{Effect, Fault, Op, Rule};
use weir_proto::v1::consumer_service_client::ConsumerServiceClient;
use weir_proto::v1::topic_service_client::TopicServiceClient;
use weir_proto::v1::{DeleteRecordsRequest, ListOffsetsRequest, OffsetQuery, RecordsBefore, StartAt};
use weir_runtime::testing::until;
use weir_tests::cluster::{Cluster, Plan};
use weir_tests::refusal::Refusal;

use crate::anew::log_file;
use crate::failover::three;
use crate::support::{frames, partitions, read, troubled, until_in_sync, write};

/// All brokers died, one after the other.
struct Down {
    cluster: Cluster,
    /// Who led until the end.
    last: usize,
    /// Who was in sync with it until shortly before, and has lost the end of its log.
    short: usize,
    /// Who was the first to die: it is not known to be complete.
    first: usize,
}

/// Twenty records were acknowledged by all.
async fn down(plan: Plan) -> Down {
    let mut cluster = Cluster::start_as(plan).await;
    cluster.create("orders", 1, 3, &[("min_insync_replicas", "2")]).await;
    until_in_sync(&cluster, 0, "orders", 3).await;
    for number in 0..20 {
        write(&cluster, 0, "orders", 0, &number.to_string()).await;
    }
    let last = cluster.leaders("orders").await[0];
    let (short, first) = ((last + 1) % 3, (last + 2) % 3);
    cluster.kill_broker(first).await;
    until_in_sync(&cluster, last, "orders", 2).await;
    cluster.kill_broker(short).await;
    until_in_sync(&cluster, last, "orders", 1).await;
    cluster.kill_broker(last).await;
    let log = log_file(cluster.disk(short));
    log.set_len(log.len().unwrap() / 2).unwrap();
    Down { cluster, last, short, first }
}

async fn until_led_by(cluster: &Cluster, asked: usize, leader: usize) {
    until("it leads", async || {
        let there = partitions(cluster, asked, "orders").await;
        there.first().is_some_and(|one| one.leader == cluster.id(leader))
    })
    .await;
}

/// Why a broker does not say where the log ends.
async fn latest(cluster: &Cluster, at: usize) -> Result<i64, ErrorReason> {
    let latest =
        OffsetQuery { topic: "orders".to_owned(), start_at: StartAt::Latest.into(), ..Default::default() };
    let request = ListOffsetsRequest { queries: vec![latest], ..ListOffsetsRequest::default() };
    match ConsumerServiceClient::new(cluster.channel(at)).list_offsets(request).await {
        Ok(answer) => Ok(answer.into_inner().offsets[0].offset),
        Err(status) => Err(Refusal::of_status(&status).unwrap().reason),
    }
}

/// Why a broker does not delete what lies before an offset.
async fn delete(cluster: &Cluster, at: usize, offset: i64) -> ErrorReason {
    let before = vec![RecordsBefore { partition: 0, offset }];
    let request = DeleteRecordsRequest { topic: "orders".to_owned(), before };
    let answer = TopicServiceClient::new(cluster.channel(at)).delete_records(request).await;
    Refusal::of_status(&answer.unwrap_err()).unwrap().reason
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_lacks_the_end_gives_way_to_one_that_has_it() {
    // Nobody loses patience in this.
    let Down { mut cluster, last, short, first } =
        down(Plan { session: Duration::from_secs(1), ..Plan::of(3) }).await;
    cluster.start_broker(short).await;
    until_led_by(&cluster, short, short).await;
    cluster.start_broker(first).await;
    until_led_by(&cluster, first, short).await;
    assert_eq!(latest(&cluster, short).await, Err(ErrorReason::OffsetNotAvailable));
    let said = troubled(&cluster, first).await[0].appends_wait.clone();
    let waits = format!("first hears the replicas on brokers {}, which may have more", cluster.id(last));
    assert!(said.contains(&waits), "{said}");
    for before in [-1, 20] {
        let refused = delete(&cluster, short, before).await;
        assert_eq!(refused, ErrorReason::OffsetNotAvailable, "it does not know what there is");
    }
    cluster.start_broker(last).await;
    until_led_by(&cluster, last, last).await;
    until_in_sync(&cluster, last, "orders", 3).await;
    assert_eq!(read(&cluster, last, "orders").await, (0..20).map(|n| n.to_string()).collect::<Vec<_>>());
    assert_eq!(write(&cluster, last, "orders", 0, "new").await, 20);
    for at in 0..3 {
        cluster.stop_broker(at).await;
    }
    let whole = frames(cluster.disk(last)).await;
    assert_eq!(whole[0].1.len(), 21);
    assert_eq!((&frames(cluster.disk(short)).await, &frames(cluster.disk(first)).await), (&whole, &whole));
    cluster.stop().await;
}

/// Whose disk is gone is not waited for by those that are left for ever.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_stays_away_is_waited_for_for_a_while() {
    let Down { mut cluster, short, first, .. } = down(three()).await;
    cluster.start_broker(short).await;
    cluster.start_broker(first).await;
    until_in_sync(&cluster, short, "orders", 2).await;
    until_led_by(&cluster, first, short).await;
    let end = write(&cluster, short, "orders", 0, "new").await;
    assert!((1..20).contains(&end), "{end}");
    assert_eq!(latest(&cluster, short).await, Ok(end + 1));
    cluster.stop().await;
}

/// The first that is back is to lead, and cannot open its log: others that are known to be complete do not wait for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_cannot_use_its_log_leaves_the_lead_to_whoever_is_complete() {
    let Down { mut cluster, last, short, first } = down(three()).await;
    let out_of_reach = Rule::on([Op::Open], Effect::Fail(Fault::Io)).ends_with(".log");
    cluster.try_start_broker_on(short, [out_of_reach]).await.unwrap();
    until_led_by(&cluster, short, short).await;
    cluster.start_broker(last).await;
    cluster.start_broker(first).await;
    until_led_by(&cluster, last, last).await;
    // Once it has lost patience with the one that says nothing.
    until_in_sync(&cluster, last, "orders", 2).await;
    assert_eq!(read(&cluster, last, "orders").await, (0..20).map(|n| n.to_string()).collect::<Vec<_>>());
    assert_eq!(write(&cluster, last, "orders", 0, "new").await, 20);
    cluster.stop().await;
}
