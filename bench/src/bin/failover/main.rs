//! How long a failure is felt: a cluster of three controllers and three brokers, a writer that keeps its pace
//! (everything at its defaults: three replicas, two in sync at least, acknowledged by all of them), and the same event
//! again and again.
//!
//! ```text
//!   settle ─▶ event ─▶ first acknowledgement by the next leader ─▶ undo ─▶ settle ...
//! ```
//!
//! Between two events it is waited until every broker says that all replicas are in sync and led as they should be, and
//! the writer has been answered promptly for a while; nothing is assumed to be over after some time. At the end all is
//! read back: what was acknowledged must be where its receipt said, once.
//!
//! Not a test: it says what it measured, whatever that is. What is wrong (a lost record, a doubled one) ends it with a
//! failure, and the processes' logs stay.

#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "a measuring program: real clocks and processes, results on stdout"
)]

mod brokers;
mod cluster;
mod controllers;
mod figures;
mod network;
mod view;
mod writer;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::{Parser, ValueEnum};
use tokio::time::Instant;
use weir_client::{Client, NewTopic};
use weir_load::machine::{self, Machine};

use crate::cluster::{Cluster, Layout};
use crate::view::View;
use crate::writer::Writer;

weir_bench::declare_allocator!();

/// The topic that is written to.
const TOPIC: &str = "failover";
/// So many acknowledgements of each partition in a row make a steady cluster ...
const STEADY: usize = 40;
/// ... if none took as long as this.
const PROMPT: Duration = Duration::from_millis(100);
/// What has not come back by then is not going to.
pub(crate) const RECOVERED_MAX: Duration = Duration::from_secs(60);

/// Measures how long a failure is felt.
#[derive(Parser)]
struct Options {
    /// What happens, in this order.
    #[arg(value_enum, required = true)]
    what: Vec<What>,
    /// A folder on a real disk. The cluster is made in a folder `cluster` in it, anew.
    #[arg(long)]
    dir: PathBuf,
    /// How often each happens.
    #[arg(long, default_value_t = 50)]
    events: usize,
    /// How many partitions the topic has.
    #[arg(long, default_value_t = 6)]
    partitions: i32,
    /// Each partition is due a record every so many milliseconds.
    #[arg(long, default_value_t = 5)]
    every_ms: u64,
    /// How long all controllers are down.
    #[arg(long, default_value_t = 600)]
    seconds: u64,
    /// All controllers wait for the same time before they stand for election.
    #[arg(long)]
    equal_draws: bool,
    /// The first port.
    #[arg(long, default_value_t = 21_347)]
    port: u16,
    /// What the client is to say of its doings: a level, or levels by module, as in weir_client=debug.
    #[arg(long)]
    log: Option<String>,
    /// The program `weir`. [default: beside this one]
    #[arg(long)]
    weir: Option<PathBuf>,
}

/// What happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum What {
    /// A broker is killed (SIGKILL), and started again.
    Kill,
    /// A broker is stopped (SIGSTOP), and let go on (SIGCONT) when others lead.
    Stop,
    /// A broker's wire is cut without a word (it takes root), and mended when others lead.
    Cut,
    /// A broker stops in order (SIGTERM) and is started again; its leaderships are given back by an election.
    Move,
    /// The controller that leads is killed, and started again.
    Controller,
    /// All controllers are killed, and started again after a while.
    ControllersDown,
}

/// What every event is done to and seen by.
pub(crate) struct Stage {
    pub(crate) cluster: Cluster,
    pub(crate) view: View,
    pub(crate) writer: Writer,
    /// For everything but writing: nothing here helps the writer to a newer map of the cluster.
    pub(crate) client: Client,
}

impl Stage {
    /// Waits until everything is as it should be.
    pub(crate) async fn settle(&self) -> anyhow::Result<()> {
        self.view.in_sync_and_even().await?;
        self.writer.steady(STEADY, PROMPT, Instant::now() + RECOVERED_MAX).await
    }
}

fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    std::fs::create_dir_all(&options.dir)?;
    if let Some(filter) = &options.log {
        weir_runtime::init_telemetry(weir_runtime::LogFormat::People, filter)?;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(run(&options))
}

async fn run(options: &Options) -> anyhow::Result<()> {
    let machine = Machine::describe(&options.dir);
    println!(
        "{} cores, Linux {}, TCP {}, {}, load {:.1}\n",
        machine.cores,
        machine.kernel,
        machine.congestion_control,
        machine.file_system,
        machine::load_average()
    );
    let beside = std::env::current_exe()?.parent().context("a directory")?.join("weir");
    let weir = options.weir.clone().unwrap_or(beside);
    let dir = options.dir.join("cluster");
    let wires = options.what.contains(&What::Cut);
    let layout = Layout { port: options.port, equal_draws: options.equal_draws, wires };
    let cluster = Cluster::start(&weir, &dir, layout).await?;
    let stage = match begin(options, cluster).await {
        Ok(stage) => stage,
        Err(error) => bail!("{error:#} (the cluster runs on in {})", dir.display()),
    };
    let happened = happen(options, &stage).await;
    let failed = stage.writer.failures();
    let finished = stage.writer.finish().await;
    stage.cluster.stop().await?;
    for failure in failed {
        println!("failed: {failure}");
    }
    happened.with_context(|| format!("the logs are in {}", dir.display()))?;
    let (acknowledged, wrong) = finished?;
    println!("\n{acknowledged} records were acknowledged; load {:.1}", machine::load_average());
    if !wrong.is_empty() {
        for what in &wrong {
            println!("WRONG: {what}");
        }
        bail!("{} records are not as they were promised; all is in {}", wrong.len(), dir.display());
    }
    println!("each is where its receipt said, once");
    Ok(())
}

/// A topic, and somebody who writes to it.
async fn begin(options: &Options, cluster: Cluster) -> anyhow::Result<Stage> {
    let client = Client::connect(&cluster.addresses()).await?;
    client.topics().create(NewTopic::new(TOPIC).partitions(options.partitions)).await?;
    let view = View::new(&cluster, TOPIC)?;
    view.in_sync_and_even().await?;
    let writing = Client::connect(&cluster.addresses()).await?;
    let every = Duration::from_millis(options.every_ms);
    let writer = Writer::start(writing, TOPIC, usize::try_from(options.partitions)?, every).await?;
    Ok(Stage { cluster, view, writer, client })
}

async fn happen(options: &Options, stage: &Stage) -> anyhow::Result<()> {
    for what in &options.what {
        match what {
            What::Kill => brokers::kill(stage, options.events).await?,
            What::Stop => brokers::stop(stage, options.events).await?,
            What::Cut => brokers::cut(stage, options.events).await?,
            What::Move => brokers::moved(stage, options.events).await?,
            What::Controller => controllers::kill(stage, options.events).await?,
            What::ControllersDown => {
                controllers::down(stage, Duration::from_secs(options.seconds)).await?;
            }
        }
    }
    Ok(())
}
