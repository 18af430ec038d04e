//! A broker whose controller is gone goes on with what it has, and takes up what is new when it is back.

use weir_io::MemDisk;

use crate::support::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_controller_the_broker_serves_what_it_leads() {
    let controller = Node::start(&MemDisk::new(2)).await;
    let addr = controller.addr;
    let broker = Broker::start(MemDisk::new(1), addr).await;
    broker.create("a", 1).await.unwrap();
    let disk = controller.stop().await;
    for offset in 0..100 {
        assert_eq!(broker.produce("a", 0).await.unwrap(), offset);
    }
    assert_eq!(broker.end("a", 0).await, 100);
    assert!(broker.http("/readyz").await.contains("200 OK"));
    let controller = Node::start_at(&disk, addr).await;
    broker.create("b", 1).await.unwrap();
    assert_eq!(broker.produce("b", 0).await.unwrap(), 0);
    broker.running.stop().await.unwrap();
    controller.stop().await;
}
