//! A world to be checked: how large it is, and how much may go wrong.

use weir_types::Durability;

use crate::bug::{Bug, Edge};
use crate::wire::Kind;

/// A world.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    pub(crate) brokers: usize,
    pub(crate) durability: Durability,
    pub(crate) min_insync: i32,
    /// How many records the producer writes.
    pub(crate) records: usize,
    /// How many messages are on their way at most.
    pub(crate) messages: usize,
    /// What takes its time; everything else arrives as soon as it is sent.
    pub(crate) slow: &'static [Kind],
    /// Whether a flush takes its time; otherwise what is written is flushed at once.
    pub(crate) slow_flush: bool,
    /// Values that min.insync may get.
    pub(crate) mins: &'static [i32],
    /// Whether a broker sees each version of the metadata; otherwise it may miss some.
    pub(crate) stepwise: bool,
    /// Whether the first leader is alone at first: the others' logs are made after its own.
    pub(crate) begins_alone: bool,
    pub(crate) faults: Faults,
    /// Whether more may go wrong than is promised to be survived. Then somebody may be missing who has everything; but
    /// whoever leads has it.
    pub(crate) beyond: bool,
    pub(crate) bug: Option<Bug>,
}

/// How often each thing may happen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Faults {
    /// A process dies.
    pub(crate) deaths: u8,
    /// A broker stops in order.
    pub(crate) stops: u8,
    /// A broker says that it is about to stop.
    pub(crate) drains: u8,
    /// A machine loses power.
    pub(crate) powers: u8,
    /// All machines lose power at once.
    pub(crate) blackouts: u8,
    /// A disk is lost.
    pub(crate) disks: u8,
    /// A disk loses the end of what was on it, and says nothing of that.
    pub(crate) tails: u8,
    /// A disk is replaced by a copy of it from before.
    pub(crate) copies: u8,
    /// A process that lives is fenced.
    pub(crate) fences: u8,
    /// A leadership is handed over by the controller.
    pub(crate) moves: u8,
    /// Followers are behind for too long.
    pub(crate) lags: u8,
    /// A leader gives up waiting for the controller's answer.
    pub(crate) timeouts: u8,
    /// A message arrives twice.
    pub(crate) repeats: u8,
    /// A stream between two brokers breaks.
    pub(crate) breaks: u8,
    /// min.insync is changed.
    pub(crate) mins: u8,
    /// Records are deleted.
    pub(crate) deletes: u8,
    /// A person lets a replica lead that is not known to be complete.
    pub(crate) unclean: u8,
    /// A disk becomes slow, or quick again.
    pub(crate) slows: u8,
}

impl Config {
    /// Three brokers, one record, nothing is late, nothing goes wrong.
    pub(crate) const fn new(durability: Durability, min_insync: i32) -> Self {
        Self {
            brokers: 3,
            durability,
            min_insync,
            records: 1,
            messages: 1,
            slow: &[],
            slow_flush: false,
            mins: &[],
            stepwise: false,
            begins_alone: false,
            faults: Faults {
                deaths: 0,
                stops: 0,
                drains: 0,
                powers: 0,
                blackouts: 0,
                disks: 0,
                tails: 0,
                copies: 0,
                fences: 0,
                moves: 0,
                lags: 0,
                timeouts: 0,
                repeats: 0,
                breaks: 0,
                mins: 0,
                deletes: 0,
                unclean: 0,
                slows: 0,
            },
            beyond: false,
            bug: None,
        }
    }

    pub(crate) fn has(&self, bug: Edge) -> bool {
        self.bug == Some(Bug::Edge(bug))
    }
}
