//! Receipts: what became of a record, to be awaited.
//!
//! A receipt is a share of its batch and a number. There is no channel and no allocation per record: the whole
//! batch has one place where its result is put, and a list of those who wait for it.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;
use weir_proto::v1;
use weir_types::Durability;

use crate::{Error, Result};

/// What is true of a record at the moment it was acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// The partition.
    pub partition: i32,
    /// The record's offset; `None` with acks none.
    pub offset: Option<i64>,
    /// The leader epoch it was written in; -1 with acks none.
    pub leader_epoch: i32,
    /// When the leader wrote it, milliseconds since 1970 UTC.
    pub append_timestamp_ms: i64,
    /// Where it is, in every replica counted; `None` if that was not said.
    pub durability: Option<Durability>,
    /// In how many replicas it is written.
    pub replicas_written: i32,
    /// In how many it is on disk.
    pub replicas_flushed: i32,
    /// In how many zones it is.
    pub zones: i32,
    /// Whether it is committed: it will not be lost, as the topic's class promises.
    pub committed: bool,
    /// Whether it had been written by an earlier attempt, whose answer was lost.
    pub duplicate: bool,
}

impl Delivery {
    /// Without a place: acks none.
    pub(super) fn unconfirmed(partition: i32) -> Self {
        Self {
            partition,
            offset: None,
            leader_epoch: -1,
            append_timestamp_ms: 0,
            durability: None,
            replicas_written: 0,
            replicas_flushed: 0,
            zones: 0,
            committed: false,
            duplicate: false,
        }
    }

    /// Of the first record of a batch.
    pub(super) fn of_batch(receipt: &v1::AppendReceipt) -> Self {
        Self {
            partition: receipt.partition,
            offset: Some(receipt.base_offset),
            leader_epoch: receipt.leader_epoch,
            append_timestamp_ms: receipt.append_timestamp_ms,
            durability: match receipt.durability() {
                v1::Durability::Unspecified => None,
                v1::Durability::Memory => Some(Durability::Replicated),
                v1::Durability::Disk => Some(Durability::Fsync),
            },
            replicas_written: receipt.replicas_written,
            replicas_flushed: receipt.replicas_flushed,
            zones: receipt.zones,
            committed: receipt.committed,
            duplicate: receipt.duplicate,
        }
    }
}

/// A batch as its receipts see it.
#[derive(Debug)]
pub(super) struct Ticket {
    /// What it counts against the producer's memory, in bytes.
    pub(super) bytes: std::sync::atomic::AtomicUsize,
    done: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    result: Option<Result<Delivery>>,
    /// Who waits.
    waiting: Vec<Option<Waker>>,
    /// The places of those who have gone, to be used again.
    free: Vec<usize>,
}

impl Ticket {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            bytes: std::sync::atomic::AtomicUsize::new(0),
            done: AtomicBool::new(false),
            state: Mutex::default(),
        })
    }

    /// Puts the result and wakes everybody. Only the first result counts.
    pub(super) fn complete(&self, result: Result<Delivery>) {
        let waiting = {
            let mut state = self.state.lock();
            if state.result.is_some() {
                return;
            }
            state.result = Some(result);
            self.done.store(true, Ordering::Release);
            std::mem::take(&mut state.waiting)
        };
        waiting.into_iter().flatten().for_each(Waker::wake);
    }

    pub(super) fn is_done(&self) -> bool {
        self.done.load(Ordering::Acquire)
    }

    fn result(&self) -> Option<Result<Delivery>> {
        if !self.is_done() {
            return None;
        }
        self.state.lock().result.clone()
    }
}

/// What became of a record: await it. Dropping it changes nothing about the record.
#[derive(Debug)]
#[must_use = "a receipt says whether the record arrived; drop it knowingly"]
pub struct Receipt {
    batch: Arc<Ticket>,
    /// The record's place in its batch.
    index: i32,
    /// Our place in the list of those who wait.
    place: Option<usize>,
}

impl Receipt {
    pub(super) fn new(batch: Arc<Ticket>, index: i32) -> Self {
        Self { batch, index, place: None }
    }

    /// What is known now; `None`: nothing yet.
    pub fn try_get(&self) -> Option<Result<Delivery>> {
        self.batch.result().map(|result| self.of_record(result))
    }

    fn of_record(&self, result: Result<Delivery>) -> Result<Delivery> {
        result.map(|first| Delivery {
            offset: first.offset.map(|offset| offset + i64::from(self.index)),
            ..first
        })
    }
}

impl Future for Receipt {
    type Output = Result<Delivery, Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let batch = Arc::clone(&self.batch);
        let mut state = batch.state.lock();
        if let Some(result) = &state.result {
            return Poll::Ready(self.of_record(result.clone()));
        }
        let place = match self.place {
            Some(place) => place,
            None => {
                let place = state.free.pop().unwrap_or(state.waiting.len());
                if place == state.waiting.len() {
                    state.waiting.push(None);
                }
                self.place = Some(place);
                place
            }
        };
        match state.waiting.get_mut(place) {
            Some(Some(waker)) if waker.will_wake(cx.waker()) => {}
            Some(slot) => *slot = Some(cx.waker().clone()),
            None => {}
        }
        Poll::Pending
    }
}

impl Drop for Receipt {
    fn drop(&mut self) {
        if let Some(place) = self.place
            && !self.batch.is_done()
        {
            let mut state = self.batch.state.lock();
            if let Some(slot) = state.waiting.get_mut(place) {
                *slot = None;
                state.free.push(place);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn every_receipt_of_a_batch_gets_its_own_offset() {
        let batch = Ticket::new();
        let receipts: Vec<_> = (0..3).map(|i| Receipt::new(Arc::clone(&batch), i)).collect();
        let tasks: Vec<_> = receipts.into_iter().map(tokio::spawn).collect();
        tokio::task::yield_now().await;
        let first = Delivery { offset: Some(40), ..Delivery::unconfirmed(1) };
        batch.complete(Ok(first));
        batch.complete(Err(Error::Closed("too late")));
        for (i, task) in tasks.into_iter().enumerate() {
            assert_eq!(task.await.unwrap().unwrap().offset, Some(40 + i as i64));
        }
    }

    #[tokio::test]
    async fn who_stops_waiting_leaves_no_trace() {
        let batch = Ticket::new();
        for _ in 0..10 {
            let mut receipt = Receipt::new(Arc::clone(&batch), 0);
            let waited =
                tokio::select! { biased; _ = &mut receipt => true, () = tokio::task::yield_now() => false };
            assert!(!waited);
        }
        assert_eq!(batch.state.lock().waiting.len(), 1);
    }
}
