//! How a command fails: what, which, reason, what to do, and the exit code that says whether it was applied.

use std::io::{self, Write};

use prost::Message as _;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;
use weir_proto::v1::{Applied, ErrorReason, Failure, FailureList};

use crate::address::Address;
use crate::{connect, output, units};

/// It failed and nothing was applied.
pub(crate) const FAILED: u8 = 1;
/// The command line was not understood.
pub(crate) const USAGE: u8 = 2;
const NOT_FOUND: u8 = 3;
const DENIED: u8 = 4;
const UNREACHABLE: u8 = 5;
/// It was applied maybe, or in part.
pub(crate) const MAYBE: u8 = 6;
const INTERRUPTED: u8 = 130;

pub(crate) type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a command ended early. Messages are whole sentences without a full stop, and carry the way out.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The command line asks for something that makes no sense.
    #[error("{0}")]
    Usage(String),
    /// A thing that was named is not there.
    #[error("{0}")]
    NotFound(String),
    /// It failed, and nothing was applied.
    #[error("{0}")]
    Failed(String),
    /// It failed after a part of it was done, or nobody knows.
    #[error("{0}")]
    Partly(String),
    /// It failed for this cause after a part of it was done, or nobody knows; `left` says what is done and where to go
    /// on.
    #[error("{cause}")]
    Unfinished {
        /// What was wrong.
        cause: Box<Error>,
        /// What became of the rest.
        left: String,
    },
    /// No server answers there.
    #[error("{0}")]
    Unreachable(String),
    /// The server's answer.
    #[error("{0}")]
    Server(Box<ServerError>),
    /// A file or the terminal.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// What the system said.
        source: io::Error,
    },
    /// Whoever read our output has enough. Not an error: the command ends quietly.
    #[error("the reader of the output is gone")]
    OutputClosed,
    /// Ctrl-C.
    #[error("interrupted")]
    Interrupted,
}

/// A failure that the server, or the way to it, reported.
#[derive(Debug, thiserror::Error)]
#[error("{}", .failure.message)]
pub(crate) struct ServerError {
    /// The failure, as the API says it.
    pub failure: Failure,
    /// Further failures of the same call.
    pub others: Vec<Failure>,
    /// How many more failures there were than the answer has room for.
    pub omitted: i32,
    /// The name of the request in the server's logs.
    pub request_id: Option<String>,
}

impl ServerError {
    /// The reason.
    pub(crate) fn reason(&self) -> ErrorReason {
        self.failure.reason()
    }
}

impl Error {
    /// What a server would say, found out here.
    pub(crate) fn of_problem(problem: &weir_rpc::Problem) -> Self {
        let failure = problem.failure();
        Self::Server(Box::new(ServerError { failure, others: Vec::new(), omitted: 0, request_id: None }))
    }

