//! The wish that something should stop, and why: given once, seen by everybody.

use std::fmt;
use std::sync::{Arc, OnceLock};

use tokio_util::sync::CancellationToken;

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

/// Why a process, or a part of it, stops.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The system or a person sent a signal.
    Signal(Signal),
    /// A part without which the rest is worth nothing has ended.
    Failed {
        /// Role and task, such as `broker/flusher`.
        task: String,
        /// What it said.
        why: String,
    },
    /// Somebody asked for it.
    Asked(String),
}

impl Reason {
    /// With which code a process ends that has stopped in order for this reason.
    pub fn exit_code(&self) -> i32 {
        match self {
            Reason::Signal(_) | Reason::Asked(_) => 0,
            Reason::Failed { .. } => 1,
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::Signal(signal) => write!(f, "{signal} received"),
            Reason::Failed { task, why } => write!(f, "{task} ended: {why}"),
            Reason::Asked(why) => f.write_str(why),
        }
    }
}

/// Tells a process, or a part of it, to stop. Cloning gives another handle to the same wish.
#[derive(Clone, Debug)]
pub struct Stop(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    token: CancellationToken,
    reason: OnceLock<Reason>,
}

impl Stop {
    /// A wish that was not made yet.
    #[expect(clippy::new_without_default, reason = "a wish that nobody can make is of no use")]
    pub fn new() -> Self {
        Self(Arc::new(Inner { token: CancellationToken::new(), reason: OnceLock::new() }))
    }

    /// Asks to stop. The first reason counts.
    pub fn request(&self, reason: Reason) {
        let _ = self.0.reason.set(reason);
        self.0.token.cancel();
    }

    /// Whether it was asked for. A look at an atomic: a token, which takes a lock, is not fit for hot paths.
    pub fn is_requested(&self) -> bool {
        self.0.reason.get().is_some()
    }

    /// Waits until it is asked for. Cancel safe.
    pub async fn requested(&self) {
        self.0.token.cancelled().await;
    }

    /// Why, if it was asked for.
    pub fn reason(&self) -> Option<Reason> {
        self.0.reason.get().cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_first_reason_reaches_everybody() {
        let hears = Stop::new();
        let asks = hears.clone();
        assert_eq!((hears.is_requested(), hears.reason()), (false, None));
        asks.request(Reason::Asked("first".to_owned()));
        asks.request(Reason::Asked("second".to_owned()));
        hears.requested().await;
        assert_eq!(hears.reason().unwrap().to_string(), "first");
    }

    #[test]
    fn reasons_say_how_the_process_ends() {
        let failed = Reason::Failed { task: "broker/flusher".to_owned(), why: "disk gone".to_owned() };
        assert_eq!(failed.to_string(), "broker/flusher ended: disk gone");
        assert_eq!(failed.exit_code(), 1);
        let signal = Reason::Signal(Signal::Terminate);
        assert_eq!((signal.to_string().as_str(), signal.exit_code()), ("SIGTERM received", 0));
    }
}
