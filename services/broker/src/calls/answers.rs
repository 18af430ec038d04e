//! The answers of one producing stream: each append takes a ticket, tickets of one partition are answered in the
//! order they were taken, whoever is done first. Hot path: one short lock per ticket taken and answered.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc};
use tonic::Status;
use weir_proto::v1::produce_stream_response::Frame;
use weir_proto::v1::{AppendReceipt, AppendResult, ProduceStreamResponse};
use weir_rpc::Problem;

pub(crate) type Out = mpsc::UnboundedSender<Result<ProduceStreamResponse, Status>>;

/// What became of an append. `None`: nothing to say (acks NONE, and it went well).
pub(crate) type Answer = Result<Option<AppendReceipt>, Problem>;

/// The tickets of a stream. The queue to the client is not bounded by itself: what is in flight is.
#[derive(Debug)]
pub(crate) struct Answers {
    out: Out,
    state: Mutex<State>,
    idle: Notify,
}

#[derive(Debug, Default)]
struct State {
    lanes: Vec<Lane>,
    bytes: usize,
    tickets: usize,
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

impl Answers {
    pub(crate) fn new(out: Out) -> Arc<Self> {
        Arc::new(Self { out, state: Mutex::default(), idle: Notify::new() })
    }

    /// Takes the next ticket of a lane for an append of so many bytes.
    pub(crate) fn ticket(self: &Arc<Self>, lane: usize, correlation_id: i64, bytes: usize) -> Ticket {
        let mut state = self.state.lock();
        if state.lanes.len() <= lane {
            state.lanes.resize_with(lane + 1, Lane::default);
        }
        state.bytes += bytes;
        state.tickets += 1;
        // The lane was made above.
        let number = state.lanes.get_mut(lane).map_or(0, |lane| {
            lane.waiting.push_back((correlation_id, None));
            lane.first + lane.waiting.len() as u64 - 1
        });
        Ticket { answers: self.clone(), lane, number, bytes }
    }

    /// How many bytes have a ticket and no answer yet.
    pub(crate) fn bytes_in_flight(&self) -> usize {
        self.state.lock().bytes
    }

    /// Waits until every ticket is answered. Only for whoever takes the tickets.
    pub(crate) async fn drained(&self) {
        loop {
            let idle = self.idle.notified();
            if self.state.lock().tickets == 0 {
                return;
            }
            idle.await;
        }
    }
}

impl Ticket {
    /// Answers, now or when those before it are.
    pub(crate) fn answer(self, answer: Answer) {
        let mut state = self.answers.state.lock();
        state.bytes -= self.bytes;
        state.tickets -= 1;
        if let Some(lane) = state.lanes.get_mut(self.lane) {
            let place = usize::try_from(self.number - lane.first).unwrap_or(usize::MAX);
            if let Some((_, slot)) = lane.waiting.get_mut(place) {
                *slot = Some(answer);
            }
            while let Some((_, Some(_))) = lane.waiting.front() {
                let Some((correlation_id, Some(answer))) = lane.waiting.pop_front() else { break };
                lane.first += 1;
                // Sent under the lock: two threads answering one lane must not overtake each other here.
                self.answers.send(correlation_id, answer);
            }
        }
        if state.tickets == 0 {
            self.answers.idle.notify_one();
        }
    }
}

impl Answers {
    fn send(&self, correlation_id: i64, answer: Answer) {
        let (receipt, failure) = match answer {
            Ok(None) => return,
            Ok(receipt) => (receipt, None),
            Err(problem) => (None, Some(problem.failure())),
        };
        let result = AppendResult { correlation_id, receipt, failure };
        // A client that has gone does not get its answers; what was appended stays.
        let _ = self.out.send(Ok(ProduceStreamResponse { frame: Some(Frame::Result(result)) }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn results(out: &mut mpsc::UnboundedReceiver<Result<ProduceStreamResponse, Status>>) -> Vec<i64> {
        std::iter::from_fn(|| out.try_recv().ok())
            .map(|message| match message.unwrap().frame {
                Some(Frame::Result(result)) => result.correlation_id,
                other => panic!("not a result: {other:?}"),
            })
            .collect()
    }

    fn done() -> Answer {
        Ok(Some(AppendReceipt::default()))
    }

    #[tokio::test]
    async fn a_lane_answers_in_order_and_lanes_do_not_wait_for_each_other() {
        let (tx, mut rx) = mpsc::unbounded_channel();
        let answers = Answers::new(tx);
        let [a, b, c] = [1, 2, 3].map(|id| answers.ticket(0, id, 10));
        let other = answers.ticket(1, 4, 10);
        assert_eq!(answers.bytes_in_flight(), 40);
        c.answer(done());
        b.answer(done());
        assert_eq!(results(&mut rx), Vec::<i64>::new());
        other.answer(done());
        assert_eq!(results(&mut rx), [4]);
        a.answer(done());
        assert_eq!(results(&mut rx), [1, 2, 3]);
        answers.drained().await;
        assert_eq!(answers.bytes_in_flight(), 0);
    }

    #[tokio::test]
    async fn nothing_is_said_of_what_wanted_no_answer() {
        let (tx, mut rx) = mpsc::unbounded_channel();
        let answers = Answers::new(tx);
        answers.ticket(0, 1, 0).answer(Ok(None));
        answers.ticket(0, 2, 0).answer(done());
        assert_eq!(results(&mut rx), [2]);
    }
}
