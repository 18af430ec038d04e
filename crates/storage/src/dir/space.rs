//! How much of the file system is free, between two looks at it. Hot path.
//!
//! A look says what is free at one moment; what is taken after it counts off. The difficulty is what is taken *while*
//! somebody looks: it may be in what the look says, or not. It is counted twice then, never left out: so what is called
//! free is free, unless somebody else writes to this disk, until the next look says it exactly.
//!
//! No lock: a look and a reservation may each take their time in the file system, and nobody waits for them.

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering::SeqCst};

/// Free space, in bytes.
#[derive(Debug)]
pub(crate) struct FreeSpace {
    /// What is free is `limit - taken`.
    limit: AtomicI64,
    /// What was taken since the start. Only rises.
    taken: AtomicI64,
    /// How much of that the file system may not know of yet.
    under_way: AtomicI64,
    /// Somebody was refused since it was last asked.
    is_wanted: AtomicBool,
}

impl FreeSpace {
    /// As much as there can be, until somebody looks.
    pub(crate) fn new() -> Self {
        Self {
            limit: AtomicI64::new(i64::MAX),
            taken: AtomicI64::new(0),
            under_way: AtomicI64::new(0),
            is_wanted: AtomicBool::new(false),
        }
    }

    /// What is free, or less.
    pub(crate) fn available(&self) -> u64 {
        u64::try_from(self.limit.load(SeqCst).saturating_sub(self.taken.load(SeqCst))).unwrap_or(0)
    }

    /// Asks the file system.
    pub(crate) fn look(&self, available: impl FnOnce() -> u64) {
        // In this order. What is taken after the first line counts off later. What was taken before it and ends before
        // the second is in the answer; what has not ended by then is counted off here.
        let taken = self.taken.load(SeqCst);
        let under_way = self.under_way.load(SeqCst);
        let available = i64::try_from(available()).unwrap_or(i64::MAX);
        self.limit.store(available.saturating_sub(under_way).saturating_add(taken), SeqCst);
    }

    /// Takes so much if `reserved` stays free beside it. Whoever gets it says when it has ended, one way or the other.
    pub(crate) fn begin(&self, bytes: u64, reserved: u64) -> bool {
        let (bytes, reserved) = (signed(bytes), signed(reserved));
        // First, so that no look finds it in `taken` alone.
        self.under_way.fetch_add(bytes, SeqCst);
        let limit = self.limit.load(SeqCst);
        let take = |taken: i64| {
            let left = limit.saturating_sub(taken).saturating_sub(bytes);
            (left >= reserved).then(|| taken.saturating_add(bytes))
        };
        let is_taken = self.taken.fetch_update(SeqCst, SeqCst, take).is_ok();
        if !is_taken {
            self.under_way.fetch_sub(bytes, SeqCst);
        }
        is_taken
    }

    /// Somebody goes without.
    pub(crate) fn want(&self) {
        self.is_wanted.store(true, SeqCst);
    }

    /// Whether somebody went without since this was last asked.
    pub(crate) fn was_wanted(&self) -> bool {
        self.is_wanted.swap(false, SeqCst)
    }

    /// What was begun is done, and the file system knows of it. If it was not done after all, a look says so.
    pub(crate) fn end(&self, bytes: u64) {
        self.under_way.fetch_sub(signed(bytes), SeqCst);
    }
}

fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_taken_counts_off_until_the_next_look() {
        let space = FreeSpace::new();
        assert!(space.begin(50, 10), "nobody has looked yet");
        space.end(50);
        space.look(|| 100);
        assert_eq!(space.available(), 100);
        assert!(space.begin(90, 10));
        assert!(!space.begin(1, 10), "the reserve");
        space.end(90);
        assert_eq!(space.available(), 10);
        space.look(|| 70);
        assert_eq!(space.available(), 70);
    }

    #[test]
    fn what_is_taken_while_somebody_looks_is_never_left_out() {
        // It begins and ends before, in or after the look; the file system counts it when it ends.
        for (begins, ends) in [(0, 1), (0, 2), (1, 1), (1, 2), (2, 2)] {
            let space = FreeSpace::new();
            space.look(|| 100);
            if begins == 0 {
                assert!(space.begin(30, 0));
            }
            space.look(|| {
                let before = 100;
                if begins == 1 {
                    assert!(space.begin(30, 0));
                }
                if ends == 1 {
                    space.end(30);
                }
                before
            });
            if begins == 2 {
                assert!(space.begin(30, 0));
            }
            assert!(space.available() <= 70, "{begins} {ends}: {}", space.available());
            if ends == 2 {
                space.end(30);
            }
            space.look(|| 70);
            assert_eq!(space.available(), 70, "{begins} {ends}");
        }
    }

    #[test]
    fn what_was_not_done_is_free_again_after_a_look() {
        let space = FreeSpace::new();
        space.look(|| 100);
        assert!(space.begin(60, 0));
        space.end(60);
        space.look(|| 100);
        assert_eq!(space.available(), 100);
    }
}
