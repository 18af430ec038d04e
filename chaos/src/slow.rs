//! A disk that is slow: what is brought to it gets there seconds later.
//!
//! The file system lies in a file of another one, which is frozen for a while, again and again. So whatever is written is in
//! memory as quickly as ever, and a sync waits, as on a device that is throttled. It takes nothing of a kernel but loop devices.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::task::JoinHandle;
use weir_tests::small_disk::SmallDisk;

/// For so long nothing gets there at a time.
const HELD_UP: Duration = Duration::from_secs(3);

/// While it is slow.
pub(crate) struct Slow {
    over: Arc<AtomicBool>,
    held_up: JoinHandle<Result<()>>,
}

impl Slow {
    /// From now on: the disk that lies on this one.
    pub(crate) fn begin(beneath: Arc<SmallDisk>) -> Self {
        let over = Arc::<AtomicBool>::default();
        let ends = over.clone();
        let held_up = tokio::spawn(async move {
            while !ends.load(Ordering::SeqCst) {
                beneath.hold_up(HELD_UP).await?;
            }
            Ok(())
        });
        Self { over, held_up }
    }

    /// Until now.
    pub(crate) async fn end(self) -> Result<()> {
        self.over.store(true, Ordering::SeqCst);
        self.held_up.await?.context("a disk is not slow any more")
    }
}

/// Why no disk can be slow here, if so.
pub(crate) async fn impossible() -> Option<String> {
    let tried = async || {
        let beneath = SmallDisk::mount(64).await?;
        let _on_it = SmallDisk::mount_on(beneath.path(), 32).await?;
        beneath.hold_up(Duration::ZERO).await
    };
    tried().await.err().map(|error| format!("no disk can be made slow here: {error:#}"))
}
