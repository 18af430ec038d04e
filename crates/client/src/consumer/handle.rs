//! [`Consumer`]: what the caller holds.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures::Stream;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TryRecvError;
use tokio::time::Instant;
use weir_record::Decompressor;

use super::batch::Batch;
use super::config::{ConsumerConfig, Reset};
use super::fetcher::{self, Event, Fetcher, Item};
use super::subscription::Wanted;
use super::suspect::{self, Suspects};
use crate::client::{Client, Inner};
use crate::hindrance::Hindrances;
use crate::offsets::Position;
use crate::{Error, ErrorReason, Result};

/// Reads partitions. From [`Client::consumer`].
///
/// It belongs to one task: it has positions, and two readers of one position would each miss what the other got.
///
/// ```
/// use weir_client::{Client, ConsumerConfig, NewTopic, Position, ProducerConfig, Record};
///
/// # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/doc/server.rs"));
/// # fn main() { serve(|address| Box::pin(example(address))) }
/// # async fn example(address: String) -> Result<(), weir_client::Error> {
/// # let client = Client::connect(&address).await?;
/// # client.topics().create(NewTopic::new("events")).await?;
/// let producer = client.producer(ProducerConfig::new())?;
/// for at in [1_000, 2_000, 3_000] {
///     producer.send("events", Record::new("v").timestamp_ms(at)).await?.await?;
/// }
///
/// let mut consumer = client.consumer(ConsumerConfig::new())?;
/// consumer.assign("events", 0, Position::Timestamp(1_500)).await?;
/// let mut reading = consumer.until_end().await?;
/// let mut times = Vec::new();
/// while let Some(batch) = reading.next().await? {
///     for record in &batch {
///         times.push(record?.timestamp_ms);
///     }
/// }
/// assert_eq!(times, [2_000, 3_000]);
/// assert_eq!(consumer.position("events", 0), Some(3));
/// # Ok(())
/// # }
/// ```
pub struct Consumer {
    inner: Arc<Inner>,
    config: ConsumerConfig,
    commands: mpsc::UnboundedSender<Event>,
    items: mpsc::UnboundedReceiver<Item>,
    /// For who looks at suspects: he tells by the same way as the fetcher, whose end ends it.
    looked: mpsc::WeakUnboundedSender<Item>,
    partitions: BTreeMap<i64, Assigned>,
    ids: HashMap<Arc<str>, HashMap<i32, i64>>,
    next_id: i64,
    decompressor: Decompressor,
    hindrances: Arc<Hindrances<i64>>,
}

/// A partition that is read.
#[derive(Debug)]
struct Assigned {
    wanted: Wanted,
    high_watermark: Option<i64>,
    /// Where to go on, once somebody has asked the leader: the position was lost.
    reset: Option<Position>,
    /// Whether it is not read until somebody seeks.
    stopped: bool,
    suspects: Suspects,
}

impl Assigned {
    /// The end that the leader tells; one that has just begun tells none.
    fn learn_end(&mut self, high_watermark: i64) {
        if high_watermark >= 0 {
            self.high_watermark = Some(high_watermark);
        }
    }
}

/// Where a consumer stands in a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionPosition {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// The offset of the next record.
    pub offset: i64,
    /// The leader epoch of what is just before it, if that is known.
    pub leader_epoch: Option<i32>,
    /// The end of what was committed when last heard of.
    pub high_watermark: Option<i64>,
    /// Whether it is paused.
    pub paused: bool,
}

impl Client {
    /// A consumer that reads nothing yet.
    ///
    /// # Errors
    /// [`Error::Invalid`] for settings that cannot be.
    pub fn consumer(&self, config: ConsumerConfig) -> Result<Consumer> {
        config.check()?;
        let (commands, events) = mpsc::unbounded_channel();
        let (sink, items) = mpsc::unbounded_channel();
        let hindrances = Arc::new(Hindrances::default());
        let looked = sink.downgrade();
        let (inner, noted) = (Arc::clone(&self.inner), Arc::clone(&hindrances));
        let fetcher = Fetcher::new(inner, config.clone(), commands.clone(), sink, noted);
        self.inner.io.spawn(fetcher.run(events));
        Ok(Consumer {
            inner: Arc::clone(&self.inner),
            config,
            commands,
            items,
            looked,
            partitions: BTreeMap::new(),
            ids: HashMap::new(),
            next_id: 1,
            decompressor: Decompressor::new(),
            hindrances,
        })
    }
}

impl Consumer {
    /// Reads a partition, from a position on. If it is read already, it goes on from there.
    ///
    /// # Errors
    /// TOPIC_NOT_FOUND, [`Error::Invalid`] for a partition that does not exist, and those of every call.
    pub async fn assign(&mut self, topic: &str, partition: i32, position: Position) -> Result<()> {
        self.assign_some(topic, Some(partition), position).await
    }

