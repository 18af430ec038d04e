//! The answers of one producing stream: each append takes a ticket, tickets of one partition are answered in the
//! order they were taken, whoever is done first. Hot path: one short lock per ticket taken, answered and read.
//!
//! What waits here is bounded in bytes, and each append counts for some until its answer is read: there is room for
//! another only below the bound. Whoever reads the requests waits for room, and so, by the flow control of HTTP/2,
//! does the client. (The bound is not lower for small appends: HTTP/2 takes some ten thousand of them, left unread
//! in a connection, for an attack, and ends it.)

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use futures::Stream;
use parking_lot::Mutex;
use tonic::Status;
use weir_proto::v1::produce_stream_response::Frame;
use weir_proto::v1::{AppendReceipt, AppendResult, ProduceStreamResponse};
use weir_rpc::Problem;

use crate::memory::Memory;

/// What an append takes in memory beside its payload, from its ticket to its answer being read, about: its place in
/// the partition's queue, and an answer with a long name or a few facts.
pub(crate) const ANSWER_BYTES: usize = 1_024;

/// What became of an append. `None`: nothing to say (acks NONE, and it went well).
pub(crate) type Answer = Result<Option<AppendReceipt>, Problem>;

/// The tickets of a stream, and the answers that its client has not read yet.
#[derive(Debug)]
pub(crate) struct Answers {
    memory: Arc<Memory>,
    /// How many bytes may wait.
    bytes_max: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    lanes: Vec<Lane>,
    /// In appends without an answer.
    bytes: usize,
    /// Appends without an answer.
    tickets: usize,
    /// Appends whose answer was not read, and whatever else lies unread.
    open: usize,
    unread: VecDeque<Result<ProduceStreamResponse, Status>>,
    /// How many messages the client has taken.
    read: u64,
    /// Whoever takes the tickets, waiting for room, for the last answer, or for the client to go.
    taker: Option<Waker>,
    /// The connection, waiting for something to send.
    reader: Option<Waker>,
    /// The last ticket's answer is waited for.
    draining: bool,
    /// Nothing more is said.
    over: bool,
    /// The client has gone.
    gone: bool,
}

/// One partition's tickets: the first of `waiting` has the number `first`.
#[derive(Debug, Default)]
struct Lane {
    first: u64,
    waiting: VecDeque<(i64, Option<Answer>)>,
}

/// The place of one append in its partition's order. Answer it; dropped without an answer it would hold up the
/// ones behind it for ever.
#[derive(Debug)]
#[must_use]
pub(crate) struct Ticket {
    answers: Arc<Answers>,
    lane: usize,
    number: u64,
    bytes: usize,
}

/// The answers as the connection reads them.
#[derive(Debug)]
pub(crate) struct Reading(Arc<Answers>);

impl Answers {
    pub(crate) fn new(memory: Arc<Memory>, bytes_max: usize) -> (Arc<Self>, Reading) {
        let answers = Arc::new(Self { memory, bytes_max, state: Mutex::default() });
        (answers.clone(), Reading(answers))
    }

    /// Takes the next ticket of a lane for an append of so many bytes.
    pub(crate) fn ticket(self: &Arc<Self>, lane: usize, correlation_id: i64, bytes: usize) -> Ticket {
        self.memory.take(bytes + ANSWER_BYTES);
        let mut state = self.state.lock();
        if state.lanes.len() <= lane {
            state.lanes.resize_with(lane + 1, Lane::default);
        }
        state.bytes += bytes;
        state.tickets += 1;
        state.open += 1;
        // The lane was made above.
        let number = state.lanes.get_mut(lane).map_or(0, |lane| {
            lane.waiting.push_back((correlation_id, None));
            lane.first + lane.waiting.len() as u64 - 1
        });
        Ticket { answers: self.clone(), lane, number, bytes }
    }

    /// Whether another append may be taken.
    pub(crate) fn has_room(&self) -> bool {
        self.state.lock().has_room(self.bytes_max)
    }

    /// Waits for room. This and the next two: only for the one task that takes the tickets. All are cancel safe.
    pub(crate) async fn room(&self) {
        self.wait(|state| state.has_room(self.bytes_max)).await;
    }

    /// Waits until every ticket is answered.
    pub(crate) async fn drained(&self) {
        self.wait(|state| {
            state.draining = state.tickets > 0;
            !state.draining
        })
        .await;
    }

    /// Waits until the client has gone.
    pub(crate) async fn gone(&self) {
        self.wait(|state| state.gone).await;
    }

    async fn wait(&self, mut holds: impl FnMut(&mut State) -> bool) {
        poll_fn(|cx| {
            let mut state = self.state.lock();
            if holds(&mut state) {
                return Poll::Ready(());
            }
            remember(&mut state.taker, cx);
            Poll::Pending
        })
        .await;
    }

