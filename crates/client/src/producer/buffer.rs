//! Where records become batches: one mutex, on the caller's thread. Hot path: once a record.
//!
//! **When a batch is closed.** When the next record does not fit; when it has lingered; when somebody flushes; and
//! at once where waiting would gain nothing. Waiting gains something when the batch would fill before it has
//! lingered, or when the producer is busy and fewer, larger batches leave it more time for each. So a record that
//! finds its partition idle and the producer nearly so goes alone, and when the answer comes, what has gathered
//! meanwhile goes too, unless at this rate the batch will be full in time.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;
use weir_record::{BatchBuilder, Packed};
use weir_runtime::Os;

use super::config::ProducerConfig;
use super::partitioner::Choice;
use super::receipt::{Receipt, Ticket};
use crate::metadata::Topic;
use crate::record::Record;
use crate::{Error, Result};

/// With so few batches on their way in the whole producer, latency is worth more than fuller batches.
const LIGHT_LOAD_BATCHES: usize = 2;

/// Up to such a linger, a look at the clock serves several records.
const LINGER_SHORT: Duration = Duration::from_millis(20);

/// A look at the clock serves at most so many records.
const STRIDE_MAX: u32 = 64;

/// How many batches' memory is kept for others at most, and an eighth of what the producer may use.
const SPARE_BATCHES_MAX: usize = 16;

/// The wall clock, looked at as often as the rate of records asks for: half of what sending a small record costs
/// would be looking at the clock. What it says is behind by a millisecond at most while records come steadily, and
/// by the linger when they stop, because every batch that is opened looks anew.
#[derive(Debug, Default)]
struct Clock {
    seen_ms: i64,
    stride: u32,
    left: u32,
}

impl Clock {
    #[inline]
    fn now(&mut self, os: &dyn Os, look: bool) -> i64 {
        if self.left > 0 && !look {
            self.left -= 1;
        } else {
            let now_ms = os.wall_ms();
            self.stride = match now_ms - self.seen_ms {
                0 => (self.stride * 2).clamp(1, STRIDE_MAX),
                1 => self.stride,
                _ => 0,
            };
            self.left = self.stride;
            self.seen_ms = now_ms;
        }
        self.seen_ms
    }
}

/// A partition of a producer: its topic's place in the buffer, and its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Place {
    pub(super) topic: usize,
    pub(super) partition: i32,
}

/// A batch that was closed and goes to compression, or straight on its way.
#[derive(Debug)]
pub(super) struct Closed {
    pub(super) place: Place,
    /// Its number among the batches of the partition.
    pub(super) number: u64,
    pub(super) topic_id: Arc<str>,
    pub(super) packed: Packed,
    pub(super) ticket: Arc<Ticket>,
    pub(super) deadline: Instant,
}

/// What became of an attempt to add a record.
#[derive(Debug)]
pub(super) enum Added {
    Yes(Receipt),
    /// There is no room; so many bytes are in use.
    Full(usize),
    /// The topic has not been looked up.
    TopicUnknown,
}

#[derive(Debug)]
pub(super) struct Buffer {
    config: ProducerConfig,
    os: Arc<dyn Os>,
    state: Mutex<State>,
    /// Told when memory was given back.
    pub(super) room: Notify,
}

#[derive(Debug, Default)]
struct State {
    closed: bool,
    topics: Vec<TopicBuffer>,
    by_name: HashMap<Arc<str>, usize>,
    /// Where the last record went: the next one mostly goes to the same topic.
    last: usize,
    used: usize,
    /// Batches closed and not done.
    on_the_way: usize,
    clock: Clock,
    /// The memory of batches that are done.
    spare: Vec<Vec<u8>>,
    /// Open batches by the time when they have lingered, with some that were closed before.
    lingering: VecDeque<(Instant, Place, u64)>,
}

