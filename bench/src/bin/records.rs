//! Records through the Rust SDK, one by one as a program has them: packed, sent, answered, fetched, opened. What `load`
//! leaves out on purpose is in these figures; they are the ones to compare with another system's client library.
//!
//! The caller is one thread; the SDK has its own for input and output.

#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "a measuring program: real clocks, results on stdout"
)]

use std::time::{Duration, Instant};

use anyhow::ensure;
use clap::{Args, Parser, Subcommand, ValueEnum};
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use hdrhistogram::Histogram;
use prost::Message;
use weir_bench::units::parse_bytes;
use weir_client::{Client, Codec, ConsumerConfig, Position, ProducerConfig, Receipt, Record};
use weir_load::connect::NewTopic;
use weir_load::report::{Counts, Report, digits, histogram};
use weir_load::{connect, machine, payload};
use weir_proto::v1::RecordSet;

weir_bench::declare_allocator!();

/// Records through the Rust SDK.
#[derive(Parser)]
struct Options {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Sends records and waits until all are acknowledged.
    Produce(Produce),
    /// Reads every record there is.
    Consume(Common),
}

#[derive(Args)]
struct Common {
    /// The server, host:port.
    #[arg(long, default_value = "127.0.0.1:9347")]
    server: String,
    /// The topic.
    #[arg(long, default_value = "records")]
    topic: String,
    /// How many partitions it has.
    #[arg(long, default_value_t = 1)]
    partitions: i32,
    /// Count the processor time of this process too (a server's); may be repeated.
    #[arg(long)]
    server_pid: Vec<u32>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
struct Produce {
    #[command(flatten)]
    common: Common,
    /// How many records of about 1 KiB.
    #[arg(long, default_value_t = 1_000_000)]
    count: u64,
    /// Make the topic first, of this durability class (fsync or replicated).
    #[arg(long)]
    create: Option<String>,
    /// Replicas of each partition of the topic that is made.
    #[arg(long, default_value_t = 1)]
    replication_factor: i32,
    /// How many of them have to be in sync. [default: the cluster's]
    #[arg(long)]
    min_insync: Option<i32>,
    /// Open loop: so many records a second, whether or not the server keeps up; and how long after it was due each one was
    /// acknowledged.
    #[arg(long)]
    rate: Option<f64>,
    /// The batch to gather.
    #[arg(long, value_parser = parse_bytes, default_value = "252KiB")]
    batch: usize,
    /// How long to gather, milliseconds.
    #[arg(long, default_value_t = 5)]
    linger_ms: u64,
    /// How to compress.
    #[arg(long, value_enum, default_value_t = Compression::None)]
    compression: Compression,
    /// At least once instead of exactly once.
    #[arg(long)]
    no_idempotence: bool,
    /// How many batches a partition may have on the way. [default: the SDK's]
    #[arg(long)]
    inflight: Option<usize>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Compression {
    None,
    Lz4,
    Zstd,
}

fn main() -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        match Options::parse().command {
            Command::Produce(options) => print("produce", &options.common, &produce(&options).await?),
            Command::Consume(common) => print("consume", &common, &consume(&common).await?),
        }
    })
}

fn print(what: &str, common: &Common, report: &Report) -> anyhow::Result<()> {
    if common.json {
        println!("{}", serde_json::to_string(report)?);
        return Ok(());
    }
    let latency_ms: Vec<_> = report.latency_us.iter().map(|us| digits(us / 1e3)).collect();
    let latency = match &latency_ms[..] {
        [] => String::new(),
        all => format!(", ms to the acknowledgement p50, p90, p99, p99.9, max: {}", all.join(" ")),
    };
    println!(
        "records {what} x {}: {} GB/s, {} records/s in {:.2} s, cpu client {} server {} ms/GB{latency}",
        common.partitions,
        digits(report.gb_per_s),
        digits(report.records as f64 / report.seconds),
        report.seconds,
        digits(report.client_cpu_ms_per_gb),
        digits(report.server_cpu_ms_per_gb),
    );
    Ok(())
}

