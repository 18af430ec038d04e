//! The process that is a whole Weir.

use std::net::SocketAddr;

use weir_broker::StartError;
use weir_config::{Loaded, Standalone as Config};
use weir_process::Part;

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

impl Part for Standalone {
    type Error = Error;

    async fn stop(self) -> Result<(), Error> {
        Self::stop(self).await
    }
}

/// Runs a whole Weir until a signal ends it, and says the process's exit code: see [`weir_process::run`].
///
/// # Errors
/// It did not start, or its last flush failed.
pub fn run(loaded: Loaded<Config>, on_ready: impl FnOnce(&Ready)) -> Result<i32, Error> {
    let Loaded { config, settings } = loaded;
    weir_process::run(
        &config.common,
        config.broker.data_runtimes,
        async |os, executors, over| match Standalone::start_with(os, executors, &config, settings, over).await
        {
            // Somebody did not want to wait for it.
            Err(Error::Broker(StartError::Over(reason))) if reason.exit_code() == 0 => Ok(None),
            started => started.map(Some),
        },
        |standalone| {
            on_ready(&Ready {
                addr: standalone.addr(),
                http_addr: standalone.http_addr(),
                controller_addr: standalone.controller_addr(),
                cluster_id: standalone.cluster_id(),
                founded: standalone.founded(),
            });
        },
    )
}
