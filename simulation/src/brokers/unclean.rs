//! Beyond what is promised: whoever held everything is gone, and a person elects one that lags; or all lose power in class
//! `replicated`, and the topic says that the longest log shall lead (`unclean_recovery = longest`). Records are lost then.
//! What must hold all the same:
//!
//! - what is lost is the end of a log, from one offset on, of what was acknowledged before; where a person elects, nothing
//!   below what the elected replica knows to be committed, as the controller showed (its log may go on with what its last
//!   leadership never committed, and others have replaced);
//! - what was there before and after is as always: in order, once, unchanged (`weir_tests::history`);
//! - whoever has read what is lost is told (LOG_TRUNCATED), not moved in silence.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use parking_lot::Mutex;
use tokio::time::{Instant, sleep};
use weir_client::{Client, Consumer, ConsumerConfig, Position, Reset};
use weir_cluster::Controllers;
use weir_proto::internal::v1 as pb;
use weir_proto::v1::{self, ErrorReason};
use weir_runtime::Os;
use weir_tests::history::{Place, Reading, holds};
use weir_types::Durability;

use super::subject::Subject;
use super::work::{Seen, Work};
use super::{READERS, SESSION, WRITERS, broker, report, until};
use crate::life::Death;
use crate::quorum::Quorum;
use crate::simulation::Simulation;
use crate::world::note;

/// All are in sync for so long at first, and for so long all but one.
const BEFORE: Duration = Duration::from_secs(2);
/// For so long everybody goes on after the election.
const AFTER: Duration = Duration::from_secs(4);
/// Before something is tried again.
const AGAIN: Duration = Duration::from_millis(300);
/// A call of the person is tried for so long.
const PATIENCE: Duration = Duration::from_secs(8);
/// A poll waits so long.
const POLL: Duration = Duration::from_millis(500);

/// What becomes of those that had everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// Their machines are off until the person has elected somebody else. Then they come back, with more in their logs.
    ComeBack,
    /// Their disks are lost, and the person elects.
    Lost,
    /// They come back at once, and nobody knows what they have lost: the longest log leads.
    Forget,
}

/// What the person and the readers share with the simulation.
#[derive(Default)]
struct Unclean {
    /// The person is to elect.
    elects: AtomicBool,
    /// Readers that have not come to the end.
    reading: AtomicUsize,
    /// What it was shown: up to where the elected replica knows that its log is committed.
    ends: Mutex<BTreeMap<Place, i64>>,
    /// What readers got, up to each time that they were told, and whether they were told then.
    seen: Mutex<Vec<(Seen, Option<Place>)>>,
}

