//! Bells: who has something to do says so, once, and whoever does it takes them in turn. Ringing never waits and costs
//! nothing while the bell has not been answered, so that a log may ring with every append.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use tokio::sync::Notify;

/// The bells that one task answers.
pub(crate) struct Bells<K> {
    rung: Mutex<VecDeque<Arc<Bell<K>>>>,
    notify: Notify,
}

/// One bell.
pub(crate) struct Bell<K> {
    key: K,
    is_rung: AtomicBool,
    bells: Arc<Bells<K>>,
}

impl<K: Copy> Bells<K> {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self { rung: Mutex::default(), notify: Notify::new() })
    }

    /// A bell with a name.
    pub(crate) fn bell(self: &Arc<Self>, key: K) -> Arc<Bell<K>> {
        Arc::new(Bell { key, is_rung: AtomicBool::new(false), bells: self.clone() })
    }

    /// The next one that was rung. From here on it may ring again, so whoever answers looks after this and misses
    /// nothing. For one task. Cancel safe.
    pub(crate) async fn next(&self) -> K {
        loop {
            if let Some(key) = self.try_next() {
                return key;
            }
            self.notify.notified().await;
        }
    }

    /// The next one that was rung, if any was.
    pub(crate) fn try_next(&self) -> Option<K> {
        let bell = self.rung.lock().pop_front()?;
        bell.is_rung.store(false, Ordering::SeqCst);
        Some(bell.key)
    }
}

impl<K> Bell<K> {
    /// Rings, unless it rings already.
    pub(crate) fn ring(self: &Arc<Self>) {
        if !self.is_rung.swap(true, Ordering::SeqCst) {
            self.bells.rung.lock().push_back(self.clone());
            self.bells.notify.notify_one();
        }
    }
}

impl<K> fmt::Debug for Bells<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Bells({} rung)", self.rung.lock().len())
    }
}

impl<K: fmt::Debug> fmt::Debug for Bell<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Bell({:?})", self.key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_bell_is_answered_once_in_its_turn_and_may_ring_again() {
        let bells = Bells::new();
        let (one, two) = (bells.bell(1), bells.bell(2));
        two.ring();
        one.ring();
        two.ring();
        assert_eq!(bells.next().await, 2);
        two.ring();
        assert_eq!((bells.next().await, bells.next().await, bells.try_next()), (1, 2, None));
        let ringing = tokio::spawn(async move { one.ring() });
        assert_eq!(bells.next().await, 1);
        ringing.await.unwrap();
    }
}
