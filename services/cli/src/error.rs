//! How a command fails: what, which, reason, what to do, and the exit code that says whether it was applied.
//!
//! What an answer, or the lack of one, means is decided by the SDK ([`weir_client::Error`]); here it is shown.

use std::io::{self, Write};

use tonic::Code;
use weir_proto::v1::{Applied, ErrorReason, Failure};

use crate::address::Address;
use crate::{connect, output};

/// It failed and nothing was applied.
pub(crate) const FAILED: u8 = 1;
/// The command line was not understood.
pub(crate) const USAGE: u8 = 2;
const NOT_FOUND: u8 = 3;
const DENIED: u8 = 4;
pub(crate) const UNREACHABLE: u8 = 5;
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

    /// What the process ends with.
    pub(crate) fn exit_code(&self) -> u8 {
        server_exit_code(&self.failure)
    }
}

impl From<&weir_client::Error> for ServerError {
    fn from(error: &weir_client::Error) -> Self {
        let refusal = error.refusal();
        Self {
            failure: error.failure(),
            // The first of them is the failure itself.
            others: refusal.map(|it| it.failures.iter().skip(1).cloned().collect()).unwrap_or_default(),
            omitted: refusal.map_or(0, |it| it.omitted),
            request_id: refusal.map(|it| it.request_id.clone()).filter(|id| !id.is_empty()),
        }
    }
}

impl From<weir_process::Error> for Error {
    fn from(error: weir_process::Error) -> Self {
        match error {
            weir_process::Error::Usage(what) => Self::Usage(what),
            weir_process::Error::Failed(what) => Self::Failed(what),
            weir_process::Error::OutputClosed => Self::OutputClosed,
        }
    }
}

impl Error {
    /// What a server would say, found out here.
    pub(crate) fn of_problem(problem: &weir_rpc::Problem) -> Self {
        let error = weir_client::Error::from_failure(&problem.failure());
        Self::Server(Box::new(ServerError::from(&error)))
    }

    /// What a call to this server failed with.
    pub(crate) fn of(error: &weir_client::Error, server: &Address) -> Self {
        use weir_client::Error as Sdk;

        let way_out = match error.last() {
            Sdk::Unreachable { address, cause } if error.applied() == weir_client::Applied::No => {
                return connect::unreachable(server, address, cause);
            }
            Sdk::Invalid(_) | Sdk::Closed(_) => return Self::Failed(error.to_string()),
            Sdk::Timeout { .. } => {
                format!("; is {server} (from {}) well? --timeout waits longer", server.source)
            }
            Sdk::ConnectionLost { .. } => format!(
                "; {server} (from {}) may be stopping, or have as many connections as connections_max and \
                 connections_per_address_max allow",
                server.source
            ),
            _ => String::new(),
        };
        let mut told = ServerError::from(error);
        told.failure.message.push_str(&way_out);
        Self::Server(Box::new(told))
    }