    /// Reads all partitions of a topic, from a position on. Partitions that the topic gets later are not read.
    ///
    /// # Errors
    /// As [`Consumer::assign`].
    pub async fn assign_topic(&mut self, topic: &str, position: Position) -> Result<()> {
        self.assign_some(topic, None, position).await
    }

    async fn assign_some(&mut self, topic: &str, only: Option<i32>, position: Position) -> Result<()> {
        let known = self.inner.look_up_topic(topic).await?;
        let count = known.partition_count();
        let wanted: Vec<i32> = match only {
            Some(partition) if (0..count).contains(&partition) => vec![partition],
            Some(partition) => {
                return Err(Error::invalid(format!(
                    "there is no partition {topic}/{partition}: the topic has {count}"
                )));
            }
            None => (0..count).collect(),
        };
        let questions: Vec<_> = wanted.iter().map(|p| (topic.to_owned(), *p, position)).collect();
        let offsets = self.inner.resolve(&questions, self.config.isolation).await?;
        for (partition, offset) in wanted.into_iter().zip(offsets) {
            let known_id = self.id(topic, partition);
            let id = known_id.unwrap_or(self.next_id);
            if known_id.is_none() {
                self.next_id += 1;
                self.ids.entry(Arc::clone(&known.name)).or_default().insert(partition, id);
            }
            let generation = self.partitions.get(&id).map_or(0, |old| old.wanted.generation) + 1;
            let wanted = Wanted {
                id,
                generation,
                topic: Arc::clone(&known.name),
                topic_id: known.id.as_str().into(),
                partition,
                offset,
                leader_epoch: None,
                paused: false,
            };
            self.want(&wanted);
            let assigned = Assigned {
                wanted,
                high_watermark: None,
                reset: None,
                stopped: false,
                suspects: Suspects::default(),
            };
            self.partitions.insert(id, assigned);
        }
        Ok(())
    }

    /// Reads a partition no more.
    pub fn release(&mut self, topic: &str, partition: i32) {
        if let Some(id) = self.ids.get_mut(topic).and_then(|partitions| partitions.remove(&partition)) {
            self.partitions.remove(&id);
            let _gone = self.commands.send(Event::Release(id));
        }
    }

    /// Goes on at another position. What was fetched ahead is dropped.
    ///
    /// # Errors
    /// [`Error::Invalid`] if the partition is not assigned, and those of every call for positions that have to be
    /// asked for.
    pub async fn seek(&mut self, topic: &str, partition: i32, position: Position) -> Result<()> {
        let id = self.assigned(topic, partition)?;
        let offset = self.resolve(topic, partition, position).await?;
        self.change(id, |at| {
            at.offset = offset;
            at.leader_epoch = None;
        });
        Ok(())
    }

    /// Fetches nothing more of a partition, and keeps its position.
    ///
    /// # Errors
    /// [`Error::Invalid`] if the partition is not assigned.
    pub fn pause(&mut self, topic: &str, partition: i32) -> Result<()> {
        let id = self.assigned(topic, partition)?;
        self.change(id, |at| at.paused = true);
        Ok(())
    }

    /// Goes on with a paused partition.
    ///
    /// # Errors
    /// [`Error::Invalid`] if the partition is not assigned.
    pub fn resume(&mut self, topic: &str, partition: i32) -> Result<()> {
        let id = self.assigned(topic, partition)?;
        self.change(id, |at| at.paused = false);
        Ok(())
    }

    /// The offset of the next record of a partition: past everything that was polled or filtered. `None` if the
    /// partition is not assigned.
    pub fn position(&self, topic: &str, partition: i32) -> Option<i64> {
        let id = self.id(topic, partition)?;
        Some(self.partitions.get(&id)?.wanted.offset)
    }

    /// Where it stands in everything it reads, by topic and partition.
    pub fn positions(&self) -> Vec<PartitionPosition> {
        let mut positions: Vec<_> = self
            .partitions
            .values()
            .map(|assigned| PartitionPosition {
                topic: assigned.wanted.topic.as_ref().to_owned(),
                partition: assigned.wanted.partition,
                offset: assigned.wanted.offset,
                leader_epoch: assigned.wanted.leader_epoch,
                high_watermark: assigned.high_watermark,
                paused: assigned.wanted.paused,
            })
            .collect();
        positions.sort_by(|a, b| (&a.topic, a.partition).cmp(&(&b.topic, b.partition)));
        positions
    }

    /// Why nothing comes: what the last attempt to read a partition failed with, as long as it is tried again; `None` if
    /// nothing is known to be in the way. For telling people: what does not pass is an error of [`Consumer::poll`].
    pub fn hindrance(&self) -> Option<Error> {
        self.hindrances.any().or_else(|| self.inner.trying_again())
    }

