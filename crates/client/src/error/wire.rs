//! How a failure comes over the wire and is said again: the one place where a gRPC status becomes an [`Error`], for this
//! crate and for the command line.
//!
//! The library below misleads in two cases: a deadline of its own ends as CANCELLED, and a connection that broke as
//! UNKNOWN "transport error". Neither says anything about the server, so both become what they are: nobody knows what
//! happened to the request.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tonic::{Code, Status};
use tonic_types::pb;
use weir_proto::v1::{Applied as WireApplied, ErrorReason, Failure, FailureList};

use super::{Applied, Error, Refusal};

impl Error {
    /// A failure that came as a message.
    pub fn from_failure(failure: &Failure) -> Self {
        let mut metadata = failure.metadata.clone();
        if !failure.topic.is_empty() {
            metadata.insert("topic".to_owned(), failure.topic.clone());
            metadata.insert("partition".to_owned(), failure.partition.to_string());
        }
        Self::Refused(Arc::new(Refusal {
            reason: failure.reason(),
            applied: failure.applied().into(),
            retry_after: failure.retry_after_ms.map(millis),
            metadata: of_its_place(failure.reason(), metadata),
            ..Refusal::bare(Code::from_i32(failure.code), &failure.message)
        }))
    }

    /// What a call to `address` failed with that was to be answered within `after`: for those who make calls of their
    /// own over the generated stubs. `what` names the call.
    pub fn of_call(what: &str, address: &str, after: Duration, status: &Status) -> Self {
        // tonic keeps the timeout that it was given for the server, too, and says CANCELLED then.
        match (status.code(), status.message()) {
            (Code::Cancelled, "Timeout expired") => Self::unanswered(what, address, after),
            _ => Self::from_status(status, address),
        }
    }

    /// A call to `address` was not answered within `after`.
    pub fn unanswered(what: &str, address: &str, after: Duration) -> Self {
        Self::Timeout { what: format!("{what} at {address}").into(), after, applied: Applied::Maybe }
    }

    /// A failure that came as a status, from `address`.
    pub fn from_status(status: &Status, address: &str) -> Self {
        if let Some(refusal) = refusal(status) {
            return Self::Refused(Arc::new(refusal));
        }
        match status.code() {
            // The connector failed: not a byte of the request left this process.
            Code::Unavailable if source::<tonic::ConnectError>(status) => {
                Self::Unreachable { address: address.into(), cause: causes(status).into() }
            }
            // Everything else that has a source was made on this side of the wire.
            _ if std::error::Error::source(status).is_some() => Self::lost(causes(status)),
            Code::Cancelled | Code::Unknown => Self::lost(causes(status)),
            // Something between us and a Weir server answered, or a server that is none.
            code => Self::Refused(Arc::new(Refusal {
                applied: match code {
                    Code::InvalidArgument | Code::NotFound | Code::PermissionDenied => Applied::No,
                    Code::Unauthenticated | Code::Unimplemented => Applied::No,
                    _ => Applied::Maybe,
                },
                ..Refusal::bare(code, status.message())
            })),
        }
    }

    /// The same in the form in which servers say it. The topic stands among the facts where no partition is meant.
    pub fn failure(&self) -> Failure {
        let mut reason = self.reason().unwrap_or_default();
        let mut message = self.to_string();
        let mut code = match self.last() {
            Self::Refused(refusal) => refusal.code,
            _ if reason != ErrorReason::Unspecified => weir_rpc::reasons::class(reason).code,
            Self::Unreachable { .. } | Self::ConnectionLost { .. } => Code::Unavailable,
            Self::Invalid(_) => Code::InvalidArgument,
            _ => Code::Unknown,
        };
        // That code promises that nothing was applied: what the last attempt was refused for is left to the words.
        if code == Code::Unavailable && self.applied() == Applied::Maybe {
            if reason != ErrorReason::Unspecified {
                let name = reason.as_str_name().trim_start_matches("ERROR_REASON_");
                message = format!("{message} ({name})");
            }
            reason = ErrorReason::OutcomeUnknown;
            code = weir_rpc::reasons::class(reason).code;
        }
        let mut failure = Failure {
            code: code.into(),
            reason: reason.into(),
            message,
            applied: WireApplied::from(self.applied()).into(),
            retry_after_ms: self
                .retry_after()
                .map(|after| i64::try_from(after.as_millis()).unwrap_or(i64::MAX)),
            metadata: self.metadata().clone(),
            ..Failure::default()
        };
        let partition = failure.metadata.get("partition").and_then(|number| number.parse().ok());
        if let (Some(topic), Some(partition)) = (failure.metadata.get("topic").cloned(), partition) {
            (failure.topic, failure.partition) = (topic, partition);
            failure.metadata.retain(|name, _| name != "topic" && name != "partition");
        }
        failure
    }
}

impl Refusal {
    /// A code and words, and nothing else that is known.
    fn bare(code: Code, message: &str) -> Self {
        Self {
            code,
            reason: ErrorReason::Unspecified,
            message: match message {
                "" => format!("{code} (nothing more was said)"),
                message => message.to_owned(),
            },
            applied: Applied::Maybe,
            retry_after: None,
            metadata: BTreeMap::new(),
            failures: Vec::new(),
            omitted: 0,
            request_id: String::new(),
        }
    }
}

