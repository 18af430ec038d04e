//! The one task that sends: takes closed batches, finds leaders, keeps streams, hears answers, and hands results to
//! the receipts. Everything it knows is its own; nothing here waits for anything but the next event.

mod answers;
mod surroundings;

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use weir_proto::v1;
use weir_record::Batch;
use weir_types::Producer;

use super::buffer::{Buffer, ClosedBatches, Place};
use super::compress::Pool;
use super::config::{Acks, ProducerConfig};
use super::lane::{Done, Lane, Question};
use super::parcel::{Parcel, Wishes};
use super::receipt::Ticket;
use super::settle;
use super::stream::{self, Outlet, StreamEvent};
use super::verdict::Outcome;
use crate::backoff::Backoff;
use crate::client::Inner;
use crate::hindrance::Hindrances;
use crate::{Error, Result};
use weir_types::Endpoint;

/// What may be in flight on a stream before its server has said how much it takes.
const INFLIGHT_BYTES_AT_FIRST: usize = 8 << 20;
/// And at most, whatever it says: several times what a connection's window holds.
const INFLIGHT_BYTES_MAX: usize = 64 << 20;
/// A batch that is older is owed an answer: somebody may have died without a word.
const ANSWER_USUALLY: Duration = Duration::from_secs(1);
/// How many events are handled between two looks at the clock.
const EVENTS_AT_ONCE: usize = 256;

/// What the sender hears of.
#[derive(Debug)]
pub(super) enum Event {
    /// A batch, compressed and summed up; `Err`: it could not be.
    Batch { place: Place, number: u64, parcel: Result<Box<Parcel>, (Arc<Ticket>, Error)> },
    /// A batch began to linger.
    Lingers,
    /// From a stream.
    Stream(u64, StreamEvent),
    /// The map may have changed.
    MapRefreshed,
    /// Why a partition has no leader, in a broker's words; none if nobody said so.
    Leaderless(Place, Option<Error>),
    /// Whom an append waits for that is not acknowledged, in its leader's words; none if nobody said so.
    Awaits(Place, Option<Error>),
    /// A wait before another attempt is over.
    Retry(Place),
    /// A broker may be dialled again.
    Rested(i32),
    /// A producer id, or why there is none.
    Identity(Result<Producer>),
    /// What became of a batch.
    Settled(Place, Question, Outcome),
    /// Everything that was taken is to be sent, and then the task is to end.
    Close(oneshot::Sender<()>),
}

pub(super) struct Sender {
    inner: Arc<Inner>,
    config: ProducerConfig,
    buffer: Arc<Buffer>,
    pool: Arc<Pool>,
    events: mpsc::UnboundedSender<Event>,
    hindrances: Arc<Hindrances<Place>>,
    lanes: BTreeMap<Place, Slot>,
    streams: BTreeMap<u64, BrokerStream>,
    /// The stream for new batches, by broker.
    current: HashMap<i32, u64>,
    backoffs: BTreeMap<i32, Backoff>,
    next_id: u64,
    next_correlation_id: i64,
    identity: Option<Producer>,
    identity_asked: bool,
    /// Brokers that are not dialled for a moment, because the last stream to them broke.
    resting: HashSet<i32>,
    refreshing: bool,
    /// Whether a broker is being asked why a partition has no leader; one at a time, however many have none.
    wondering: bool,
    /// Whether a leader is being asked whom an append waits for.
    asking_why: bool,
    deadlines: VecDeque<(Instant, Place, Arc<Ticket>)>,
    /// When to look again whether somebody owes an answer.
    doubtful: Instant,
    closing: Option<oneshot::Sender<()>>,
}

/// A lane and where it stands.
struct Slot {
    lane: Lane,
    topic: Arc<str>,
    /// The stream that its batches in flight went to.
    stream: Option<u64>,
    /// Who leads it in which epoch, as the map said last.
    leader: Option<(i32, i32)>,
    /// Whether it waits before it is tried again with this leader, or without one.
    waiting: bool,
    /// Whether it is in its stream's queue.
    queued: bool,
    settling: bool,
    backoff: Backoff,
}

struct BrokerStream {
    broker: i32,
    address: Endpoint,
    outlet: Outlet,
    welcomed: bool,
    /// It takes no new batches, but still answers.
    ending: bool,
    inflight_bytes: usize,
    inflight_bytes_max: usize,
    unanswered: HashMap<i64, (Place, usize)>,
    /// Partitions that the server refuses on this stream until it is told to resume.
    poisoned: HashSet<Place>,
    /// Lanes with something to send, in turn.
    ready: VecDeque<Place>,
}

