//! FetchStream: stored batches of many partitions, as many as the client gave credit for. Hot path.
//!
//! The answers are pulled by the connection: nothing is read before there is room. A subscription's turn lasts as
//! long as what one read of its log gave: so a stream holds one such portion, however many partitions it reads. The
//! requests are drained by a task of their own, so that a client that does not read is still heard, and cannot fill
//! our memory either. Partitions that other brokers lead are read by them ([`Elsewhere`]).

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use futures::future::{AbortHandle, Abortable, BoxFuture, abortable};
use futures::stream::{self, BoxStream, FuturesUnordered};
use futures::{FutureExt, Stream, StreamExt};
use prost::Message;
use tokio::sync::mpsc::{self, error::TrySendError};
use tokio::time::Instant;
use tonic::Status;
use weir_proto::v1::fetch_stream_request::Frame as In;
use weir_proto::v1::fetch_stream_response::Frame as Out;
use weir_proto::v1::{
    BatchDelivery, ErrorReason, FetchAssign, FetchCredit, FetchEnd, FetchHeartbeat, FetchHello,
    FetchStreamRequest, FetchStreamResponse, SubscriptionProgress,
};
use weir_rpc::{LongCall, Problem};
use weir_storage::{Frame, Limit};
use weir_types::Offset;

use crate::broker::Broker;
use crate::calls::shared::ending::{self, Ending};
use crate::calls::shared::{hello, message_limit};
use crate::forward::elsewhere::Elsewhere;
use crate::forward::hop::Hop;
use crate::reading::{self, Cursor};
use crate::topic_map::Hints;

/// How much is read from a log at a time; it ends at a batch's end.
const READ_BYTES: usize = 256 << 10;
/// How many requests may wait to be looked at.
const REQUESTS_MAX: usize = 16_384;
/// How many bytes they may have together: twice what it takes to assign all partitions at once.
const REQUESTS_BYTES_MAX: usize = 8 << 20;
/// How much may be left unsaid before more requests are looked at: one may want a message for each.
const UNSAID_MAX: usize = 1_024;
/// How many partitions one stream reads.
const SUBSCRIPTIONS_MAX: usize = 10_000;
/// What a delivery's fields take beside the payload, at most.
const DELIVERY_FIELDS_BYTES: usize = 256;
/// What a heartbeat says of one subscription, at most: a topic's name and a few numbers.
const PROGRESS_BYTES: usize = 384;

/// What a client says on a stream.
type Requests = BoxStream<'static, Result<FetchStreamRequest, Status>>;

/// The stream of answers. What others lead is read there, with what `hop` carries, if there is one.
pub(crate) fn call(
    broker: Arc<Broker>,
    requests: Requests,
    long: Option<LongCall>,
    hop: Option<Hop>,
) -> impl Stream<Item = Result<FetchStreamResponse, Status>> + Send + use<> {
    let (tx, rx) = mpsc::channel(REQUESTS_MAX);
    let queued = Arc::<Queued>::default();
    tokio::spawn(drain(requests, tx, queued.clone()));
    // In a box: it moves with every message.
    let fetching = Box::new(Fetching::new(broker, rx, queued, long, hop));
    stream::unfold(fetching, |mut fetching| async move {
        let frame = fetching.next().await?;
        let message = match frame {
            Ok(frame) => Ok(FetchStreamResponse { frame: Some(frame) }),
            Err(status) => {
                fetching.done = true;
                Err(status)
            }
        };
        Some((message, fetching))
    })
}

/// What is known of the requests that wait, on both ends of their queue.
#[derive(Debug, Default)]
struct Queued {
    bytes: AtomicUsize,
    /// Set by the task that drains the requests when it had to give up.
    overflowed: AtomicBool,
}

/// A request in the queue, and what it counts for.
type Request = (Result<In, Status>, usize);