    /// What the parser of the command line says, in one line, and what was probably meant.
    pub(crate) fn of_usage(error: &clap::Error, hint: Option<String>) -> Self {
        if error.kind() == clap::error::ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
            return Self::Usage("a command is missing; --help lists them".to_owned());
        }
        let text = error.to_string();
        let text = text.strip_prefix("error: ").unwrap_or(&text);
        let what = ["\n\nUsage:", "\n\nFor more"]
            .iter()
            .fold(text, |text, end| text.split_once(end).map_or(text, |(what, _)| what));
        let words: Vec<&str> = what.split_whitespace().collect();
        let hint = hint.map(|hint| format!("; here: {hint}")).unwrap_or_default();
        Self::Usage(words.join(" ") + &hint)
    }

    /// What a write to stdout came to.
    pub(crate) fn stdout(source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::BrokenPipe => Self::OutputClosed,
            _ => Self::Io { what: "cannot write the output".to_owned(), source },
        }
    }

    /// The server's reason, if it gave one.
    pub(crate) fn reason(&self) -> Option<ErrorReason> {
        match self {
            Self::Server(error) => Some(error.reason()),
            Self::Unfinished { cause, .. } => cause.reason(),
            _ => None,
        }
    }

    /// Whether an answer came that no public API of ours gives, or none that can be read: all of ours name the request.
    pub(crate) fn is_a_strangers(&self) -> bool {
        matches!(self, Self::Server(error) if error.request_id.is_none()
            && matches!(error.reason(), ErrorReason::Unspecified | ErrorReason::OutcomeUnknown))
    }

    /// What the process ends with.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) => USAGE,
            Self::NotFound(_) => NOT_FOUND,
            Self::Failed(_) | Self::Io { .. } => FAILED,
            Self::Partly(_) | Self::Unfinished { .. } => MAYBE,
            Self::Unreachable(_) => UNREACHABLE,
            Self::Server(error) => error.exit_code(),
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
    if failure.topic.is_empty() {
        output::set(&mut object, "partition", serde_json::Value::Null);
        if let Some(topic) = failure.metadata.get("topic") {
            output::set(&mut object, "topic", topic.clone());
        }
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

#[cfg(test)]
mod tests {
    use weir_client::Error as Sdk;
    use weir_rpc::Problem;

    use super::*;

    fn server() -> Address {
        crate::address::parse("h:1", crate::address::Source::Flag).unwrap()
    }

    fn text(error: &Error) -> String {
        let mut text = Vec::new();
        error.write(&mut text, false, false).unwrap();
        String::from_utf8(text).unwrap()
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
            let failure = Failure { code: code.into(), applied: applied.into(), ..Failure::default() };
            let error = Error::of(&Sdk::from_failure(&failure), &server());
            assert_eq!(error.exit_code(), exit, "{code:?} {applied:?}");
        }
        assert_eq!(Error::Usage(String::new()).exit_code(), 2);
        assert_eq!(Error::OutputClosed.exit_code(), 0);
        assert_eq!(Error::Interrupted.exit_code(), 130);
    }

    #[test]
    fn a_failure_for_programs_names_its_place_and_no_other() {
        let place = |error: Error| {
            let object = error.json()["error"].clone();
            (object["topic"].clone(), object["partition"].clone(), object["reason"].clone())
        };
        let gone = Problem::new(ErrorReason::TopicNotFound, "gone").at("t", 0);
        assert_eq!(place(Error::of_problem(&gone)), ("t".into(), ().into(), "TOPIC_NOT_FOUND".into()));
        let beyond = Error::of_problem(&Problem::new(ErrorReason::OffsetOutOfRange, "beyond").at("t", 0));
        assert_eq!(beyond.exit_code(), NOT_FOUND);
        assert_eq!(place(beyond), ("t".into(), 0.into(), "OFFSET_OUT_OF_RANGE".into()));
        let there = Problem::new(ErrorReason::TopicAlreadyExists, "there").fact("topic", "t");
        assert_eq!(place(Error::of_problem(&there)), ("t".into(), ().into(), "TOPIC_ALREADY_EXISTS".into()));
        let own = Error::Usage(String::new());
        assert_eq!(place(own), ("".into(), ().into(), "UNSPECIFIED".into()));
    }

    #[test]
    fn a_servers_failures_are_printed_with_the_way_to_their_page() {
        let part =
            |n| Problem::new(ErrorReason::TopicNotFound, format!("topic \"{n}\" does not exist")).at("t", n);
        let parts: Vec<_> = (0..9).map(part).collect();
        let status = Problem::status_of_all(&parts).unwrap();
        let error = Error::of(&Sdk::from_status(&status, "h:1"), &server());
        assert_eq!(error.exit_code(), 3);
        let text = text(&error);
        assert!(
            text.starts_with("error: topic \"0\" does not exist\n       topic \"1\" does not exist\n"),
            "{text}"
        );
        assert_eq!(text.matches("\"0\"").count(), 1, "{text}");
        assert!(text.contains("       and 1 more\n"), "{text}");
        assert!(
            text.ends_with("       TOPIC_NOT_FOUND, not applied; weir errors TOPIC_NOT_FOUND\n"),
            "{text}"
        );
    }

    #[test]
    fn silence_is_maybe_for_a_change_and_nothing_for_a_read() {
        let silence = Sdk::unanswered("CreateTopic", "h:1", std::time::Duration::from_secs(3));
        let (change, read) = (Error::of(&silence, &server()), Error::of(&silence.of_a_read(), &server()));
        assert_eq!((change.exit_code(), read.exit_code()), (MAYBE, UNREACHABLE));
        assert_eq!(
            text(&change),
            "error: CreateTopic at h:1: no answer within 3s, the outcome is unknown; is h:1 (from --server) well? \
             --timeout waits longer\n       DEADLINE_EXCEEDED, maybe applied; weir errors DEADLINE_EXCEEDED\n"
        );
        assert!(!change.is_a_strangers(), "nobody has answered");
    }

    #[test]
    fn a_lost_connection_is_maybe_for_a_change_and_nothing_for_a_read() {
        let lost = Sdk::from_status(&tonic::Status::unknown("transport error"), "h:1");
        let (change, read) = (Error::of(&lost, &server()), Error::of(&lost.of_a_read(), &server()));
        assert_eq!((change.exit_code(), read.exit_code()), (MAYBE, UNREACHABLE));
        assert!(text(&read).contains("h:1 (from --server) may be stopping"), "{read}");
        assert!(change.is_a_strangers() && read.is_a_strangers(), "what is there may be no Weir");
    }

    #[test]
    fn nobody_there_is_said_with_the_address_and_the_way_out() {
        let away = |address: &str| Sdk::Unreachable {
            address: address.into(),
            cause: "Refused (os error 111)".into(),
        };
        let error = Error::of(&away("h:1"), &server());
        assert_eq!(error.exit_code(), UNREACHABLE);
        assert_eq!(
            error.to_string(),
            "no Weir answers at h:1 (from --server): refused; is it started? Other brokers of its cluster may be \
             named too, separated by commas: -s HOST:PORT,HOST:PORT"
        );
        let other = Error::of(&away("b2:1"), &server()).to_string();
        assert!(other.starts_with("no Weir answers at b2:1 (a broker of h:1): refused"), "{other}");
    }

    #[test]
    fn what_was_tried_in_vain_ends_with_the_last_refusal() {
        let full = Problem::new(ErrorReason::DiskFull, "the disk keeps 1 TiB (disk_reserved_bytes)");
        let last = Sdk::from_failure(&full.failure()).into();
        let after = std::time::Duration::from_secs(120);
        let applied = weir_client::Applied::No;
        let error = Sdk::GivenUp { what: "a batch for t/0".into(), after, applied, last };
        let error = Error::of(&error, &server());
        assert_eq!((error.exit_code(), error.reason()), (FAILED, Some(ErrorReason::DiskFull)));
        assert_eq!(
            text(&error),
            "error: a batch for t/0: given up after 120s: the disk keeps 1 TiB (disk_reserved_bytes)\n       \
             DISK_FULL, not applied; weir errors DISK_FULL\n"
        );
    }
}
