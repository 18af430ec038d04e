//! How long to wait before trying again: doubling, and spread, because a retry without jitter is an outage.

use std::time::Duration;

use weir_runtime::Os;

/// The waits of one thing that is tried again and again.
#[derive(Clone, Debug)]
pub(crate) struct Backoff {
    first: Duration,
    max: Duration,
    tries: u32,
}

impl Backoff {
    /// Waits from `first` to `max`.
    pub(crate) fn new(first: Duration, max: Duration) -> Self {
        Self { first, max, tries: 0 }
    }

    /// For connections and retried calls.
    pub(crate) fn usual() -> Self {
        Self::new(Duration::from_millis(20), Duration::from_secs(1))
    }

    /// The next wait: half to all of the doubled time, and not less than what the server asked for.
    pub(crate) fn next(&mut self, os: &dyn Os, asked: Option<Duration>) -> Duration {
        let full = self.first.saturating_mul(1 << self.tries.min(16)).min(self.max);
        self.tries += 1;
        // 2^53 steps are exact in a float.
        let part = (os.random_u64() >> 11) as f64 / (1u64 << 53) as f64;
        full.mul_f64(0.5 + part / 2.0).max(asked.unwrap_or_default())
    }

    /// It worked: the next failure starts from the first wait.
    pub(crate) fn reset(&mut self) {
        self.tries = 0;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use weir_io::MemDisk;
    use weir_runtime::testing::TestOs;

    use super::*;

    #[tokio::test]
    async fn waits_grow_to_the_bound_and_honour_the_server() {
        let os = TestOs::new(Arc::new(MemDisk::new(1)));
        let mut backoff = Backoff::new(Duration::from_millis(10), Duration::from_millis(100));
        for full in [10, 20, 40, 80, 100, 100] {
            let wait = backoff.next(&os, None);
            let full = Duration::from_millis(full);
            assert!(wait >= full / 2 && wait <= full, "{wait:?} of {full:?}");
        }
        assert_eq!(backoff.next(&os, Some(Duration::from_secs(5))), Duration::from_secs(5));
        backoff.reset();
        assert!(backoff.next(&os, None) <= Duration::from_millis(10));
    }
}
