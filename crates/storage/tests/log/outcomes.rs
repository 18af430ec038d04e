//! What became of an append, while nobody knows yet: the answer must not run ahead of the disk (correctness rule 19).

use std::pin::{Pin, pin};
use std::sync::Arc;

use tokio::time::timeout;
use weir_io::{FaultDisk, MemDisk, Op};
use weir_runtime::testing::{PATIENCE, TestOs};
use weir_storage::{Acks, AppendError, Control, Outcome, OutcomeQuery, Partition, Refused};
use weir_types::{Durability, Producer, ProducerId};

use crate::support::*;

/// A log in class fsync whose syncs are held up.
async fn unflushed() -> (Process, Partition, Held) {
    let disk = FaultDisk::over_mem(&MemDisk::new(1));
    let process = Process::start_on(TestOs::threads(Arc::new(disk.clone())).unwrap(), |_| {}).unwrap();
    let log = process.create(0, config(Durability::Fsync)).await;
    let syncs = Held::new(&disk, Op::SyncData, &log.describe().path);
    (process, log, syncs)
}

/// Asks for the first batch of producer 7.
async fn ask(log: &Partition, seal: bool) -> Outcome {
    let query = OutcomeQuery { producer: Producer { id: ProducerId(7), epoch: 0 }, base_sequence: 0, seal };
    log.append_outcome(query).await.unwrap().unwrap()
}

/// The answer, if there is one by now.
async fn answered(asked: Pin<&mut impl Future<Output = Outcome>>) -> Option<Outcome> {
    tokio::select! {
        biased;
        outcome = asked => Some(outcome),
        () = std::future::ready(()) => None,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_is_pending_until_it_is_flushed() {
    let (process, log, syncs) = unflushed().await;
    let (first, receipt) = append(by(7, 0, 0, batch("a", 1)), Acks::All);
    log.submit(vec![first]);
    syncs.has_somebody().await;
    for seal in [false, true] {
        // Power lost now would take it away.
        assert!(matches!(ask(&log, seal).await, Outcome::Pending(batch) if batch.base_offset == 0));
    }
    drop(syncs);
    timeout(PATIENCE, receipt).await.expect("flushed").unwrap().unwrap();
    assert!(matches!(ask(&log, true).await, Outcome::Appended(batch) if batch.base_offset == 0));
    process.dir.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
pub(crate) async fn never_is_said_to_nobody_before_the_fence_is_flushed() {
    let (process, log, syncs) = unflushed().await;
    // The second one finds the fence of the first.
    let mut first = pin!(ask(&log, true));
    assert_eq!(answered(first.as_mut()).await, None);
    syncs.has_somebody().await;
    for seal in [false, true] {
        let mut second = pin!(ask(&log, seal));
        assert_eq!(answered(second.as_mut()).await, None);
        // Behind the question in the same queue.
        log.control(Control::Configure(config(Durability::Fsync))).await.unwrap();
        assert_eq!(
            answered(second.as_mut()).await,
            None,
            "seal {seal}: another leader may not have the fence"
        );
    }
    assert_eq!(answered(first.as_mut()).await, None);
    drop(syncs);
    let never = Outcome::Never { next_epoch: 1 };
    assert_eq!(timeout(PATIENCE, first).await.expect("flushed"), never);
    assert_eq!(ask(&log, false).await, never);
    process.dir.close().await.unwrap();
}

/// Until then another leader may not have what it was judged by (correctness rule 20).
#[tokio::test]
pub(crate) async fn a_mismatch_is_said_once_what_it_was_judged_by_is_committed() {
    let process = Process::start(Arc::new(MemDisk::new(1)));
    let log = process.create(0, config(Durability::Fsync)).await;
    let held = Leader { epoch: 1, holds_at: Some(0) };
    log.control(Control::SetAdmission(Box::new(held))).await.unwrap();
    let (first, first_answer) = append(batch("a", 1), Acks::All);
    let (mut other, mut refused) = append(batch("b", 1), Acks::All);
    other.expected_next_offset = Some(0);
    log.submit(vec![first, other]);
    // Behind them in the same queue.
    log.control(Control::Configure(config(Durability::Fsync))).await.unwrap();
    assert!(refused.try_recv().is_err(), "another leader may take it");
    lead(&log, 1).await;
    assert_eq!(first_answer.await.unwrap().unwrap().base_offset, 0);
    let mismatch = AppendError::Refused(Refused::OffsetMismatch { next: 1 });
    assert_eq!(timeout(PATIENCE, refused).await.expect("committed").unwrap(), Err(mismatch));
}
