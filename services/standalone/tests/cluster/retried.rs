//! What fails is tried again by itself, and holds up nothing else.

use weir_io::{Effect, Fault, FaultDisk, MemDisk, Op, Rule};

use crate::support::*;

/// The folder of this partition cannot be made.
fn blocked(disk: &FaultDisk, partition: &'static str) -> weir_io::RuleId {
    let fails = Rule::on([Op::CreateDir], Effect::Fail(Fault::Io));
    disk.add(fails.path(move |path| path.to_string_lossy().contains(partition)))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_cannot_be_made_holds_up_no_other_and_comes_by_itself() {
    let logs = FaultDisk::over_mem(&MemDisk::new(1));
    let controller = Node::start(&MemDisk::new(2)).await;
    let broker = Broker::start(logs.clone(), controller.addr).await;
    let rule = blocked(&logs, "/b-1.");
    controller.create("b", 3, 1).await;
    until_written(&broker, "b", 0).await;
    until_written(&broker, "b", 2).await;
    let refused = broker.produce("b", 1).await.unwrap_err();
    assert!(refused.message().contains("cannot be made"), "{refused}");
    logs.remove(rule);
    until_written(&broker, "b", 1).await;
    broker.running.stop().await.unwrap();
    controller.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_log_that_the_controller_did_not_hear_of_is_reported_again() {
    let logs = FaultDisk::over_mem(&MemDisk::new(1));
    let controller = Node::start(&MemDisk::new(2)).await;
    let addr = controller.addr;
    let broker = Broker::start(logs.clone(), addr).await;
    let rule = blocked(&logs, "/c-0.");
    controller.create("c", 1, 1).await;
    until("an attempt", async || logs.fired(rule) > 0).await;
    let disk = controller.stop().await;
    logs.remove(rule);
    until("the log", async || folders(&logs).iter().any(|folder| folder.starts_with("c-0."))).await;
    let controller = Node::start_at(&disk, addr).await;
    until_written(&broker, "c", 0).await;
    broker.running.stop().await.unwrap();
    controller.stop().await;
}
