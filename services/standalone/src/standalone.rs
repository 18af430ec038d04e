//! The parts, started in order and stopped in reverse.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::task::JoinHandle;
use weir_broker::Options;
use weir_config::{Resolved, Standalone as Config};
use weir_controller::{Controller, Handle};
use weir_io::{Disk, make_dirs};
use weir_runtime::{Executors, OnEnd, Os, Reason, Role, Stop};
use weir_storage::{DirIdentity, Whose};

/// Where the controller's files are, below the data directory.
const CONTROLLER_DIR: &str = "controller";
/// Where the logs are.
const LOG_DIR: &str = "logs";
/// What a controller's directory holds before it holds anything.
const LOCK: &str = "lock";
/// What may lie in a folder that becomes a data directory: what an interrupted first start leaves (the logs look for
/// strangers themselves), what a file system keeps at its root, the configuration. So may hidden files.
const BESIDE: [&str; 4] = [CONTROLLER_DIR, LOG_DIR, "lost+found", "weir.toml"];
/// How many of somebody else's files are named.
const NAMED: usize = 3;
/// What a controller's directory holds, and nothing else does.
const RAFT_FILE: &str = "raft.redb";
/// The same of a log directory.
const LOG_DIR_FILE: &str = "dir.json";

/// Why it did not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The data directory cannot be made or looked into.
    #[error("cannot use the data directory {}: {error}", path.display())]
    DataDir {
        /// Which.
        path: PathBuf,
        /// What the system said.
        error: std::io::Error,
    },
    /// The data directory is a part of another one.
    #[error(
        "{} is not a data directory but {part} of one: start with --data-dir {}", path.display(), parent.display()
    )]
    Inside {
        /// What was given.
        path: PathBuf,
        /// What it is.
        part: &'static str,
        /// The data directory it belongs to.
        parent: PathBuf,
    },
    /// There is no cluster in the folder, but something else.
    #[error(
        "{} holds no cluster but other files ({}), and none is made beside them: name a folder that is empty or not \
         there yet with --data-dir. Nothing was made; if a cluster was here, its {CONTROLLER_DIR} and {LOG_DIR} are \
         gone: bring them back", path.display(), found.join(", ")
    )]
    NotEmpty {
        /// The folder.
        path: PathBuf,
        /// The first of what is in it, and how many more there are.
        found: Vec<String>,
    },
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
    #[error("cannot start: {0}")]
    Process(String),
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
        let data_dir = absolute(&config.common.data_dir)?;
        let controller_dir = data_dir.join(CONTROLLER_DIR);
        let log_dir = data_dir.join(LOG_DIR);
        // Both before anything is made: who has mistyped leaves nothing behind.
        whole(&*os.disk(), &data_dir)?;
        ports(&*os, config).await?;
        let founded = !exists(&*os.disk(), &controller_dir.join(RAFT_FILE))?;
        let whose = weir_storage::whose(&*os.disk(), &log_dir).map_err(Error::Logs)?;
        if let (true, Whose::Of(owner)) = (founded, &whose) {
            return Err(Error::NoController {
                logs: log_dir,
                owner: owner.clone(),
                controller: controller_dir,
            });
        }
        if founded {
            unused(&*os.disk(), &data_dir)?;
        }
        make_dirs(&*os.disk(), &data_dir)
            .map_err(|error| Error::DataDir { path: data_dir.clone(), error })?;
        let of_controller = controller_config(config, controller_dir.clone());
        let controller = Controlling::start(&os, executors, of_controller, over.clone()).await?;
        if !founded
            && whose == Whose::Nobodys
            && let Some(broker_id) = controller.first_broker().await?
        {
            let cluster_id = controller.handle.cluster_id().to_string();
            controller.stop().await?;
            return Err(Error::NoLogs { logs: log_dir, cluster_id, broker_id, controller: controller_dir });
        }
        let mut broker_config = config.broker.clone();
        broker_config.controllers = vec![controller.addr.to_string()];
        let options = Options {
            data_dir: log_dir,
            http_listen: config.common.http_listen,
            drain: config.common.drain_ms,
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
        self.controller.addr
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

/// The controller, served by a task.
struct Controlling {
    addr: SocketAddr,
    handle: Handle,
    stop: Stop,
    /// Requested when it has ended and nobody asked for that.
    over: Stop,
    served: JoinHandle<Option<Result<(), weir_controller::Error>>>,
    _role: Role,
}

impl std::fmt::Debug for Controlling {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Controlling").field("addr", &self.addr).finish_non_exhaustive()
    }
}

