//! The one hop of a call: what it carries on beside its message, and what it means where it fails.

use std::sync::Arc;
use std::time::Duration;

use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue};
use tokio::time::Instant;
use tonic::client::Grpc;
use tonic::metadata::MetadataMap;
use tonic::{Code, Request, Response, Status};
use weir_proto::codec::{Encoded, Raw};
use weir_proto::v1::{Applied, ErrorReason};
use weir_rpc::{Problem, deadline};
use weir_types::BrokerId;

use crate::broker::Broker;
use crate::forward::peers::Place;
use crate::observe;

/// Said of a call that a broker has passed on. On the public listener it means nothing.
pub(crate) const FORWARDED: &str = "weir-forwarded";
/// The version of the metadata by which a call was passed on.
pub(crate) const VERSION: &str = "weir-metadata-version";
/// Said of a ListOffsets that a broker makes of a Consume: the ends are those to read up to.
const READING: &str = "weir-reading";
/// What else goes on with a call: its name, and whose work it is a part of.
const CARRIED: [&str; 4] = ["weir-request-id", "traceparent", "tracestate", "baggage"];
/// What the way back is given of the caller's time.
const MARGIN: Duration = Duration::from_millis(50);

/// What a call carries on.
#[derive(Clone, Debug, Default)]
pub(crate) struct Hop {
    headers: HeaderMap,
    /// When the caller stops waiting.
    ends: Option<Instant>,
}

/// A call to another broker.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ask<'a> {
    pub(crate) to: BrokerId,
    /// Its whole path: `/service/method`.
    pub(crate) path: &'static str,
    /// A partition that it is about.
    pub(crate) topic: &'a str,
    pub(crate) partition: i32,
    /// Whether it changes something: then what was lost may have been done.
    pub(crate) changes: bool,
}

impl Hop {
    /// What the call with these headers carries on.
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        let carried = CARRIED
            .into_iter()
            .filter_map(|name| Some((HeaderName::from_static(name), headers.get(name)?.clone())));
        let mut carried: HeaderMap = carried.collect();
        carried.insert(FORWARDED, HeaderValue::from_static("1"));
        let ends = deadline::of(&MetadataMap::from_headers(timeout_of(headers)));
        Self { headers: carried, ends }
    }

    /// What a call of this broker's own carries on.
    pub(super) fn until(ends: Instant) -> Self {
        Self { ends: Some(ends), ..Self::of(&HeaderMap::new()) }
    }

    /// The same for a question of this broker's own: how far may be read.
    pub(super) fn reading(mut self) -> Self {
        self.headers.insert(READING, HeaderValue::from_static("1"));
        self
    }

    /// When the caller stops waiting, if it said so.
    pub(crate) fn ends(&self) -> Option<Instant> {
        self.ends
    }

    /// As headers of a call that is passed on by this version of the metadata.
    pub(crate) fn headers(&self, version: i64) -> HeaderMap {
        let mut headers = self.headers.clone();
        headers.insert(VERSION, HeaderValue::from(version));
        headers
    }

    /// The call's message on its way. `None`: its time is over.
    fn request(&self, message: Encoded, version: i64) -> Option<Request<Encoded>> {
        let mut request = Request::new(message);
        *request.metadata_mut() = MetadataMap::from_headers(self.headers(version));
        if let Some(ends) = self.ends {
            let left = ends.checked_duration_since(Instant::now() + MARGIN)?;
            request.set_timeout(left);
        }
        Some(request)
    }
}

/// Whether a question is how far may be read.
pub(crate) fn is_reading(metadata: &MetadataMap) -> bool {
    metadata.contains_key(READING)
}

fn timeout_of(headers: &HeaderMap) -> HeaderMap {
    const NAME: &str = "grpc-timeout";
    let value = headers.get(NAME).map(|value| (HeaderName::from_static(NAME), value.clone()));
    value.into_iter().collect()
}

/// Asks another broker, once.
pub(crate) async fn ask(
    broker: &Arc<Broker>,
    hop: &Hop,
    ask: Ask<'_>,
    message: Encoded,
) -> Result<Response<Encoded>, Status> {
    let image = broker.cluster.image();
    let place = broker.peers.place(&image, ask.to).ok_or_else(|| ask.unreachable("it is gone").status())?;
    let sent = message.0.len();
    let Some(request) = hop.request(message, image.version()) else { return Err(ask.too_late().status()) };
    let answer = send(&place, ask.path, request).await;
    let cluster = &broker.cluster;
    match (answered_by(&answer), &answer) {
        (Some(who), _) if who == ask.to.0 => cluster.reach.reached(ask.to),
        (Some(who), _) => cluster.missed(ask.to, &format!("broker {who} answers there")),
        (None, Err(status)) if is_unsent(status) => cluster.missed(ask.to, &cause(status)),
        (None, _) => {}
    }
    let answer = answer.map_err(|status| ask.failed(&status));
    let received = answer.as_ref().map_or(0, |answer| answer.get_ref().0.len());
    let code = answer.as_ref().err().map_or(Code::Ok, Status::code);
    broker.metrics.forwarded(ask.path, code, sent + received);
    answer
}

/// Whose answer it is, as brokers say of all of theirs.
fn answered_by(answer: &Result<Response<Encoded>, Status>) -> Option<i32> {
    let metadata = match answer {
        Ok(answer) => answer.metadata(),
        Err(status) => status.metadata(),
    };
    metadata.get(observe::BROKER)?.to_str().ok()?.parse().ok()
}

