//! Elections that nobody asks for. They run where this controller leads; what they propose is decided where it is applied.
//!
//! *Preferred*: after a broker came back, its partitions are led by others. Now and then they are given back, as far as
//! their preferred replica is in sync. *Longest*: partitions of which no replica is known to be complete wait for a person,
//! unless their topic says that the longest log shall lead. Then the replicas are asked, after a while in which the missing
//! ones may come back.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};
use weir_cluster::partition_name;
use weir_metadata::settings::UncleanRecovery;
use weir_metadata::{
    BrokerEpoch, Command, ElectPreferred, Image, Partition, RecoverPartitions, Recovery, ReplicaEnd, Reply,
};
use weir_types::{BrokerId, PartitionId};

use crate::machine::Machine;
use crate::mutant::Mutant;
use crate::propose::Proposer;
use crate::raft::Raft;
use crate::reports::{Report, Reports};

/// Partitions in one command, so that the change fits a message and others have their turn.
const PARTITIONS_MAX: usize = 1_000;
/// And in one round: the rest has its turn in the next.
const ROUND_MAX: usize = 100_000;

/// Whether this controller leads. `None`: raft has ended.
fn leads(raft: &Raft) -> Option<bool> {
    let metrics = raft.server_metrics();
    metrics.has_changed().ok()?;
    // Taken out at once (rule 34).
    let metrics = metrics.borrow().clone();
    Some(metrics.current_leader == Some(metrics.id))
}

/// Gives leaderships back to preferred replicas, every so often. Ends with raft; at once if that is never.
pub(crate) async fn give_back(raft: Raft, machine: Machine, proposer: Proposer, every: Duration) {
    if every.is_zero() || Mutant::NeverGivenBack.is_planted() {
        return;
    }
    loop {
        sleep(every).await;
        let Some(leads) = leads(&raft) else { return };
        if !leads {
            continue;
        }
        let partitions = machine.hub().image().preferring(ROUND_MAX);
        if !partitions.is_empty() {
            tracing::info!(partitions = partitions.len(), "giving leaderships back to preferred replicas");
        }
        for partitions in partitions.chunks(PARTITIONS_MAX) {
            let command = ElectPreferred { partitions: partitions.to_vec() };
            if let Err(unapplied) = proposer.propose(Command::ElectPreferred(command)).await {
                tracing::debug!("leaderships stay where they are: {}", unapplied.problem());
                break;
            }
        }
    }
}

/// Lets the longest log lead where topics say so. Ends with raft.
pub(crate) async fn recover(
    raft: Raft,
    machine: Machine,
    proposer: Proposer,
    reports: Reports,
    session: Duration,
) {
    let mut waiting: BTreeMap<PartitionId, Instant> = BTreeMap::new();
    loop {
        sleep(session / 6).await;
        let Some(leads) = leads(&raft) else { return };
        let image = machine.hub().image();
        let found = if leads { wanting(&image) } else { BTreeMap::new() };
        let now = Instant::now();
        waiting.retain(|id, _| found.contains_key(id));
        for id in found.keys() {
            waiting.entry(*id).or_insert(now);
        }
        let is_due = |id: &PartitionId| waiting.get(id).is_some_and(|since| now - *since >= session);
        let due: Vec<_> = found.into_iter().filter(|(id, _)| is_due(id)).take(PARTITIONS_MAX).collect();
        if due.is_empty() {
            continue;
        }
        let serving = |broker: &BrokerId| image.broker(*broker).is_some_and(|broker| broker.state.serves());
        let held = due.iter().flat_map(|(_, record)| &record.replicas).map(|replica| replica.broker);
        let brokers: BTreeSet<BrokerId> = held.filter(serving).collect();
        let asking = reports.ask(image.version(), due.iter().copied());
        // Who does not answer for so long is about to be fenced.
        let _ = timeout(session, asking.answered_by(&brokers)).await;
        let answers = asking.answers();
        let recoveries = due.iter().filter_map(|(id, record)| {
            let ends = ends(answers.get(id)?);
            let recovery = Recovery { partition: *id, partition_epoch: record.partition_epoch, ends };
            Some(recovery).filter(|recovery| !recovery.ends.is_empty())
        });
        let partitions: Vec<_> = recoveries.collect();
        if partitions.is_empty() {
            continue;
        }
        let asked: Vec<_> = partitions.iter().map(|recovery| recovery.partition).collect();
        match proposer.propose(Command::RecoverPartitions(RecoverPartitions { partitions })).await {
            Ok((Reply::Partitions { refused }, version)) => {
                let image = machine.hub().wait_for(version).await;
                for (id, error) in &refused {
                    let partition = partition_name(&image, *id);
                    tracing::warn!(partition, "no replica of it leads by what was asked of them: {error}");
                }
                for id in asked.into_iter().filter(|id| refused.iter().all(|(other, _)| other != id)) {
                    say_led(&image, id, answers.get(&id));
                }
            }
            Ok(_) => {}
            Err(unapplied) => tracing::warn!("partitions were not recovered: {}", unapplied.problem()),
        }
    }
}

/// Whoever looks for lost records later finds here which log leads, where it ends, and what was known to be behind that.
fn say_led(image: &Image, id: PartitionId, answers: Option<&BTreeMap<BrokerId, Report>>) {
    let topic = image.topic(id.topic).map_or("", |topic| &topic.name);
    let leader = image.partition(id).and_then(|record| record.leader);
    let Some((broker, answers)) = leader.zip(answers) else { return };
    let Some(Report { log_end, .. }) = answers.get(&broker) else { return };
    let known = answers.values().map(Report::known).max();
    let known_lost = (known.unwrap_or(0) - log_end).max(0);
    tracing::warn!(
        topic,
        partition = id.partition,
        broker = broker.0,
        log_end,
        known_lost,
        "no replica was known to be complete: the longest log leads, and what others had beyond it is lost \
         (unclean_recovery = longest)"
    );
}

/// Partitions that wait, of topics whose longest log shall lead.
fn wanting(image: &Image) -> BTreeMap<PartitionId, &Partition> {
    let longest = |id: &PartitionId| {
        let topic = image.topic(id.topic);
        topic.is_some_and(|topic| image.topic_settings(topic).unclean_recovery == UncleanRecovery::Longest)
    };
    let waiting = image.waiting(ROUND_MAX).into_iter().filter(longest);
    waiting.filter_map(|id| Some((id, image.partition(id)?.as_ref()))).collect()
}

/// The ends that may count: those of logs that can be used.
pub(crate) fn ends(answers: &BTreeMap<BrokerId, Report>) -> Vec<ReplicaEnd> {
    let usable = answers.iter().filter(|(_, report)| report.problem.is_empty());
    let end = |(broker, report): (&BrokerId, &Report)| ReplicaEnd {
        by: BrokerEpoch { broker: *broker, epoch: report.epoch },
        last_epoch: report.last_epoch,
        log_end: report.log_end,
    };
    usable.map(end).collect()
}
