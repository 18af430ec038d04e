//! The steps of a start, one function each, and why it fails.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tonic::Status;
use weir_cluster::Row;
use weir_io::Disk;
use weir_metadata::FEATURE_LEVEL;
use weir_proto::internal::v1 as wire;
use weir_runtime::{Listener, Os, Reason, blocking, memory_bytes};
use weir_storage::{DirIdentity, DirOptions, LogDir, OpenReport, Pacing, Progress, Whose};
use weir_types::EndpointError;

use crate::cluster::Registration;
use crate::failing::Failing;
use crate::options::Options;

/// Why a broker did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A listener could not be bound.
    #[error("{error} ({what})")]
    Listen {
        /// The address.
        addr: SocketAddr,
        /// What it is for.
        what: &'static str,
        /// Why not; names the address.
        error: std::io::Error,
    },
    /// What it is to tell others is no address.
    #[error("{setting}: {error}")]
    Advertised {
        /// The setting that says it.
        setting: &'static str,
        /// What is wrong with it.
        error: EndpointError,
    },
    /// The data directory is none.
    #[error(transparent)]
    DataDir(#[from] weir_process::data_dir::Error),
    /// There are no logs, but the broker had some.
    #[error(
        "{} holds no broker's logs, but broker_id says that it is broker {broker_id}: is a disk not mounted, or were \
         they moved away? Bring them back. Nothing was made. If they are lost for good, or this broker starts for the first \
         time, take broker_id away: it becomes a new broker, and gets its id from the controllers", path.display()
    )]
    NoLogs {
        /// Where they should be.
        path: PathBuf,
        /// Whose they should be.
        broker_id: i32,
    },
    /// The logs are those of another broker.
    #[error(
        "{} is of {owner}, but broker_id says that it is broker {broker_id}: the disk of another broker is mounted \
         there. Nothing was changed", path.display()
    )]
    OtherBroker {
        /// The log directory.
        path: PathBuf,
        /// Whose it is.
        owner: DirIdentity,
        /// Whose it should be.
        broker_id: i32,
    },
    /// The log directory cannot be used.
    #[error(transparent)]
    Storage(#[from] weir_storage::Error),
    /// The controller refused the broker.
    #[error("the controller refused this broker: {}", weir_cluster::said(.0))]
    Refused(Box<Status>),
    /// It was to end before it served: somebody asked for it, or a part of it failed.
    #[error("the broker did not start: {0}")]
    Over(Reason),
}

/// Binds a listener.
pub(crate) async fn listen(
    os: &Arc<dyn Os>,
    addr: SocketAddr,
    what: &'static str,
) -> Result<Box<dyn Listener>, StartError> {
    weir_rpc::listen(&**os, what, addr).await.map_err(|error| StartError::Listen { addr, what, error })
}

/// Refuses a log directory that is not of the broker it should be of, before anything is made.
pub(crate) fn check_identity(disk: &dyn Disk, options: &Options) -> Result<(), StartError> {
    let Some(broker_id) = options.config.broker_id else { return Ok(()) };
    let path = options.data_dir.clone();
    match weir_storage::whose(disk, &path)? {
        Whose::Of(owner) if owner.broker_id == broker_id => Ok(()),
        Whose::Of(owner) => Err(StartError::OtherBroker { path, owner, broker_id }),
        Whose::Nobodys | Whose::Unclaimed => Err(StartError::NoLogs { path, broker_id }),
    }
}

/// Opens the log directory, with recovery where the last stop was none.
pub(crate) async fn open_log_dir(
    os: &Arc<dyn Os>,
    data_dir: &Path,
    config: &weir_config::Broker,
    progress: &Arc<Progress>,
    failing: Arc<Failing>,
) -> Result<(LogDir, OpenReport), weir_storage::Error> {
    let mut dir_options = DirOptions::new(move |fatal| failing.end(fatal));
    dir_options.disk_reserved_bytes = config.disk_reserved_bytes;
    dir_options.dirty_budget_bytes =
        config.dirty_budget_bytes.unwrap_or_else(|| dirty_budget(memory_bytes()));
    dir_options.checkpoint_interval = config.checkpoint_interval_ms;
    dir_options.retention_interval = config.retention_interval_ms;
    dir_options.retention_pause = config.retention_pause_ms;
    dir_options.stray_retention = config.stray_retention_ms;
    dir_options.open_files_max = config.open_files_max;
    dir_options.flush_threads = config.flush_threads;
    dir_options.pacing = Pacing {
        slow_flush: config.slow_flush_ms,
        slow_after: config.slow_disk_after_ms,
        quick_after: config.quick_disk_after_ms,
    };
    dir_options.progress = progress.clone();
    dir_options.executor = Some(tokio::runtime::Handle::current());
    let (system, path) = (os.clone(), data_dir.to_owned());
    let opening = blocking(os, move || LogDir::open(system, &path, None, dir_options));
    watched(opening, progress).await
}

/// How often a start that takes long says how far it is.
const TELL_EVERY: Duration = Duration::from_secs(10);

