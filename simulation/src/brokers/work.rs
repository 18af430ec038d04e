//! Clients that write and read, and note down what they are told and see.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use parking_lot::Mutex;
use tokio::task::JoinSet;
use tokio::time::sleep;
use weir_client::{
    Applied, Batch, Client, ConsumerConfig, Delivery, Error, NewTopic, Position, ProducerConfig, Record,
};
use weir_runtime::Os;
use weir_tests::history::{Claim, History, Mark, Place, Promise, Reading};

/// The topic.
const TOPIC: &str = "simulated";
/// A record that is not acknowledged by then may be there or not.
const DELIVERY: Duration = Duration::from_secs(10);
/// Between two bursts of records, at most, in milliseconds.
const PAUSE_MS_MAX: u64 = 60;
/// Records in a burst, at most.
const BURST_MAX: u64 = 8;
/// A poll waits so long.
const POLL: Duration = Duration::from_millis(500);
/// Before something is tried again.
const AGAIN: Duration = Duration::from_millis(300);

/// What all clients share with the simulation.
pub(super) struct Work {
    pub(super) brokers: String,
    pub(super) partitions: i32,
    pub(super) replicas: i32,
    pub(super) min_insync: i32,
    pub(super) history: Mutex<History>,
    pub(super) readings: Mutex<Vec<Reading>>,
    /// The topic is made.
    pub(super) ready: AtomicBool,
    /// Nothing more is to be begun.
    pub(super) over: AtomicBool,
    /// Writers and readers that have not come to their end.
    pub(super) busy: AtomicUsize,
    /// Everything is to be read from its beginning.
    pub(super) settled: AtomicBool,
    /// It was.
    pub(super) read: AtomicBool,
}

impl Work {
    fn promise(&self) -> Promise {
        Promise { replicas: self.replicas, min_insync: self.min_insync, on_disk: true }
    }

    fn place(&self, partition: i32) -> Place {
        Place { topic: TOPIC.to_owned(), partition }
    }

    async fn connect(&self, os: &Arc<dyn Os>) -> Client {
        loop {
            match Client::builder().os(os.clone()).on_current_runtime().connect(&self.brokers).await {
                Ok(client) => return client,
                Err(error) => tracing::info!("cannot connect yet: {error}"),
            }
            sleep(AGAIN).await;
        }
    }

    /// Makes the topic.
    pub(super) async fn prepare(self: Arc<Self>, os: Arc<dyn Os>) -> Result<()> {
        let client = self.connect(&os).await;
        loop {
            let topic = NewTopic::new(TOPIC)
                .partitions(self.partitions)
                .replication_factor(self.replicas)
                .config("min_insync_replicas", self.min_insync.to_string())
                .if_absent();
            match client.topics().create(topic).await {
                Ok(_) => break,
                Err(error) => tracing::info!("no topic yet: {error}"),
            }
            sleep(AGAIN).await;
        }
        self.ready.store(true, Ordering::SeqCst);
        std::future::pending().await
    }

    async fn begin(&self) {
        while !self.ready.load(Ordering::SeqCst) {
            sleep(AGAIN).await;
        }
    }

    /// Writes until it is over.
    pub(super) async fn write(self: Arc<Self>, os: Arc<dyn Os>, writer: u32) -> Result<()> {
        self.busy.fetch_add(1, Ordering::SeqCst);
        self.begin().await;
        let client = self.connect(&os).await;
        let producer = client.producer(ProducerConfig::new().delivery_timeout(DELIVERY))?;
        let mut receipts = JoinSet::new();
        let mut number = 0;
        while !self.over.load(Ordering::SeqCst) {
            for _ in 0..=os.random_u64() % BURST_MAX {
                let partition = (os.random_u64() % self.partitions.unsigned_abs() as u64) as i32;
                let mark = Mark { writer, number };
                number += 1;
                self.history.lock().sent(mark, &self.place(partition));
                let value = mark.value();
                match producer.send(TOPIC, Record::new(&value).partition(partition)).await {
                    Ok(receipt) => {
                        let this = self.clone();
                        receipts.spawn(async move { this.told(mark, receipt.await) });
                    }
                    Err(error) => self.told(mark, Err(error))?,
                }
            }
            while let Some(told) = receipts.try_join_next() {
                told??;
            }
            sleep(Duration::from_millis(os.random_u64() % PAUSE_MS_MAX)).await;
        }
        while let Some(told) = receipts.join_next().await {
            told??;
        }
        self.busy.fetch_sub(1, Ordering::SeqCst);
        std::future::pending().await
    }

