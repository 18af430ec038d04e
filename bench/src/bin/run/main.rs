//! The harness: starts the floor and Weir in turn (A B A B ...), lets the same load generator drive both with the
//! same payload, window and durability, and prints medians, spreads and ratios as Markdown.
//!
//! Every measurement gets a fresh process and an empty directory; what it wrote is removed after the process is
//! gone. Figures of a busy machine are bad figures: the load average stands beside each case, and the ratios,
//! taken pair by pair, are what to quote. Processor time per 10^9 bytes survives noise best.

#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "a measuring program: real clocks, results on stdout"
)]

mod cases;
mod server;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};
use clap::Parser;
use weir_bench::units::parse_bytes;
use weir_load::machine::{self, Machine};
use weir_load::report::{Report, digits, median, spread};

use crate::cases::{Case, Suite, cases};
use crate::server::{Kind, Programs, Server, settle};

weir_bench::declare_allocator!();

/// Measures Weir beside its floor.
#[derive(Parser)]
struct Options {
    /// A directory on the disk to be measured. Never one in memory.
    #[arg(long)]
    dir: PathBuf,
    /// What to measure. [default: all]
    #[arg(long, value_enum)]
    suite: Vec<Suite>,
    /// Only cases whose name contains this.
    #[arg(long)]
    only: Option<String>,
    /// How many times each server runs each case.
    #[arg(long, default_value_t = 5)]
    pairs: usize,
    /// How much a case writes; below the kernel's background threshold for dirty pages, or the disk is measured.
    #[arg(long, value_parser = parse_bytes, default_value = "1GiB")]
    total: usize,
    /// The directory of the programs floor, load, raw and weir. [default: beside this one]
    #[arg(long)]
    programs: Option<PathBuf>,
    /// Another `weir`.
    #[arg(long)]
    weir: Option<PathBuf>,
    /// A further argument for `weir standalone`; may be repeated.
    #[arg(long, allow_hyphen_values = true)]
    weir_arg: Vec<String>,
    /// Measure the floor alone.
    #[arg(long)]
    floor_only: bool,
}

/// What one server did in one case, run by run.
#[derive(Default)]
struct Column {
    produce: Vec<Report>,
    consume: Vec<Report>,
    memory_mib: Vec<f64>,
    ready_ms: Vec<f64>,
}

fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    fs::create_dir_all(&options.dir)?;
    let beside = std::env::current_exe()?.parent().context("a directory")?.to_owned();
    let folder = options.programs.clone().unwrap_or(beside);
    let programs = Programs {
        floor: folder.join("floor"),
        weir: options.weir.clone().unwrap_or_else(|| folder.join("weir")),
        load: folder.join("load"),
        weir_args: options.weir_arg.clone(),
    };
    let machine = Machine::describe(&options.dir);
    println!(
        "{} cores, Linux {}, TCP {}, {}",
        machine.cores, machine.kernel, machine.congestion_control, machine.file_system
    );
    let suites = if options.suite.is_empty() {
        vec![Suite::Bulk, Suite::Sizes, Suite::Latency, Suite::Fsync]
    } else {
        options.suite.clone()
    };
    for case in suites.into_iter().flat_map(|suite| cases(suite, options.total)) {
        if options.only.as_ref().is_none_or(|only| case.name.contains(only)) {
            measure(&options, &programs, &folder, &case)?;
        }
    }
    Ok(())
}

