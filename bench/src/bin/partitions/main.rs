//! What many partitions cost a cluster of real processes: three controllers and three brokers as `weir dev` starts them,
//! any number of partitions with three replicas each.
//!
//! In turn: the empty cluster at rest; making the topics, until every partition is led and in sync; the cluster at rest
//! again (processor time and memory of each process, and what a partition takes of them); a broker killed, until every
//! partition is led by another one, as a watcher of the metadata hears it and as the brokers have taken it up; the broker
//! back, until everything is in sync; all of it stopped. Beside each: what the controllers told their watchers, in bytes.

#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "a measuring program: real clocks, results on stdout"
)]

mod watch;

use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::Parser;
use weir_bench::dev::{Node, Scratch, until};
use weir_load::connect::connect;
use weir_load::machine::{self, Machine};
use weir_proto::v1::topic_service_client::TopicServiceClient;
use weir_proto::v1::{CreateTopicRequest, Topic};

use crate::watch::{Seen, image_bytes, watch};

weir_bench::declare_allocator!();

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(120);
/// How long a cluster is left alone before its rest is measured.
const SETTLE: Duration = Duration::from_secs(5);

/// Measures what many partitions cost.
#[derive(Parser)]
struct Options {
    /// A folder that is not there yet, on the disk to be measured.
    #[arg(long)]
    dir: PathBuf,
    /// How many partitions, each with three replicas.
    #[arg(long, default_value_t = 3_000)]
    partitions: i32,
    /// In how many topics.
    #[arg(long, default_value_t = 30)]
    topics: i32,
    /// For how many seconds the cluster at rest is looked at.
    #[arg(long, default_value_t = 20)]
    rest_seconds: u64,
    /// The command line tool. [default: beside this one]
    #[arg(long)]
    weir: Option<PathBuf>,
}

/// What a process took at rest.
struct Rest {
    name: String,
    /// Of one core.
    cpu_percent: f64,
    resident_kib: u64,
}

#[tokio::main(flavor = "multi_thread", worker_threads = 1)]
async fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    let beside = std::env::current_exe()?.parent().context("a directory")?.to_owned();
    let weir = options.weir.clone().unwrap_or_else(|| beside.join("weir"));
    std::fs::create_dir_all(options.dir.parent().context("a folder above it")?)?;
    let cluster = Scratch::start(&weir, &options.dir, 3, 3)?;
    let machine = Machine::describe(&options.dir);
    println!("{} cores, Linux {}, {}", machine.cores, machine.kernel, machine.file_system);
    println!(
        "{} partitions x 3 in {} topics, load {:.1}\n",
        options.partitions,
        options.topics,
        machine::load_average()
    );

    let controller = cluster.controllers.first().context("a controller")?.clone();
    let broker = cluster.brokers.get(1).context("a broker")?.clone();
    let seen = watch(&controller.address).await?;
    let empty_image = image_bytes(&controller.address).await?;
    let before = at_rest(&cluster, options.rest_seconds);

    let begun = Instant::now();
    create(&broker, &options).await?;
    let answered = begun.elapsed();
    wait("all led", || led(&cluster.brokers) == options.partitions)?;
    let all_led = begun.elapsed();
    wait("all in sync", || is_whole(&cluster, options.partitions))?;
    println!(
        "made: answered in {:.2} s, all led by brokers after {:.2} s, all in sync after {:.2} s",
        answered.as_secs_f64(),
        all_led.as_secs_f64(),
        begun.elapsed().as_secs_f64()
    );
    tell(&seen);
    let image = image_bytes(&controller.address).await?;
    println!(
        "image: {image} bytes, {:.0} a partition\n",
        image.saturating_sub(empty_image) as f64 / f64::from(options.partitions)
    );

    thread::sleep(SETTLE);
    let after = at_rest(&cluster, options.rest_seconds);
    print_rest(&before, &after, options.partitions);

    seen.take();
    let dead = cluster.brokers.first().context("a broker")?.clone();
    let others: Vec<_> = cluster.brokers.iter().filter(|node| node.name != dead.name).cloned().collect();
    let led_before = dead.metric("weir_partitions_led").unwrap_or(0.0);
    let killed = Instant::now();
    dead.signal(rustix::process::Signal::KILL)?;
    wait("all led without it", || led(&others) == options.partitions)?;
    let all_led = killed.elapsed();
    let decided = seen.last("a broker was fenced").map_or(0.0, |at| (at - killed).as_secs_f64() * 1e3);
    println!(
        "\n{} killed, which led {led_before}: elected after {decided:.0} ms, all led by the others after {:.0} ms",
        dead.name,
        all_led.as_secs_f64() * 1e3
    );
    thread::sleep(Duration::from_secs(2));
    tell(&seen);

    let begun = Instant::now();
    cluster.dev.run(&["start", &dead.name])?;
    let started = begun.elapsed();
    wait("all in sync again", || is_whole(&cluster, options.partitions))?;
    println!(
        "\n{} back: ready after {:.2} s, all in sync after {:.2} s",
        dead.name,
        started.as_secs_f64(),
        begun.elapsed().as_secs_f64()
    );
    tell(&seen);
    let begun = Instant::now();
    cluster.dev.run(&["down"])?;
    println!("\nall stopped in order in {:.2} s", begun.elapsed().as_secs_f64());
    Ok(())
}

