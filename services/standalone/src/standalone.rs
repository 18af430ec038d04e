//! The parts, started in order and stopped in reverse.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use weir_broker::Options;
use weir_config::{Resolved, Standalone as Config};
use weir_controller::{Config as OfController, Handle, Running as Controlling};
use weir_io::make_dirs;
use weir_process::data_dir::{self, CONTROLLER_DIR, LOG_DIR, RAFT_FILE};
use weir_runtime::{Executors, Os, Stop};
use weir_storage::{DirIdentity, Whose};

/// Why it did not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The data directory is none.
    #[error(transparent)]
    DataDir(#[from] data_dir::Error),
    /// There are logs and no controller that knows them: a new cluster beside them would be another one.
    #[error(
        "{} is of {owner}, but {} holds no controller: is a disk not mounted, or was it moved away? Bring it back. \
         Nothing was made; `weir segment dump {}` shows what the logs hold",
        logs.display(), controller.display(), logs.display()
    )]
    NoController {
        /// The log directory.
        logs: PathBuf,
        /// Whose it is.
        owner: DirIdentity,
        /// Where the controller's files should be.
        controller: PathBuf,
    },
    /// There is a controller that has had a broker here, and no logs: an empty broker beside its topics would not be
    /// the one that has their records.
    #[error(
        "{} holds no logs, but cluster {cluster_id} has broker {broker_id}, which had them: is a disk not mounted, or \
         were they moved away? Bring them back. Nothing was made. If they are lost for good, so are their records: \
         move {} away, too, and a new cluster begins", logs.display(), controller.display()
    )]
    NoLogs {
        /// Where the logs should be.
        logs: PathBuf,
        /// The cluster.
        cluster_id: String,
        /// The broker that it has.
        broker_id: i32,
        /// Where the controller's files are.
        controller: PathBuf,
    },
    /// The log directory cannot be used. Nothing was made.
    #[error(transparent)]
    Logs(weir_storage::Error),
    /// An address cannot be listened on. Nothing was made.
    #[error(
        "no port for {what}: {error}; if a Weir runs there already, use it, else name another address with {flag} (all \
         at once, for a while: weir standalone --ephemeral --port 0)"
    )]
    Port {
        /// What it is for.
        what: &'static str,
        /// The flag that names it.
        flag: &'static str,
        /// What the system said.
        error: std::io::Error,
    },
    /// The controller did not start.
    #[error(transparent)]
    Controller(#[from] weir_controller::Error),
    /// The broker did not start.
    #[error(transparent)]
    Broker(#[from] weir_broker::StartError),
    /// The last flush failed.
    #[error("stopping: {0}")]
    Stop(#[from] weir_storage::Error),
    /// The process could not be set up.
    #[error(transparent)]
    Process(#[from] weir_process::Setup),
}

/// A running Weir.
#[derive(Debug)]
pub struct Standalone {
    broker: weir_broker::Running,
    controller: Controlling,
    founded: bool,
}

impl Standalone {
    /// Starts everything; it serves when this returns.
    ///
    /// # Errors
    /// See [`Error`]; what was started before is stopped again.
    pub async fn start(os: Arc<dyn Os>, executors: &Executors, config: &Config) -> Result<Self, Error> {
        Self::start_with(os, executors, config, Vec::new(), Stop::new()).await
    }

    /// The same, knowing where each value of the configuration came from, for those who ask the broker, and the wish
    /// that it ends: see [`Standalone::over`]. One that is made meanwhile ends the start.
    ///
    /// # Errors
    /// See [`Error`]; what was started before is stopped again.
    pub async fn start_with(
        os: Arc<dyn Os>,
        executors: &Executors,
        config: &Config,
        settings: Vec<Resolved>,
        over: Stop,
    ) -> Result<Self, Error> {
        let data_dir = data_dir::absolute(&config.common.data_dir)?;
        let controller_dir = data_dir.join(CONTROLLER_DIR);
        let log_dir = data_dir.join(LOG_DIR);
        // Both before anything is made: who has mistyped leaves nothing behind.
        data_dir::check_whole(&*os.disk(), &data_dir)?;
        ports(&*os, config).await?;
        let founded = !data_dir::exists(&*os.disk(), &controller_dir.join(RAFT_FILE))?;
        let whose = weir_storage::whose(&*os.disk(), &log_dir).map_err(Error::Logs)?;
        if let (true, Whose::Of(owner)) = (founded, &whose) {
            return Err(Error::NoController {
                logs: log_dir,
                owner: owner.clone(),
                controller: controller_dir,
            });
        }
        if founded {
            data_dir::check_unused(&*os.disk(), &data_dir)?;
        }
        make_dirs(&*os.disk(), &data_dir)
            .map_err(|error| data_dir::Error::Unusable { path: data_dir.clone(), error })?;
        let of_controller = OfController::of(&config.controller, controller_dir.clone()).standalone();
        let controller = Controlling::start(&os, executors, of_controller, over.clone()).await?;
        if !founded
            && whose == Whose::Nobodys
            && let Some(broker_id) = first_broker(controller.handle(), &over).await?
        {
            let cluster_id = controller.handle().cluster_id().to_string();
            controller.stop().await?;
            return Err(Error::NoLogs { logs: log_dir, cluster_id, broker_id, controller: controller_dir });
        }
        let mut broker_config = config.broker.clone();
        broker_config.controllers = vec![controller.addr().to_string()];
        let options = Options {
            data_dir: log_dir,
            http_listen: config.common.http_listen,
            drain: config.common.drain_ms,
            alone: true,
            config: broker_config,
            settings,
        };
        match weir_broker::start(os, executors, options, over).await {
            Ok(broker) => Ok(Self { broker, controller, founded }),
            Err(error) => {
                controller.stop().await?;
                Err(error.into())
            }
        }
    }

    /// Where gRPC is served.
    pub fn addr(&self) -> SocketAddr {
        self.broker.addr()
    }

    /// Where HTTP is served.
    pub fn http_addr(&self) -> SocketAddr {
        self.broker.http_addr()
    }

    /// Where the controller listens.
    pub fn controller_addr(&self) -> SocketAddr {
        self.controller.addr()
    }

    /// The cluster's id.
    pub fn cluster_id(&self) -> String {
        self.broker.cluster_id()
    }

    /// Whether it found no cluster in its data directory and made one.
    pub fn founded(&self) -> bool {
        self.founded
    }

    /// The wish that it ends, with its reason: made by whoever has it, or because a part of it cannot go on. Another
    /// process is this broker, the controller has failed (correctness rule 35), a task that the rest lives by is gone.
    /// Whoever runs it waits for the wish and then stops it.
    pub fn over(&self) -> Stop {
        self.broker.over()
    }

    /// Stops in order: calls end, logs are flushed and marked clean, then the controller stops.
    ///
    /// # Errors
    /// The last flush or the clean marker failed.
    pub async fn stop(self) -> Result<(), Error> {
        let stopped = self.broker.stop().await;
        self.controller.stop().await?;
        Ok(stopped?)
    }
}

/// A broker that the cluster has had, if any. A start that was interrupted before the first one goes on.
async fn first_broker(handle: &Handle, over: &Stop) -> Result<Option<i32>, weir_controller::Error> {
    tokio::select! {
        found = handle.first_broker() => Ok(found?.map(|id| id.0)),
        // Whoever stops it next is told why.
        () = over.requested() => Ok(None),
    }
}

/// Looks whether the three addresses are free. Each is bound for good later, by who serves on it.
async fn ports(os: &dyn Os, config: &Config) -> Result<(), Error> {
    let addresses = [
        ("the API", "--listen", config.broker.listen),
        ("HTTP", "--http-listen", config.common.http_listen),
        ("the controller", "--controller-listen", config.controller.controller_listen),
    ];
    for (what, flag, address) in addresses {
        os.listen(address).await.map_err(|error| Error::Port { what, flag, error })?;
    }
    Ok(())
}