/// Reads requests until the client has said all, or says more than anybody could mean.
async fn drain(mut requests: Requests, queue: mpsc::Sender<Request>, queued: Arc<Queued>) {
    loop {
        // Cancel safe by not being cancelled: this task ends with the requests or with the reader of the queue.
        let next = tokio::select! {
            next = requests.next() => next,
            () = queue.closed() => return,
        };
        let bytes = match &next {
            Some(Ok(request)) => request.encoded_len(),
            _ => 0,
        };
        let frame = match next {
            None => return,
            Some(Ok(FetchStreamRequest { frame: Some(frame) })) => Ok(frame),
            Some(Ok(FetchStreamRequest { frame: None })) => {
                Err(Problem::required("frame", "a message holds a hello, an assign, a release or a credit")
                    .status())
            }
            Some(Err(status)) => Err(weir_rpc::with_reason(status)),
        };
        let last = frame.is_err();
        let before = queued.bytes.fetch_add(bytes, Ordering::Relaxed);
        if before.saturating_add(bytes) > REQUESTS_BYTES_MAX {
            return queued.overflowed.store(true, Ordering::Release);
        }
        match queue.try_send((frame, bytes)) {
            Ok(()) if !last => {}
            // The stream ends where the queue does, and says why.
            Err(TrySendError::Full(_)) => return queued.overflowed.store(true, Ordering::Release),
            Ok(()) | Err(TrySendError::Closed(_)) => return,
        }
    }
}

fn too_many_requests() -> Problem {
    Problem::new(
        ErrorReason::Overloaded,
        format!(
            "more than {REQUESTS_MAX} requests of this stream, or {REQUESTS_BYTES_MAX} bytes, wait to be looked \
             at: read the answers"
        ),
    )
}

/// A partition being read.
struct Subscription {
    generation: i64,
    cursor: Cursor,
    paused: bool,
    frames: VecDeque<Frame>,
    /// The next offset of the reader: past what was delivered, and past what was filtered behind it.
    next_offset: Offset,
    last_timestamp_ms: i64,
    /// Whether the client has not been told of `next_offset` yet.
    untold: bool,
    queued: bool,
    waiting: Option<Waiting>,
}

/// Something is waited for, until this is dropped.
struct Waiting(AbortHandle);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.abort();
    }
}

struct Fetching {
    broker: Arc<Broker>,
    requests: mpsc::Receiver<Request>,
    open: Option<Terms>,
    subscriptions: HashMap<i64, Subscription>,
    /// Those that may have something, in the order of their turns.
    ready: VecDeque<i64>,
    /// Those that wait for something to come; each belongs to a subscription that has it as `waiting`.
    arrivals: FuturesUnordered<Abortable<BoxFuture<'static, i64>>>,
    /// Said before anything else.
    pending: VecDeque<Out>,
    credit_bytes: i64,
    /// `None`: records are not counted.
    credit_records: Option<i64>,
    heartbeat_at: Instant,
    requests_over: bool,
    queued: Arc<Queued>,
    hints: Hints,
    hop: Option<Hop>,
    /// What other brokers read; `None`: the client is told who leads.
    elsewhere: Option<Elsewhere>,
    /// Whose turn it is: theirs, or that of what is led here.
    turn_elsewhere: bool,
    ending: Ending,
    goodbye_said: Option<Problem>,
    done: bool,
    _long: Option<LongCall>,
}

/// What the hello settled.
struct Terms {
    limit: Limit,
    message_bytes_max: usize,
}

impl Fetching {
    fn new(
        broker: Arc<Broker>,
        requests: mpsc::Receiver<Request>,
        queued: Arc<Queued>,
        long: Option<LongCall>,
        hop: Option<Hop>,
    ) -> Self {
        let heartbeat_at = Instant::now() + broker.config.stream_heartbeat_ms;
        let ending = Ending::new(&broker, long.as_ref());
        Self {
            broker,
            requests,
            open: None,
            subscriptions: HashMap::new(),
            ready: VecDeque::new(),
            arrivals: FuturesUnordered::new(),
            pending: VecDeque::new(),
            credit_bytes: 0,
            credit_records: None,
            heartbeat_at,
            requests_over: false,
            queued,
            hints: Hints::default(),
            hop,
            elsewhere: None,
            turn_elsewhere: false,
            ending,
            goodbye_said: None,
            done: false,
            _long: long,
        }
    }

