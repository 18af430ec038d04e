//! The task that fetches: keeps a stream to every broker that leads something of ours, follows the leaders, goes on
//! where it was, and hands what comes to the caller's queue.
//!
//! Who says in which rack it stands reads a replica there, where one is in sync. The leader is read instead where that
//! replica does not serve it: it is the leader who says what has become of a position.
//!
//! The queue has no bound of its own: a broker sends only what it was given credit for, and credit comes back when
//! the caller has taken a batch out.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio_stream::wrappers::UnboundedReceiverStream;
use weir_proto::v1;
use weir_proto::v1::fetch_stream_request::Frame as Out;
use weir_proto::v1::fetch_stream_response::Frame as In;

use super::config::ConsumerConfig;
use super::subscription::{Heartbeat, Subscription, Wanted};
use crate::backoff::Backoff;
use crate::channel::Purpose;
use crate::client::Inner;
use crate::error::Applied;
use crate::hindrance::Hindrances;
use crate::metadata::{Broker, Map};
use crate::{Error, ErrorReason, duplex};
use weir_types::Endpoint;

/// How long the leader is read after a replica nearby did not serve a partition.
const FAR: Duration = Duration::from_secs(10);

/// What the fetcher hears of.
#[derive(Debug)]
pub(super) enum Event {
    /// From the caller: read this, or read it differently.
    Want(Wanted),
    /// From the caller: what came of this was not what was written. Read it again, from its leader.
    Again(Wanted),
    /// From the caller: read this no more.
    Release(i64),
    /// From the caller: a batch of this broker was taken out of the queue.
    Taken { broker: i32, bytes: usize, records: usize },
    /// From the caller: that was all.
    Close,
    /// From a stream.
    Heard(u64, In),
    /// A stream is over.
    Ended(u64, Error),
    /// The map may have changed.
    MapRefreshed,
    /// Why nobody leads a partition, as a broker says.
    Leaderless(i64, Option<Error>),
    /// A wait before another attempt is over.
    Retry(i64),
    /// A broker may be dialled again.
    Rested(i32),
    /// A replica nearby may be asked again.
    Nearer(i64),
}

/// What the caller hears of.
#[derive(Debug)]
pub(super) enum Item {
    /// A batch, checked by nobody yet.
    Delivery { broker: i32, delivery: v1::BatchDelivery },
    /// Where a partition stands.
    Progress { id: i64, generation: i64, next_offset: i64, leader_epoch: Option<i32>, high_watermark: i64 },
    /// A partition is not read any more.
    Failed { id: i64, generation: i64, error: Error },
    /// Somebody has asked about a batch that was not what was written, and been told this; `None`: it can be read.
    Looked { id: i64, generation: i64, said: Option<Error> },
}

pub(super) struct Fetcher {
    inner: Arc<Inner>,
    config: ConsumerConfig,
    events: mpsc::UnboundedSender<Event>,
    items: mpsc::UnboundedSender<Item>,
    subscriptions: BTreeMap<i64, Subscription>,
    streams: HashMap<u64, BrokerStream>,
    /// The stream in use, by broker.
    current: HashMap<i32, u64>,
    credits: HashMap<i32, Credit>,
    backoffs: HashMap<i32, Backoff>,
    resting: HashSet<i32>,
    hindrances: Arc<Hindrances<i64>>,
    next_id: u64,
    refreshing: bool,
    /// Whether a broker is being asked why a partition has no leader; one at a time, however many have none.
    wondering: bool,
}

struct BrokerStream {
    broker: i32,
    address: Endpoint,
    outlet: mpsc::UnboundedSender<v1::FetchStreamRequest>,
    welcomed: bool,
    reader: AbortHandle,
}

impl Drop for BrokerStream {
    /// Nothing that still comes is of use: whatever was on its way is fetched again.
    fn drop(&mut self) {
        self.reader.abort();
    }
}

/// What a broker's batches take in the queue, and what was taken out and not given back as credit yet.
#[derive(Debug, Default)]
struct Credit {
    queued_bytes: usize,
    queued_records: usize,
    owed_bytes: usize,
    owed_records: usize,
}

