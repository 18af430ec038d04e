//! One history, inside of its network: everything begins, breaks, is mended, is read through, and is judged.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Signal, set_parent_process_death_signal};
use tokio::runtime::Handle;
use tokio::time::{Instant, sleep, timeout};
use weir_runtime::{LogFormat, init_telemetry};
use weir_tests::api::Api;
use weir_tests::dice::Dice;
use weir_tests::history::{Anomaly, Place, Reading};
use weir_tests::reader;

use crate::asked::{Asked, Scenario};
use crate::clients::{Clients, places};
use crate::cluster::{Cluster, REFUSED, SMALL};
use crate::conditions;
use crate::log::Log;
use crate::nemesis::Nemesis;
use crate::observer;
use crate::plan::{Planned, plan};
use crate::replicas;
use crate::summary::Summary;
use crate::topics;
use crate::waiting::Waiting;
use crate::who::Who;

/// A record that nobody has acknowledged after so long is of unknown outcome, where everything breaks ...
const DELIVERY: Duration = Duration::from_secs(15);
/// ... and where it does not, it must be acknowledged by then.
const DELIVERY_SURE: Duration = Duration::from_secs(60);
/// Between two bursts of a writer's records, at most, in milliseconds; and where they are to use up what a broker has reserved ahead.
const PAUSE_MS_MAX: u64 = 60;
const PAUSE_MS_SHORT: u64 = 20;
/// How long clients may take to come to their end.
const END: Duration = Duration::from_secs(90);
/// How long reading a partition through may take, with all that is tried again.
const READ: Duration = Duration::from_secs(120);
/// Of so many records at least one must be acknowledged every second on average, or nothing has been tried.
const A_SECOND: u64 = 20;
/// Anomalies that are shown; all are in the folder.
const SHOWN: usize = 10;

/// Runs it, with its doors on threads of their own. Its folder is `asked.out`; what it came to is left there.
pub(crate) async fn run(asked: Asked, network: String, doors: &Handle) -> Result<()> {
    // Whoever laid the network is gone: nobody would end this.
    set_parent_process_death_signal(Some(Signal::KILL))?;
    init_telemetry(LogFormat::People, "info")?;
    let (seed, scenario) = asked.seed.zip(asked.scenario).context("a history has a seed and a scenario")?;
    let log = Log::new(&asked.out)?;
    let plan = plan(scenario, seed, asked.breaking());
    fs::write(asked.out.join("plan"), plan.iter().map(|planned| format!("{planned}\n")).collect::<String>())?;
    let mut cluster = Cluster::start(&network, &asked, seed, log.clone(), doors).await?;
    let course = Course { scenario, seed, breaking: asked.breaking(), folder: asked.out, plan, log };
    let judged = course.judged(&mut cluster).await;
    if judged.is_err() {
        cluster.keep();
    }
    judged
}

/// What a history is to be, and where it is told.
struct Course {
    scenario: Scenario,
    seed: u64,
    /// For how long things break.
    breaking: Duration,
    folder: PathBuf,
    plan: Vec<Planned>,
    log: Log,
}

impl Course {
    /// All of it, with the end of the cluster, and its disks.
    async fn judged(&self, cluster: &mut Cluster) -> Result<()> {
        self.told(cluster).await?;
        let ended = cluster.stop().await?;
        ensure!(ended.is_empty(), "processes ended that nobody had killed:\n{}", ended.join("\n"));
        let least = 2 * places(self.scenario.topics()).len();
        let replicas =
            replicas::compare(cluster.data_of_brokers(), least).await.context("replicas are compared")?;
        self.log.say(format_args!("all is well; the frames of {replicas} replicas are equal"));
        Ok(())
    }

