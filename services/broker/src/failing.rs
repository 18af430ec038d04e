//! The end of a process whose log directory has failed (correctness rule 35): the controllers are told, and it ends, told or
//! not.
//!
//! Why it may go on for that time. From the moment of the failure nothing is acknowledged, nothing is synced and nothing
//! is called durable (`weir_storage`); what it still gives to others was written before. And it ends on a thread of its
//! own, whatever the runtimes are at.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use weir_runtime::{Os, Step};
use weir_storage::Fatal;
use weir_types::DirectoryId;

use crate::cluster::Cluster;

/// How long the controllers are given to hear of it. The next start tells them, too.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// Ends the process.
pub(crate) struct Failing {
    os: Arc<dyn Os>,
    executor: Handle,
    /// Who is told, and of which directory.
    told: OnceLock<(Arc<Cluster>, DirectoryId)>,
    /// While the last words are said.
    speaks: AtomicBool,
    /// Cancelled when they are.
    said: CancellationToken,
}

impl Failing {
    /// To be made on the runtime that tells of it.
    pub(crate) fn new(os: Arc<dyn Os>) -> Arc<Self> {
        Arc::new(Self {
            os,
            executor: Handle::current(),
            told: OnceLock::new(),
            speaks: AtomicBool::new(false),
            said: CancellationToken::new(),
        })
    }

    /// From now on these controllers are told of this directory.
    pub(crate) fn tells(&self, cluster: Arc<Cluster>, directory: DirectoryId) {
        // There is one of each.
        let _ = self.told.set((cluster, directory));
    }

    /// After a failed write or sync nobody knows what the disk holds; after a panic, what is in memory: of that there is
    /// nothing to tell.
    pub(crate) fn end(&self, fatal: &Fatal) {
        tracing::error!(%fatal, "ending");
        eprintln!("weir: {fatal}");
        let Some((failure, (cluster, directory))) = fatal.failure.zip(self.told.get()) else {
            return self.os.end_process();
        };
        self.speaks.store(true, Ordering::Release);
        let os = self.os.clone();
        let mut last_words = Some(LAST_WORDS);
        let end = self.os.spawn_loop(
            "last words",
            Box::new(move || match last_words.take() {
                Some(time) => Step::Wait(time),
                None => {
                    os.end_process();
                    Step::Done
                }
            }),
        );
        let (cluster, directory, said) = (cluster.clone(), *directory, self.said.clone());
        drop(self.executor.spawn(async move {
            let told = cluster.tell_failed(directory, failure, Instant::now() + LAST_WORDS).await;
            if let Err(status) = told {
                tracing::warn!(%status, "no controller hears of the failure: the next start tells it");
            }
            said.cancel();
            end();
        }));
    }

    /// Waits until the last words are said, if there are any: who ends the process otherwise, for it could not start, would
    /// cut them off.
    pub(crate) async fn last_words(&self) {
        if self.speaks.load(Ordering::Acquire) {
            self.said.cancelled().await;
        }
    }
}
