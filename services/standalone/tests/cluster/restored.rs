//! A controller that knows less than it once did is not followed (correctness rule 33).

use weir_io::MemDisk;

use crate::support::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_controller_that_was_restored_from_a_backup_is_not_followed() {
    let logs = MemDisk::new(1);
    let controller = Node::start(&MemDisk::new(2)).await;
    let (addr, backup) = (controller.addr, copy(&controller.disk));
    let broker = Broker::start(logs.clone(), addr).await;
    broker.create("a", 1).await;
    assert_eq!(broker.produce("a", 0).await.unwrap(), 0);
    assert!(broker.http("/readyz").await.contains("200 OK"));

    controller.stop().await;
    let controller = Node::start_at(&backup, addr).await;
    until("a reason not to be ready", async || {
        let answer = broker.http("/readyz").await;
        answer.contains("503") && answer.contains("backup")
    })
    .await;
    assert_eq!(broker.produce("a", 0).await.unwrap(), 1, "what it leads it goes on to serve");
    assert_eq!(broker.end("a", 0).await, 2);
    assert!(!broker.running.over().is_requested(), "nobody else is this broker");
    broker.running.stop().await.unwrap();

    let Err(refused) = Broker::try_start(logs.clone(), addr).await else { panic!("it started") };
    assert!(refused.to_string().contains("restored from a backup"), "{refused}");
    let folders = folders(&logs);
    assert!(folders.len() == 1 && folders[0].starts_with("a-0."), "{folders:?}");
    assert!(!folders[0].ends_with(".stray"), "{folders:?}");
    controller.stop().await;
}
