//! Settings that the replication core uses are in force with the version of the metadata that has them.

use weir_cluster::is_for;
use weir_io::MemDisk;
use weir_proto::v1::ErrorReason;

use crate::elsewhere::Elsewhere;
use crate::support::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_min_insync_needs_no_election() {
    let controller = Node::start(&MemDisk::new(2)).await;
    let broker = Broker::start(MemDisk::new(1), controller.addr).await;
    let other = Elsewhere::start(&controller).await;
    controller.create("r", 2, 2).await;
    let mut led = None;
    until("a leader here", async || {
        for partition in 0..2 {
            if broker.produce("r", partition).await.is_ok() {
                led = Some(partition);
            }
        }
        led.is_some()
    })
    .await;
    let led = led.unwrap();
    // Whoever has made its replicas first leads them.
    other.assign(&controller, "r").await;
    broker.set("r", "min_insync_replicas", "2").await;
    let refused = broker.produce("r", led).await.unwrap_err();
    assert!(is_for(&refused, ErrorReason::NotEnoughReplicas), "{refused}");
    broker.set("r", "min_insync_replicas", "1").await;
    broker.produce("r", led).await.unwrap();
    broker.running.stop().await.unwrap();
    controller.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_says_where_each_of_its_settings_stands() {
    let controller = Node::start(&MemDisk::new(2)).await;
    let broker = Broker::start(MemDisk::new(1), controller.addr).await;
    let origins = broker.origins().await;
    assert_eq!(origins["listen"], "flag --listen");
    assert_eq!(origins["stray_retention_ms"], "default");
    broker.running.stop().await.unwrap();
    controller.stop().await;
}
