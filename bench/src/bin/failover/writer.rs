//! A writer that keeps its pace whatever happens: each partition is due a record every few milliseconds, and what a
//! record waits is counted from then, not from when it could be sent. So an outage is in the figures as often as it hit
//! somebody. All through the Rust SDK with its defaults.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, ensure};
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, interval, sleep};
use weir_client::{Client, ConsumerConfig, Position, Producer, ProducerConfig, Receipt, Record};

/// The size of a record's value, in bytes. The first eight are its number.
const VALUE_BYTES: usize = 128;
/// How often is looked whether something has been acknowledged.
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// A record that was acknowledged.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ack {
    number: u64,
    /// When it was to be sent.
    pub(crate) due: Instant,
    pub(crate) at: Instant,
    pub(crate) leader_epoch: i32,
    offset: i64,
}

/// What became of the records of a partition, in order.
#[derive(Debug, Default)]
pub(crate) struct Log {
    pub(crate) acks: Vec<Ack>,
    /// Records that failed, and with what.
    pub(crate) failed: Vec<(u64, String)>,
}

/// The writer, while it runs.
pub(crate) struct Writer {
    topic: String,
    client: Client,
    producer: Producer,
    pub(crate) logs: Arc<Vec<Mutex<Log>>>,
    over: Arc<AtomicBool>,
    tasks: Vec<JoinHandle<()>>,
}

/// A record on its way: its number, when it was due, and what will become of it.
type Sent = (u64, Instant, Receipt);

impl Writer {
    /// Begins to write to every partition of a topic.
    pub(crate) async fn start(
        client: Client,
        topic: &str,
        partitions: usize,
        every: Duration,
    ) -> anyhow::Result<Self> {
        let producer = client.producer(ProducerConfig::new())?;
        producer.look_up(topic).await?;
        let logs: Arc<Vec<Mutex<Log>>> = Arc::new((0..partitions).map(|_| Mutex::default()).collect());
        let over = Arc::new(AtomicBool::new(false));
        let mut writer = Self { topic: topic.to_owned(), client, producer, logs, over, tasks: Vec::new() };
        let mut lanes = Vec::new();
        for partition in 0..partitions {
            let (to, sent) = mpsc::unbounded_channel();
            lanes.push(to);
            writer.tasks.push(tokio::spawn(hear(writer.logs.clone(), partition, sent)));
        }
        let (producer, logs, over) = (writer.producer.clone(), writer.logs.clone(), writer.over.clone());
        writer.tasks.push(tokio::spawn(pace(producer, topic.to_owned(), lanes, logs, every, over)));
        Ok(writer)
    }

    /// Waits for the first record of a partition that was acknowledged in a later leader epoch, in vain until `until`.
    pub(crate) async fn acknowledged_after(
        &self,
        partition: usize,
        leader_epoch: i32,
        until: Instant,
    ) -> anyhow::Result<Ack> {
        let log = self.logs.get(partition).context("a partition of the topic")?;
        loop {
            let found = {
                let log = log.lock();
                // The newest are looked at first: it is one of them.
                let later = log.acks.iter().rev().take_while(|ack| ack.leader_epoch > leader_epoch);
                later.last().copied()
            };
            match found {
                Some(ack) => return Ok(ack),
                None => ensure!(Instant::now() < until, "partition {partition} takes no records any more"),
            }
            sleep(LOOK_EVERY).await;
        }
    }

    /// Waits until every partition has acknowledged so many records one after the other none of which waited for as
    /// long as `prompt`, and all of which were due from now on.
    pub(crate) async fn steady(&self, count: usize, prompt: Duration, until: Instant) -> anyhow::Result<()> {
        let from = Instant::now();
        for (partition, log) in self.logs.iter().enumerate() {
            loop {
                let steady = {
                    let log = log.lock();
                    let last = log.acks.iter().rev().take(count);
                    last.filter(|ack| ack.due >= from && ack.at - ack.due < prompt).count() == count
                };
                if steady {
                    break;
                }
                ensure!(Instant::now() < until, "partition {partition} did not become steady");
                sleep(LOOK_EVERY).await;
            }
        }
        Ok(())
    }

    /// The longest time without an acknowledgement in a partition that reaches into a stretch of time, and the longest
    /// that a record which was acknowledged in it had waited.
    pub(crate) fn longest(&self, partition: usize, from: Instant, to: Instant) -> (Duration, Duration) {
        let Some(log) = self.logs.get(partition) else { return (Duration::ZERO, Duration::ZERO) };
        let log = log.lock();
        let first = log.acks.partition_point(|ack| ack.at < from);
        let within = log.acks.get(first..).unwrap_or_default().iter().take_while(|ack| ack.at <= to);
        let before = first.checked_sub(1).and_then(|last| log.acks.get(last));
        let (mut gap, mut waited, mut last) = (Duration::ZERO, Duration::ZERO, before.map(|ack| ack.at));
        for ack in within {
            gap = gap.max(last.map_or(Duration::ZERO, |last| ack.at - last));
            waited = waited.max(ack.at - ack.due);
            last = Some(ack.at);
        }
        (gap, waited)
    }

