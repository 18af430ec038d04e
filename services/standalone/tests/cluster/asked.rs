//! What became of an append while its sync is under way: whoever asks is told nothing that a power loss could belie
//! (correctness rule 19).

use std::pin::pin;
use std::sync::Arc;

use tokio::time::timeout;
use weir_io::{Effect, FaultDisk, MemDisk, Op, Rule};
use weir_proto::v1::AppendOutcome;

use crate::support::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_append_is_pending_and_never_is_not_said_until_the_disk_has_it() {
    let node = Node::start(&MemDisk::new(1)).await;
    let disk = FaultDisk::over_mem(&MemDisk::new(2));
    let broker = Broker::start(disk.clone(), node.addr).await;
    broker.create("a", 1).await.unwrap();
    until_written(&broker, "a", 0).await;
    let gate = Gate::default();
    let waits = gate.clone();
    let syncs = Rule::on([Op::SyncData], Effect::Hook(Arc::new(move || waits.wait())));
    let rule = disk.add(syncs.path(|path| path.to_string_lossy().contains("/a-0.")));
    let checked = async {
        let (known, unknown) = (broker.open_producer().await.unwrap(), broker.open_producer().await.unwrap());
        let mut produced = pin!(broker.produce_as(known, "a"));
        tokio::select! {
            biased;
            said = produced.as_mut() => panic!("it cannot be durable: {said:?}"),
            () = until("a sync", async || disk.fired(rule) > 0) => {}
        }
        let said = broker.outcome(known, "a", 0).await.unwrap();
        assert_eq!(said.outcome(), AppendOutcome::Pending);
        assert!(said.receipt.is_some_and(|receipt| !receipt.committed), "where it would be");
        // The fence that the first question leaves is as little durable when the second one comes.
        let ask = || broker.outcome(unknown, "a", 0);
        for said in <[_; 2]>::from(tokio::join!(ask(), ask())) {
            assert_eq!(said.unwrap_err().code(), tonic::Code::DeadlineExceeded);
        }
        gate.open();
        let offset = produced.await.unwrap();
        let said = broker.outcome(known, "a", 0).await.unwrap();
        assert_eq!(said.outcome(), AppendOutcome::Appended);
        assert!(said.receipt.is_some_and(|receipt| receipt.committed && receipt.base_offset == offset));
        let said = broker.outcome(unknown, "a", 10_000).await.unwrap();
        assert_eq!(said.outcome(), AppendOutcome::Never);
    };
    let checked = timeout(PATIENCE, checked).await;
    gate.open();
    checked.expect("nobody waits for ever");
    broker.running.stop().await.unwrap();
    node.stop().await;
}
