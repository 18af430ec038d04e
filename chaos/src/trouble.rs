//! What happens to bytes on their way from one node to another, beside being cut off: all that a network that loses, delays
//! and breaks does to a connection, as TCP shows it to whoever uses one. Nothing here makes bytes vanish out of the
//! middle of a connection, change or overtake each other: TCP lets nobody see that.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;
use weir_tests::dice::Dice;

use crate::who::Who;

/// What a slow way takes at least, and how much more at most, in milliseconds: around the earth, with queues.
const SLOW_MS: u64 = 30;
const JITTER_MS: u64 = 120;
/// How many of a hundred pieces are lost on a way that loses, and how many of those again ...
const LOST_PERCENT: u64 = 5;
const LOST_AGAIN_PERCENT: u64 = 30;
/// ... and after how long TCP sends one again, in milliseconds: the least that Linux waits; each time twice as long.
const AGAIN_MS: u64 = 200;
/// How often at most.
const AGAIN_MAX: u32 = 4;
/// Of a hundred pieces, how many a connection does not outlive where connections break. Whatever it carries, it soon does.
const BREAKS_PERCENT: u64 = 30;

/// One thing that is wrong with a way. It holds for all connections, whoever has made them, and for those to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Trouble {
    /// All that passes takes its time, now more, now less.
    Slow,
    /// Packets are lost, and sent again; what follows waits for them.
    Lossy,
    /// Nothing passes, and nothing is lost.
    Stalled,
    /// A few bytes pass at a time.
    Trickling,
    /// Connections are reset in the middle of what they carry.
    Resetting,
    /// Connections end for the receiver, and go on for the sender.
    HalfClosed,
}

impl Trouble {
    /// All of them.
    pub(crate) const ALL: [Self; 6] =
        [Self::Slow, Self::Lossy, Self::Stalled, Self::Trickling, Self::Resetting, Self::HalfClosed];

    /// What it is counted as.
    pub(crate) fn kind(self) -> &'static str {
        match self {
            Self::Slow => "slow way",
            Self::Lossy => "lossy way",
            Self::Stalled => "stalled way",
            Self::Trickling => "trickling way",
            Self::Resetting => "way that resets",
            Self::HalfClosed => "way that half-closes",
        }
    }

    /// What it does, and what it has done is counted as.
    fn met(self) -> &'static str {
        match self {
            Self::Slow => "pieces delayed",
            Self::Lossy => "pieces lost and sent again",
            Self::Stalled => "pieces held up",
            Self::Trickling => "pieces that trickled",
            Self::Resetting => "connections reset",
            Self::HalfClosed => "connections half closed",
        }
    }
}

type Troubles = BTreeSet<Trouble>;

/// The ways from everybody to everybody. Cloning gives another handle to the same.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ways(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    ways: Mutex<BTreeMap<(Who, Who), watch::Sender<Troubles>>>,
    met: [AtomicU64; Trouble::ALL.len()],
}

impl Ways {
    /// From now on it is so on the way from one to another.
    pub(crate) fn begin(&self, trouble: Trouble, from: Who, to: Who) {
        self.change(from, to, |troubles| {
            troubles.insert(trouble);
        });
    }

    /// It is so no more. A connection that was broken stays broken.
    pub(crate) fn end(&self, trouble: Trouble, from: Who, to: Who) {
        self.change(from, to, |troubles| {
            troubles.remove(&trouble);
        });
    }

    /// The way from one to another.
    pub(crate) fn way(&self, from: Who, to: Who) -> Way {
        let troubles = self.0.ways.lock().entry((from, to)).or_default().subscribe();
        Way { troubles, ways: self.clone() }
    }

    /// What troubles came to, by what it is called.
    pub(crate) fn met(&self) -> BTreeMap<String, u64> {
        let counts = self.0.met.iter().map(|count| count.load(Ordering::Relaxed));
        let counts = Trouble::ALL.into_iter().zip(counts).filter(|(_, count)| *count > 0);
        counts.map(|(trouble, count)| (trouble.met().to_owned(), count)).collect()
    }

    fn change(&self, from: Who, to: Who, change: impl FnOnce(&mut Troubles)) {
        self.0.ways.lock().entry((from, to)).or_default().send_modify(change);
    }
}

/// The way from one to another, for one connection.
#[derive(Clone, Debug)]
pub(crate) struct Way {
    troubles: watch::Receiver<Troubles>,
    ways: Ways,
}

impl Way {
    /// Whether it meets this now; it is counted, if so.
    pub(crate) fn meets(&self, trouble: Trouble) -> bool {
        let meets = self.has(trouble);
        if meets {
            self.count(trouble);
        }
        meets
    }

    /// Whether a connection ends of this with the next piece.
    pub(crate) fn breaks(&self, trouble: Trouble, dice: &mut Dice) -> bool {
        let breaks = self.has(trouble) && dice.percent(BREAKS_PERCENT);
        if breaks {
            self.count(trouble);
        }
        breaks
    }

    /// How long a piece is on its way that sets out now.
    pub(crate) fn delay(&self, dice: &mut Dice) -> Duration {
        let mut delay_ms = 0;
        if self.meets(Trouble::Slow) {
            delay_ms += SLOW_MS + dice.below(JITTER_MS);
        }
        if self.has(Trouble::Lossy) && dice.percent(LOST_PERCENT) {
            self.count(Trouble::Lossy);
            let mut times = 1;
            while times < AGAIN_MAX && dice.percent(LOST_AGAIN_PERCENT) {
                times += 1;
            }
            delay_ms += (0..times).map(|time| AGAIN_MS << time).sum::<u64>();
        }
        Duration::from_millis(delay_ms)
    }

    /// Waits until something may pass.
    pub(crate) async fn until_open(&mut self) {
        if self.meets(Trouble::Stalled) {
            // There is a sender as long as there are ways, and this has a handle to them.
            let _ = self.troubles.wait_for(|troubles| !troubles.contains(&Trouble::Stalled)).await;
        }
    }

    fn has(&self, trouble: Trouble) -> bool {
        self.troubles.borrow().contains(&trouble)
    }

    fn count(&self, trouble: Trouble) {
        let counts = Trouble::ALL.into_iter().zip(&self.ways.0.met);
        counts.filter(|(of, _)| *of == trouble).for_each(|(_, count)| {
            count.fetch_add(1, Ordering::Relaxed);
        });
    }
}
