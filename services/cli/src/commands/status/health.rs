//! Whether a cluster is well, and what is not: judged here once, for all commands that say it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::json;
use weir_proto::v1::{BrokerDescription, BrokerState, LogDirectory, PartitionDescription, TopicMetadata};

use super::NAMED;
use super::quorum::Quorum;
use super::seen::{Seen, unwell};
use super::unreached::Unreached;
use crate::commands::partition::replicas::Behind;
use crate::commands::{broker, partition};
use crate::units;

/// What there is to say of a cluster.
#[derive(Debug)]
pub(crate) struct Health {
    /// In one line.
    pub(crate) sentence: String,
    /// What is not well, each in a line. None: all is.
    pub(crate) problems: Vec<String>,
    /// The same in a few words each, counted.
    pub(crate) brief: Vec<String>,
    /// For programs.
    pub(crate) object: serde_json::Value,
}

impl Health {
    pub(crate) fn of(seen: &Seen) -> Self {
        let disks = Disks::of(&seen.brokers);
        let unreached = Unreached::of(&seen.brokers);
        let quorum = Quorum::of(&seen.controllers);
        let silent = if quorum.decides() { &[] } else { disks.unknown.as_slice() };
        let partitions = Partitions::of(seen, silent);
        let active = seen.brokers.iter().filter(|broker| serves(broker)).count();

        let down: Vec<_> = seen.brokers.iter().filter(|broker| !serves(broker)).collect();
        let mut problems: Vec<String> = down.iter().map(|broker| said_of_down(broker)).collect();
        problems.extend(unreached.problems());
        problems.extend(disks.problems(quorum.decides(), &seen.topics));
        problems.extend(quorum.problems());
        problems.extend(partitions.problems(seen));

        let mut brief = Vec::new();
        brief.extend(partitions.brief());
        brief.extend(counted(down.len(), "broker").map(|are| format!("{are} down (weir broker list)")));
        brief.extend(unreached.brief());
        brief.extend(disks.brief(quorum.decides()));
        brief.extend(quorum.brief());

        let known = if quorum.decides() { "" } else { " as last known" };
        let (controllers, controllers_up, controllers_away) = quorum.json();
        let sentence = format!(
            "{active} of {} brokers{known}, {}, {}{}",
            seen.brokers.len(),
            quorum.counted(),
            partitions.counted(known),
            disks.counted(quorum.decides())
        );
        let Partitions { offline, silent, thin, below_min, damaged, waiting, behind } = partitions;
        let Behind { bytes, ms, held_up } = behind;
        let object = json!({
            "brokers": seen.brokers.len(), "brokersActive": active, "brokersUnreached": unreached.json(),
            "controllers": controllers, "controllersUp": controllers_up, "controllersAway": controllers_away,
            "topics": seen.topics.len(),
            "partitions": seen.topics.iter().map(|topic| topic.partitions.len()).sum::<usize>(),
            "offline": offline, "leaderSilent": silent, "underReplicated": thin, "damaged": damaged,
            "belowMin": below_min, "appendsWait": waiting, "catchingUpBytes": bytes, "behindMs": ms, "heldUp": held_up,
            "fullDisks": disks.full.iter().map(|(id, directory)| full_disk(*id, directory)).collect::<Vec<_>>(),
            "slowDisks": disks.slow,
            "failedDisks": disks.failed,
            "unknownDisks": disks.unknown,
            "well": problems.is_empty(),
        });
        Self { sentence, problems, brief, object }
    }
}

/// Whether a broker is there to lead.
pub(crate) fn serves(broker: &BrokerDescription) -> bool {
    matches!(broker.state(), BrokerState::Active | BrokerState::Slow | BrokerState::Draining)
}

