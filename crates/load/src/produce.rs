//! The producing half of the load generator: ready batches on ProduceStreams, a window in flight, every receipt
//! checked.
//!
//! One [`Producer`] is one connection with one stream. It writes its own partitions, so it knows which offset each
//! receipt must name: one past the last, without a gap. A server that loses, repeats or reorders a batch fails
//! the run instead of winning it.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use anyhow::{bail, ensure};
use futures::Stream;
use futures::task::AtomicWaker;
use parking_lot::Mutex;
use tokio::time::Instant;
use tonic::Streaming;
use tonic::transport::Channel;
use weir_proto::v1::producer_service_client::ProducerServiceClient;
use weir_proto::v1::{
    Acks, AppendReceipt, BatchAppend, ProduceHello, ProduceStreamRequest, ProduceStreamResponse, RecordBatch,
    Route, produce_stream_request as request, produce_stream_response as response,
};

use crate::connect::{MESSAGE_BYTES_MAX, connect};
use crate::report::Counts;

/// What one connection does.
#[derive(Clone, Debug)]
pub struct Plan {
    /// `host:port`.
    pub server: String,
    /// Whether the server may pass on what others lead. It is refused otherwise.
    pub route: Route,
    /// The topic.
    pub topic: String,
    /// The partitions that this connection alone writes, in turn.
    pub partitions: Vec<i32>,
    /// How many batches to write.
    pub batches: u64,
    /// How many of them may be unanswered.
    pub inflight: u64,
    /// When to answer.
    pub acks: Acks,
    /// What to write, in turn.
    pub payload: Arc<[RecordBatch]>,
    /// Open loop: hand over a batch this often, whether or not the server keeps up, and count latency from when it
    /// was due. Keeps the core busy. None: as fast as the window allows.
    pub every: Option<Duration>,
}

/// A stream that was welcomed and waits for the start.
pub struct Producer {
    plan: Plan,
    window: Arc<Window>,
    answers: Streaming<ProduceStreamResponse>,
    /// By position in `plan.partitions`: the offset that the next receipt must name. None: any, so far.
    expected: Vec<Option<i64>>,
}

impl Producer {
    /// Connects, says hello and waits for the welcome, so that none of this is timed.
    ///
    /// # Errors
    /// If the server cannot be reached or does not welcome.
    pub async fn open(plan: Plan) -> anyhow::Result<Self> {
        ensure!(!plan.partitions.is_empty() && !plan.payload.is_empty(), "nothing to write");
        let channel: Channel = connect(&plan.server).await?;
        let window = Arc::new(Window::new(&plan));
        let source = Source { plan: plan.clone(), window: window.clone(), hello: false };
        let mut answers = ProducerServiceClient::new(channel)
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .produce_stream(source)
            .await?
            .into_inner();
        match answers.message().await?.and_then(|message| message.frame) {
            Some(response::Frame::Welcome(_)) => {}
            other => bail!("not a welcome: {other:?}"),
        }
        let expected = vec![None; plan.partitions.len()];
        Ok(Self { plan, window, answers, expected })
    }

    /// Writes everything and checks every answer.
    ///
    /// # Errors
    /// At the first batch that is refused, answered twice, out of order, or with an offset that does not follow.
    pub async fn run(mut self) -> anyhow::Result<Counts> {
        let mut counts = Counts::default();
        self.window.start();
        while counts.batches < self.plan.batches {
            let Some(message) = self.answers.message().await? else { bail!("the stream ended early") };
            match message.frame {
                Some(response::Frame::Result(result)) => {
                    if let Some(failure) = result.failure {
                        bail!("refused: {}", failure.message);
                    }
                    let Some(receipt) = result.receipt else { bail!("a result without receipt or failure") };
                    self.check(result.correlation_id, &receipt, &mut counts)?;
                }
                Some(response::Frame::Goodbye(goodbye)) => bail!("the server ends the stream: {goodbye:?}"),
                Some(response::Frame::Limits(_) | response::Frame::Welcome(_)) | None => {}
            }
        }
        self.window.finish();
        while self.answers.message().await?.is_some() {}
        Ok(counts)
    }

    fn check(
        &mut self,
        correlation: i64,
        receipt: &AppendReceipt,
        counts: &mut Counts,
    ) -> anyhow::Result<()> {
        let Some(slot) = self.plan.partitions.iter().position(|p| *p == receipt.partition) else {
            bail!("a receipt for partition {}, which was not written", receipt.partition);
        };
        let Some(sent) = self.window.answered(slot) else { bail!("a receipt more than appends") };
        ensure!(sent.correlation == correlation, "answer {correlation} where {} was due", sent.correlation);
        let records = i64::from(sent.records);
        if let Some(expected) = self.expected.get_mut(slot) {
            let wanted = expected.unwrap_or(receipt.base_offset);
            ensure!(
                receipt.base_offset == wanted && receipt.last_offset == wanted + records - 1,
                "partition {}: offsets {}..={} where {wanted}..={} was due",
                receipt.partition,
                receipt.base_offset,
                receipt.last_offset,
                wanted + records - 1,
            );
            *expected = Some(wanted + records);
        }
        counts.bytes += sent.bytes as u64;
        counts.batches += 1;
        counts.records += u64::try_from(records)?;
        counts.latency_ns.saturating_record(u64::try_from(sent.due.elapsed().as_nanos()).unwrap_or(u64::MAX));
        Ok(())
    }
}