impl Controlling {
    async fn start(
        os: &Arc<dyn Os>,
        executors: &Executors,
        config: weir_controller::Config,
        over: Stop,
    ) -> Result<Self, weir_controller::Error> {
        let controller = Controller::build(os.clone(), config).await?;
        let (addr, handle) = (controller.local_addr(), controller.handle());
        let (stop, role) = (Stop::new(), Role::new("controller", over.clone()));
        let serving = role.task("serve", OnEnd::StopRole, controller.serve(stop.clone()));
        let served = executors.spawn_control(serving);
        Ok(Self { addr, handle, stop, over, served, _role: role })
    }

    /// A broker that the cluster has had, if any. A start that was interrupted before the first one goes on.
    async fn first_broker(&self) -> Result<Option<i32>, weir_controller::Error> {
        tokio::select! {
            found = self.handle.first_broker() => Ok(found?.map(|id| id.0)),
            // Whoever stops it next is told why.
            () = self.over.requested() => Ok(None),
        }
    }

    async fn stop(self) -> Result<(), weir_controller::Error> {
        let asked = Reason::Asked("the process stops".to_owned());
        // From here on its end means nothing.
        self.over.request(asked.clone());
        self.stop.request(asked);
        // One that panicked has said so.
        self.served.await.ok().flatten().unwrap_or(Ok(()))
    }
}

fn controller_config(config: &Config, dir: PathBuf) -> weir_controller::Config {
    let settings = &config.controller;
    weir_controller::Config {
        advertise: settings.controller_advertised_address.clone(),
        raft_heartbeat: settings.raft_heartbeat_ms,
        election_timeout_min: settings.raft_election_ms_min,
        election_timeout_max: settings.raft_election_ms_max,
        snapshot_commands: settings.raft_snapshot_commands,
        session_timeout: settings.broker_session_ms,
        broker_heartbeat: settings.broker_heartbeat_ms,
        leader_rebalance: settings.leader_rebalance_ms,
        ..weir_controller::Config::new(dir, settings.controller_listen).standalone()
    }
}

fn absolute(path: &Path) -> Result<PathBuf, Error> {
    std::path::absolute(path).map_err(|error| Error::DataDir { path: path.to_owned(), error })
}

/// Refuses a part of a data directory: a Weir in there would be a new, empty one beside the records.
fn whole(disk: &dyn Disk, data_dir: &Path) -> Result<(), Error> {
    for (file, part) in [(LOG_DIR_FILE, "the log directory"), (RAFT_FILE, "the controller's directory")] {
        if exists(disk, &data_dir.join(file))? {
            let parent = data_dir.parent().unwrap_or(data_dir).to_owned();
            return Err(Error::Inside { path: data_dir.to_owned(), part, parent });
        }
    }
    Ok(())
}

/// Refuses a folder that somebody uses for something else: a mistyped path must not mix a cluster with their files.
fn unused(disk: &dyn Disk, data_dir: &Path) -> Result<(), Error> {
    let failed = |error| Error::DataDir { path: data_dir.to_owned(), error };
    let names = |dir: &Path| -> Result<Vec<String>, Error> {
        let entries = if exists(disk, dir)? { disk.list(dir).map_err(failed)? } else { Vec::new() };
        Ok(entries.into_iter().map(|entry| entry.name).collect())
    };
    let mut found = names(data_dir)?;
    found.retain(|name| !name.starts_with('.') && !BESIDE.contains(&name.as_str()));
    let of_controller = names(&data_dir.join(CONTROLLER_DIR))?.into_iter();
    let strangers = of_controller.filter(|name| !name.starts_with("raft.") && name != LOCK);
    found.extend(strangers.map(|name| format!("{CONTROLLER_DIR}/{name}")));
    if found.is_empty() {
        return Ok(());
    }
    found.sort();
    let more = found.len().saturating_sub(NAMED);
    found.truncate(NAMED);
    if more > 0 {
        found.push(format!("{more} more"));
    }
    Err(Error::NotEmpty { path: data_dir.to_owned(), found })
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

fn exists(disk: &dyn Disk, path: &Path) -> Result<bool, Error> {
    disk.exists(path).map_err(|error| Error::DataDir { path: path.to_owned(), error })
}
