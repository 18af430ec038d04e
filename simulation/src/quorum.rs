//! Controllers that form a quorum.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Result, ensure};
use parking_lot::Mutex;
use weir_controller::{Config, Controller, Handle};
use weir_metadata::Image;
use weir_runtime::{Os, Stop};
use weir_types::ClusterId;

use crate::life::Machine;
use crate::simulation::Simulation;

const PORT: u16 = 9_349;

/// The controllers of a cluster.
pub(crate) struct Quorum {
    machines: Vec<Arc<Machine>>,
    shared: Arc<Shared>,
}

/// What their programs and the simulation both know.
#[derive(Default)]
struct Shared {
    /// The first one begins the cluster, until it has.
    founded: AtomicBool,
    lives: AtomicU64,
    running: Mutex<BTreeMap<usize, Running>>,
    cluster: Mutex<Option<ClusterId>>,
}

#[derive(Clone)]
struct Running {
    life: u64,
    handle: Handle,
}

impl Quorum {
    /// So many machines with a controller each, which fence brokers that say nothing for so long.
    pub(crate) fn new(simulation: &mut Simulation, count: usize, session_timeout: Duration) -> Self {
        let shared = Arc::<Shared>::default();
        // From often to hardly ever.
        let snapshot_commands = 20 << simulation.dice.below(5);
        let machines = (0..count)
            .map(|index| {
                let shared = shared.clone();
                let config = Config { snapshot_commands, session_timeout, ..config(index, count) };
                simulation.machine(&name(index), move |os, stop| {
                    // What its last life has left is not to be taken for this one.
                    shared.running.lock().remove(&index);
                    control(os, stop, index, config.clone(), shared.clone())
                })
            })
            .collect();
        Self { machines, shared }
    }

    pub(crate) fn machines(&self) -> &[Arc<Machine>] {
        &self.machines
    }

    pub(crate) fn endpoints(&self) -> Vec<String> {
        (0..self.machines.len()).map(endpoint).collect()
    }

    /// Those that run.
    fn running(&self) -> Vec<(usize, Running)> {
        let running = self.shared.running.lock();
        let alive = running
            .iter()
            .filter(|(index, _)| self.machines.get(**index).is_some_and(|machine| machine.life().is_some()));
        alive.map(|(index, running)| (*index, running.clone())).collect()
    }

    /// Who leads, and in which term, as the controllers that run see themselves: the highest term counts.
    pub(crate) fn leader(&self) -> Option<(usize, u64)> {
        let leads = |(index, running): (usize, Running)| running.handle.leads().map(|term| (index, term));
        self.running().into_iter().filter_map(leads).max_by_key(|(_, term)| *term)
    }

    /// What each of those that run has applied: its name, its life, its image. All are of one cluster.
    pub(crate) fn images(&self) -> Result<Vec<(String, u64, Arc<Image>)>> {
        let mut images = Vec::new();
        for (index, Running { life, handle }) in self.running() {
            let image = handle.image();
            if let Some(cluster_id) = image.cluster_id() {
                let known = *self.shared.cluster.lock().get_or_insert(cluster_id);
                ensure!(
                    known == cluster_id,
                    "{} is of another cluster: {cluster_id}, not {known}",
                    name(index)
                );
                images.push((name(index), life, image));
            }
        }
        Ok(images)
    }

    /// The version that all are at, if all run and are at the same.
    pub(crate) fn settled_at(&self) -> Option<i64> {
        let images = self.images().ok().filter(|images| images.len() == self.machines.len())?;
        let mut versions = images.iter().map(|(_, _, image)| image.version());
        let first = versions.next()?;
        versions.all(|version| version == first).then_some(first)
    }

    /// The image that all have, if all run and have the same.
    pub(crate) fn settled(&self) -> Option<Arc<Image>> {
        self.settled_at()?;
        Some(self.images().ok()?.pop()?.2)
    }

    /// Whether all run and have joined.
    pub(crate) fn all_vote(&self) -> bool {
        let running = self.running();
        running.len() == self.machines.len()
            && running.iter().all(|(_, running)| running.handle.voters() == Some(self.machines.len()))
    }

    /// Whether all run, know the same leader, and who votes.
    pub(crate) fn all_follow(&self) -> bool {
        let running = self.running();
        let mut leaders = running.iter().map(|(_, running)| running.handle.leader());
        let first = leaders.next().flatten();
        running.len() == self.machines.len()
            && self.leader().is_some()
            && running.iter().all(|(_, running)| running.handle.voters().is_some())
            && first.is_some()
            && leaders.all(|leader| leader == first)
    }
}

fn name(index: usize) -> String {
    format!("c{}", index + 1)
}

fn endpoint(index: usize) -> String {
    format!("{}:{PORT}", name(index))
}

fn config(index: usize, count: usize) -> Config {
    let listen = ([0, 0, 0, 0], PORT).into();
    let config = Config::new(PathBuf::from("/controller"), listen).standalone();
    Config {
        advertise: Some(endpoint(index)),
        bootstrap: index == 0,
        join: (0..count).filter(|other| *other != index).map(endpoint).collect(),
        ..config
    }
}

async fn control(
    os: Arc<dyn Os>,
    stop: Stop,
    index: usize,
    mut config: Config,
    shared: Arc<Shared>,
) -> Result<()> {
    config.bootstrap &= !shared.founded.load(Ordering::SeqCst);
    let controller = tokio::select! {
        built = Controller::build(os, config) => built?,
        () = stop.requested() => return Ok(()),
    };
    let handle = controller.handle();
    let life = shared.lives.fetch_add(1, Ordering::SeqCst);
    shared.running.lock().insert(index, Running { life, handle: handle.clone() });
    let founded = async {
        handle.ready().await;
        shared.founded.store(true, Ordering::SeqCst);
        std::future::pending().await
    };
    tokio::select! {
        served = controller.serve(stop) => Ok(served?),
        () = founded => Ok(()),
    }
}