    /// What a write to stdout came to.
    pub(crate) fn stdout(source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::BrokenPipe => Self::OutputClosed,
            _ => Self::Io { what: "cannot write the output".to_owned(), source },
        }
    }

    /// What a call that changes something failed with. Without a word from the server nobody knows whether it
    /// was applied.
    pub(crate) fn of_change(status: &Status) -> Self {
        of(status, Applied::Maybe)
    }

    /// What a call that reads failed with.
    pub(crate) fn of_read(status: &Status) -> Self {
        of(status, Applied::No)
    }

    /// The server's reason, if it gave one.
    pub(crate) fn reason(&self) -> Option<ErrorReason> {
        match self {
            Self::Server(error) => Some(error.reason()),
            Self::Unfinished { cause, .. } => cause.reason(),
            _ => None,
        }
    }

    /// Whether an answer came that no public API of ours gives: all of ours name the request.
    pub(crate) fn is_a_strangers(&self) -> bool {
        matches!(self, Self::Server(error)
            if error.request_id.is_none() && error.reason() == ErrorReason::Unspecified)
    }

    /// What the SDK failed with.
    pub(crate) fn of_client(error: &weir_client::Error, server: &Address) -> Self {
        let applied = match error.applied() {
            weir_client::Applied::No => Applied::No,
            weir_client::Applied::Yes => Applied::Yes,
            weir_client::Applied::Maybe => Applied::Maybe,
        };
        let failure = |reason: ErrorReason, code: Code| Failure {
            code: code as i32,
            reason: reason.into(),
            message: error.to_string(),
            applied: applied.into(),
            ..Failure::default()
        };
        // What was given up says what the last attempt failed with, and for how long it was tried.
        let cause = match error {
            weir_client::Error::GivenUp { last, .. } => last.as_ref(),
            other => other,
        };
        let (failure, request_id) = match cause {
            // What an attempt before may have done is not undone by nobody being there now.
            weir_client::Error::Unreachable { .. } if applied == Applied::Maybe => {
                (failure(ErrorReason::OutcomeUnknown, Code::Unavailable), None)
            }
            weir_client::Error::Unreachable { cause, .. } => return connect::unreachable(server, cause),
            weir_client::Error::Refused(refusal) => {
                let mut failure = failure(refusal.reason, refusal.code);
                failure.metadata = refusal.metadata.clone();
                // Where no partition is meant, the topic stays among the facts.
                let fact = |name| refusal.metadata.get(name);
                if let (Some(topic), Some(partition)) = (fact("topic"), fact("partition")) {
                    failure.topic = topic.clone();
                    failure.partition = partition.parse().unwrap_or_default();
                }
                (failure, Some(refusal.request_id.clone()).filter(|id| !id.is_empty()))
            }
            other => match other.reason() {
                Some(ErrorReason::DeadlineExceeded) => {
                    (failure(ErrorReason::DeadlineExceeded, Code::DeadlineExceeded), None)
                }
                Some(reason) => (failure(reason, Code::FailedPrecondition), None),
                None => return Self::Failed(error.to_string()),
            },
        };
        Self::Server(Box::new(ServerError { failure, others: Vec::new(), omitted: 0, request_id }))
    }

    /// The same, of a call that asked for nothing to be changed: nothing was.
    pub(crate) fn of_client_unsent(error: &weir_client::Error, server: &Address) -> Self {
        match error {
            weir_client::Error::ConnectionLost { cause } => connect::unreachable(server, cause),
            weir_client::Error::Timeout { after, .. } => {
                let after = units::elapsed(*after);
                connect::unreachable(
                    server,
                    &format!("something takes connections and says nothing for {after}"),
                )
            }
            other => match Self::of_client(other, server) {
                Self::Server(mut server) => {
                    server.failure.applied = Applied::No.into();
                    Self::Server(server)
                }
                error => error,
            },
        }
    }

    /// What the process ends with.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) => USAGE,
            Self::NotFound(_) => NOT_FOUND,
            Self::Failed(_) | Self::Io { .. } => FAILED,
            Self::Partly(_) | Self::Unfinished { .. } => MAYBE,
            Self::Unreachable(_) => UNREACHABLE,
            Self::Server(error) => server_exit_code(&error.failure),
            Self::OutputClosed => 0,
            Self::Interrupted => INTERRUPTED,
        }
    }

    /// The same for programs: a failure as the API says it, those beside it, the request's id, the exit code.
    fn json(&self) -> serde_json::Value {
        let own;
        if let Self::Unfinished { cause, left } = self {
            let mut object = cause.json();
            output::set(&mut object, "exitCode", self.exit_code());
            output::set(&mut object, "left", left.clone());
            return object;
        }
        let (failure, others, omitted, request_id) = match self {
            Self::Server(error) => {
                (&error.failure, &*error.others, error.omitted, error.request_id.as_deref())
            }
            _ => {
                own = self.own_failure();
                (&own, Default::default(), 0, None)
            }
        };
        serde_json::json!({
            "error": failure_json(failure), "others": others.iter().map(failure_json).collect::<Vec<_>>(),
            "omitted": omitted, "requestId": request_id, "exitCode": self.exit_code(), "left": null,
        })
    }

    /// What no server has said, in the form of what servers say.
    fn own_failure(&self) -> Failure {
        let (code, applied) = match self {
            Self::Usage(_) => (Code::InvalidArgument, Applied::No),
            Self::NotFound(_) => (Code::NotFound, Applied::No),
            Self::Unreachable(_) => (Code::Unavailable, Applied::No),
            Self::Partly(_) => (Code::Aborted, Applied::Maybe),
            _ => (Code::Unknown, Applied::No),
        };
        Failure {
            code: code.into(),
            message: self.to_string(),
            applied: applied.into(),
            ..Failure::default()
        }
    }

    /// Says it on stderr.
    pub(crate) fn write(&self, to: &mut dyn Write, json: bool, verbose: bool) -> io::Result<()> {
        match self {
            Self::OutputClosed | Self::Interrupted => return Ok(()),
            _ if json => return writeln!(to, "{}", self.json()),
            Self::Unfinished { cause, left } => {
                cause.write(to, json, verbose)?;
                return writeln!(to, "       {left}");
            }
            _ => {}
        }
        writeln!(to, "error: {self}")?;
        let Self::Server(error) = self else { return Ok(()) };
        for other in &error.others {
            writeln!(to, "       {}", other.message)?;
        }
        if error.omitted > 0 {
            writeln!(to, "       and {} more", error.omitted)?;
        }
        let reason = reason_name(error.reason());
        if error.reason() != ErrorReason::Unspecified {
            writeln!(to, "       {reason}, {}; weir errors {reason}", applied(error.failure.applied()))?;
        }
        if verbose {
            for (name, value) in &error.failure.metadata {
                writeln!(to, "       {name}: {value}")?;
            }
            if let Some(id) = &error.request_id {
                writeln!(to, "       request id: {id}")?;
            }
        }
        Ok(())
    }
}

