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
    Applied, Batch, Client, ConsumerConfig, Delivery, Error, Position, ProducerConfig, Record, TopicChange,
};
use weir_proto::v1::ErrorReason;
use weir_runtime::Os;
use weir_tests::history::{Claim, History, Mark, Place, Promise, Reading, Register};

use super::epochs::Epochs;
use super::only_the_old_goes::Ages;
use super::readers_are_told::{self, Stretch};
use super::receipts_are_true::Receipts;
use super::subject::Subject;
use crate::life::Machine;
use crate::world::world;

/// A record that is not acknowledged by then may be there or not.
pub(super) const DELIVERY: Duration = Duration::from_secs(10);
/// Between two bursts of records, at most, in milliseconds.
const PAUSE_MS_MAX: u64 = 60;
/// Records in a burst, at most.
const BURST_MAX: u64 = 8;
/// A poll waits so long.
const POLL: Duration = Duration::from_millis(500);
/// Between two looks through everything, at most, in milliseconds.
const LOOK_MS_MAX: u64 = 3_000;
/// Before something is tried again.
const AGAIN: Duration = Duration::from_millis(300);

/// What all clients share with the simulation.
pub(super) struct Work {
    pub(super) brokers: String,
    machines: Vec<Arc<Machine>>,
    pub(super) subjects: Vec<Subject>,
    pub(super) history: Mutex<History>,
    /// What was asked and told of the partition that is written with conditions alone, if there is one.
    pub(super) register: Mutex<Register>,
    pub(super) readings: Mutex<Vec<Reading>>,
    /// What those got who read along, from one thing that they were told to the next.
    pub(super) stretches: Mutex<Vec<Stretch>>,
    pub(super) ages: Mutex<Ages>,
    pub(super) epochs: Mutex<Epochs>,
    pub(super) receipts: Mutex<Receipts>,
    /// The topics are made.
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
    /// About these topics, with the brokers of these machines, found here.
    pub(super) fn new(brokers: String, subjects: Vec<Subject>, machines: &[Arc<Machine>]) -> Self {
        Self {
            brokers,
            machines: machines.to_vec(),
            subjects,
            history: Default::default(),
            register: Default::default(),
            readings: Default::default(),
            stretches: Default::default(),
            ages: Mutex::new(Ages::new(machines)),
            epochs: Default::default(),
            receipts: Mutex::new(Receipts::new(machines)),
            ready: Default::default(),
            over: Default::default(),
            busy: Default::default(),
            settled: Default::default(),
            read: Default::default(),
        }
    }

    /// One of the topics that everybody writes, asks for and changes.
    pub(super) fn any_subject(&self, os: &dyn Os) -> &Subject {
        let shared = || self.subjects.iter().filter(|subject| !subject.conditional);
        let at = os.random_u64() as usize % shared().count().max(1);
        shared().nth(at).expect("there is a topic")
    }

    pub(super) async fn connect(&self, os: &Arc<dyn Os>) -> Client {
        loop {
            match Client::builder().os(os.clone()).on_current_runtime().connect(&self.brokers).await {
                Ok(client) => return client,
                Err(error) => tracing::info!("cannot connect yet: {error}"),
            }
            sleep(AGAIN).await;
        }
    }

    /// Makes the topics. Once nobody writes any more, what is left of them is kept to be read.
    pub(super) async fn prepare(self: Arc<Self>, os: Arc<dyn Os>) -> Result<()> {
        let client = self.connect(&os).await;
        for subject in &self.subjects {
            while let Err(error) = client.topics().create(subject.to_make()).await {
                tracing::info!("no topic yet: {error}");
                sleep(AGAIN).await;
            }
        }
        self.busy.fetch_add(1, Ordering::SeqCst);
        self.ready.store(true, Ordering::SeqCst);
        for subject in self.subjects.iter().filter(|subject| subject.retention_ms.is_some()) {
            while !self.over.load(Ordering::SeqCst) {
                sleep(AGAIN).await;
            }
            let kept = || TopicChange::new().set("retention_ms", "unlimited");
            while let Err(error) = client.topics().update(subject.name, kept()).await {
                tracing::info!("the rest is not kept yet: {error}");
                sleep(AGAIN).await;
            }
        }
        self.busy.fetch_sub(1, Ordering::SeqCst);
        std::future::pending().await
    }