fn measure(options: &Options, programs: &Programs, folder: &Path, case: &Case) -> anyhow::Result<()> {
    let kinds = if options.floor_only { vec![Kind::Floor] } else { vec![Kind::Floor, Kind::Weir] };
    let mut columns: Vec<(Kind, Column)> = kinds.into_iter().map(|kind| (kind, Column::default())).collect();
    let mut raw = Vec::new();
    let load_before = machine::load_average();
    for _ in 0..options.pairs.max(1) {
        for (kind, column) in &mut columns {
            once(options, programs, case, *kind, column)
                .with_context(|| format!("{} on {}", case.name, kind.name()))?;
        }
        if !case.raw.is_empty() {
            settle();
            let arguments: Vec<&str> = case.raw.iter().map(String::as_str).chain(["--dir"]).collect();
            raw.push(json(Command::new(folder.join("raw")).args(arguments).arg(&options.dir).arg("--json"))?);
        }
    }
    println!(
        "\n**{}** (load {:.1} to {:.1}, {} runs)\n",
        case.name,
        load_before,
        machine::load_average(),
        options.pairs
    );
    println!(
        "| | GB/s | ratio to floor | server CPU ms/GB | client CPU ms/GB | p50 / p99 / p99.9 us | peak MiB |"
    );
    println!("|---|---|---|---|---|---|---|");
    let floor = columns
        .first()
        .map(|(_, column)| (column.produce.clone(), column.consume.clone()))
        .unwrap_or_default();
    for (kind, column) in &columns {
        let memory = digits(median(&column.memory_mib));
        row(&format!("{} in", kind.name()), &column.produce, &floor.0, &memory);
        row(&format!("{} out", kind.name()), &column.consume, &floor.1, &memory);
    }
    row("raw", &raw, &floor.0, "");
    for (kind, column) in &columns {
        if *kind == Kind::Weir {
            println!("\nready in {} ms", spread(&column.ready_ms));
        }
    }
    Ok(())
}

/// One server, one case, one run.
fn once(
    options: &Options,
    programs: &Programs,
    case: &Case,
    kind: Kind,
    column: &mut Column,
) -> anyhow::Result<()> {
    let server = Server::start(programs, kind, &options.dir, case.fsync)?;
    column.ready_ms.push(server.ready_in.as_secs_f64() * 1e3);
    let phases = [&case.produce, &case.consume].into_iter().filter(|arguments| !arguments.is_empty());
    let reports: anyhow::Result<Vec<Report>> = phases
        .map(|arguments| {
            let pid = server.pid().to_string();
            let mut command = Command::new(&programs.load);
            json(command.args(arguments).args(["--json", "--server", &server.address, "--server-pid", &pid]))
        })
        .collect();
    column.memory_mib.push(server.stop()? as f64);
    let mut reports = reports?.into_iter();
    column.produce.extend(reports.next());
    column.consume.extend(reports.next());
    Ok(())
}

/// Runs a program and reads the first object that it prints.
fn json(command: &mut Command) -> anyhow::Result<Report> {
    let output = command.output().with_context(|| format!("running {command:?}"))?;
    if !output.status.success() {
        bail!("{command:?}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    let text = String::from_utf8(output.stdout)?;
    let line = text.lines().next().unwrap_or_default();
    serde_json::from_str(line).with_context(|| format!("{command:?} printed {line:?}"))
}

/// One line of the table; the ratio is the median of the ratios pair by pair.
fn row(name: &str, reports: &[Report], floor: &[Report], memory: &str) {
    if reports.is_empty() {
        return;
    }
    let of = |field: fn(&Report) -> f64| -> Vec<f64> { reports.iter().map(field).collect() };
    let ratios: Vec<f64> =
        reports.iter().zip(floor).map(|(a, b)| a.gb_per_s / b.gb_per_s.max(1e-9)).collect();
    let latency = |index: usize| -> String {
        let values: Vec<f64> = reports.iter().filter_map(|r| r.latency_us.get(index).copied()).collect();
        if values.is_empty() { "-".to_owned() } else { digits(median(&values)) }
    };
    println!(
        "| {name} | {} | {} | {} | {} | {} / {} / {} | {memory} |",
        spread(&of(|r| r.gb_per_s)),
        spread(&ratios),
        spread(&of(|r| r.server_cpu_ms_per_gb)),
        spread(&of(|r| r.client_cpu_ms_per_gb)),
        latency(0),
        latency(2),
        latency(3),
    );
}
