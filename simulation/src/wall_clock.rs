//! A machine's wall clock, which may be wrong, and how wrong it may have been taken for right.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use crate::world::world;

/// Brokers that delete by age do not believe a clock which has jumped for so long.
pub(crate) const PAUSE: Duration = Duration::from_secs(3);
/// A jump by no more than that is taken for a drift.
const DRIFT_MS_MAX: i64 = 60_000;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct WallClock {
    /// By how much it was ahead when its drift was set, in microseconds.
    ahead_us: AtomicI64,
    /// When that was.
    since_us: AtomicU64,
    drift_ppm: AtomicI64,
    wrong: Mutex<Wrong>,
}

/// How wrong it has been so far.
#[derive(Debug, Default)]
struct Wrong {
    /// The furthest behind, in milliseconds: 0, or less.
    behind_ms: i64,
    /// The furthest ahead that somebody may have believed.
    ahead_ms: i64,
    /// How far ahead it was by jumps that are not believed before then.
    jumps: VecDeque<(Duration, i64)>,
}

impl WallClock {
    /// By how much it is ahead, in microseconds.
    pub(crate) fn ahead_us(&self) -> i64 {
        let passed_us = world().now_us().saturating_sub(self.since_us.load(Ordering::SeqCst)).cast_signed();
        let drifted_us = passed_us * self.drift_ppm.load(Ordering::SeqCst) / 1_000_000;
        self.ahead_us.load(Ordering::SeqCst) + drifted_us
    }

    pub(crate) fn jump(&self, by_ms: i64) {
        self.ahead_us.fetch_add(by_ms * 1_000, Ordering::SeqCst);
    }

    pub(crate) fn set_drift(&self, ppm: i64) {
        self.ahead_us.store(self.ahead_us(), Ordering::SeqCst);
        self.since_us.store(world().now_us(), Ordering::SeqCst);
        self.drift_ppm.store(ppm, Ordering::SeqCst);
    }

    /// To be called at every step.
    pub(crate) fn look(&self, now: Duration) {
        self.wrong.lock().saw(now, self.ahead_us() / 1_000);
    }

    /// The furthest behind that it has been, and the furthest ahead that a process may have believed, in milliseconds.
    pub(crate) fn was_wrong_by_ms(&self) -> (i64, i64) {
        let wrong = self.wrong.lock();
        (wrong.behind_ms, wrong.ahead_ms)
    }
}

impl Wrong {
    fn saw(&mut self, now: Duration, ahead_ms: i64) {
        self.behind_ms = self.behind_ms.min(ahead_ms);
        while let Some((_, believed_ms)) = self.jumps.pop_front_if(|(from, _)| *from <= now) {
            self.ahead_ms = self.ahead_ms.max(believed_ms);
        }
        if ahead_ms <= self.ahead_ms + DRIFT_MS_MAX {
            self.ahead_ms = self.ahead_ms.max(ahead_ms);
        } else if self.jumps.back().is_none_or(|(_, last_ms)| *last_ms < ahead_ms) {
            self.jumps.push_back((now + PAUSE, ahead_ms));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_jump_counts_once_it_may_be_believed_and_a_drift_at_once() {
        let mut wrong = Wrong::default();
        let mut saw = |at: Duration, ahead_ms| {
            wrong.saw(at, ahead_ms);
            (wrong.behind_ms, wrong.ahead_ms)
        };
        let (begun, step) = (Duration::from_secs(9), Duration::from_millis(1));
        assert_eq!(saw(begun, 300), (0, 300));
        assert_eq!(saw(begun + step, 100_000), (0, 300));
        assert_eq!(saw(begun + 2 * step, 90_000), (0, 300), "it jumps back, a little");
        assert_eq!(saw(begun + 3 * step, -7), (-7, 300));
        assert_eq!(saw(begun + PAUSE, 400), (-7, 400));
        assert_eq!(saw(begun + PAUSE + step, 0), (-7, 100_000));
        assert_eq!(saw(begun + PAUSE + 2 * step, 160_000), (-7, 160_000));
    }
}
