//! What is said now and then, however often there is a reason: strangers may be many, and a slow disk is slow each time.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// Lets one in a time through.
#[derive(Debug)]
pub struct Seldom {
    every: Duration,
    last: Mutex<Option<Said>>,
}

#[derive(Clone, Copy, Debug)]
struct Said {
    at: Instant,
    left_out: u64,
}

impl Seldom {
    /// At most one in each such time.
    pub const fn new(every: Duration) -> Self {
        Self { every, last: Mutex::new(None) }
    }

    /// Whether it is to be said now; if so, how often it was left out since it was said last.
    pub fn now(&self) -> Option<u64> {
        let mut last = self.last.lock();
        let now = Instant::now();
        match &mut *last {
            Some(said) if now - said.at < self.every => {
                said.left_out += 1;
                None
            }
            last => {
                let left_out = last.map_or(0, |said| said.left_out);
                *last = Some(Said { at: now, left_out: 0 });
                Some(left_out)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn one_in_a_time_is_said_and_the_others_are_counted() {
        let seldom = Seldom::new(Duration::from_secs(60));
        assert_eq!(seldom.now(), Some(0));
        assert_eq!((seldom.now(), seldom.now()), (None, None));
        tokio::time::advance(Duration::from_secs(60)).await;
        assert_eq!(seldom.now(), Some(2));
        assert_eq!(seldom.now(), None);
    }
}