/// Waits for the logs to be open, and says meanwhile how far that is.
async fn watched<T>(opening: impl Future<Output = T>, progress: &Progress) -> T {
    let mut opening = pin!(opening);
    loop {
        match tokio::time::timeout(TELL_EVERY, &mut opening).await {
            Ok(opened) => return opened,
            Err(_) => {
                let Progress { logs, logs_done, scanned_bytes } = progress;
                let (logs, done, scanned_bytes) = (logs.get(), logs_done.get(), scanned_bytes.get());
                tracing::info!(logs, done, scanned_bytes, "still opening logs");
            }
        }
    }
}

/// Below where the kernel holds up whoever writes, a fifth of the memory that is available; and at half of it, where the
/// flusher begins, below the tenth at which the kernel begins to write by itself.
fn dirty_budget(memory: Option<u64>) -> u64 {
    (memory.unwrap_or(0) / 8).clamp(128 << 20, 4 << 30)
}

/// What this broker tells the controller of itself.
pub(crate) fn registration(
    config: &weir_config::Broker,
    log_dir: &LogDir,
    found: &OpenReport,
    endpoints: Vec<wire::Endpoint>,
) -> wire::RegisterBroker {
    let identity = log_dir.identity();
    let epoch = found.broker_epoch.as_ref().map(|epoch| epoch.broker_epoch);
    wire::RegisterBroker {
        cluster_id: identity.as_ref().map(|identity| identity.cluster_id.to_wire()),
        broker_id: identity.as_ref().map(|identity| identity.broker_id),
        directories: vec![wire::DirectoryFacts {
            directory_id: log_dir.directory_id().to_wire(),
            clean_epoch: epoch.filter(|_| found.clean),
            persisted_epoch: epoch,
            same_boot: found.same_boot,
            failures: found.failures.clone(),
        }],
        damaged: found.damaged.iter().map(|damaged| damaged.id.to_wire()).collect(),
        rack: config.rack.clone(),
        endpoints,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        feature_level: FEATURE_LEVEL,
        metadata_version: found.metadata_version,
        metadata_author: found.metadata_author,
        // Drawn where it is sent.
        incarnation: Default::default(),
    }
}

/// Writes down what the controller gave, before the first append (correctness rule 8).
pub(crate) async fn settle(
    os: &Arc<dyn Os>,
    log_dir: &LogDir,
    registered: Registration,
) -> Result<(), weir_storage::Error> {
    let identity = DirIdentity::new(registered.cluster_id, registered.broker_id);
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

    /// Notes what is said.
    #[derive(Clone, Default)]
    struct Notes(Arc<parking_lot::Mutex<String>>);

    impl tracing::field::Visit for Notes {
        fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn std::fmt::Debug) {
            self.0.lock().push_str(&format!("{field}={value:?} "));
        }
    }

    impl tracing::Subscriber for Notes {
        fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
            true
        }

        fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
            tracing::span::Id::from_u64(1)
        }

        fn event(&self, event: &tracing::Event<'_>) {
            event.record(&mut self.clone());
        }

        fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}
        fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}
        fn enter(&self, _: &tracing::span::Id) {}
        fn exit(&self, _: &tracing::span::Id) {}
    }

    #[tokio::test(start_paused = true)]
    async fn a_start_that_takes_long_says_how_far_it_is() {
        let (notes, progress) = (Notes::default(), Progress::default());
        let noting = tracing::subscriber::set_default(notes.clone());
        let slow = |time: Duration| async move {
            tokio::time::sleep(time).await;
            7
        };
        assert_eq!(watched(slow(TELL_EVERY / 2), &progress).await, 7);
        assert_eq!(notes.0.lock().as_str(), "", "most starts have nothing to tell");
        assert_eq!(watched(slow(TELL_EVERY * 5 / 2), &progress).await, 7);
        drop(noting);
        let said = notes.0.lock();
        assert_eq!(said.matches("still opening logs logs=0 done=0 scanned_bytes=0").count(), 2, "{said}");
    }

    #[tokio::test]
    async fn a_port_that_is_taken_is_named_once() {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = taken.local_addr().unwrap();
        let os: Arc<dyn Os> = Arc::new(weir_runtime::RealOs::new(1).unwrap());
        let said = listen(&os, addr, "gRPC").await.err().unwrap().to_string();
        assert!(
            said.starts_with(&format!("cannot listen on {addr}: ")) && said.ends_with(" (gRPC)"),
            "{said}"
        );
        assert_eq!(said.matches("cannot listen").count(), 1, "{said}");
    }

    #[test]
    fn the_dirty_budget_fits_the_memory() {
        assert_eq!(dirty_budget(Some(24 << 30)), 3 << 30);
        assert_eq!(dirty_budget(Some(256 << 20)), 128 << 20);
        assert_eq!(dirty_budget(Some(1 << 40)), 4 << 30);
        assert_eq!(dirty_budget(None), 128 << 20);
    }
}
