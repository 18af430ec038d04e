//! The appends of one client's stream that other brokers are to make: passed on over one stream to each leader. Hot path:
//! one short lock per append passed on, taken by the connection, and answered.
//!
//! **Why nothing is reordered or written twice here** (correctness rule 42):
//! - The appends of one partition go to one leader at a time: before they go to another, or are made here, every one of
//!   them is answered. On the stream to a leader they keep the order in which they came.
//! - Nothing is sent twice. What is refused is refused to the client, who knows what it had sent behind it.
//! - A row has one [`Gate`] from one `resume` to the next. The first of its appends that is refused, or of which nobody
//!   knows, shuts it, under the lock under which appends are passed on: so none gets past it that the client did not send
//!   with `resume`. The leader has a gate of its own for the same row, and refuses what was on its way by then. What
//!   becomes of appends from before a `resume` shuts a gate that nobody uses any more.
//! - Which appends may have left: [`Outbound`] gives them to a connection that has opened the stream. What it has not
//!   given away when the stream ends was not applied; of the rest nobody knows.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use futures::{Stream, StreamExt};
use http::uri::PathAndQuery;
use parking_lot::Mutex;
use tonic::body::Body;
use tonic::client::Grpc;
use tonic::metadata::MetadataMap;
use tonic::{Code, Request, Status};
use weir_proto::body::BatchBody;
use weir_proto::codec::{Codec, Encoded};
use weir_proto::v1::produce_stream_request::Frame as Out;
use weir_proto::v1::produce_stream_response::Frame as In;
use weir_proto::v1::{
    Acks as WireAcks, AppendResult, BatchAppend, ErrorReason, ProduceHello, ProduceStreamRequest,
    ProduceStreamResponse, Route,
};
use weir_rpc::{Problem, WithBody};
use weir_storage::{AppendError, Gate};
use weir_types::BrokerId;

use super::answers::Ticket;
use crate::broker::Broker;
use crate::forward::hop::{self, Ask, Hop};
use crate::forward::peers::Place;
use crate::problems;

const PATH: &str = "/weir.v1.ProducerService/ProduceStream";
/// Asked of a leader that has a stream already: it answers once it knows what this broker knows.
const PROBE_PATH: &str = "/weir.v1.MetadataService/GetServerInfo";

/// The streams of one client's stream to other brokers. Dropped, they end with what was passed on by then.
pub(super) struct Onward {
    broker: Arc<Broker>,
    hop: Hop,
    hello: ProduceHello,
    streams: HashMap<BrokerId, Line>,
}

/// A stream to one leader.
struct Line {
    queue: Arc<Queue>,
    /// The version of the metadata that the leader had at least when something was first sent.
    version: i64,
}

impl Drop for Line {
    fn drop(&mut self) {
        self.queue.close();
    }
}

/// An append that is passed on.
pub(super) struct Passed {
    pub(super) append: BatchAppend,
    /// Whether only a failure is worth an answer.
    pub(super) silent: bool,
    pub(super) gate: Arc<Gate>,
    pub(super) ticket: Ticket,
}

impl Onward {
    /// For a stream that begins with this hello.
    pub(super) fn new(broker: Arc<Broker>, hop: Hop, hello: ProduceHello) -> Self {
        // One hop: who is asked does not pass on.
        let hello = ProduceHello { route: Route::Direct.into(), ..hello };
        Self { broker, hop, hello, streams: HashMap::new() }
    }

    /// Sees to it that a leader knows of its leadership before the first append of a partition comes to it.
    pub(super) async fn prepare(&mut self, leader: BrokerId, topic: &str, partition: i32) {
        let version = self.broker.cluster.image().version();
        let Some(line) = self.streams.get_mut(&leader).filter(|line| line.version < version) else { return };
        line.version = version;
        let ask = Ask { to: leader, path: PROBE_PATH, topic, partition, changes: false };
        // One that does not answer refuses, or its stream breaks: that is heard there.
        let _heard = hop::ask(&self.broker, &self.hop, ask, Encoded::default()).await;
    }

    /// Passes an append on, or answers why not.
    pub(super) fn pass(&mut self, leader: BrokerId, mut passed: Passed) {
        if let Some(line) = self.streams.get(&leader) {
            match line.queue.push(passed) {
                None => return,
                Some(back) => passed = back,
            }
        }
        // There is none, or it is over.
        match self.open(leader) {
            Some(line) => {
                let refused = line.queue.push(passed);
                self.streams.insert(leader, line);
                refused
                    .into_iter()
                    .for_each(|passed| passed.refuse_unsent(leader, "the stream ended at once"));
            }
            None => passed.refuse_unsent(leader, "it is gone"),
        }
    }