fn wait(what: &str, holds: impl FnMut() -> bool) -> anyhow::Result<Duration> {
    until(what, PATIENCE, holds)
}

/// Makes the topics, one after another.
async fn create(broker: &Node, options: &Options) -> anyhow::Result<()> {
    let mut client = TopicServiceClient::new(connect(&broker.address).await?);
    let (each, rest) = (options.partitions / options.topics, options.partitions % options.topics);
    for number in 0..options.topics {
        let partitions = each + i32::from(number < rest);
        let topic =
            Topic { name: format!("many-{number}"), partitions, replication_factor: 3, ..Topic::default() };
        let request = CreateTopicRequest { topic: Some(topic), ..CreateTopicRequest::default() };
        client.create_topic(request).await?;
    }
    Ok(())
}

/// How many partitions these brokers lead.
fn led(nodes: &[Node]) -> i32 {
    nodes.iter().filter_map(|node| node.metric("weir_partitions_led")).sum::<f64>() as i32
}

/// Whether a controller has all partitions led and in sync.
fn is_whole(cluster: &Scratch, partitions: i32) -> bool {
    let Some(controller) = cluster.controllers.first() else { return false };
    let metric = |name: &str| controller.metric(name);
    metric("weir_cluster_partitions") == Some(f64::from(partitions))
        && metric("weir_cluster_partitions_leaderless") == Some(0.0)
        && metric("weir_cluster_partitions_under_replicated") == Some(0.0)
}

/// What each process takes while nobody asks for anything.
fn at_rest(cluster: &Scratch, seconds: u64) -> Vec<Rest> {
    let cpu_ms = |node: &Node| node.pid().map_or(0, |pid| machine::cpu_ms(pid.as_raw_pid().unsigned_abs()));
    let used = || cluster.nodes().map(cpu_ms).collect::<Vec<_>>();
    let (begun, before) = (Instant::now(), used());
    thread::sleep(Duration::from_secs(seconds));
    let elapsed = begun.elapsed().as_secs_f64() * 1e3;
    let spent = used().into_iter().zip(before).map(|(after, before)| after.saturating_sub(before));
    let rest = cluster.nodes().zip(spent).map(|(node, ms)| Rest {
        name: node.name.clone(),
        cpu_percent: ms as f64 / elapsed * 1e2,
        resident_kib: node.resident_kib(),
    });
    rest.collect()
}

fn print_rest(before: &[Rest], after: &[Rest], partitions: i32) {
    println!(
        "| process | CPU at rest, empty | with partitions | memory, empty | with partitions | a replica |"
    );
    println!("|---|---|---|---|---|---|");
    for (before, after) in before.iter().zip(after) {
        let more = after.resident_kib.saturating_sub(before.resident_kib) as f64;
        println!(
            "| {} | {:.2}% | {:.2}% | {:.1} MiB | {:.1} MiB | {:.1} KiB |",
            after.name,
            before.cpu_percent,
            after.cpu_percent,
            before.resident_kib as f64 / 1024.0,
            after.resident_kib as f64 / 1024.0,
            more / f64::from(partitions)
        );
    }
}

/// What watchers were told since this was asked last.
fn tell(seen: &Seen) {
    for (kind, changes) in seen.take() {
        println!(
            "  watchers were told: {kind}: {} deltas, {} bytes, the largest {}",
            changes.deltas, changes.bytes, changes.bytes_max
        );
    }
}