    /// The next batch, of whichever partition has one; `None` if none came within `wait_max`. Cancelling it loses
    /// nothing.
    ///
    /// The batch is checked and decompressed here, on the caller's thread: up to a millisecond for a large one.
    ///
    /// # Errors
    /// OFFSET_OUT_OF_RANGE and LOG_TRUNCATED, unless the configuration says where to go on; TOPIC_NOT_FOUND;
    /// PARTITION_DAMAGED, and [`Error::Corrupt`] for what was read again and did not come right. Each is about one
    /// partition, which is not read any more until somebody seeks; the others go on.
    pub async fn poll(&mut self, wait_max: Duration) -> Result<Option<Batch>> {
        // What is there already needs no clock.
        if let Some(batch) = self.take_ready()? {
            return Ok(Some(batch));
        }
        match tokio::time::timeout_at(Instant::now() + wait_max, self.next()).await {
            Ok(batch) => batch.map(Some),
            Err(_) => Ok(None),
        }
    }

    /// The next batch, however long it takes. Cancelling it loses nothing.
    ///
    /// # Errors
    /// As [`Consumer::poll`].
    pub async fn next(&mut self) -> Result<Batch> {
        loop {
            if let Some(batch) = self.step().await? {
                return Ok(batch);
            }
        }
    }

