//! What the disk does without any server: the floor under the floor. Appends of a chunk size to some files, with
//! an fdatasync after each group of chunks or with none; and reads.

#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "a measuring program: real clocks, results on stdout"
)]

use std::fs::{self, File};
use std::io::{IoSlice, Write};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Instant;

use clap::{Parser, ValueEnum};
use rustix::fs::{FallocateFlags, fallocate};
use weir_bench::units::{parse_bytes, show_bytes};
use weir_load::report::{Counts, Report, digits};
use weir_load::{machine, payload};

weir_bench::declare_allocator!();

/// Raw appends, fdatasyncs and reads.
#[derive(Parser)]
struct Options {
    /// A directory for the files; they are removed at the end.
    #[arg(long)]
    dir: PathBuf,
    /// What to do.
    #[arg(long, value_enum, default_value_t = What::Write)]
    what: What,
    /// Bytes of payload an append, behind a header of 88.
    #[arg(long, value_parser = parse_bytes, default_value = "252KiB")]
    chunk: usize,
    /// Chunks before each fdatasync (sync), in turn over the files.
    #[arg(long, default_value_t = 64)]
    group: usize,
    /// How many files.
    #[arg(long, default_value_t = 1)]
    files: usize,
    /// How many threads flush the files of a group at once.
    #[arg(long, default_value_t = 16)]
    flushers: usize,
    /// How much to write in all.
    #[arg(long, value_parser = parse_bytes, default_value = "1GiB")]
    total: usize,
    /// Take no space ahead of the writes.
    #[arg(long)]
    no_preallocation: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum What {
    /// Appends to the page cache.
    Write,
    /// Appends, with an fdatasync after each group. Latency: of a group.
    Sync,
    /// Reads what was just appended back, from the page cache.
    Read,
}

const STEP: u64 = 64 << 20;

struct Log {
    file: File,
    position: u64,
    reserved: u64,
    dirty: bool,
}

fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    let dir = options.dir.join("raw");
    fs::create_dir_all(&dir)?;
    let report = measure(&options, &dir);
    fs::remove_dir_all(&dir)?;
    let report = report?;
    if options.json {
        println!("{}", serde_json::to_string(&report)?);
        return Ok(());
    }
    let latency: Vec<String> = report.latency_us.iter().map(|us| digits(*us)).collect();
    println!(
        "raw {} {} x {} files: {} GB/s, {} chunks/s, cpu {} ms/GB, p50/p90/p99/p99.9/max {} us",
        options.what.to_possible_value().map_or(String::new(), |v| v.get_name().to_owned()),
        show_bytes(options.chunk),
        options.files,
        digits(report.gb_per_s),
        digits(report.batches as f64 / report.seconds),
        digits(report.client_cpu_ms_per_gb),
        latency.join("/"),
    );
    Ok(())
}

fn measure(options: &Options, dir: &Path) -> anyhow::Result<Report> {
    let mut logs = Vec::new();
    for number in 0..options.files.max(1) {
        let file = File::options().read(true).append(true).create(true).open(dir.join(number.to_string()))?;
        logs.push(Log { file, position: 0, reserved: 0, dirty: false });
    }
    File::open(dir)?.sync_all()?;
    let chunks = payload::ready_batches(options.chunk, ((32 << 20) / options.chunk.max(1)).clamp(1, 1024));
    let turns = (options.total / options.chunk.max(1)).max(1);
    let mut counts = Counts::default();
    let me = std::process::id();
    let (mut cpu, mut started) = (machine::cpu_ms(me), Instant::now());
    let mut group = Instant::now();
    for turn in 0..turns {
        let slot = turn % logs.len();
        let (Some(log), Some(chunk)) = (logs.get_mut(slot), chunks.get(turn % chunks.len())) else { break };
        append(log, &chunk.records, !options.no_preallocation)?;
        counts.bytes += chunk.records.len() as u64;
        counts.batches += 1;
        let is_last = (turn + 1) % options.group.max(1) == 0 || turn + 1 == turns;
        if options.what == What::Sync && is_last {
            flush(&mut logs, options.flushers)?;
        }
        if options.what != What::Sync || is_last {
            counts
                .latency_ns
                .saturating_record(u64::try_from(group.elapsed().as_nanos()).unwrap_or(u64::MAX));
            group = Instant::now();
        }
    }
    if options.what == What::Read {
        counts = Counts::default();
        (cpu, started) = (machine::cpu_ms(me), Instant::now());
        read_back(&logs, options.chunk, &mut counts)?;
    }
    Ok(counts.report(started.elapsed(), machine::cpu_ms(me) - cpu, 0))
}

fn append(log: &mut Log, payload: &[u8], preallocate: bool) -> std::io::Result<()> {
    let header = [0_u8; 88];
    let length = header.len() + payload.len();
    if preallocate && log.position + length as u64 > log.reserved {
        fallocate(&log.file, FallocateFlags::KEEP_SIZE, log.reserved, STEP)?;
        log.reserved += STEP;
    }
    let mut done = log.file.write_vectored(&[IoSlice::new(&header), IoSlice::new(payload)])?;
    while done < length {
        done += log.file.write(payload.get(done.saturating_sub(header.len())..).unwrap_or_default())?;
    }
    log.position += length as u64;
    log.dirty = true;
    Ok(())
}

/// fdatasync of every file that was written, some at once.
fn flush(logs: &mut [Log], flushers: usize) -> anyhow::Result<()> {
    let mut dirty: Vec<&mut Log> = logs.iter_mut().filter(|log| log.dirty).collect();
    if let [only] = dirty.as_mut_slice() {
        only.file.sync_data()?;
    } else {
        let share = dirty.len().div_ceil(flushers.max(1)).max(1);
        thread::scope(|scope| {
            let threads: Vec<_> = dirty
                .chunks(share)
                .map(|logs| scope.spawn(move || logs.iter().try_for_each(|log| log.file.sync_data())))
                .collect();
            threads
                .into_iter()
                .try_for_each(|t| t.join().map_err(|_| std::io::Error::other("a thread panicked"))?)
        })?;
    }
    dirty.iter_mut().for_each(|log| log.dirty = false);
    Ok(())
}

fn read_back(logs: &[Log], chunk: usize, counts: &mut Counts) -> anyhow::Result<()> {
    for log in logs {
        let mut position = 0;
        while position < log.position {
            let started = Instant::now();
            let mut buffer = Vec::with_capacity(chunk);
            let read = rustix::io::pread(&log.file, rustix::buffer::spare_capacity(&mut buffer), position)?;
            position += read as u64;
            counts.bytes += read as u64;
            counts.batches += 1;
            counts
                .latency_ns
                .saturating_record(u64::try_from(started.elapsed().as_nanos()).unwrap_or(u64::MAX));
        }
    }
    Ok(())
}
