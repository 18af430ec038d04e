//! When what failed is tried again: after a pause that doubles, with jitter, or as soon as a disk that was full has room.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use weir_runtime::{Os, spread_ms};

const PAUSE_MS: u64 = 100;
const PAUSE_MS_MAX: u64 = 30_000;

#[derive(Debug)]
pub(super) struct Retry {
    at: Option<Instant>,
    pause_ms: u64,
    room: watch::Receiver<()>,
}

impl Retry {
    /// `room` is told when there is room again.
    pub(super) fn new(room: watch::Receiver<()>) -> Self {
        Self { at: None, pause_ms: PAUSE_MS, room }
    }

    /// Something is left to be tried again, or nothing is.
    pub(super) fn plan(&mut self, os: &dyn Os, left: bool) {
        if !left {
            (self.at, self.pause_ms) = (None, PAUSE_MS);
        } else if self.at.is_none() {
            self.at = Some(Instant::now() + Duration::from_millis(spread_ms(os, self.pause_ms)));
            self.pause_ms = (self.pause_ms * 2).min(PAUSE_MS_MAX);
        }
    }

    /// Waits until something is to be tried again; for ever if nothing is. Cancel safe.
    pub(super) async fn due(&mut self) {
        let Some(at) = self.at else { return std::future::pending().await };
        tokio::select! {
            () = sleep_until(at) => {}
            Ok(()) = self.room.changed() => self.pause_ms = PAUSE_MS,
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
        let mut retry = Retry::new(watch::channel(()).1);
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
    #[tokio::test(start_paused = true)]
    async fn what_waits_for_room_waits_no_longer_than_that() {
        let os = RealOs::new(1).unwrap();
        let (told, room) = watch::channel(());
        let mut retry = Retry::new(room);
        for _ in 0..12 {
            retry.plan(&os, true);
            retry.due().await;
        }
        retry.plan(&os, true);
        let (at, waited) = (retry.at, Instant::now());
        told.send_replace(());
        retry.due().await;
        assert_eq!(waited.elapsed(), Duration::ZERO, "the clock of the test has not moved");
        assert!(at > Some(waited));
        // Where that was not enough it begins with short pauses again.
        retry.plan(&os, true);
        assert!(retry.at <= Some(waited + Duration::from_millis(PAUSE_MS + 1)));
        retry.plan(&os, false);
        told.send_replace(());
        let idle = tokio::time::timeout(Duration::from_secs(3600), retry.due()).await;
        assert!(idle.is_err(), "nothing is left to be tried");
    }
}
