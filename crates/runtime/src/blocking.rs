//! Blocking work, awaited.

use std::sync::Arc;

use tokio::sync::oneshot;

use crate::os::Os;

/// Runs a job off the executors, on the pool of [`Os::block`], and waits for it. It runs to its end also when nobody
/// waits any more. Cancel safe in so far.
pub async fn blocking<T: Send + 'static>(os: &Arc<dyn Os>, job: impl FnOnce() -> T + Send + 'static) -> T {
    let (done, result) = oneshot::channel();
    // Nobody waits any more if this fails.
    os.block(Box::new(move || drop(done.send(job()))));
    result.await.expect("the pool runs every job, and one that panics ends the process")
}

#[cfg(test)]
mod tests {
    use weir_io::MemDisk;

    use super::*;
    use crate::testing::TestOs;

    #[tokio::test]
    async fn the_answer_comes_back_and_a_job_that_nobody_waits_for_is_done() {
        let os: Arc<dyn Os> = Arc::new(TestOs::threads(Arc::new(MemDisk::new(0))).unwrap());
        assert_eq!(blocking(&os, || 7).await, 7);
        let (tell, told) = oneshot::channel();
        let (begin, begun) = std::sync::mpsc::channel::<()>();
        let mut waiting = Box::pin(blocking(&os, move || {
            begun.recv().unwrap();
            tell.send(()).unwrap();
        }));
        assert!(futures_poll(waiting.as_mut()).await, "it waits");
        drop(waiting);
        begin.send(()).unwrap();
        told.await.unwrap();
    }

    /// Whether a future is still waiting after one look.
    async fn futures_poll(mut waiting: std::pin::Pin<&mut impl Future>) -> bool {
        std::future::poll_fn(|cx| std::task::Poll::Ready(waiting.as_mut().poll(cx).is_pending())).await
    }
}
