//! The steps of a start, one function each.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use weir_cluster::Row;
use weir_proto::internal::v1 as wire;
use weir_runtime::{Listener, Os, memory_bytes};
use weir_storage::{DirIdentity, DirOptions, Fatal, LogDir, OpenReport, Progress};
use weir_types::ClusterId;

use crate::blocking::blocking;
use crate::broker::StartError;
use crate::cluster::Registration;

/// The newest feature level that this program understands.
const FEATURE_LEVEL: i32 = 1;

/// Binds a listener.
pub(crate) async fn listen(
    os: &Arc<dyn Os>,
    addr: SocketAddr,
    what: &'static str,
) -> Result<Box<dyn Listener>, StartError> {
    os.listen(addr).await.map_err(|error| StartError::Listen { addr, what, error })
}

/// Opens the log directory, with recovery where the last stop was none.
pub(crate) async fn open_log_dir(
    os: &Arc<dyn Os>,
    data_dir: &Path,
    config: &weir_config::Broker,
    progress: &Arc<Progress>,
) -> Result<(LogDir, OpenReport), weir_storage::Error> {
    let mut dir_options = DirOptions::new(end_process);
    dir_options.disk_reserved_bytes = config.disk_reserved_bytes;
    dir_options.dirty_budget_bytes =
        config.dirty_budget_bytes.unwrap_or_else(|| dirty_budget(memory_bytes()));
    dir_options.checkpoint_interval = config.checkpoint_interval_ms;
    dir_options.retention_interval = config.retention_interval_ms;
    dir_options.retention_pause = config.retention_pause_ms;
    dir_options.stray_retention = config.stray_retention_ms;
    dir_options.open_files_max = config.open_files_max;
    dir_options.flush_threads = config.flush_threads;
    dir_options.progress = progress.clone();
    dir_options.executor = Some(tokio::runtime::Handle::current());
    let (system, path) = (os.clone(), data_dir.to_owned());
    blocking(os, move || LogDir::open(system, &path, None, dir_options)).await
}

/// Below where the kernel holds up whoever writes, a fifth of the memory that is available; and at half of it, where the
/// flusher begins, below the tenth at which the kernel begins to write by itself.
fn dirty_budget(memory: Option<u64>) -> u64 {
    (memory.unwrap_or(0) / 8).clamp(128 << 20, 4 << 30)
}

/// After a failed write or sync nobody knows what the disk holds (correctness rule 35).
fn end_process(fatal: &Fatal) {
    tracing::error!(%fatal, "ending");
    eprintln!("weir: {fatal}");
    std::process::abort();
}

/// What this broker tells the controller of itself.
pub(crate) fn registration(
    os: &Arc<dyn Os>,
    config: &weir_config::Broker,
    log_dir: &LogDir,
    found: &OpenReport,
    endpoint: &str,
) -> wire::RegisterBroker {
    let identity = log_dir.identity();
    let epoch = found.broker_epoch.as_ref().map(|epoch| epoch.broker_epoch);
    let (host, port) = weir_cluster::split_endpoint(endpoint).unwrap_or((endpoint, 0));
    wire::RegisterBroker {
        cluster_id: identity
            .as_ref()
            .and_then(|identity| identity.cluster_id.parse::<ClusterId>().ok())
            .map(|id| id.to_wire()),
        broker_id: identity.as_ref().map(|identity| identity.broker_id),
        directories: vec![wire::DirectoryFacts {
            directory_id: log_dir.directory_id().to_wire(),
            clean_epoch: epoch.filter(|_| found.clean),
            persisted_epoch: epoch,
            same_boot: found
                .broker_epoch
                .as_ref()
                .is_some_and(|epoch| !epoch.boot_id.is_empty() && epoch.boot_id == os.boot_id()),
        }],
        damaged: found.damaged.iter().map(|damaged| damaged.id.to_wire()).collect(),
        rack: config.rack.clone(),
        endpoints: vec![wire::Endpoint {
            listener: "public".to_owned(),
            host: host.to_owned(),
            port: port.into(),
        }],
        version: env!("CARGO_PKG_VERSION").to_owned(),
        feature_level: FEATURE_LEVEL,
        metadata_version: found.metadata_version,
    }
}

/// Writes down what the controller gave, before the first append (correctness rule 8).
pub(crate) async fn settle(
    os: &Arc<dyn Os>,
    log_dir: &LogDir,
    registered: Registration,
) -> Result<(), weir_storage::Error> {
    let identity = DirIdentity::new(registered.cluster_id.to_string(), registered.broker_id);
    let (dir, epoch) = (log_dir.clone(), registered.epoch);
    blocking(os, move || {
        dir.bind_identity(&identity)?;
        dir.write_broker_epoch(epoch)
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_dirty_budget_fits_the_memory() {
        assert_eq!(dirty_budget(Some(24 << 30)), 3 << 30);
        assert_eq!(dirty_budget(Some(256 << 20)), 128 << 20);
        assert_eq!(dirty_budget(Some(1 << 40)), 4 << 30);
        assert_eq!(dirty_budget(None), 128 << 20);
    }
}