    /// The batches as a stream, which never ends by itself. An error does not end it either.
    pub fn stream(&mut self) -> impl Stream<Item = Result<Batch>> + '_ {
        futures::stream::unfold(self, |consumer| async move { Some((consumer.next().await, consumer)) })
    }

    /// Reads everything that is there now: up to the ends as they are when this is called, of all partitions that
    /// are not paused.
    ///
    /// # Errors
    /// Those of every call: the ends are asked for.
    pub async fn until_end(&mut self) -> Result<UntilEnd<'_>> {
        let reading = self.partitions.iter().filter(|(_, assigned)| !assigned.wanted.paused);
        let (ids, questions): (Vec<_>, Vec<_>) = reading
            .map(|(id, assigned)| {
                let topic = assigned.wanted.topic.as_ref().to_owned();
                (*id, (topic, assigned.wanted.partition, Position::Latest))
            })
            .unzip();
        let ends = self.inner.resolve(&questions, self.config.isolation).await?;
        Ok(UntilEnd { consumer: self, ends: ids.into_iter().zip(ends).collect() })
    }

    /// Waits for one thing to happen; a batch if that was it. Cancel safe: what was taken from the queue has been
    /// dealt with when it is returned, and a reset that was begun is begun again.
    async fn step(&mut self) -> Result<Option<Batch>> {
        self.reset_positions().await?;
        let item = self.items.recv().await.ok_or(Error::Closed("the client"))?;
        self.take(item)
    }

    fn take_ready(&mut self) -> Result<Option<Batch>> {
        loop {
            match self.items.try_recv() {
                Ok(item) => {
                    if let Some(batch) = self.take(item)? {
                        return Ok(Some(batch));
                    }
                }
                Err(TryRecvError::Empty) => return Ok(None),
                Err(TryRecvError::Disconnected) => return Err(Error::Closed("the client")),
            }
        }
    }

    fn take(&mut self, item: Item) -> Result<Option<Batch>> {
        match item {
            Item::Delivery { broker, delivery } => {
                let (bytes, records) = fetcher::size(&delivery);
                let _gone = self.commands.send(Event::Taken { broker, bytes, records });
                let id = delivery.subscription_id;
                let Some(assigned) = self.partitions.get_mut(&id) else { return Ok(None) };
                let at = &mut assigned.wanted;
                if at.generation != delivery.generation || assigned.stopped {
                    return Ok(None);
                }
                let high_watermark = delivery.high_watermark;
                let after = at.after_delivery(&delivery);
                match Batch::open(&at.topic, at.partition, at.offset, delivery, &mut self.decompressor) {
                    Ok(batch) => {
                        (at.offset, at.leader_epoch) = after;
                        assigned.learn_end(high_watermark);
                        assigned.suspects = Suspects::default();
                        Ok(batch)
                    }
                    Err(error) => {
                        // What came behind it is of no use.
                        at.generation += 1;
                        let _gone = self.commands.send(Event::Release(id));
                        let again = assigned.suspects.note(&self.inner, error);
                        assigned.stopped = again.is_err();
                        suspect::look(&self.inner, at, self.config.isolation, again?, self.looked.clone());
                        Ok(None)
                    }
                }
            }
            Item::Progress { id, generation, next_offset, leader_epoch, high_watermark } => {
                let assigned = self.partitions.get_mut(&id);
                if let Some(assigned) =
                    assigned.filter(|it| it.wanted.generation == generation && !it.stopped)
                {
                    let at = &mut assigned.wanted;
                    (at.offset, at.leader_epoch) = at.after(next_offset, leader_epoch, None);
                    assigned.learn_end(high_watermark);
                }
                Ok(None)
            }
            Item::Looked { id, generation, said } => {
                let assigned = self.partitions.get_mut(&id);
                let is_it = |it: &&mut Assigned| it.wanted.generation == generation && !it.stopped;
                let Some(assigned) = assigned.filter(is_it) else { return Ok(None) };
                if let Some(error) = said.filter(|said| said.is(ErrorReason::PartitionDamaged)) {
                    assigned.stopped = true;
                    return Err(error);
                }
                assigned.wanted.generation += 1;
                let _gone = self.commands.send(Event::Again(assigned.wanted.clone()));
                Ok(None)
            }
            Item::Failed { id, generation, error } => {
                let assigned = self.partitions.get_mut(&id);
                let Some(assigned) = assigned.filter(|it| it.wanted.generation == generation) else {
                    return Ok(None);
                };
                let reset = match error.reason() {
                    Some(ErrorReason::OffsetOutOfRange) => self.config.out_of_range,
                    Some(ErrorReason::LogTruncated) => self.config.truncated,
                    _ => Reset::Error,
                };
                assigned.reset = match reset {
                    Reset::Error => {
                        self.stop(id);
                        return Err(error);
                    }
                    Reset::Earliest => Some(Position::Earliest),
                    Reset::Latest => Some(Position::Latest),
                };
                tracing::warn!(topic = %assigned.wanted.topic, partition = assigned.wanted.partition,
                    offset = assigned.wanted.offset, to = ?reset, %error, "a position is reset");
                Ok(None)
            }
        }
    }

    async fn reset_positions(&mut self) -> Result<()> {
        let lost = |(id, assigned): (&i64, &Assigned)| {
            let at = &assigned.wanted;
            assigned.reset.map(|position| (*id, Arc::clone(&at.topic), at.partition, position))
        };
        while let Some((id, topic, partition, position)) = self.partitions.iter().find_map(lost) {
            let offset = self.resolve(&topic, partition, position).await?;
            self.change(id, |at| {
                at.offset = offset;
                at.leader_epoch = None;
            });
        }
        Ok(())
    }

    async fn resolve(&self, topic: &str, partition: i32, position: Position) -> Result<i64> {
        let questions = [(topic.to_owned(), partition, position)];
        let offsets = self.inner.resolve(&questions, self.config.isolation).await?;
        offsets.first().copied().ok_or_else(|| Error::invalid("ListOffsets gave no answer; is this Weir?"))
    }

    /// Changes what is wanted of a partition: a new generation, which what was fetched ahead is not part of.
    fn change(&mut self, id: i64, change: impl FnOnce(&mut Wanted)) {
        let Some(assigned) = self.partitions.get_mut(&id) else { return };
        change(&mut assigned.wanted);
        assigned.wanted.generation += 1;
        assigned.reset = None;
        assigned.stopped = false;
        let wanted = assigned.wanted.clone();
        self.want(&wanted);
    }

    fn want(&self, wanted: &Wanted) {
        let _gone = self.commands.send(Event::Want(wanted.clone()));
    }

    fn stop(&mut self, id: i64) {
        if let Some(assigned) = self.partitions.get_mut(&id) {
            assigned.stopped = true;
        }
    }

    fn id(&self, topic: &str, partition: i32) -> Option<i64> {
        self.ids.get(topic)?.get(&partition).copied()
    }

    fn assigned(&self, topic: &str, partition: i32) -> Result<i64> {
        self.id(topic, partition)
            .ok_or_else(|| Error::invalid(format!("{topic}/{partition} is not assigned to this consumer")))
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        let _gone = self.commands.send(Event::Close);
    }
}

impl fmt::Debug for Consumer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Consumer").field("positions", &self.positions()).finish_non_exhaustive()
    }
}

/// Reads up to the ends as they were. From [`Consumer::until_end`].
#[derive(Debug)]
pub struct UntilEnd<'a> {
    consumer: &'a mut Consumer,
    ends: Vec<(i64, i64)>,
}

impl UntilEnd<'_> {
    /// The next batch; `None` once every partition has reached its end.
    ///
    /// # Errors
    /// As [`Consumer::poll`]. A partition that failed is not waited for any more.
    pub async fn next(&mut self) -> Result<Option<Batch>> {
        loop {
            let partitions = &self.consumer.partitions;
            self.ends.retain(|(id, end)| {
                partitions.get(id).is_some_and(|at| at.wanted.offset < *end && !at.stopped)
            });
            if self.ends.is_empty() {
                return Ok(None);
            }
            if let Some(batch) = self.consumer.step().await? {
                return Ok(Some(batch));
            }
        }
    }
}
