//! The wall clock, and when to believe it. What times out goes by the clock that never jumps; ages that outlive a process
//! can go by no other than this one (correctness rule 18).
//!
//! A clock that has jumped is not believed for a while, nor is one right after a start, when it may not have been set yet:
//! nothing is deleted by it, and no log's time goes back to it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;
use weir_runtime::Os;

/// What is called a jump. The wall clock and the one that never jumps may drift apart by so much; and a time in a log that
/// is further ahead of the clock is that of a clock which was wrong.
pub(crate) const JUMP_MS: i64 = 60_000;

/// In the beginning a slow drift is not told from a jump.
const NEW: Duration = Duration::from_secs(60);

/// Whether a time in a log is one that the clock has not reached, by more than a jump.
pub(crate) fn is_ahead(time_ms: i64, now_ms: i64) -> bool {
    time_ms.saturating_sub(JUMP_MS) > now_ms
}

pub(crate) struct WallClock {
    os: Arc<dyn Os>,
    /// For so long it is not believed.
    pause: Duration,
    seen: Mutex<Seen>,
}

struct Seen {
    started: Instant,
    /// What both clocks have shown at one moment.
    clocks: (Instant, i64),
    believed_from: Instant,
}

impl WallClock {
    pub(crate) fn new(os: Arc<dyn Os>, pause: Duration) -> Self {
        let now = Instant::now();
        let seen = Seen { started: now, clocks: (now, os.wall_ms()), believed_from: now + pause };
        Self { os, pause, seen: Mutex::new(seen) }
    }

    /// What it shows, milliseconds since 1970 UTC.
    pub(crate) fn now_ms(&self) -> i64 {
        self.os.wall_ms()
    }

    /// The same, unless it is not to be believed now. Has to be asked now and then, to tell a jump from a drift.
    pub(crate) fn believed_ms(&self) -> Option<i64> {
        let mut seen = self.seen.lock();
        let (now, now_ms) = (Instant::now(), self.os.wall_ms());
        let (then, then_ms) = seen.clocks;
        let passed_ms = i64::try_from(now.duration_since(then).as_millis()).unwrap_or(i64::MAX);
        if now_ms.saturating_sub(then_ms).saturating_sub(passed_ms).unsigned_abs() > JUMP_MS.unsigned_abs() {
            seen.clocks = (now, now_ms);
            seen.believed_from = now + self.pause;
            tracing::warn!("the wall clock jumped: for a while nothing is deleted because of its age");
        }
        let is_believed = now >= seen.believed_from;
        if is_believed && now.duration_since(seen.started) > NEW {
            seen.clocks = (now, now_ms);
        }
        is_believed.then_some(now_ms)
    }

    /// The append time of the frame after one with this append time (`i64::MIN`: there is none): what the clock shows.
    ///
    /// Never back by little, which clocks are set by every day, and which would make everything older by as much. Back at
    /// once by much: a clock that was years ahead for one append would stop the log's time for years. But only once the
    /// clock is believed: one that begins in 1970 and is set a little later would make all producers 56 years older.
    pub(crate) fn append_ms(&self, last_ms: i64) -> i64 {
        let now_ms = self.now_ms();
        if is_ahead(last_ms, now_ms) { self.believed_ms().unwrap_or(last_ms) } else { now_ms.max(last_ms) }
    }
}

impl fmt::Debug for WallClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WallClock").field("now_ms", &self.now_ms()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use weir_io::MemDisk;
    use weir_runtime::testing::{START_WALL_MS, TestOs};

    use super::*;

    const HOUR_MS: i64 = 3_600_000;
    const PAUSE: Duration = Duration::from_secs(600);

    fn clock() -> (TestOs, WallClock) {
        let os = TestOs::new(Arc::new(MemDisk::new(1)));
        let clock = WallClock::new(Arc::new(os.clone()), PAUSE);
        (os, clock)
    }

    async fn pass(os: &TestOs, time: Duration) {
        tokio::time::sleep(time).await;
        os.advance_wall_ms(time.as_millis() as i64);
    }

    #[tokio::test(start_paused = true)]
    async fn a_clock_is_believed_after_a_while_without_a_jump() {
        let (os, clock) = clock();
        assert_eq!(clock.believed_ms(), None, "it may not have been set yet");
        pass(&os, PAUSE).await;
        assert_eq!(clock.believed_ms(), Some(clock.now_ms()));
        for by_ms in [HOUR_MS, -HOUR_MS] {
            os.advance_wall_ms(by_ms);
            assert_eq!(clock.believed_ms(), None);
            pass(&os, PAUSE - Duration::from_secs(1)).await;
            assert_eq!(clock.believed_ms(), None);
            pass(&os, Duration::from_secs(1)).await;
            assert_eq!(clock.believed_ms(), Some(clock.now_ms()));
        }
        for _ in 0..10 {
            os.advance_wall_ms(JUMP_MS / 2);
            assert_eq!(clock.believed_ms(), Some(clock.now_ms()), "it drifts");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_append_time_goes_back_by_much_to_a_clock_that_is_believed() {
        let (os, clock) = clock();
        assert_eq!(clock.append_ms(i64::MIN), START_WALL_MS);
        let by_little = START_WALL_MS + JUMP_MS;
        let by_much = by_little + 1;
        assert_eq!((clock.append_ms(by_little), clock.append_ms(by_much)), (by_little, by_much));
        pass(&os, PAUSE).await;
        let now_ms = clock.now_ms();
        assert_eq!(clock.append_ms(now_ms + JUMP_MS), now_ms + JUMP_MS);
        assert_eq!(clock.append_ms(now_ms + JUMP_MS + 1), now_ms);
        // Who appends is the first to see that it has jumped.
        os.advance_wall_ms(-HOUR_MS);
        assert_eq!(clock.append_ms(now_ms), now_ms);
        pass(&os, PAUSE).await;
        assert_eq!(clock.append_ms(now_ms), clock.now_ms());
    }
}
