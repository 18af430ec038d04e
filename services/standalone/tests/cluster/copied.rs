//! Two processes on copies of one log directory: one of them leads (correctness rule 8).

use weir_io::MemDisk;

use crate::support::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_processes_on_copies_of_a_directory_the_later_one_leads_and_the_other_ends() {
    let logs = MemDisk::new(1);
    let controller = Node::start(&MemDisk::new(2)).await;
    let first = Broker::start(logs.clone(), controller.addr).await;
    first.create("a", 1).await.unwrap();
    assert_eq!(first.produce("a", 0).await.unwrap(), 0);

    let second = Broker::start(copy(&logs), controller.addr).await;
    assert_eq!(second.produce("a", 0).await.unwrap(), 1);
    until("the wish to end", async || first.running.over().is_requested()).await;
    let reason = first.running.over().reason().unwrap();
    assert!(reason.to_string().contains("another process has registered as broker 1"), "{reason}");
    assert_eq!(reason.exit_code(), 1);
    until("a refusal", async || first.produce("a", 0).await.is_err()).await;
    assert!(!second.running.over().is_requested());
    assert_eq!(second.produce("a", 0).await.unwrap(), 2);
    first.running.stop().await.unwrap();
    assert_eq!(second.produce("a", 0).await.unwrap(), 3, "the other's stop is not ours");
    second.running.stop().await.unwrap();
    controller.stop().await;
}