    /// The next answer; `None`: the stream ends well, because the client said all it wanted.
    async fn next(&mut self) -> Option<Result<Out, Status>> {
        loop {
            if self.done {
                return None;
            }
            while self.pending.len() < UNSAID_MAX
                && let Ok(request) = self.requests.try_recv()
            {
                if let Err(status) = self.take(request).await {
                    return Some(Err(status));
                }
            }
            if let Some(said) = self.pending.pop_front() {
                return Some(Ok(said));
            }
            if let Some(cause) = &self.goodbye_said {
                return Some(Err(cause.status()));
            }
            if let Some(cause) = self.ending.now() {
                let said = ending::goodbye(&self.broker, &cause);
                self.goodbye_said = Some(cause);
                return Some(Ok(Out::Goodbye(said)));
            }
            // Before the next turn is given: whoever always has something would keep the others from theirs.
            while let Some(Some(arrived)) = self.arrivals.next().now_or_never() {
                self.arrived(arrived.ok());
            }
            let here = self.has_credit() && !self.ready.is_empty();
            self.turn_elsewhere = !self.turn_elsewhere || !here;
            if self.turn_elsewhere
                && let Some(said) = self.serve_elsewhere()
            {
                return Some(Ok(said));
            }
            if here {
                if let Some(said) = self.serve_one().await {
                    return Some(Ok(said));
                }
                continue;
            }
            if self.requests_over && !self.can_go_on() {
                return None;
            }
            tokio::select! {
                request = self.requests.recv(), if !self.requests_over => match request {
                    Some(request) => {
                        if let Err(status) = self.take(request).await {
                            return Some(Err(status));
                        }
                    }
                    None if self.queued.overflowed.load(Ordering::Acquire) => {
                        return Some(Err(too_many_requests().status()));
                    }
                    None => {
                        // A half-closed stream goes on while it can: what was assigned is still wanted.
                        self.requests_over = true;
                    }
                },
                Some(arrived) = self.arrivals.next(), if !self.arrivals.is_empty() => {
                    self.arrived(arrived.ok());
                }
                () = hear(&mut self.elsewhere) => {}
                () = tokio::time::sleep_until(self.heartbeat_at) => {
                    self.heartbeat_at = Instant::now() + self.broker.config.stream_heartbeat_ms;
                    self.heartbeat_of_all();
                }
                // Said at the top of the loop.
                () = self.ending.comes() => {}
            }
        }
    }

    fn has_credit(&self) -> bool {
        self.credit_bytes > 0 && self.credit_records.is_none_or(|records| records > 0)
    }

    /// Whether anything can still be delivered to a client that says nothing more.
    fn can_go_on(&self) -> bool {
        let there = || self.elsewhere.as_ref().is_some_and(Elsewhere::can_go_on);
        self.has_credit() && (self.subscriptions.values().any(|subscription| !subscription.paused) || there())
    }

    /// What another broker has read, if it is its turn.
    fn serve_elsewhere(&mut self) -> Option<Out> {
        let has_credit = self.has_credit();
        let elsewhere = self.elsewhere.as_mut()?;
        elsewhere.hear_now();
        let mut said = elsewhere.next(has_credit)?;
        match &mut said {
            Out::Delivery(BatchDelivery { batch: Some(batch), .. }) => {
                self.credit_bytes -= i64::try_from(batch.records.len()).unwrap_or(i64::MAX);
                if let Some(records) = &mut self.credit_records {
                    *records -= i64::from(batch.record_count);
                }
            }
            Out::Heartbeat(heartbeat) => {
                heartbeat.credit_bytes = self.credit_bytes;
                heartbeat.credit_records = self.credit_records.unwrap_or(0);
                heartbeat.now_ms = self.broker.os.wall_ms();
            }
            _ => {}
        }
        Some(said)
    }

