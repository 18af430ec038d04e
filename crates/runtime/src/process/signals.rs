//! SIGTERM and Ctrl-C: the first one stops the process in order, one that comes while it stops at once.

use std::io;

use tokio::signal::unix::{SignalKind, signal};

use crate::stop::{Reason, Signal, Stop};

/// Requests `wanted` at a signal, and ends the process, with the code of the signal, at one that comes when it was
/// requested already. To be called once, on a runtime that lives as long as the process.
///
/// # Errors
/// If the system takes no handler.
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
        loop {
            let signal = next().await;
            if wanted.is_requested() {
                tracing::warn!("{signal} received while stopping: stopping at once");
                std::process::exit(signal.exit_code());
            }
            tracing::info!("{signal} received: stopping in order; a second one stops at once");
            wanted.request(Reason::Signal(signal));
        }
    }));
    Ok(())
}
