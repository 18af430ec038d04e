//! SIGTERM and Ctrl-C: the first one stops the process in order, the second one at once.

use std::io;

use tokio::signal::unix::{SignalKind, signal};

use crate::stop::{Reason, Signal, Stop};

/// Requests `wanted` at the first signal and ends the process, with the code of the signal, at the second. To be
/// called once, on a runtime that lives as long as the process.
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
        let first = next().await;
        tracing::info!("{first} received: stopping in order; a second one stops at once");
        wanted.request(Reason::Signal(first));
        let second = next().await;
        tracing::warn!("{second} received again: stopping at once");
        std::process::exit(second.exit_code());
    }));
    Ok(())
}