    /// Forgets all lanes, which start again. Only while no ticket is out.
    pub(crate) fn forget_lanes(&self) {
        self.state.lock().lanes.clear();
    }

    /// How many messages the client has read; `None` if it has read all there are.
    pub(crate) fn lies_unread_at(&self) -> Option<u64> {
        let state = self.state.lock();
        (!state.unread.is_empty()).then_some(state.read)
    }

    /// Says something that is no append's answer.
    pub(crate) fn say(&self, frame: Frame) {
        let mut state = self.state.lock();
        if state.over || state.gone {
            return;
        }
        self.memory.take(ANSWER_BYTES);
        state.open += 1;
        state.unread.push_back(Ok(ProduceStreamResponse { frame: Some(frame) }));
        wake_outside(state, |state| state.reader.take());
    }

    /// The stream is over, for that reason if there is one; behind what is said, or instead of what lies unread.
    /// Only the first end counts.
    pub(crate) fn end(&self, status: Option<Status>, drop_unread: bool) {
        let mut state = self.state.lock();
        if state.over {
            return;
        }
        state.over = true;
        if drop_unread {
            self.forget_unread(&mut state);
        }
        if let Some(status) = status.filter(|_| !state.gone) {
            self.memory.take(ANSWER_BYTES);
            state.open += 1;
            state.unread.push_back(Err(status));
        }
        wake_outside(state, |state| state.reader.take());
    }

    fn forget_unread(&self, state: &mut State) {
        self.memory.give_back(state.unread.len() * ANSWER_BYTES);
        state.open -= state.unread.len();
        state.unread = VecDeque::new();
    }
}

impl State {
    fn has_room(&self, bytes_max: usize) -> bool {
        self.bytes + self.open * ANSWER_BYTES < bytes_max
    }
}

fn remember(place: &mut Option<Waker>, cx: &Context<'_>) {
    if place.as_ref().is_none_or(|known| !known.will_wake(cx.waker())) {
        *place = Some(cx.waker().clone());
    }
}

/// Wakes when the lock is free again.
fn wake_outside(
    mut state: parking_lot::MutexGuard<'_, State>,
    who: impl FnOnce(&mut State) -> Option<Waker>,
) {
    let waker = who(&mut state);
    drop(state);
    if let Some(waker) = waker {
        waker.wake();
    }
}

impl Ticket {
    /// Answers, now or when those before it are.
    pub(crate) fn answer(self, answer: Answer) {
        let answers = &*self.answers;
        let mut freed = self.bytes;
        let mut state = answers.state.lock();
        let had_room = state.has_room(answers.bytes_max);
        // A client that has gone does not get its answers; what was appended stays.
        let heard = !(state.over || state.gone);
        let State { lanes, unread, open, .. } = &mut *state;
        let mut said = false;
        if let Some(lane) = lanes.get_mut(self.lane) {
            let place = usize::try_from(self.number - lane.first).unwrap_or(usize::MAX);
            if let Some((_, slot)) = lane.waiting.get_mut(place) {
                *slot = Some(answer);
            }
            while let Some((_, Some(_))) = lane.waiting.front() {
                let Some((correlation_id, Some(answer))) = lane.waiting.pop_front() else { break };
                lane.first += 1;
                // Under the lock: two threads answering one lane must not overtake each other here.
                match result(correlation_id, answer).filter(|_| heard) {
                    Some(result) => {
                        said = true;
                        unread.push_back(Ok(result));
                    }
                    None => {
                        freed += ANSWER_BYTES;
                        *open -= 1;
                    }
                }
            }
        }
        state.bytes -= self.bytes;
        state.tickets -= 1;
        let reader = if said { state.reader.take() } else { None };
        let room = !had_room && state.has_room(answers.bytes_max);
        let taker = if room || (state.draining && state.tickets == 0) { state.taker.take() } else { None };
        drop(state);
        answers.memory.give_back(freed);
        for waker in [reader, taker].into_iter().flatten() {
            waker.wake();
        }
    }
}

fn result(correlation_id: i64, answer: Answer) -> Option<ProduceStreamResponse> {
    let (receipt, failure) = match answer {
        Ok(None) => return None,
        Ok(receipt) => (receipt, None),
        Err(problem) => (None, Some(problem.failure())),
    };
    let result = AppendResult { correlation_id, receipt, failure };
    Some(ProduceStreamResponse { frame: Some(Frame::Result(result)) })
}

