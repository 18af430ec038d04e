//! The process that is a broker: `weir-broker`.

use std::process::ExitCode;

use clap::Parser;
use weir_config::{BrokerProcess, Loaded};
use weir_io::Disk;
use weir_process::data_dir::{self, LOG_DIR, Of};
use weir_process::{Error as Failure, Flags, Part, ReadyFile};
use weir_storage::Whose;

use crate::{Options, Running, StartError};

/// A broker of a Weir cluster: it keeps partition logs, and answers every public call
#[derive(Debug, Parser)]
#[command(
    name = "weir-broker",
    version,
    max_term_width = 100,
    after_help = "\
A broker with an empty data directory gets its id from the controllers and keeps it there; name it in broker_id
from then on, and an empty directory (a disk that is not mounted) is refused instead of becoming a new broker.
Every setting is a flag here, a variable (WEIR_DATA_DIR), and a line of the file (data_dir = \"…\").
A first Ctrl-C or SIGTERM stops in order, a second one at once.

Examples:
  $ weir-broker --data-dir ./b1 --controllers localhost:9349,localhost:9359 --print-config
  $ weir-broker --data-dir ./b1 --listen 0.0.0.0:9347 --advertised-address b1.example:9347 --print-config
  $ weir-broker --config weir.toml"
)]
struct Program {
    #[command(flatten)]
    flags: Flags<BrokerProcess>,
}

/// The whole program.
pub fn main() -> ExitCode {
    weir_process::main(|program: Program| {
        let ready_file = program.flags.ready_file()?;
        match program.flags.load(|loader| loader)? {
            Some(loaded) => run(loaded, ready_file),
            None => Ok(0),
        }
    })
}

fn run(loaded: Loaded<BrokerProcess>, ready_file: ReadyFile) -> Result<i32, Failure> {
    let Loaded { config: BrokerProcess { common, broker }, settings } = loaded;
    let data_dir = data_dir::absolute(&common.data_dir).map_err(Failure::failed)?;
    let options = Options {
        data_dir: data_dir.join(LOG_DIR),
        http_listen: common.http_listen,
        drain: common.drain_ms,
        alone: false,
        config: broker,
        settings,
    };
    weir_process::run(
        &common,
        options.config.data_runtimes,
        async |os, executors, over| {
            check(&*os.disk(), &data_dir, &options).map_err(Failure::failed)?;
            match crate::start(os, executors, options.clone(), over).await {
                // Somebody did not want to wait for it.
                Err(StartError::Over(reason)) if reason.exit_code() == 0 => Ok(None),
                started => started.map(Some).map_err(Failure::failed),
            }
        },
        |broker| {
            let (addr, http_addr, internal) = (broker.addr(), broker.http_addr(), broker.internal_addr());
            let (id, cluster_id) = (broker.broker_id().0, broker.cluster_id());
            let internal = internal.map(|addr| addr.to_string());
            tracing::info!(broker = id, cluster_id, %addr, internal, http = %http_addr, "ready");
            ready_file.tell(&serde_json::json!({
                "grpc": addr.to_string(),
                "internal": internal,
                "http": http_addr.to_string(),
                "brokerId": id,
                "clusterId": cluster_id,
                "pid": std::process::id(),
            }));
        },
    )
}

/// Looks at the data directory before anything is made in it. What is in the log directory the broker looks at itself.
fn check(disk: &dyn Disk, data_dir: &std::path::Path, options: &Options) -> Result<(), StartError> {
    data_dir::check_whole(disk, data_dir)?;
    data_dir::check_owner(disk, data_dir, Of::Broker)?;
    if weir_storage::whose(disk, &options.data_dir)? == Whose::Nobodys {
        crate::start::check_identity(disk, options)?;
        data_dir::check_unused(disk, data_dir)?;
    }
    weir_io::make_dirs(disk, data_dir)
        .map_err(|error| data_dir::Error::Unusable { path: data_dir.to_owned(), error })?;
    Ok(())
}

impl Part for Running {
    type Error = Failure;

    async fn stop(self) -> Result<(), Failure> {
        Self::stop(self).await.map_err(|error| Failure::Failed(format!("stopping: {error}")))
    }
}