    /// How many records have failed.
    pub(crate) fn failed(&self) -> usize {
        self.logs.iter().map(|log| log.lock().failed.len()).sum()
    }

    /// Those that have, in words: the first few.
    pub(crate) fn failures(&self) -> Vec<String> {
        let of = |(partition, log): (usize, &Mutex<Log>)| {
            let named =
                |(number, why): &(u64, String)| format!("partition {partition}, record {number}: {why}");
            log.lock().failed.iter().take(3).map(named).collect::<Vec<_>>()
        };
        self.logs.iter().enumerate().flat_map(of).collect()
    }

    /// Stops, waits for what is on its way, and reads all of it back: says what there was, and in words each
    /// acknowledged record that is not where its receipt said, and each that is there twice.
    pub(crate) async fn finish(mut self) -> anyhow::Result<(usize, Vec<String>)> {
        self.over.store(true, Ordering::Relaxed);
        // What failed is in the logs.
        let _ = self.producer.flush().await;
        for task in self.tasks.drain(..) {
            task.await?;
        }
        let mut stored: Vec<Vec<(i64, u64)>> = self.logs.iter().map(|_| Vec::new()).collect();
        let mut consumer = self.client.consumer(ConsumerConfig::new())?;
        consumer.assign_topic(&self.topic, Position::Earliest).await?;
        let mut reading = consumer.until_end().await?;
        while let Some(batch) = reading.next().await? {
            let partition = usize::try_from(batch.partition())?;
            let stored = stored.get_mut(partition).context("a partition of the topic")?;
            for record in batch.records() {
                let record = record?;
                let number = record.value.and_then(|value| value.first_chunk()).context("a number")?;
                stored.push((record.offset, u64::from_be_bytes(*number)));
            }
        }
        let mut wrong = Vec::new();
        let mut acknowledged = 0;
        for (partition, (log, stored)) in self.logs.iter().zip(stored).enumerate() {
            acknowledged += log.lock().acks.len();
            wrong.extend(compare(partition, &log.lock(), &stored));
        }
        Ok((acknowledged, wrong))
    }
}

/// What is not as it was promised, in words.
fn compare(partition: usize, log: &Log, stored: &[(i64, u64)]) -> Vec<String> {
    let mut wrong = Vec::new();
    for ack in &log.acks {
        let at = stored.binary_search_by_key(&ack.offset, |(offset, _)| *offset);
        let found = at.ok().and_then(|at| stored.get(at)).map(|(_, number)| *number);
        if found != Some(ack.number) {
            wrong.push(format!(
                "{partition}@{}: record {} was acknowledged there in epoch {}, {found:?} is there",
                ack.offset, ack.number, ack.leader_epoch
            ));
        }
    }
    for pair in stored.windows(2) {
        if let [(_, before), (offset, number)] = pair
            && number <= before
        {
            wrong.push(format!("{partition}@{offset}: record {number} comes after record {before}"));
        }
    }
    wrong
}

async fn pace(
    producer: Producer,
    topic: String,
    lanes: Vec<mpsc::UnboundedSender<Sent>>,
    logs: Arc<Vec<Mutex<Log>>>,
    every: Duration,
    over: Arc<AtomicBool>,
) {
    // What it has missed it makes up for, one after the other: each at the time at which it was due.
    let mut due = interval(every);
    for number in 0_u64.. {
        let due = due.tick().await;
        if over.load(Ordering::Relaxed) {
            return;
        }
        let mut value = [0; VALUE_BYTES];
        value[..8].copy_from_slice(&number.to_be_bytes());
        for ((partition, lane), log) in (0..).zip(&lanes).zip(logs.iter()) {
            match producer.try_send(&topic, Record::new(&value).partition(partition)) {
                // Its end outlives ours.
                Ok(receipt) => drop(lane.send((number, due, receipt))),
                Err(error) => log.lock().failed.push((number, error.to_string())),
            }
        }
    }
}

/// Receipts of a partition come in the order of its records.
async fn hear(logs: Arc<Vec<Mutex<Log>>>, partition: usize, mut sent: mpsc::UnboundedReceiver<Sent>) {
    let Some(log) = logs.get(partition) else { return };
    while let Some((number, due, receipt)) = sent.recv().await {
        let result = receipt.await;
        let at = Instant::now();
        let mut log = log.lock();
        match result {
            Ok(delivery) => {
                let (leader_epoch, offset) = (delivery.leader_epoch, delivery.offset.unwrap_or(-1));
                log.acks.push(Ack { number, due, at, leader_epoch, offset });
            }
            Err(error) => log.failed.push((number, error.to_string())),
        }
    }
}
