//! A controller that knows less than it once did is not followed (correctness rule 33).

use std::time::Duration;

use weir_cluster::is_for;
use weir_io::MemDisk;
use weir_proto::v1::ErrorReason;

use crate::elsewhere::Elsewhere;
use crate::support::*;

/// The backup knows of no broker.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_controller_from_before_the_broker_is_not_followed() {
    let controller = Node::start(&MemDisk::new(2)).await;
    let backup = copy(&controller.disk);
    let logs = MemDisk::new(1);
    let broker = Broker::start(logs.clone(), controller.addr).await;
    is_not_followed(controller, &backup, broker, &logs).await;
}

/// The backup knows the broker in its registration, but not what was made since.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_controller_from_before_the_topic_is_not_followed() {
    let controller = Node::start(&MemDisk::new(2)).await;
    let logs = MemDisk::new(1);
    let broker = Broker::start(logs.clone(), controller.addr).await;
    let backup = copy(&controller.disk);
    is_not_followed(controller, &backup, broker, &logs).await;
}

/// From the first moment on, also before it is known for what it is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn producer_ids_of_a_restored_controller_are_not_taken() {
    let controller = Node::start(&MemDisk::new(2)).await;
    let addr = controller.addr;
    let broker = Broker::start(MemDisk::new(1), addr).await;
    broker.create("a", 1).await.unwrap();
    let other = Elsewhere::start(&controller).await;
    // It has a block in stock.
    broker.open_producer().await.unwrap();
    let backup = copy(&controller.disk);
    other.producer_ids(&controller).await;
    // When this is answered, the broker has seen something newer than the block.
    broker.set("a", "retention_ms", "1h").await;
    controller.stop().await;
    let controller = Node::start_at(&backup, addr).await;
    // Behind its stock it would be given the other broker's block again.
    let mut opened = 0;
    let refused = loop {
        match broker.open_producer().await {
            Ok(_) => opened += 1,
            Err(refused) => break refused,
        }
    };
    assert!(opened < 1_000, "{opened} of a block of a thousand, of which some were taken");
    assert!(is_for(&refused, ErrorReason::ControllerUnavailable), "{refused}");
    broker.running.stop().await.unwrap();
    controller.stop().await;
}

/// What it says of the broker holds in another history: after a session nothing is promised here that epochs do not protect
/// (correctness rule 10).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restored_controller_keeps_no_session_alive() {
    let session = Duration::from_secs(2);
    let controller = Node::start_with(&MemDisk::new(2), "127.0.0.1:0".parse().unwrap(), session).await;
    let addr = controller.addr;
    let broker = Broker::start(MemDisk::new(1), addr).await;
    // It knows the broker in its registration, and not the topic.
    let backup = copy(&controller.disk);
    broker.create("a", 1).await.unwrap();
    until("it promises", async || broker.latest("a", 0).await.is_ok()).await;
    controller.stop().await;
    let controller = Node::start_with(&backup, addr, session).await;
    until("it promises nothing any more", async || broker.latest("a", 0).await.is_err()).await;
    broker.running.stop().await.unwrap();
    controller.stop().await;
}

async fn is_not_followed(controller: Node, backup: &MemDisk, broker: Broker, logs: &MemDisk) {
    let addr = controller.addr;
    broker.create("a", 1).await.unwrap();
    assert_eq!(broker.produce("a", 0).await.unwrap(), 0);
    assert!(broker.http("/readyz").await.contains("200 OK"));

    controller.stop().await;
    let controller = Node::start_at(backup, addr).await;
    until("a reason not to be ready", async || {
        let answer = broker.http("/readyz").await;
        answer.contains("503") && answer.contains("backup")
    })
    .await;
    let refused = broker.create("b", 1).await.unwrap_err();
    assert!(is_for(&refused, ErrorReason::ControllerUnavailable), "{refused}");
    assert_eq!(broker.produce("a", 0).await.unwrap(), 1, "what it leads it goes on to serve");
    assert_eq!(broker.end("a", 0).await, 2);
    assert!(!broker.running.over().is_requested(), "nobody else is this broker");
    broker.running.stop().await.unwrap();

    let Err(refused) = Broker::try_start(logs.clone(), addr).await else { panic!("it started") };
    assert!(refused.to_string().contains("restored from a backup"), "{refused}");
    let folders = folders(logs);
    assert!(folders.len() == 1 && folders[0].starts_with("a-0."), "{folders:?}");
    assert!(!folders[0].ends_with(".stray"), "{folders:?}");
    controller.stop().await;
}
