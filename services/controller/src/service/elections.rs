//! Elections that somebody asks for: of preferred leaders, or where nobody is known to be complete.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::timeout;
use weir_metadata::{Command, ElectLeader, ElectPreferred, Image, Partition, Reply};
use weir_proto::internal::v1 as pb;
use weir_proto::v1;
use weir_proto::v1::ErrorReason;
use weir_rpc::Problem;
use weir_types::{BrokerId, PartitionId};

use super::{Parts, defect, required};
use crate::reports::Report;

/// Partitions in one command.
const CHUNK: usize = 1_000;
/// Partitions of one unclean election: a person looks at each of them.
const UNCLEAN_MAX: usize = 100;
/// Preferred elections of one call.
const PREFERRED_MAX: usize = 100_000;
/// So many partitions are named in a call, and elections in an answer, at most: it must fit what every client takes.
const NAMED_MAX: usize = 1_000;
/// How long replicas are waited for: some heartbeats.
const REPLICAS_ANSWER: Duration = Duration::from_secs(3);

/// A partition and its names.
type Named = (v1::TopicPartition, PartitionId);

pub(super) async fn elect(
    parts: &Parts,
    request: pb::ElectLeadersRequest,
) -> Result<pb::ElectLeadersResponse, Problem> {
    let asked = required(request.request, "request")?;
    parts.barrier.pass().await?;
    let image = parts.machine.hub().image();
    let mut named = Vec::new();
    for partition in &asked.partitions {
        let topic = image.find_topic(&partition.topic).map_err(|error| weir_cluster::problem(&error))?;
        let id = PartitionId { topic: topic.id, partition: partition.partition };
        if image.partition(id).is_none() {
            let said = format!("partition {}/{} does not exist", partition.topic, partition.partition);
            return Err(Problem::new(ErrorReason::PartitionNotFound, said));
        }
        named.push((partition.clone(), id));
    }
    if asked.unclean {
        unclean(parts, &image, &asked, named).await
    } else {
        preferred(parts, &image, &asked, named).await
    }
}

fn leader(partition: Option<&Partition>) -> i32 {
    partition.and_then(|partition| partition.leader).map_or(-1, |leader| leader.0)
}

async fn preferred(
    parts: &Parts,
    image: &Image,
    asked: &v1::ElectLeadersRequest,
    mut named: Vec<Named>,
) -> Result<pb::ElectLeadersResponse, Problem> {
    if named.len() > NAMED_MAX {
        return Err(Problem::out_of_range("partitions", named.len(), "a call names 1,000 at most"));
    }
    if named.is_empty() {
        let of = |id: PartitionId| {
            let topic = image.topic(id.topic)?.name.to_string();
            Some((v1::TopicPartition { topic, partition: id.partition }, id))
        };
        named = image.preferring(PREFERRED_MAX).into_iter().filter_map(of).collect();
    }
    let mut metadata_version = image.version();
    let mut after = parts.machine.hub().image();
    if !asked.validate_only {
        for chunk in named.chunks(CHUNK) {
            let partitions = chunk.iter().map(|(_, id)| *id).collect();
            let command = Command::ElectPreferred(ElectPreferred { partitions });
            let (reply, version) = parts.run(command, false).await?;
            let Reply::Partitions { .. } = reply else { return Err(defect()) };
            metadata_version = version;
        }
        after = parts.machine.hub().wait_for(metadata_version).await;
    }
    let election = |(name, id): Named| {
        let before = image.partition(id).map(AsRef::as_ref);
        let would = asked.validate_only.then(|| image.preferred_leader(id)).flatten();
        let now = would.map_or_else(|| leader(after.partition(id).map(AsRef::as_ref)), |broker| broker.0);
        let wanted = before.and_then(|record| record.replicas.first()).map_or(-1, |first| first.broker.0);
        let failure = (now != wanted).then(|| {
            let why =
                if now < 0 { "nobody leads it, so nothing can be given back" } else { "it is not in sync" };
            let said = format!(
                "{}/{}: its preferred replica is on broker {wanted}: {why}",
                name.topic, name.partition
            );
            Problem::new(ErrorReason::NoLeader, said).at(&name.topic, name.partition).failure()
        });
        v1::Election {
            topic: name.topic,
            partition: name.partition,
            leader_before: leader(before),
            leader_after: now,
            failure,
            ..v1::Election::default()
        }
    };
    let omitted = i32::try_from(named.len().saturating_sub(NAMED_MAX)).unwrap_or(i32::MAX);
    let elections = named.into_iter().take(NAMED_MAX).map(election).collect();
    let response = Some(v1::ElectLeadersResponse { elections, records_lost: 0, omitted });
    Ok(pb::ElectLeadersResponse { response, metadata_version })
}

/// One partition that nobody leads, and who may.
struct Candidate {
    election: v1::Election,
    id: PartitionId,
    partition_epoch: i32,
    chosen: Option<BrokerId>,
}