/// Bytes are those of the values, as other systems count them.
async fn produce(options: &Produce) -> anyhow::Result<Report> {
    let common = &options.common;
    if let Some(durability) = &options.create {
        let topic = NewTopic {
            name: common.topic.clone(),
            partitions: common.partitions,
            durability: durability.clone(),
            replicas: Some(options.replication_factor),
            min_insync: options.min_insync,
        };
        connect::create_topic(&common.server, topic).await?;
    }
    let values = values()?;
    let before: i64 =
        connect::end_offsets(&common.server, &common.topic, common.partitions).await?.iter().sum();
    let client = Client::connect(&common.server).await?;
    let mut config = ProducerConfig::new()
        .batch_bytes(options.batch)
        .linger(Duration::from_millis(options.linger_ms))
        .idempotence(!options.no_idempotence)
        .compression(match options.compression {
            Compression::None => Codec::None,
            Compression::Lz4 => Codec::Lz4,
            Compression::Zstd => Codec::Zstd,
        });
    if let Some(inflight) = options.inflight {
        config = config.inflight_max(inflight);
    }
    let producer = client.producer(config)?;
    producer.look_up(&common.topic).await?;
    let mut counts = Counts::default();
    let timer = Timer::start(common);
    let mut pace = options.rate.map(Pace::new);
    for value in values.iter().cycle().take(usize::try_from(options.count)?) {
        if let Some(pace) = &mut pace {
            pace.wait(counts.records).await?;
        }
        let receipt = producer.send(&common.topic, Record::new(value)).await?;
        match &mut pace {
            Some(pace) => pace.sent(counts.records, receipt),
            // What becomes of it is known at the flush.
            None => drop(receipt),
        }
        counts.bytes += value.len() as u64;
        counts.records += 1;
    }
    producer.flush().await?;
    if let Some(pace) = pace {
        counts.latency_ns = pace.end().await?;
    }
    let report = timer.stop(&counts);
    producer.close().await?;
    let after: i64 =
        connect::end_offsets(&common.server, &common.topic, common.partitions).await?.iter().sum();
    ensure!(
        after - before == i64::try_from(options.count)?,
        "{} records came of {}",
        after - before,
        options.count
    );
    Ok(report)
}

async fn consume(common: &Common) -> anyhow::Result<Report> {
    let ends = connect::end_offsets(&common.server, &common.topic, common.partitions).await?;
    let wanted: i64 = ends.iter().sum();
    let client = Client::connect(&common.server).await?;
    let mut consumer = client.consumer(ConsumerConfig::new())?;
    let mut counts = Counts::default();
    let timer = Timer::start(common);
    consumer.assign_topic(&common.topic, Position::Earliest).await?;
    let mut reading = consumer.until_end().await?;
    while let Some(batch) = reading.next().await? {
        counts.batches += 1;
        for record in batch.records() {
            counts.records += 1;
            counts.bytes += record?.value.map_or(0, <[u8]>::len) as u64;
        }
    }
    let report = timer.stop(&counts);
    ensure!(i64::try_from(counts.records)? == wanted, "{} records of {wanted}", counts.records);
    Ok(report)
}

/// An open loop: records are due at their times, whatever became of those before.
struct Pace {
    begun: Instant,
    rate: f64,
    waiting: FuturesUnordered<BoxFuture<'static, (Instant, Result<(), weir_client::Error>)>>,
    latency_ns: Histogram<u64>,
}

impl Pace {
    fn new(rate: f64) -> Self {
        let (waiting, latency_ns) = (FuturesUnordered::new(), histogram());
        Self { begun: Instant::now(), rate, waiting, latency_ns }
    }

    fn due(&self, number: u64) -> Instant {
        self.begun + Duration::from_secs_f64(number as f64 / self.rate)
    }

    /// Waits until a record is due, and notes what was acknowledged meanwhile.
    async fn wait(&mut self, number: u64) -> anyhow::Result<()> {
        let due = tokio::time::sleep_until(self.due(number).into());
        tokio::pin!(due);
        loop {
            tokio::select! {
                biased;
                Some((due, acknowledged)) = self.waiting.next() => self.note(due, acknowledged)?,
                () = &mut due => return Ok(()),
            }
        }
    }

    fn sent(&self, number: u64, receipt: Receipt) {
        let due = self.due(number);
        self.waiting.push(receipt.map(move |receipt| (due, receipt.map(drop))).boxed());
    }

    fn note(&mut self, due: Instant, acknowledged: Result<(), weir_client::Error>) -> anyhow::Result<()> {
        acknowledged?;
        self.latency_ns.saturating_record(u64::try_from(due.elapsed().as_nanos()).unwrap_or(u64::MAX));
        Ok(())
    }

    async fn end(mut self) -> anyhow::Result<Histogram<u64>> {
        while let Some((due, acknowledged)) = self.waiting.next().await {
            self.note(due, acknowledged)?;
        }
        Ok(self.latency_ns)
    }
}

/// Different values, from ready batches.
fn values() -> anyhow::Result<Vec<Vec<u8>>> {
    let mut values = Vec::new();
    for batch in payload::ready_batches(1 << 20, 8) {
        for record in RecordSet::decode(batch.records)?.records {
            values.extend(record.value.map(|value| value.to_vec()));
        }
    }
    values.retain(|value| value.len() == payload::RECORD_BYTES);
    Ok(values)
}

/// Wall time and processor time of both sides.
struct Timer {
    servers: Vec<u32>,
    cpu_ms: (u64, u64),
    started: Instant,
}

impl Timer {
    fn start(common: &Common) -> Self {
        let servers = common.server_pid.clone();
        Self { cpu_ms: Self::cpu_ms(&servers), servers, started: Instant::now() }
    }

    fn cpu_ms(servers: &[u32]) -> (u64, u64) {
        (machine::cpu_ms(std::process::id()), servers.iter().copied().map(machine::cpu_ms).sum())
    }

    fn stop(self, counts: &Counts) -> Report {
        let elapsed = self.started.elapsed();
        let now = Self::cpu_ms(&self.servers);
        counts.report(elapsed, now.0 - self.cpu_ms.0, now.1 - self.cpu_ms.1)
    }
}
