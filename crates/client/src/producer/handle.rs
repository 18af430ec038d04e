//! [`Producer`]: what the caller holds.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::{mpsc, oneshot};
use weir_record::Batch;

use super::buffer::{Added, Buffer, ClosedBatches, Place, ReadyAdded};
use super::compress::Pool;
use super::config::{Acks, Floor, ProducerConfig};
use super::parcel::Wishes;
use super::receipt::{Delivery, Receipt};
use super::sender::{Event, Sender, parcel};
use crate::client::{Client, Inner};
use crate::hindrance::Hindrances;
use crate::record::Record;
use crate::{Error, Result};

/// Sends records. Cheap to clone; the clones share batches and memory. From [`Client::producer`].
///
/// When the last clone is dropped, what was sent is still delivered as long as the process lives; to know how it
/// ended, [`Producer::flush`] or [`Producer::close`] before.
///
/// ```
/// use weir_client::{Client, Codec, NewTopic, ProducerConfig};
///
/// # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/doc/server.rs"));
/// # fn main() { serve(|address| Box::pin(example(address))) }
/// # async fn example(address: String) -> Result<(), weir_client::Error> {
/// # let client = Client::connect(&address).await?;
/// client.topics().create(NewTopic::new("lines")).await?;
/// let producer = client.producer(ProducerConfig::new().compression(Codec::Zstd))?;
/// for i in 0..10_000 {
///     // Whoever does not need every receipt may drop it: flush tells if anything went wrong.
///     let _receipt = producer.send("lines", format!("line {i}").as_str()).await?;
/// }
/// producer.flush().await?;
/// assert_eq!(client.offsets().latest("lines", 0).await?, 10_000);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Producer {
    shared: Arc<Shared>,
}

struct Shared {
    inner: Arc<Inner>,
    config: ProducerConfig,
    buffer: Arc<Buffer>,
    pool: Arc<Pool>,
    events: mpsc::UnboundedSender<Event>,
    totals: Arc<Counters>,
    hindrances: Arc<Hindrances<Place>>,
}

/// What a producer has packed so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Batches.
    pub batches: u64,
    /// Their bytes before compression.
    pub uncompressed_bytes: u64,
    /// Their bytes as they are sent, each counted once.
    pub bytes: u64,
}

#[derive(Debug, Default)]
struct Counters {
    batches: AtomicU64,
    uncompressed_bytes: AtomicU64,
    bytes: AtomicU64,
}

impl Counters {
    fn note(&self, batch: &Batch) {
        self.batches.fetch_add(1, Ordering::Relaxed);
        self.uncompressed_bytes
            .fetch_add(u64::from(batch.uncompressed_bytes.unsigned_abs()), Ordering::Relaxed);
        self.bytes.fetch_add(batch.payload.len() as u64, Ordering::Relaxed);
    }
}

/// What a single batch asks for beyond the producer's settings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AppendOptions {
    /// When it counts as sent; `None`: as the producer has it.
    pub acks: Option<Acks>,
    /// What it must have reached; `None`: as the producer has it.
    pub floor: Option<Floor>,
    /// Append only if this is the partition's next offset; OFFSET_MISMATCH otherwise.
    pub expected_next_offset: Option<i64>,
}

impl Client {
    /// A producer.
    ///
    /// # Errors
    /// [`Error::Invalid`] for settings that cannot be.
    pub fn producer(&self, config: ProducerConfig) -> Result<Producer> {
        config.check()?;
        let inner = Arc::clone(&self.inner);
        let buffer = Arc::new(Buffer::new(config.clone(), Arc::clone(&inner.os)));
        let (events, incoming) = mpsc::unbounded_channel();
        let sink = events.clone();
        let totals = Arc::new(Counters::default());
        let (counters, spare) = (Arc::clone(&totals), Arc::clone(&buffer));
        let deliver = move |closed: super::buffer::Closed, batch: Result<Batch, weir_record::Error>| {
            let super::buffer::Closed { place, number, topic_id, packed, ticket, deadline } = closed;
            // Of use again only where compression has put the records elsewhere.
            spare.recycle(packed.into_set());
            let parcel = match batch {
                Ok(batch) => {
                    counters.note(&batch);
                    Ok(parcel(batch, topic_id, Wishes::default(), ticket, deadline))
                }
                Err(e) => Err((ticket, Error::invalid(e.to_string()))),
            };
            let _closed = sink.send(Event::Batch { place, number, parcel });
        };
        let pool = Pool::new(Arc::clone(&inner.os), config.codec, config.level, Box::new(deliver));
        let hindrances = Arc::new(Hindrances::default());
        let sender = Sender::new(
            Arc::clone(&inner),
            config.clone(),
            Arc::clone(&buffer),
            Arc::clone(&pool),
            events.clone(),
            Arc::clone(&hindrances),
        );
        inner.io.spawn(sender.run(incoming));
        let shared = Shared { inner, config, buffer, pool, events, totals, hindrances };
        Ok(Producer { shared: Arc::new(shared) })
    }
}