    /// One delivery from the subscription whose turn it is, or nothing if it has nothing now.
    async fn serve_one(&mut self) -> Option<Out> {
        let id = self.ready.pop_front()?;
        let subscription = self.subscriptions.get_mut(&id)?;
        subscription.queued = false;
        if subscription.paused {
            return None;
        }
        if subscription.frames.is_empty()
            && let Err(problem) = subscription.read().await
        {
            return Some(self.end(id, &problem));
        }
        let subscription = self.subscriptions.get_mut(&id)?;
        let Some(frame) = subscription.frames.pop_front() else {
            let untold = std::mem::take(&mut subscription.untold);
            self.wait(id);
            return untold.then(|| self.heartbeat(&[id]));
        };
        let size = frame.payload.len() + DELIVERY_FIELDS_BYTES;
        let limit = self.open.as_ref().map_or(0, |terms| terms.message_bytes_max);
        if size > limit {
            let problem =
                message_limit::batch_too_large(&subscription.cursor, frame.header.base_offset, size, limit);
            return Some(self.end(id, &problem));
        }
        self.broker.metrics.delivered(&frame);
        self.credit_bytes -= i64::try_from(frame.payload.len()).unwrap_or(i64::MAX);
        if let Some(records) = &mut self.credit_records {
            *records -= i64::from(frame.header.record_count);
        }
        let delivery = subscription.delivery(id, frame);
        if subscription.frames.is_empty() {
            self.enqueue(id);
        } else {
            subscription.queued = true;
            self.ready.push_front(id);
        }
        Some(Out::Delivery(delivery))
    }

    fn enqueue(&mut self, id: i64) {
        if let Some(subscription) = self.subscriptions.get_mut(&id)
            && !subscription.queued
            && !subscription.paused
        {
            subscription.queued = true;
            self.ready.push_back(id);
        }
    }

    /// Comes back to the subscription when its partition has more.
    fn wait(&mut self, id: i64) {
        let Some(subscription) = self.subscriptions.get_mut(&id) else { return };
        let Cursor { log, limit, offset, .. } = &subscription.cursor;
        let arrival = reading::arrival(log.clone(), *limit, *offset);
        let (arrival, handle) = abortable(arrival.map(move |()| id).boxed());
        subscription.waiting = Some(Waiting(handle));
        self.arrivals.push(arrival);
    }

    /// Something came for a subscription, or it does not wait any more.
    fn arrived(&mut self, id: Option<i64>) {
        let Some((id, subscription)) = id.and_then(|id| Some((id, self.subscriptions.get_mut(&id)?))) else {
            return;
        };
        subscription.waiting = None;
        if subscription.cursor.log.is_closed() {
            let Cursor { topic, partition, .. } = &subscription.cursor;
            let problem = self.broker.gone(topic, *partition);
            let end = self.end(id, &problem);
            self.pending.push_back(end);
        } else {
            self.enqueue(id);
        }
    }

    /// Forgets a subscription, and its place among those whose turn comes.
    fn remove(&mut self, id: i64) -> Option<Subscription> {
        let removed = self.subscriptions.remove(&id)?;
        if removed.queued {
            self.ready.retain(|queued| *queued != id);
        }
        Some(removed)
    }

    fn end(&mut self, id: i64, problem: &Problem) -> Out {
        let generation = self.remove(id).map_or(0, |subscription| subscription.generation);
        Out::End(FetchEnd { subscription_id: id, generation, failure: Some(problem.failure()) })
    }

    /// Says where all subscriptions stand, in as many messages as the client's limit makes it.
    fn heartbeat_of_all(&mut self) {
        let there = self.elsewhere.iter().flat_map(Elsewhere::ids);
        let mut ids = self.subscriptions.keys().copied().chain(there).collect::<Vec<_>>();
        ids.sort_unstable();
        let limit = self.open.as_ref().map_or(0, |terms| terms.message_bytes_max);
        let mut parts = ids.chunks((limit / PROGRESS_BYTES).max(1));
        let first = self.heartbeat(parts.next().unwrap_or_default());
        self.pending.push_back(first);
        for part in parts {
            let said = self.heartbeat(part);
            self.pending.push_back(said);
        }
    }