fn said_of_down(broker: &BrokerDescription) -> String {
    let (id, endpoint) = (broker.broker_id, broker::public_endpoint(broker));
    match broker.state() {
        BrokerState::Failed => broker::said_of_failed(id),
        BrokerState::Fenced if broker.stopped => {
            format!("broker {id} is fenced: it was stopped in order (it was at {endpoint} last)")
        }
        BrokerState::Fenced => {
            // Which of these it is only its own log says, or that of the controller that fenced it.
            format!(
                "broker {id} is fenced: it has died, or does not reach the controllers, which have heard of no stop in order (it \
                 was at {endpoint} last)"
            )
        }
        state => format!("broker {id} is {}", broker::state(state)),
    }
}

/// "1 disk is", "2 disks are"; nothing of none.
fn counted(number: usize, one: &str) -> Option<String> {
    let verb = if number == 1 { "is" } else { "are" };
    (number > 0).then(|| format!("{} {verb}", units::counted(number as u64, one)))
}

/// How a disk is of which its broker says nothing.
const UNKNOWN_DISK: &str = "unknown";

/// The disks that are not well.
struct Disks<'a> {
    full: Vec<(i32, &'a LogDirectory)>,
    slow: Vec<i32>,
    failed: Vec<i32>,
    /// Brokers that serve and have not said how theirs are.
    unknown: Vec<i32>,
}

impl<'a> Disks<'a> {
    fn of(brokers: &'a [BrokerDescription]) -> Self {
        let those = |wanted: &dyn Fn(&BrokerDescription) -> bool| -> Vec<i32> {
            brokers.iter().filter(|broker| wanted(broker)).map(|broker| broker.broker_id).collect()
        };
        Self {
            full: broker::full(brokers).collect(),
            slow: those(&|broker| broker.state() == BrokerState::Slow),
            failed: those(&|broker| broker.state() == BrokerState::Failed),
            unknown: those(&|broker| serves(broker) && !broker.directories.iter().any(broker::is_told)),
        }
    }