/// Runs the scenario.
pub(crate) fn run() -> Result<()> {
    let mut simulation = Simulation::new();
    let controllers = if simulation.dice.percent(50) { 3 } else { 1 };
    let quorum = Quorum::new(&mut simulation, controllers, SESSION);
    let count = 2 + simulation.dice.below(2) as usize;
    let brokers = broker::machines(&mut simulation, &quorum, count, false)?;
    let fate = match simulation.dice.below(3) {
        0 => Fate::ComeBack,
        1 => Fate::Lost,
        _ => Fate::Forget,
    };
    note("-", format_args!("the others: {fate:?}"), &[]);
    // So that one can lag while the others go on.
    let mut subjects = Subject::draw(&mut simulation.dice, count);
    subjects.iter_mut().for_each(|subject| subject.min_insync = 1);
    if fate == Fate::Forget {
        for subject in &mut subjects {
            subject.durability = Durability::Replicated;
            subject.recovery = "longest";
        }
    }
    let work = Arc::new(Work::new(broker::endpoints(count), subjects, &brokers));
    let unclean = Arc::<Unclean>::default();
    let here = work.clone();
    simulation.machine("preparer", move |os, _| here.clone().prepare(os));
    for writer in 1..=WRITERS {
        let here = work.clone();
        simulation.machine(&format!("writer-{writer}"), move |os, _| here.clone().write(os, writer));
    }
    for reader in 1..=READERS {
        let (here, unclean) = (work.clone(), unclean.clone());
        simulation
            .machine(&format!("reader-{reader}"), move |os, _| unclean.clone().follow(here.clone(), os));
    }
    let here = work.clone();
    simulation.machine("last-reader", move |os, _| here.clone().read_all(os));
    let (here, person, endpoints) = (work.clone(), unclean.clone(), quorum.endpoints());
    simulation.machine("person", move |os, _| person.clone().elect(here.clone(), os, endpoints.clone()));

    until(&mut simulation, &quorum, "there is a topic", || work.ready.load(Ordering::SeqCst))?;
    until(&mut simulation, &quorum, "all are in sync", || in_sync(&quorum, count))?;
    wait(&mut simulation, BEFORE)?;
    let late = simulation.dice.below(count as u64) as usize;
    let late = brokers.get(late).cloned().context("there are so many")?;
    simulation.end(&late, Death::Process);
    until(&mut simulation, &quorum, "the others go on without it", || in_sync(&quorum, count - 1))?;
    wait(&mut simulation, BEFORE)?;
    let others = brokers.iter().filter(|machine| !Arc::ptr_eq(machine, &late));
    for machine in others.clone() {
        simulation.end(machine, if fate == Fate::Lost { Death::Disk } else { Death::Power });
    }
    // Nobody is there to acknowledge anything; what is on its way comes.
    wait(&mut simulation, BEFORE)?;
    let told = work.history.lock().acknowledged_so_far();
    simulation.start(&late);
    if fate != Fate::ComeBack {
        others.clone().for_each(|machine| simulation.start(machine));
    }
    unclean.elects.store(fate != Fate::Forget, Ordering::SeqCst);
    until(&mut simulation, &quorum, "somebody is elected", || recovered(&quorum))?;
    others.for_each(|machine| simulation.start(machine));
    wait(&mut simulation, AFTER)?;
    work.over.store(true, Ordering::SeqCst);
    until(&mut simulation, &quorum, "writers have come to their end", || {
        work.busy.load(Ordering::SeqCst) == 0
    })?;
    work.settled.store(true, Ordering::SeqCst);
    until(&mut simulation, &quorum, "everything has been read", || work.read.load(Ordering::SeqCst))?;

    until(&mut simulation, &quorum, "readers are at the end", || {
        unclean.reading.load(Ordering::SeqCst) == 0
    })?;

    let last = work.readings.lock().clone();
    let ends = unclean.ends.lock().clone();
    let mut lost = 0;
    for place in told.keys() {
        let mut holds = holds(place, &last);
        holds.retain(|offset, mark| work.epochs.lock().are_one(place, *offset, *mark));
        lost += work.history.lock().give_up(place, &told, &holds, ends.get(place).copied())?;
    }
    note("-", format_args!("{lost} acknowledged records were lost"), &[]);
    report(&work.history.lock(), &last)?;
    for (seen, notice) in unclean.seen.lock().drain(..) {
        for reading in seen.readings() {
            let is_told = notice.as_ref() == Some(&reading.place);
            if let Some(offset) = differs(&reading, &last).filter(|_| !is_told) {
                bail!("{}@{offset} was read, is not there any more, and nobody was told", reading.place);
            }
        }
    }
    Ok(())
}

fn wait(simulation: &mut Simulation, time: Duration) -> Result<()> {
    let over = simulation.now() + time;
    while simulation.now() < over {
        simulation.step()?;
    }
    Ok(())
}

/// Whether every partition is led, with so many in sync.
fn in_sync(quorum: &Quorum, count: usize) -> bool {
    let Some(image) = quorum.settled() else { return false };
    let mut partitions = image.topics().flat_map(|topic| topic.partitions.iter());
    partitions.all(|(_, it)| it.leader.is_some() && it.isr.len() == count)
}

/// Whether every partition is led by somebody who was not known to be complete.
fn recovered(quorum: &Quorum) -> bool {
    let Some(image) = quorum.settled() else { return false };
    let mut partitions = image.topics().flat_map(|topic| topic.partitions.iter());
    partitions.all(|(_, it)| it.leader.is_some() && it.unclean_epoch > 0)
}

/// The first record that was read and is not in the log.
fn differs(reading: &Reading, last: &[Reading]) -> Option<i64> {
    let log = last.iter().find(|last| last.place == reading.place);
    let log: BTreeMap<i64, &Vec<u8>> = log
        .into_iter()
        .flat_map(|log| log.polls.iter().flatten())
        .map(|(offset, value)| (*offset, value))
        .collect();
    let read = reading.polls.iter().flatten();
    read.filter(|(offset, value)| log.get(offset) != Some(&value)).map(|(offset, _)| *offset).min()
}

/// Whether a reader has come to the end of everything, which is where the leaders say it is.
async fn is_at_end(work: &Work, client: &Client, consumer: &Consumer) -> bool {
    for subject in &work.subjects {
        for partition in 0..subject.partitions() {
            let end = client.offsets().latest(subject.name, partition).await.ok();
            if end.is_none() || consumer.position(subject.name, partition) != end {
                return false;
            }
        }
    }
    true
}

