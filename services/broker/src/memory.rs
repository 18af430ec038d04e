//! What requests hold in memory between their first byte and their answer, counted for the whole broker.
//!
//! Appends: whoever reads requests waits while the bound is reached; what is not read stays with the client, by the
//! flow control of HTTP/2. An append is counted once it is read, so the bound may be passed by one for each call.
//! Messages on their way in ([`crate::arriving`]) are counted from their announced length on, and get no more than
//! half of the bound, so that appends, which need nobody but this broker to end, always have room again. One connection
//! gets no more than half of that: a client that begins messages and does not go on keeps nobody from theirs.
//!
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
    /// The part of `used` that is on its way in.
    arriving: AtomicUsize,
    max: usize,
    /// How often somebody had to wait.
    waits: IntCounter,
    room: Notify,
    /// How many wait for something on its way in to have come.
    queueing: AtomicUsize,
    departed: Notify,
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
        Arc::new(Self {
            used: AtomicUsize::new(0),
            arriving: AtomicUsize::new(0),
            max,
            waits,
            room: Notify::new(),
            queueing: AtomicUsize::new(0),
            departed: Notify::new(),
        })
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

    /// As how much a message of so many bytes is counted while it comes: one alone always has room.
    pub(crate) fn as_arriving(&self, bytes: usize) -> usize {
        bytes.min(self.max / 2)
    }

    /// Counts what begins to arrive, as [`Memory::as_arriving`] has it, if there is room for it, for all and for its
    /// connection, whose count is `own`; what comes on it alone needs room for all only.
    pub(crate) fn try_arrive(&self, bytes: usize, own: &AtomicUsize) -> bool {
        let add = |count: &AtomicUsize, max: usize, alone: bool| {
            let with_it =
                |before: usize| before.checked_add(bytes).filter(|sum| *sum <= max || (alone && before == 0));
            count.fetch_update(Ordering::SeqCst, Ordering::SeqCst, with_it).is_ok()
        };
        if !add(own, self.max / 4, true) {
            return false;
        }
        let fits = add(&self.arriving, self.max / 2, false);
        if fits {
            self.take(bytes);
        } else {
            own.fetch_sub(bytes, Ordering::SeqCst);
        }
        fits
    }

    /// The same, when there is room for it. Cancel safe: nothing is counted before it returns.
    pub(crate) async fn arrive(&self, bytes: usize, own: &AtomicUsize) {
        self.waits.inc();
        self.queueing.fetch_add(1, Ordering::SeqCst);
        let _queueing = Queueing(&self.queueing);
        loop {
            let mut departed = pin!(self.departed.notified());
            // Heard from here on: what departs between the look and the wait is not missed.
            departed.as_mut().enable();
            if self.try_arrive(bytes, own) {
                return;
            }
            departed.await;
        }
    }

    /// What was arriving has come, or will not.
    pub(crate) fn depart(&self, bytes: usize, own: &AtomicUsize) {
        own.fetch_sub(bytes, Ordering::SeqCst);
        self.arriving.fetch_sub(bytes, Ordering::SeqCst);
        self.give_back(bytes);
        if self.queueing.load(Ordering::SeqCst) > 0 {
            self.departed.notify_waiters();
        }
    }

    /// Counts what was read, for as long as the answer is kept.
    pub(crate) fn hold(self: &Arc<Self>, bytes: usize) -> Held {
        self.take(bytes);
        Held { memory: self.clone(), bytes }
    }
}

/// Somebody waits, until this is dropped.
struct Queueing<'a>(&'a AtomicUsize);

impl Drop for Queueing<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
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

    #[tokio::test]
    async fn what_arrives_leaves_half_to_what_is_written_and_waits_its_turn() {
        let memory = Memory::new(100, IntCounter::new("waits", "waits").unwrap());
        let (one, other) = (AtomicUsize::new(0), AtomicUsize::new(0));
        assert_eq!(memory.as_arriving(1_000), 50);
        assert!(memory.try_arrive(30, &one));
        assert!(!memory.try_arrive(30, &other));
        assert_eq!(memory.used(), 30);
        let mut waiting = pin!(memory.arrive(30, &other));
        assert!(waiting.as_mut().now_or_never().is_none());
        let full = memory.hold(70);
        assert!(!memory.has_room());
        memory.depart(30, &one);
        waiting.await;
        assert_eq!(memory.used(), 100);
        drop(full);
        memory.depart(30, &other);
        assert_eq!((memory.used(), memory.queueing.load(Ordering::SeqCst)), (0, 0));
    }

    #[test]
    fn one_connection_takes_half_of_what_may_arrive_or_one_message() {
        let memory = Memory::new(100, IntCounter::new("waits", "waits").unwrap());
        let (one, other) = (AtomicUsize::new(0), AtomicUsize::new(0));
        assert!(memory.try_arrive(20, &one));
        assert!(!memory.try_arrive(10, &one), "its share is 25");
        assert!(memory.try_arrive(30, &other), "what comes alone passes the share");
        assert!(!memory.try_arrive(1, &other));
        memory.depart(30, &other);
        memory.depart(20, &one);
        assert!(memory.try_arrive(50, &one));
        memory.depart(50, &one);
        assert_eq!((memory.used(), one.into_inner(), other.into_inner()), (0, 0, 0));
    }
}
