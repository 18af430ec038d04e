//! SIGTERM and Ctrl-C: the first one stops the process in order, the second one at once.

use std::fmt;
use std::io;

use tokio::signal::unix::{SignalKind, signal};

use crate::stop::{Reason, Stop};

/// A signal that ends a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// SIGINT: Ctrl-C.
    Interrupt,
    /// SIGTERM: what `kill` and Kubernetes send.
    Terminate,
}

impl Signal {
    /// What a process that was ended by it reports, by the custom of shells: 128 and its number.
    pub fn exit_code(self) -> i32 {
        match self {
            Signal::Interrupt => 130,
            Signal::Terminate => 143,
        }
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Signal::Interrupt => "SIGINT",
            Signal::Terminate => "SIGTERM",
        })
    }
}

/// Requests `wanted` at the first signal and ends the process, with the code of the signal, at the second. To be
/// called once, on a runtime that lives as long as the process.
pub fn watch_signals(wanted: &Stop) -> io::Result<()> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let wanted = wanted.clone();
    // Ends with the process; of no meaning to anybody before that.
    drop(tokio::spawn(async move {
        let mut next = async || {
            tokio::select! {
                _ = interrupt.recv() => Signal::Interrupt,
                _ = terminate.recv() => Signal::Terminate,
            }
        };
        let first = next().await;
        tracing::info!("{first} received: stopping in order; a second one stops at once");
        wanted.request(Reason::Signal(first));
        let second = next().await;
        tracing::warn!("{second} received again: stopping at once");
        std::process::exit(second.exit_code());
    }));
    Ok(())
}
