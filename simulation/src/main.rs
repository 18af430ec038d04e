//! Whole clusters of Weir in one process, decided by a seed: the real services over simulated sockets, disks and clocks.
//!
//! A process runs one seed and ends: with 0 if everything that must hold held. `cargo xtask sim` runs many. The same seed
//! gives the same run, to the byte: `doors` says what that takes beyond the `Os`, and `trace` how it is checked.
//!
//! It is no load test and no model: time passes only when everybody waits, and what is tried is what the seed comes upon.

#![expect(clippy::print_stdout, reason = "what a run came to is its output")]

mod brokers;
mod controllers;
mod doors;
mod life;
mod nemesis;
mod net;
mod os;
mod quorum;
mod rules;
mod simulation;
mod trace;
mod wall_clock;
mod world;

use std::process::ExitCode;

use brokers::With;

const HELP: &str = "\
Usage: weir-simulation SCENARIO SEED [--trace] [--log LEVEL] [--plant no-sync|no-log-sync|no-folder-sync|CRATE:MUTANT]";

/// What the command line says.
struct Asked {
    scenario: String,
    seed: u64,
    shown: bool,
    level: tracing::Level,
    plant: Option<world::Plant>,
}

fn asked() -> Option<Asked> {
    let mut args = std::env::args().skip(1);
    let (scenario, seed) = (args.next()?, args.next()?.parse().ok()?);
    let mut asked = Asked { scenario, seed, shown: false, level: tracing::Level::INFO, plant: None };
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--trace" => asked.shown = true,
            "--plant" => {
                let name = args.next()?;
                asked.plant = world::Plant::named(&name);
                if asked.plant.is_none() && !rules::take_out(&name) {
                    return None;
                }
            }
            "--log" => asked.level = args.next()?.parse().ok()?,
            _ => return None,
        }
    }
    Some(asked)
}

fn main() -> ExitCode {
    let Some(Asked { scenario, seed, shown, level, plant }) = asked() else {
        eprintln!("{HELP}");
        return ExitCode::from(2);
    };
    doors::set_seed(seed);
    world::begin(seed, shown, plant);
    let (told, name) = (std::panic::take_hook(), scenario.clone());
    std::panic::set_hook(Box::new(move |panic| {
        // Wherever it happens, also in a task that nobody waits for.
        told(panic);
        fail(&name, seed, "it panicked");
    }));
    let log = tracing::subscriber::set_global_default(trace::Log::new(level));
    log.expect("nobody has set one before");
    let outcome = match scenario.as_str() {
        "controllers" => controllers::run(),
        "brokers" => brokers::run(With::Nothing),
        "conditions" => brokers::run(With::Conditions),
        "rotten" => brokers::run(With::Rot),
        "unclean" => brokers::unclean::run(),
        other => {
            let known = "brokers, conditions, controllers, rotten, unclean";
            Err(anyhow::anyhow!("there is no scenario {other}: {known}"))
        }
    };
    if let Err(why) = outcome {
        fail(&scenario, seed, &format!("{why:#}"));
    }
    let (hash, events) = world::world().trace();
    let now = world::world().now().as_secs_f64();
    println!("{scenario} {seed}: held, {events} events in {now:.1} simulated seconds, hash {hash:016x}");
    // Nothing is taken down in order: the machines end with the process.
    std::process::exit(0)
}

/// Says that a seed has failed, and how it is run again; the process ends.
fn fail(scenario: &str, seed: u64, why: &str) -> ! {
    eprintln!("{scenario} {seed} FAILED: {why}");
    std::process::exit(1)
}
