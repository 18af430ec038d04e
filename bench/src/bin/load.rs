//! The load generator: drives any server that speaks `weir.v1`, checks everything it answers, and prints one line
//! (or one JSON object) a phase. `load latency` is `load produce` with small batches and one in flight.

#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "a measuring program: real threads, results on stdout"
)]

use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};
use clap::{Args, Parser, Subcommand};
use weir_bench::units::{parse_bytes, show_bytes};
use weir_load::connect::NewTopic;
use weir_load::leaders::{Led, leaders, part, shares};
use weir_load::report::{Counts, Report, digits};
use weir_load::{connect, consume, machine, payload, produce};
use weir_proto::v1::{Acks, Route};

weir_bench::declare_allocator!();

/// Drives a server that speaks weir.v1 and checks what it answers.
#[derive(Parser)]
struct Options {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Writes ready batches, many in flight.
    Produce(Produce),
    /// Reads from the start to the end as it is now.
    Consume(Consume),
    /// Writes small batches, one in flight, and prints the percentiles; beside them those of a TCP ping.
    Latency(Produce),
}

#[derive(Args, Clone)]
struct Common {
    /// The server, host:port; of a cluster, any broker.
    #[arg(long, default_value = "127.0.0.1:9347")]
    server: String,
    /// The topic.
    #[arg(long, default_value = "bench")]
    topic: String,
    /// How many partitions of it.
    #[arg(long, default_value_t = 1)]
    partitions: i32,
    /// How many connections to each broker that leads some of them, each with one stream; at most one a partition.
    #[arg(long, default_value_t = 1)]
    connections: usize,
    /// How many threads drive them, each with a runtime of its own.
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// Everything goes by the broker that was named, which passes on what others lead, instead of to each leader.
    #[arg(long)]
    one_endpoint: bool,
    /// Count the processor time of this process too (the server's); may be given several times.
    #[arg(long)]
    server_pid: Vec<u32>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

impl Common {
    fn route(&self) -> Route {
        if self.one_endpoint { Route::Forward } else { Route::Direct }
    }
}

#[derive(Args, Clone)]
struct Produce {
    #[command(flatten)]
    common: Common,
    /// The size of a batch. [default: 252KiB; 4KiB for latency]
    #[arg(long, value_parser = parse_bytes)]
    batch: Option<usize>,
    /// How much to write in all.
    #[arg(long, value_parser = parse_bytes, default_value = "1GiB")]
    total: usize,
    /// How many batches a connection may have unanswered. [default: what makes 16 MiB; 1 for latency]
    #[arg(long)]
    inflight: Option<u64>,
    /// Answer when the leader has it, not when it is committed.
    #[arg(long)]
    acks_leader: bool,
    /// Make the topic first, of this durability class (fsync or replicated). The floor needs none.
    #[arg(long)]
    create: Option<String>,
    /// Replicas of the topic that is made.
    #[arg(long, default_value_t = 1)]
    replication_factor: i32,
    /// How many of them must be in sync for an append. [default: the cluster's]
    #[arg(long)]
    min_insync: Option<i32>,
    /// Open loop: so many batches a second on each connection, whether or not the server keeps up. Keeps a core busy.
    #[arg(long)]
    rate: Option<f64>,
}

#[derive(Args, Clone)]
struct Consume {
    #[command(flatten)]
    common: Common,
    /// How many bytes a connection lets the server have on the way.
    #[arg(long, value_parser = parse_bytes, default_value = "16MiB")]
    credit: usize,
    /// Do not compute the CRC of what arrives.
    #[arg(long)]
    no_crc: bool,
}

fn main() -> anyhow::Result<()> {
    match Options::parse().command {
        Command::Produce(options) => {
            let batch = options.batch.unwrap_or(252 << 10);
            let report =
                run_produce(&options, batch, options.inflight.unwrap_or((16 << 20) / batch.max(1) as u64))?;
            print(
                &options.common,
                &format!("produce {} x {}", show_bytes(batch), options.common.partitions),
                &report,
            )
        }
        Command::Latency(options) => {
            let batch = options.batch.unwrap_or(4 << 10);
            let ping = tcp_ping(20_000)?;
            let report = run_produce(&options, batch, options.inflight.unwrap_or(1))?;
            print(&options.common, &format!("latency {}", show_bytes(batch)), &report)?;
            print(&options.common, "tcp ping", &ping)
        }
        Command::Consume(options) => {
            let report = run_consume(&options)?;
            print(&options.common, &format!("consume x {}", options.common.partitions), &report)
        }
    }
}

fn print(common: &Common, what: &str, report: &Report) -> anyhow::Result<()> {
    if common.json {
        println!("{}", serde_json::to_string(report)?);
        return Ok(());
    }
    let latency: Vec<String> = report.latency_us.iter().map(|us| digits(*us)).collect();
    println!(
        "{what}: {} GB/s, {} batches/s, {} bytes in {:.2} s, cpu client {} server {} ms/GB{}",
        digits(report.gb_per_s),
        digits(report.batches as f64 / report.seconds),
        report.bytes,
        report.seconds,
        digits(report.client_cpu_ms_per_gb),
        digits(report.server_cpu_ms_per_gb),
        if latency.is_empty() {
            String::new()
        } else {
            format!(", p50/p90/p99/p99.9/max {} us", latency.join("/"))
        },
    );
    Ok(())
}

fn run_produce(options: &Produce, batch: usize, inflight: u64) -> anyhow::Result<Report> {
    let common = &options.common;
    if let Some(durability) = &options.create {
        let topic = NewTopic {
            name: common.topic.clone(),
            partitions: common.partitions,
            durability: durability.clone(),
            replicas: Some(options.replication_factor),
            min_insync: options.min_insync,
        };
        runtime()?.block_on(connect::create_topic(&common.server, topic))?;
    }
    // Enough different batches to leave the processor's caches, few enough to stay out of the way.
    let payload: Arc<[_]> = payload::ready_batches(batch, ((32 << 20) / batch.max(1)).clamp(1, 1024)).into();
    let led = led(common)?;
    let batches = (options.total / batch.max(1)) as u64;
    let plans = shares(&led, common.connections)
        .into_iter()
        .map(|(server, partitions)| produce::Plan {
            server,
            route: common.route(),
            topic: common.topic.clone(),
            batches: part(batches, partitions.len(), led.len()),
            partitions,
            inflight: inflight.max(1),
            acks: if options.acks_leader { Acks::Leader } else { Acks::All },
            payload: payload.clone(),
            every: options.rate.map(|rate| Duration::from_secs_f64(1.0 / rate.max(0.001))),
        })
        .collect();
    timed(common, plans, |plan| async {
        let producer = produce::Producer::open(plan).await?;
        Ok(async { producer.run().await })
    })
}

fn run_consume(options: &Consume) -> anyhow::Result<Report> {
    let common = &options.common;
    let ends = runtime()?.block_on(connect::end_offsets(&common.server, &common.topic, common.partitions))?;
    let plans = shares(&led(common)?, common.connections)
        .into_iter()
        .map(|(server, partitions)| consume::Plan {
            server,
            route: common.route(),
            topic: common.topic.clone(),
            ranges: partitions
                .into_iter()
                .filter_map(|p| Some((p, 0, *ends.get(usize::try_from(p).ok()?)?)))
                .collect(),
            credit_bytes: i64::try_from(options.credit).unwrap_or(i64::MAX),
            check_crc: !options.no_crc,
        })
        .collect();
    timed(common, plans, |plan| async {
        let consumer = consume::Consumer::open(plan).await?;
        Ok(async { consumer.run().await })
    })
}

/// Where each partition's calls go: to its leader, which has to serve it by now in any case.
fn led(common: &Common) -> anyhow::Result<Vec<Led>> {
    let partitions: Vec<i32> = (0..common.partitions.max(1)).collect();
    let mut led = runtime()?.block_on(leaders(&common.server, &common.topic, &partitions))?;
    if common.one_endpoint {
        led.iter_mut().for_each(|(_, address)| address.clone_from(&common.server));
    }
    Ok(led)
}

/// Opens everything, then lets all connections run at once, and times that.
fn timed<P, O, OF, R>(common: &Common, plans: Vec<P>, open: O) -> anyhow::Result<Report>
where
    P: Send,
    O: Fn(P) -> OF + Sync,
    OF: Future<Output = anyhow::Result<R>>,
    R: Future<Output = anyhow::Result<Counts>>,
{
    let threads = common.threads.clamp(1, plans.len().max(1));
    let mut shares: Vec<Vec<P>> = (0..threads).map(|_| Vec::new()).collect();
    for (turn, plan) in plans.into_iter().enumerate() {
        if let Some(share) = shares.get_mut(turn % threads) {
            share.push(plan);
        }
    }
    let (ready, begin) = (Barrier::new(threads + 1), Barrier::new(threads + 1));
    thread::scope(|scope| {
        let workers: Vec<_> = shares
            .into_iter()
            .map(|share| {
                let (open, ready, begin) = (&open, &ready, &begin);
                scope.spawn(move || -> anyhow::Result<Counts> {
                    let runtime = runtime()?;
                    let opened = runtime.block_on(futures::future::try_join_all(share.into_iter().map(open)));
                    ready.wait();
                    begin.wait();
                    let all = runtime.block_on(futures::future::try_join_all(opened?))?;
                    let mut counts = Counts::default();
                    all.iter().for_each(|one| counts.add(one));
                    Ok(counts)
                })
            })
            .collect();
        ready.wait();
        let cpu = || {
            let servers: u64 = common.server_pid.iter().map(|pid| machine::cpu_ms(*pid)).sum();
            (machine::cpu_ms(std::process::id()), servers)
        };
        let before = cpu();
        let started = Instant::now();
        begin.wait();
        let mut counts = Counts::default();
        for worker in workers {
            counts.add(&worker.join().map_err(|_| anyhow!("a thread panicked"))??);
        }
        let elapsed = started.elapsed();
        let after = cpu();
        Ok(counts.report(elapsed, after.0 - before.0, after.1 - before.1))
    })
}

fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().context("a runtime")
}

/// What a wake-up costs here: a byte to a thread of this process and back, over loopback TCP.
fn tcp_ping(rounds: u32) -> anyhow::Result<Report> {
    use std::io::{Read, Write};
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0))?;
    let mut client = std::net::TcpStream::connect(listener.local_addr()?)?;
    let (mut server, _) = listener.accept()?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let echo = thread::spawn(move || {
        let mut byte = [0];
        while server.read_exact(&mut byte).is_ok() && server.write_all(&byte).is_ok() {}
    });
    let mut counts = Counts::default();
    let started = Instant::now();
    for _ in 0..rounds {
        let sent = Instant::now();
        client.write_all(&[1])?;
        client.read_exact(&mut [0])?;
        counts.latency_ns.saturating_record(u64::try_from(sent.elapsed().as_nanos()).unwrap_or(u64::MAX));
        counts.batches += 1;
    }
    let elapsed = started.elapsed();
    drop(client);
    echo.join().map_err(|_| anyhow!("the echo panicked"))?;
    Ok(counts.report(elapsed, 0, 0))
}
