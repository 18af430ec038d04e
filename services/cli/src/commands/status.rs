//! `weir status`: the health of the cluster at a glance.

use std::collections::BTreeMap;
use std::time::Duration;

use clap::Args;
use weir_proto::v1::{
    BrokerDescription, BrokerState, LogDirectory, PartitionDescription, TopicMetadata, Voter, VoterState,
};

use crate::commands::{broker, controller, partition};
use crate::error::{Error, Result};
use crate::offsets;
use crate::output::View;
use crate::session::Session;
use crate::units;

/// How many partitions are named one by one.
const NAMED: usize = 10;

/// The health of the cluster at a glance
#[derive(Debug, Args)]
#[command(after_help = "\
What is not well: a broker that does not serve, a controller that is away, controllers without a
leader, partitions that are offline, under-replicated or damaged, a disk that has failed, is slow, or
too full to append to.

Examples:
  $ weir status
  $ weir status -o json
  $ weir status --check")]
pub(crate) struct Status {
    /// End with exit code 1 if something is not well (for scripts and monitors)
    #[arg(long)]
    check: bool,
}

impl Status {
    pub(crate) async fn run(self, session: &Session) -> Result<()> {
        if !self.check {
            return session.show(|| async { Ok(look(session).await?.0) }).await;
        }
        let (view, well) = look(session).await?;
        session.print(&view)?;
        if well { Ok(()) } else { Err(Error::Failed("not all is well (weir doctor says more)".to_owned())) }
    }
}

/// How it is, and whether that is well.
async fn look(session: &Session) -> Result<(View, bool)> {
    let brokers = broker::all(session).await?;
    let counted: Vec<_> = brokers.into_iter().filter(|b| b.state() != BrokerState::Removed).collect();
    let serving = |state| matches!(state, BrokerState::Active | BrokerState::Slow | BrokerState::Draining);
    let slow: Vec<_> =
        counted.iter().filter(|b| b.state() == BrokerState::Slow).map(|b| b.broker_id).collect();
    let failed: Vec<_> =
        counted.iter().filter(|b| b.state() == BrokerState::Failed).map(|b| b.broker_id).collect();
    let active = counted.iter().filter(|b| serving(b.state())).count();

    let voters = controller::all(session).await?;
    let Quorum { voting, leads, away } = Quorum::of(&voters);
    let up = if leads { voting - away.len() } else { 0 };

    let topics = offsets::topics(session, &[]).await?;
    let (offline, thin) = unwell(&topics);
    let damaged: Vec<String> = partition::damaged(session).await?.into_iter().map(|(name, _)| name).collect();
    let also = if damaged.is_empty() { String::new() } else { format!(", {} damaged", damaged.len()) };
    let full: Vec<_> = broker::full(&counted).collect();
    let disks = |count: usize, how: &str| match count {
        0 => String::new(),
        n => format!(", {} {how}", units::counted(n as u64, "disk")),
    };
    let disks = disks(full.len(), "full") + &disks(slow.len(), "slow") + &disks(failed.len(), "failed");
    let well = offline.is_empty()
        && thin.is_empty()
        && damaged.is_empty()
        && full.is_empty()
        && slow.is_empty()
        && active == counted.len()
        && leads
        && away.is_empty();
    let of_thin = Thin::of(session, &thin).await?;
    let mut view = View::sentence(
        format!(
            "{active} of {} brokers, {up} of {} controllers, {} offline, {} under-replicated{}{also}{disks}",
            counted.len(),
            voting,
            offline.len(),
            thin.len(),
            of_thin.said()
        ),
        if well { "ok" } else { "unwell" },
        serde_json::json!({
            "brokers": counted.len(), "brokersActive": active,
            "controllers": voting, "controllersUp": up,
            "controllersAway": away.iter().map(|voter| voter.voter_id).collect::<Vec<_>>(),
            "topics": topics.len(),
            "partitions": topics.iter().map(|topic| topic.partitions.len()).sum::<usize>(),
            "offline": offline, "underReplicated": thin, "damaged": damaged,
            "belowMin": of_thin.below_min, "catchingUpBytes": of_thin.behind_bytes, "behindMs": of_thin.behind_ms,
            "fullDisks": full.iter().map(|(id, directory)| full_disk(*id, directory)).collect::<Vec<_>>(),
            "slowDisks": slow,
            "failedDisks": failed,
            "well": well,
        }),
    );
    for broker in counted.iter().filter(|b| !serving(b.state())) {
        let (id, state) = (broker.broker_id, broker.state());
        view.line(match state {
            BrokerState::Failed => format!("  {}", broker::said_of_failed(id)),
            state => format!("  broker {id} is {}", broker::state(state)),
        });
    }
    for broker in &slow {
        view.line(format!(
            "  broker {broker} has a slow disk: others lead what they can until it is quick again"
        ));
    }
    full.iter().for_each(|disk| view.line(format!("  {}", broker::said_of_full(*disk))));
    away.iter().for_each(|voter| view.line(format!("  {}", said_of_away(voter))));
    if !leads {
        view.line("  no controller leads: topics and settings cannot change");
    } else if 2 * away.len() >= voting {
        view.line(
            "  no quorum of controllers: topics and settings cannot change, and brokers and partitions are shown as they \
             were last known",
        );
    }
    let stuck = Stuck::of(session, &offline, &counted).await?;
    let each =
        |names: &[String], what: &str| names.iter().map(|name| format!("{name} {what}")).collect::<Vec<_>>();
    let kinds = [
        each(&stuck.waiting, "waits for a person (weir partition describe says what to do)"),
        offline.iter().map(|name| stuck.said(name)).collect(),
        each(&of_thin.below_min, "refuses appends: fewer replicas are in sync than min_insync_replicas"),
        each(&thin, "is under-replicated"),
        each(&damaged, "is damaged (weir partition describe says how)"),
    ];
    for said in kinds {
        said.iter().take(NAMED).for_each(|said| view.line(format!("  {said}")));
        if said.len() > NAMED {
            view.line(format!("  and {} more (weir topic list)", said.len() - NAMED));
        }
    }
    Ok((view, well))
}

