//! A whole cluster: controllers, brokers, writers and readers with the SDK, while everything breaks that can. Then
//! everything is mended, all machines perhaps lose power at once, all of it is read from its beginning, and what writers were told and readers saw is held against it
//! (`weir_tests::history`): nothing acknowledged is lost, changed, moved, doubled or out of order, nothing refused is there,
//! and no reader has skipped anything, gone back, or seen what was not committed.

mod broker;
mod work;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Result, bail, ensure};

use crate::life::{Death, Machine};
use crate::nemesis::Nemesis;
use crate::quorum::Quorum;
use crate::simulation::Simulation;
use crate::world::note;
use work::Work;

/// For so long things break.
const CHAOS: Duration = Duration::from_secs(20);
/// So long after everything was mended, everything must have been read.
const REST: Duration = Duration::from_secs(90);
const WRITERS: u32 = 3;
const READERS: u32 = 2;
/// A broker that says nothing for so long is fenced, as by default.
const SESSION: Duration = Duration::from_secs(3);

/// Runs the scenario.
pub(crate) fn run() -> Result<()> {
    let mut simulation = Simulation::new();
    let controllers = if simulation.dice.percent(50) { 3 } else { 1 };
    let quorum = Quorum::new(&mut simulation, controllers, SESSION);
    let count = 1 + simulation.dice.below(3) as usize;
    // As many replicas as there are brokers, and never fewer in sync than the promise is made for.
    let replicas = count as i32;
    let min_insync = if count == 2 { 1 + simulation.dice.below(2) as i32 } else { 1 + replicas / 2 };
    let mut brokers = Vec::new();
    for index in 0..count {
        let options = broker::options(index, &quorum.endpoints())?;
        brokers.push(
            simulation.machine(&broker::name(index), move |os, stop| broker::run(os, stop, options.clone())),
        );
    }
    let endpoints: Vec<String> = (0..count).map(broker::endpoint).collect();
    let work = Arc::new(Work {
        brokers: endpoints.join(","),
        partitions: 1 + simulation.dice.below(6) as i32,
        replicas,
        min_insync,
        history: Default::default(),
        readings: Default::default(),
        ready: Default::default(),
        over: Default::default(),
        busy: Default::default(),
        settled: Default::default(),
        read: Default::default(),
    });
    let here = work.clone();
    simulation.machine("preparer", move |os, _| here.clone().prepare(os));
    let mut others = Vec::new();
    for writer in 1..=WRITERS {
        let here = work.clone();
        others.push(
            simulation.machine(&format!("writer-{writer}"), move |os, _| here.clone().write(os, writer)),
        );
    }
    for reader in 1..=READERS {
        let here = work.clone();
        others.push(simulation.machine(&format!("reader-{reader}"), move |os, _| here.clone().follow(os)));
    }
    let here = work.clone();
    simulation.machine("last-reader", move |os, _| here.clone().read_all(os));

    let victims: Vec<_> = quorum.machines().iter().chain(&brokers).cloned().collect();
    let mut nemesis = Nemesis::new(&victims, &others).failing(quorum.machines());
    if min_insync > 1 && replicas > min_insync {
        nemesis = nemesis.losing(&brokers);
    }
    until(&mut simulation, &quorum, "there is a topic", || work.ready.load(Ordering::SeqCst))?;
    let over = simulation.now() + CHAOS;
    while simulation.now() < over {
        nemesis.act(&mut simulation, || may_lose(&quorum, &victims));
        simulation.step()?;
    }
    nemesis.rest(&mut simulation);
    work.over.store(true, Ordering::SeqCst);
    until(&mut simulation, &quorum, "writers and readers have come to their end", || {
        work.busy.load(Ordering::SeqCst) == 0
    })?;
    if simulation.dice.percent(50) {
        victims.iter().for_each(|machine| simulation.end(machine, Death::Power));
        victims.iter().for_each(|machine| simulation.start(machine));
    }
    work.settled.store(true, Ordering::SeqCst);
    until(&mut simulation, &quorum, "everything has been read", || work.read.load(Ordering::SeqCst))?;

    let history = work.history.lock();
    let acknowledged = history.acknowledgements();
    note("-", format_args!("{acknowledged} records were acknowledged"), &[]);
    ensure!(acknowledged > 0, "nothing was acknowledged at all");
    let anomalies = history.check(&work.readings.lock());
    if !anomalies.is_empty() {
        let shown: Vec<String> = anomalies.iter().take(10).map(ToString::to_string).collect();
        bail!("{} anomalies in {acknowledged} records:\n{}", anomalies.len(), shown.join("\n"));
    }
    Ok(())
}

/// Whether a disk may be lost: everybody lives, and every partition has another replica in sync. What is promised holds for
/// one disk at a time, and the next only then.
fn may_lose(quorum: &Quorum, machines: &[Arc<Machine>]) -> bool {
    let Ok(mut images) = quorum.images() else { return false };
    let Some((_, _, image)) = images.pop() else { return false };
    let mut partitions = image.topics().flat_map(|topic| topic.partitions.iter());
    machines.iter().all(|machine| machine.life().is_some())
        && partitions.all(|(_, partition)| partition.isr.len() == partition.replicas.len())
}

/// Lets time go on until something holds.
fn until(simulation: &mut Simulation, quorum: &Quorum, what: &str, holds: impl Fn() -> bool) -> Result<()> {
    let over = simulation.now() + REST;
    while !holds() {
        if simulation.now() >= over {
            let image = quorum.images()?.pop().map(|(_, _, image)| image);
            let brokers = image.iter().flat_map(|image| image.brokers().map(|broker| format!("{broker:?}")));
            let topics = image.iter().flat_map(|image| image.topics());
            let partitions =
                topics.flat_map(|topic| topic.partitions.iter()).map(|partition| format!("{partition:?}"));
            let known: Vec<_> = brokers.chain(partitions).collect();
            bail!("{}\n{what}: not in {REST:?}", known.join("\n"));
        }
        simulation.step()?;
    }
    Ok(())
}