impl Sender {
    pub(super) fn new(
        inner: Arc<Inner>,
        config: ProducerConfig,
        buffer: Arc<Buffer>,
        pool: Arc<Pool>,
        events: mpsc::UnboundedSender<Event>,
        hindrances: Arc<Hindrances<Place>>,
    ) -> Self {
        Self {
            inner,
            config,
            buffer,
            pool,
            events,
            hindrances,
            lanes: BTreeMap::new(),
            streams: BTreeMap::new(),
            current: HashMap::new(),
            backoffs: BTreeMap::new(),
            next_id: 0,
            next_correlation_id: 0,
            identity: None,
            identity_asked: false,
            resting: HashSet::new(),
            refreshing: false,
            wondering: false,
            asking_why: false,
            deadlines: VecDeque::new(),
            doubtful: Instant::now(),
            closing: None,
        }
    }

    /// Runs until the producer is closed and everything is done.
    pub(super) async fn run(mut self, mut incoming: mpsc::UnboundedReceiver<Event>) {
        let mut events = Vec::with_capacity(EVENTS_AT_ONCE);
        let mut changes = self.inner.follow_metadata();
        loop {
            let now = Instant::now();
            let lingers = self.lingered(now);
            self.expire(now);
            let doubtful = self.doubt(now);
            if let Some(closing) = self.closing.take_if(|_| self.buffer.is_idle()) {
                let _nobody_waits = closing.send(());
                return;
            }
            let first = self.deadlines.front().map(|(deadline, ..)| *deadline);
            let wake = [lingers, first, doubtful].into_iter().flatten().min();
            let wake = async {
                match wake {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            // All are safe to cancel: an event not taken stays in the queue.
            tokio::select! {
                _ = incoming.recv_many(&mut events, EVENTS_AT_ONCE) => {}
                Ok(()) = changes.changed() => self.map_refreshed(),
                () = wake => {}
            }
            for event in events.drain(..) {
                self.handle(event);
            }
            self.pump_all();
        }
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Batch { place, number, parcel } => self.arrive(place, number, parcel),
            Event::Lingers => {}
            Event::Stream(id, event) => self.hear(id, event),
            Event::MapRefreshed => {
                self.refreshing = false;
                self.map_refreshed();
            }
            Event::Leaderless(place, why) => {
                self.wondering = false;
                let waits = self.lanes.get(&place).is_some_and(|slot| slot.waiting);
                if let Some(why) = why.filter(|_| waits) {
                    self.hindrances.note(place, why);
                }
            }
            Event::Awaits(place, whom) => {
                self.asking_why = false;
                let waits = self.lanes.get(&place).is_some_and(|slot| slot.lane.has_inflight());
                if let Some(whom) = whom.filter(|_| waits) {
                    self.hindrances.note(place, whom);
                }
            }
            Event::Retry(place) => {
                if let Some(slot) = self.lanes.get_mut(&place) {
                    slot.waiting = false;
                }
                self.enqueue(place);
            }
            Event::Rested(broker) => {
                self.resting.remove(&broker);
                self.enqueue_all();
            }
            Event::Identity(identity) => self.identified(identity),
            Event::Settled(place, question, outcome) => {
                if let Some(slot) = self.lanes.get_mut(&place) {
                    slot.settling = false;
                    let done = slot.lane.settled(&question, outcome);
                    self.finish(place, done);
                    self.enqueue(place);
                }
            }
            Event::Close(answer) => self.closing = Some(answer),
        }
    }

    fn arrive(&mut self, place: Place, number: u64, parcel: Result<Box<Parcel>, (Arc<Ticket>, Error)>) {
        if !self.lanes.contains_key(&place) {
            let topic = self.buffer.topic(place.topic).map_or_else(|| Arc::from(""), |t| Arc::clone(&t.name));
            let slot = Slot {
                lane: Lane::new(self.config.idempotent(), self.config.inflight_max),
                topic,
                stream: None,
                leader: None,
                waiting: false,
                queued: false,
                settling: false,
                backoff: Backoff::usual(),
            };
            self.lanes.insert(place, slot);
        }
        let Some(slot) = self.lanes.get_mut(&place) else { return };
        match parcel {
            Ok(parcel) => {
                self.deadlines.push_back((parcel.deadline, place, Arc::clone(&parcel.ticket)));
                slot.lane.arrive(number, Some(*parcel));
            }
            Err((ticket, error)) => {
                slot.lane.arrive(number, None);
                self.finish(place, vec![Done { ticket, payload: Bytes::new(), result: Err(error) }]);
            }
        }
        self.enqueue(place);
    }

    /// Puts a lane into the queue of the stream to its leader, if it has something to send and may.
    fn enqueue(&mut self, place: Place) {
        let Some(slot) = self.lanes.get_mut(&place) else { return };
        if let Some(question) = slot.lane.settling().filter(|_| !slot.settling).cloned() {
            slot.settling = true;
            let (inner, topic) = (Arc::clone(&self.inner), Arc::clone(&slot.topic));
            return self.ask(async move {
                let outcome = settle::ask(&inner, &topic, place.partition, &question).await;
                Event::Settled(place, question, outcome)
            });
        }
        if slot.lane.wants_identity() && !self.identity.is_some_and(|id| slot.lane.offer_identity(id)) {
            return self.ask_for_identity();
        }
        if slot.waiting || slot.queued || !slot.lane.can_send() {
            return;
        }
        let Some(id) = self.stream_of(place) else { return };
        let (Some(slot), Some(stream)) = (self.lanes.get_mut(&place), self.streams.get_mut(&id)) else {
            return;
        };
        slot.queued = true;
        slot.stream = Some(id);
        stream.ready.push_back(place);
    }

    fn enqueue_all(&mut self) {
        let places: Vec<_> = self.lanes.keys().copied().collect();
        places.into_iter().for_each(|place| self.enqueue(place));
    }

    /// The stream that the next batch of a lane goes to, opened if need be. `None`: not now; somebody will call
    /// `enqueue` again.
    fn stream_of(&mut self, place: Place) -> Option<u64> {
        let slot = self.lanes.get(&place)?;
        let busy_on = slot.stream.filter(|_| slot.lane.has_inflight());
        let map = self.inner.metadata.map();
        let Some((broker, _)) = map.leader(&slot.topic, place.partition) else {
            if !map.topics.contains_key(&*slot.topic) && !self.refreshing {
                // The map was asked and does not have it.
                let error = Error::topic_gone(&slot.topic);
                self.buffer.forget(place.topic);
                self.take_back(place);
                let done = self.lanes.get_mut(&place)?.lane.fail_everything(&error);
                self.finish(place, done);
                return None;
            }
            self.wonder(place);
            self.wait(place, None);
            self.refresh();
            return None;
        };
        let id = match self.current.get(&broker.id) {
            Some(id) => *id,
            // Its end of the rest calls `enqueue` for everybody.
            None if self.resting.contains(&broker.id) => return None,
            None => self.open_stream(broker.id, broker.address.clone()),
        };
        // What is in flight elsewhere is answered there first, or lost with its stream: two streams at a time
        // could overtake each other.
        busy_on.is_none_or(|other| other == id).then_some(id)
    }

    fn open_stream(&mut self, broker: i32, address: Endpoint) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        let hello = v1::ProduceHello {
            client: self.inner.options.name.clone(),
            version_min: 1,
            version_max: 1,
            required_features: Vec::new(),
            route: v1::Route::Direct.into(),
            acks: v1::Acks::from(self.config.acks).into(),
            floor: self.config.floor.map(v1::DurabilityFloor::from),
        };
        let outlet = stream::open(&self.inner, id, address.clone(), hello, &self.events);
        let stream = BrokerStream {
            broker,
            address,
            outlet,
            welcomed: false,
            ending: false,
            inflight_bytes: 0,
            inflight_bytes_max: INFLIGHT_BYTES_AT_FIRST,
            unanswered: HashMap::new(),
            poisoned: HashSet::new(),
            ready: VecDeque::new(),
        };
        self.streams.insert(id, stream);
        self.current.insert(broker, id);
        id
    }

