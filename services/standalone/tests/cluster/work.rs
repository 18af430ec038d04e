//! What following the metadata costs follows from what changed, not from what there is.

use weir_io::MemDisk;

use crate::elsewhere::Elsewhere;
use crate::support::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_more_topic_beside_20000_partitions_is_one_partitions_work() {
    const FOLLOWED: &str = "weir_metadata_partitions_followed_total";
    let controller = Node::start(&MemDisk::new(2)).await;
    let other = Elsewhere::start(&controller).await;
    for topic in ["many", "more"] {
        controller.create(topic, 10_000, 1).await;
        other.assign(&controller, topic).await;
    }
    let broker = Broker::start(MemDisk::new(1), controller.addr).await;
    assert_eq!(broker.metric("weir_topics").await, 2);
    let before = broker.metric(FOLLOWED).await;
    assert!(before >= 20_000, "{before}");
    broker.create("one", 1).await.unwrap();
    broker.produce("one", 0).await.unwrap();
    broker.set("one", "retention_ms", "1h").await;
    broker.delete("one").await;
    let touched = broker.metric(FOLLOWED).await - before;
    // Made, assigned and led, another setting, deleted.
    assert!((4..=8).contains(&touched), "{touched} partitions were looked at");
    broker.running.stop().await.unwrap();
    controller.stop().await;
}