#[derive(Debug)]
struct TopicBuffer {
    topic: Arc<Topic>,
    id: Arc<str>,
    gone: bool,
    /// The size at which a batch is closed.
    batch_bytes: usize,
    /// What a single record may take.
    record_bytes_max: usize,
    choice: Choice,
    partitions: Vec<Open>,
}

#[derive(Debug, Default)]
struct Open {
    builder: BatchBuilder,
    /// The ticket of the open batch, and since when it is open.
    batch: Option<(Arc<Ticket>, Instant)>,
    /// The number of the open batch.
    number: u64,
    /// Those before it that are not done.
    on_the_way: VecDeque<Arc<Ticket>>,
}

/// What closing left to be done outside the lock; at most two batches a record.
pub(super) type ClosedBatches = Vec<Closed>;

impl Buffer {
    pub(super) fn new(config: ProducerConfig, os: Arc<dyn Os>) -> Self {
        Self { config, os, state: Mutex::default(), room: Notify::new() }
    }

    /// Adds a record. What was closed for it is in `closed`; `true` if a batch began to linger while none did, so
    /// that somebody must look at the clock.
    pub(super) fn add(
        &self,
        name: &str,
        record: &Record<'_>,
        closed: &mut ClosedBatches,
    ) -> Result<(Added, bool)> {
        let mut state = self.state.lock();
        let state = &mut *state;
        if state.closed {
            return Err(Error::Closed("the producer"));
        }
        let at = match state.topics.get(state.last) {
            Some(last) if &*last.topic.name == name => state.last,
            _ => match state.by_name.get(name) {
                Some(&at) => at,
                None => return Ok((Added::TopicUnknown, false)),
            },
        };
        let bytes_max = record.bytes_max();
        if state.used + bytes_max > self.config.buffer_bytes_max && state.used > 0 {
            return Ok((Added::Full(state.used), false));
        }
        let Some(topic) = state.topics.get_mut(at).filter(|topic| !topic.gone) else {
            return Ok((Added::TopicUnknown, false));
        };
        state.last = at;
        if bytes_max > topic.record_bytes_max {
            let limit = topic.record_bytes_max;
            return Err(Error::RecordTooLarge {
                topic: Arc::clone(&topic.topic.name),
                bytes: bytes_max,
                limit,
            });
        }
        let partitions = topic.topic.partition_count();
        let partition = topic.choice.choose(&*self.os, &self.config.partitioning, name, record, partitions);
        let place = Place { topic: at, partition };
        let Some(open) = usize::try_from(partition).ok().and_then(|at| topic.partitions.get_mut(at)) else {
            return Err(no_partition(name, partition, partitions));
        };
        let now_ms = match record.timestamp_ms {
            Some(timestamp_ms) => timestamp_ms,
            None => state.clock.now(&*self.os, open.batch.is_none() || self.config.linger > LINGER_SHORT),
        };
        let deadline = || Instant::now() + self.config.delivery_timeout;
        let mut bytes_before = open.builder.bytes();
        let index = loop {
            if open.batch.is_none()
                && let Some(memory) = state.spare.pop()
            {
                open.builder.reuse(memory);
            }
            let headers = record.headers.iter().copied();
            let pushed = open
                .builder
                .try_push(topic.batch_bytes, now_ms, record.key, record.value, headers)
                .map_err(|e| Error::invalid(e.to_string()))?;
            match pushed {
                Some(index) => break index,
                None => {
                    closed.extend(open.close(place, &topic.id, deadline()));
                    state.on_the_way += 1;
                    topic.choice.batch_closed(&*self.os, partition, partitions);
                    bytes_before = 0;
                }
            }
        };
        let bytes = open.builder.bytes() - bytes_before;
        state.used += bytes;
        let Some((ticket, _)) = &open.batch else {
            // The first record: the batch is open from now on.
            let ticket = Ticket::new();
            let receipt = Receipt::new(Arc::clone(&ticket), index);
            let now = Instant::now();
            open.batch = Some((ticket, now));
            if open.on_the_way.is_empty()
                && (state.on_the_way <= LIGHT_LOAD_BATCHES || self.config.linger.is_zero())
            {
                closed.extend(open.close(place, &topic.id, deadline()));
                state.on_the_way += 1;
                topic.choice.batch_closed(&*self.os, partition, partitions);
                return Ok((Added::Yes(receipt), false));
            }
            if self.config.linger.is_zero() {
                return Ok((Added::Yes(receipt), false));
            }
            let first = state.lingering.is_empty();
            state.lingering.push_back((now + self.config.linger, place, open.number));
            return Ok((Added::Yes(receipt), first));
        };
        Ok((Added::Yes(Receipt::new(Arc::clone(ticket), index)), false))
    }

