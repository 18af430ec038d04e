//! A whole cluster: controllers, brokers, writers and readers with the SDK, while everything breaks that can. Then
//! everything is mended, perhaps all machines lose power at once (or all processes end, where less is promised), all of it is
//! read from its beginning, and what writers were told and readers saw is held against it (`weir_tests::history`): nothing acknowledged is lost, changed, moved, doubled or out of order, nothing refused is there,
//! and no reader has skipped anything, gone back, or seen what was not committed.

mod broker;
mod changes;
mod conditions;
mod epochs;
mod latest_is_not_behind;
mod only_the_old_goes;
mod person;
mod promised;
mod readers_are_told;
mod receipts_are_true;
mod rot;
mod subject;
pub(crate) mod unclean;
mod work;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Result, bail};
use weir_io::Dice;
use weir_tests::history::{History, Place, Reading};

use crate::life::Death;
use crate::nemesis::{Covers, Harm, Nemesis, Promise};
use crate::quorum::Quorum;
use crate::simulation::Simulation;
use crate::world::{note, world};
use changes::Changes;
use promised::Promised;
use rot::Rot;
use subject::Subject;
use work::Work;

/// For so long things break.
const CHAOS: Duration = Duration::from_secs(20);
/// So long after everything was mended, everything must have been read.
const REST: Duration = Duration::from_secs(90);
const WRITERS: u32 = 3;
const READERS: u32 = 2;
/// Those who write with conditions alone have numbers from here on.
const CONDITIONAL: [u32; 2] = [11, 12];
/// A broker that says nothing for so long is fenced, as by default.
const SESSION: Duration = Duration::from_secs(3);

/// What there is in a run beside what there is in all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum With {
    Nothing,
    /// A partition that two write with conditions alone.
    Conditions,
    /// Three brokers, and the disk of one changes what it holds.
    Rot,
}

