//! How a follower and its leader agree on where to go on. It is the one way in which a log is cut (correctness rule 1):
//! a follower says where its log ends and which leadership wrote that, the leader compares it with its own history
//! (KIP-101, KIP-279), and the follower cuts to where the two part, and asks again.

use weir_types::{LeaderEpoch, Offset};

use crate::ends::{Ends, History, Log};
use crate::mutant::Mutant;

/// Where a follower's log is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Position {
    /// Its end.
    pub log_end: Offset,
    /// How much of it is on the follower's disk.
    pub flushed_end: Offset,
    /// The leader epoch of what is just before its end; `None`: nothing was ever in it.
    pub last_epoch: Option<LeaderEpoch>,
}

impl Position {
    pub(crate) fn ends(self) -> Ends {
        Ends { written: self.log_end, flushed: self.flushed_end.min(self.log_end) }
    }
}

/// What a leader answers to a subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Welcome {
    /// The follower's log is a part of the leader's: what comes after it follows.
    Follow,
    /// The logs part: this is the largest epoch of the leader's that is not above the follower's last one, and its end.
    Diverged {
        /// The epoch.
        epoch: LeaderEpoch,
        /// Its end in the leader's log.
        end: Offset,
        /// Where the leader's log begins.
        log_start: Offset,
    },
    /// What the follower needs next is gone: it starts over where the leader's log begins (rules 15, 16).
    StartOver {
        /// Where that is.
        log_start: Offset,
    },
    /// The leader's record names no replica there.
    NotAReplica,
    /// Another process has been this broker since.
    Superseded,
    /// It may have what was acknowledged and the leader lacks: nothing is cut, it shall lead itself.
    GoesFurther,
    /// The logs part, and the leader may lack what was acknowledged: nothing is cut before it has heard who else is eligible.
    NotYet,
}

/// Compares a follower's end with the leader's history.
pub(crate) fn welcome(position: Position, history: &impl History, log: &Log) -> Welcome {
    if position.log_end < log.log_start {
        return Welcome::StartOver { log_start: log.log_start };
    }
    let Some(last) = position.last_epoch else {
        // Nothing was ever in it. Whoever begins at an offset above 0 has the epochs of what was before.
        return match position.log_end {
            end if end == log.log_start => Welcome::Follow,
            _ => Welcome::StartOver { log_start: log.log_start },
        };
    };
    let (epoch, end) = history.end_of(last);
    if epoch == last && position.log_end <= end {
        return Welcome::Follow;
    }
    Welcome::Diverged { epoch, end, log_start: log.log_start }
}

/// What a follower does about an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Step {
    /// Takes what comes.
    Follow,
    /// Cuts its log, and asks again.
    Cut {
        /// The new end.
        to: Offset,
    },
    /// Begins a new log at an offset, and asks again.
    StartOver {
        /// Where it begins.
        at: Offset,
    },
    /// Asks nothing more: it is not wanted.
    Leave,
    /// Asks again, after a while.
    AskAgain,
}

/// What a follower does about its leader's answer.
pub fn step(welcome: Welcome, history: &impl History, log: &Log) -> Step {
    match welcome {
        Welcome::Follow => Step::Follow,
        Welcome::StartOver { log_start } => Step::StartOver { at: log_start },
        Welcome::NotAReplica | Welcome::Superseded => Step::Leave,
        Welcome::GoesFurther | Welcome::NotYet => Step::AskAgain,
        Welcome::Diverged { epoch, end, log_start } => {
            let (_, own_end) = history.end_of(epoch);
            if Mutant::CutAtHighWatermark.is_planted() {
                return Step::Cut { to: log.high_watermark };
            }
            match own_end.min(end) {
                // Nothing of it is in the leader's log.
                to if to < log.log_start => Step::StartOver { at: log_start },
                to => Step::Cut { to },
            }
        }
    }
}
