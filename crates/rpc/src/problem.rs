//! [`Problem`]: a failure on its way to a caller, and how it becomes a gRPC status.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use prost::Message;
use tonic::{Code, Status};
use tonic_types::pb;
use weir_proto::v1::{Applied, ErrorReason, Failure, FailureList};

use crate::reasons;

/// The longest message, in bytes: several of them and their facts must fit trailers of 4 KiB.
const MESSAGE_BYTES_MAX: usize = 512;
/// How many failures a status carries one by one.
const FAILURES_MAX: usize = 8;
/// The longest value of a fact, in bytes.
const FACT_BYTES_MAX: usize = 128;
/// What the encoded details may take, so that with the message all trailers stay within 4 KiB of base64.
const DETAILS_BYTES_MAX: usize = 1_900;

/// A failure: the reason for programs, the words for people, and what became of the request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// What kind.
    pub reason: ErrorReason,
    /// What happened, to what, the limit, and what to do.
    pub message: String,
    /// Whether it was applied.
    pub applied: Applied,
    /// When to try again.
    pub retry_after: Option<Duration>,
    /// The facts of the message, one by one.
    pub facts: BTreeMap<String, String>,
    /// The topic and partition it is about.
    pub place: Option<(String, i32)>,
}

impl Problem {
    /// A failure of the usual class of its reason.
    pub fn new(reason: ErrorReason, message: impl Into<String>) -> Self {
        let class = reasons::class(reason);
        Self {
            reason,
            message: cut(message.into(), MESSAGE_BYTES_MAX),
            applied: class.applied,
            retry_after: class.retry.then_some(Duration::from_millis(100)),
            facts: BTreeMap::new(),
            place: None,
        }
    }

    /// A field that is outside its limits.
    pub fn out_of_range(field: &str, given: impl fmt::Display, limit: &str) -> Self {
        Self::new(ErrorReason::FieldOutOfRange, format!("{field} is {given}: {limit}"))
            .fact("field", field)
            .fact("given", given)
            .fact("limit", limit)
    }

    /// A field that must be set and is not.
    pub fn required(field: &str, why: &str) -> Self {
        Self::new(ErrorReason::FieldRequired, format!("{field} is not set: {why}")).fact("field", field)
    }

    /// Two fields that exclude each other.
    pub fn conflict(field: &str, other: &str, why: &str) -> Self {
        Self::new(ErrorReason::FieldsConflict, format!("{field} and {other} are both set: {why}"))
            .fact("field", field)
            .fact("other", other)
    }

    /// An enum value this version does not know.
    pub fn unknown_enum(field: &str, given: i32) -> Self {
        Self::new(
            ErrorReason::EnumUnknown,
            format!("{field} has the value {given}, which this server does not know; it may need an upgrade"),
        )
        .fact("field", field)
        .fact("given", given)
    }

    /// Adds a fact.
    #[must_use]
    pub fn fact(mut self, name: &str, value: impl fmt::Display) -> Self {
        self.facts.insert(name.to_owned(), cut(value.to_string(), FACT_BYTES_MAX));
        self
    }

    /// Says which partition it is about.
    #[must_use]
    pub fn at(mut self, topic: &str, partition: i32) -> Self {
        self.place = Some((topic.to_owned(), partition));
        self
    }

    /// Says whether it was applied, where that is not the usual.
    #[must_use]
    pub fn applied(mut self, applied: Applied) -> Self {
        self.applied = applied;
        self
    }

    /// Says when to try again.
    #[must_use]
    pub fn retry_after(mut self, after: Duration) -> Self {
        self.retry_after = Some(after);
        self
    }

    /// The status code. What may have been applied is never called UNAVAILABLE or the caller's mistake.
    pub fn code(&self) -> Code {
        let code = reasons::class(self.reason).code;
        match (self.applied, code) {
            (Applied::Maybe, Code::DeadlineExceeded | Code::Aborted | Code::Internal) => code,
            (Applied::Maybe, _) => Code::Aborted,
            _ => code,
        }
    }

    /// As a message, for streams and lists.
    pub fn failure(&self) -> Failure {
        let (topic, partition) = self.place.clone().unwrap_or_default();
        Failure {
            topic,
            partition,
            code: self.code() as i32,
            reason: self.reason.into(),
            message: self.message.clone(),
            applied: self.applied.into(),
            retry_after_ms: self.retry_after.map(|d| i64::try_from(d.as_millis()).unwrap_or(i64::MAX)),
            metadata: self.facts.clone(),
        }
    }

    /// As the status of a call.
    pub fn status(&self) -> Status {
        status_of(self, std::slice::from_ref(self))
    }

    /// The status of a call of which several parts failed; the first names the class.
    pub fn status_of_all(problems: &[Problem]) -> Option<Status> {
        problems.first().map(|first| status_of(first, problems))
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", reasons::name(self.reason), self.message)
    }
}

impl std::error::Error for Problem {}

impl From<Problem> for Status {
    fn from(problem: Problem) -> Self {
        problem.status()
    }
}

