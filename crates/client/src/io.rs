//! The runtime that the connections live on.
//!
//! A client brings its own: one thread with a current-thread runtime, so that the caller's executor, busy or
//! slow, delays neither acknowledgements nor keepalives, and so that one core's cache holds what a connection
//! needs. In a simulation, and where a caller wants no thread, the tasks run on the caller's runtime.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio_util::sync::{CancellationToken, DropGuard};
use weir_runtime::{Os, Step};

use crate::{Error, Result};

#[derive(Debug)]
pub(crate) struct Io {
    handle: Handle,
    _stop: Option<DropGuard>,
}

impl Io {
    /// A runtime of our own. It ends when this is dropped.
    pub(crate) fn own(os: &dyn Os) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|e| Error::invalid(format!("cannot start the client's I/O runtime: {e}")))?;
        let handle = runtime.handle().clone();
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let mut runtime = Some(runtime);
        let _waker = os.spawn_loop(
            "weir-client",
            Box::new(move || {
                if let Some(runtime) = runtime.take() {
                    runtime.block_on(stopped.cancelled());
                }
                Step::Done
            }),
        );
        Ok(Self { handle, _stop: Some(stop.drop_guard()) })
    }

    /// The caller's runtime.
    pub(crate) fn current() -> Result<Self> {
        let handle = Handle::try_current()
            .map_err(|_| Error::invalid("on_current_runtime() needs to be called on a tokio runtime"))?;
        Ok(Self { handle, _stop: None })
    }

    /// Makes this the current runtime: what tonic spawns while the guard lives runs here.
    pub(crate) fn enter(&self) -> tokio::runtime::EnterGuard<'_> {
        self.handle.enter()
    }

    /// Starts a task here.
    pub(crate) fn spawn<T: Send + 'static>(
        &self,
        task: impl Future<Output = T> + Send + 'static,
    ) -> tokio::task::JoinHandle<T> {
        self.handle.spawn(task)
    }

    /// Says something to somebody after a while, who may have gone by then.
    pub(crate) fn tell_later<T: Send + 'static>(
        &self,
        wait: Duration,
        whom: &mpsc::UnboundedSender<T>,
        what: T,
    ) {
        let whom = whom.clone();
        self.spawn(async move {
            tokio::time::sleep(wait).await;
            let _gone = whom.send(what);
        });
    }

    /// Runs something here and waits for it, from any executor. The work goes on if the wait is dropped; its own
    /// deadline bounds it.
    pub(crate) async fn run<T: Send + 'static>(
        self: &Arc<Self>,
        task: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<T> {
        match self.handle.spawn(task).await {
            Ok(result) => result,
            Err(e) if e.is_panic() => std::panic::resume_unwind(e.into_panic()),
            Err(_) => Err(Error::Closed("the client")),
        }
    }
}
