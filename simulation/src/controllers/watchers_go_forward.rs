//! Whoever follows the metadata never goes back, whichever controller it hears it from, and over its own restarts: what it
//! has written down before is the least that it believes.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use anyhow::{Result, ensure};
use parking_lot::Mutex;
use weir_cluster::{Controllers, Follower};
use weir_metadata::Image;
use weir_runtime::Os;

/// A follower on a machine of its own.
#[derive(Default)]
pub(crate) struct Watcher {
    /// As if on its disk.
    highest: AtomicI64,
    lives: AtomicU64,
    follower: Mutex<Option<Arc<Follower>>>,
}

impl Watcher {
    /// The program of its machine.
    pub(crate) async fn run(self: Arc<Self>, os: Arc<dyn Os>, endpoints: Vec<String>) -> Result<()> {
        let follower = Arc::new(Follower::new(self.highest.load(Ordering::SeqCst)));
        self.lives.fetch_add(1, Ordering::SeqCst);
        *self.follower.lock() = Some(follower.clone());
        follower.run(&Controllers::new(os, endpoints), None).await;
        Ok(())
    }

    /// Its life and its image, if it has one.
    pub(crate) fn image(&self) -> Result<Option<(u64, Arc<Image>)>> {
        let Some(follower) = self.follower.lock().clone() else { return Ok(None) };
        let image = follower.image();
        if image.version() == 0 {
            return Ok(None);
        }
        let before = self.highest.fetch_max(image.version(), Ordering::SeqCst);
        ensure!(
            image.version() >= before,
            "a watcher went back from version {before} to {}",
            image.version()
        );
        Ok(Some((self.lives.load(Ordering::SeqCst), image)))
    }
}