/// The name that programs and people use: the enum's without its prefix.
pub(crate) fn reason_name(reason: ErrorReason) -> &'static str {
    reason.as_str_name().trim_start_matches("ERROR_REASON_")
}

/// A failure with its place: the topic also where only the facts name it, null for a partition where none is meant.
fn failure_json(failure: &Failure) -> serde_json::Value {
    let mut object = output::proto_json(failure, "weir.v1.Failure");
    // A topic stands there with a partition; of a topic that is not there none is meant.
    let of_topic = matches!(failure.reason(), ErrorReason::TopicNotFound | ErrorReason::TopicIdMismatch);
    if failure.topic.is_empty() || of_topic {
        output::set(&mut object, "partition", serde_json::Value::Null);
    }
    if let Some(topic) = failure.metadata.get("topic").filter(|_| failure.topic.is_empty()) {
        output::set(&mut object, "topic", topic.clone());
    }
    object
}

fn applied(applied: Applied) -> &'static str {
    match applied {
        Applied::No => "not applied",
        Applied::Yes => "applied",
        Applied::Maybe | Applied::Unspecified => "maybe applied",
    }
}

fn server_exit_code(failure: &Failure) -> u8 {
    if matches!(failure.applied(), Applied::Yes | Applied::Maybe | Applied::Unspecified) {
        return MAYBE;
    }
    match Code::from_i32(failure.code) {
        Code::NotFound => NOT_FOUND,
        // Of a code that the transport has other uses for.
        Code::OutOfRange if failure.reason() == ErrorReason::OffsetOutOfRange => NOT_FOUND,
        Code::PermissionDenied | Code::Unauthenticated => DENIED,
        Code::Unavailable | Code::DeadlineExceeded => UNREACHABLE,
        _ => FAILED,
    }
}

/// The failure in a status: from its details where a Weir server made it, else from its code.
fn of(status: &Status, without_details: Applied) -> Error {
    let request_id =
        status.metadata().get("weir-request-id").and_then(|v| v.to_str().ok()).map(str::to_owned);
    let mut failures = failure_list(status);
    let omitted = failures.omitted;
    let failure = if failures.failures.is_empty() {
        bare(status, without_details)
    } else {
        failures.failures.remove(0)
    };
    Error::Server(Box::new(ServerError { failure, others: failures.failures, omitted, request_id }))
}

fn failure_list(status: &Status) -> FailureList {
    let details = tonic_types::pb::Status::decode(status.details()).unwrap_or_default();
    details
        .details
        .iter()
        .find(|any| any.type_url.ends_with("/weir.v1.FailureList"))
        .and_then(|any| FailureList::decode(any.value.as_slice()).ok())
        .unwrap_or_default()
}

/// What is said of a connection that the server, or something on the way, has closed.
const CLOSED: &str = "the connection was closed before the answer came: the server may be stopping, or have as many \
                      connections as connections_max and connections_per_address_max allow";

