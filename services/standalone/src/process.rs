//! The process around it: telemetry, runtimes, signals.

use std::net::SocketAddr;
use std::sync::Arc;

use weir_broker::StartError;
use weir_config::{Loaded, LogFormat, Standalone as Config};
use weir_runtime::{ExecutorsConfig, Os, RealOs, Stop};

use crate::{Error, Standalone};

/// What is told when it serves.
#[derive(Clone, Debug)]
pub struct Ready {
    /// Where gRPC is served.
    pub addr: SocketAddr,
    /// Where HTTP is served.
    pub http_addr: SocketAddr,
    /// Where the controller listens.
    pub controller_addr: SocketAddr,
    /// The cluster's id.
    pub cluster_id: String,
    /// Whether the cluster is new: the data directory held none.
    pub founded: bool,
}

/// Runs a whole Weir until a signal ends it, and says the process's exit code. A first SIGTERM or Ctrl-C stops in
/// order, a second one ends the process at once.
///
/// # Errors
/// It did not start, or its last flush failed.
pub fn run(loaded: Loaded<Config>, on_ready: impl FnOnce(&Ready)) -> Result<i32, Error> {
    let Loaded { config, settings } = loaded;
    let process = |error: String| Error::Process(error);
    let format = match config.common.log_format {
        LogFormat::People => weir_runtime::LogFormat::People,
        LogFormat::Json => weir_runtime::LogFormat::Json,
    };
    weir_runtime::init_telemetry(format, &config.common.log_filter).map_err(|e| process(e.to_string()))?;
    if let Err(error) = weir_runtime::raise_open_files() {
        tracing::warn!(%error, "cannot raise the limit of open files");
    }
    if let Err(error) = weir_runtime::avoid_huge_pages() {
        tracing::debug!(%error, "the system may give huge pages: this process takes more memory");
    }
    let io_threads = config.common.io_threads.unwrap_or_else(RealOs::default_io_threads);
    let os: Arc<dyn Os> = Arc::new(RealOs::new(io_threads).map_err(|e| process(e.to_string()))?);
    let wanted = ExecutorsConfig {
        data_runtimes: config.broker.data_runtimes.unwrap_or(ExecutorsConfig::default().data_runtimes),
        control_threads: config.common.control_threads,
    };
    let executors = os.executors(&wanted).map_err(|e| process(e.to_string()))?;
    executors.run(async {
        let over = Stop::new();
        // Before anything is started: a signal in between is not lost.
        weir_runtime::watch_signals(&over).map_err(|e| process(e.to_string()))?;
        let starting = Standalone::start_with(os, &executors, &config, settings, over.clone());
        let standalone = match starting.await {
            // Somebody did not want to wait for it.
            Err(Error::Broker(StartError::Over(reason))) if reason.exit_code() == 0 => return Ok(0),
            started => started?,
        };
        on_ready(&Ready {
            addr: standalone.addr(),
            http_addr: standalone.http_addr(),
            controller_addr: standalone.controller_addr(),
            cluster_id: standalone.cluster_id(),
            founded: standalone.founded(),
        });
        over.requested().await;
        if over.reason().is_some_and(|reason| reason.exit_code() != 0) {
            // Of a signal it is said where it comes.
            tracing::info!("stopping in order; a signal ends it at once");
        }
        standalone.stop().await?;
        Ok(over.reason().map_or(0, |reason| reason.exit_code()))
    })
}
