//! A broker's life: found, registered, serving, stopped.
//!
//! ```text
//!   bind -> say so to clients -> open the log directory -> register -> epoch on disk -> follow the metadata
//!        -> make and open replicas -> serve -> (stop) -> no new calls -> streams say goodbye
//!        -> logs flushed and closed, clean marker
//! ```

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::sync::SetOnce;
use tokio::task::JoinHandle;
use weir_cluster::Controllers;
use weir_proto::internal::v1 as wire;
use weir_runtime::{Executors, OnEnd, Os, Reason, Role, Stop};
use weir_storage::OpenReport;
use weir_types::BrokerId;

use crate::broker::Broker;
use crate::cluster::{Cluster, Earlier};
use crate::damage::Damage;
use crate::failing::Failing;
use crate::forward::look;
use crate::forward::peers::Peers;
use crate::http::Shown;
use crate::memory::Memory;
use crate::metrics::Metrics;
use crate::options::Options;
use crate::producer_ids::ProducerIds;
use crate::replicas::Replicas;
use crate::replication::{self, Replication, Restarts};
use crate::serve::{self, Around, Bound, Entrance, Serving};
use crate::start::{self as steps, StartError};
use crate::topic_map::Topics;

/// A broker that serves.
#[derive(Debug)]
pub struct Running {
    broker: Arc<Broker>,
    public: Serving,
    /// `None`: it has no other brokers to talk to.
    internal: Option<Serving>,
    http_addr: SocketAddr,
    /// The tasks that live as long as the broker.
    role: Role,
    beat: Beat,
}

/// The task that shows the controller that this broker lives. It has an end of its own, in order.
type Beat = JoinHandle<Option<()>>;