impl Stream for Reading {
    type Item = Result<ProduceStreamResponse, Status>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let answers = &*self.0;
        let mut state = answers.state.lock();
        let had_room = state.has_room(answers.bytes_max);
        match state.unread.pop_front() {
            Some(message) => {
                state.read += 1;
                state.open -= 1;
                answers.memory.give_back(ANSWER_BYTES);
                let room = !had_room && state.has_room(answers.bytes_max);
                wake_outside(state, |state| if room { state.taker.take() } else { None });
                Poll::Ready(Some(message))
            }
            None if state.over => Poll::Ready(None),
            None => {
                remember(&mut state.reader, cx);
                Poll::Pending
            }
        }
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        let mut state = self.0.state.lock();
        state.gone = true;
        self.0.forget_unread(&mut state);
        wake_outside(state, |state| state.taker.take());
    }
}

#[cfg(test)]
mod tests {
    use futures::{FutureExt, StreamExt};

    use super::*;

    fn results(reading: &mut Reading) -> Vec<i64> {
        std::iter::from_fn(|| reading.next().now_or_never().flatten())
            .map(|message| match message.unwrap().frame {
                Some(Frame::Result(result)) => result.correlation_id,
                other => panic!("not a result: {other:?}"),
            })
            .collect()
    }

    #[test]
    fn an_answer_counts_for_what_it_holds() {
        let topic = "t".repeat(249);
        let fixed = size_of::<Result<ProduceStreamResponse, Status>>()
            + size_of::<(i64, Option<Answer>)>()
            + size_of::<weir_storage::Append>();
        assert!(fixed + topic.len() <= ANSWER_BYTES, "a receipt takes {fixed} and the name");
        let failure = crate::topic_map::not_found(&topic, ["flights"].into_iter()).at(&topic, 0).failure();
        let text: usize = failure.metadata.iter().map(|(fact, value)| fact.len() + value.len()).sum();
        let said = failure.topic.len() + failure.message.len() + text;
        assert!(fixed + said <= 2 * ANSWER_BYTES, "a failure takes {fixed} + {said}");
    }

    fn done() -> Answer {
        Ok(Some(AppendReceipt::default()))
    }

    fn memory() -> Arc<Memory> {
        Memory::new(usize::MAX, prometheus::IntCounter::new("waits", "waits").unwrap())
    }

    #[tokio::test]
    async fn a_lane_answers_in_order_and_lanes_do_not_wait_for_each_other() {
        let memory = memory();
        let (answers, mut reading) = Answers::new(memory.clone(), 1 << 20);
        let [a, b, c] = [1, 2, 3].map(|id| answers.ticket(0, id, 10));
        let other = answers.ticket(1, 4, 10);
        assert_eq!(memory.used(), 4 * (10 + ANSWER_BYTES));
        c.answer(done());
        b.answer(done());
        assert_eq!(results(&mut reading), Vec::<i64>::new());
        other.answer(done());
        assert_eq!(results(&mut reading), [4]);
        a.answer(done());
        assert_eq!(results(&mut reading), [1, 2, 3]);
        answers.drained().await;
        assert_eq!(memory.used(), 0);
    }

    #[tokio::test]
    async fn nothing_is_said_of_what_wanted_no_answer() {
        let memory = memory();
        let (answers, mut reading) = Answers::new(memory.clone(), 1 << 20);
        answers.ticket(0, 1, 0).answer(Ok(None));
        answers.ticket(0, 2, 0).answer(done());
        assert_eq!(results(&mut reading), [2]);
        assert_eq!(memory.used(), 0);
    }

    #[tokio::test]
    async fn there_is_room_again_when_bytes_are_answered_and_when_answers_are_read() {
        let (answers, mut reading) = Answers::new(memory(), 4 * ANSWER_BYTES);
        let large = answers.ticket(0, 1, 3 * ANSWER_BYTES);
        assert!(answers.room().now_or_never().is_none());
        large.answer(done());
        answers.room().await;
        for id in 2..5 {
            answers.ticket(0, id, 0).answer(done());
        }
        assert!(answers.room().now_or_never().is_none(), "as many as may be lie unread");
        assert!(reading.next().await.is_some());
        answers.room().await;
    }

    #[tokio::test]
    async fn nothing_is_kept_for_a_client_that_has_gone_or_was_given_up() {
        let memory = memory();
        let (answers, reading) = Answers::new(memory.clone(), 100);
        let (late, later) = (answers.ticket(0, 1, 10), answers.ticket(0, 2, 10));
        answers.say(Frame::Limits(Default::default()));
        drop(reading);
        answers.gone().await;
        late.answer(done());
        later.answer(done());
        assert_eq!(memory.used(), 0);

        let (answers, mut reading) = Answers::new(memory.clone(), 100);
        let late = answers.ticket(0, 1, 10);
        answers.ticket(1, 2, 10).answer(done());
        assert_eq!(answers.lies_unread_at(), Some(0));
        answers.end(Some(Status::aborted("slow")), true);
        late.answer(done());
        assert!(reading.next().await.unwrap().is_err());
        assert!(reading.next().await.is_none());
        assert_eq!(memory.used(), 0);
    }
}