/// The controllers that vote.
struct Quorum<'a> {
    voting: usize,
    /// Whether one of them leads. Only that one knows how the others are: without it none can be called up.
    leads: bool,
    /// Those that do not answer it.
    away: Vec<&'a Voter>,
}

impl<'a> Quorum<'a> {
    fn of(voters: &'a [Voter]) -> Self {
        let voting = voters.iter().filter(|voter| voter.voting);
        Self {
            voting: voting.clone().count(),
            leads: voting.clone().any(|voter| voter.leader),
            away: voting.filter(|voter| voter.state() == VoterState::Away).collect(),
        }
    }
}

fn said_of_away(voter: &Voter) -> String {
    let silence = units::elapsed(Duration::from_millis(voter.silent_ms.max(0).unsigned_abs()));
    let (id, endpoint) = (voter.voter_id, &voter.endpoint);
    format!("controller {id} at {endpoint} is away: the one that leads has not heard it for {silence}")
}

/// What is said of partitions that are under-replicated, by their leaders.
#[derive(Default)]
struct Thin {
    /// Those that refuse appends.
    below_min: Vec<String>,
    /// What their replicas have to catch up.
    behind_bytes: u64,
    /// For how many milliseconds the last of them has been behind.
    behind_ms: u64,
}

impl Thin {
    async fn of(session: &Session, names: &[String]) -> Result<Self> {
        let described = partition::named(session, names).await?;
        let below = described.iter().filter(|p| p.isr.len() < at_least(p.min_insync_replicas));
        let below_min = below.map(|p| format!("{}/{}", p.topic, p.partition)).collect();
        let (behind_bytes, behind_ms) = partition::to_catch_up(&described);
        Ok(Self { below_min, behind_bytes, behind_ms })
    }

    /// Behind the number of those that are under-replicated.
    fn said(&self) -> String {
        let below = match self.below_min.len() {
            0 => None,
            n => Some(format!("{n} of them below min_insync_replicas")),
        };
        let behind = (self.behind_bytes > 0).then(|| {
            let since = units::elapsed(Duration::from_millis(self.behind_ms));
            format!("catching up {}, {since}", units::bytes(self.behind_bytes))
        });
        let said: Vec<_> = below.into_iter().chain(behind).collect();
        if said.is_empty() { String::new() } else { format!(" ({})", said.join("; ")) }
    }
}

fn at_least(min_insync: i32) -> usize {
    usize::try_from(min_insync).unwrap_or(0)
}

/// What the first of the partitions without a leader wait for.
struct Stuck {
    /// Those that get none by themselves.
    waiting: Vec<String>,
    /// By partition: the brokers that it waits for, in words.
    waited_for: BTreeMap<String, String>,
}

