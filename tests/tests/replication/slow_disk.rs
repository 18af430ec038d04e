//! A leader whose disk is slow gives way, and comes back (correctness rule 41).

use std::time::Duration;

use weir_proto::v1::producer_service_client::ProducerServiceClient;
use weir_proto::v1::{NewRecord, ProduceRequest};
use weir_runtime::testing::until;
use weir_tests::cluster::{Cluster, Plan};

use crate::support::{partitions, read, until_in_sync, write};

const SLOW: Duration = Duration::from_secs(5);

fn plan() -> Plan {
    let plan = Plan::of(3).flag("--slow-flush-ms", "4s");
    plan.flag("--slow-disk-after-ms", "200ms").flag("--quick-disk-after-ms", "200ms")
}

/// What was written, each value once: those that were acknowledged. Of the others nobody knows.
#[derive(Default)]
struct Written {
    tried: u32,
    acknowledged: Vec<String>,
}

impl Written {
    /// Writes until it is so.
    async fn until(&mut self, cluster: &Cluster, what: &str, holds: impl AsyncFn() -> bool) {
        until(what, async || {
            self.tried += 1;
            let value = format!("order {}", self.tried);
            let request = ProduceRequest {
                topic: "orders".to_owned(),
                partition: Some(0),
                records: vec![NewRecord { value_text: value.clone(), ..NewRecord::default() }],
                ..ProduceRequest::default()
            };
            // Where its leader gives way in the middle of it, nobody knows.
            if ProducerServiceClient::new(cluster.channel(0)).produce(request).await.is_ok() {
                self.acknowledged.push(value);
            }
            holds().await
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_whose_disk_is_slow_gives_way_and_comes_back() {
    let cluster = Cluster::start_as(plan()).await;
    cluster.create("orders", 1, 3, &[("min_insync_replicas", "2")]).await;
    until_in_sync(&cluster, 0, "orders", 3).await;
    let mut written = Written::default();
    let slow = cluster.leaders("orders").await[0];
    let id = cluster.id(slow);
    cluster.slow_disk(slow, SLOW);
    written
        .until(&cluster, "another broker leads, without the slow one", async || {
            let now = partitions(&cluster, 0, "orders").await;
            now.iter()
                .all(|it| it.leader > 0 && it.leader != id && it.isr.len() == 2 && !it.isr.contains(&id))
        })
        .await;
    assert_eq!(cluster.metric(slow, "weir_disk_slow").await, Some(1.0));
    // It goes on following, and stays out.
    let before = written.acknowledged.len();
    for _ in 0..20 {
        written.until(&cluster, "it is written", async || true).await;
    }
    assert_eq!(written.acknowledged.len(), before + 20);
    assert!(partitions(&cluster, 0, "orders").await.iter().all(|it| !it.isr.contains(&id)));
    // Nobody writes from here on.
    cluster.slow_disk(slow, Duration::ZERO);
    until_in_sync(&cluster, 0, "orders", 3).await;
    assert_eq!(cluster.metric(slow, "weir_disk_slow").await, Some(0.0));
    let leader = cluster.leaders("orders").await[0];
    let mut values = read(&cluster, leader, "orders").await;
    values.retain(|value| written.acknowledged.contains(value));
    assert_eq!(values, written.acknowledged);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_all_disks_are_slow_everything_goes_on() {
    let cluster = Cluster::start_as(plan()).await;
    cluster.create("orders", 3, 3, &[("min_insync_replicas", "3")]).await;
    until_in_sync(&cluster, 0, "orders", 3).await;
    (0..3).for_each(|at| cluster.slow_disk(at, SLOW));
    let mut written = Written::default();
    written
        .until(&cluster, "every disk is said to be slow", async || {
            let mut slow = 0;
            for at in 0..3 {
                slow += u32::from(cluster.metric(at, "weir_disk_slow").await == Some(1.0));
            }
            slow == 3
        })
        .await;
    write(&cluster, 0, "orders", 0, "and on").await;
    let now = partitions(&cluster, 0, "orders").await;
    assert!(now.iter().all(|it| it.leader > 0 && it.isr.len() == 3), "all of them are needed: {now:?}");
    cluster.stop().await;
}
