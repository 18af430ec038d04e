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
use tonic::Status;
use weir_cluster::Controllers;
use weir_proto::v1::{ErrorReason, Limits};
use weir_rpc::Problem;
use weir_runtime::{Executors, Os, Reason, Stop};
use weir_storage::{LogDir, OpenReport};

use crate::cluster::Cluster;
use crate::damage::Damage;
use crate::http::{self, Shown};
use crate::memory::Memory;
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
    pub(crate) damage: Arc<Damage>,
    pub(crate) metrics: Metrics,
    pub(crate) memory: Arc<Memory>,
    pub(crate) ready: AtomicBool,
    /// Requested when the broker begins to stop: streams end, parked calls answer.
    pub(crate) stopping: Stop,
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

    /// Why nobody should be sent here now, if so.
    pub(crate) fn unready(&self) -> Option<String> {
        if self.stopping.is_requested() {
            return Some("stopping".to_owned());
        }
        let trouble = self.cluster.trouble();
        if self.ready.load(Ordering::Acquire) {
            return trouble;
        }
        let alone = || {
            let asked = self.config.controllers.join(", ");
            (!self.cluster.is_registered())
                .then(|| format!("no controller has taken this broker yet ({asked})"))
        };
        let what = trouble.or_else(alone).unwrap_or_else(|| "taking up its partitions".to_owned());
        Some(format!("starting: {what}"))
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
    background: Background,
}

/// Tasks that live as long as the broker.
#[derive(Debug)]
struct Background {
    beat: JoinHandle<()>,
    /// What ends with the process, and may be cut off.
    rest: Vec<JoinHandle<()>>,
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

    // It says how far the start is, and then what this broker waits for, while it does.
    let shown = Arc::new(Shown::default());
    let http = AbortOnDrop(Some(executors.spawn_control(http::serve(shown.clone(), http_listener))));
    let (log_dir, found) = steps::open_log_dir(&os, &data_dir, &config, &shown.progress).await?;
    let controllers = Controllers::new(os.clone(), config.controllers.clone());
    let cluster = Arc::new(Cluster::new(controllers, found.metadata_version));
    let (topics, metrics) = (Arc::new(Topics::default()), Metrics::new());
    let followed = metrics.followed_partitions.clone();
    let (of_cluster, of_topics) = (cluster.clone(), topics.clone());
    let replicas = Arc::new(Replicas::new(os.clone(), log_dir.clone(), of_cluster, of_topics, followed));
    let damage = Arc::new(Damage::new(metrics.reads_damaged.clone(), metrics.reads_unreadable.clone()));
    let memory = Memory::new(config.inflight_total_bytes_max, metrics.inflight_waits.clone());
    let broker = Arc::new(Broker {
        os,
        config,
        settings,
        data_dir,
        drain,
        cluster,
        log_dir,
        topics,
        replicas,
        producer_ids: ProducerIds::default(),
        damage,
        metrics,
        memory,
        ready: AtomicBool::new(false),
        stopping: Stop::new(),
    });
    // Nobody else sets it.
    let _ = shown.broker.set(broker.clone());
    match join(&broker, executors, found, &endpoint).await {
        Ok(mut background) => {
            background.rest.extend(http.keep());
            let serving = serve::start(&broker, executors, listener, http_addr);
            broker.ready.store(true, Ordering::Release);
            Ok(Running { broker, serving, http_addr, background })
        }
        Err(error) => {
            drop(http);
            // In order: what the directory could prove before this start it can prove at the next one, too.
            if let Err(error) = broker.log_dir.close().await {
                tracing::warn!(%error, "the log directory was not closed in order");
            }
            Err(error)
        }
    }
}

/// A task that ends with a start that fails.
struct AbortOnDrop(Option<JoinHandle<()>>);

impl AbortOnDrop {
    /// The start did not fail.
    fn keep(mut self) -> Option<JoinHandle<()>> {
        self.0.take()
    }
}

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        if let Some(task) = &self.0 {
            task.abort();
        }
    }
}

/// Registers with the controller and follows it, until everything that this broker has is there.
async fn join(
    broker: &Arc<Broker>,
    executors: &Executors,
    found: OpenReport,
    endpoint: &str,
) -> Result<Background, StartError> {
    let Broker { os, config, cluster, log_dir, replicas, .. } = &**broker;
    let refused = |status| StartError::Refused(Box::new(status));
    let registration = steps::registration(config, log_dir, &found, endpoint);
    let registered = cluster.register(registration).await.map_err(refused)?;
    steps::settle(os, log_dir, registered).await?;
    // The epoch is on disk: from the first heartbeat on the controller may let this broker lead.
    let unfenced = cluster.begin().await.map_err(refused)?;
    let background = Background {
        beat: executors.spawn_control(cluster.clone().beat()),
        rest: vec![
            executors.spawn_control(cluster.clone().follow()),
            executors.spawn_control(replicas.clone().run(found)),
        ],
    };
    cluster.seen(unfenced.metadata_version).await;
    replicas.settled(unfenced.metadata_version).await;
    Ok(background)
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

    /// The wish that this process ends, with its reason: another one is this broker now. Whoever runs the broker
    /// waits for it beside its own.
    pub fn over(&self) -> Stop {
        self.broker.cluster.over().clone()
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
        broker.stopping.request(Reason::Asked("the broker stops".to_owned()));
        if tokio::time::timeout(broker.drain, serving.stop()).await.is_err() {
            tracing::warn!(after = ?broker.drain, "calls did not end in time and are cut off");
        }
        if let Err(status) = broker.cluster.end(background.beat).await {
            tracing::debug!(%status, "the controller does not hear of the stop; it will notice");
        }
        for task in background.rest {
            task.abort();
        }
        broker.log_dir.close().await
    }
}