    /// Takes a batch that the caller packed: the number it gets among the partition's batches, and its ticket.
    /// What was open before it is closed first. `None`: there is no room.
    pub(super) fn add_ready(
        &self,
        name: &str,
        partition: i32,
        bytes: usize,
        closed: &mut ClosedBatches,
    ) -> Result<ReadyAdded> {
        let mut state = self.state.lock();
        let state = &mut *state;
        if state.closed {
            return Err(Error::Closed("the producer"));
        }
        let Some(at) = state.by_name.get(name).copied() else { return Ok(ReadyAdded::TopicUnknown) };
        let Some(topic) = state.topics.get_mut(at).filter(|topic| !topic.gone) else {
            return Ok(ReadyAdded::TopicUnknown);
        };
        if state.used + bytes > self.config.buffer_bytes_max && state.used > 0 {
            return Ok(ReadyAdded::Full);
        }
        let partitions = topic.topic.partition_count();
        let place = Place { topic: at, partition };
        let Some(open) = usize::try_from(partition).ok().and_then(|at| topic.partitions.get_mut(at)) else {
            return Err(no_partition(name, partition, partitions));
        };
        let deadline = Instant::now() + self.config.delivery_timeout;
        let before = open.close(place, &topic.id, deadline);
        state.on_the_way += usize::from(before.is_some()) + 1;
        closed.extend(before);
        state.used += bytes;
        let ticket = Ticket::new();
        ticket.bytes.store(bytes, Ordering::Relaxed);
        let number = open.number;
        open.number += 1;
        open.on_the_way.push_back(Arc::clone(&ticket));
        Ok(ReadyAdded::Yes { place, number, topic_id: Arc::clone(&topic.id), ticket, deadline })
    }

    /// Closes what has lingered; says when to look again.
    pub(super) fn lingered(&self, now: Instant, closed: &mut ClosedBatches) -> Option<Instant> {
        let mut state = self.state.lock();
        let state = &mut *state;
        while let Some(&(due, place, number)) = state.lingering.front() {
            let topic = state.topics.get_mut(place.topic);
            let open = topic.and_then(|topic| topic.open(place.partition).map(|open| (open, topic)));
            let Some((at, topic)) = open.filter(|(at, topic)| topic.is_open(*at, number)) else {
                state.lingering.pop_front();
                continue;
            };
            if due > now {
                return Some(due);
            }
            state.lingering.pop_front();
            let Some(open) = topic.partitions.get_mut(at) else { continue };
            if open.on_the_way.len() >= self.config.inflight_max {
                // It could not go anyway: let it grow.
                let later = self.config.linger.max(Duration::from_millis(1));
                state.lingering.push_back((now + later, place, number));
                continue;
            }
            closed.extend(open.close(place, &topic.id, now + self.config.delivery_timeout));
            state.on_the_way += 1;
            topic.choice.batch_closed(&*self.os, place.partition, topic.topic.partition_count());
        }
        None
    }

