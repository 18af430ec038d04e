//! The log itself, without a server: what `weir-storage` makes of appends and reads, beside `raw`, which does the same
//! with bare system calls. The difference is the price of claims, admission, headers, indexes and waiting.
//!
//! Everything runs on one current-thread runtime, as on a data runtime of a broker.

#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "a measuring program: real clocks, results on stdout"
)]

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use clap::Parser;
use parking_lot::Mutex;
use tokio::sync::mpsc;
use weir_bench::units::{parse_bytes, show_bytes};
use weir_load::report::{Counts, Report, digits};
use weir_load::{machine, payload};
use weir_proto::v1::RecordBatch;
use weir_runtime::{Os, RealOs};
use weir_storage::{
    Acks, Admission, Append, Control, DirOptions, Limit, LogConfig, LogDir, LogView, NewBatch, OpenReport,
    Partition, Progress, ReadRequest, Verdict,
};
use weir_types::{Durability, LeaderEpoch, Offset, PartitionId, TopicId};

weir_bench::declare_allocator!();

/// Appends to logs and reads them back, in this process.
#[derive(Parser)]
struct Options {
    /// A directory for the logs; they are removed at the end.
    #[arg(long)]
    dir: PathBuf,
    /// Bytes of payload an append.
    #[arg(long, value_parser = parse_bytes, default_value = "252KiB")]
    chunk: usize,
    /// How many logs.
    #[arg(long, default_value_t = 1)]
    partitions: u64,
    /// How many appends are submitted together.
    #[arg(long, default_value_t = 4)]
    group: usize,
    /// How many groups a log may have unanswered.
    #[arg(long, default_value_t = 8)]
    inflight: usize,
    /// How much to write in all.
    #[arg(long, value_parser = parse_bytes, default_value = "1GiB")]
    total: usize,
    /// Class fsync.
    #[arg(long)]
    fsync: bool,
    /// How much may be unsynced before appends wait.
    #[arg(long, value_parser = parse_bytes, default_value = "256MiB")]
    dirty_budget: usize,
    /// Compute each payload's CRC before, as a broker does.
    #[arg(long)]
    crc: bool,
    /// End like a killed process when everything is written, and leave the logs for --open.
    #[arg(long)]
    leave: bool,
    /// Write nothing: open the logs that are there, and say how long that took.
    #[arg(long, conflicts_with = "leave")]
    open: bool,
}

/// Leads alone: takes everything, and commits what the class asks for.
struct Alone;

impl Admission for Alone {
    fn leader_epoch(&self) -> Option<LeaderEpoch> {
        Some(1)
    }

    fn admit(&mut self, _: &LogView<'_>, _: &Append) -> Verdict {
        Verdict::Append { leader_epoch: 1 }
    }

    fn high_watermark(&mut self, log: &LogView<'_>) -> Offset {
        match log.durability {
            Durability::Fsync => log.flushed_end,
            Durability::Replicated => log.log_end,
        }
    }
}

fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    let dir = options.dir.join("storage");
    std::fs::create_dir_all(&dir)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    if options.open {
        let opened = runtime.block_on(async { open(&options, &dir) });
        std::fs::remove_dir_all(&dir)?;
        return opened;
    }
    let measured = runtime.block_on(measure(&options, &dir));
    drop(runtime);
    std::fs::remove_dir_all(&dir)?;
    let (write, read) = measured?;
    print("in", &options, &write);
    print("out", &options, &read);
    Ok(())
}

fn print(what: &str, options: &Options, report: &Report) {
    let latency: Vec<String> = report.latency_us.iter().map(|us| digits(*us)).collect();
    println!(
        "storage {what} {} x {} in groups of {}: {} GB/s, {} batches/s, cpu {} ms/GB, p50/p90/p99/p99.9/max {} us",
        show_bytes(options.chunk),
        options.partitions,
        options.group,
        digits(report.gb_per_s),
        digits(report.batches as f64 / report.seconds),
        digits(report.client_cpu_ms_per_gb),
        latency.join("/"),
    );
}

fn open_logs(
    options: &Options,
    dir: &std::path::Path,
) -> anyhow::Result<(LogDir, OpenReport, Arc<Progress>)> {
    let os: Arc<dyn Os> = Arc::new(RealOs::new(RealOs::default_io_threads())?);
    let mut dir_options = DirOptions::new(|fatal| {
        eprintln!("{fatal}");
        std::process::exit(1);
    });
    dir_options.dirty_budget_bytes = options.dirty_budget as u64;
    let progress = Arc::clone(&dir_options.progress);
    let (log_dir, found) = LogDir::open(os, &dir.join("logs"), None, dir_options)?;
    Ok((log_dir, found, progress))
}