/// Starts a broker; it serves when this returns. `over` is the wish that it ends, with its reason: whoever runs the
/// broker waits for it and then calls [`Running::stop`]. It is made by whoever has it, or by the broker, when another
/// process is this broker now or a task without which it is worth nothing has failed. One that is made before the
/// broker serves ends the start, once the log directory is open.
///
/// # Errors
/// See [`StartError`]; nothing is left running.
pub async fn start(
    os: Arc<dyn Os>,
    executors: &Executors,
    options: Options,
    over: Stop,
) -> Result<Running, StartError> {
    steps::check_identity(&*os.disk(), &options)?;
    let Options { data_dir, http_listen, drain, alone, config, settings } = options;
    let (told, told_internal) =
        (config.advertised_address.as_ref(), config.internal_advertised_address.as_ref());
    let public = Bound::new(&os, Entrance::Public, config.listen, told).await?;
    let internal = match config.internal_listen {
        Some(addr) => Some(Bound::new(&os, Entrance::Internal, addr, told_internal).await?),
        None => None,
    };
    let http_listener = steps::listen(&os, http_listen, "HTTP").await?;
    let http_addr = http_listener.local_addr();
    let endpoints = [Some(&public), internal.as_ref()].into_iter().flatten().map(Bound::registered).collect();

    let role = Role::new("broker", over.clone());
    // It says how far the start is, and then what this broker waits for, while it does.
    let shown = Arc::new(Shown::default());
    let http = weir_process::http::serve(shown.clone(), http_listener);
    executors.spawn_control(role.task("http", OnEnd::StopRole, http));
    let failing = Failing::new(os.clone());
    let metrics = Metrics::new();
    let around = Around { os: &os, executors, role: &role, config: &config, metrics: &metrics };
    // It says what the start is at, or waits for, until it serves.
    let public = serve::start_public(&around, &shown, public, http_addr);
    let opening = steps::open_log_dir(&os, &data_dir, &config, &shown.progress, failing.clone());
    let (log_dir, mut found) = opening.await?;
    let controllers = Controllers::new(os.clone(), config.controllers.clone());
    let cluster = Arc::new(Cluster::new(controllers, Earlier::of(&found), over.clone()));
    if alone {
        found.failures.clear();
    } else {
        failing.tells(cluster.clone(), log_dir.directory_id());
    }
    let topics = Arc::new(Topics::default());
    let followed = metrics.followed_partitions.clone();
    let (of_cluster, of_topics) = (cluster.clone(), topics.clone());
    let (replication, starts, restarts) = Replication::new(
        os.clone(),
        cluster.clone(),
        executors.data_runtimes(),
        config.replica_lag_ms_max,
        metrics.replication.clone(),
    );
    let (damaged, unreadable) = (metrics.reads_damaged.clone(), metrics.reads_unreadable.clone());
    let damage = Arc::new(Damage::new(replication.clone(), damaged, unreadable));
    let (of_replicas, found_damaged) = (replication.clone(), damage.clone());
    let replicas = Arc::new(Replicas::new(
        os.clone(),
        log_dir.clone(),
        of_cluster,
        of_topics,
        of_replicas,
        found_damaged,
        followed,
    ));
    let memory = Memory::new(config.inflight_total_bytes_max, metrics.inflight_waits.clone());
    let broker = Arc::new(Broker {
        peers: Peers::new(os.clone()),
        os,
        config,
        settings,
        data_dir,
        drain,
        cluster,
        log_dir,
        topics,
        replicas,
        replication,
        producer_ids: ProducerIds::default(),
        damage,
        metrics,
        memory,
        ready: SetOnce::new(),
        stopping: over,
    });
    for (index, starts) in (0..).zip(starts) {
        executors.spawn_data(index, role.task("links", OnEnd::StopRole, replication::host(starts)));
    }
    let in_sync = replication::keep_in_sync(broker.replication.clone());
    executors.spawn_control(role.task("in-sync sets", OnEnd::StopRole, in_sync));
    executors.spawn_control(role.task("suspects", OnEnd::StopRole, look::keep(broker.clone())));
    // Before a controller hears of this broker: once it lets it lead, others come.
    let around =
        Around { os: &broker.os, executors, role: &role, config: &broker.config, metrics: &broker.metrics };
    let internal = internal.map(|bound| serve::start_internal(&around, &broker, bound));
    // Nobody else sets it.
    let _ = shown.broker.set(broker.clone());
    match join(&broker, executors, &role, (found, restarts), endpoints).await {
        Ok(beat) => {
            // Nobody else sets it.
            let _ = broker.ready.set(());
            warn_of_batches(&broker);
            let stocked = broker.clone();
            let stock = async move { stocked.producer_ids.stock(&stocked.cluster).await };
            drop(executors.spawn_control(role.task("producer ids", OnEnd::Ignore, stock)));
            Ok(Running { broker, public, internal, http_addr, role, beat })
        }
        Err(error) => {
            role.end().await;
            // In order: what the directory could prove before this start it can prove at the next one, too.
            if let Err(error) = broker.log_dir.close().await {
                tracing::warn!(%error, "the log directory was not closed in order");
            }
            failing.last_words().await;
            Err(error)
        }
    }
}

/// Says which topics allow what this broker cannot receive: they were made while it, or another one, took more.
fn warn_of_batches(broker: &Broker) {
    let (image, limit) = (broker.cluster.image(), broker.config.batch_bytes_max());
    let allows = |topic: &weir_metadata::Topic| {
        usize::try_from(image.topic_settings(topic).batch_bytes_max).unwrap_or(usize::MAX)
    };
    let mut topics = image.topics().filter(|topic| allows(topic) > limit);
    let Some(first) = topics.next() else { return };
    tracing::warn!(
        topic = &*first.name,
        others = topics.count(),
        batch_bytes_max = allows(first),
        request_bytes_max = broker.config.request_bytes_max,
        "topics allow batches that are larger than the requests this broker takes, and refuses: raise \
         request_bytes_max, or lower batch_bytes_max"
    );
}