    fn heartbeat(&self, ids: &[i64]) -> Out {
        let progress = ids.iter().filter_map(|id| {
            let Some(subscription) = self.subscriptions.get(id) else {
                return self.elsewhere.as_ref()?.progress(*id);
            };
            let Subscription { generation, cursor, next_offset, last_timestamp_ms, .. } = subscription;
            let progress = Some(cursor.progress(*next_offset, *last_timestamp_ms));
            Some(SubscriptionProgress { subscription_id: *id, generation: *generation, progress })
        });
        let progress = progress.collect();
        Out::Heartbeat(FetchHeartbeat {
            progress,
            credit_bytes: self.credit_bytes,
            credit_records: self.credit_records.unwrap_or(0),
            now_ms: self.broker.os.wall_ms(),
        })
    }

    async fn take(&mut self, (request, bytes): Request) -> Result<(), Status> {
        self.queued.bytes.fetch_sub(bytes, Ordering::Relaxed);
        let request = request?;
        match (request, self.open.is_some()) {
            (In::Hello(hello), false) => Ok(self.hello(hello)?),
            (_, false) => Err(hello::missing().status()),
            (In::Hello(_), true) => Err(Problem::conflict("hello", "hello", "it comes once, first").status()),
            (In::Assign(assign), true) => self.assign(assign).await.map_err(|problem| problem.status()),
            (In::Release(release), true) => {
                self.remove(release.subscription_id);
                if let Some(elsewhere) = &mut self.elsewhere {
                    elsewhere.release(release.subscription_id);
                }
                Ok(())
            }
            (In::Credit(credit), true) => self.credit(&credit).map_err(|problem| problem.status()),
        }
    }

    fn hello(&mut self, hello: FetchHello) -> Result<(), Problem> {
        hello::check(&hello.client, hello.version_min, hello.version_max, &hello.required_features)?;
        hello::check_route(hello.route)?;
        self.open = Some(Terms {
            limit: reading::limit(hello.isolation)?,
            message_bytes_max: message_limit::check(hello.message_bytes_max)?,
        });
        if let Some(credit) = &hello.credit {
            self.credit(credit)?;
        }
        self.pending.push_back(Out::Welcome(hello::welcome(&self.broker)));
        let hop = self.hop.take().filter(|_| !hello::is_direct(hello.route));
        self.elsewhere = hop.map(|hop| Elsewhere::new(self.broker.clone(), hop, hello));
        Ok(())
    }

    fn credit(&mut self, credit: &FetchCredit) -> Result<(), Problem> {
        for (field, given) in [("credit.bytes", credit.bytes), ("credit.records", credit.records)] {
            if given < 0 {
                return Err(Problem::out_of_range(field, given, "credit is only given, never taken back"));
            }
        }
        self.credit_bytes = self.credit_bytes.saturating_add(credit.bytes);
        if credit.records > 0 {
            self.credit_records = Some(self.credit_records.unwrap_or(0).saturating_add(credit.records));
        }
        Ok(())
    }

