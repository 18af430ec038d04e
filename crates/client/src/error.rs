//! What can go wrong, and what became of the request: the two things a caller needs to decide what to do.
//!
//! The one place where a gRPC status becomes an [`Error`]. The library below misleads in two cases: a deadline
//! of its own ends as CANCELLED, and a connection that broke as UNKNOWN "transport error". Neither says anything
//! about the server, so both become what they are: nobody knows what happened to the request.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tonic::{Code, Status};
use tonic_types::pb;
use weir_proto::v1::{Applied as WireApplied, ErrorReason, Failure, FailureList};

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

impl From<WireApplied> for Applied {
    fn from(applied: WireApplied) -> Self {
        match applied {
            WireApplied::No => Self::No,
            WireApplied::Yes => Self::Yes,
            WireApplied::Maybe | WireApplied::Unspecified => Self::Maybe,
        }
    }
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
    #[error("connection lost, the outcome is unknown: {cause}")]
    ConnectionLost {
        /// What was noticed.
        cause: Arc<str>,
    },
    /// No answer in time.
    #[error("{what}: no answer within {after:?}{}", if *.applied == Applied::Maybe { ", the outcome is unknown" } else { "" })]
    Timeout {
        /// What was waited for.
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
    /// Where several parts failed: each of them (the first eight).
    pub failures: Vec<Failure>,
    /// The id of the call, as in the server's log; empty if unknown.
    pub request_id: String,
}

impl Error {
    /// The reason, where there is one in the registry.
    pub fn reason(&self) -> Option<ErrorReason> {
        match self {
            Self::Refused(refusal) => Some(refusal.reason),
            Self::Timeout { .. } => Some(ErrorReason::DeadlineExceeded),
            Self::GivenUp { last, .. } => last.reason(),
            Self::ConnectionLost { .. } => Some(ErrorReason::OutcomeUnknown),
            Self::RecordTooLarge { .. } => Some(ErrorReason::RecordTooLarge),
            Self::Corrupt { .. } => Some(ErrorReason::BatchCorrupt),
            Self::BufferFull { .. } => Some(ErrorReason::Overloaded),
            Self::Unreachable { .. } | Self::Invalid(_) | Self::Closed(_) => None,
        }
    }

    /// Whether what failed was carried out.
    pub fn applied(&self) -> Applied {
        match self {
            Self::Refused(refusal) => refusal.applied,
            Self::Timeout { applied, .. } | Self::GivenUp { applied, .. } => *applied,
            Self::ConnectionLost { .. } => Applied::Maybe,
            _ => Applied::No,
        }
    }

    /// When the same may work; `None`: it will not by waiting.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Refused(refusal) => refusal.retry_after,
            Self::Unreachable { .. } | Self::BufferFull { .. } => Some(Duration::from_millis(100)),
            _ => None,
        }
    }

    /// The facts, one by one; empty where the server gave none.
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        static NONE: BTreeMap<String, String> = BTreeMap::new();
        match self {
            Self::Refused(refusal) => &refusal.metadata,
            Self::GivenUp { last, .. } => last.metadata(),
            _ => &NONE,
        }
    }

    /// Whether this lasts until a person does something: the files of a partition are damaged, or nobody is elected
    /// because no replica is known to be complete.
    pub fn waits_for_a_person(&self) -> bool {
        self.reason() == Some(ErrorReason::PartitionDamaged)
            || self.metadata().get("waits_for_a_person").is_some_and(|value| value == "true")
    }

    /// Whether the server gave this reason.
    pub fn is(&self, reason: ErrorReason) -> bool {
        matches!(self, Self::Refused(refusal) if refusal.reason == reason)
    }

    /// Whether another broker, or the same one over a new connection, may do better with the same call.
    pub(crate) fn is_about_the_connection(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::ConnectionLost { .. } => true,
            Self::Refused(r) => matches!(r.reason, ErrorReason::Draining | ErrorReason::MaxAge),
            _ => false,
        }
    }

    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::Invalid(message.into().into())
    }

    pub(crate) fn lost(cause: impl Into<String>) -> Self {
        Self::ConnectionLost { cause: cause.into().into() }
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

    /// A failure that came as a message.
    pub(crate) fn from_failure(failure: &Failure) -> Self {
        let mut metadata = failure.metadata.clone();
        if !failure.topic.is_empty() {
            metadata.insert("topic".to_owned(), failure.topic.clone());
            // Of a topic that is not there no partition is meant.
            if !matches!(failure.reason(), ErrorReason::TopicNotFound | ErrorReason::TopicIdMismatch) {
                metadata.insert("partition".to_owned(), failure.partition.to_string());
            }
        }
        Self::Refused(Arc::new(Refusal {
            code: Code::from_i32(failure.code),
            reason: failure.reason(),
            message: failure.message.clone(),
            applied: failure.applied().into(),
            retry_after: failure.retry_after_ms.map(millis),
            metadata,
            failures: Vec::new(),
            request_id: String::new(),
        }))
    }

    /// A failure that came as a status, from `address`.
    pub(crate) fn from_status(status: &Status, address: &str) -> Self {
        if let Some(refusal) = refusal(status) {
            return Self::Refused(Arc::new(refusal));
        }
        let cause = || Arc::from(causes(status));
        match status.code() {
            // The connector failed: not a byte of the request left this process.
            Code::Unavailable if source::<tonic::ConnectError>(status) => {
                Self::Unreachable { address: address.into(), cause: cause() }
            }
            // Everything else that has a source was made on this side of the wire.
            _ if std::error::Error::source(status).is_some() => Self::ConnectionLost { cause: cause() },
            Code::Cancelled | Code::Unknown => Self::ConnectionLost { cause: cause() },
            // Something between us and a Weir server answered, or a server that is none.
            code => Self::Refused(Arc::new(Refusal {
                code,
                reason: ErrorReason::Unspecified,
                message: status.message().to_owned(),
                applied: match code {
                    Code::InvalidArgument | Code::NotFound | Code::PermissionDenied => Applied::No,
                    Code::Unauthenticated | Code::Unimplemented => Applied::No,
                    _ => Applied::Maybe,
                },
                retry_after: None,
                metadata: BTreeMap::new(),
                failures: Vec::new(),
                request_id: String::new(),
            })),
        }
    }
}

