//! The six nodes, what is wrong with them and between them, and how it is brought about.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::Signal;
use tokio::runtime::Handle;
use tokio::time::{Instant, sleep};
use weir_tests::small_disk::SmallDisk;

use crate::asked::{Asked, Scenario};
use crate::doors;
use crate::log::Log;
use crate::network::{ip, namespace, run, way, wire};
use crate::node::Node;
use crate::observer;
use crate::slow::Slow;
use crate::trouble::Ways;
use crate::who::Who;
use crate::wrong::{Wrong, Wrongs};

/// How long everything may take to be well again once nothing is wrong any more.
const WELL: Duration = Duration::from_secs(120);
/// How often is looked.
const LOOK: Duration = Duration::from_millis(100);
/// Whose disk is small, so that it can be filled.
pub(crate) const SMALL: Who = Who::Broker(3);
/// How small, in MiB.
const SMALL_MIB: u64 = 1_024;
/// And what lies beneath it where it is to be slow.
const BENEATH_MIB: u64 = 1_280;
/// What a narrow wire carries: a tenth of what the writers send in a burst.
const NARROW: &str = "tbf rate 1mbit burst 16kbit latency 300ms";

/// What a full disk comes to.
pub(crate) const REFUSED: &str = "batches refused for want of space";
/// More processes that end by themselves are not started again.
const ENDED_MAX: usize = 20;

/// A disk without room.
struct Full {
    in_the_way: PathBuf,
    /// How many batches its broker had refused before.
    refused: u64,
}

/// A cluster in a network.
pub(crate) struct Cluster {
    network: String,
    /// Of the history.
    folder: PathBuf,
    log: Log,
    nodes: BTreeMap<Who, Node>,
    wrongs: Wrongs,
    ways: Ways,
    /// File systems of their own; none, if none can be made here.
    disks: BTreeMap<Who, SmallDisk>,
    /// What lies beneath the small one, if that can be slow. It goes after that.
    beneath: Option<Arc<SmallDisk>>,
    /// While it is slow.
    slow: Option<Slow>,
    boots: u32,
    /// While it is full.
    full: Option<Full>,
    /// Batches that were refused for want of space on it, as far as was seen.
    refused_for_space: u64,
    /// Processes that ended though nobody had killed them.
    ended: Vec<String>,
}

impl Cluster {
    /// Starts one, with its files in `asked.out` and its doors served by `threads`, and waits until it is well.
    pub(crate) async fn start(
        network: &str,
        asked: &Asked,
        seed: u64,
        log: Log,
        threads: &Handle,
    ) -> Result<Self> {
        let (programs, folder) = (&asked.programs, &asked.out);
        let has_one = |who: &Who| *who == SMALL || asked.scenario == Some(Scenario::PowerLoss);
        let (mut disks, mut beneath) = (BTreeMap::new(), None);
        for who in Who::nodes().filter(has_one) {
            let made = match asked.scenario {
                Some(Scenario::SlowDisk) => on_another(&mut beneath).await,
                _ => SmallDisk::mount(SMALL_MIB).await,
            };
            match made {
                Ok(disk) => drop(disks.insert(who, disk)),
                Err(error) => log.say(format_args!("{who} has no disk of its own: {error:#}")),
            }
        }
        let mut nodes = BTreeMap::new();
        for who in Who::nodes() {
            let home = disks
                .get(&who)
                .map_or_else(|| folder.join(who.to_string()), |disk: &SmallDisk| disk.path().into());
            nodes.insert(who, Node::new(who, network, programs, folder, &home)?);
        }
        // Every second seed finds out the hard way that there is no room.
        if seed % 2 == 1 {
            nodes.get_mut(&SMALL).into_iter().for_each(Node::keep_no_room);
        }
        if asked.scenario == Some(Scenario::SlowDisk) {
            nodes.get_mut(&SMALL).into_iter().for_each(Node::look_at_disk_closely);
        }
        let ways = Ways::default();
        doors::put_up(&ways, network, seed, threads)?;
        let (network, wrongs) = (network.to_owned(), Wrongs::default());
        let mut cluster = Self {
            network,
            folder: folder.clone(),
            log,
            nodes,
            wrongs,
            ways,
            disks,
            beneath,
            slow: None,
            boots: 0,
            full: None,
            refused_for_space: 0,
            ended: Vec::new(),
        };
        let (first, others) = (Who::Controller(1), [Who::Controller(2), Who::Controller(3)]);
        cluster.node(first)?.start(&["--bootstrap=true".to_owned()])?;
        cluster.until(&format!("{first} is ready"), async || observer::ready(first).await).await?;
        for who in others {
            cluster.start_node(who)?;
        }
        // One after the other: broker-1 becomes broker 1.
        for who in Who::BROKERS {
            cluster.start_node(who)?;
            cluster.until(&format!("{who} is ready"), async || observer::ready(who).await).await?;
        }
        cluster.until_well().await?;
        Ok(cluster)
    }

