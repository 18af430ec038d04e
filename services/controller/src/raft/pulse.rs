//! When this controller obeyed a leader last, and whether it could win an election now: what the watch over elections
//! goes by. openraft keeps both to itself, and calls a leader current for as long as nobody stands against it, dead or
//! not.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::time::Instant;

/// Shared by whoever hears of leaders and whoever watches.
#[derive(Clone, Debug)]
pub(crate) struct Pulse(Arc<Mutex<Last>>);

#[derive(Clone, Copy, Debug)]
struct Last {
    obeyed: Instant,
    outdone: bool,
}

impl Pulse {
    /// As of a controller that starts: it gives a leader the time to be heard.
    pub(crate) fn new() -> Self {
        Self(Arc::new(Mutex::new(Last { obeyed: Instant::now(), outdone: false })))
    }

    /// Something came from a leader, and was taken.
    pub(super) fn obeyed(&self) {
        *self.0.lock() = Last { obeyed: Instant::now(), outdone: false };
    }

    /// Somebody refused to vote for this controller because it lacks entries.
    pub(super) fn outdone(&self) {
        self.0.lock().outdone = true;
    }

    /// When a leader was obeyed last, and whether this controller was found to lack entries since.
    pub(super) fn last(&self) -> (Instant, bool) {
        let Last { obeyed, outdone } = *self.0.lock();
        (obeyed, outdone)
    }
}
