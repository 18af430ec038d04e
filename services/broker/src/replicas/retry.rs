//! When what failed is tried again: after a pause that doubles, with jitter.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};
use weir_runtime::{Os, spread_ms};

const PAUSE_MS: u64 = 100;
const PAUSE_MS_MAX: u64 = 30_000;

#[derive(Debug)]
pub(super) struct Retry {
    at: Option<Instant>,
    pause_ms: u64,
}

impl Retry {
    pub(super) fn new() -> Self {
        Self { at: None, pause_ms: PAUSE_MS }
    }

    /// Something is left to be tried again, or nothing is.
    pub(super) fn plan(&mut self, os: &dyn Os, left: bool) {
        if !left {
            *self = Self::new();
        } else if self.at.is_none() {
            self.at = Some(Instant::now() + Duration::from_millis(spread_ms(os, self.pause_ms)));
            self.pause_ms = (self.pause_ms * 2).min(PAUSE_MS_MAX);
        }
    }

    /// Waits until something is to be tried again; for ever if nothing is. Cancel safe.
    pub(super) async fn due(&mut self) {
        match self.at {
            Some(at) => sleep_until(at).await,
            None => std::future::pending().await,
        }
        self.at = None;
    }
}

#[cfg(test)]
mod tests {
    use weir_runtime::RealOs;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn pauses_grow_until_nothing_is_left() {
        let os = RealOs::new(1).unwrap();
        let mut retry = Retry::new();
        let mut pauses = Vec::new();
        for _ in 0..12 {
            retry.plan(&os, true);
            // Asking twice plans once.
            retry.plan(&os, true);
            let before = Instant::now();
            retry.due().await;
            pauses.push(u64::try_from(before.elapsed().as_millis()).unwrap());
        }
        for (pause, most) in pauses.iter().zip([100, 200, 400, 800]) {
            assert!((most / 2..=most + 1).contains(pause), "{pauses:?}");
        }
        assert!(pauses.iter().all(|pause| *pause <= PAUSE_MS_MAX + 1), "{pauses:?}");
        retry.plan(&os, false);
        assert_eq!((retry.at, retry.pause_ms), (None, PAUSE_MS));
    }
}
