//! Does what the plan says, when it says so, and undoes it in time.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Result;
use tokio::time::{Instant, sleep_until};

use crate::cluster::{Cluster, SMALL};
use crate::log::Log;
use crate::observer;
use crate::plan::{Fault, Planned};
use crate::who::Who;
use crate::wrong::Wrong;

/// How often is looked whether everybody lives.
const WATCH: Duration = Duration::from_millis(200);

/// How long is waited for somebody whom a fault hits: nobody leads while all are dead.
const NOBODY: Duration = Duration::from_secs(20);

/// A fault that has begun.
struct UnderWay {
    until: Instant,
    what: String,
    wrongs: Vec<Wrong>,
}

/// What breaks a cluster.
pub(crate) struct Nemesis<'a> {
    cluster: &'a mut Cluster,
    log: Log,
    under_way: Vec<UnderWay>,
    /// What happened, how often.
    pub(crate) faults: BTreeMap<String, u64>,
    /// What was planned and did not happen.
    pub(crate) missed: Vec<String>,
}

impl<'a> Nemesis<'a> {
    pub(crate) fn new(cluster: &'a mut Cluster, log: Log) -> Self {
        Self { cluster, log, under_way: Vec::new(), faults: BTreeMap::new(), missed: Vec::new() }
    }

    /// Lets happen what the plan says. What is under way at the end of `breaking` stays wrong.
    pub(crate) async fn run(&mut self, plan: &[Planned], breaking: Duration) -> Result<()> {
        let mut begun = Instant::now();
        for planned in plan {
            self.pass_until(begun + planned.at).await?;
            let due = Instant::now();
            if planned.fault.needs_calm() {
                self.mend().await?;
                self.cluster.until_well().await?;
            }
            self.begin(planned).await?;
            // What follows, follows at its distance.
            begun += due.elapsed();
        }
        self.pass_until(begun + breaking).await
    }

    /// Waits until this holds, with all that is wrong by then.
    pub(crate) async fn until(&mut self, what: &str, holds: impl AsyncFn() -> Result<()>) -> Result<()> {
        self.cluster.until(what, holds).await
    }

    /// Undoes all that is under way.
    pub(crate) async fn mend(&mut self) -> Result<()> {
        for over in std::mem::take(&mut self.under_way) {
            self.end(over).await?;
        }
        Ok(())
    }

    async fn pass_until(&mut self, at: Instant) -> Result<()> {
        while Instant::now() < at {
            let ends = self.under_way.iter().map(|fault| fault.until).min();
            let next = (Instant::now() + WATCH).min(at);
            sleep_until(ends.map_or(next, |ends| ends.min(next))).await;
            let now = Instant::now();
            let (over, rest) =
                std::mem::take(&mut self.under_way).into_iter().partition(|fault| fault.until <= now);
            self.under_way = rest;
            let over: Vec<UnderWay> = over;
            for fault in over {
                self.end(fault).await?;
            }
            self.cluster.watch()?;
        }
        Ok(())
    }

    async fn begin(&mut self, planned: &Planned) -> Result<()> {
        let Planned { lasts, fault, .. } = planned;
        let over = Instant::now() + NOBODY;
        let mut wrongs = self.wrongs(fault).await;
        while wrongs.is_empty() && Instant::now() < over {
            self.pass_until(Instant::now() + WATCH).await?;
            wrongs = self.wrongs(fault).await;
        }
        if wrongs.is_empty() {
            self.log.say(format_args!("NOT: {fault}"));
            self.missed.push(fault.to_string());
            return Ok(());
        }
        // Of the ways of a node enough is said.
        let whom = match fault {
            Fault::Way(..) | Fault::Ways(..) => String::new(),
            _ => format!(" {wrongs:?}"),
        };
        self.log.say(format_args!("{fault}, for {:.1} s{whom}", lasts.as_secs_f64()));
        for wrong in &wrongs {
            self.cluster.begin(*wrong).await?;
        }
        if let Fault::LoseDisk(who) | Fault::WipeController(who) = fault {
            self.cluster.wipe(*who)?;
        }
        if let Fault::LosePower(disk) = fault {
            self.cluster.lose_power().await?;
            disk.map_or(Ok(()), |who| self.cluster.wipe(who))?;
        }
        *self.faults.entry(fault.kind().to_owned()).or_default() += 1;
        self.under_way.push(UnderWay { until: Instant::now() + *lasts, what: fault.to_string(), wrongs });
        Ok(())
    }

