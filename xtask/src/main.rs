//! What people do daily with this repository, each as one command: `cargo xtask --help`.
//!
//! It starts the tools that do the work (cargo, nextest, cargo-deny, buf) and fetches those that a Rust
//! toolchain does not bring, pinned by version and hash, into `.tools/`. It is not part of the product and
//! links nothing of it.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "starts programs and times them on a developer's machine; nothing here is ever simulated"
)]
#![allow(clippy::print_stdout, reason = "a command line tool")]

mod chaos;
mod ci;
mod lint;
mod model;
mod pip;
mod proto_image;
mod sim;
mod steps;
mod stubs;
mod test;
mod tools;

use std::process::ExitCode;

use steps::{Outcome, Steps};

const HELP: &str = "\
Usage: cargo xtask COMMAND

  test [ARGS]    every test: the workspace's, doc tests, the stubs of other languages. With ARGS: only what cargo-nextest
                 selects by them
  lint           rustfmt, clippy, cargo-deny, buf lint, buf format, buf breaking
  sim [--seeds N] [--from S] [--scenario NAME] [--plant BUG]
                 whole clusters, simulated: 200 seeds, unless said otherwise; a seed that fails is named with the command
                 that runs it again. With a planted bug at least one seed must fail
  sim --plants   every bug that can be planted, in as many seeds as it takes to notice it
  chaos [--histories N] [--seconds S] [--seed S] [--scenario NAME] [--release]
                 clusters of real processes, in network namespaces (Linux, root), while processes die and hang, links are cut and
                 disks fill: one history of each scenario, 60 s, unless said otherwise. With --release what people run, not what tests run
  model [--deep] every state of small worlds around the cores, and walks through large ones; with --deep a hundred times as many
  stubs [LANG]   generates and compiles the stubs of python, go, java, typescript, and tries them
  ci             lint, test, model, sim, sim --plants, chaos: what a change must pass
  proto-image    re-creates proto/released.binpb, the API that may not break
  tools          fetches the helpers into .tools/ and says where they are

Examples:
  cargo xtask test
  cargo xtask test -p weir-storage torn_tail
  cargo xtask sim --seeds 1000 --from 5000
  cargo xtask stubs go
";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let (command, rest) = match args.split_first() {
        Some((command, rest)) => (command.as_str(), rest),
        None => ("--help", Default::default()),
    };
    let takes_arguments = ["test", "sim", "chaos", "stubs", "model"].contains(&command);
    if !rest.is_empty() && !takes_arguments {
        eprintln!("xtask {command} takes no arguments, but got {rest:?}\n\n{HELP}");
        return ExitCode::from(2);
    }

    let mut steps = Steps::new();
    let outcome = match command {
        "test" => test::run(&mut steps, rest),
        "lint" => lint::run(&mut steps),
        "sim" => sim::run(&mut steps, rest),
        "chaos" => chaos::run(&mut steps, rest),
        "stubs" => stubs::run(&mut steps, rest),
        "model" => model::run(&mut steps, rest),
        "ci" => ci::run(&mut steps),
        "proto-image" => proto_image::run(&mut steps),
        "tools" => tools::show(),
        "--help" | "-h" | "help" => {
            print!("{HELP}");
            return ExitCode::SUCCESS;
        }
        other => {
            eprintln!("there is no xtask {other:?}\n\n{HELP}");
            return ExitCode::from(2);
        }
    };
    steps.print_summary();
    match outcome {
        Ok(Outcome::Passed | Outcome::Skipped) => ExitCode::SUCCESS,
        Ok(Outcome::Failed) => ExitCode::FAILURE,
        Err(message) => {
            eprintln!("xtask {command}: {message}");
            ExitCode::FAILURE
        }
    }
}