async fn send(
    place: &Place,
    path: &'static str,
    request: Request<Encoded>,
) -> Result<Response<Encoded>, Status> {
    let mut grpc = Grpc::new(place.channel())
        // What a message may hold is decided where it is made, and where it is taken.
        .max_decoding_message_size(usize::MAX)
        .max_encoding_message_size(usize::MAX);
    grpc.ready().await.map_err(|error| Status::from_error(Box::new(error)))?;
    grpc.unary(request, PathAndQuery::from_static(path), Raw::default()).await
}

/// Whether not a byte of a call has left this process: the connection could not be made.
pub(crate) fn is_unsent(status: &Status) -> bool {
    let mut next = std::error::Error::source(status);
    while let Some(error) = next {
        if error.is::<tonic::ConnectError>() {
            return true;
        }
        next = error.source();
    }
    false
}

impl Ask<'_> {
    /// What the caller is told: what the owner said, or what it means that it did not.
    fn failed(&self, status: &Status) -> Status {
        if let Some(said) = self.said(status) {
            return said;
        }
        if is_unsent(status) {
            return self.unreachable(&cause(status)).status();
        }
        // So the library says that the time which the call was given is over.
        if status.code() == Code::Cancelled && status.message() == "Timeout expired" {
            return self.too_late().applied(self.lost()).status();
        }
        self.broken(&cause(status)).status()
    }

    /// A Weir server's own words.
    fn said(&self, status: &Status) -> Option<Status> {
        Problem::heard_of_call(status)?;
        let details = bytes::Bytes::copy_from_slice(status.details());
        Some(Status::with_details(status.code(), status.message(), details))
    }

    /// What became of a call that was sent and not answered.
    fn lost(&self) -> Applied {
        if self.changes { Applied::Maybe } else { Applied::No }
    }

    fn unreachable(&self, why: &str) -> Problem {
        unreachable(self.topic, self.partition, self.to, why)
    }

    fn too_late(&self) -> Problem {
        let Self { to, topic, partition, .. } = self;
        let said = format!("{topic}/{partition}: broker {to}, which leads it, has not answered in time");
        Problem::new(ErrorReason::DeadlineExceeded, said).applied(Applied::No).at(topic, *partition)
    }

    fn broken(&self, why: &str) -> Problem {
        let Self { to, topic, partition, changes, .. } = self;
        if *changes {
            let said = format!(
                "{topic}/{partition}: the connection to broker {to}, which leads it, broke before the answer came \
                 ({why}): nobody knows whether it was carried out"
            );
            return Problem::new(ErrorReason::OutcomeUnknown, said).at(topic, *partition);
        }
        self.unreachable(why)
    }
}

/// The broker that leads a partition cannot be asked, and was not.
pub(crate) fn unreachable(topic: &str, partition: i32, leader: BrokerId, why: &str) -> Problem {
    let said = format!(
        "{topic}/{partition} is led by broker {leader}, which this broker cannot reach ({why}): try again, another may \
         lead it soon"
    );
    Problem::new(ErrorReason::NoLeader, said).fact("leader", leader).at(topic, partition)
}

/// Why a broker has not answered.
pub(crate) fn cause(status: &Status) -> String {
    weir_rpc::cause(status, status.message())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ASK: Ask<'static> =
        Ask { to: BrokerId(2), path: "/weir.v1.X/Y", topic: "t", partition: 3, changes: true };

    fn heard(status: &Status) -> Problem {
        Problem::heard_of_call(status).unwrap().remove(0)
    }

    #[test]
    fn what_the_owner_said_is_passed_on_and_what_it_did_not_say_is_not_made_up() {
        let said = Problem::new(ErrorReason::BatchCorrupt, "no").at("t", 3);
        assert_eq!(heard(&ASK.failed(&said.status())), said);
        let lost = Status::from_error(Box::new(std::io::Error::from(std::io::ErrorKind::BrokenPipe)));
        let unknown = heard(&ASK.failed(&lost));
        assert_eq!((unknown.reason, unknown.applied), (ErrorReason::OutcomeUnknown, Applied::Maybe));
        let read = heard(&Ask { changes: false, ..ASK }.failed(&lost));
        assert_eq!((read.reason, read.applied), (ErrorReason::NoLeader, Applied::No));
        let late = heard(&ASK.failed(&Status::cancelled("Timeout expired")));
        assert_eq!((late.reason, late.applied), (ErrorReason::DeadlineExceeded, Applied::Maybe));
    }

    #[test]
    fn what_never_left_was_not_applied() {
        let refused = std::io::Error::new(std::io::ErrorKind::ConnectionRefused, "connection refused");
        let status = Status::from_error(Box::new(tonic::ConnectError(Box::new(refused))));
        let problem = heard(&ASK.failed(&status));
        assert_eq!((problem.reason, problem.applied), (ErrorReason::NoLeader, Applied::No));
        assert!(problem.message.contains("connection refused"), "{problem}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_carries_its_name_its_trace_and_what_is_left_of_its_time() {
        let said = [("weir-request-id", "r"), ("traceparent", "t"), ("x-other", "o"), ("grpc-timeout", "1S")];
        let said = said.map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
        let hop = Hop::of(&said.into_iter().collect());
        let request = hop.request(Encoded::default(), 7).unwrap();
        let header = |name| request.metadata().get(name).and_then(|value| value.to_str().ok());
        assert_eq!(
            ["weir-request-id", "traceparent", "x-other", "weir-forwarded", "weir-metadata-version"]
                .map(header),
            [Some("r"), Some("t"), None, Some("1"), Some("7")]
        );
        assert_eq!(header("grpc-timeout"), Some("950000u"));
        tokio::time::advance(Duration::from_millis(960)).await;
        assert!(hop.request(Encoded::default(), 7).is_none());
    }
}
