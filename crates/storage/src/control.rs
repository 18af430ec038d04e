//! What else is done to a partition, in the same queue as its appends: nothing overtakes.

use std::fmt;

use tokio::sync::oneshot;
use weir_types::{KnownBatch, LeaderEpoch, Offset, Producer};

use crate::admission::Admission;
use crate::append::AppendError;
use crate::config::LogConfig;
use crate::error::Error;
use crate::moves;
use crate::retention::Front;

/// A change of a partition. Done when it is in force, and durable where it has to be.
pub enum Control {
    /// Who decides about appends from now on: this replica leads, or does not lead any more. Appends that wait for
    /// the high watermark stay, and are answered by the new one.
    SetAdmission(Box<dyn Admission>),
    /// Other settings.
    Configure(LogConfig),
    /// Cuts everything from this offset on, which must lie between high watermark and log end and between two
    /// frames. What is kept is synced, and the cut durable, before anything is appended. Appends that wait behind
    /// it are answered [`crate::AppendError::Indeterminate`]. At the log's end no byte goes, but the list of epochs is
    /// trimmed (rule 1).
    Truncate {
        /// The new end.
        to: Offset,
        /// A person has accepted that committed records are lost: the offset may lie below the high watermark, which
        /// falls with it, and at or above the log's start. Nothing else ever lowers a high watermark.
        below_high_watermark: bool,
        /// The leadership whose log it is cut to: refused unless that is followed when it is done, because the log of a
        /// replica that leads by now, or follows another one, is cut by what an earlier leader said no more (correctness
        /// rule D1). `None`: whoever asks answers for it.
        following: Option<LeaderEpoch>,
    },
    /// Nothing before this offset can be read any more; whole segments before it go. At most the last stable offset;
    /// an offset below the current one changes nothing. Durable when done; many that are asked for at once are made
    /// so together. Appends do not wait for it. A follower's moves where its leader's has, as far as it has committed.
    /// An error: nothing has changed, but if the partition was closed
    /// meanwhile it may have.
    SetLogStart {
        /// The new start.
        offset: Offset,
    },
    /// Starts a new segment, if the active one holds anything.
    Roll,
    /// Nothing is appended any more; appends that wait are answered, everything is synced.
    Close,
}

impl fmt::Debug for Control {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SetAdmission(_) => f.write_str("SetAdmission"),
            Self::Configure(config) => f.debug_tuple("Configure").field(config).finish(),
            Self::Truncate { to, below_high_watermark: false, .. } => write!(f, "Truncate({to})"),
            Self::Truncate { to, below_high_watermark: true, .. } => write!(f, "Truncate({to}, below HW)"),
            Self::SetLogStart { offset } => write!(f, "SetLogStart({offset})"),
            Self::Roll => f.write_str("Roll"),
            Self::Close => f.write_str("Close"),
        }
    }
}

/// Which append somebody wants to know about (correctness rule 19).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutcomeQuery {
    /// Whose.
    pub producer: Producer,
    /// The first sequence number of the batch.
    pub base_sequence: i32,
    /// Whether to make sure that it is never appended later: a fence for the producer's next epoch is appended, and
    /// the answer waits until that is committed.
    pub seal: bool,
}

/// What the log says of an append.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is in the log and committed.
    Appended(KnownBatch),
    /// It is in the log, and not committed yet.
    Pending(KnownBatch),
    /// It is not in the log; it may come.
    NotSoFar,
    /// It is not in the log, and never will be: the producer goes on with this epoch.
    Never {
        /// The producer's next epoch, with sequence 0.
        next_epoch: i32,
    },
    /// It cannot be said.
    Unknown(UnknownCause),
}

/// Why it cannot be said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnknownCause {
    /// The producer is not known (any more).
    Expired,
    /// The batch is older than what is remembered.
    Window,
    /// The producer has a newer epoch, and the batch was of an older one.
    Fenced,
}

/// A command in the queue, with where its answer goes.
pub(crate) enum Command {
    Control(Control, Answer<()>),
    Outcome(OutcomeQuery, Answer<Result<Outcome, AppendError>>),
    /// What a restart would have to scan for is to be written down, if it has become much.
    Note,
    /// A new segment is to be begun, if by this wall clock the active one has lived long enough.
    RollOld {
        now_ms: i64,
    },
    /// The log begins elsewhere from now on, which is durable, and was asked for by these.
    BeginAt(Front, Vec<Answer<()>>),
    /// Blocks that are reserved ahead are to be given back: others need them.
    GiveBack,
    /// The partition is being deleted: nothing of it matters any more.
    Abandon(Answer<()>),
}

pub(crate) type Answer<T> = oneshot::Sender<Result<T, Error>>;

impl Command {
    pub(crate) fn refuse(self) {
        // Whoever asked may have gone.
        match self {
            Self::Control(_, answer) | Self::Abandon(answer) => drop(answer.send(Err(Error::Closed))),
            Self::Outcome(_, answer) => drop(answer.send(Err(Error::Closed))),
            Self::BeginAt(_, answers) => moves::answer(answers, &Err(Error::Closed)),
            Self::Note | Self::RollOld { .. } | Self::GiveBack => {}
        }
    }
}