    /// A writer is told what became of a record.
    fn told(&self, mark: Mark, outcome: Result<Delivery, Error>) -> Result<()> {
        let mut history = self.history.lock();
        match outcome {
            Ok(delivery) => {
                let Delivery { offset, committed, duplicate, .. } = delivery;
                let claim = Claim {
                    committed,
                    duplicate,
                    written: delivery.replicas_written,
                    flushed: delivery.replicas_flushed,
                    zones: delivery.zones,
                };
                claim.check(self.promise()).with_context(|| format!("{mark:?}"))?;
                let Some(offset) = offset else { bail!("{mark:?}: a receipt without an offset") };
                history.acknowledged(mark, offset)
            }
            Err(error) if error.applied() == Applied::No => {
                tracing::info!(?mark, "refused: {error}");
                history.refused(mark)
            }
            Err(error) => {
                tracing::info!(?mark, "unknown: {error}");
                Ok(())
            }
        }
    }

    /// Reads along until it is over.
    pub(super) async fn follow(self: Arc<Self>, os: Arc<dyn Os>) -> Result<()> {
        self.busy.fetch_add(1, Ordering::SeqCst);
        self.begin().await;
        let client = self.connect(&os).await;
        let mut consumer = client.consumer(ConsumerConfig::new())?;
        while let Err(error) = consumer.assign_topic(TOPIC, Position::Earliest).await {
            tracing::info!("nothing assigned yet: {error}");
            sleep(AGAIN).await;
        }
        let mut seen = Seen::default();
        while !self.over.load(Ordering::SeqCst) {
            if let Some(batch) = consumer.poll(POLL).await? {
                seen.add(&batch)?;
            }
        }
        self.readings.lock().extend(seen.readings(&self));
        self.busy.fetch_sub(1, Ordering::SeqCst);
        std::future::pending().await
    }

    /// Reads everything from its beginning, once nobody writes any more.
    pub(super) async fn read_all(self: Arc<Self>, os: Arc<dyn Os>) -> Result<()> {
        while !self.settled.load(Ordering::SeqCst) {
            sleep(AGAIN).await;
        }
        let client = self.connect(&os).await;
        loop {
            match self.try_read_all(&client).await {
                Ok(seen) => {
                    self.readings.lock().extend(seen.readings(&self));
                    self.read.store(true, Ordering::SeqCst);
                    return std::future::pending().await;
                }
                Err(error) => tracing::info!("not everything can be read yet: {error:#}"),
            }
            sleep(AGAIN).await;
        }
    }

    async fn try_read_all(&self, client: &Client) -> Result<Seen> {
        let mut consumer = client.consumer(ConsumerConfig::new())?;
        consumer.assign_topic(TOPIC, Position::Earliest).await?;
        let mut seen = Seen::default();
        let mut until_end = consumer.until_end().await?;
        while let Some(batch) = until_end.next().await? {
            seen.add(&batch)?;
        }
        Ok(seen)
    }
}

/// What a reader got, by partition.
#[derive(Default)]
struct Seen(BTreeMap<i32, Partition>);

/// What was committed at the last poll, and the records of each.
type Partition = (i64, Vec<Vec<(i64, Vec<u8>)>>);

impl Seen {
    fn add(&mut self, batch: &Batch) -> Result<()> {
        let mut poll = Vec::new();
        for record in batch {
            let record = record?;
            // A leader that has just begun does not say how far it is.
            let end = batch.high_watermark().unwrap_or(i64::MAX);
            ensure!(
                record.offset < end,
                "{}@{} was read, and {end} was the end of what is committed",
                batch.partition(),
                record.offset,
            );
            poll.push((record.offset, record.value.unwrap_or_default().to_vec()));
        }
        let (high_watermark, polls) = self.0.entry(batch.partition()).or_default();
        *high_watermark = batch.high_watermark().unwrap_or(batch.next_offset()).max(*high_watermark);
        polls.push(poll);
        Ok(())
    }

    fn readings(self, work: &Work) -> Vec<Reading> {
        let reading = |(partition, (high_watermark, polls))| Reading {
            place: work.place(partition),
            high_watermark,
            polls,
        };
        self.0.into_iter().map(reading).collect()
    }
}