impl Unclean {
    /// Reads along; told that what it has read is gone, it says so, and begins again.
    async fn follow(self: Arc<Self>, work: Arc<Work>, os: Arc<dyn Os>) -> Result<()> {
        self.reading.fetch_add(1, Ordering::SeqCst);
        work.begin().await;
        let client = work.connect(&os).await;
        // A log may be shorter than what was read of it: that is to be told as well.
        let mut consumer = client.consumer(ConsumerConfig::new().out_of_range(Reset::Error))?;
        for subject in &work.subjects {
            while let Err(error) = consumer.assign_topic(subject.name, Position::Earliest).await {
                tracing::info!("nothing assigned yet: {error}");
                sleep(AGAIN).await;
            }
        }
        let mut seen = Seen::default();
        loop {
            match consumer.poll(POLL).await {
                Ok(Some(batch)) => seen.add(&batch)?,
                Ok(None)
                    if work.settled.load(Ordering::SeqCst) && is_at_end(&work, &client, &consumer).await =>
                {
                    break;
                }
                Ok(None) => {}
                Err(error) => {
                    let is_notice = error.reason() == Some(ErrorReason::LogTruncated);
                    ensure!(is_notice, "a reader was told something else: {error}");
                    let fact = |name: &str| error.metadata().get(name).cloned().unwrap_or_default();
                    let place = Place { topic: fact("topic"), partition: fact("partition").parse()? };
                    tracing::info!("{place} is told: {error}");
                    self.seen.lock().push((seen.take(&place), Some(place.clone())));
                    while let Err(error) =
                        consumer.seek(&place.topic, place.partition, Position::Earliest).await
                    {
                        tracing::info!("cannot begin again yet: {error}");
                        sleep(AGAIN).await;
                    }
                }
            }
        }
        self.seen.lock().push((seen, None));
        self.reading.fetch_sub(1, Ordering::SeqCst);
        std::future::pending().await
    }

    /// Elects where nobody leads, once it is asked to: looks at what will be lost, and accepts that.
    async fn elect(self: Arc<Self>, work: Arc<Work>, os: Arc<dyn Os>, endpoints: Vec<String>) -> Result<()> {
        let controllers = Controllers::new(os, endpoints);
        loop {
            sleep(AGAIN).await;
            if !self.elects.load(Ordering::SeqCst) {
                continue;
            }
            for subject in &work.subjects {
                for partition in 0..subject.partitions() {
                    let place = subject.place(partition);
                    if let Err(error) = self.elect_one(&controllers, &place).await {
                        tracing::info!("{place}: not elected: {error:#}");
                    }
                }
            }
        }
    }

    async fn elect_one(&self, controllers: &Controllers, place: &Place) -> Result<()> {
        let shown = ask(controllers, place, None).await?;
        let election = shown.elections.first().context("an answer")?;
        if let Some(failure) = &election.failure {
            bail!("{}", failure.message);
        }
        let elected = election.replicas.iter().find(|replica| replica.broker_id == election.leader_after);
        let end = elected.context("what it holds")?.high_watermark;
        let done = ask(controllers, place, Some(&shown)).await?;
        let election = done.elections.first().context("an answer")?;
        if let Some(failure) = &election.failure {
            bail!("{}", failure.message);
        }
        note("person", format_args!("{place}: {} leads from {end}", election.leader_after), &[]);
        self.ends.lock().insert(place.clone(), end);
        Ok(())
    }
}

/// Accepts what was shown: a number, or that it is unknown. Where nothing was shown, that is only asked for.
async fn ask(
    controllers: &Controllers,
    place: &Place,
    shown: Option<&v1::ElectLeadersResponse>,
) -> Result<v1::ElectLeadersResponse> {
    let partition = v1::TopicPartition { topic: place.topic.clone(), partition: place.partition };
    let is_unknown = shown.is_some_and(|shown| shown.elections.iter().any(|election| election.loss_unknown));
    let request = v1::ElectLeadersRequest {
        partitions: vec![partition],
        unclean: true,
        accepted_loss_records: shown.filter(|_| !is_unknown).map(|shown| shown.records_lost),
        accept_unknown_loss: is_unknown,
        validate_only: shown.is_none(),
    };
    let answer = controllers.call(Instant::now() + PATIENCE, |mut client| {
        let request = Some(request.clone());
        async move { client.elect_leaders(pb::ElectLeadersRequest { request }).await }
    });
    let answer = answer.await.map_err(|status| anyhow::anyhow!("{}", status.message()))?;
    answer.response.context("a response")
}