    /// Sends what may be sent, one batch of a lane at a time.
    fn pump_all(&mut self) {
        for stream in self.streams.values_mut() {
            while !stream.ending && (stream.inflight_bytes < stream.inflight_bytes_max) {
                let Some(place) = stream.ready.pop_front() else { break };
                let Some(slot) = self.lanes.get_mut(&place) else { continue };
                slot.queued = false;
                if slot.waiting {
                    continue;
                }
                let correlation_id = self.next_correlation_id;
                let Some(parcel) = slot.lane.send(correlation_id) else { continue };
                self.next_correlation_id += 1;
                let bytes = parcel.batch.payload.len();
                let resume = stream.poisoned.remove(&place);
                let unanswered = parcel.wishes.acks.unwrap_or(self.config.acks) == Acks::None;
                stream.outlet.append(parcel.append(&slot.topic, place.partition, resume), unanswered);
                stream.inflight_bytes += bytes;
                stream.unanswered.insert(correlation_id, (place, bytes));
                if slot.lane.can_send() {
                    slot.queued = true;
                    stream.ready.push_back(place);
                }
            }
        }
    }

    fn lingered(&mut self, now: Instant) -> Option<Instant> {
        let mut closed = ClosedBatches::new();
        let next = self.buffer.lingered(now, &mut closed);
        closed.into_iter().for_each(|batch| self.pool.submit(batch));
        next
    }