/// What a start after a kill costs.
fn open(options: &Options, dir: &std::path::Path) -> anyhow::Result<()> {
    let (_log_dir, found, progress) = open_logs(options, dir)?;
    println!(
        "storage open {} logs: {} ms, {} MiB scanned, {} damaged",
        found.partitions,
        digits(found.duration.as_secs_f64() * 1e3),
        progress.scanned_bytes.get() >> 20,
        found.damaged.len(),
    );
    Ok(())
}

async fn measure(options: &Options, dir: &std::path::Path) -> anyhow::Result<(Report, Report)> {
    let (log_dir, _, _) = open_logs(options, dir)?;
    // As a broker does: a start knows by it whether the machine was started again.
    log_dir.write_broker_epoch(1)?;
    let durability = if options.fsync { Durability::Fsync } else { Durability::Replicated };
    let mut logs = Vec::new();
    for number in 0..options.partitions.max(1) {
        let id = PartitionId { topic: TopicId(1), partition: i32::try_from(number)? };
        let config = LogConfig { durability, ..LogConfig::default() };
        let log = log_dir.create_partition(id, "bench", config)?;
        log.control(Control::SetAdmission(Box::new(Alone))).await?;
        logs.push(log);
    }
    let batches = payload::ready_batches(options.chunk, ((32 << 20) / options.chunk.max(1)).clamp(1, 1024));
    let me = std::process::id();
    let (cpu, started) = (machine::cpu_ms(me), Instant::now());
    let share = options.total / options.chunk.max(1) / logs.len();
    let writers = logs.iter().map(|log| write(options, log, &batches, share));
    let mut counts = Counts::default();
    for one in futures::future::join_all(writers).await {
        counts.add(&one?);
    }
    let write = counts.report(started.elapsed(), machine::cpu_ms(me) - cpu, 0);
    if options.leave {
        print("in", options, &write);
        std::process::abort();
    }

    let (cpu, started) = (machine::cpu_ms(me), Instant::now());
    let mut counts = Counts::default();
    for log in &logs {
        read(log, &mut counts).await?;
    }
    let read = counts.report(started.elapsed(), machine::cpu_ms(me) - cpu, 0);
    log_dir.close().await?;
    Ok((write, read))
}

async fn write(
    options: &Options,
    log: &Partition,
    batches: &[RecordBatch],
    share: usize,
) -> anyhow::Result<Counts> {
    let counts = Arc::new(Mutex::new(Counts::default()));
    let (answers, mut answered) = mpsc::unbounded_channel();
    let (mut sent, mut due) = (0, 0);
    while due < share {
        while sent < share && sent - due < options.group * options.inflight {
            let mut group = Vec::new();
            for _ in 0..options.group.min(share - sent) {
                let Some(batch) = batches.get(sent % batches.len()) else { continue };
                anyhow::ensure!(
                    !options.crc || crc32fast::hash(&batch.records) == batch.crc,
                    "the payload changed"
                );
                let (answers, latency, submitted) = (answers.clone(), counts.clone(), Instant::now());
                let done = move |result: Result<_, _>| {
                    let nanos = u64::try_from(submitted.elapsed().as_nanos()).unwrap_or(u64::MAX);
                    latency.lock().latency_ns.saturating_record(nanos);
                    // Received below for as long as any is due.
                    let _ = answers.send(result);
                };
                group.push(append(batch, Box::new(done)));
                let mut counts = counts.lock();
                counts.bytes += batch.records.len() as u64;
                counts.batches += 1;
                sent += 1;
            }
            log.submit(group);
        }
        match answered.recv().await {
            Some(result) => drop(result?),
            None => anyhow::bail!("nobody answers"),
        }
        due += 1;
    }
    let counts = counts.lock().clone();
    Ok(counts)
}

fn append(batch: &RecordBatch, done: weir_storage::Done) -> Append {
    let batch = NewBatch {
        last_offset_delta: batch.last_offset_delta,
        record_count: batch.record_count,
        base_timestamp_ms: batch.base_timestamp_ms,
        max_timestamp_ms: batch.max_timestamp_ms,
        append_time: false,
        codec: 0,
        uncompressed_bytes: u32::try_from(batch.uncompressed_bytes).unwrap_or(0),
        crc: batch.crc,
        producer: None,
        base_sequence: 0,
        transactional: false,
        control: false,
        broker_compressed: false,
        payload: batch.records.clone(),
    };
    Append { batch, acks: Acks::All, expected_next_offset: None, gate: None, resume: false, done }
}

/// As a FetchStream reads: 256 KiB at a time.
async fn read(log: &Partition, counts: &mut Counts) -> anyhow::Result<()> {
    let mut from = 0;
    loop {
        let chunk = log.read(ReadRequest { from, bytes_max: 256 << 10, limit: Limit::Stable }).await?;
        if chunk.is_empty() {
            return Ok(());
        }
        for frame in chunk.frames() {
            counts.bytes += frame.payload.len() as u64;
            counts.batches += 1;
            counts.records += u64::try_from(frame.header.record_count)?;
        }
        from = chunk.next_offset;
    }
}