    fn kinds(&self) -> [(usize, &'static str); 4] {
        let Self { full, slow, failed, unknown } = self;
        [(full.len(), "full"), (slow.len(), "slow"), (failed.len(), "failed"), (unknown.len(), UNKNOWN_DISK)]
    }

    /// `decides`: the controllers would say that a broker is dead. While they do not, one that says nothing of its disk may be.
    fn counted(&self, decides: bool) -> String {
        let said = self.kinds().into_iter().filter(|(count, _)| *count > 0);
        let each = said.map(|(count, how)| match (how, decides) {
            (UNKNOWN_DISK, false) => format!(", {} silent", units::counted(count as u64, "broker")),
            _ => format!(", {} {how}", units::counted(count as u64, "disk")),
        });
        each.collect()
    }

    fn brief(&self, decides: bool) -> Vec<String> {
        let said = |count, how: &str| counted(count, "disk").map(|are| format!("{are} {how}"));
        let full = said(self.full.len(), "full: appends are refused");
        let unknown = match decides {
            true => said(self.unknown.len(), UNKNOWN_DISK),
            false => counted(self.unknown.len(), "broker").map(|are| format!("{are} silent")),
        };
        // Those that have failed are of brokers that are down.
        let others = [said(self.slow.len(), "slow"), unknown];
        full.into_iter().chain(others.into_iter().flatten()).collect()
    }

    fn problems(&self, decides: bool, topics: &[TopicMetadata]) -> Vec<String> {
        let slow = self.slow.iter().map(|broker| {
            format!("broker {broker} has a slow disk: others lead what they can until it is quick again")
        });
        let full = self.full.iter().map(|disk| broker::said_of_full(*disk));
        let unknown = self.unknown.iter().map(|broker| match decides {
            true => format!("broker {broker} has not said how its disk is: whether there is room is unknown"),
            false => format!(
                "broker {broker} does not answer now: it may be dead, and nobody else leads {} before a quorum of controllers \
                 decides again",
                what_it_leads(*broker, topics)
            ),
        });
        slow.chain(full).chain(unknown).collect()
    }
}

/// The partitions that one of these brokers leads, by name.
fn led_by(brokers: &[i32], topics: &[TopicMetadata]) -> Vec<String> {
    let each =
        topics.iter().flat_map(|topic| topic.partitions.iter().map(move |partition| (topic, partition)));
    let led = each.filter(|(_, partition)| brokers.contains(&partition.leader));
    led.map(|(topic, partition)| format!("{}/{}", topic.name, partition.partition)).collect()
}

/// The same of one of them, for people: the first, and how many more there are.
fn what_it_leads(broker: i32, topics: &[TopicMetadata]) -> String {
    let mut led = led_by(&[broker], topics);
    let more = led.len().saturating_sub(NAMED);
    led.truncate(NAMED);
    match (led.is_empty(), more) {
        (true, _) => "for it".to_owned(),
        (false, 0) => format!("what it leads ({})", led.join(", ")),
        (false, more) => format!("what it leads ({} and {more} more)", led.join(", ")),
    }
}

/// A directory in which appends are refused, for programs.
fn full_disk(broker: i32, directory: &LogDirectory) -> serde_json::Value {
    json!({
        "brokerId": broker, "path": directory.path,
        "availableBytes": directory.available_bytes, "reservedBytes": directory.reserved_bytes,
        "missingBytes": directory.missing_bytes,
    })
}

/// The partitions that are not well, by name.
struct Partitions {
    offline: Vec<String>,
    /// Those whose leader does not answer while nobody decides whether it is dead.
    silent: Vec<String>,
    /// Under-replicated.
    thin: Vec<String>,
    /// Those of them that refuse appends.
    below_min: Vec<String>,
    damaged: Vec<String>,
    /// Those whose appends wait for a replica that does not come.
    waiting: Vec<String>,
    behind: Behind,
}

impl Partitions {
    fn of(seen: &Seen, silent: &[i32]) -> Self {
        let (offline, thin) = unwell(&seen.topics);
        let below = seen.thin.iter().filter(|partition| partition::refuses_appends(partition));
        Self {
            offline,
            silent: led_by(silent, &seen.topics),
            thin,
            below_min: below.map(partition::name).collect(),
            damaged: seen.damaged.iter().map(|(name, _)| name.clone()).collect(),
            waiting: seen.waiting.iter().map(|(name, _)| name.clone()).collect(),
            behind: partition::replicas::behind(&seen.thin, &seen.brokers),
        }
    }

    /// `known`: whether that is so now.
    fn counted(&self, known: &str) -> String {
        let silent = match self.silent.len() {
            0 => String::new(),
            n => format!(", {n} whose leader does not answer"),
        };
        let damaged = match self.damaged.len() {
            0 => String::new(),
            n => format!(", {n} damaged"),
        };
        let waiting = match self.waiting.len() {
            0 => String::new(),
            n => format!(", {n} whose appends wait"),
        };
        let said = self.said_of_thin();
        format!(
            "{} offline{known}{silent}, {} under-replicated{said}{damaged}{waiting}",
            self.offline.len(),
            self.thin.len()
        )
    }

    /// Behind the number of those that are under-replicated.
    fn said_of_thin(&self) -> String {
        let below = match self.below_min.len() {
            0 => None,
            n => Some(format!("{n} of them below min_insync_replicas")),
        };
        let Behind { bytes, ms, held_up } = self.behind;
        let behind = (bytes > 0).then(|| {
            format!("catching up {}, {}", units::bytes(bytes), units::elapsed(Duration::from_millis(ms)))
        });
        let held_up = (held_up > 0).then(|| format!("{} held up", units::counted(held_up as u64, "replica")));
        let said: Vec<_> = below.into_iter().chain(behind).chain(held_up).collect();
        if said.is_empty() { String::new() } else { format!(" ({})", said.join("; ")) }
    }

