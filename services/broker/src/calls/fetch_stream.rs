//! FetchStream: stored batches of many partitions, as many as the client gave credit for. Hot path.
//!
//! The answers are pulled by the connection: nothing is read before there is room. A subscription's turn lasts as
//! long as what one read of its log gave: so a stream holds one such portion, however many partitions it reads. What the
//! client says is drained by a task of its own ([`requests`]). Partitions that other brokers lead are read by them
//! ([`Elsewhere`]), but for those that have a replica here for a reader who stands near.

mod requests;
mod subscription;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use futures::future::{Abortable, BoxFuture, abortable};
use futures::stream::{self, BoxStream, FuturesUnordered};
use futures::{FutureExt, Stream, StreamExt};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tonic::Status;
use weir_proto::v1::fetch_stream_request::Frame as In;
use weir_proto::v1::fetch_stream_response::Frame as Out;
use weir_proto::v1::{
    BatchDelivery, FetchAssign, FetchCredit, FetchEnd, FetchHeartbeat, FetchHello, FetchStreamRequest,
    FetchStreamResponse, SubscriptionProgress,
};
use weir_rpc::{LongCall, Problem};
use weir_storage::Limit;

use crate::broker::Broker;
use crate::calls::shared::ending::{self, Ending};
use crate::calls::shared::{hello, message_limit};
use crate::forward::elsewhere::Elsewhere;
use crate::forward::hop::Hop;
use crate::reading::{self, Cursor};
use crate::topic_map::Hints;

use requests::{Queued, REQUESTS_MAX, Request, drain, too_many_requests};
use subscription::{Subscription, Waiting};

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
    /// Where the reader stands.
    rack: String,
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
            return Some(self.end_over(id).unwrap_or_else(|| self.end(id, &problem)));
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
        let (bytes, records) = (frame.payload.len(), frame.header.record_count);
        let delivery = subscription.delivery(id, frame);
        // Asked last: the epoch that it names was of another history, if the log was cut meanwhile.
        if subscription.cursor.is_over() {
            return self.end_over(id);
        }
        self.broker.metrics.delivered_batch(records, bytes);
        self.credit_bytes -= i64::try_from(bytes).unwrap_or(i64::MAX);
        if let Some(credit) = &mut self.credit_records {
            *credit -= i64::from(records);
        }
        let subscription = self.subscriptions.get_mut(&id)?;
        if subscription.frames.is_empty() {
            self.enqueue(id);
        } else {
            subscription.queued = true;
            self.ready.push_front(id);
        }
        Some(Out::Delivery(delivery))
    }

    /// The end of a subscription whose partition is not led or followed here as it was, if that is so.
    fn end_over(&mut self, id: i64) -> Option<Out> {
        let Cursor { topic, partition, .. } =
            self.subscriptions.get(&id).map(|it| &it.cursor).filter(|cursor| cursor.is_over())?;
        let problem = self.broker.gone(topic, *partition);
        Some(self.end(id, &problem))
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
        if let Some(end) = self.end_over(id) {
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

    /// What waits for something to come is told, too, that it will not come from here.
    fn end_what_is_over(&mut self) {
        let ids: Vec<_> = self.subscriptions.keys().copied().collect();
        for id in ids {
            let end = self.end_over(id);
            self.pending.extend(end);
        }
    }

    /// Says where all subscriptions stand, in as many messages as the client's limit makes it.
    fn heartbeat_of_all(&mut self) {
        self.end_what_is_over();
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
            // What is over ends, and stands nowhere.
            (!cursor.is_over()).then_some(SubscriptionProgress {
                subscription_id: *id,
                generation: *generation,
                progress,
            })
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
            rack: hello.rack.clone(),
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
        // Also of what another broker leads there may be a replica here, for who stands near.
        let cursor = self.open_cursor(&assign);
        if let Some(elsewhere) = &mut self.elsewhere {
            let leader = self.broker.owner(&assign.topic, assign.partition);
            if let Some(leader) = leader.filter(|_| cursor.is_err()) {
                elsewhere.assign(leader, assign).await;
                self.remove(id);
                return Ok(());
            }
            elsewhere.release(id);
        }
        match cursor {
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
        let (limit, rack) =
            self.open.as_ref().map_or((Limit::Stable, ""), |terms| (terms.limit, &*terms.rack));
        let topic = self.broker.topics.get_hinting(&assign.topic, &mut self.hints)?;
        topic.check_id(&assign.topic_id)?;
        let FetchAssign { partition, offset, leader_epoch, .. } = *assign;
        Cursor::new(&self.broker, topic, partition, offset, leader_epoch, limit, rack)
    }
}

/// Waits for what other brokers say; for ever, if none does.
async fn hear(elsewhere: &mut Option<Elsewhere>) {
    match elsewhere {
        Some(elsewhere) => elsewhere.hear().await,
        None => std::future::pending().await,
    }
}