impl BrokerStream {
    fn say(&self, frame: Out) {
        // If the stream is over, its end is on its way to us as an event.
        let _over = self.outlet.send(v1::FetchStreamRequest { frame: Some(frame) });
    }
}

impl Fetcher {
    pub(super) fn new(
        inner: Arc<Inner>,
        config: ConsumerConfig,
        events: mpsc::UnboundedSender<Event>,
        items: mpsc::UnboundedSender<Item>,
        hindrances: Arc<Hindrances<i64>>,
    ) -> Self {
        Self {
            inner,
            config,
            events,
            items,
            subscriptions: BTreeMap::new(),
            streams: HashMap::new(),
            current: HashMap::new(),
            credits: HashMap::new(),
            backoffs: HashMap::new(),
            resting: HashSet::new(),
            hindrances,
            next_id: 0,
            refreshing: false,
            wondering: false,
        }
    }

    /// Runs until the caller is gone.
    pub(super) async fn run(mut self, mut incoming: mpsc::UnboundedReceiver<Event>) {
        let mut changes = self.inner.follow_metadata();
        loop {
            // Both are safe to cancel: an event not taken stays in the queue.
            let event = tokio::select! {
                event = incoming.recv() => event,
                Ok(()) = changes.changed() => {
                    self.map_refreshed();
                    continue;
                }
            };
            match event {
                None | Some(Event::Close) => return,
                Some(event) => self.handle(event),
            }
        }
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Want(wanted) => {
                let id = wanted.id;
                match self.subscriptions.get_mut(&id) {
                    Some(subscription) => subscription.change(wanted),
                    None => drop(self.subscriptions.insert(id, Subscription::new(wanted))),
                }
                self.assign(id);
            }
            Event::Again(wanted) => {
                let id = wanted.id;
                let mut subscription = Subscription::new(wanted);
                subscription.far = true;
                self.subscriptions.insert(id, subscription);
                self.inner.io.tell_later(FAR, &self.events, Event::Nearer(id));
                self.refresh();
                self.assign(id);
            }
            Event::Release(id) => {
                let Some(subscription) = self.subscriptions.remove(&id) else { return };
                self.hindrances.over(&id);
                if let Some(stream) = subscription.stream.and_then(|id| self.streams.get(&id)) {
                    stream.say(Out::Release(v1::FetchRelease { subscription_id: id }));
                }
            }
            Event::Taken { broker, bytes, records } => self.taken(broker, bytes, records),
            Event::Heard(id, frame) => self.hear(id, frame),
            Event::Ended(id, error) => self.ended(id, &error),
            Event::MapRefreshed => {
                self.refreshing = false;
                self.map_refreshed();
            }
            Event::Leaderless(id, why) => {
                self.wondering = false;
                let waits = self.subscriptions.get(&id).is_some_and(|subscription| subscription.waiting);
                if let Some(why) = why.filter(|_| waits) {
                    self.hindrances.note(id, why);
                }
            }
            Event::Retry(id) => {
                if let Some(subscription) = self.subscriptions.get_mut(&id) {
                    subscription.waiting = false;
                }
                self.assign(id);
            }
            Event::Rested(broker) => {
                self.resting.remove(&broker);
                self.assign_idle();
            }
            Event::Nearer(id) => {
                if let Some(subscription) = self.subscriptions.get_mut(&id) {
                    subscription.far = false;
                }
                self.map_refreshed();
            }
            Event::Close => {}
        }
    }

    /// Who is to be asked for a partition: a replica in our rack, or its leader.
    fn target<'a>(&self, map: &'a Map, subscription: &Subscription) -> Option<&'a Broker> {
        let Wanted { topic, partition, .. } = &subscription.at;
        let near = map.near(topic, *partition, &self.config.rack).filter(|_| !subscription.far);
        let near = near.filter(|broker| !self.resting.contains(&broker.id));
        near.or_else(|| map.leader(topic, *partition).map(|(leader, _)| leader))
    }

    /// Tells the leader of a partition what is wanted of it.
    fn assign(&mut self, id: i64) {
        let Some(subscription) = self.subscriptions.get(&id) else { return };
        if subscription.waiting || subscription.parked {
            return;
        }
        let map = self.inner.metadata.map();
        let topic = Arc::clone(&subscription.at.topic);
        let Some(broker) = self.target(&map, subscription) else {
            if !map.topics.contains_key(&*topic) && !self.refreshing {
                self.park(id, Error::topic_gone(&topic));
            } else {
                self.wonder(id);
                self.wait(id, None);
                self.refresh();
            }
            return;
        };
        let stream = match self.current.get(&broker.id) {
            Some(stream) => *stream,
            None if self.resting.contains(&broker.id) => return,
            None => self.open_stream(broker.id, broker.address.clone()),
        };
        let Some(subscription) = self.subscriptions.get_mut(&id) else { return };
        if let Some(old) = subscription.stream.filter(|old| *old != stream)
            && let Some(old) = self.streams.get(&old)
        {
            old.say(Out::Release(v1::FetchRelease { subscription_id: id }));
        }
        let assign = subscription.on_stream(stream);
        if let Some(stream) = self.streams.get(&stream) {
            stream.say(Out::Assign(assign));
        }
    }

    fn assign_idle(&mut self) {
        let idle = self.subscriptions.iter().filter(|(_, subscription)| subscription.stream.is_none());
        let idle: Vec<_> = idle.map(|(id, _)| *id).collect();
        idle.into_iter().for_each(|id| self.assign(id));
    }

    fn open_stream(&mut self, broker: i32, address: Endpoint) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        let credit = self.credits.entry(broker).or_default();
        // What is still in the queue from an earlier stream counts against the new one's credit.
        (credit.owed_bytes, credit.owed_records) = (0, 0);
        let hello = v1::FetchHello {
            client: self.inner.options.name.clone(),
            version_min: 1,
            version_max: 1,
            required_features: Vec::new(),
            route: v1::Route::Direct.into(),
            isolation: v1::Isolation::from(self.config.isolation).into(),
            message_bytes_max: i32::try_from(self.inner.options.message_bytes_max).unwrap_or(i32::MAX),
            rack: self.config.rack.clone(),
            credit: Some(v1::FetchCredit {
                bytes: wire(self.config.prefetch_bytes.saturating_sub(credit.queued_bytes)),
                // Zero would mean that records are not counted.
                records: wire(self.config.prefetch_records.saturating_sub(credit.queued_records).max(1)),
            }),
        };
        let (outlet, requests) = mpsc::unbounded_channel();
        let (inner, events, to) = (Arc::clone(&self.inner), self.events.clone(), address.clone());
        let reader = self.inner.io.spawn(async move {
            let hear = |answer: v1::FetchStreamResponse| match answer.frame {
                Some(frame) => events.send(Event::Heard(id, frame)).is_ok(),
                // A frame that this version does not know is no reason to stop.
                None => true,
            };
            let path = "/weir.v1.ConsumerService/FetchStream";
            let body = duplex::body(UnboundedReceiverStream::new(requests));
            let error = duplex::run(&inner, &to, path, body, hear).await;
            let _over = events.send(Event::Ended(id, error));
        });
        let stream = BrokerStream { broker, address, outlet, welcomed: false, reader: reader.abort_handle() };
        stream.say(Out::Hello(hello));
        self.streams.insert(id, stream);
        self.current.insert(broker, id);
        id
    }

    fn hear(&mut self, id: u64, frame: In) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        let broker = stream.broker;
        match frame {
            In::Welcome(_) => {
                stream.welcomed = true;
                self.backoffs.remove(&broker);
            }
            In::Delivery(delivery) => {
                let (bytes, records) = size(&delivery);
                let credit = self.credits.entry(broker).or_default();
                credit.queued_bytes += bytes;
                credit.queued_records += records;
                let subscription = self.subscriptions.get_mut(&delivery.subscription_id);
                if subscription.is_some_and(|subscription| subscription.delivered(id, &delivery)) {
                    self.hindrances.over(&delivery.subscription_id);
                    let _gone = self.items.send(Item::Delivery { broker, delivery });
                } else {
                    self.taken(broker, bytes, records);
                }
            }
            In::Heartbeat(heartbeat) => self.heartbeat(id, &heartbeat),
            In::End(end) => self.end(id, &end),
            In::Goodbye(goodbye) => {
                tracing::debug!(broker, ?goodbye.cause, "a broker says goodbye");
                self.leave(id);
            }
        }
    }

    fn heartbeat(&mut self, id: u64, heartbeat: &v1::FetchHeartbeat) {
        for said in &heartbeat.progress {
            let Some(subscription) = self.subscriptions.get_mut(&said.subscription_id) else { continue };
            let Some(progress) = &said.progress else { continue };
            if subscription.stream == Some(id) {
                self.hindrances.over(&said.subscription_id);
            }
            match subscription.heartbeat(id, said.generation, progress) {
                Heartbeat::Nothing => {}
                Heartbeat::News => {
                    let _gone = self.items.send(Item::Progress {
                        id: subscription.at.id,
                        generation: subscription.at.generation,
                        next_offset: subscription.at.offset,
                        leader_epoch: subscription.at.leader_epoch,
                        high_watermark: progress.high_watermark,
                    });
                }
                Heartbeat::Truncated => {
                    let Wanted { topic, partition, offset, .. } = &subscription.at;
                    let error = Error::log_truncated(topic, *partition, *offset);
                    if let Some(stream) = self.streams.get(&id) {
                        stream.say(Out::Release(v1::FetchRelease { subscription_id: said.subscription_id }));
                    }
                    self.park(said.subscription_id, error);
                }
            }
        }
    }

    /// A subscription is over: because of the leader, and then another is found, or for the caller to decide.
    fn end(&mut self, stream: u64, end: &v1::FetchEnd) {
        let id = end.subscription_id;
        let Some(subscription) = self.subscriptions.get_mut(&id) else { return };
        if subscription.stream != Some(stream) || subscription.at.generation != end.generation {
            return;
        }
        subscription.off_stream();
        let map = self.inner.metadata.map();
        let leader =
            map.leader(&subscription.at.topic, subscription.at.partition).map(|(leader, _)| leader.id);
        let asked = self.streams.get(&stream).map(|stream| stream.broker);
        if !self.config.rack.is_empty() && asked != leader && !subscription.far {
            // What a replica does not say, the leader does: at once, and whatever it is.
            subscription.far = true;
            self.inner.io.tell_later(FAR, &self.events, Event::Nearer(id));
            self.refresh();
            return self.assign(id);
        }
        let error =
            end.failure.as_ref().map_or_else(|| Error::lost("no reason was given"), Error::from_failure);
        tracing::debug!(topic = %subscription.at.topic, partition = subscription.at.partition, %error,
            "a subscription ended");
        let elsewhere = matches!(
            error.reason(),
            Some(ErrorReason::NotLeader | ErrorReason::LeaderEpochStale | ErrorReason::OutcomeUnknown)
        );
        if elsewhere || error.retry_after().is_some() {
            self.wait(id, error.retry_after());
            self.hindrances.note(id, error);
            self.refresh();
        } else {
            self.park(id, error);
        }
    }

    /// The caller has to decide.
    fn park(&mut self, id: i64, error: Error) {
        let Some(subscription) = self.subscriptions.get_mut(&id) else { return };
        subscription.parked = true;
        subscription.off_stream();
        self.hindrances.over(&id);
        let generation = subscription.at.generation;
        let _gone = self.items.send(Item::Failed { id, generation, error });
    }

    /// Leaves a stream, and goes on on another one.
    fn leave(&mut self, id: u64) {
        let Some(stream) = self.streams.remove(&id) else { return };
        self.inner.channels.renew(&stream.address, Purpose::Streams);
        if self.current.get(&stream.broker) == Some(&id) {
            self.current.remove(&stream.broker);
        }
        for subscription in self.subscriptions.values_mut().filter(|sub| sub.stream == Some(id)) {
            subscription.off_stream();
        }
        self.refresh();
        self.assign_idle();
    }

    fn ended(&mut self, stream_id: u64, error: &Error) {
        let Some(stream) = self.streams.get(&stream_id) else { return };
        tracing::debug!(broker = stream.broker, %error, "a fetching stream ended");
        let broker = stream.broker;
        // A planned end is no reason to wait, but a stream that never came up is.
        let planned = stream.welcomed && error.is_about_the_connection() && error.applied() == Applied::No;
        if !planned {
            for (id, _) in self.subscriptions.iter().filter(|(_, at)| at.stream == Some(stream_id)) {
                self.hindrances.note(*id, error.clone());
            }
        }
        if !planned && self.resting.insert(broker) {
            let wait = self
                .backoffs
                .entry(broker)
                .or_insert_with(Backoff::usual)
                .next(&*self.inner.os, error.asked_to_wait());
            self.inner.io.tell_later(wait, &self.events, Event::Rested(broker));
        }
        self.leave(stream_id);
    }

    /// A batch left the queue; its credit goes back in portions.
    fn taken(&mut self, broker: i32, bytes: usize, records: usize) {
        let credit = self.credits.entry(broker).or_default();
        credit.queued_bytes = credit.queued_bytes.saturating_sub(bytes);
        credit.queued_records = credit.queued_records.saturating_sub(records);
        credit.owed_bytes += bytes;
        credit.owed_records += records;
        let portion = credit.owed_bytes >= self.config.prefetch_bytes / 8
            || credit.owed_records >= self.config.prefetch_records / 8
            || credit.queued_records == 0;
        if !portion {
            return;
        }
        if let Some(stream) = self.current.get(&broker).and_then(|id| self.streams.get(id)) {
            stream.say(Out::Credit(v1::FetchCredit {
                bytes: wire(credit.owed_bytes),
                records: wire(credit.owed_records.max(1)),
            }));
            (credit.owed_bytes, credit.owed_records) = (0, 0);
        }
    }

    fn map_refreshed(&mut self) {
        let map = self.inner.metadata.map();
        let moved: Vec<_> = self
            .subscriptions
            .iter()
            .filter(|(_, sub)| {
                let target = self.target(&map, sub).map(|broker| broker.id);
                let at = sub.stream.and_then(|id| self.streams.get(&id)).map(|stream| stream.broker);
                sub.stream.is_none() || (target.is_some() && target != at)
            })
            .map(|(id, _)| *id)
            .collect();
        moved.into_iter().for_each(|id| self.assign(id));
    }

    fn wait(&mut self, id: i64, asked: Option<Duration>) {
        let Some(subscription) = self.subscriptions.get_mut(&id).filter(|sub| !sub.waiting) else { return };
        subscription.waiting = true;
        let wait = subscription.backoff.next(&*self.inner.os, asked);
        self.inner.io.tell_later(wait, &self.events, Event::Retry(id));
    }

    /// Asks a broker why nobody leads a partition: the map says only that nobody does, and whoever waits wants to know
    /// whether that passes.
    fn wonder(&mut self, id: i64) {
        let Some(subscription) = self.subscriptions.get(&id).filter(|sub| !sub.waiting && !self.wondering)
        else {
            return;
        };
        self.wondering = true;
        let (topic, partition) = (Arc::clone(&subscription.at.topic), subscription.at.partition);
        let (inner, events) = (Arc::clone(&self.inner), self.events.clone());
        self.inner.io.spawn(async move {
            let why = inner.why_leaderless(&topic, partition).await;
            let _gone = events.send(Event::Leaderless(id, why));
        });
    }

    fn refresh(&mut self) {
        if self.refreshing {
            return;
        }
        self.refreshing = true;
        let events = self.events.clone();
        self.inner.refresh_metadata_then(move || {
            let _gone = events.send(Event::MapRefreshed);
        });
    }
}

/// What a delivery takes of the credit.
pub(super) fn size(delivery: &v1::BatchDelivery) -> (usize, usize) {
    delivery
        .batch
        .as_ref()
        .map_or((0, 0), |batch| (batch.records.len(), usize::try_from(batch.record_count).unwrap_or(0)))
}

fn wire(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
