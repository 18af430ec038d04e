//! Clients that write and read with the SDK, and note down what they are told and see.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use parking_lot::Mutex;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use weir_client::{
    Applied, Batch, Client, ClientBuilder, ConsumerConfig, Delivery, Durability, Error, NewTopic, Position,
    ProducerConfig, Record,
};
use weir_tests::dice::Dice;
use weir_tests::history::{Claim, History, Mark, Place, Promise, Reading, Register};

use crate::conditions;
use crate::log::Log;
use crate::who::Who;

/// A topic of each durability class, which is its name.
pub(crate) const TOPICS: [&str; 2] = ["fsync", "replicated"];
/// Partitions of each.
const PARTITIONS: i32 = 4;
const REPLICAS: i32 = 3;
/// So many of them have what is committed.
const MIN_INSYNC: i32 = 2;
const WRITERS: u32 = 4;
const READERS: u32 = 2;
/// Records in a burst, at most.
const BURST_MAX: u64 = 8;
/// A poll waits so long.
const POLL: Duration = Duration::from_millis(500);
/// Before something is tried again.
const AGAIN: Duration = Duration::from_millis(300);
/// How long the first connection and the topics may take.
const BEGIN: Duration = Duration::from_secs(60);
/// How many outcomes that are no acknowledgements are told one by one.
const TOLD: u64 = 20;

/// All partitions of these topics.
pub(crate) fn places(topics: &[&str]) -> Vec<Place> {
    let of = |topic: &str| {
        (0..PARTITIONS).map(|partition| Place { topic: topic.to_owned(), partition }).collect::<Vec<_>>()
    };
    topics.iter().copied().flat_map(of).collect()
}

/// What all clients share.
pub(crate) struct Clients {
    log: Log,
    topics: &'static [&'static str],
    /// Between two bursts of a writer's, at most, in milliseconds.
    pause_ms_max: u64,
    /// A record that is not acknowledged by then may be there or not.
    pub(crate) delivery: Duration,
    pub(crate) history: Mutex<History>,
    pub(crate) readings: Mutex<Vec<Reading>>,
    /// Of the partition that is written with conditions alone.
    pub(crate) register: Mutex<Register>,
    /// Nothing more is to be begun.
    over: AtomicBool,
    pub(crate) acknowledged: AtomicU64,
    pub(crate) unknown: AtomicU64,
    pub(crate) refused: AtomicU64,
    pub(crate) read: AtomicU64,
    /// The offset behind the last one that was acknowledged, by partition, and when that was.
    ends: Mutex<BTreeMap<Place, (i64, Instant)>>,
    /// Where each reader stands.
    positions: Mutex<BTreeMap<(u32, Place), i64>>,
    /// The longest time without an acknowledgement in a partition.
    silence: Mutex<Duration>,
}