    /// Whether a disk can be filled, or left in the dark.
    pub(crate) fn has_small_disk(&self) -> bool {
        self.disks.contains_key(&SMALL)
    }

    /// Of everybody, who must be dead: what was not synced is lost, and machines are booted anew.
    pub(crate) async fn lose_power(&mut self) -> Result<()> {
        self.boots += 1;
        let boot = self.folder.join("boot-id");
        fs::write(&boot, format!("00000000-0000-4000-8000-{:012}\n", self.boots))?;
        for node in self.nodes.values_mut() {
            node.booted(&boot);
        }
        for (who, disk) in &self.disks {
            disk.lose_power().await.with_context(|| format!("the disk of {who}"))?;
        }
        Ok(())
    }

    /// What came of troubles and of a full disk, by what it is called.
    pub(crate) fn met(&self) -> BTreeMap<String, u64> {
        let mut met = self.ways.met();
        if self.refused_for_space > 0 {
            met.insert(REFUSED.to_owned(), self.refused_for_space);
        }
        met
    }

    /// Whether somebody runs.
    pub(crate) fn runs(&self, who: Who) -> bool {
        self.nodes.get(&who).is_some_and(Node::runs) && !self.wrongs.is(Wrong::Paused(who))
    }

    /// Makes it so, or one more wants it so.
    pub(crate) async fn begin(&mut self, wrong: Wrong) -> Result<()> {
        if !self.wrongs.begin(wrong) {
            return Ok(());
        }
        match wrong {
            Wrong::Dead(who) => self.node(who)?.kill().await,
            Wrong::Stopped(who) => {
                self.node(who)?.send(Signal::TERM);
                Ok(())
            }
            Wrong::Paused(who) => {
                self.node(who)?.send(Signal::STOP);
                Ok(())
            }
            Wrong::Cut(from, to) => ip(&way(&self.network, from, to, false).each_ref().map(String::as_str)),
            Wrong::Unplugged(who) => ip(&wire(&self.network, who, false).each_ref().map(String::as_str)),
            Wrong::Narrow(who) => {
                let there = namespace(&self.network, who);
                let mut words = vec!["-n", &there, "qdisc", "replace", "dev", "eth0", "root"];
                words.extend(NARROW.split(' '));
                run("tc", &words)
            }
            Wrong::Troubled(trouble, from, to) => {
                self.ways.begin(trouble, from, to);
                Ok(())
            }
            Wrong::Full(_) => {
                if let Some(disk) = self.disks.get(&SMALL) {
                    let refused = observer::refused_for_space(SMALL).await.map_or(0, |(refused, _)| refused);
                    self.full = Some(Full { in_the_way: disk.fill().await?, refused });
                }
                Ok(())
            }
            Wrong::Slow(_) => {
                self.slow = self.beneath.clone().map(Slow::begin);
                Ok(())
            }
        }
    }

    /// Undoes it, or one less wants it so.
    pub(crate) async fn end(&mut self, wrong: Wrong) -> Result<()> {
        if !self.wrongs.end(wrong) {
            return Ok(());
        }
        match wrong {
            Wrong::Dead(who) | Wrong::Stopped(who) => {
                // Who has not stopped by now, or was paused over it, is not waited for.
                self.node(who)?.kill().await?;
                if self.shall_be_down(who) { Ok(()) } else { self.start_node(who) }
            }
            Wrong::Paused(who) => {
                self.node(who)?.send(Signal::CONT);
                Ok(())
            }
            Wrong::Cut(from, to) => ip(&way(&self.network, from, to, true).each_ref().map(String::as_str)),
            Wrong::Unplugged(who) => ip(&wire(&self.network, who, true).each_ref().map(String::as_str)),
            Wrong::Narrow(who) => {
                run("tc", &["-n", &namespace(&self.network, who), "qdisc", "del", "dev", "eth0", "root"])
            }
            Wrong::Troubled(trouble, from, to) => {
                self.ways.end(trouble, from, to);
                Ok(())
            }
            Wrong::Full(_) => {
                if let Some(full) = self.full.take() {
                    let refused = observer::refused_for_space(SMALL).await.map_or(0, |(refused, _)| refused);
                    // Less than before: another process counts.
                    self.refused_for_space += refused.checked_sub(full.refused).unwrap_or(refused);
                    fs::remove_file(full.in_the_way)?;
                }
                Ok(())
            }
            Wrong::Slow(_) => match self.slow.take() {
                Some(slow) => slow.end().await,
                None => Ok(()),
            },
        }
    }