    /// A batch is done: its memory is free again, and what gathered behind it may go.
    pub(super) fn done(&self, place: Place, ticket: &Arc<Ticket>, closed: &mut ClosedBatches) {
        let mut state = self.state.lock();
        let state = &mut *state;
        let Some(topic) = state.topics.get_mut(place.topic) else { return };
        let Some(at) = topic.open(place.partition) else { return };
        let Some(open) = topic.partitions.get_mut(at) else { return };
        let Some(which) = open.on_the_way.iter().position(|other| Arc::ptr_eq(other, ticket)) else { return };
        open.on_the_way.remove(which);
        state.on_the_way = state.on_the_way.saturating_sub(1);
        state.used = state.used.saturating_sub(ticket.bytes.load(Ordering::Relaxed));
        self.room.notify_waiters();
        if !open.on_the_way.is_empty() {
            return;
        }
        let Some((_, since)) = &open.batch else { return };
        let age = since.elapsed();
        let linger = self.config.linger;
        // At the rate so far: full before it has lingered?
        let fills_in_time = !linger.is_zero()
            && (open.builder.bytes() as u128) * linger.as_nanos()
                >= (topic.batch_bytes as u128) * age.as_nanos();
        if linger.is_zero() || (state.on_the_way <= LIGHT_LOAD_BATCHES && !fills_in_time) || age >= linger {
            let deadline = Instant::now() + self.config.delivery_timeout;
            closed.extend(open.close(place, &topic.id, deadline));
            state.on_the_way += 1;
            topic.choice.batch_closed(&*self.os, place.partition, topic.topic.partition_count());
        }
    }

    /// Keeps the memory of a batch that is done for one that is to be packed. New memory of that size comes from the
    /// operating system page by page, a fault for every four records of 1 KiB, and goes back to it when it is freed.
    pub(super) fn recycle(&self, mut payload: Bytes) {
        if !payload.is_unique() {
            return;
        }
        let batch_bytes = self.config.batch_bytes;
        payload.clear();
        // Nobody else has it, so this copies nothing.
        let memory = Vec::from(payload);
        if !(batch_bytes / 2..=batch_bytes.saturating_mul(2)).contains(&memory.capacity()) {
            return;
        }
        let spare_max = (self.config.buffer_bytes_max / 8 / batch_bytes).min(SPARE_BATCHES_MAX);
        let mut state = self.state.lock();
        if state.spare.len() < spare_max && !state.closed {
            state.spare.push(memory);
        }
    }

    /// Closes everything that is open; the tickets of all that is not done.
    pub(super) fn flush(&self, closed: &mut ClosedBatches) -> Vec<Arc<Ticket>> {
        let mut state = self.state.lock();
        let state = &mut *state;
        let mut tickets = Vec::new();
        for (at, topic) in state.topics.iter_mut().enumerate() {
            for (partition, open) in topic.partitions.iter_mut().enumerate() {
                let partition = i32::try_from(partition).unwrap_or(i32::MAX);
                let place = Place { topic: at, partition };
                let batch = open.close(place, &topic.id, Instant::now() + self.config.delivery_timeout);
                state.on_the_way += usize::from(batch.is_some());
                closed.extend(batch);
                tickets.extend(open.on_the_way.iter().cloned());
            }
        }
        tickets
    }

    /// Whether nothing is on its way. If memory is used up then, somebody has to close what is open.
    pub(super) fn is_idle(&self) -> bool {
        self.state.lock().on_the_way == 0
    }

    /// No more records.
    pub(super) fn close(&self) {
        self.state.lock().closed = true;
        self.room.notify_waiters();
    }