    async fn end(&mut self, fault: UnderWay) -> Result<()> {
        self.log.say(format_args!("over: {}", fault.what));
        for wrong in fault.wrongs {
            self.cluster.end(wrong).await?;
        }
        Ok(())
    }

    /// What a fault comes to now; nothing, if nobody is there whom it would hit.
    async fn wrongs(&self, fault: &Fault) -> Vec<Wrong> {
        let both = |one: &Who, other: &Who| vec![Wrong::Cut(*one, *other), Wrong::Cut(*other, *one)];
        let apart = |some: &[Who], others: &[Who]| -> Vec<Wrong> {
            some.iter().flat_map(|one| others.iter().flat_map(move |other| both(one, other))).collect()
        };
        let running =
            |all: [Who; 3]| -> Vec<Who> { all.into_iter().filter(|who| self.cluster.runs(*who)).collect() };
        match fault {
            Fault::Kill(who) | Fault::LoseDisk(who) | Fault::WipeController(who) => vec![Wrong::Dead(*who)],
            Fault::KillLeader(place) => {
                let leader = observer::leader(place, &running(Who::BROKERS)).await;
                leader.map(Wrong::Dead).into_iter().collect()
            }
            Fault::KillLeadingController => {
                let leader = observer::leading_controller(&running(Who::CONTROLLERS)).await;
                leader.map(Wrong::Dead).into_iter().collect()
            }
            Fault::KillControllers => Who::CONTROLLERS.map(Wrong::Dead).to_vec(),
            Fault::LosePower(_) if !self.cluster.has_small_disk() => Vec::new(),
            Fault::KillAll | Fault::LosePower(_) => Who::nodes().map(Wrong::Dead).collect(),
            Fault::Stop(who) => vec![Wrong::Stopped(*who)],
            Fault::Pause(who) => vec![Wrong::Paused(*who)],
            Fault::PauseLeader(place) => {
                let leader = observer::leader(place, &running(Who::BROKERS)).await;
                leader.map(Wrong::Paused).into_iter().collect()
            }
            Fault::PauseControllers => Who::CONTROLLERS.map(Wrong::Paused).to_vec(),
            Fault::Cut(one, other) => both(one, other),
            Fault::OneWay(from, to) => vec![Wrong::Cut(*from, *to)],
            Fault::Apart(controller, broker) => {
                let minority = [*controller, *broker];
                let others: Vec<Who> = Who::nodes().filter(|who| !minority.contains(who)).collect();
                apart(&minority, &others)
            }
            // A side without anybody leaves nothing to cut.
            Fault::Bridge { left, right, .. } => apart(left, right),
            Fault::Unplug(who) => vec![Wrong::Unplugged(*who)],
            Fault::Narrow(who) => vec![Wrong::Narrow(*who)],
            Fault::Way(trouble, from, to) => vec![Wrong::Troubled(*trouble, *from, *to)],
            Fault::Ways(trouble, who) => {
                let others = Who::all().filter(|other| other != who);
                let both = |other| [(*who, other), (other, *who)];
                others.flat_map(both).map(|(from, to)| Wrong::Troubled(*trouble, from, to)).collect()
            }
            Fault::FullDisk if self.cluster.has_small_disk() => vec![Wrong::Full(SMALL)],
            Fault::SlowDisk if self.cluster.has_small_disk() => vec![Wrong::Slow(SMALL)],
            Fault::FullDisk | Fault::SlowDisk => Vec::new(),
        }
    }
}