    fn open(&self, leader: BrokerId) -> Option<Line> {
        let image = self.broker.cluster.image();
        let place = self.broker.peers.place(&image, leader)?;
        let queue = Arc::new(Queue { leader, state: Mutex::default() });
        let version = image.version();
        let hello = ProduceStreamRequest { frame: Some(Out::Hello(self.hello.clone())) };
        let outbound = Outbound { hello: Some(hello), queue: queue.clone() };
        let mut request = Request::new(tokio_stream::empty());
        *request.metadata_mut() = MetadataMap::from_headers(self.hop.headers(version));
        let (broker, reader) = (self.broker.clone(), queue.clone());
        tokio::spawn(async move {
            let ended = read(&place, outbound, request, &reader).await;
            let bytes = reader.end(&ended);
            broker.metrics.forwarded(PATH, ended.code(), bytes);
        });
        Some(Line { queue, version })
    }
}

/// Reads a leader's answers to the end of the stream, and says how it ended.
async fn read(
    place: &Place,
    outbound: Outbound,
    request: Request<tokio_stream::Empty<()>>,
    queue: &Queue,
) -> Status {
    let body = Body::new(BatchBody::of_request(outbound.map(Ok)));
    let mut grpc = Grpc::new(WithBody::new(place.channel(), body)).max_decoding_message_size(usize::MAX);
    if let Err(error) = grpc.ready().await {
        return Status::from_error(Box::new(error));
    }
    let codec = Codec::<(), ProduceStreamResponse>::default();
    let mut answers = match grpc.streaming(request, PathAndQuery::from_static(PATH), codec).await {
        Ok(answers) => answers.into_inner(),
        Err(status) => return status,
    };
    loop {
        match answers.message().await {
            Ok(Some(ProduceStreamResponse { frame: Some(In::Result(result)) })) => queue.answered(result),
            Ok(Some(ProduceStreamResponse { frame: Some(In::Goodbye(_)) })) => queue.leave(),
            Ok(Some(_)) => {}
            Ok(None) => return Status::ok(""),
            Err(status) => return status,
        }
    }
}

/// What is passed on over one stream, until it is answered.
struct Queue {
    leader: BrokerId,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    next_id: i64,
    /// Not given to the connection yet.
    frames: VecDeque<BatchAppend>,
    /// Without an answer, in the order in which they came.
    sent: BTreeMap<i64, Sent>,
    /// How many bytes were given to the connection.
    bytes: usize,
    /// The client's stream is over: what is here was all.
    closed: bool,
    /// It takes no more.
    over: bool,
    connection: Option<Waker>,
}

struct Sent {
    topic: String,
    partition: i32,
    silent: bool,
    /// Whether it may have left.
    given: bool,
    gate: Arc<Gate>,
    ticket: Ticket,
}

impl Queue {
    /// Takes an append, or answers it; it comes back where the stream takes none.
    fn push(&self, passed: Passed) -> Option<Passed> {
        let mut state = self.state.lock();
        if passed.gate.is_shut() {
            drop(state);
            passed.refuse_behind();
            return None;
        }
        if state.over {
            return Some(passed);
        }
        let Passed { mut append, silent, gate, ticket } = passed;
        state.next_id += 1;
        append.correlation_id = state.next_id;
        if silent {
            // Its failure is to be heard, and so is that there was none: it counts here until then.
            append.acks = WireAcks::Leader.into();
        }
        let (topic, partition) = (append.topic.clone(), append.partition);
        let sent = Sent { topic, partition, silent, given: false, gate, ticket };
        let id = state.next_id;
        state.sent.insert(id, sent);
        state.frames.push_back(append);
        let connection = state.connection.take();
        drop(state);
        connection.into_iter().for_each(Waker::wake);
        None
    }

    /// The leader has answered one.
    fn answered(&self, result: AppendResult) {
        let mut state = self.state.lock();
        let Some(sent) = state.sent.remove(&result.correlation_id) else { return };
        if result.failure.is_some() {
            sent.gate.shut();
        }
        drop(state);
        let Sent { topic, partition, silent, ticket, .. } = sent;
        ticket.answer(match (result.failure, result.receipt) {
            (Some(failure), _) if failure.reason() == ErrorReason::NotLeader => {
                Err(problems::moving(&topic, partition))
            }
            (Some(failure), _) => Err(Problem::heard(&failure)),
            (None, _) if silent => Ok(None),
            (None, Some(receipt)) => Ok(Some(receipt)),
            (None, None) => {
                let said = format!("{topic}/{partition}: broker {} answered without a receipt", self.leader);
                Err(Problem::new(ErrorReason::OutcomeUnknown, said).at(&topic, partition))
            }
        });
    }

