//! What a failed append means for the batches behind it.

use std::time::Duration;

use weir_proto::v1::{ErrorReason, Failure};

use crate::error::Applied;
use crate::{Error, Result};

/// What to do with a batch that failed.
#[derive(Clone, Debug)]
pub(super) enum Verdict {
    /// It was not applied by this attempt; send it again, after looking at the map if `elsewhere`.
    Again { elsewhere: bool, after: Option<Duration> },
    /// Nobody knows whether this attempt was applied.
    Unknown(Error),
    /// A batch before it failed; it comes again after that one.
    Behind,
    /// The partition does not know this producer as this batch has it: another id is needed.
    Stranger(Error),
    /// The topic is not what it was.
    Gone(Error),
    /// No, and never. The error says whether it was applied.
    Never(Error),
}

impl Verdict {
    pub(super) fn of(failure: &Failure) -> Self {
        use ErrorReason as R;
        let error = Error::from_failure(failure);
        let after = error.retry_after();
        match (failure.reason(), error.applied()) {
            (R::StreamPoisoned, Applied::No) => Self::Behind,
            (_, Applied::Maybe) => Self::Unknown(error),
            // Mostly it is over in a few milliseconds, and our own waits grow if it is not.
            (R::NotLeader | R::NoLeader | R::LeaderEpochStale | R::LeaderEpochUnknown, Applied::No) => {
                Self::Again { elsewhere: true, after: None }
            }
            (R::TopicNotFound | R::PartitionNotFound | R::TopicIdMismatch, Applied::No) => Self::Gone(error),
            (R::ProducerUnknown | R::SequenceGap | R::SequenceTooOld | R::ProducerFenced, Applied::No) => {
                Self::Stranger(error)
            }
            (_, Applied::No) if after.is_some() => Self::Again { elsewhere: false, after },
            _ => Self::Never(error),
        }
    }
}

/// What the partition says about a batch that was given up or refused while in doubt.
#[derive(Clone, Debug)]
pub(super) enum Outcome {
    /// It is there.
    Appended(super::receipt::Delivery),
    /// It is not and will not be, and neither will what was sent after it: the partition is fenced for the
    /// producer's next epoch.
    Never,
    /// The partition does not remember.
    Forgotten,
    /// The topic is gone.
    Gone(Error),
}

/// The result of a batch that nobody can tell about.
pub(super) fn unknown<T>(cause: &str) -> Result<T> {
    Err(Error::lost(cause))
}