    fn brief(&self) -> Vec<String> {
        let bad: BTreeSet<_> = self.offline.iter().chain(&self.damaged).collect();
        let bad =
            counted(bad.len(), "partition").map(|are| format!("{are} damaged or offline (weir topic list)"));
        let refusing = (!self.below_min.is_empty()).then(|| {
            let verb = if self.below_min.len() == 1 { "refuses" } else { "refuse" };
            format!("{} {verb} appends", units::counted(self.below_min.len() as u64, "partition"))
        });
        let waiting = (!self.waiting.is_empty())
            .then(|| format!("appends to {} wait", units::counted(self.waiting.len() as u64, "partition")));
        let silent =
            counted(self.silent.len(), "partition").map(|are| format!("{are} led by a silent broker"));
        let thin = counted(self.thin.len(), "partition").map(|are| format!("{are} under-replicated"));
        bad.into_iter().chain(silent).chain(refusing).chain(waiting).chain(thin).collect()
    }

    /// Each partition by the worst of it, and by damage too; of each kind the first.
    fn problems(&self, seen: &Seen) -> Vec<String> {
        let leaderless: BTreeMap<_, _> = seen.leaderless.iter().map(|p| (partition::name(p), p)).collect();
        let why: BTreeMap<_, _> =
            seen.damaged.iter().map(|(name, why)| (name.as_str(), why.as_str())).collect();
        let (offline, below): (BTreeSet<_>, BTreeSet<_>) =
            (self.offline.iter().collect(), self.below_min.iter().collect());
        let damaged = |name: &String| match why.get(name.as_str()) {
            Some(why) => format!("{name} is damaged: {why}"),
            None => format!("{name} is offline"),
        };
        let of_offline = self.offline.iter().map(|name| {
            let waits =
                leaderless.get(name).and_then(|partition| said_of_leaderless(partition, &seen.brokers));
            match (waits, why.get(name.as_str())) {
                // What is wrong with the files is why it waits.
                (Some(waits), Some(why)) => format!("{waits}: it is damaged: {why}"),
                (Some(waits), None) => waits,
                (None, _) => damaged(name),
            }
        });
        let of_below = self.below_min.iter().map(|name| {
            format!("{name} refuses appends: fewer replicas are in sync than min_insync_replicas")
        });
        let of_waiting = seen.waiting.iter().map(|(name, whom)| format!("{name}: {whom}"));
        let of_damaged = self.damaged.iter().filter(|name| !offline.contains(name)).map(damaged);
        let bad = |name: &&String| {
            !(below.contains(name) || why.contains_key(name.as_str()) || self.waiting.contains(name))
        };
        let of_thin = self.thin.iter().filter(bad).map(|name| format!("{name} is under-replicated"));
        let kinds: [Vec<String>; 5] = [
            of_offline.collect(),
            of_below.collect(),
            of_waiting.collect(),
            of_damaged.collect(),
            of_thin.collect(),
        ];
        kinds.into_iter().flat_map(first).collect()
    }
}

/// What a partition waits for that nobody leads.
fn said_of_leaderless(partition: &PartitionDescription, brokers: &[BrokerDescription]) -> Option<String> {
    let name = partition::name(partition);
    if partition.waits_for_the_longest {
        return Some(format!(
            "{name} is offline: the longest log leads once replicas answer (weir partition describe {name} says what to do)"
        ));
    }
    if partition.waits_for_a_person {
        return Some(format!("{name} waits for a person (weir partition describe {name} says what to do)"));
    }
    let whom = partition::waiting::whom(partition, brokers)?;
    Some(format!("{name} is offline: it waits for {whom} (weir partition describe {name} says what to do)"))
}

/// The first of them, and how many more there are.
fn first(mut said: Vec<String>) -> Vec<String> {
    let more = said.len().saturating_sub(NAMED);
    said.truncate(NAMED);
    if more > 0 {
        said.push(format!("and {more} more of these (weir topic list)"));
    }
    said
}