impl Clients {
    /// They have not begun.
    pub(crate) fn new(
        log: Log,
        topics: &'static [&'static str],
        delivery: Duration,
        pause_ms_max: u64,
    ) -> Arc<Self> {
        let begun = Instant::now();
        Arc::new(Self {
            log,
            topics,
            delivery,
            pause_ms_max,
            history: Mutex::default(),
            readings: Mutex::default(),
            register: Mutex::default(),
            over: AtomicBool::new(false),
            acknowledged: AtomicU64::new(0),
            unknown: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            read: AtomicU64::new(0),
            ends: Mutex::new(places(topics).into_iter().map(|place| (place, (0, begun))).collect()),
            positions: Mutex::default(),
            silence: Mutex::default(),
        })
    }

    /// Makes the topics, and starts writers and readers. Their tasks end after [`Clients::end`], or with what was wrong.
    pub(crate) async fn begin(self: &Arc<Self>, seed: u64) -> Result<JoinSet<Result<()>>> {
        let client = connect(Client::builder()).await?;
        let topics = self
            .topics
            .iter()
            .map(|&topic| NewTopic::new(topic).partitions(PARTITIONS).config("durability", topic));
        for topic in topics.chain([conditions::topic()]) {
            let topic = topic
                .replication_factor(REPLICAS)
                .config("min_insync_replicas", MIN_INSYNC.to_string())
                .config("retention_ms", "unlimited")
                // The least there is: segments roll all the time.
                .config("segment_bytes", "1MiB")
                .config("batch_bytes_max", "256KiB");
            client.topics().create(topic).await?;
        }
        self.ends.lock().values_mut().for_each(|(_, at)| *at = Instant::now());
        let mut tasks = JoinSet::new();
        for writer in 1..=WRITERS {
            let dice = Dice::new(seed ^ u64::from(writer) << 32);
            tasks.spawn(self.clone().write(writer, dice));
        }
        for writer in conditions::WRITERS {
            let dice = Dice::new(seed ^ u64::from(writer) << 32);
            tasks.spawn(self.clone().compare_and_set(writer, dice));
        }
        for reader in 1..=READERS {
            tasks.spawn(self.clone().follow(reader));
        }
        Ok(tasks)
    }

    /// Writers write no more, and wait for what they are told; readers end.
    pub(crate) fn end(&self) {
        self.ends.lock().values().for_each(|(_, at)| self.silent(at.elapsed()));
        self.over.store(true, Ordering::SeqCst);
    }

    /// Whether nothing more is to be begun.
    pub(crate) fn are_over(&self) -> bool {
        self.over.load(Ordering::SeqCst)
    }

    /// The longest time without an acknowledgement in a partition.
    pub(crate) fn silence(&self) -> Duration {
        *self.silence.lock()
    }

    /// Waits until all that is acknowledged by now has reached every reader.
    pub(crate) async fn until_read(&self) -> Result<()> {
        let ends: Vec<(Place, i64)> =
            self.ends.lock().iter().map(|(place, (end, _))| (place.clone(), *end)).collect();
        let behind = || {
            let positions = self.positions.lock();
            let all =
                (1..=READERS).flat_map(|reader| ends.iter().map(move |(place, end)| (reader, place, end)));
            let mut behind = all.filter(|(reader, place, end)| {
                positions.get(&(*reader, (*place).clone())).copied().unwrap_or(0) < **end
            });
            behind.next().map(|(reader, place, end)| format!("reader {reader} has not reached {place}@{end}"))
        };
        let over = Instant::now() + BEGIN;
        while let Some(why) = behind() {
            ensure!(Instant::now() < over, "{why} in {BEGIN:?}");
            sleep(AGAIN).await;
        }
        Ok(())
    }

    async fn write(self: Arc<Self>, writer: u32, mut dice: Dice) -> Result<()> {
        let client = connect(Client::builder()).await?;
        let producer = client.producer(ProducerConfig::new().delivery_timeout(self.delivery))?;
        let places = places(self.topics);
        let mut receipts = JoinSet::new();
        let mut number = 0;
        while !self.are_over() {
            for _ in 0..=dice.below(BURST_MAX) {
                let drawn = usize::try_from(dice.below(places.len() as u64))?;
                let place = places.get(drawn).context("there are partitions")?.clone();
                let mark = Mark { writer, number };
                number += 1;
                self.history.lock().sent(mark, &place);
                let value = mark.value();
                match producer.send(&place.topic, Record::new(&value).partition(place.partition)).await {
                    Ok(receipt) => {
                        let this = self.clone();
                        receipts.spawn(async move { this.told(mark, &place, receipt.await) });
                    }
                    Err(error) => self.told(mark, &place, Err(error))?,
                }
            }
            while let Some(told) = receipts.try_join_next() {
                told??;
            }
            sleep(Duration::from_millis(dice.below(self.pause_ms_max))).await;
        }
        while let Some(told) = receipts.join_next().await {
            told??;
        }
        Ok(())
    }

    /// A writer is told what became of a record.
    pub(crate) fn told(&self, mark: Mark, place: &Place, outcome: Result<Delivery, Error>) -> Result<()> {
        match outcome {
            Ok(delivery) => {
                let Delivery { offset, committed, duplicate, durability, .. } = delivery;
                let on_disk = place.topic != "replicated";
                let claim = Claim {
                    committed,
                    duplicate,
                    written: delivery.replicas_written,
                    flushed: delivery.replicas_flushed,
                    zones: delivery.zones,
                };
                let promise = Promise { replicas: REPLICAS, min_insync: MIN_INSYNC, on_disk };
                claim.check(promise).with_context(|| format!("{mark:?} in {place}"))?;
                ensure!(
                    !on_disk || durability == Some(Durability::Fsync),
                    "{mark:?} in {place}: the receipt claims too little: {delivery:?}"
                );
                let Some(offset) = offset else { bail!("{mark:?} in {place}: a receipt without an offset") };
                self.history.lock().acknowledged(mark, offset)?;
                self.acknowledged.fetch_add(1, Ordering::SeqCst);
                if let Some((end, at)) = self.ends.lock().get_mut(place) {
                    *end = (*end).max(offset + 1);
                    if !self.are_over() {
                        self.silent(std::mem::replace(at, Instant::now()).elapsed());
                    }
                }
                Ok(())
            }
            Err(error) => {
                let refused = error.applied() == Applied::No;
                let (count, what) =
                    if refused { (&self.refused, "refused") } else { (&self.unknown, "unknown") };
                if count.fetch_add(1, Ordering::SeqCst) < TOLD {
                    self.log.say(format_args!("{mark:?} in {place} is {what}: {error}"));
                }
                if refused { self.history.lock().refused(mark) } else { Ok(()) }
            }
        }
    }

    fn silent(&self, lasted: Duration) {
        let mut silence = self.silence.lock();
        *silence = silence.max(lasted);
    }

    async fn follow(self: Arc<Self>, reader: u32) -> Result<()> {
        let client = connect(Client::builder()).await?;
        let mut consumer = client.consumer(ConsumerConfig::new())?;
        for &topic in self.topics {
            consumer.assign_topic(topic, Position::Earliest).await?;
        }
        let mut seen = BTreeMap::new();
        while !self.are_over() {
            let polled = consumer.poll(POLL).await.with_context(|| format!("reader {reader}"))?;
            if let Some(batch) = polled {
                self.saw(reader, &batch, &mut seen)?;
            }
        }
        self.readings.lock().extend(seen.into_values());
        Ok(())
    }

    fn saw(&self, reader: u32, batch: &Batch, seen: &mut BTreeMap<Place, Reading>) -> Result<()> {
        let place = Place { topic: batch.topic().to_owned(), partition: batch.partition() };
        // A leader that has just begun does not say how far it is.
        let high_watermark = batch.high_watermark().unwrap_or(i64::MAX);
        let mut poll = Vec::new();
        for record in batch {
            let record = record?;
            ensure!(
                record.offset < high_watermark,
                "{place}@{} was read, and {high_watermark} was the end of what is committed",
                record.offset
            );
            poll.push((record.offset, record.value.unwrap_or_default().to_vec()));
        }
        self.read.fetch_add(poll.len() as u64, Ordering::SeqCst);
        if let Some((last, _)) = poll.last() {
            self.positions.lock().insert((reader, place.clone()), last + 1);
        }
        let empty = || Reading { place: place.clone(), high_watermark: 0, polls: Vec::new() };
        let reading = seen.entry(place.clone()).or_insert_with(empty);
        reading.high_watermark =
            reading.high_watermark.max(batch.high_watermark().unwrap_or(batch.next_offset()));
        reading.polls.push(poll);
        Ok(())
    }
}

/// Connects to the brokers, as soon as one of them answers.
pub(crate) async fn connect(how: ClientBuilder) -> Result<Client> {
    let over = Instant::now() + BEGIN;
    let brokers = Who::BROKERS.map(Who::endpoint).join(",");
    loop {
        match how.clone().connect(&brokers).await {
            Ok(client) => return Ok(client),
            Err(error) if Instant::now() > over => return Err(error).context("cannot connect"),
            Err(_) => sleep(AGAIN).await,
        }
    }
}