/// Facts without a partition where none is meant: of a topic that is not there.
fn of_its_place(reason: ErrorReason, mut facts: BTreeMap<String, String>) -> BTreeMap<String, String> {
    if matches!(reason, ErrorReason::TopicNotFound | ErrorReason::TopicIdMismatch) {
        facts.remove("partition");
    }
    facts
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
    let list = find("/weir.v1.FailureList").and_then(|any| FailureList::decode(&*any.value).ok());
    let FailureList { failures, omitted } = list.unwrap_or_default();
    let mut metadata: BTreeMap<_, _> = info.metadata.into_iter().collect();
    let applied = match metadata.remove("applied").as_deref() {
        Some("NO") => Applied::No,
        Some("YES") => Applied::Yes,
        _ => Applied::Maybe,
    };
    let reason = ErrorReason::from_str_name(&format!("ERROR_REASON_{}", info.reason)).unwrap_or_default();
    Some(Refusal {
        reason,
        applied,
        retry_after,
        metadata: of_its_place(reason, metadata),
        failures,
        omitted,
        request_id: header(status, "weir-request-id"),
        ..Refusal::bare(status.code(), status.message())
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

/// Why a call was not answered.
fn causes(status: &Status) -> String {
    weir_rpc::cause(status, status.message())
}

impl From<Applied> for WireApplied {
    fn from(applied: Applied) -> Self {
        match applied {
            Applied::No => Self::No,
            Applied::Yes => Self::Yes,
            Applied::Maybe => Self::Maybe,
        }
    }
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
    fn what_came_as_a_failure_is_said_as_the_same() {
        let problem = Problem::new(ErrorReason::NotLeader, "broker 1 does not lead a/0").fact("leader", 2);
        let problem = problem.at("a", 0);
        let failure = problem.failure();
        assert_eq!(Error::from_failure(&failure).failure(), failure);
        assert_eq!(Error::from_status(&problem.status(), "x:1").failure(), failure);
        let gone = Error::topic_gone("a").failure();
        assert_eq!((&*gone.topic, &*gone.metadata["topic"]), ("", "a"), "no partition is meant");
    }

    #[test]
    fn a_question_has_no_outcome_that_nobody_knows() {
        let problem =
            weir_rpc::Problem::new(ErrorReason::OutcomeUnknown, "no controller has answered in time");
        let asked = Error::from_status(&problem.status(), "h:1").of_a_read().failure();
        let said = (asked.reason(), asked.code, asked.applied());
        assert_eq!(said, (ErrorReason::ControllerUnavailable, Code::Unavailable as i32, WireApplied::No));
    }

    #[test]
    fn a_call_that_asks_for_no_change_has_applied_nothing() {
        let after = Duration::from_secs(1);
        let last = Arc::new(Error::lost("cut"));
        let given_up = Error::GivenUp { what: "GetTopic".into(), after, applied: Applied::Maybe, last };
        for (error, code, words) in [
            (Error::lost("cut"), Code::Unavailable, "connection lost: cut"),
            (
                Error::unanswered("GetTopic", "h:1", after),
                Code::DeadlineExceeded,
                "GetTopic at h:1: no answer within 1s",
            ),
            (given_up, Code::Unavailable, "GetTopic: given up after 1s: connection lost: cut"),
            (Error::from_status(&Status::aborted("no"), "h:1"), Code::Aborted, "no"),
        ] {
            assert_eq!(error.applied(), Applied::Maybe);
            let (error, read) = (error.failure(), error.of_a_read().failure());
            assert_ne!(error.code, Code::Unavailable as i32, "never of what may have been applied");
            assert_eq!((read.code, read.applied(), &*read.message), (code as i32, WireApplied::No, words));
        }
    }

    #[test]
    fn what_may_have_been_applied_is_never_said_not_to_be_because_nobody_is_there_now() {
        let away = Error::Unreachable { address: "h:1".into(), cause: "connection refused".into() };
        for (applied, reason) in [(Applied::Maybe, Some(ErrorReason::OutcomeUnknown)), (Applied::No, None)] {
            let last = Arc::new(away.clone());
            let error =
                Error::GivenUp { what: "a batch".into(), after: Duration::from_secs(1), applied, last };
            assert_eq!((error.reason(), error.applied()), (reason, applied));
            assert_ne!((error.failure().code, applied), (Code::Unavailable as i32, Applied::Maybe));
        }
    }

    #[test]
    fn what_may_have_been_applied_is_never_said_in_the_code_of_the_last_refusal_that_means_nothing_was() {
        let refused = Problem::new(ErrorReason::NoLeader, "a/0 has no leader").failure();
        let last = Arc::new(Error::from_failure(&refused));
        let after = Duration::from_secs(1);
        let error = Error::GivenUp { what: "a batch".into(), after, applied: Applied::Maybe, last };
        let (change, read) = (error.failure(), error.of_a_read().failure());
        assert_eq!((change.code, change.applied()), (Code::Aborted as i32, WireApplied::Maybe), "{change:?}");
        assert_eq!(change.reason(), ErrorReason::OutcomeUnknown, "of the code's class");
        assert_eq!(
            change.message,
            "a batch: given up after 1s, the outcome is unknown: a/0 has no leader (NO_LEADER)"
        );
        assert_eq!((read.code, read.reason()), (Code::Unavailable as i32, ErrorReason::NoLeader));
    }

    #[test]
    fn silence_names_whom_was_asked_and_what_for() {
        let after = Duration::from_secs(3);
        let error = Error::of_call("CreateTopic", "h:1", after, &Status::cancelled("Timeout expired"));
        assert_eq!(error.to_string(), "CreateTopic at h:1: no answer within 3s, the outcome is unknown");
        let failure = error.failure();
        assert_eq!((failure.code, failure.reason()), (4, ErrorReason::DeadlineExceeded));
        let other = Error::of_call("CreateTopic", "h:1", after, &Status::not_found("there is none"));
        assert_eq!((other.to_string().as_str(), other.failure().code), ("there is none", 5));
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