    /// The leader reads no more: what was not given away goes nowhere.
    fn leave(&self) {
        let unsent = {
            let mut state = self.state.lock();
            state.over = true;
            state.frames.clear();
            let State { sent, .. } = &mut *state;
            let unsent: Vec<_> = sent.extract_if(.., |_, sent| !sent.given).map(|(_, sent)| sent).collect();
            unsent.iter().for_each(|sent| sent.gate.shut());
            unsent
        };
        unsent.into_iter().for_each(|sent| sent.fail(self.leader, "it is stopping"));
    }

    /// The stream has ended: says how many bytes it has carried.
    fn end(&self, status: &Status) -> usize {
        let cause = match status.code() {
            Code::Ok => "the stream ended".to_owned(),
            _ => hop::cause(status),
        };
        let (lost, bytes) = {
            let mut state = self.state.lock();
            state.over = true;
            state.frames.clear();
            let lost = std::mem::take(&mut state.sent);
            lost.values().for_each(|sent| sent.gate.shut());
            (lost, state.bytes)
        };
        lost.into_values().for_each(|sent| sent.fail(self.leader, &cause));
        bytes
    }

    /// The client's stream is over.
    fn close(&self) {
        let connection = {
            let mut state = self.state.lock();
            state.closed = true;
            state.connection.take()
        };
        connection.into_iter().for_each(Waker::wake);
    }
}

impl Sent {
    /// It gets no answer.
    fn fail(self, leader: BrokerId, why: &str) {
        let Self { topic, partition, given, ticket, .. } = self;
        if !given {
            return ticket.answer(Err(hop::unreachable(&topic, partition, leader, why)));
        }
        let said = format!(
            "{topic}/{partition}: the connection to broker {leader}, which leads it, broke before the append was \
             answered ({why}): it may be in the log"
        );
        ticket.answer(Err(Problem::new(ErrorReason::OutcomeUnknown, said).at(&topic, partition)));
    }
}

impl Passed {
    /// One before it has failed, and the client has not said that it knows.
    fn refuse_behind(self) {
        let BatchAppend { topic, partition, .. } = &self.append;
        let problem = problems::append(topic, *partition, None, &AppendError::Poisoned);
        self.ticket.answer(Err(problem));
    }

    fn refuse_unsent(self, leader: BrokerId, why: &str) {
        self.gate.shut();
        let BatchAppend { topic, partition, .. } = &self.append;
        let problem = hop::unreachable(topic, *partition, leader, why);
        self.ticket.answer(Err(problem));
    }
}

/// What the connection takes the messages from.
struct Outbound {
    hello: Option<ProduceStreamRequest>,
    queue: Arc<Queue>,
}

