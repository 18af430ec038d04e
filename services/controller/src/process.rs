//! The process that is a controller: `weir-controller`.

use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitCode;
use std::sync::{Arc, OnceLock};

use clap::Parser;
use weir_config::{ControllerProcess, Loaded};
use weir_io::Disk;
use weir_process::data_dir::{self, CONTROLLER_DIR, Of, RAFT_FILE};
use weir_process::http::Page;
use weir_process::{Error as Failure, Flags, Part, ReadyFile};
use weir_runtime::{Executors, OnEnd, Os, Role, Stop};

use crate::metrics::Metrics;
use crate::running::Running;
use crate::{Config, Error, Handle};

/// A controller of a Weir cluster: it keeps the metadata, with others in a quorum of 1, 3 or 5
#[derive(Debug, Parser)]
#[command(
    name = "weir-controller",
    version,
    max_term_width = 100,
    after_help = "\
The first controller of a cluster is started once with --bootstrap true, the others with the addresses of
those that run (--join). Later starts need neither: who a controller is stands in its data directory.
Every setting is a flag here, a variable (WEIR_DATA_DIR), and a line of the file (data_dir = \"…\").
A first Ctrl-C or SIGTERM stops in order, a second one at once.

Examples:
  $ weir-controller --data-dir ./c1 --bootstrap true --print-config
  $ weir-controller --data-dir ./c2 --controller-listen 127.0.0.1:9359 --join localhost:9349 --print-config
  $ weir-controller --config weir.toml"
)]
struct Program {
    #[command(flatten)]
    flags: Flags<ControllerProcess>,
}

/// The whole program.
pub fn main() -> ExitCode {
    weir_process::main(|program: Program| {
        let ready_file = program.flags.ready_file()?;
        match program.flags.load(|loader| loader)? {
            Some(loaded) => run(&loaded, ready_file),
            None => Ok(0),
        }
    })
}

fn run(loaded: &Loaded<ControllerProcess>, ready_file: ReadyFile) -> Result<i32, Failure> {
    let config = &loaded.config;
    weir_process::run(
        &config.common,
        // It has no data plane.
        Some(1),
        async |os, executors, over| Process::start(&os, executors, config, over).await,
        |process| {
            let (addr, http_addr) = (process.controller.addr(), process.http_addr);
            let handle = process.controller.handle();
            let (id, cluster_id) = (handle.id(), handle.cluster_id().to_string());
            tracing::info!(controller = id, cluster_id, %addr, http = %http_addr, "started");
            ready_file.tell(&serde_json::json!({
                "controller": addr.to_string(),
                "http": http_addr.to_string(),
                "controllerId": id,
                "clusterId": cluster_id,
                "pid": std::process::id(),
            }));
        },
    )
}

/// The controller, and what it is watched by.
struct Process {
    controller: Running,
    http_addr: SocketAddr,
    role: Role,
}

impl Process {
    /// Starts it; it is in its quorum when this returns, and answers as soon as somebody leads.
    async fn start(
        os: &Arc<dyn Os>,
        executors: &Executors,
        config: &ControllerProcess,
        over: Stop,
    ) -> Result<Option<Self>, Failure> {
        let data_dir = data_dir::absolute(&config.common.data_dir).map_err(Failure::failed)?;
        let dir = data_dir.join(CONTROLLER_DIR);
        let config_of = Config::of(&config.controller, dir);
        check(&*os.disk(), &data_dir, &config_of)?;
        let http_listen = config.common.http_listen;
        let listener = weir_rpc::listen(&**os, "HTTP", http_listen).await.map_err(|error| {
            Failure::Failed(format!("{error} (HTTP, --http-listen): does another process use it?"))
        })?;
        let http_addr = listener.local_addr();
        let role = Role::new("controller process", over.clone());
        let shown = Arc::new(Shown::default());
        let http = weir_process::http::serve(shown.clone(), listener);
        executors.spawn_control(role.task("http", OnEnd::StopRole, http));
        tokio::select! {
            biased;
            // Whoever waits for a place in a quorum may be told to wait no longer.
            () = over.requested() => Ok(None),
            started = Running::start(os, executors, config_of, over.clone()) => {
                let controller = started.map_err(Failure::failed)?;
                // Nobody else sets it.
                let _ = shown.0.set(controller.handle().clone());
                let handle = controller.handle().clone();
                let tells = async move {
                    handle.serves().await;
                    tracing::info!(leader = handle.leader(), "ready: the quorum decides");
                };
                executors.spawn_control(role.task("ready", OnEnd::Ignore, tells));
                Ok(Some(Self { controller, http_addr, role }))
            }
        }
    }
}

impl Part for Process {
    type Error = Failure;

    async fn stop(self) -> Result<(), Failure> {
        let stopped = self.controller.stop().await;
        self.role.end().await;
        stopped.map_err(|error| Failure::Failed(format!("stopping: {error}")))
    }
}

/// Looks at the data directory before anything is made in it: an empty one becomes a controller only if it is said which
/// (correctness rule 30).
fn check(disk: &dyn Disk, data_dir: &Path, config: &Config) -> Result<(), Failure> {
    let looked = || {
        data_dir::check_whole(disk, data_dir)?;
        data_dir::check_owner(disk, data_dir, Of::Controller)?;
        let is_new = !data_dir::exists(disk, &config.dir.join(RAFT_FILE))?;
        if is_new {
            data_dir::check_unused(disk, data_dir)?;
        }
        Ok::<_, data_dir::Error>(is_new)
    };
    if looked().map_err(Failure::failed)? && !config.bootstrap && config.join.is_empty() {
        return Err(Failure::failed(Error::Empty { path: config.dir.clone() }));
    }
    weir_io::make_dirs(disk, data_dir)
        .map_err(|error| Failure::failed(data_dir::Error::Unusable { path: data_dir.to_owned(), error }))
}

/// What is shown over HTTP: the start until there is a controller, then the controller.
#[derive(Default)]
struct Shown(OnceLock<Handle>);

impl Page for Shown {
    fn metrics(&self) -> Vec<u8> {
        self.0.get().map_or_else(Metrics::render_start, Handle::metrics)
    }

    fn ready(&self) -> Result<Option<String>, String> {
        let starting = || Err("starting: the log is opened, or a place in the quorum waited for".to_owned());
        self.0.get().map_or_else(starting, |handle| handle.unready().map_or_else(|| Ok(handle.note()), Err))
    }
}
