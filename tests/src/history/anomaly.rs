//! What a log must never do, and the words for it.

use std::fmt;

use super::{Mark, Place};

/// What a log must never do.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "the words of Display say what is what")]
pub enum Anomaly {
    /// [inconsistent-offsets]
    Inconsistent {
        place: Place,
        offset: i64,
        one: String,
        other: String,
    },
    /// [lost-write]
    Lost {
        place: Place,
        mark: Mark,
        offset: i64,
    },
    /// [unseen]
    Unseen {
        place: Place,
        mark: Mark,
        offset: i64,
        end: i64,
    },
    /// [duplicate]
    Duplicate {
        place: Place,
        mark: Mark,
        offsets: Vec<i64>,
    },
    /// [nonmonotonic-send]
    Reordered {
        place: Place,
        earlier: (Mark, i64),
        later: (Mark, i64),
    },
    /// [aborted-read]
    Refused {
        place: Place,
        mark: Mark,
        offset: i64,
    },
    /// [precommitted-read]
    Uncommitted {
        place: Place,
        offset: i64,
        high_watermark: i64,
    },
    /// [poll-skip, int-poll-skip]
    Skipped {
        place: Place,
        mark: Mark,
        offset: i64,
    },
    /// [nonmonotonic-poll, int-nonmonotonic-poll]
    WentBack {
        place: Place,
        from: i64,
        to: i64,
    },
    Changed {
        place: Place,
        offset: i64,
        mark: Mark,
    },
    Unknown {
        place: Place,
        offset: i64,
        value: String,
    },
}

impl fmt::Display for Anomaly {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Inconsistent { place, offset, one, other } => {
                write!(f, "{place}@{offset} is {one} for one and {other} for another")
            }
            Self::Lost { place, mark, offset } => {
                write!(f, "{mark:?} was acknowledged at {place}@{offset}, and is not there")
            }
            Self::Unseen { place, mark, offset, end } => {
                write!(f, "{mark:?} was acknowledged at {place}@{offset}, and the log ends at {end}")
            }
            Self::Duplicate { place, mark, offsets } => write!(f, "{mark:?} is in {place} at {offsets:?}"),
            Self::Reordered { place, earlier, later } => {
                write!(
                    f,
                    "{place}: {:?} is at {}, {:?} behind it at {}",
                    later.0, later.1, earlier.0, earlier.1
                )
            }
            Self::Refused { place, mark, offset } => {
                write!(f, "{mark:?} was refused as not applied, and is at {place}@{offset}")
            }
            Self::Uncommitted { place, offset, high_watermark } => {
                write!(f, "{place}@{offset} was read, and {high_watermark} was the end of what is committed")
            }
            Self::Skipped { place, mark, offset } => {
                write!(f, "a reader passed over {mark:?} at {place}@{offset}")
            }
            Self::WentBack { place, from, to } => {
                write!(f, "a reader of {place} went from {from} back to {to}")
            }
            Self::Changed { place, offset, mark } => write!(f, "{place}@{offset} is not what {mark:?} was"),
            Self::Unknown { place, offset, value } => write!(f, "nobody wrote {place}@{offset}: {value}"),
        }
    }
}
