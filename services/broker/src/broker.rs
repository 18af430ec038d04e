//! A broker's life: found, registered, serving, stopped.
//!
//! ```text
//!   bind -> open the log directory -> register -> epoch on disk -> follow the metadata -> make and open replicas
//!        -> serve -> (stop) -> no new calls -> streams say goodbye -> logs flushed and closed, clean marker
//! ```

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::Status;
use weir_cluster::Controllers;
use weir_proto::v1::{ErrorReason, Limits};
use weir_rpc::Problem;
use weir_runtime::{Executors, Os};
use weir_storage::LogDir;

use crate::cluster::Cluster;
use crate::http;
use crate::metrics::Metrics;
use crate::options::{self, Options};
use crate::producer_ids::ProducerIds;
use crate::replicas::Replicas;
use crate::serve::{self, Serving};
use crate::start as steps;
use crate::topic_map::{Topic, Topics};

/// What every call of a broker works with.
#[derive(Debug)]
pub(crate) struct Broker {
    pub(crate) os: Arc<dyn Os>,
    pub(crate) config: weir_config::Broker,
    pub(crate) settings: Vec<weir_config::Resolved>,
    pub(crate) data_dir: PathBuf,
    pub(crate) drain: Duration,
    pub(crate) cluster: Arc<Cluster>,
    pub(crate) log_dir: LogDir,
    pub(crate) topics: Arc<Topics>,
    pub(crate) replicas: Arc<Replicas>,
    pub(crate) producer_ids: ProducerIds,
    pub(crate) metrics: Metrics,
    pub(crate) ready: AtomicBool,
    /// Cancelled when the broker begins to stop: streams end, parked calls answer.
    pub(crate) stopping: CancellationToken,
}

impl Broker {
    /// Why a log that was read or written here is closed.
    pub(crate) fn gone(&self, topic: &Topic, partition: i32) -> Problem {
        let now = self.topics.get(&topic.name).and_then(|topic| topic.led_here(partition).map(drop));
        now.err().unwrap_or_else(|| {
            let said = format!("{}/{partition} was closed on this broker: try again", topic.name);
            Problem::new(ErrorReason::NoLeader, said).at(&topic.name, partition)
        })
    }

    /// The limits as clients see them.
    pub(crate) fn limits(&self) -> Limits {
        options::limits(&self.config)
    }
}

/// A broker that serves.
#[derive(Debug)]
pub struct Running {
    broker: Arc<Broker>,
    serving: Serving,
    http_addr: SocketAddr,
    background: Vec<JoinHandle<()>>,
}

/// Why a broker did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A listener could not be bound.
    #[error("cannot listen on {addr} ({what}): {error}")]
    Listen {
        /// The address.
        addr: SocketAddr,
        /// What it is for.
        what: &'static str,
        /// Why not.
        error: std::io::Error,
    },
    /// The log directory cannot be used.
    #[error(transparent)]
    Storage(#[from] weir_storage::Error),
    /// The controller refused the broker.
    #[error("the controller refused this broker: {}", .0.message())]
    Refused(Box<Status>),
}

/// Starts a broker; it serves when this returns.
///
/// # Errors
/// See [`StartError`]; nothing is left running.
pub async fn start(os: Arc<dyn Os>, executors: &Executors, options: Options) -> Result<Running, StartError> {
    let Options { data_dir, http_listen, drain, config, settings } = options;
    let listener = steps::listen(&os, config.listen, "gRPC").await?;
    let http_listener = steps::listen(&os, http_listen, "HTTP").await?;
    let http_addr = http_listener.local_addr();
    let endpoint = config.advertised_address.clone().unwrap_or_else(|| listener.local_addr().to_string());

    let (log_dir, found) = steps::open_log_dir(&os, &data_dir, &config).await?;
    let controllers = Controllers::new(os.clone(), config.controllers.clone());
    let cluster = Arc::new(Cluster::new(controllers));
    let registered = cluster
        .register(steps::registration(&os, &config, &log_dir, &found, &endpoint))
        .await
        .map_err(|status| StartError::Refused(Box::new(status)))?;
    steps::settle(&os, &log_dir, registered).await?;

    let damaged = found.damaged.iter().map(|damaged| (damaged.id, damaged.what.clone())).collect();
    let topics = Arc::new(Topics::default());
    let replicas =
        Arc::new(Replicas::new(os.clone(), log_dir.clone(), damaged, cluster.clone(), topics.clone()));
    let broker = Arc::new(Broker {
        os: os.clone(),
        config,
        settings,
        data_dir,
        drain,
        cluster: cluster.clone(),
        log_dir,
        topics,
        replicas: replicas.clone(),
        producer_ids: ProducerIds::default(),
        metrics: Metrics::new(),
        ready: AtomicBool::new(false),
        stopping: CancellationToken::new(),
    });
    // The epoch is on disk: from the first heartbeat on the controller may let this broker lead.
    let refused = |status| StartError::Refused(Box::new(status));
    let unfenced = cluster.heartbeat(false).await.map_err(refused)?;
    let background = vec![
        executors.spawn_control(cluster.clone().follow()),
        executors.spawn_control(cluster.clone().beat()),
        executors.spawn_control(replicas.clone().run()),
        executors.spawn_control(http::serve(broker.clone(), http_listener)),
    ];
    cluster.seen(unfenced.metadata_version).await;
    replicas.settled(unfenced.metadata_version).await;
    let serving = serve::start(&broker, executors, listener);
    broker.ready.store(true, Ordering::Release);
    Ok(Running { broker, serving, http_addr, background })
}

impl Running {
    /// Where the public gRPC listener is.
    pub fn addr(&self) -> SocketAddr {
        self.serving.addr
    }

    /// Where the HTTP listener is.
    pub fn http_addr(&self) -> SocketAddr {
        self.http_addr
    }

    /// The cluster's id.
    pub fn cluster_id(&self) -> String {
        self.broker.cluster.image().cluster_id().map(|id| id.to_string()).unwrap_or_default()
    }

    /// Stops in order: what was acknowledged is on disk and marked so, what is open is told. Calls that do not come
    /// to an end in time are cut off; their appends are not.
    ///
    /// # Errors
    /// The last flush or the clean marker failed: the next start looks at the logs' tails.
    pub async fn stop(self) -> Result<(), weir_storage::Error> {
        let Self { broker, serving, background, .. } = self;
        serving.stop_accepting();
        broker.ready.store(false, Ordering::Release);
        broker.stopping.cancel();
        if tokio::time::timeout(broker.drain, serving.stop()).await.is_err() {
            tracing::warn!(after = ?broker.drain, "calls did not end in time and are cut off");
        }
        if let Err(status) = broker.cluster.heartbeat(true).await {
            tracing::debug!(%status, "the controller does not hear of the stop; it will notice");
        }
        for task in background {
            task.abort();
        }
        broker.log_dir.close().await
    }
}