/// What a Weir server put into the details; `None` if there is no ErrorInfo of ours.
fn refusal(status: &Status) -> Option<Refusal> {
    use prost::Message;

    let details = pb::Status::decode(status.details()).ok()?;
    let find = |name: &str| details.details.iter().find(|any| any.type_url.ends_with(name));
    let info = pb::ErrorInfo::decode(&*find("/google.rpc.ErrorInfo")?.value).ok()?;
    if info.domain != "weir" {
        return None;
    }
    let retry_after = find("/google.rpc.RetryInfo")
        .and_then(|any| pb::RetryInfo::decode(&*any.value).ok())
        .and_then(|retry| retry.retry_delay.and_then(|delay| Duration::try_from(delay).ok()));
    let failures = find("/weir.v1.FailureList")
        .and_then(|any| FailureList::decode(&*any.value).ok())
        .map(|list| list.failures)
        .unwrap_or_default();
    let mut metadata: BTreeMap<_, _> = info.metadata.into_iter().collect();
    let applied = match metadata.remove("applied").as_deref() {
        Some("NO") => Applied::No,
        Some("YES") => Applied::Yes,
        _ => Applied::Maybe,
    };
    Some(Refusal {
        code: status.code(),
        reason: ErrorReason::from_str_name(&format!("ERROR_REASON_{}", info.reason)).unwrap_or_default(),
        message: status.message().to_owned(),
        applied,
        retry_after,
        metadata,
        failures,
        request_id: header(status, "weir-request-id"),
    })
}

fn header(status: &Status, name: &str) -> String {
    status.metadata().get(name).and_then(|v| v.to_str().ok()).unwrap_or_default().to_owned()
}

fn millis(ms: i64) -> Duration {
    Duration::from_millis(u64::try_from(ms).unwrap_or(0))
}

fn source<E: std::error::Error + 'static>(status: &Status) -> bool {
    let mut next = std::error::Error::source(status);
    while let Some(error) = next {
        if error.is::<E>() {
            return true;
        }
        next = error.source();
    }
    false
}

/// The innermost cause says most ("connection refused"); the layers above only say that something failed.
fn causes(status: &Status) -> String {
    let mut innermost = None;
    let mut next = std::error::Error::source(status);
    while let Some(error) = next {
        innermost = Some(error);
        next = error.source();
    }
    innermost.map_or_else(|| status.message().to_owned(), ToString::to_string)
}

#[cfg(test)]
mod tests {
    use weir_rpc::Problem;

    use super::*;

    #[test]
    fn what_a_server_says_arrives_whole() {
        let status = Problem::new(ErrorReason::NotLeader, "broker 1 does not lead a/0")
            .fact("leader", 2)
            .at("a", 0)
            .retry_after(Duration::from_millis(40))
            .status();
        let error = Error::from_status(&status, "x:1");
        assert!(error.is(ErrorReason::NotLeader));
        assert_eq!(error.applied(), Applied::No);
        assert_eq!(error.retry_after(), Some(Duration::from_millis(40)));
        assert_eq!(error.metadata()["leader"], "2");
        assert_eq!(error.to_string(), "broker 1 does not lead a/0");
        let Error::Refused(refusal) = error else { panic!("{error:?}") };
        assert_eq!(refusal.failures[0].topic, "a");
    }

    #[test]
    fn what_is_noticed_here_has_the_facts_that_a_server_would_give() {
        let error = Error::log_truncated("a", 1, 7);
        let facts: Vec<_> = error.metadata().iter().map(|(name, value)| (&**name, &**value)).collect();
        assert_eq!(facts, [("offset", "7"), ("partition", "1"), ("topic", "a")]);
        let gone = Error::topic_gone("a");
        assert_eq!(gone.metadata().keys().collect::<Vec<_>>(), ["topic"], "no partition is meant");
    }

    #[test]
    fn a_broken_connection_is_never_taken_for_a_refusal() {
        let broken = Status::from_error(Box::new(std::io::Error::from(std::io::ErrorKind::BrokenPipe)));
        let error = Error::from_status(&broken, "x:1");
        assert_eq!(error.applied(), Applied::Maybe);
        assert!(matches!(error, Error::ConnectionLost { .. }), "{error:?}");
        for status in [Status::cancelled("Timeout expired"), Status::unknown("transport error")] {
            assert_eq!(Error::from_status(&status, "x:1").applied(), Applied::Maybe);
        }
    }

    #[test]
    fn a_connection_never_made_applied_nothing() {
        let refused = std::io::Error::new(std::io::ErrorKind::ConnectionRefused, "connection refused");
        let status = Status::from_error(Box::new(tonic::ConnectError(Box::new(refused))));
        let error = Error::from_status(&status, "x:1");
        assert_eq!(error.applied(), Applied::No);
        assert_eq!(error.to_string(), "cannot reach x:1: connection refused");
    }

    #[test]
    fn a_stranger_s_answer_is_shown_as_it_is() {
        let error = Error::from_status(&Status::unimplemented("no such service"), "x:1");
        assert_eq!(error.to_string(), "no such service");
        assert_eq!(error.applied(), Applied::No);
    }
}
