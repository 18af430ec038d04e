//! Controllers alone: three or five, clients that make and remove topics, and watchers, while everything breaks that can.
//! Then everything is mended, and what was acknowledged is looked for; again after all have lost power at once; and leaders
//! are killed while nothing else is wrong. One file a property, named after it.

mod a_leader_soon;
mod acknowledged_stays;
mod client;
mod images_agree;
mod watchers_go_forward;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::life::{Death, Machine};
use crate::nemesis::{Covers, Harm, Nemesis, Promise};
use crate::quorum::Quorum;
use crate::simulation::Simulation;
use crate::world::note;
use client::Work;
use images_agree::Images;
use watchers_go_forward::Watcher;

/// For so long things break.
const CHAOS: Duration = Duration::from_secs(20);
/// So long after everything was mended, everybody must have come to rest: connections that were cut for too long, pauses
/// that have grown, and snapshots to fetch are all in it.
const REST: Duration = Duration::from_secs(60);
/// Nobody is fenced: the only broker never says that it lives.
const SESSION: Duration = Duration::from_secs(86_400);
const CLIENTS: usize = 3;
const WATCHERS: usize = 2;

/// The cluster under test, and what is known of it.
pub(crate) struct Scenario {
    pub(crate) simulation: Simulation,
    pub(crate) quorum: Quorum,
    watchers: Vec<Arc<Watcher>>,
    images: Images,
    work: Arc<Work>,
}

/// What a quorum survives: any power losses and failures of disks, as what matters is synced; and one lost disk.
struct Promised {
    may_lose: bool,
}

impl Promise for Promised {
    fn covers(&mut self, harm: Harm, _: &[Arc<Machine>]) -> Covers {
        let is_covered = harm != Harm::Disk || std::mem::take(&mut self.may_lose);
        if is_covered { Covers::Now } else { Covers::Never }
    }
}

/// Runs the scenario.
pub(crate) fn run() -> Result<()> {
    let mut simulation = Simulation::new();
    let count = if simulation.dice.percent(30) { 5 } else { 3 };
    let quorum = Quorum::new(&mut simulation, count, SESSION);
    let work = Arc::<Work>::default();
    let (endpoints, here) = (quorum.endpoints(), work.clone());
    simulation.machine("broker", move |os, _| client::register_broker(here.clone(), os, endpoints.clone()));
    let clients = (1..=CLIENTS).map(|number| {
        let (name, endpoints, work) = (format!("client-{number}"), quorum.endpoints(), work.clone());
        simulation.machine(&name.clone(), move |os, _| work.clone().run(os, name.clone(), endpoints.clone()))
    });
    let mut others: Vec<_> = clients.collect();
    let mut watchers = Vec::new();
    for number in 1..=WATCHERS {
        let (watcher, endpoints) = (Arc::<Watcher>::default(), quorum.endpoints());
        watchers.push(watcher.clone());
        let name = format!("watcher-{number}");
        others.push(simulation.machine(&name, move |os, _| watcher.clone().run(os, endpoints.clone())));
    }
    // A disk that is lost stays a voter that never answers: two of them, and three controllers have no quorum.
    let wiped = simulation.dice.percent(15);
    let mut promised = Promised { may_lose: wiped };
    let mut nemesis = Nemesis::new(quorum.machines(), &others).rolling(quorum.machines());
    let mut scenario = Scenario { simulation, quorum, watchers, images: Images::default(), work };

    scenario.until("all controllers vote", Scenario::all_vote)?;
    let over = scenario.simulation.now() + CHAOS;
    while scenario.simulation.now() < over {
        nemesis.act(&mut scenario.simulation, &mut promised);
        scenario.step()?;
    }
    nemesis.rest(&mut scenario.simulation);
    scenario.work.over.store(true, Ordering::SeqCst);
    scenario.until("clients have come to their end", |this| this.work.busy.load(Ordering::SeqCst) == 0)?;
    scenario.check().context("when everything was mended")?;

    for machine in scenario.quorum.machines().to_vec() {
        scenario.simulation.end(&machine, Death::Power);
    }
    for machine in scenario.quorum.machines().to_vec() {
        scenario.simulation.start(&machine);
    }
    scenario.check().context("after all controllers have lost power at once")?;
    if !wiped {
        a_leader_soon::check(&mut scenario)?;
        scenario.check().context("after leaders were killed")?;
    }
    let acknowledged = scenario.work.ledger.lock().acknowledged;
    note("-", format_args!("{acknowledged} changes were acknowledged"), &[]);
    ensure!(acknowledged > 0, "nothing was acknowledged at all");
    Ok(())
}

impl Scenario {
    /// One tick, and a look at what must hold at every moment.
    pub(crate) fn step(&mut self) -> Result<()> {
        self.simulation.step()?;
        for (who, life, image) in self.quorum.images()? {
            self.images.see(&who, life, &image)?;
        }
        for (number, watcher) in self.watchers.iter().enumerate() {
            if let Some((life, image)) = watcher.image()? {
                self.images.see(&format!("watcher-{}", number + 1), life, &image)?;
            }
        }
        Ok(())
    }

    /// Lets so much time go by.
    pub(crate) fn wait(&mut self, time: Duration) -> Result<()> {
        let over = self.simulation.now() + time;
        while self.simulation.now() < over {
            self.step()?;
        }
        Ok(())
    }

    /// Lets time go on until something holds.
    pub(crate) fn until(&mut self, what: &str, holds: impl Fn(&Self) -> bool) -> Result<()> {
        let over = self.simulation.now() + REST;
        while !holds(self) {
            if self.simulation.now() >= over {
                bail!("{what}: not in {REST:?}");
            }
            self.step()?;
        }
        Ok(())
    }

    fn all_vote(&self) -> bool {
        self.work.ready.load(Ordering::SeqCst) && self.quorum.all_vote()
    }

    /// Everybody is at the same version, and what was acknowledged is there.
    fn check(&mut self) -> Result<()> {
        self.until("everybody is at the same version, under one leader", |this| {
            let watchers = this.watchers.iter().map(|watcher| watcher.image().ok().flatten());
            let watchers = watchers.map(|seen| seen.map_or(0, |(_, image)| image.version()));
            this.quorum.leader().is_some()
                && this
                    .quorum
                    .settled_at()
                    .is_some_and(|version| watchers.into_iter().all(|at| at == version))
        })?;
        let ledger = self.work.ledger.lock();
        for (_, _, image) in self.quorum.images()? {
            ledger.check(&image)?;
        }
        Ok(())
    }
}