fn status_of(first: &Problem, all: &[Problem]) -> Status {
    let mut metadata: std::collections::HashMap<String, String> =
        first.facts.iter().map(|(k, v)| (k.clone(), v.clone())).collect();
    // For whoever has no types of ours, only those of Google: what it is about stands beside the other facts, whole.
    if let Some((topic, partition)) = &first.place {
        metadata.insert("topic".to_owned(), topic.clone());
        metadata.insert("partition".to_owned(), partition.to_string());
    }
    metadata
        .insert("applied".to_owned(), first.applied.as_str_name().trim_start_matches("APPLIED_").to_owned());
    let info =
        pb::ErrorInfo { reason: reasons::name(first.reason).to_owned(), domain: "weir".to_owned(), metadata };
    let mut details = vec![any("google.rpc.ErrorInfo", &info)];
    if let Some(after) = first.retry_after {
        let retry_delay = prost_types::Duration::try_from(after).ok();
        details.push(any("google.rpc.RetryInfo", &pb::RetryInfo { retry_delay }));
    }
    // As many failures as fit; the caller learns how many were left out.
    let mut kept = all.len().min(FAILURES_MAX);
    loop {
        let list = FailureList {
            failures: all.iter().take(kept).map(Problem::failure).collect(),
            omitted: i32::try_from(all.len() - kept).unwrap_or(i32::MAX),
        };
        let used: usize = details.iter().map(Message::encoded_len).sum();
        if kept == 0 || used + list.encoded_len() <= DETAILS_BYTES_MAX {
            details.push(any("weir.v1.FailureList", &list));
            break;
        }
        kept -= 1;
    }
    let message = first.message.clone();
    let code = first.code();
    let status = pb::Status { code: code as i32, message: message.clone(), details };
    Status::with_details(code, message, Bytes::from(status.encode_to_vec()))
}

fn any(name: &str, message: &impl Message) -> prost_types::Any {
    prost_types::Any { type_url: format!("type.googleapis.com/{name}"), value: message.encode_to_vec() }
}

/// Cuts a text at a character boundary.
fn cut(mut text: String, bytes_max: usize) -> String {
    if text.len() > bytes_max {
        let end = (0..=bytes_max - 3).rev().find(|&i| text.is_char_boundary(i)).unwrap_or(0);
        text.truncate(end);
        text.push_str("...");
        // What was cut off is not kept either.
        text.shrink_to_fit();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn details(status: &Status) -> pb::Status {
        pb::Status::decode(status.details()).expect("details are a google.rpc.Status")
    }

    #[test]
    fn a_status_carries_reason_facts_and_whether_it_was_applied() {
        let status = Problem::new(ErrorReason::TopicNotFound, "topic \"a\" does not exist")
            .fact("topic", "a")
            .status();
        assert_eq!(status.code(), Code::NotFound);
        let details = details(&status);
        let info = pb::ErrorInfo::decode(&*details.details[0].value).unwrap();
        assert_eq!((info.reason.as_str(), info.domain.as_str()), ("TOPIC_NOT_FOUND", "weir"));
        assert_eq!(info.metadata["topic"], "a");
        assert_eq!(info.metadata["applied"], "NO");
    }

    #[test]
    fn a_status_says_what_it_is_about_also_to_whoever_knows_no_failures() {
        let topic = "t".repeat(249);
        let status = Problem::new(ErrorReason::NotLeader, "no").at(&topic, 3).status();
        let info = pb::ErrorInfo::decode(&*details(&status).details[0].value).unwrap();
        assert_eq!((&info.metadata["topic"], &*info.metadata["partition"]), (&topic, "3"));
    }

    #[test]
    fn the_details_fit_the_trailers_whatever_failed() {
        let long = "x".repeat(10_000);
        let problems: Vec<_> = (0..1_000)
            .map(|p| {
                let problem = Problem::new(ErrorReason::NotLeader, long.clone()).at(&"t".repeat(249), p);
                (0..5).fold(problem, |problem, i| problem.fact(&format!("fact{i}"), &long))
            })
            .collect();
        let status = Problem::status_of_all(&problems).unwrap();
        // Details travel as base64, the message percent-encoded.
        assert!(
            status.details().len() * 4 / 3 + status.message().len() <= 4096,
            "{}",
            status.details().len()
        );
        let details = details(&status);
        let list = FailureList::decode(&*details.details.last().unwrap().value).unwrap();
        assert_eq!(list.failures.len() + list.omitted as usize, 1_000);
    }

    #[test]
    fn what_may_have_been_applied_is_never_unavailable() {
        let problem = Problem::new(ErrorReason::NotEnoughReplicas, "shrunk after the append");
        assert_eq!(problem.code(), Code::Unavailable);
        assert_eq!(problem.applied(Applied::Maybe).code(), Code::Aborted);
    }

    #[test]
    fn a_message_is_cut_between_characters() {
        assert_eq!(cut("ä".repeat(400), 9), format!("{}...", "ä".repeat(3)));
    }
}
