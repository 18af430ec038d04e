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
//! It is no simulation (`simulation/`: one process, one thread, the same every time), and it proves little about disks: the
//! page cache outlives a process that is killed. Where power is lost, a file system ends on the spot; nothing tears a write.

#![expect(clippy::print_stdout, reason = "what a history came to is its output")]

mod asked;
mod carry;
mod clients;
mod cluster;
mod conditions;
mod doors;
mod history;
mod log;
mod nemesis;
mod network;
mod node;
mod observer;
mod outside;
mod plan;
mod replicas;
mod slow;
mod summary;
mod topics;
mod trouble;
mod waiting;
mod who;
mod wrong;

use std::process::ExitCode;

use clap::Parser;
use tokio::runtime::Builder;

use asked::Asked;

fn main() -> ExitCode {
    let asked = Asked::parse();
    let done = match asked.inside.clone() {
        Some(network) => inside(asked, network),
        None => outside(asked),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("chaos: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn outside(asked: Asked) -> anyhow::Result<()> {
    // One thread: whoever is started there ends with it, and the kernel means the thread.
    Builder::new_current_thread().enable_all().build()?.block_on(outside::run(asked))
}

fn inside(asked: Asked, network: String) -> anyhow::Result<()> {
    let threads = |count| Builder::new_multi_thread().worker_threads(count).enable_all().build();
    // Doors have a thread of their own: what passes does not wait for clients.
    let doors = threads(1)?;
    threads(2)?.block_on(history::run(asked, network, doors.handle()))
}