/// Registers with the controller and follows it, until everything that this broker has is there.
async fn join(
    broker: &Arc<Broker>,
    executors: &Executors,
    role: &Role,
    (found, restarts): (OpenReport, Restarts),
    endpoints: Vec<wire::Endpoint>,
) -> Result<Beat, StartError> {
    let Broker { os, config, cluster, log_dir, replicas, damage, .. } = &**broker;
    let refused = |status| StartError::Refused(Box::new(status));
    let registration = steps::registration(config, log_dir, &found, endpoints);
    let over = cluster.over();
    let registered = unless(over, cluster.register(registration)).await?.map_err(refused)?;
    // To its end, whoever is to stop: what is begun on the disk is not left behind.
    steps::settle(os, log_dir, registered).await?;
    // The epoch is on disk: from the first heartbeat on the controller may let this broker lead.
    let unfenced = unless(over, cluster.begin()).await?.map_err(refused)?;
    let (beat, follow) = (cluster.clone().beat(log_dir.clone(), damage.clone()), cluster.clone().follow());
    let beat = executors.spawn_control(role.task("heartbeats", OnEnd::StopRole, beat));
    executors.spawn_control(role.task("metadata", OnEnd::StopRole, follow));
    executors.spawn_control(role.task("replicas", OnEnd::StopRole, replicas.clone().run(found, restarts)));
    let in_line = async {
        cluster.seen(unfenced.metadata_version).await;
        replicas.settled(unfenced.metadata_version).await;
    };
    unless(over, in_line).await?;
    Ok(beat)
}

/// Waits for what others do, unless the broker is to end. What was asked of a controller and not waited for is told
/// again by the next start.
async fn unless<T>(over: &Stop, waits: impl Future<Output = T>) -> Result<T, StartError> {
    tokio::select! {
        biased;
        () = over.requested() => Err(StartError::Over(over.reason().unwrap_or_else(asked))),
        waited = waits => Ok(waited),
    }
}

/// Why it ends, if nobody says.
fn asked() -> Reason {
    Reason::Asked("asked to stop".to_owned())
}

impl Running {
    /// Where the public gRPC listener is.
    pub fn addr(&self) -> SocketAddr {
        self.public.addr
    }

    /// Its id.
    pub fn broker_id(&self) -> BrokerId {
        self.broker.cluster.broker_id()
    }

    /// Where the listener for other brokers is, if it has one.
    pub fn internal_addr(&self) -> Option<SocketAddr> {
        self.internal.as_ref().map(|serving| serving.addr)
    }

    /// Where the HTTP listener is.
    pub fn http_addr(&self) -> SocketAddr {
        self.http_addr
    }

    /// The cluster's id.
    pub fn cluster_id(&self) -> String {
        self.broker.cluster.image().cluster_id().map(|id| id.to_string()).unwrap_or_default()
    }

    /// The wish that it ends: see [`start`].
    pub fn over(&self) -> Stop {
        self.broker.stopping.clone()
    }

    /// Stops in order: what was acknowledged is on disk and marked so, what is open is told. Calls that do not come
    /// to an end in time are cut off; their appends are not.
    ///
    /// # Errors
    /// The last flush or the clean marker failed: the next start looks at the logs' tails.
    pub async fn stop(self) -> Result<(), weir_storage::Error> {
        let Self { broker, public, internal, role, beat, .. } = self;
        // While it still serves: whoever is sent away finds another leader.
        broker.cluster.hand_over(broker.drain).await;
        // From here on the ends of tasks mean nothing.
        broker.stopping.request(asked());
        public.stop_accepting();
        if tokio::time::timeout(broker.drain, public.stop()).await.is_err() {
            tracing::warn!(after = ?broker.drain, "calls did not end in time and are cut off");
        }
        if let Err(status) = broker.cluster.end(beat).await {
            tracing::debug!(%status, "the controller does not hear of the stop; it will notice");
        }
        // Until here followers have got what was still to be acknowledged. What they follow has no end of its own.
        drop(internal);
        role.end().await;
        broker.replication.news.say();
        broker.log_dir.close().await
    }
}