async fn unclean(
    parts: &Parts,
    image: &Image,
    asked: &v1::ElectLeadersRequest,
    named: Vec<Named>,
) -> Result<pb::ElectLeadersResponse, Problem> {
    if !(1..=UNCLEAN_MAX).contains(&named.len()) {
        let said = "an unclean election is of 1 to 100 partitions, each of them named";
        return Err(Problem::out_of_range("partitions", named.len(), said));
    }
    let mut candidates = judged(parts, image, named).await;
    let lost: i64 = candidates.iter().map(|candidate| candidate.election.records_lost).sum();
    let mut metadata_version = image.version();
    if !asked.validate_only {
        if asked.accepted_loss_records != Some(lost) {
            let said = match asked.accepted_loss_records {
                Some(accepted) => format!("{lost} records would be lost, and {accepted} were accepted"),
                None => format!("{lost} records would be lost, and how many may be was not said"),
            };
            return Err(Problem::new(ErrorReason::LossNotAccepted, said).fact("records_lost", lost));
        }
        for candidate in &mut candidates {
            let Some(broker) = candidate.chosen else { continue };
            let Candidate { id, partition_epoch, .. } = *candidate;
            let command = ElectLeader { partition: id, broker, partition_epoch, unclean: true };
            let (topic, partition) = (&candidate.election.topic, candidate.election.partition);
            tracing::warn!(
                topic,
                partition,
                broker = broker.0,
                lost,
                "a person has accepted the loss of records"
            );
            match parts.run(Command::ElectLeader(command), false).await {
                Ok((_, version)) => metadata_version = version,
                Err(problem) => {
                    candidate.election.leader_after = candidate.election.leader_before;
                    candidate.election.failure = Some(problem.at(topic, partition).failure());
                }
            }
        }
    }
    let elections = candidates.into_iter().map(|candidate| candidate.election).collect();
    let response = Some(v1::ElectLeadersResponse { elections, records_lost: lost, omitted: 0 });
    Ok(pb::ElectLeadersResponse { response, metadata_version })
}

/// Asks the replicas, and judges who of them has the longest log and what that costs.
async fn judged(parts: &Parts, image: &Image, named: Vec<Named>) -> Vec<Candidate> {
    let records: BTreeMap<PartitionId, &Partition> =
        named.iter().filter_map(|(_, id)| Some((*id, image.partition(*id)?.as_ref()))).collect();
    let leaderless = |record: &Partition| record.leader.is_none() && !record.is_fresh();
    let open: Vec<_> =
        records.iter().filter(|(_, record)| leaderless(record)).map(|(id, r)| (*id, *r)).collect();
    let replicas = open.iter().flat_map(|(_, record)| &record.replicas).map(|replica| replica.broker);
    let serving: BTreeSet<BrokerId> = replicas.filter(|broker| serves(image, *broker)).collect();
    let asking = parts.reports.ask(open);
    // Whoever does not answer is shown as such.
    let _ = timeout(REPLICAS_ANSWER, asking.answered_by(&serving)).await;
    let answers = asking.answers();
    let candidate = |(name, id): Named| {
        let record = records.get(&id).copied();
        let none = BTreeMap::new();
        let answers = answers.get(&id).unwrap_or(&none);
        let mut election = v1::Election {
            leader_before: leader(record),
            leader_after: leader(record),
            // Of others nobody was asked.
            replicas: record
                .filter(|record| leaderless(record))
                .map_or_else(Vec::new, |record| states(record, answers)),
            topic: name.topic,
            partition: name.partition,
            ..v1::Election::default()
        };
        let fail = |reason, why: &str| {
            let said = format!("{}/{}: {why}", election.topic, election.partition);
            Some(Problem::new(reason, said).at(&election.topic, election.partition).failure())
        };
        let mut chosen = None;
        match record {
            Some(record) if leaderless(record) => {
                let usable = record.replicas.iter().filter_map(|replica| {
                    let answer = answers.get(&replica.broker).filter(|answer| answer.problem.is_empty())?;
                    serves(image, replica.broker).then_some((
                        answer.last_epoch,
                        answer.log_end,
                        replica.broker,
                    ))
                });
                let longest =
                    usable.reduce(|best, next| if (next.0, next.1) > (best.0, best.1) { next } else { best });
                match longest {
                    Some((_, log_end, broker)) => {
                        let known = answers.values().map(|answer| answer.high_watermark).max().unwrap_or(0);
                        election.records_lost = known.saturating_sub(log_end).max(0);
                        election.leader_after = broker.0;
                        chosen = Some(broker);
                    }
                    None => {
                        let why = "no replica with a log that can be used answers: start their brokers";
                        election.failure = fail(ErrorReason::NoLeader, why);
                    }
                }
            }
            Some(record) if record.leader.is_some() => {
                let why = "it is led by a replica that is complete: there is nothing to give up";
                election.failure = fail(ErrorReason::FieldsConflict, why);
            }
            _ => {
                let why = "it was never led: its brokers have not made it yet";
                election.failure = fail(ErrorReason::NoLeader, why);
            }
        }
        let partition_epoch = record.map_or(0, |record| record.partition_epoch);
        Candidate { election, id, partition_epoch, chosen }
    };
    named.into_iter().map(candidate).collect()
}

fn serves(image: &Image, broker: BrokerId) -> bool {
    image.broker(broker).is_some_and(|broker| broker.state.serves())
}

fn states(record: &Partition, answers: &BTreeMap<BrokerId, Report>) -> Vec<v1::ReplicaState> {
    let state = |broker: BrokerId| {
        let silent = v1::ReplicaState { broker_id: broker.0, ..v1::ReplicaState::default() };
        answers.get(&broker).map_or(silent, |answer| v1::ReplicaState {
            broker_id: broker.0,
            answered: true,
            last_epoch: answer.last_epoch,
            log_end_offset: answer.log_end,
            high_watermark: answer.high_watermark,
            problem: answer.problem.clone(),
        })
    };
    record.replicas.iter().map(|replica| state(replica.broker)).collect()
}
