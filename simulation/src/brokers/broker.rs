//! A machine with a broker.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, bail};
use weir_broker::{Options, StartError};
use weir_cluster::is_for;
use weir_config::{BrokerProcess, Loaded, Loader};
use weir_proto::v1::ErrorReason;
use weir_runtime::{ExecutorsConfig, Os, Reason, Stop};

use super::person;
use crate::life::Machine;
use crate::quorum::Quorum;
use crate::simulation::Simulation;
use crate::wall_clock;

/// Where its logs are.
pub(super) const LOGS: &str = "/logs";
const PUBLIC: u16 = 9_347;
const HTTP: u16 = 9_348;
const INTERNAL: u16 = 9_350;

/// A broker's name in the network.
fn name(index: usize) -> String {
    format!("b{}", index + 1)
}

/// Where clients find it.
fn endpoint(index: usize) -> String {
    format!("{}:{PUBLIC}", name(index))
}

/// Where clients find so many.
pub(super) fn endpoints(count: usize) -> String {
    (0..count).map(endpoint).collect::<Vec<_>>().join(",")
}

/// So many machines with a broker each, which look often for what is old, or as seldom as by default.
pub(super) fn machines(
    simulation: &mut Simulation,
    quorum: &Quorum,
    count: usize,
    delete_by_age: bool,
) -> Result<Vec<Arc<Machine>>> {
    let mut machines = Vec::new();
    for index in 0..count {
        let options = options(index, &quorum.endpoints(), delete_by_age)?;
        let everybody: Vec<_> = (0..count).map(endpoint).collect();
        let program = move |os, stop| run(os, stop, options.clone(), everybody.clone());
        machines.push(simulation.machine(&name(index), program));
    }
    Ok(machines)
}

/// What it is started with.
fn options(index: usize, controllers: &[String], delete_by_age: bool) -> Result<Options> {
    let everywhere = |port: u16| SocketAddr::from(([0, 0, 0, 0], port)).to_string();
    let flags = [
        ("--listen", everywhere(PUBLIC)),
        ("--advertised-address", endpoint(index)),
        ("--internal-listen", everywhere(INTERNAL)),
        ("--internal-advertised-address", format!("{}:{INTERNAL}", name(index))),
        ("--controllers", controllers.join(",")),
        ("--data-runtimes", "2".to_owned()),
        ("--disk-reserved-bytes", "0".to_owned()),
        // What the machine that simulates has is nobody's business.
        ("--dirty-budget-bytes", "64MiB".to_owned()),
        ("--checkpoint-interval-ms", "1s".to_owned()),
        ("--slow-disk-after-ms", "1s".to_owned()),
        ("--quick-disk-after-ms", "2s".to_owned()),
    ];
    let by_age = [
        ("--retention-interval-ms", "200ms".to_owned()),
        ("--retention-pause-ms", format!("{}ms", wall_clock::PAUSE.as_millis())),
    ];
    let flags = flags.into_iter().chain(by_age.into_iter().filter(|_| delete_by_age));
    let loader = flags.fold(Loader::new(), |loader, (flag, value)| loader.flag(flag, value));
    let Loaded { config, settings } = loader.load::<BrokerProcess>()?;
    Ok(Options {
        data_dir: LOGS.into(),
        http_listen: SocketAddr::from(([0, 0, 0, 0], HTTP)),
        drain: Duration::from_secs(1),
        alone: false,
        config: config.broker,
        settings,
    })
}

/// The program of its machine. Refused for its disk, it is started again once a person has said that the disk is good.
async fn run(os: Arc<dyn Os>, stop: Stop, options: Options, everybody: Vec<String>) -> Result<()> {
    let executors = os.executors(&ExecutorsConfig { data_runtimes: 2, control_threads: 1 })?;
    let running = loop {
        match weir_broker::start(os.clone(), &executors, options.clone(), stop.clone()).await {
            Err(StartError::Over(Reason::Signal(_))) => return Ok(()),
            Err(StartError::Refused(refused)) if is_for(&refused, ErrorReason::DirectoryFailed) => {
                tokio::select! {
                    () = person::trust(&os, &refused, &everybody, &options.config.controllers) => {}
                    () = stop.requested() => return Ok(()),
                }
            }
            started => break started?,
        }
    };
    stop.requested().await;
    running.stop().await?;
    match stop.reason() {
        Some(Reason::Signal(_)) => Ok(()),
        why => bail!("the broker wished to stop: {why:?}"),
    }
}
