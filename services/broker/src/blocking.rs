//! Blocking work, awaited.

use std::sync::Arc;

use tokio::sync::oneshot;
use weir_runtime::Os;

/// Runs a job off the executors. It runs to its end also when nobody waits any more.
pub(crate) async fn blocking<T: Send + 'static>(
    os: &Arc<dyn Os>,
    job: impl FnOnce() -> T + Send + 'static,
) -> T {
    let (tx, rx) = oneshot::channel();
    os.block(Box::new(move || drop(tx.send(job()))));
    // The pool runs every job, and a job that panics ends the process.
    rx.await.expect("a job that was handed over is run")
}