/// A status without a list of failures: from a proxy, from the transport, or with nothing but an ErrorInfo.
fn bare(status: &Status, without_details: Applied) -> Failure {
    let info = status.get_details_error_info();
    let reason = info
        .as_ref()
        .and_then(|info| ErrorReason::from_str_name(&format!("ERROR_REASON_{}", info.reason)))
        .unwrap_or(ErrorReason::Unspecified);
    let stated = info.as_ref().and_then(|info| match info.metadata.get("applied").map(String::as_str) {
        Some("NO") => Some(Applied::No),
        Some("YES") => Some(Applied::Yes),
        Some("MAYBE") => Some(Applied::Maybe),
        _ => None,
    });
    // tonic says CANCELLED where its own timer ran out and UNKNOWN where the connection broke.
    let (code, message) = match (status.code(), status.message()) {
        (Code::Cancelled, "Timeout expired") | (Code::DeadlineExceeded, "") => {
            (Code::DeadlineExceeded, "no answer in time; --timeout waits longer".to_owned())
        }
        (Code::Unknown | Code::Cancelled, m)
            if ["transport", "h2", "operation was canceled"].iter().any(|part| m.contains(part)) =>
        {
            (Code::Unavailable, CLOSED.to_owned())
        }
        (code, "") => (code, format!("{code} (the server gave no more words)")),
        (code, message) => (code, message.to_owned()),
    };
    // These say by themselves that the handler did nothing.
    let refused = matches!(
        code,
        Code::InvalidArgument
            | Code::NotFound
            | Code::AlreadyExists
            | Code::PermissionDenied
            | Code::Unauthenticated
            | Code::FailedPrecondition
            | Code::OutOfRange
            | Code::Unimplemented
            | Code::ResourceExhausted
    );
    let applied = stated.unwrap_or(if refused { Applied::No } else { without_details });
    Failure {
        code: code as i32,
        reason: reason.into(),
        message,
        applied: applied.into(),
        metadata: info.map(|info| info.metadata.into_iter().collect()).unwrap_or_default(),
        ..Failure::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failing(code: Code, applied: Applied) -> Error {
        let failure = Failure { code: code as i32, applied: applied.into(), ..Failure::default() };
        Error::Server(Box::new(ServerError { failure, others: Vec::new(), omitted: 0, request_id: None }))
    }

    #[test]
    fn exit_codes_say_what_a_script_may_do() {
        for (code, applied, exit) in [
            (Code::InvalidArgument, Applied::No, 1),
            (Code::NotFound, Applied::No, 3),
            (Code::PermissionDenied, Applied::No, 4),
            (Code::Unauthenticated, Applied::No, 4),
            (Code::Unavailable, Applied::No, 5),
            (Code::DeadlineExceeded, Applied::No, 5),
            (Code::DeadlineExceeded, Applied::Maybe, 6),
            (Code::Aborted, Applied::Unspecified, 6),
        ] {
            assert_eq!(failing(code, applied).exit_code(), exit, "{code:?} {applied:?}");
        }
        assert_eq!(Error::Usage(String::new()).exit_code(), 2);
        assert_eq!(Error::OutputClosed.exit_code(), 0);
        assert_eq!(Error::Interrupted.exit_code(), 130);
    }

    #[test]
    fn a_failure_for_programs_names_its_place_and_no_other() {
        let json = |failure: Failure| {
            let object = failure_json(&failure);
            (object["topic"].clone(), object["partition"].clone(), object["reason"].clone())
        };
        let problem = weir_rpc::Problem::new(ErrorReason::TopicNotFound, "gone").at("t", 0);
        assert_eq!(json(problem.failure()), ("t".into(), ().into(), "TOPIC_NOT_FOUND".into()));
        let problem = weir_rpc::Problem::new(ErrorReason::OffsetOutOfRange, "beyond").at("t", 0);
        assert_eq!(json(problem.failure()), ("t".into(), 0.into(), "OFFSET_OUT_OF_RANGE".into()));
        assert_eq!(Error::of_problem(&problem).exit_code(), NOT_FOUND);
        let problem = weir_rpc::Problem::new(ErrorReason::TopicAlreadyExists, "there").fact("topic", "t");
        assert_eq!(json(problem.failure()), ("t".into(), ().into(), "TOPIC_ALREADY_EXISTS".into()));
        let own = Error::Usage(String::new()).own_failure();
        assert_eq!(json(own), ("".into(), ().into(), "UNSPECIFIED".into()));
    }

    #[test]
    fn a_lost_answer_is_maybe_for_a_change_and_nothing_for_a_read() {
        let status = Status::unknown("transport error");
        assert_eq!(Error::of_change(&status).exit_code(), 6);
        assert_eq!(Error::of_read(&status).exit_code(), 5);
        let status = Status::cancelled("Timeout expired");
        assert_eq!(Error::of_change(&status).exit_code(), 6);
        assert_eq!(Error::of_read(&status).exit_code(), 5);
        assert_eq!(Error::of_change(&Status::invalid_argument("no")).exit_code(), 1);
    }

    #[test]
    fn a_servers_failure_is_printed_with_its_reason_and_the_way_to_its_page() {
        let list = FailureList {
            failures: vec![Failure {
                code: Code::NotFound as i32,
                reason: ErrorReason::TopicNotFound.into(),
                message: "topic \"flihgts\" does not exist; did you mean \"flights\"? (weir topic list)"
                    .into(),
                applied: Applied::No.into(),
                ..Failure::default()
            }],
            omitted: 2,
        };
        let any = tonic_types::pb::Status {
            code: Code::NotFound as i32,
            message: String::new(),
            details: vec![prost_any("type.googleapis.com/weir.v1.FailureList", list.encode_to_vec())],
        };
        let status = Status::with_details(Code::NotFound, "", any.encode_to_vec().into());
        let error = Error::of_change(&status);
        assert_eq!(error.exit_code(), 3);
        let mut text = Vec::new();
        error.write(&mut text, false, false).unwrap();
        assert_eq!(
            String::from_utf8(text).unwrap(),
            "error: topic \"flihgts\" does not exist; did you mean \"flights\"? (weir topic list)\n       and 2 \
             more\n       TOPIC_NOT_FOUND, not applied; weir errors TOPIC_NOT_FOUND\n"
        );
    }

    fn refusal(reason: ErrorReason, code: Code) -> weir_client::Error {
        weir_client::Error::Refused(std::sync::Arc::new(weir_client::Refusal {
            code,
            reason,
            message: "the disk has 1 GiB left and keeps 1 TiB (disk_reserved_bytes)".to_owned(),
            applied: weir_client::Applied::No,
            retry_after: Some(std::time::Duration::from_millis(100)),
            metadata: Default::default(),
            failures: Vec::new(),
            request_id: String::new(),
        }))
    }

    fn server() -> Address {
        crate::address::parse("localhost:9347", crate::address::Source::Default).unwrap()
    }

    #[test]
    fn what_was_tried_in_vain_ends_with_the_last_refusal() {
        let error = weir_client::Error::GivenUp {
            what: "a batch for t/0".into(),
            after: std::time::Duration::from_secs(120),
            applied: weir_client::Applied::No,
            last: std::sync::Arc::new(refusal(ErrorReason::DiskFull, Code::ResourceExhausted)),
        };
        let error = Error::of_client(&error, &server());
        assert_eq!((error.exit_code(), error.reason()), (FAILED, Some(ErrorReason::DiskFull)));
        let mut text = Vec::new();
        error.write(&mut text, false, false).unwrap();
        assert_eq!(
            String::from_utf8(text).unwrap(),
            "error: a batch for t/0: given up after 120s: the disk has 1 GiB left and keeps 1 TiB \
             (disk_reserved_bytes)\n       DISK_FULL, not applied; weir errors DISK_FULL\n"
        );
    }

    #[test]
    fn what_may_have_been_applied_is_never_said_not_to_be_because_nobody_is_there_now() {
        let away =
            weir_client::Error::Unreachable { address: "h:1".into(), cause: "connection refused".into() };
        for (last, reason) in [
            (away, ErrorReason::OutcomeUnknown),
            (refusal(ErrorReason::NoLeader, Code::Unavailable), ErrorReason::NoLeader),
        ] {
            let error = weir_client::Error::GivenUp {
                what: "a batch for t/0".into(),
                after: std::time::Duration::from_secs(1),
                applied: weir_client::Applied::Maybe,
                last: std::sync::Arc::new(last),
            };
            let error = Error::of_client(&error, &server());
            assert_eq!((error.exit_code(), error.reason()), (MAYBE, Some(reason)));
        }
    }

    #[test]
    fn before_anything_is_sent_silence_is_nobody_there() {
        let silence = weir_client::Error::Timeout {
            what: "GetServerInfo".into(),
            after: std::time::Duration::from_secs(5),
            applied: weir_client::Applied::Maybe,
        };
        assert_eq!(Error::of_client(&silence, &server()).exit_code(), MAYBE);
        assert_eq!(Error::of_client_unsent(&silence, &server()).exit_code(), UNREACHABLE);
        let lost = weir_client::Error::ConnectionLost { cause: "broken pipe".into() };
        assert_eq!(Error::of_client_unsent(&lost, &server()).exit_code(), UNREACHABLE);
    }

    fn prost_any(type_url: &str, value: Vec<u8>) -> prost_types::Any {
        prost_types::Any { type_url: type_url.to_owned(), value }
    }
}