    fn expire(&mut self, now: Instant) {
        while let Some((_, place, ticket)) =
            self.deadlines.pop_front_if(|(deadline, _, ticket)| *deadline <= now || ticket.is_done())
        {
            if ticket.is_done() {
                continue;
            }
            // What waits for a connection was not sent; what is taken back goes on below.
            self.take_back(place);
            let after = self.config.delivery_timeout;
            let Some(slot) = self.lanes.get_mut(&place) else { continue };
            let what = format!("a batch for {}/{}", slot.topic, place.partition);
            // Why it was not taken says more than that time is up.
            let last = self.hindrances.of(&place).or_else(|| self.inner.trying_again()).map(Arc::new);
            // Without such a word who owes one is what helps.
            let map = self.inner.metadata.map();
            let leader = map.leader(&slot.topic, place.partition).map(|(leader, _)| leader);
            let timeout = |applied| match (&last, leader) {
                (Some(last), _) => {
                    Error::GivenUp { what: (*what).into(), after, applied, last: Arc::clone(last) }
                }
                (None, Some(leader)) => {
                    let (id, address) = (leader.id, &leader.address);
                    let what = format!("{what}, which broker {id} at {address} leads");
                    Error::Timeout { what: what.into(), after, applied }
                }
                (None, None) => Error::Timeout { what: (*what).into(), after, applied },
            };
            let done = slot.lane.expired(&ticket, timeout);
            self.finish(place, done);
            self.enqueue(place);
        }
    }

    /// Says so while a batch is not answered as soon as is usual; says when to look again. Whether who owes an answer lives, and
    /// who leads instead, is for the map to tell, which had better come from somebody else; whom he waits for, he says himself.
    fn doubt(&mut self, now: Instant) -> Option<Instant> {
        let (deadline, place, _) = self.deadlines.front()?;
        let sent = deadline.checked_sub(self.config.delivery_timeout)?;
        let due = self.doubtful.max(sent + ANSWER_USUALLY);
        if now < due {
            return Some(due);
        }
        self.doubtful = now + ANSWER_USUALLY;
        let place = *place;
        if self.lanes.get(&place).is_some_and(|slot| slot.lane.has_inflight()) {
            self.inner.metadata.doubt();
            self.ask_why(place);
        }
        Some(self.doubtful)
    }

    fn finish(&mut self, place: Place, done: Vec<Done>) {
        let mut closed = ClosedBatches::new();
        for Done { ticket, payload, result } in done {
            self.buffer.recycle(payload);
            // First the memory, then the receipt: who is woken by it finds room.
            self.buffer.done(place, &ticket, &mut closed);
            ticket.complete(result);
        }
        closed.into_iter().for_each(|batch| self.pool.submit(batch));
    }
}

impl Drop for Sender {
    /// Nobody answers any more: whoever still waits is told. What was sent may be there; the rest is not.
    fn drop(&mut self) {
        self.buffer.close();
        let places: Vec<_> = self.lanes.keys().copied().collect();
        places.into_iter().for_each(|place| self.take_back(place));
        for slot in self.lanes.values_mut() {
            for done in slot.lane.fail_everything(&Error::Closed("the producer")) {
                done.ticket.complete(done.result);
            }
        }
        for ticket in self.buffer.flush(&mut ClosedBatches::new()) {
            ticket.complete(Err(Error::Closed("the producer")));
        }
    }
}

/// A batch on its way to the sender.
pub(super) fn parcel(
    batch: Batch,
    topic_id: Arc<str>,
    wishes: Wishes,
    ticket: Arc<Ticket>,
    deadline: Instant,
) -> Box<Parcel> {
    Box::new(Parcel {
        batch,
        topic_id,
        wishes,
        ticket,
        deadline,
        sequence: None,
        in_doubt: false,
        correlation_id: 0,
    })
}
