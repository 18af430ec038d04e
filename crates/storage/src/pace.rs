//! Whether the disk is slow (correctness rule 41): slow for a time, and quick again for a time.
//!
//! What is judged is how long syncs take. Time is looked at in slices: one is slow if half of the syncs that ended in it, or
//! more, took too long, or if one has been running for too long, as on a disk that hangs; it is quick if syncs ended in it
//! and most did not. A slice in which nothing ended says nothing. The disk is slow once it has been so for long enough
//! without a quick slice between, and quick again the same way, only for longer: what changes hands because of it is not
//! to go to and fro. While it is slow somebody has to ask it now and then, or it would stay so for ever.
//!
//! A sync that brings much to the disk may take longer: as long as a disk of [`BYTES_PER_SECOND`] would need besides. One that
//! is merely busy with much is not called ill for that.
//!
//! It knows no clock: whoever looks says when that is.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// What a disk that is not slow brings about at least.
const BYTES_PER_SECOND: u64 = 16 << 20;
/// How often it is looked at, at most and at least.
const LOOK_MAX: Duration = Duration::from_secs(1);
const LOOK_MIN: Duration = Duration::from_millis(10);
/// Looks in the shorter of the two times, at least.
const LOOKS: u32 = 5;

/// What is too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pacing {
    /// A sync that takes so long is slow. Zero: none ever is.
    pub slow_flush: Duration,
    /// The disk is slow once it has been so for this long.
    pub slow_after: Duration,
    /// And quick again once it has been so for this long.
    pub quick_after: Duration,
}

impl Default for Pacing {
    fn default() -> Self {
        Self {
            slow_flush: Duration::from_secs(1),
            slow_after: Duration::from_secs(10),
            quick_after: Duration::from_secs(60),
        }
    }
}

/// The pace of a disk.
pub(crate) struct Pace {
    pacing: Pacing,
    is_slow: AtomicBool,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    begun: u64,
    running: BTreeMap<u64, Running>,
    /// Syncs that have ended since the last look.
    slow: u32,
    quick: u32,
    looked: Option<Instant>,
    /// For how long the disk has been otherwise than it is said to be.
    otherwise: Duration,
}

#[derive(Clone, Copy)]
struct Running {
    since: Instant,
    /// How long it may take.
    allowed: Duration,
}

/// A sync that runs.
#[derive(Debug)]
#[must_use = "a sync that never ends is one of a disk that hangs"]
pub(crate) struct Begun(u64);

/// What a slice of time shows.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Slice {
    Slow,
    Quick,
    Silent,
}

/// What a look has found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Look {
    /// It has become slow (true) or quick.
    pub(crate) became: Option<bool>,
    /// It is slow, and hardly anybody asks it anything.
    pub(crate) is_unasked: bool,
}

impl Pace {
    pub(crate) fn new(pacing: Pacing) -> Self {
        Self { pacing, is_slow: AtomicBool::new(false), known: Mutex::default() }
    }

    /// Whether it is looked at at all.
    pub(crate) fn is_on(&self) -> bool {
        !self.pacing.slow_flush.is_zero()
    }

    pub(crate) fn is_slow(&self) -> bool {
        self.is_slow.load(Ordering::Acquire)
    }

    /// How often it is to be looked at.
    pub(crate) fn every(&self) -> Duration {
        (self.pacing.slow_after.min(self.pacing.quick_after) / LOOKS).clamp(LOOK_MIN, LOOK_MAX)
    }

    /// A sync of so many bytes begins.
    pub(crate) fn begin(&self, now: Instant, bytes: u64) -> Begun {
        let allowed = self.pacing.slow_flush + Duration::from_millis(1_000 * bytes / BYTES_PER_SECOND);
        let mut known = self.known.lock();
        known.begun += 1;
        let number = known.begun;
        known.running.insert(number, Running { since: now, allowed });
        Begun(number)
    }

    /// It is over, after so long; `None`: it failed, which says nothing of how quick the disk is.
    pub(crate) fn end(&self, begun: Begun, took: Option<Duration>) {
        let mut known = self.known.lock();
        let Some((running, took)) = known.running.remove(&begun.0).zip(took) else { return };
        if took >= running.allowed {
            known.slow += 1;
        } else {
            known.quick += 1;
        }
    }

    /// Looks at what has happened since the last look.
    pub(crate) fn look(&self, now: Instant) -> Look {
        let mut known = self.known.lock();
        // A process that was stopped for a while has seen nothing of it.
        let since = known.looked.replace(now).unwrap_or(now);
        let passed = now.saturating_duration_since(since).min(2 * self.every());
        let (slice, ended) = known.take(now);
        let is_slow = self.is_slow();
        let (against, after) = match is_slow {
            true => (Slice::Quick, self.pacing.quick_after),
            false => (Slice::Slow, self.pacing.slow_after),
        };
        if slice == against {
            known.otherwise += passed;
        } else if slice != Slice::Silent {
            known.otherwise = Duration::ZERO;
        }
        let changes = self.is_on() && slice == against && known.otherwise >= after;
        if changes {
            known.otherwise = Duration::ZERO;
            self.is_slow.store(!is_slow, Ordering::Release);
        }
        Look {
            became: changes.then_some(!is_slow),
            // The one may have been asked for because of the last look.
            is_unasked: is_slow && !changes && ended <= 1 && known.running.is_empty(),
        }
    }
}

