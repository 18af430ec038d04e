//! `weir`, the command line: a whole Weir in one process, records in and out, topics, a cluster at a glance.
//!
//! One file per command in `commands/`; around them what they share: where the server is ([`address`],
//! [`contexts`]), how things are named on the command line ([`reference`], [`position`]), how results are shown
//! ([`output`]) and how failures end ([`error`]: what, which, reason, what to do, and an exit code that a script
//! can act on). It decides nothing about records or topics: the server does, and its words are passed on.
//!
//! Results go to stdout, everything else to stderr.

mod address;
mod args;
mod clock;
mod commands;
mod connect;
mod contexts;
mod elsewhere;
mod error;
mod errors_book;
mod fingers;
mod hindered;
mod input;
mod offsets;
mod output;
mod position;
mod progress;
mod prompt;
mod record_format;
mod reference;
mod reflect;
mod session;
mod units;

use std::ffi::{OsStr, OsString};
use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;

use clap::Parser as _;

use crate::args::{Cli, Start};

pub use args::command;

/// The name of the program that is a broker.
const BROKER: &str = "weir-broker";
/// The name of the program that is a controller.
const CONTROLLER: &str = "weir-controller";

/// Runs the command line of this process. Called by the name of a role (`weir-broker`, `weir-controller`: a link to this
/// program, say), it is that role's program. The exit code of `weir`: 0 done, 1 failed and not applied, 2 usage, 3 not found,
/// 4 denied, 5 unreachable or timed out, 6 maybe or partly applied, 130 interrupted.
pub fn main() -> ExitCode {
    let called = std::env::args_os().next().unwrap_or_default();
    match Path::new(&called).file_name().and_then(OsStr::to_str) {
        Some(BROKER) => weir_standalone::broker_main(),
        Some(CONTROLLER) => weir_standalone::controller_main(),
        _ => ExitCode::from(run(std::env::args_os().collect())),
    }
}

fn run(arguments: Vec<OsString>) -> u8 {
    let words: Vec<String> = arguments.iter().map(|word| word.to_string_lossy().into_owned()).collect();
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(mut error) => {
            let hint = fingers::hint(&words);
            fingers::without_guesses(&mut error, &args::command(), hint.is_some());
            // Help and version are no errors; clap knows where each of its texts belongs.
            if !error.use_stderr() {
                let _ = error.print();
                return 0;
            }
            if args::wants_json(&words) {
                return finish(Err(error::Error::of_usage(&error, hint)), true, 0);
            }
            let _ = error.print();
            if let Some(hint) = hint {
                let _ = writeln!(std::io::stderr(), "\nhere: {hint}");
            }
            return error::USAGE;
        }
    };
    let json = cli.global.output == Some(output::Format::Json);
    let verbose = cli.global.verbose;
    if let Some(why) = cli.command.refuses_dry_run().filter(|_| cli.global.dry_run) {
        return finish(Err(error::Error::Usage(why)), json, verbose);
    }
    let command = match cli.command {
        // It brings its own runtimes.
        Start::Standalone(command) => return finish(command.run(), json, verbose),
        Start::Command(command) => command,
    };
    // Reading files and writing to a terminal block; with workers of its own the runtime goes on meanwhile.
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    if !command.wants_every_core() {
        builder.worker_threads(2);
    }
    let runtime = match builder.enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "error: cannot start: {error}");
            return error::FAILED;
        }
    };
    let result = runtime.block_on(commands::run(cli.global, command));
    // A thread that waits for the terminal must not keep the process.
    runtime.shutdown_background();
    finish(result.map(|()| 0), json, verbose)
}

/// Says what went wrong, if something did, and with which code the process ends.
fn finish(result: error::Result<u8>, json: bool, verbose: u8) -> u8 {
    match result {
        Ok(code) => code,
        Err(error) => {
            let mut stderr = std::io::stderr().lock();
            let _ = error.write(&mut stderr, json, verbose > 0);
            error.exit_code()
        }
    }
}