impl Stream for Outbound {
    type Item = ProduceStreamRequest;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<ProduceStreamRequest>> {
        if let Some(hello) = self.hello.take() {
            return Poll::Ready(Some(hello));
        }
        let mut state = self.queue.state.lock();
        let State { frames, sent, bytes, .. } = &mut *state;
        match frames.pop_front() {
            Some(append) => {
                if let Some(sent) = sent.get_mut(&append.correlation_id) {
                    sent.given = true;
                }
                *bytes += append.batch.as_ref().map_or(0, |batch| batch.records.len());
                Poll::Ready(Some(ProduceStreamRequest { frame: Some(Out::Append(append)) }))
            }
            None if state.closed => Poll::Ready(None),
            None => {
                state.connection = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use weir_proto::v1::{AppendReceipt, Applied, Failure};

    use super::*;
    use crate::calls::produce_stream::answers::{Answers, Reading};
    use crate::memory::Memory;

    /// A client's stream that writes to one partition, led elsewhere.
    struct Client {
        answers: Arc<Answers>,
        reading: Reading,
        gate: Arc<Gate>,
    }

    impl Client {
        fn new() -> Self {
            let memory = Memory::new(usize::MAX, prometheus::IntCounter::new("waits", "waits").unwrap());
            let (answers, reading) = Answers::new(memory, usize::MAX);
            Self { answers, reading, gate: Arc::default() }
        }

        fn append(&mut self, id: i64, resume: bool) -> Passed {
            if resume {
                self.gate = Arc::default();
            }
            let append =
                BatchAppend { topic: "t".to_owned(), correlation_id: id, resume, ..Default::default() };
            let ticket = self.answers.ticket(0, id, 0);
            Passed { append, silent: false, gate: self.gate.clone(), ticket }
        }

        /// What the client has been told: of which append, and why it failed if it did.
        fn told(&mut self) -> Vec<(i64, Option<(ErrorReason, Applied)>)> {
            let answers = std::iter::from_fn(|| self.reading.next().now_or_never().flatten());
            answers
                .filter_map(|answer| match answer.unwrap().frame {
                    Some(In::Result(result)) => {
                        let why = result.failure.map(|failure| (failure.reason(), failure.applied()));
                        Some((result.correlation_id, why))
                    }
                    _ => None,
                })
                .collect()
        }
    }

    fn queue() -> Arc<Queue> {
        Arc::new(Queue { leader: BrokerId(2), state: Mutex::default() })
    }

    /// Takes so many as the connection does.
    fn give(queue: &Arc<Queue>, count: usize) -> Vec<i64> {
        let mut outbound = Outbound { hello: None, queue: queue.clone() };
        let given = std::iter::from_fn(|| outbound.next().now_or_never().flatten()).take(count);
        given
            .filter_map(|request| match request.frame {
                Some(Out::Append(append)) => Some(append.correlation_id),
                _ => None,
            })
            .collect()
    }

    fn result(id: i64, reason: Option<ErrorReason>) -> AppendResult {
        let failure = reason.map(|reason| Problem::new(reason, "no").failure());
        let receipt = failure.is_none().then(AppendReceipt::default);
        AppendResult { correlation_id: id, failure, receipt }
    }

    #[test]
    fn of_what_was_given_away_nobody_knows_and_the_rest_was_not_applied() {
        let (mut client, queue) = (Client::new(), queue());
        (1..=4).for_each(|id| assert!(queue.push(client.append(id, false)).is_none()));
        assert_eq!(give(&queue, 2), [1, 2]);
        queue.answered(result(1, None));
        queue.end(&Status::unavailable("cut"));
        let unknown = Some((ErrorReason::OutcomeUnknown, Applied::Maybe));
        let unsent = Some((ErrorReason::NoLeader, Applied::No));
        assert_eq!(client.told(), [(1, None), (2, unknown), (3, unsent), (4, unsent)]);
        let back = queue.push(client.append(5, true));
        assert!(back.is_some(), "another stream takes it");
    }

    #[test]
    fn nothing_gets_past_what_failed_but_what_comes_with_resume() {
        let (mut client, first) = (Client::new(), queue());
        assert!(first.push(client.append(1, false)).is_none());
        give(&first, 1);
        first.end(&Status::unavailable("cut"));
        let second = queue();
        assert!(second.push(client.append(2, false)).is_none());
        assert_eq!(give(&second, 9), [0; 0], "it is behind one of which nobody knows");
        assert!(second.push(client.append(3, true)).is_none());
        assert!(second.push(client.append(4, false)).is_none());
        assert_eq!(give(&second, 9), [1, 2], "numbers of this stream's own");
        let why: Vec<_> = client.told().into_iter().map(|(id, why)| (id, why.map(|why| why.0))).collect();
        assert_eq!(why, [(1, Some(ErrorReason::OutcomeUnknown)), (2, Some(ErrorReason::StreamPoisoned))]);
    }

    #[test]
    fn what_is_heard_late_of_those_before_a_resume_stops_nobody_behind_it() {
        let (mut client, queue) = (Client::new(), queue());
        [1, 2].into_iter().for_each(|id| assert!(queue.push(client.append(id, false)).is_none()));
        give(&queue, 2);
        queue.answered(result(1, Some(ErrorReason::BatchCorrupt)));
        assert!(queue.push(client.append(3, true)).is_none());
        queue.answered(result(2, Some(ErrorReason::StreamPoisoned)));
        assert!(queue.push(client.append(4, false)).is_none());
        assert_eq!(give(&queue, 9), [3, 4]);
        [3, 4].into_iter().for_each(|id| queue.answered(result(id, None)));
        let well: Vec<_> = client.told().into_iter().filter(|(_, why)| why.is_none()).collect();
        assert_eq!(well, [(3, None), (4, None)]);
    }

    #[test]
    fn a_leader_that_says_goodbye_gets_nothing_more_and_still_answers() {
        let (mut client, queue) = (Client::new(), queue());
        (1..=3).for_each(|id| assert!(queue.push(client.append(id, false)).is_none()));
        give(&queue, 2);
        queue.leave();
        assert_eq!(give(&queue, 9), [0; 0]);
        [1, 2].into_iter().for_each(|id| queue.answered(result(id, None)));
        assert_eq!(client.told(), [(1, None), (2, None), (3, Some((ErrorReason::NoLeader, Applied::No)))]);
    }

    #[test]
    fn who_is_told_to_ask_another_is_told_to_ask_again() {
        let (mut client, queue) = (Client::new(), queue());
        assert!(queue.push(client.append(1, false)).is_none());
        give(&queue, 1);
        let failure: Failure = Problem::new(ErrorReason::NotLeader, "no").failure();
        queue.answered(AppendResult { correlation_id: 1, failure: Some(failure), ..Default::default() });
        assert_eq!(client.told(), [(1, Some((ErrorReason::NoLeader, Applied::No)))]);
    }
}
