//! A cluster of real processes, each in a network of its own, while everything breaks that can; and a check of all that its
//! clients were told and saw.
//!
//! `weir-chaos` runs histories one after the other. For each it lays a network (`network`), and starts itself again inside
//! it, where the clients are: that process starts three controllers and three brokers (`cluster`, `node`), has writers and
//! readers at work (`clients`), lets happen what the plan says (`plan`, `nemesis`), mends everything, reads everything through,
//! and holds it against what writers were told (`history`).
//!
//! The plan follows from the seed. What comes of it does not: processes and kernels take their time. A seed that failed fails
//! again often, not always; its folder stays, with what everybody said.
//!
//! It is no simulation (`simulation/`: one process, one thread, the same every time), and it proves nothing about disks: the
//! page cache outlives a process that is killed.

#![expect(clippy::print_stdout, reason = "what a history came to is its output")]

mod asked;
mod clients;
mod cluster;
mod history;
mod log;
mod nemesis;
mod network;
mod node;
mod observer;
mod outside;
mod plan;
mod replicas;
mod summary;
mod topics;
mod who;
mod wrong;

use std::process::ExitCode;

use clap::Parser;
use tokio::runtime::Builder;

use asked::Asked;

fn main() -> ExitCode {
    let asked = Asked::parse();
    // Outside one thread: whoever is started there ends with it, and the kernel means the thread.
    let (mut builder, threads) = match asked.inside {
        Some(_) => (Builder::new_multi_thread(), 2),
        None => (Builder::new_current_thread(), 1),
    };
    let runtime = builder.worker_threads(threads).enable_all().build();
    let done = runtime.map_err(anyhow::Error::from).and_then(|runtime| match asked.inside.clone() {
        Some(network) => runtime.block_on(history::run(asked, network)),
        None => runtime.block_on(outside::run(asked)),
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("chaos: {error:#}");
            ExitCode::FAILURE
        }
    }
}