impl Producer {
    /// Sends a record: packs it into its partition's batch, and waits only if there is no room for it or its topic
    /// is new. The receipt says, when awaited, what became of it.
    ///
    /// Dropping this future before it is ready sends nothing.
    ///
    /// # Errors
    /// TOPIC_NOT_FOUND, [`Error::RecordTooLarge`], [`Error::Invalid`] for a partition that does not exist,
    /// [`Error::Closed`]. What goes wrong later is in the receipt.
    pub async fn send<'a>(&self, topic: &str, record: impl Into<Record<'a>>) -> Result<Receipt> {
        let record = record.into();
        loop {
            match self.add(topic, &record)? {
                Added::Yes(receipt) => return Ok(receipt),
                Added::TopicUnknown => self.look_up(topic).await?,
                Added::Full(_) => {
                    // Listen first, then look again: what is freed in between is not missed.
                    let room = self.shared.buffer.room.notified();
                    tokio::pin!(room);
                    room.as_mut().enable();
                    if self.shared.buffer.is_idle() {
                        self.close_all();
                    }
                    match self.add(topic, &record)? {
                        Added::Yes(receipt) => return Ok(receipt),
                        Added::TopicUnknown => {}
                        Added::Full(_) => room.await,
                    }
                }
            }
        }
    }

    /// Sends a record, or not, without waiting.
    ///
    /// # Errors
    /// [`Error::BufferFull`] if there is no room, [`Error::Invalid`] if the topic was never looked up (by
    /// [`Producer::send`] or [`Producer::look_up`]), and those of [`Producer::send`].
    pub fn try_send<'a>(&self, topic: &str, record: impl Into<Record<'a>>) -> Result<Receipt> {
        match self.add(topic, &record.into())? {
            Added::Yes(receipt) => Ok(receipt),
            Added::Full(used) => {
                if self.shared.buffer.is_idle() {
                    self.close_all();
                }
                Err(Error::BufferFull { used, limit: self.shared.config.buffer_bytes_max })
            }
            Added::TopicUnknown => Err(Error::invalid(format!(
                "topic \"{topic}\" must be looked up before try_send can take it"
            ))),
        }
    }

    /// Learns where a topic's partitions are, so that the first record for it does not have to wait.
    ///
    /// # Errors
    /// TOPIC_NOT_FOUND, and those of every call.
    pub async fn look_up(&self, topic: &str) -> Result<()> {
        let inner = &self.shared.inner;
        let known = inner.look_up_topic(topic).await?;
        // Batches larger than the topic allows would only come back. Not to know the limit is no reason to fail.
        let described = Client { inner: Arc::clone(inner) }.topics().get(topic).await.ok();
        let limit = described.and_then(|described| {
            let value = described.effective.iter().find(|value| value.name == "batch_bytes_max")?;
            value.value.parse().ok()
        });
        let mut closed = ClosedBatches::new();
        self.shared.buffer.learn(&known, limit, &mut closed);
        self.submit(closed);
        Ok(())
    }

    /// Sends a batch that the caller packed, after everything sent to its partition before.
    ///
    /// ```
    /// use weir_client::{AppendOptions, BatchBuilder, Client, Codec, ErrorReason, NO_HEADERS, NewTopic, ProducerConfig};
    ///
    /// # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/doc/server.rs"));
    /// # fn main() { serve(|address| Box::pin(example(address))) }
    /// # async fn example(address: String) -> Result<(), weir_client::Error> {
    /// # let client = Client::connect(&address).await?;
    /// # client.topics().create(NewTopic::new("register")).await?;
    /// let producer = client.producer(ProducerConfig::new())?;
    /// let mut builder = BatchBuilder::new();
    /// builder.push(1_700_000_000_000, Some(b"owner"), Some(b"me"), NO_HEADERS).expect("it fits");
    /// let batch = builder.finish(Codec::None).expect("it is not empty");
    /// // Only if nobody has written since: a compare-and-set on the end of the log.
    /// let first = AppendOptions { expected_next_offset: Some(0), ..Default::default() };
    /// producer.send_batch("register", 0, batch.clone(), first).await?.await?;
    /// let late = producer.send_batch("register", 0, batch, first).await?.await.unwrap_err();
    /// assert_eq!(late.reason(), Some(ErrorReason::OffsetMismatch));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Producer::send`].
    pub async fn send_batch(
        &self,
        topic: &str,
        partition: i32,
        batch: Batch,
        options: AppendOptions,
    ) -> Result<Receipt> {
        if options.acks.is_some_and(|acks| acks != Acks::All) && self.shared.config.idempotent() {
            return Err(Error::invalid("an idempotent producer needs acks all"));
        }
        loop {
            let room = self.shared.buffer.room.notified();
            tokio::pin!(room);
            room.as_mut().enable();
            let mut closed = ClosedBatches::new();
            let added = self.shared.buffer.add_ready(topic, partition, batch.payload.len(), &mut closed);
            self.submit(closed);
            match added? {
                ReadyAdded::Yes { place, number, topic_id, ticket, deadline } => {
                    let AppendOptions { acks, floor, expected_next_offset } = options;
                    let wishes = Wishes { acks, floor, expected_next_offset };
                    let receipt = Receipt::new(Arc::clone(&ticket), 0);
                    let parcel = Ok(parcel(batch, topic_id, wishes, ticket, deadline));
                    let _closed = self.shared.events.send(Event::Batch { place, number, parcel });
                    return Ok(receipt);
                }
                ReadyAdded::TopicUnknown => self.look_up(topic).await?,
                ReadyAdded::Full => {
                    if self.shared.buffer.is_idle() {
                        self.close_all();
                    }
                    room.await;
                }
            }
        }
    }

    /// Sends what was gathered, and waits until everything sent before has its result.
    ///
    /// # Errors
    /// The first failure among those results; the receipts have them all.
    pub async fn flush(&self) -> Result<()> {
        let mut failure = Ok(());
        for ticket in self.close_all() {
            let result: Result<Delivery> = Receipt::new(ticket, 0).await;
            failure = failure.and(result.map(drop));
        }
        failure
    }

    /// Takes no more records, sends what was gathered, waits for all results, and ends.
    ///
    /// # Errors
    /// As [`Producer::flush`].
    pub async fn close(&self) -> Result<()> {
        self.shared.buffer.close();
        let result = self.flush().await;
        let (done, closed) = oneshot::channel();
        if self.shared.events.send(Event::Close(done)).is_ok() {
            // An error means that somebody else closed it at the same time.
            let _closed_already = closed.await;
        }
        result
    }

    /// Why records wait: what the last attempt to send failed with, as long as it is tried again; or whom the leader waits for
    /// that has not acknowledged them for a second; `None` if nothing is known to be in the way. For telling people: receipts that fail say it themselves.
    pub fn hindrance(&self) -> Option<Error> {
        self.shared.hindrances.any().or_else(|| self.shared.inner.trying_again())
    }

    /// What has been packed so far of records that were sent one by one.
    pub fn totals(&self) -> Totals {
        let Counters { batches, uncompressed_bytes, bytes } = &*self.shared.totals;
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Totals { batches: read(batches), uncompressed_bytes: read(uncompressed_bytes), bytes: read(bytes) }
    }

    fn add(&self, topic: &str, record: &Record<'_>) -> Result<Added> {
        let mut closed = ClosedBatches::new();
        let added = self.shared.buffer.add(topic, record, &mut closed);
        if !closed.is_empty() {
            self.submit(closed);
        }
        let (added, lingers) = added?;
        if lingers {
            let _closed = self.shared.events.send(Event::Lingers);
        }
        Ok(added)
    }

    fn close_all(&self) -> Vec<Arc<super::receipt::Ticket>> {
        let mut closed = ClosedBatches::new();
        let tickets = self.shared.buffer.flush(&mut closed);
        self.submit(closed);
        tickets
    }

    fn submit(&self, closed: ClosedBatches) {
        closed.into_iter().for_each(|batch| self.shared.pool.submit(batch));
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // Nobody will flush any more: send what was gathered, and let the task end when all is done.
        self.buffer.close();
        let mut closed = ClosedBatches::new();
        self.buffer.flush(&mut closed);
        closed.into_iter().for_each(|batch| self.pool.submit(batch));
        let (done, _) = oneshot::channel();
        let _closed_already = self.events.send(Event::Close(done));
    }
}

impl fmt::Debug for Producer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Producer").field("config", &self.shared.config).finish_non_exhaustive()
    }
}