/// Runs the scenario.
pub(crate) fn run(with: With) -> Result<()> {
    let mut simulation = Simulation::new();
    let controllers = if simulation.dice.percent(50) { 3 } else { 1 };
    let quorum = Quorum::new(&mut simulation, controllers, SESSION);
    let count = 1 + simulation.dice.below(3) as usize;
    let count = if with == With::Rot { 3 } else { count };
    let conditions = with == With::Conditions;
    let mut subjects = Subject::draw(&mut simulation.dice, count);
    let mut changes = |percent| simulation.dice.percent(percent);
    let mut changes = Changes { mins: changes(25), partitions: changes(30), starts: changes(30) };
    // With fewer in sync what one disk changes may be what nobody else has.
    changes.mins &= with != With::Rot;
    subjects.iter_mut().for_each(|subject| subject.min_changes = changes.mins);
    // Drawn apart: runs without it stay what they were.
    let mut dice = Dice::new(!world().seed);
    let delete_by_age = dice.percent(25);
    subjects.iter_mut().filter(|_| delete_by_age).for_each(|subject| subject.expire(&mut dice));
    if conditions && let Some(register) = subjects.first().map(Subject::conditional) {
        subjects.push(register);
    }
    let brokers = broker::machines(&mut simulation, &quorum, count, delete_by_age)?;
    let work = Arc::new(Work::new(broker::endpoints(count), subjects, &brokers));
    let here = work.clone();
    simulation.machine("preparer", move |os, _| here.clone().prepare(os));
    let mut others = Vec::new();
    for writer in 1..=WRITERS {
        let here = work.clone();
        others.push(
            simulation.machine(&format!("writer-{writer}"), move |os, _| here.clone().write(os, writer)),
        );
    }
    for writer in CONDITIONAL.into_iter().filter(|_| conditions) {
        let here = work.clone();
        let name = format!("setter-{writer}");
        others.push(simulation.machine(&name, move |os, _| here.clone().compare_and_set(os, writer)));
    }
    for reader in 1..=READERS {
        let here = work.clone();
        others.push(simulation.machine(&format!("reader-{reader}"), move |os, _| here.clone().follow(os)));
    }
    let mut rot = (with == With::Rot).then(|| Rot::new(&mut dice, &brokers));
    if rot.is_some() {
        let here = work.clone();
        others.push(simulation.machine("looker", move |os, _| here.clone().look_through(os)));
    }
    let here = work.clone();
    others.push(simulation.machine("asker", move |os, _| here.clone().ask(os)));
    let here = work.clone();
    others.push(simulation.machine("changer", move |os, _| here.clone().change(os, changes)));
    let here = work.clone();
    simulation.machine("last-reader", move |os, _| here.clone().read_all(os));

    let victims: Vec<_> = quorum.machines().iter().chain(&brokers).cloned().collect();
    let mut nemesis = Nemesis::new(&victims, &others).rolling(&brokers);
    let mut promised = Promised::new(&quorum, &brokers, &work.subjects, changes.mins);
    until(&mut simulation, &quorum, "there is a topic", || work.ready.load(Ordering::SeqCst))?;
    let over = simulation.now() + CHAOS;
    while simulation.now() < over {
        nemesis.act(&mut simulation, &mut promised);
        if let Some(rot) = &mut rot {
            rot.act(&mut simulation, &mut promised)?;
        }
        simulation.step()?;
    }
    nemesis.rest(&mut simulation);
    // The few brokers of a small cluster may have been dead all the time.
    until(&mut simulation, &quorum, "something is acknowledged", || {
        work.history.lock().acknowledgements() > 0
    })?;
    work.over.store(true, Ordering::SeqCst);
    until(&mut simulation, &quorum, "writers and readers have come to their end", || {
        work.busy.load(Ordering::SeqCst) == 0
    })?;
    if simulation.dice.percent(50) {
        let mut loses_ends = None;
        if let Some(rot) = &mut rot {
            until_whole(&mut simulation, &mut promised)?;
            loses_ends = promised.covers_rot().then_some(rot);
        }
        let is_covered = promised.covers(Harm::Power, &victims) == Covers::Now;
        let all = if is_covered { Death::Power } else { Death::Process };
        victims.iter().for_each(|machine| simulation.end(machine, all));
        loses_ends.map_or(Ok(()), Rot::lose_ends)?;
        victims.iter().for_each(|machine| simulation.start(machine));
    }
    work.settled.store(true, Ordering::SeqCst);
    until(&mut simulation, &quorum, "everything has been read", || work.read.load(Ordering::SeqCst))?;

    let stretches = std::mem::take(&mut *work.stretches.lock());
    let mut readings = work.readings.lock().clone();
    readings.extend(stretches.iter().map(|stretch| stretch.reading.clone()));
    report(&work.history.lock(), &readings)?;
    for register in work.subjects.iter().filter(|subject| subject.conditional) {
        work.register.lock().check(&register.place(0), &readings)?;
        note("-", format_args!("the register has come to {}", work.register.lock().least()), &[]);
    }
    readers_are_told::check(&stretches, &known(&work.history.lock(), &readings))?;
    note("-", format_args!("{} receipts were looked into", work.receipts.lock().looked_into), &[]);
    let gone = work.ages.lock().check()?;
    note("-", format_args!("{gone} acknowledged records were deleted by their age"), &[]);
    Ok(())
}

/// Lets time go on until nothing is missing anywhere, or for long.
fn until_whole(simulation: &mut Simulation, promised: &mut Promised<'_>) -> Result<()> {
    let over = simulation.now() + REST;
    while simulation.now() < over && !promised.covers_rot() {
        simulation.step()?;
    }
    Ok(())
}

/// Where there are records, or were: somebody was told so, or has read one.
fn known(history: &History, readings: &[Reading]) -> BTreeMap<Place, BTreeSet<i64>> {
    let mut known: BTreeMap<Place, BTreeSet<i64>> = BTreeMap::new();
    for (place, told) in history.acknowledged_so_far() {
        known.entry(place).or_default().extend(told.keys());
    }
    for reading in readings {
        let offsets = reading.polls.iter().flatten().map(|(offset, _)| *offset);
        known.entry(reading.place.clone()).or_default().extend(offsets);
    }
    known
}

/// Holds what writers were told against what readers saw.
fn report(history: &History, readings: &[Reading]) -> Result<()> {
    let acknowledged = history.acknowledgements();
    note("-", format_args!("{acknowledged} records were acknowledged"), &[]);
    let anomalies = history.check(readings);
    if !anomalies.is_empty() {
        let shown: Vec<String> = anomalies.iter().take(10).map(ToString::to_string).collect();
        bail!("{} anomalies in {acknowledged} records:\n{}", anomalies.len(), shown.join("\n"));
    }
    Ok(())
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
