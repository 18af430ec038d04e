//! What all machines of the simulation share: the seed, the time, the network between them, the trace. There is one a
//! process, because a process runs one seed.

use std::fmt;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use weir_io::{Dice, Effect, Op, Rule};

use crate::doors;
use crate::net::Net;
use crate::trace::Trace;

/// Everything that is shared.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) seed: u64,
    pub(crate) net: Net,
    /// What the simulation itself does wrong, to see whether it notices.
    pub(crate) plant: Option<Plant>,
    trace: Mutex<Trace>,
    dice: Mutex<Dice>,
    now_us: AtomicU64,
    /// Whether a machine is running, so that its clock is the time.
    running: AtomicBool,
}

static WORLD: OnceLock<World> = OnceLock::new();

/// A bug to be noticed: what no disk syncs, without a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Plant {
    /// Files.
    Files,
    /// Segments of logs alone.
    Segments,
    /// Folders.
    Folders,
}

impl Plant {
    /// By its name on the command line.
    pub(crate) fn named(name: &str) -> Option<Self> {
        match name {
            "no-sync" => Some(Self::Files),
            "no-log-sync" => Some(Self::Segments),
            "no-folder-sync" => Some(Self::Folders),
            _ => None,
        }
    }

    /// How every disk fails by it: without a word.
    pub(crate) fn rule(self) -> Rule {
        let skipped = |ops: &[Op]| Rule::on(ops.to_vec(), Effect::Skip);
        match self {
            Self::Files => skipped(&[Op::SyncData, Op::SyncAll]),
            Self::Segments => skipped(&[Op::SyncData, Op::SyncAll]).ends_with(".log"),
            Self::Folders => skipped(&[Op::SyncDir]),
        }
    }
}

/// Begins the one simulation of this process. `shown`: every event goes to standard error.
pub(crate) fn begin(seed: u64, shown: bool, plant: Option<Plant>) -> &'static World {
    WORLD.get_or_init(|| World {
        seed,
        net: Net::default(),
        plant,
        trace: Mutex::new(Trace::new(shown)),
        dice: Mutex::new(Dice::new(seed)),
        now_us: AtomicU64::new(0),
        running: AtomicBool::new(false),
    })
}

/// The simulation.
///
/// # Panics
/// It has not begun.
pub(crate) fn world() -> &'static World {
    WORLD.get().expect("main begins the simulation first")
}

/// Notes that something happened on a machine.
pub(crate) fn note(who: &str, what: fmt::Arguments<'_>, bytes: &[u8]) {
    let world = world();
    let now_us = world.now_us();
    world.trace.lock().note(now_us, who, what, bytes);
}

impl World {
    /// Microseconds since the simulation began.
    pub(crate) fn now_us(&self) -> u64 {
        let machine = || turmoil::sim_elapsed().map(|now| now.as_micros() as u64);
        let running = self.running.load(Ordering::SeqCst);
        running.then(machine).flatten().unwrap_or_else(|| self.now_us.load(Ordering::SeqCst))
    }

    /// The time since the simulation began.
    pub(crate) fn now(&self) -> Duration {
        Duration::from_micros(self.now_us())
    }

    /// The machines run from here on; it is so late.
    pub(crate) fn run_from(&self, now: Duration) {
        self.now_us.store(now.as_micros() as u64, Ordering::SeqCst);
        doors::set_now(now.as_nanos() as u64);
        self.running.store(true, Ordering::SeqCst);
    }

    /// No machine runs; it is so late.
    pub(crate) fn stand_at(&self, now: Duration) {
        self.running.store(false, Ordering::SeqCst);
        self.now_us.store(now.as_micros() as u64, Ordering::SeqCst);
        doors::set_now(now.as_nanos() as u64);
    }

    /// Dice of their own for a part of the simulation, so that one part that draws more does not change the others.
    pub(crate) fn dice(&self) -> Dice {
        Dice::new(self.dice.lock().roll())
    }

    /// The hash of everything so far, and of how much.
    pub(crate) fn trace(&self) -> (u64, u64) {
        let trace = self.trace.lock();
        (trace.hash(), trace.events())
    }
}
