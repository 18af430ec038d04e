//! Everything that happens in a run, as one number: two runs of a seed are the same if their hashes are.
//!
//! What counts: every connection and its bytes, every call to a disk, every line of the log, every fault, each with the
//! simulated time and the machine.

use std::cell::RefCell;
use std::fmt::{self, Write as _};

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

use crate::world;

/// The hash of what has happened so far.
#[derive(Debug)]
pub(crate) struct Trace {
    hash: u64,
    events: u64,
    shown: bool,
}

impl Trace {
    pub(crate) fn new(shown: bool) -> Self {
        Self { hash: 0xcbf2_9ce4_8422_2325, events: 0, shown }
    }

    /// Something happened on a machine; of the bytes that belong to it only the hash is shown.
    pub(crate) fn note(&mut self, now_us: u64, who: &str, what: fmt::Arguments<'_>, bytes: &[u8]) {
        let mut line = String::new();
        // Writing to a string does not fail.
        let _ = write!(line, "{}.{:06} {who}: {what}", now_us / 1_000_000, now_us % 1_000_000);
        self.mix(line.as_bytes());
        self.mix(bytes);
        self.events += 1;
        if self.shown {
            eprintln!("{line} #{:016x}", self.hash);
        }
    }

    fn mix(&mut self, bytes: &[u8]) {
        let mut hash = self.hash ^ bytes.len() as u64;
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word.iter_mut().zip(chunk).for_each(|(to, from)| *to = *from);
            hash = (hash ^ u64::from_le_bytes(word)).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
        }
        self.hash = hash;
    }

    pub(crate) fn hash(&self) -> u64 {
        self.hash
    }

    pub(crate) fn events(&self) -> u64 {
        self.events
    }
}

/// Takes the log of all machines into the trace. turmoil tells by a span which of them is running.
pub(crate) struct Log {
    level: Level,
}

thread_local! {
    /// Machines that have run, and the one that does.
    static NODES: RefCell<(Vec<String>, Option<usize>)> = const { RefCell::new((Vec::new(), None)) };
}

/// The machine that is running now; the simulation itself, if none is.
pub(crate) fn node() -> String {
    NODES
        .with_borrow(|(names, now)| now.and_then(|now| names.get(now)).cloned())
        .unwrap_or_else(|| "-".into())
}

/// The id of all spans that are not machines'.
const OTHER: u64 = u64::MAX;

impl Log {
    pub(crate) fn new(level: Level) -> Self {
        Self { level }
    }
}

impl Subscriber for Log {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        let turmoil = metadata.target().starts_with("turmoil");
        // openraft says at INFO what its messages are, which are in the trace by themselves.
        let chatty = metadata.target().starts_with("openraft");
        let level = if chatty && self.level == Level::INFO { Level::WARN } else { self.level };
        if metadata.is_span() { turmoil } else { !turmoil && *metadata.level() <= level }
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        if span.metadata().name() != "node" {
            return Id::from_u64(OTHER);
        }
        let mut name = Words::default();
        span.record(&mut name);
        NODES.with_borrow_mut(|(names, _)| {
            let at = names.iter().position(|known| *known == name.0).unwrap_or_else(|| {
                names.push(name.0);
                names.len() - 1
            });
            Id::from_u64(at as u64 + 1)
        })
    }

    fn event(&self, event: &Event<'_>) {
        let mut words = Words::default();
        event.record(&mut words);
        let metadata = event.metadata();
        let (level, target) = (metadata.level(), metadata.target());
        world::note(&node(), format_args!("{level} {target}{}", words.0), &[]);
    }

    fn enter(&self, span: &Id) {
        if span.into_u64() != OTHER {
            NODES.with_borrow_mut(|(_, now)| *now = usize::try_from(span.into_u64() - 1).ok());
        }
    }

    fn exit(&self, span: &Id) {
        if span.into_u64() != OTHER {
            NODES.with_borrow_mut(|(_, now)| *now = None);
        }
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
}

/// The fields of an event; of a span of turmoil its name.
#[derive(Default)]
struct Words(String);

impl Visit for Words {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "name" { self.0.push_str(value) } else { self.record_debug(field, &value) }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // Writing to a string does not fail.
        let _ = match field.name() {
            "message" => write!(self.0, " {value:?}"),
            name => write!(self.0, " {name}={value:?}"),
        };
    }
}
