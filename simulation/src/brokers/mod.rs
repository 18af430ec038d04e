//! A whole cluster: controllers, brokers, writers and readers with the SDK, while everything breaks that can. Then
//! everything is mended, all of it is read from its beginning, and what writers were told and readers saw is held against it
//! (`weir_tests::history`): nothing acknowledged is lost, changed, moved, doubled or out of order, nothing refused is there,
//! and no reader has skipped anything, gone back, or seen what was not committed.

mod broker;
mod work;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Result, bail, ensure};

use crate::nemesis::Nemesis;
use crate::quorum::Quorum;
use crate::simulation::Simulation;
use crate::world::note;
use work::Work;

/// For so long things break.
const CHAOS: Duration = Duration::from_secs(20);
/// So long after everything was mended, everything must have been read.
const REST: Duration = Duration::from_secs(90);
/// A reader asks one broker for the ends of all partitions, which only the leader of each knows: one has to lead them all.
const BROKERS: usize = 1;
const WRITERS: u32 = 3;
const READERS: u32 = 2;
/// A broker that says nothing for so long is fenced, as by default.
const SESSION: Duration = Duration::from_secs(3);

/// Runs the scenario.
pub(crate) fn run() -> Result<()> {
    let mut simulation = Simulation::new();
    let controllers = if simulation.dice.percent(50) { 3 } else { 1 };
    let quorum = Quorum::new(&mut simulation, controllers, SESSION);
    let count = BROKERS;
    let mut brokers = Vec::new();
    for index in 0..count {
        let options = broker::options(index, &quorum.endpoints())?;
        brokers.push(simulation.machine(&broker::name(index), move |os| broker::run(os, options.clone())));
    }
    let endpoints: Vec<String> = (0..count).map(broker::endpoint).collect();
    let work = Arc::new(Work {
        brokers: endpoints.join(","),
        partitions: 1 + simulation.dice.below(6) as i32,
        replicas: 1,
        min_insync: 1,
        history: Default::default(),
        readings: Default::default(),
        ready: Default::default(),
        over: Default::default(),
        busy: Default::default(),
        read: Default::default(),
    });
    let here = work.clone();
    simulation.machine("preparer", move |os| here.clone().prepare(os));
    let mut others = Vec::new();
    for writer in 1..=WRITERS {
        let here = work.clone();
        others
            .push(simulation.machine(&format!("writer-{writer}"), move |os| here.clone().write(os, writer)));
    }
    for reader in 1..=READERS {
        let here = work.clone();
        others.push(simulation.machine(&format!("reader-{reader}"), move |os| here.clone().follow(os)));
    }
    let here = work.clone();
    simulation.machine("last-reader", move |os| here.clone().read_all(os));

    let victims: Vec<_> = quorum.machines().iter().chain(&brokers).cloned().collect();
    // A disk that fails takes the only replica with it, until a person says what is to be done: those of controllers alone.
    let mut nemesis = Nemesis::new(&victims, &others).with_disks(quorum.machines(), 0);
    until(&mut simulation, "there is a topic", || work.ready.load(Ordering::SeqCst))?;
    let over = simulation.now() + CHAOS;
    while simulation.now() < over {
        nemesis.act(&mut simulation);
        simulation.step()?;
    }
    nemesis.rest(&mut simulation);
    work.over.store(true, Ordering::SeqCst);
    until(&mut simulation, "everything has been read", || work.read.load(Ordering::SeqCst))?;

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

/// Lets time go on until something holds.
fn until(simulation: &mut Simulation, what: &str, holds: impl Fn() -> bool) -> Result<()> {
    let over = simulation.now() + REST;
    while !holds() {
        if simulation.now() >= over {
            bail!("{what}: not in {REST:?}");
        }
        simulation.step()?;
    }
    Ok(())
}