    /// Takes up, moves, pauses or resumes a subscription. What is wrong with one partition ends that one alone.
    async fn assign(&mut self, assign: FetchAssign) -> Result<(), Problem> {
        let id = assign.subscription_id;
        let there = self.elsewhere.as_ref().and_then(|elsewhere| elsewhere.generation(id));
        let present = self.subscriptions.get(&id).map(|here| here.generation).or(there);
        if let Some(present) = present.filter(|present| *present >= assign.generation) {
            return Err(Problem::out_of_range(
                "assign.generation",
                assign.generation,
                &format!("subscription {id} has generation {present}: every change needs a greater one"),
            ));
        }
        let count = self.subscriptions.len() + self.elsewhere.as_ref().map_or(0, Elsewhere::len);
        if count >= SUBSCRIPTIONS_MAX && present.is_none() {
            return Err(Problem::out_of_range(
                "assign",
                count + 1,
                "a stream reads at most 10000 partitions",
            ));
        }
        if let Some(elsewhere) = &mut self.elsewhere {
            if let Some(leader) = self.broker.owner(&assign.topic, assign.partition) {
                elsewhere.assign(leader, assign).await;
                self.remove(id);
                return Ok(());
            }
            elsewhere.release(id);
        }
        match self.open_cursor(&assign) {
            Ok(cursor) => {
                let next_offset = cursor.offset;
                // A place in the queue that the older generation has serves this one as well.
                let queued = self.subscriptions.get(&id).is_some_and(|present| present.queued);
                let subscription = Subscription {
                    generation: assign.generation,
                    cursor,
                    paused: assign.paused,
                    frames: VecDeque::new(),
                    next_offset,
                    last_timestamp_ms: 0,
                    untold: true,
                    queued,
                    waiting: None,
                };
                self.subscriptions.insert(id, subscription);
                self.enqueue(id);
            }
            Err(problem) => {
                self.remove(id);
                let failure = Some(problem.failure());
                let end = FetchEnd { subscription_id: id, generation: assign.generation, failure };
                self.pending.push_back(Out::End(end));
            }
        }
        Ok(())
    }

    fn open_cursor(&mut self, assign: &FetchAssign) -> Result<Cursor, Problem> {
        let limit = self.open.as_ref().map_or(Limit::Stable, |terms| terms.limit);
        let topic = self.broker.topics.get_hinting(&assign.topic, &mut self.hints)?;
        topic.check_id(&assign.topic_id)?;
        Cursor::new(&self.broker, topic, assign.partition, assign.offset, assign.leader_epoch, limit)
    }
}

/// Waits for what other brokers say; for ever, if none does.
async fn hear(elsewhere: &mut Option<Elsewhere>) {
    match elsewhere {
        Some(elsewhere) => elsewhere.hear().await,
        None => std::future::pending().await,
    }
}

impl Subscription {
    /// Reads the next batches, leaving out what only the system needs.
    async fn read(&mut self) -> Result<(), Problem> {
        if !self.cursor.has_more() {
            return Ok(());
        }
        let chunk = self.cursor.read(READ_BYTES).await?;
        for frame in chunk.frames() {
            if frame.header.control || frame.header.record_count == 0 {
                if self.frames.is_empty() {
                    self.next_offset = frame.header.next_offset();
                    self.untold = true;
                }
                continue;
            }
            self.frames.push_back(frame);
        }
        Ok(())
    }

    fn delivery(&mut self, id: i64, frame: Frame) -> BatchDelivery {
        let ends = self.cursor.log.ends();
        // Behind the last batch read, everything up to the cursor was filtered out.
        self.next_offset = match self.frames.front() {
            Some(following) => following.header.base_offset,
            None => self.cursor.offset,
        };
        self.last_timestamp_ms = frame.header.max_timestamp_ms;
        self.untold = false;
        BatchDelivery {
            subscription_id: id,
            generation: self.generation,
            next_offset: self.next_offset,
            high_watermark: reading::told(&ends, ends.high_watermark),
            last_stable_offset: reading::told(&ends, ends.last_stable),
            log_start_offset: ends.log_start,
            next_leader_epoch: self.cursor.log.epoch_before(self.next_offset),
            batch: Some(reading::wire_batch(frame)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn requests_that_nobody_looks_at_are_bounded_in_bytes_too() {
        const NAME_BYTES: usize = 512 << 10;
        let topic = "x".repeat(NAME_BYTES);
        let assign = FetchAssign { topic, ..FetchAssign::default() };
        let request = FetchStreamRequest { frame: Some(In::Assign(assign)) };
        let requests = stream::iter(vec![Ok(request); 1_000]).boxed();
        let (tx, mut rx) = mpsc::channel(REQUESTS_MAX);
        let queued = Arc::<Queued>::default();
        drain(requests, tx, queued.clone()).await;
        let waiting = std::iter::from_fn(|| rx.try_recv().ok()).count();
        assert!(waiting * NAME_BYTES <= REQUESTS_BYTES_MAX, "{waiting} requests wait");
        assert!(queued.overflowed.load(Ordering::Acquire));
    }
}