impl Known {
    /// What has happened since the last look, and how many syncs have ended.
    fn take(&mut self, now: Instant) -> (Slice, u32) {
        let (slow, quick) = (std::mem::take(&mut self.slow), std::mem::take(&mut self.quick));
        let hangs = |running: &Running| now.saturating_duration_since(running.since) >= running.allowed;
        let slice = if self.running.values().any(hangs) || slow > 0 && slow >= quick {
            Slice::Slow
        } else if quick > 0 {
            Slice::Quick
        } else {
            Slice::Silent
        };
        (slice, slow + quick)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// A disk that is looked at every second.
    struct Disk {
        pace: Pace,
        now: Instant,
    }

    impl Disk {
        fn new() -> Self {
            let disk = Self { pace: Pace::new(Pacing::default()), now: Instant::now() };
            disk.pace.look(disk.now);
            disk
        }

        fn synced(&self, bytes: u64, took_ms: u64) {
            let sync = self.pace.begin(self.now, bytes);
            self.pace.end(sync, Some(Duration::from_millis(took_ms)));
        }

        fn look(&mut self) -> Look {
            self.now += SECOND;
            self.pace.look(self.now)
        }

        /// So many seconds with such syncs in each. When it changed, in seconds from the first.
        fn pass(&mut self, seconds: u32, took_ms: &[u64]) -> Option<u32> {
            let mut changed = None;
            for second in 1..=seconds {
                took_ms.iter().for_each(|took_ms| self.synced(4_096, *took_ms));
                changed = changed.or(self.look().became.map(|_| second));
            }
            changed
        }
    }

    #[test]
    fn it_is_slow_after_a_time_and_quick_after_a_longer_one() {
        let mut disk = Disk::new();
        assert_eq!(disk.pass(100, &[3, 999]), None);
        assert_eq!(disk.pass(100, &[1_000]), Some(10));
        assert!(disk.pace.is_slow());
        assert_eq!(disk.pass(59, &[3]), None);
        assert_eq!(disk.pass(1, &[1_500]), None, "one slow second begins the time anew");
        assert_eq!(disk.pass(100, &[3]), Some(60));
        assert!(!disk.pace.is_slow());
        assert_eq!(disk.pass(9, &[1_500]), None);
        assert_eq!(disk.pass(1, &[3]), None);
        assert_eq!(disk.pass(9, &[1_500]), None, "and so does one quick second");
    }

    #[test]
    fn what_most_syncs_are_counts() {
        let mut disk = Disk::new();
        assert_eq!(disk.pass(100, &[1_500, 2, 2]), None, "one file in three");
        assert_eq!(disk.pass(100, &[1_500, 2]), Some(10));
    }

    #[test]
    fn seconds_without_a_sync_say_nothing() {
        let mut disk = Disk::new();
        let every_other = |disk: &mut Disk| {
            disk.pass(3, &[]);
            disk.pass(1, &[1_500])
        };
        assert!((0..9).all(|_| every_other(&mut disk).is_none()));
        assert!(every_other(&mut disk).is_some());
    }

    #[test]
    fn a_disk_that_hangs_is_slow_before_the_sync_is_over() {
        let mut disk = Disk::new();
        let sync = disk.pace.begin(disk.now, 4_096);
        assert_eq!(disk.pass(20, &[2]), Some(10), "whatever others do");
        assert_eq!(disk.pass(100, &[2]), None, "it does not become quick while it hangs");
        disk.pace.end(sync, Some(120 * SECOND));
        assert_eq!(disk.pass(100, &[2]), Some(61), "the second in which it ended was slow, too");
    }

    #[test]
    fn much_may_take_longer() {
        let mut disk = Disk::new();
        for _ in 0..100 {
            disk.synced(160 << 20, 10_999);
            assert_eq!(disk.look().became, None);
        }
        let _hangs = disk.pace.begin(disk.now, 160 << 20);
        assert_eq!(disk.pass(100, &[]), Some(20), "after the 11 seconds that it may take, for 10 more");
    }

    #[test]
    fn who_is_slow_is_asked_where_nobody_else_asks() {
        let mut disk = Disk::new();
        assert!(!disk.look().is_unasked, "nobody asks while it is quick");
        disk.pass(10, &[1_500]);
        assert!(disk.look().is_unasked);
        disk.synced(4_096, 2);
        assert!(disk.look().is_unasked, "that may have been the question");
        (0..2).for_each(|_| disk.synced(4_096, 2));
        assert!(!disk.look().is_unasked);
        let sync = disk.pace.begin(disk.now, 4_096);
        assert!(!disk.look().is_unasked, "somebody asks, and waits");
        disk.pace.end(sync, Some(SECOND / 2));
    }

    #[test]
    fn what_fails_at_once_is_not_quick() {
        let mut disk = Disk::new();
        disk.pass(10, &[1_500]);
        for _ in 0..100 {
            // The disk is full as well.
            let sync = disk.pace.begin(disk.now, 4_096);
            disk.pace.end(sync, None);
            assert!(disk.look().is_unasked);
        }
        assert!(disk.pace.is_slow());
    }

    #[test]
    fn a_process_that_was_stopped_has_seen_nothing_meanwhile() {
        let mut disk = Disk::new();
        let sync = disk.pace.begin(disk.now, 4_096);
        disk.now += 3_600 * SECOND;
        assert_eq!(disk.look().became, None);
        disk.pace.end(sync, Some(3_600 * SECOND));
        assert_eq!(disk.pass(100, &[2]), None);
    }

    #[test]
    fn without_a_bound_no_disk_is_slow() {
        let pace = Pace::new(Pacing { slow_flush: Duration::ZERO, ..Pacing::default() });
        assert!(!pace.is_on());
        let mut disk = Disk { pace, now: Instant::now() };
        assert_eq!(disk.pass(100, &[5_000]), None);
    }
}