    pub(super) async fn begin(&self) {
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
                let subject = self.any_subject(&*os);
                let partition = subject.any_partition(&*os);
                let mark = Mark { writer, number };
                number += 1;
                self.history.lock().sent(mark, &subject.place(partition));
                let value = mark.value();
                let sent = Sent {
                    mark,
                    place: subject.place(partition),
                    at_us: world().now_us(),
                    at_ms: os.wall_ms(),
                    promise: subject.promise(),
                };
                match producer.send(subject.name, Record::new(&value).partition(partition)).await {
                    Ok(receipt) => {
                        let this = self.clone();
                        receipts.spawn(async move { this.told(&sent, receipt.await) });
                    }
                    Err(error) => self.told(&sent, Err(error))?,
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
    pub(super) fn told(&self, sent: &Sent, outcome: Result<Delivery, Error>) -> Result<()> {
        let Sent { mark, promise, at_us, .. } = *sent;
        let mut history = self.history.lock();
        match outcome {
            Ok(delivery) => {
                let Delivery { offset, leader_epoch, committed, duplicate, .. } = delivery;
                let claim = Claim {
                    committed,
                    duplicate,
                    written: delivery.replicas_written,
                    flushed: delivery.replicas_flushed,
                    zones: delivery.zones,
                };
                claim.check(promise).with_context(|| format!("{mark:?}"))?;
                let Some(offset) = offset else { bail!("{mark:?}: a receipt without an offset") };
                if !self.ages_in(&sent.place) && !history.may_be_gone(&sent.place, offset) {
                    let told = self.receipts.lock().told(&sent.place, offset, claim, at_us);
                    told.with_context(|| format!("{mark:?}"))?;
                }
                self.ages.lock().acknowledged(&sent.place, offset, sent.at_ms);
                self.epochs.lock().told(mark, leader_epoch);
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

    /// Whether records are deleted there by their age.
    fn ages_in(&self, place: &Place) -> bool {
        self.subjects.iter().any(|subject| subject.name == place.topic && subject.retention_ms.is_some())
    }

    /// Reads along until it is over.
    pub(super) async fn follow(self: Arc<Self>, os: Arc<dyn Os>) -> Result<()> {
        self.busy.fetch_add(1, Ordering::SeqCst);
        self.begin().await;
        let client = self.connect(&os).await;
        let mut consumer = client.consumer(ConsumerConfig::new())?;
        for subject in &self.subjects {
            while let Err(error) = consumer.assign_topic(subject.name, Position::Earliest).await {
                tracing::info!("nothing assigned yet: {error}");
                sleep(AGAIN).await;
            }
        }
        let mut seen = Seen::default();
        // Where it was told to go on, what was to be read next having gone.
        let mut from = BTreeMap::new();
        while !self.over.load(Ordering::SeqCst) {
            match consumer.poll(POLL).await {
                Ok(None) => {}
                Ok(Some(batch)) => seen.add(&batch)?,
                // Nobody else is in sync: so it is until somebody is.
                Err(error) if self.may_rot() && error.reason() == Some(ErrorReason::PartitionDamaged) => {
                    tracing::info!("a reader waits: {error}");
                    sleep(AGAIN).await;
                }
                Err(error) => {
                    let (place, start) = readers_are_told::told(&error)?;
                    tracing::info!("{place} is told: {error}");
                    let subject = self.subjects.iter().find(|subject| subject.name == place.topic);
                    self.begins(subject.context("a topic of ours")?, place.partition, start, os.wall_ms())?;
                    self.read_so_far(seen.take(&place), &from);
                    consumer.seek(&place.topic, place.partition, Position::Offset(start)).await?;
                    from.insert(place, start);
                }
            }
        }
        self.read_so_far(seen, &from);
        self.busy.fetch_sub(1, Ordering::SeqCst);
        std::future::pending().await
    }

    /// What a reader got, having been told before where to go on.
    fn read_so_far(&self, seen: Seen, from: &BTreeMap<Place, i64>) {
        let stretch = |reading: Reading| Stretch { from: from.get(&reading.place).copied(), reading };
        self.stretches.lock().extend(seen.readings().into_iter().map(stretch));
    }

    /// Reads everything from its beginning, again and again, until it is over: what is damaged is found by those who read it.
    pub(super) async fn look_through(self: Arc<Self>, os: Arc<dyn Os>) -> Result<()> {
        self.busy.fetch_add(1, Ordering::SeqCst);
        self.begin().await;
        let client = self.connect(&os).await;
        while !self.over.load(Ordering::SeqCst) {
            match self.try_read_all(&client).await {
                Ok(seen) => self.read_so_far(seen, &BTreeMap::new()),
                Err(error) => tracing::info!("not everything can be looked through: {error:#}"),
            }
            sleep(Duration::from_millis(os.random_u64() % LOOK_MS_MAX)).await;
        }
        self.busy.fetch_sub(1, Ordering::SeqCst);
        std::future::pending().await
    }

    /// Whether a disk has changed what it held.
    fn may_rot(&self) -> bool {
        self.machines.iter().any(|machine| machine.has_rotted())
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
                    self.readings.lock().extend(seen.readings());
                    for subject in self.subjects.iter().filter(|subject| subject.retention_ms.is_some()) {
                        for partition in 0..subject.partitions() {
                            // It may have gone before it was read.
                            while !self.ask_for_the_beginning(&*os, &client, subject, partition).await? {
                                sleep(AGAIN).await;
                            }
                        }
                    }
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
        for subject in &self.subjects {
            consumer.assign_topic(subject.name, Position::Earliest).await?;
        }
        let mut seen = Seen::default();
        let mut until_end = consumer.until_end().await?;
        while let Some(batch) = until_end.next().await? {
            self.epochs.lock().read(&batch)?;
            seen.add(&batch)?;
        }
        Ok(seen)
    }
}

/// A record that was sent.
#[derive(Clone, Debug)]
pub(super) struct Sent {
    pub(super) mark: Mark,
    pub(super) place: Place,
    /// When, in microseconds since the simulation began; and by the clock of its writer.
    pub(super) at_us: u64,
    pub(super) at_ms: i64,
    pub(super) promise: Promise,
}

/// What a reader got, by partition.
#[derive(Default)]
pub(super) struct Seen(BTreeMap<Place, Partition>);

/// What was committed at the last poll, and the records of each.
type Partition = (i64, Vec<Vec<(i64, Vec<u8>)>>);

impl Seen {
    /// What it got of one partition.
    pub(super) fn take(&mut self, place: &Place) -> Self {
        Self(self.0.remove_entry(place).into_iter().collect())
    }

    pub(super) fn add(&mut self, batch: &Batch) -> Result<()> {
        let mut poll = Vec::new();
        let place = Place { topic: batch.topic().to_owned(), partition: batch.partition() };
        for record in batch {
            let record = record?;
            // A leader that has just begun does not say how far it is.
            let end = batch.high_watermark().unwrap_or(i64::MAX);
            ensure!(
                record.offset < end,
                "{place}@{} was read, and {end} was the end of what is committed",
                record.offset,
            );
            poll.push((record.offset, record.value.unwrap_or_default().to_vec()));
        }
        let (high_watermark, polls) = self.0.entry(place).or_default();
        *high_watermark = batch.high_watermark().unwrap_or(batch.next_offset()).max(*high_watermark);
        polls.push(poll);
        Ok(())
    }

    pub(super) fn readings(self) -> Vec<Reading> {
        let reading = |(place, (high_watermark, polls))| Reading { place, high_watermark, polls };
        self.0.into_iter().map(reading).collect()
    }
}