    /// What clients were told and saw.
    async fn told(&self, cluster: &mut Cluster) -> Result<()> {
        let delivery = if self.scenario.all_is_written() { DELIVERY_SURE } else { DELIVERY };
        let pause_ms_max = if self.scenario == Scenario::FullDisk { PAUSE_MS_SHORT } else { PAUSE_MS_MAX };
        let clients = Clients::new(self.log.clone(), self.scenario.topics(), delivery, pause_ms_max);
        let mut tasks = clients.begin(self.seed).await?;
        let topics = {
            let (clients, seed) = (clients.clone(), self.seed);
            tokio::spawn(async move { topics::Told::gather(&clients, Dice::new(seed)).await })
        };
        cluster.until_well().await?;
        self.log.say("the cluster is well, and clients are at work");

        let waiting = match self.scenario {
            Scenario::PowerLoss if cluster.has_small_disk() => Some(Waiting::begin().await?),
            _ => None,
        };
        let has_disks = cluster.has_small_disk();
        let mut nemesis = Nemesis::new(cluster, self.log.clone());
        nemesis.run(&self.plan, self.breaking).await?;
        if self.scenario.all_is_read() {
            clients.until_read().await.context("reading does not go on")?;
        }
        if self.scenario == Scenario::FullDisk {
            // Who has no room serves what is there.
            let readings = read_all(self.scenario).await.context("reading while a disk is full")?;
            clients.readings.lock().extend(readings);
        }
        if self.scenario == Scenario::SlowDisk && has_disks {
            let holds = async || observer::leads_nothing(SMALL).await;
            nemesis.until("whose disk is slow leads nothing", holds).await?;
        }
        nemesis.mend().await?;
        let (faults, missed) = (nemesis.faults, nemesis.missed);
        self.log.say("everything is mended");
        clients.end();
        while let Some(task) =
            timeout(END, tasks.join_next()).await.context("clients do not come to their end")?
        {
            task??;
        }
        cluster.until_well().await?;
        let lost_in_memory = match waiting {
            Some(waiting) => Some(waiting.decided(cluster).await?),
            None => None,
        };
        let topics = timeout(END, topics).await.context("a call about a topic does not end")???;
        topics.check().await?;
        self.log.say("all is in sync, and is read through");
        let readings = read_all(self.scenario).await?;

        let count = |reading: &Reading| reading.polls.iter().map(Vec::len).sum::<usize>() as u64;
        let summary = Summary {
            acknowledged: clients.acknowledged.load(Ordering::SeqCst),
            unknown: clients.unknown.load(Ordering::SeqCst),
            refused: clients.refused.load(Ordering::SeqCst),
            read: clients.read.load(Ordering::SeqCst),
            there: readings.iter().step_by(Who::BROKERS.len()).map(count).sum(),
            silence_ms: u64::try_from(clients.silence().as_millis()).unwrap_or(u64::MAX),
            topics: topics.answered,
            faults,
            met: cluster.met(),
        };
        self.log.say(&summary);
        if let Some((lost, of)) = lost_in_memory {
            self.log.say(format_args!(
                "class replicated, power lost everywhere: it waited for a person, who accepted that {lost} of {of} records are lost"
            ));
        }
        summary.write(&self.folder)?;
        clients.readings.lock().extend(readings);
        let anomalies = clients.history.lock().check(&clients.readings.lock());
        judge(&anomalies, &self.folder)?;
        clients.register.lock().check(&conditions::place(), &clients.readings.lock())?;
        self.verdict(&summary, &missed, has_disks)
    }

    /// Whether enough was tried, and what had to be acknowledged was.
    fn verdict(&self, summary: &Summary, missed: &[String], has_disks: bool) -> Result<()> {
        let least = A_SECOND * self.breaking.as_secs();
        ensure!(
            summary.acknowledged >= least,
            "{} records are acknowledged: fewer than {least}",
            summary.acknowledged
        );
        ensure!(summary.read > 0, "nothing was read while things broke");
        let can_be = |planned: &&Planned| has_disks || !planned.fault.needs_disk();
        let planned: BTreeSet<&str> =
            self.plan.iter().filter(can_be).map(|planned| planned.fault.kind()).collect();
        let not: Vec<_> = planned.iter().filter(|kind| !summary.faults.contains_key(**kind)).collect();
        ensure!(not.is_empty(), "planned, and did not happen: {not:?} ({})", missed.join("; "));
        ensure!(
            self.scenario != Scenario::FullDisk || summary.met.contains_key(REFUSED) || !has_disks,
            "a disk was full, and no append met it"
        );
        let lost = summary.unknown + summary.refused;
        ensure!(
            !self.scenario.all_is_written() || lost == 0,
            "{lost} records were not acknowledged, and all could be"
        );
        Ok(())
    }
}

fn judge(anomalies: &BTreeSet<Anomaly>, folder: &Path) -> Result<()> {
    if anomalies.is_empty() {
        return Ok(());
    }
    let all: Vec<String> = anomalies.iter().map(ToString::to_string).collect();
    fs::write(folder.join("anomalies"), all.join("\n"))?;
    bail!("{} anomalies:\n{}", all.len(), all.get(..SHOWN.min(all.len())).unwrap_or_default().join("\n"))
}

/// Reads every partition with plain stubs, in each of the ways there are, each from another broker.
async fn read_all(scenario: Scenario) -> Result<Vec<Reading>> {
    let mut readings = Vec::new();
    for place in places(scenario.topics()).into_iter().chain([conditions::place()]) {
        for (way, broker) in Who::BROKERS.into_iter().enumerate() {
            readings.push(read(&place, way, broker).await?);
        }
    }
    Ok(readings)
}

async fn read(place: &Place, way: usize, broker: Who) -> Result<Reading> {
    let over = Instant::now() + READ;
    let attempt = async || {
        let api = Api::connect(&broker.endpoint()).await?;
        match way {
            0 => reader::consume(&api, place).await,
            1 => reader::fetch(&api, place).await,
            _ => reader::stream(&api, place).await,
        }
    };
    loop {
        match timeout(READ, attempt())
            .await
            .with_context(|| format!("reading {place} from {broker} does not end"))?
        {
            Ok(reading) => return Ok(reading),
            Err(error) if Instant::now() > over => {
                return Err(error.context(format!("{place} cannot be read from {broker} in {READ:?}")));
            }
            Err(_) => sleep(Duration::from_millis(300)).await,
        }
    }
}
