//! Whoever asks where a partition ends hears of everything that was acknowledged before it asked: from a new leader that does
//! not know yet how far its predecessor had committed (correctness rule 4) as from one that has been replaced and has not
//! heard of it (rule 10). Nor does a log end before what was said to be its beginning: only what is committed goes.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Result, ensure};
use tokio::time::{sleep, timeout};
use weir_runtime::Os;

use super::work::Work;

/// Between two questions, at most, in milliseconds.
const PAUSE_MS_MAX: u64 = 60;
/// An answer is waited for so long.
const PATIENCE: Duration = Duration::from_secs(2);

impl Work {
    /// The program of somebody who asks.
    pub(super) async fn ask(self: Arc<Self>, os: Arc<dyn Os>) -> Result<()> {
        self.begin().await;
        let client = self.connect(&os).await;
        while !self.over.load(Ordering::SeqCst) {
            sleep(Duration::from_millis(os.random_u64() % PAUSE_MS_MAX)).await;
            let subject = self.any_subject(&*os);
            let partition = subject.any_partition(&*os);
            let place = subject.place(partition);
            if subject.retention_ms.is_some() {
                self.ask_for_the_beginning(&*os, &client, subject, partition).await?;
            }
            let least = self.history.lock().end(&place).max(self.ages.lock().beginning(&place));
            match timeout(PATIENCE, client.offsets().latest(subject.name, partition)).await {
                Ok(Ok(latest)) => ensure!(
                    latest >= least,
                    "{place} was said to end at {latest}, and all before {least} had been acknowledged"
                ),
                Ok(Err(error)) => tracing::info!("{place}: no end is known: {error}"),
                Err(_) => tracing::info!("{place}: no end is said"),
            }
        }
        std::future::pending().await
    }
}
