//! What can go wrong, and what became of the request: the two things a caller needs to decide what to do. How servers say
//! it is in [`wire`].

mod wire;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tonic::Code;
use weir_proto::v1::{Applied as WireApplied, ErrorReason, Failure};

/// What this crate returns.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Whether what failed was carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Applied {
    /// It was not, and will not be.
    No,
    /// It was.
    Yes,
    /// Nobody knows.
    Maybe,
}

/// Something failed. Cheap to clone: every receipt of a batch that failed gets the same one.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The server said no.
    #[error("{}", .0.message)]
    Refused(Arc<Refusal>),
    /// No connection could be made, so nothing was sent.
    #[error("cannot reach {address}: {cause}")]
    Unreachable {
        /// Whom we tried, `host:port`.
        address: Arc<str>,
        /// What the system said.
        cause: Arc<str>,
    },
    /// The connection broke after the request may have arrived.
    #[error("connection lost{}: {cause}", if *.applied == Applied::Maybe { ", the outcome is unknown" } else { "" })]
    ConnectionLost {
        /// What was noticed.
        cause: Arc<str>,
        /// Whether it was carried out.
        applied: Applied,
    },
    /// No answer in time.
    #[error("{what}: no answer within {after:?}{}", if *.applied == Applied::Maybe { ", the outcome is unknown" } else { "" })]
    Timeout {
        /// What was waited for, and of whom.
        what: Arc<str>,
        /// How long.
        after: Duration,
        /// Whether it was carried out.
        applied: Applied,
    },
    /// It was tried again and again until its time was up.
    #[error("{what}: given up after {after:?}{}: {last}", if *.applied == Applied::Maybe { ", the outcome is unknown" } else { "" })]
    GivenUp {
        /// What was tried.
        what: Arc<str>,
        /// For how long.
        after: Duration,
        /// Whether it was carried out: an attempt before the last may have been.
        applied: Applied,
        /// What the last attempt failed with.
        last: Arc<Error>,
    },
    /// The caller asked for something that cannot be.
    #[error("{0}")]
    Invalid(Arc<str>),
    /// A record is larger than a batch of its topic may be.
    #[error(
        "a record of {bytes} bytes is larger than the {limit} bytes that a batch of topic \"{topic}\" may have (batch_bytes_max)"
    )]
    RecordTooLarge {
        /// The topic.
        topic: Arc<str>,
        /// The record's size as packed.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// The producer's memory for unsent records is used up; the record was not taken.
    #[error("{used} of {limit} bytes of unsent records are in use (buffer_bytes_max); wait and try again")]
    BufferFull {
        /// Bytes in use.
        used: usize,
        /// The bound.
        limit: usize,
    },
    /// What the server sent is not what was written: the checksum or the content of a batch is wrong.
    #[error("{topic}/{partition}@{offset}: {cause}; seek past it to go on")]
    Corrupt {
        /// The topic.
        topic: Arc<str>,
        /// The partition.
        partition: i32,
        /// Where the batch begins.
        offset: i64,
        /// What is wrong.
        cause: Arc<str>,
    },
    /// The client, producer or consumer was closed.
    #[error("{0} is closed")]
    Closed(&'static str),
}

/// What a server says when it says no.
#[derive(Clone, Debug, PartialEq)]
pub struct Refusal {
    /// The gRPC status code: the class.
    pub code: Code,
    /// The reason, for programs; `Unspecified` if it was not a Weir server that answered.
    pub reason: ErrorReason,
    /// What happened, the limit, and what to do, for people.
    pub message: String,
    /// Whether it was carried out.
    pub applied: Applied,
    /// When to try again; `None`: the same call will not do better.
    pub retry_after: Option<Duration>,
    /// The facts of the message, one by one.
    pub metadata: BTreeMap<String, String>,
    /// Where several parts failed: each of them, as many as there was room for.
    pub failures: Vec<Failure>,
    /// How many more failed.
    pub omitted: i32,
    /// The id of the call, as in the server's log; empty if unknown.
    pub request_id: String,
}

impl Error {
    /// The reason, where there is one in the registry.
    pub fn reason(&self) -> Option<ErrorReason> {
        match self {
            Self::Refused(refusal) => Some(refusal.reason),
            Self::Timeout { .. } => Some(ErrorReason::DeadlineExceeded),
            // What an attempt before may have done is not undone by nobody being there now.
            Self::GivenUp { last, applied, .. } => {
                last.reason().or((*applied == Applied::Maybe).then_some(ErrorReason::OutcomeUnknown))
            }
            Self::ConnectionLost { applied: Applied::Maybe, .. } => Some(ErrorReason::OutcomeUnknown),
            Self::RecordTooLarge { .. } => Some(ErrorReason::RecordTooLarge),
            Self::Corrupt { .. } => Some(ErrorReason::BatchCorrupt),
            Self::BufferFull { .. } => Some(ErrorReason::Overloaded),
            Self::ConnectionLost { .. } | Self::Unreachable { .. } | Self::Invalid(_) | Self::Closed(_) => {
                None
            }
        }
    }

    /// What a server said: now, or to the last of several attempts.
    pub fn refusal(&self) -> Option<&Refusal> {
        match self.last() {
            Self::Refused(refusal) => Some(refusal),
            _ => None,
        }
    }

    /// What the last of several attempts failed with; of one attempt: this.
    pub fn last(&self) -> &Self {
        match self {
            Self::GivenUp { last, .. } => last.last(),
            other => other,
        }
    }

    /// Whether what failed was carried out.
    pub fn applied(&self) -> Applied {
        match self {
            Self::Refused(refusal) => refusal.applied,
            Self::Timeout { applied, .. }
            | Self::GivenUp { applied, .. }
            | Self::ConnectionLost { applied, .. } => *applied,
            _ => Applied::No,
        }
    }

    /// The same, of a call that asked for no change: whatever became of it, nothing was applied.
    #[must_use]
    pub fn of_a_read(mut self) -> Self {
        match &mut self {
            Self::Refused(refusal) => {
                let refusal = Arc::make_mut(refusal);
                refusal.applied = Applied::No;
                // Nobody has answered who decides; what nobody knows then of a change a question does not have.
                if refusal.reason == ErrorReason::OutcomeUnknown {
                    (refusal.reason, refusal.code) = (ErrorReason::ControllerUnavailable, Code::Unavailable);
                }
            }
            Self::GivenUp { applied, last, .. } => {
                *applied = Applied::No;
                *last = Arc::new(last.as_ref().clone().of_a_read());
            }
            Self::Timeout { applied, .. } | Self::ConnectionLost { applied, .. } => *applied = Applied::No,
            _ => {}
        }
        self
    }

    /// When the same may work; `None`: it will not by waiting.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Refused(refusal) => refusal.retry_after,
            Self::Unreachable { .. } | Self::BufferFull { .. } => Some(Duration::from_millis(100)),
            _ => None,
        }
    }

    /// For how long a server wants to be left alone. Whoever cannot be reached wants nothing: others may be there, and how
    /// often the same one is dialled, the waits of whoever tries say.
    pub(crate) fn asked_to_wait(&self) -> Option<Duration> {
        match self {
            Self::Refused(refusal) => refusal.retry_after,
            _ => None,
        }
    }

    /// The facts, one by one; empty where the server gave none.
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        static NONE: BTreeMap<String, String> = BTreeMap::new();
        self.refusal().map_or(&NONE, |refusal| &refusal.metadata)
    }

    /// Whether this lasts until a person does something: the files of a partition are damaged, or nobody is elected
    /// because no replica is known to be complete.
    pub fn waits_for_a_person(&self) -> bool {
        self.reason() == Some(ErrorReason::PartitionDamaged)
            || self.metadata().get("waits_for_a_person").is_some_and(|value| value == "true")
    }

    /// Whether the broker that was asked is up and does not serve yet: it says what it waits for. Another one may serve.
    pub fn is_starting(&self) -> bool {
        self.metadata().contains_key(weir_rpc::STARTING_FACT)
    }

    /// Whether the server gave this reason.
    pub fn is(&self, reason: ErrorReason) -> bool {
        matches!(self, Self::Refused(refusal) if refusal.reason == reason)
    }

    /// Whether another broker, or the same one over a new connection, may do better with the same call.
    pub(crate) fn is_about_the_connection(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::ConnectionLost { .. } => true,
            Self::Refused(r) => {
                matches!(r.reason, ErrorReason::Draining | ErrorReason::MaxAge) || self.is_starting()
            }
            _ => false,
        }
    }

    /// Whether a Weir has decided, and waiting changes nothing: that holds for the attempts before, too, as one that
    /// was carried out would have been known again by its request id, or is harmless to do twice.
    pub(crate) fn is_for_good(&self) -> bool {
        matches!(self, Self::Refused(r) if r.reason != ErrorReason::Unspecified && r.retry_after.is_none())
            && !self.is_about_the_connection()
    }

    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::Invalid(message.into().into())
    }

    pub(crate) fn lost(cause: impl Into<String>) -> Self {
        Self::ConnectionLost { cause: cause.into().into(), applied: Applied::Maybe }
    }

    /// What a broker would say of a topic that was there and is not any more.
    pub(crate) fn topic_gone(topic: &str) -> Self {
        Self::from_failure(&Failure {
            topic: topic.to_owned(),
            code: Code::NotFound.into(),
            reason: ErrorReason::TopicNotFound.into(),
            message: format!("topic \"{topic}\" does not exist any more"),
            applied: WireApplied::No.into(),
            ..Default::default()
        })
    }

    /// What a leader would say of a position on a history that was cut off.
    pub(crate) fn log_truncated(topic: &str, partition: i32, offset: i64) -> Self {
        Self::from_failure(&Failure {
            topic: topic.to_owned(),
            partition,
            code: Code::FailedPrecondition.into(),
            reason: ErrorReason::LogTruncated.into(),
            message: format!(
                "{topic}/{partition}: what was read before offset {offset} is not in the leader's log any more"
            ),
            applied: WireApplied::No.into(),
            metadata: [("offset".to_owned(), offset.to_string())].into(),
            ..Default::default()
        })
    }
}