/// A batch on its way.
struct Sent {
    correlation: i64,
    records: i32,
    bytes: usize,
    due: Instant,
}

/// What the request body and the reader of answers share.
struct Window {
    state: Mutex<State>,
    waker: AtomicWaker,
    limit: u64,
}

struct State {
    phase: Phase,
    sent: u64,
    answered: u64,
    started: Instant,
    /// By position in the plan's partitions: what is unanswered, oldest first.
    unanswered: Vec<VecDeque<Sent>>,
}

#[derive(PartialEq)]
enum Phase {
    Waiting,
    Running,
    Done,
}

impl Window {
    fn new(plan: &Plan) -> Self {
        let state = State {
            phase: Phase::Waiting,
            sent: 0,
            answered: 0,
            started: Instant::now(),
            unanswered: plan.partitions.iter().map(|_| VecDeque::new()).collect(),
        };
        Self { state: Mutex::new(state), waker: AtomicWaker::new(), limit: plan.inflight.max(1) }
    }

    fn start(&self) {
        let mut state = self.state.lock();
        state.phase = Phase::Running;
        state.started = Instant::now();
        drop(state);
        self.waker.wake();
    }

    fn finish(&self) {
        self.state.lock().phase = Phase::Done;
        self.waker.wake();
    }

    fn answered(&self, slot: usize) -> Option<Sent> {
        let mut state = self.state.lock();
        let sent = state.unanswered.get_mut(slot)?.pop_front()?;
        let was_full = state.sent - state.answered >= self.limit;
        state.answered += 1;
        drop(state);
        if was_full {
            self.waker.wake();
        }
        Some(sent)
    }
}

/// The request body: a hello, then a batch whenever the window has room.
struct Source {
    plan: Plan,
    window: Arc<Window>,
    hello: bool,
}

impl Source {
    fn hello(&self) -> ProduceStreamRequest {
        let hello = ProduceHello {
            client: "weir-bench".to_owned(),
            version_min: 1,
            version_max: 1,
            route: self.plan.route.into(),
            acks: self.plan.acks.into(),
            ..ProduceHello::default()
        };
        ProduceStreamRequest { frame: Some(request::Frame::Hello(hello)) }
    }

    /// The next batch, if one is due and the window has room. Otherwise the waker is kept.
    fn next(&self, waker: &Waker) -> Poll<Option<ProduceStreamRequest>> {
        self.window.waker.register(waker);
        let mut state = self.window.state.lock();
        if state.phase == Phase::Done {
            return Poll::Ready(None);
        }
        let full = state.sent - state.answered >= self.window.limit;
        if state.phase == Phase::Waiting || full || state.sent >= self.plan.batches {
            return Poll::Pending;
        }
        let now = Instant::now();
        let mut due = now;
        if let Some(every) = self.plan.every {
            due = state.started + every.saturating_mul(u32::try_from(state.sent).unwrap_or(u32::MAX));
            if now < due {
                // Timers are a millisecond coarse; the pace is kept by asking again.
                waker.wake_by_ref();
                return Poll::Pending;
            }
        }
        let turn = usize::try_from(state.sent).unwrap_or(0);
        let slot = turn % self.plan.partitions.len();
        let (Some(partition), Some(batch)) =
            (self.plan.partitions.get(slot), self.plan.payload.get(turn % self.plan.payload.len()))
        else {
            return Poll::Ready(None);
        };
        let correlation = i64::try_from(state.sent).unwrap_or(i64::MAX);
        let sent = Sent { correlation, records: batch.record_count, bytes: batch.records.len(), due };
        if let Some(queue) = state.unanswered.get_mut(slot) {
            queue.push_back(sent);
        }
        state.sent += 1;
        drop(state);
        let append = BatchAppend {
            correlation_id: correlation,
            topic: self.plan.topic.clone(),
            partition: *partition,
            batch: Some(batch.clone()),
            ..BatchAppend::default()
        };
        Poll::Ready(Some(ProduceStreamRequest { frame: Some(request::Frame::Append(append)) }))
    }
}

impl Stream for Source {
    type Item = ProduceStreamRequest;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if !self.hello {
            self.hello = true;
            return Poll::Ready(Some(self.hello()));
        }
        self.next(cx.waker())
    }
}