impl Stuck {
    async fn of(session: &Session, offline: &[String], brokers: &[BrokerDescription]) -> Result<Self> {
        let first: Vec<_> = offline.iter().take(NAMED).cloned().collect();
        let described = partition::named(session, &first).await?;
        let name = |p: &PartitionDescription| format!("{}/{}", p.topic, p.partition);
        let waiting = described.iter().filter(|p| p.waits_for_a_person).map(name).collect();
        let waited_for =
            described.iter().filter_map(|p| Some((name(p), partition::waiting::whom(p, brokers)?)));
        Ok(Self { waiting, waited_for: waited_for.collect() })
    }

    fn said(&self, name: &str) -> String {
        match self.waited_for.get(name) {
            Some(whom) => {
                format!("{name} is offline: it waits for {whom} (weir partition describe says what to do)")
            }
            None => format!("{name} is offline"),
        }
    }
}

/// A directory in which appends are refused, for programs.
fn full_disk(broker: i32, directory: &LogDirectory) -> serde_json::Value {
    serde_json::json!({
        "brokerId": broker, "path": directory.path,
        "availableBytes": directory.available_bytes, "reservedBytes": directory.reserved_bytes,
        "missingBytes": directory.missing_bytes,
    })
}

/// The partitions without a leader, and those with too few replicas in sync.
pub(super) fn unwell(topics: &[TopicMetadata]) -> (Vec<String>, Vec<String>) {
    let (mut offline, mut thin) = (Vec::new(), Vec::new());
    for topic in topics {
        for partition in &topic.partitions {
            let name = format!("{}/{}", topic.name, partition.partition);
            if partition.leader < 0 {
                offline.push(name);
            } else if partition.isr.len() < partition.replicas.len() {
                thin.push(name);
            }
        }
    }
    (offline, thin)
}

#[cfg(test)]
mod tests {
    use super::*;
    use weir_proto::v1::PartitionMetadata;

    #[test]
    fn partitions_that_are_unwell_are_named() {
        let partition = |partition, leader, isr: &[i32]| PartitionMetadata {
            partition,
            leader,
            replicas: vec![1, 2],
            isr: isr.to_vec(),
            ..PartitionMetadata::default()
        };
        let topic = TopicMetadata {
            name: "t".into(),
            partitions: vec![partition(0, 1, &[1, 2]), partition(1, -1, &[]), partition(2, 2, &[2])],
            ..TopicMetadata::default()
        };
        assert_eq!(unwell(&[topic]), (vec!["t/1".to_owned()], vec!["t/2".to_owned()]));
    }

    #[test]
    fn a_controller_that_votes_and_is_away_is_named_and_one_of_an_earlier_version_is_believed() {
        let voter = |voter_id, leader, voting, state: VoterState| Voter {
            voter_id,
            endpoint: format!("c{voter_id}:1"),
            leader,
            voting,
            state: state.into(),
            silent_ms: 4_200,
            ..Voter::default()
        };
        let (up, away) = (VoterState::Up, VoterState::Away);
        let voters = [voter(1, true, true, up), voter(2, false, true, away), voter(3, false, false, away)];
        let quorum = Quorum::of(&voters);
        assert_eq!((quorum.voting, quorum.leads), (2, true), "who learns is not counted");
        let said: Vec<_> = quorum.away.iter().map(|voter| said_of_away(voter)).collect();
        assert_eq!(said, ["controller 2 at c2:1 is away: the one that leads has not heard it for 4.2 s"]);

        let unknown = VoterState::Unspecified;
        let voters = [voter(1, false, true, unknown), voter(2, false, true, unknown)];
        let quorum = Quorum::of(&voters);
        assert_eq!((quorum.leads, quorum.away.len()), (false, 0));
    }

    #[test]
    fn what_is_to_be_caught_up_and_what_is_refused_is_said() {
        assert_eq!(Thin::default().said(), "");
        let thin = Thin { behind_bytes: 1_200_000_000, behind_ms: 10_000, ..Thin::default() };
        assert_eq!(thin.said(), " (catching up 1.2 GB, 10.0 s)");
        let thin = Thin { below_min: vec!["t/1".to_owned()], ..thin };
        assert_eq!(thin.said(), " (1 of them below min_insync_replicas; catching up 1.2 GB, 10.0 s)");
    }
}
