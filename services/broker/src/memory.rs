//! What appends hold in memory between being read off a connection and being answered, counted for the whole broker.
//!
//! Whoever reads requests waits while the bound is reached: what is not read stays with the client, by the flow
//! control of HTTP/2. A request is counted once it is read, so the bound may be passed by one request for each call.
//! It does not count what connections buffer below (their windows), nor what readers are given.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use prometheus::IntCounter;
use tokio::sync::Notify;

/// The count and its bound, in bytes.
#[derive(Debug)]
pub(crate) struct Memory {
    used: AtomicUsize,
    max: usize,
    /// How often somebody had to wait.
    waits: IntCounter,
    room: Notify,
}

/// So many bytes, counted until dropped.
#[derive(Debug)]
pub(crate) struct Held {
    memory: Arc<Memory>,
    bytes: usize,
}

impl Memory {
    /// A bound, and where is counted how often somebody had to wait for it.
    pub(crate) fn new(max: usize, waits: IntCounter) -> Arc<Self> {
        Arc::new(Self { used: AtomicUsize::new(0), max, waits, room: Notify::new() })
    }

    /// How many bytes are held now.
    pub(crate) fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    /// How many may be.
    pub(crate) fn max(&self) -> usize {
        self.max
    }

    pub(crate) fn has_room(&self) -> bool {
        self.used.load(Ordering::Acquire) < self.max
    }

    /// Waits until there is room for another request. Cancel safe: nothing is taken.
    pub(crate) async fn room(&self) {
        if self.has_room() {
            return;
        }
        self.waits.inc();
        loop {
            let mut freed = pin!(self.room.notified());
            // Heard from here on: what is freed between the look and the wait is not missed.
            freed.as_mut().enable();
            if self.has_room() {
                return;
            }
            freed.await;
        }
    }

    /// Counts what was read.
    pub(crate) fn take(&self, bytes: usize) {
        self.used.fetch_add(bytes, Ordering::AcqRel);
    }

    /// What was taken is free again.
    pub(crate) fn give_back(&self, bytes: usize) {
        let before = self.used.fetch_sub(bytes, Ordering::AcqRel);
        if before >= self.max && before.saturating_sub(bytes) < self.max {
            self.room.notify_waiters();
        }
    }

    /// Counts what was read, for as long as the answer is kept.
    pub(crate) fn hold(self: &Arc<Self>, bytes: usize) -> Held {
        self.take(bytes);
        Held { memory: self.clone(), bytes }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.memory.give_back(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    #[tokio::test]
    async fn who_wants_room_waits_until_enough_is_given_back() {
        let waits = IntCounter::new("waits", "waits").unwrap();
        let memory = Memory::new(100, waits.clone());
        let first = memory.hold(99);
        assert!(memory.room().now_or_never().is_some());
        let second = memory.hold(50);
        let mut waiting = pin!(memory.room());
        assert!(waiting.as_mut().now_or_never().is_none());
        drop(second);
        waiting.await;
        assert_eq!((memory.used(), waits.get()), (99, 1));
        drop(first);
        assert_eq!(memory.used(), 0);
    }
}
