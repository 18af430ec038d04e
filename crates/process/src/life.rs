//! From the first line of a process to its exit code.

use std::sync::Arc;

use tokio::time::Instant;
use weir_config::{Common, LogFormat};
use weir_runtime::{Executors, ExecutorsConfig, Os, RealOs, Stop};

/// The process could not be set up.
#[derive(Debug, thiserror::Error)]
#[error("cannot start: {0}")]
pub struct Setup(String);

/// What serves in a process, and is its whole business.
pub trait Part: Sized {
    /// Why it did not start, or did not stop in order.
    type Error: From<Setup>;

    /// Stops in order.
    fn stop(self) -> impl Future<Output = Result<(), Self::Error>>;
}

/// Runs a part of Weir until a signal ends it or it cannot go on, and says the process's exit code. A first SIGTERM or
/// Ctrl-C stops in order, a second one ends the process at once. `start` gets the wish that the process ends, and
/// answers nothing if that was made before it served, which is no failure.
///
/// # Errors
/// It did not start, or did not stop in order.
pub fn run<P: Part>(
    common: &Common,
    data_runtimes: Option<usize>,
    start: impl AsyncFnOnce(Arc<dyn Os>, &Executors, Stop) -> Result<Option<P>, P::Error>,
    on_ready: impl FnOnce(&P),
) -> Result<i32, P::Error> {
    let format = match common.log_format {
        LogFormat::People => weir_runtime::LogFormat::People,
        LogFormat::Json => weir_runtime::LogFormat::Json,
    };
    weir_runtime::init_telemetry(format, &common.log_filter).map_err(setup)?;
    if let Err(error) = weir_runtime::raise_open_files() {
        tracing::warn!(%error, "cannot raise the limit of open files");
    }
    if let Err(error) = weir_runtime::avoid_huge_pages() {
        tracing::debug!(%error, "the system may give huge pages: this process takes more memory");
    }
    let io_threads = common.io_threads.unwrap_or_else(RealOs::default_io_threads);
    let os: Arc<dyn Os> = Arc::new(RealOs::new(io_threads).map_err(setup)?);
    let wanted = ExecutorsConfig {
        data_runtimes: data_runtimes.unwrap_or(ExecutorsConfig::default().data_runtimes),
        control_threads: common.control_threads,
    };
    let executors = os.executors(&wanted).map_err(setup)?;
    executors.run(async {
        let over = Stop::new();
        // Before anything is started: a signal in between is not lost.
        weir_runtime::watch_signals(&over).map_err(setup)?;
        let Some(part) = start(os, &executors, over.clone()).await? else { return Ok(0) };
        on_ready(&part);
        over.requested().await;
        if over.reason().is_some_and(|reason| reason.exit_code() != 0) {
            // Of a signal it is said where it comes.
            tracing::info!("stopping in order; a signal ends it at once");
        }
        let begun = Instant::now();
        part.stop().await?;
        tracing::info!(took = ?begun.elapsed(), "stopped");
        Ok(over.reason().map_or(0, |reason| reason.exit_code()))
    })
}

fn setup(error: impl std::fmt::Display) -> Setup {
    Setup(error.to_string())
}