    /// Removes the files of somebody who is dead.
    pub(crate) fn wipe(&mut self, who: Who) -> Result<()> {
        let data = self.node(who)?.data().to_owned();
        fs::remove_dir_all(&data).with_context(|| format!("cannot remove {}", data.display()))
    }

    /// Starts again who has ended by itself, as whoever runs a cluster does, and notes it: nobody should.
    pub(crate) fn watch(&mut self) -> Result<()> {
        for who in Who::nodes() {
            let Some((in_order, how)) = self.node(who)?.has_ended()? else { continue };
            if in_order && self.wrongs.is(Wrong::Stopped(who)) {
                continue;
            }
            self.log.say(&how);
            self.ended.push(how);
            if self.ended.len() > ENDED_MAX {
                bail!("processes end again and again");
            }
            if !self.shall_be_down(who) {
                self.start_node(who)?;
            }
        }
        Ok(())
    }

    fn shall_be_down(&self, who: Who) -> bool {
        self.wrongs.is(Wrong::Dead(who)) || self.wrongs.is(Wrong::Stopped(who))
    }

    /// Waits until everybody is ready and everything in sync.
    pub(crate) async fn until_well(&mut self) -> Result<()> {
        self.until("all is well", observer::well).await
    }

    /// Waits until this holds.
    pub(crate) async fn until(&mut self, what: &str, holds: impl AsyncFn() -> Result<()>) -> Result<()> {
        let over = Instant::now() + WELL;
        loop {
            self.watch()?;
            match holds().await {
                Ok(()) => return Ok(()),
                Err(why) if Instant::now() > over => {
                    return Err(why.context(format!("{what}: not in {WELL:?}")));
                }
                Err(_) => sleep(LOOK).await,
            }
        }
    }

    /// Stops everybody in order, and says who has ended otherwise, or panicked at any time.
    pub(crate) async fn stop(&mut self) -> Result<Vec<String>> {
        for all in [Who::BROKERS, Who::CONTROLLERS] {
            for who in all {
                self.node(who)?.send(Signal::TERM);
            }
            for who in all {
                self.node(who)?.stopped().await?;
            }
        }
        for (who, node) in &self.nodes {
            if node.panicked() {
                self.ended.push(format!("{who} panicked"));
            }
        }
        Ok(std::mem::take(&mut self.ended))
    }

    /// Where the brokers' files are.
    pub(crate) fn data_of_brokers(&self) -> Vec<(Who, PathBuf)> {
        let brokers = Who::BROKERS.into_iter().filter_map(|who| Some((who, self.nodes.get(&who)?)));
        brokers.map(|(who, node)| (who, node.data().to_owned())).collect()
    }

    /// Copies what would go with the disks.
    pub(crate) fn keep(&self) {
        for (who, disk) in &self.disks {
            let (from, to) = (disk.path().join("data"), self.folder.join(who.to_string()));
            let copied = fs::create_dir_all(&to)
                .map_err(anyhow::Error::from)
                .and_then(|()| run("cp", &["-a", &from.to_string_lossy(), &to.to_string_lossy()]));
            if let Err(error) = copied {
                self.log.say(format_args!("the data of {who} is not kept: {error:#}"));
            }
        }
    }

    fn start_node(&mut self, who: Who) -> Result<()> {
        let others = Who::CONTROLLERS.into_iter().filter(|other| *other != who).map(Who::endpoint);
        let others = others.collect::<Vec<_>>().join(",");
        // Who has a place already does not look at it.
        let more =
            if matches!(who, Who::Controller(_)) { vec![format!("--join={others}")] } else { Vec::new() };
        let paused = self.wrongs.is(Wrong::Paused(who));
        let node = self.node(who)?;
        node.start(&more)?;
        if paused {
            node.send(Signal::STOP);
        }
        Ok(())
    }

    fn node(&mut self, who: Who) -> Result<&mut Node> {
        self.nodes.get_mut(&who).with_context(|| format!("{who} is no node"))
    }
}

/// A small disk that lies on another one.
async fn on_another(beneath: &mut Option<Arc<SmallDisk>>) -> Result<SmallDisk> {
    let under = beneath.insert(Arc::new(SmallDisk::mount(BENEATH_MIB).await?));
    SmallDisk::mount_on(under.path(), SMALL_MIB).await
}