    /// Makes a topic known, or what is new about it. `batch_bytes_max` is the topic's limit, if that is known. What was
    /// packed for another topic of that name is closed as that one's: its records are not this one's.
    pub(super) fn learn(
        &self,
        topic: &Arc<Topic>,
        batch_bytes_max: Option<usize>,
        closed: &mut ClosedBatches,
    ) {
        let mut state = self.state.lock();
        let state = &mut *state;
        let limit = batch_bytes_max.unwrap_or(weir_record::BATCH_BYTES_MAX);
        let at = match state.by_name.get(&*topic.name) {
            Some(&at) => at,
            None => {
                state.by_name.insert(Arc::clone(&topic.name), state.topics.len());
                state.topics.push(TopicBuffer {
                    topic: Arc::clone(topic),
                    id: topic.id.as_str().into(),
                    gone: false,
                    batch_bytes: 0,
                    record_bytes_max: 0,
                    choice: Choice::default(),
                    partitions: Vec::new(),
                });
                state.topics.len() - 1
            }
        };
        let Some(known) = state.topics.get_mut(at) else { return };
        if known.id.as_ref() != topic.id {
            let deadline = Instant::now() + self.config.delivery_timeout;
            for (open, partition) in known.partitions.iter_mut().zip(0..) {
                let before = open.close(Place { topic: at, partition }, &known.id, deadline);
                state.on_the_way += usize::from(before.is_some());
                closed.extend(before);
            }
            known.id = topic.id.as_str().into();
        }
        known.topic = Arc::clone(topic);
        known.gone = topic.partitions.is_empty();
        if batch_bytes_max.is_some() || known.batch_bytes == 0 {
            known.batch_bytes = self.config.batch_bytes.min(limit);
            // Compression may make it fit: then only the leader can tell.
            let uncompressed = self.config.codec == weir_record::Codec::None;
            known.record_bytes_max = if uncompressed { limit } else { weir_record::BATCH_BYTES_MAX };
        }
        // Partitions never become fewer; if a topic was made anew with fewer, what is open for the others is
        // refused by the leader, which says why.
        if known.partitions.len() < topic.partitions.len() {
            known.partitions.resize_with(topic.partitions.len(), Open::default);
        }
    }

    /// Whether a topic of that name was sent to.
    pub(super) fn knows(&self, topic: &str) -> bool {
        self.state.lock().by_name.contains_key(topic)
    }

    /// A topic was deleted: the next record for it looks it up again.
    pub(super) fn forget(&self, topic: usize) {
        if let Some(topic) = self.state.lock().topics.get_mut(topic) {
            topic.gone = true;
        }
    }

    /// The topic at a place.
    pub(super) fn topic(&self, topic: usize) -> Option<Arc<Topic>> {
        self.state.lock().topics.get(topic).map(|topic| Arc::clone(&topic.topic))
    }
}

/// What became of a ready batch.
#[derive(Debug)]
pub(super) enum ReadyAdded {
    Yes { place: Place, number: u64, topic_id: Arc<str>, ticket: Arc<Ticket>, deadline: Instant },
    Full,
    TopicUnknown,
}

impl TopicBuffer {
    fn open(&self, partition: i32) -> Option<usize> {
        usize::try_from(partition).ok().filter(|at| *at < self.partitions.len())
    }

    /// Whether the open batch of a partition is the one of this number.
    fn is_open(&self, at: usize, number: u64) -> bool {
        self.partitions.get(at).is_some_and(|open| open.batch.is_some() && open.number == number)
    }
}

impl Open {
    fn close(&mut self, place: Place, topic_id: &Arc<str>, deadline: Instant) -> Option<Closed> {
        let packed = self.builder.take()?;
        let (ticket, _) = self.batch.take()?;
        ticket.bytes.store(packed.bytes(), Ordering::Relaxed);
        let number = self.number;
        self.number += 1;
        self.on_the_way.push_back(Arc::clone(&ticket));
        Some(Closed { place, number, topic_id: Arc::clone(topic_id), packed, ticket, deadline })
    }
}

fn no_partition(topic: &str, partition: i32, partitions: i32) -> Error {
    Error::invalid(format!(
        "there is no partition {topic}/{partition}: the topic has {partitions}, from 0 to {}",
        partitions - 1
    ))
}
