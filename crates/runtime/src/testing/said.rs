//! What is said in the log, noted for the test in whose thread it is said.
//!
//! One subscriber for the whole process, there before anything can be said: tracing remembers for each place in the
//! code whether anybody listens, and a subscriber that comes while that is found out may be passed over for good.

use std::cell::RefCell;
use std::fmt;
use std::sync::Once;

use tracing::{Event, Level, Metadata, Subscriber, field, span};

thread_local! {
    static NOTED: RefCell<Option<Vec<String>>> = const { RefCell::new(None) };
}

/// Begins to listen, for tests that want to know. To be called before anything of the log runs.
///
/// # Panics
/// Somebody else listens in this process.
pub fn listen() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        tracing::subscriber::set_global_default(Listener).expect("only tests listen, and only so");
    });
}

/// What was said in this thread since.
#[derive(Debug)]
pub struct Said(());

impl Said {
    /// From now on.
    pub fn here() -> Self {
        listen();
        NOTED.set(Some(Vec::new()));
        Self(())
    }

    /// How often these words were said.
    pub fn count(&self, words: &str) -> usize {
        NOTED.with_borrow(|noted| noted.iter().flatten().filter(|said| said.contains(words)).count())
    }
}

struct Listener;

impl Subscriber for Listener {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= Level::INFO
    }

    fn event(&self, event: &Event<'_>) {
        NOTED.with_borrow_mut(|noted| {
            if let Some(noted) = noted {
                event.record(&mut Words(noted));
            }
        });
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
    fn enter(&self, _: &span::Id) {}
    fn exit(&self, _: &span::Id) {}
}

struct Words<'a>(&'a mut Vec<String>);

impl field::Visit for Words<'_> {
    fn record_debug(&mut self, _: &field::Field, value: &dyn fmt::Debug) {
        self.0.push(format!("{value:?}"));
    }
}
