//! Elections that somebody asks for: of preferred leaders, or where nobody is known to be complete.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::timeout;
use weir_metadata::{BrokerState, Command, ElectLeader, ElectPreferred, Image, Partition, Reply};
use weir_proto::internal::v1 as pb;
use weir_proto::v1;
use weir_proto::v1::ErrorReason;
use weir_rpc::Problem;
use weir_types::{BrokerId, PartitionId};

use super::loss::{self, Accepted, Loss};
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
/// How long a broker is waited for that cuts a damaged log: what it keeps of it may be much, and whoever asked is to hear of
/// it within his own time.
const CUT_ANSWER: Duration = Duration::from_secs(5);

/// A partition and its names.
type Named = (v1::TopicPartition, PartitionId);

pub(super) async fn elect(
    parts: &Parts,
    request: pb::ElectLeadersRequest,
) -> Result<pb::ElectLeadersResponse, Problem> {
    let asked = required(request.request, "request")?;
    let accepted = Accepted::by(&asked)?;
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
        unclean(parts, &image, accepted, asked.validate_only, named).await
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
    /// With what is lost by it.
    chosen: Option<(Chosen, Loss)>,
}

/// Who of a partition's replicas has the longest log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Chosen {
    broker: BrokerId,
    end: i64,
    /// It is damaged there, and has to be cut first.
    is_damaged: bool,
}

async fn unclean(
    parts: &Parts,
    image: &Image,
    accepted: Accepted,
    validate_only: bool,
    named: Vec<Named>,
) -> Result<pb::ElectLeadersResponse, Problem> {
    if !(1..=UNCLEAN_MAX).contains(&named.len()) {
        let said = "an unclean election is of 1 to 100 partitions, each of them named";
        return Err(Problem::out_of_range("partitions", named.len(), said));
    }
    let mut candidates = judged(parts, image, named).await;
    let losses: Vec<&Loss> = candidates.iter().filter_map(|one| Some(&one.chosen.as_ref()?.1)).collect();
    let lost: i64 = losses.iter().map(|loss| loss.records).sum();
    let mut metadata_version = image.version();
    if !validate_only {
        // Where nobody can lead there is nothing to accept: that is what is said.
        if !losses.is_empty() {
            loss::check_accepted(accepted, &losses)?;
        }
        for candidate in &mut candidates {
            let Candidate { id, partition_epoch, .. } = *candidate;
            let Some((chosen, loss)) = &candidate.chosen else { continue };
            if chosen.is_damaged
                && let Err(problem) = cut(parts, image, id, *chosen).await
            {
                let (topic, partition) = (&candidate.election.topic, candidate.election.partition);
                candidate.election.leader_after = candidate.election.leader_before;
                candidate.election.failure = Some(problem.at(topic, partition).failure());
                continue;
            }
            loss.say_accepted(chosen.broker);
            let broker = chosen.broker;
            let command = ElectLeader { partition: id, broker, partition_epoch, unclean: true };
            let (topic, partition) = (&candidate.election.topic, candidate.election.partition);
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

/// Has the chosen one cut its damaged log, which keeps what it loses beside it. By that nothing is lost yet: it is a log
/// that is behind. If this ends before the election, the same records are there to be accepted again.
async fn cut(parts: &Parts, image: &Image, id: PartitionId, chosen: Chosen) -> Result<(), Problem> {
    let Chosen { broker, end, .. } = chosen;
    let record = image.partition(id).map(|record| (id, record.as_ref()));
    let asking = parts.reports.ask(image.version(), record);
    tracing::warn!(partition = %id, broker = broker.0, end, "a damaged log is to be cut");
    if timeout(CUT_ANSWER, asking.cut(id, broker, end)).await.is_ok() {
        return Ok(());
    }
    let answers = asking.answers();
    let problem = answers.get(&id).and_then(|brokers| brokers.get(&broker)).map_or("", |said| &said.problem);
    let said = format!(
        "broker {broker} has not cut its damaged log at offset {end} within {CUT_ANSWER:?}: it copies what is cut off \
         first, which takes its time; ask again ({problem})"
    );
    Err(Problem::new(ErrorReason::ControllerUnavailable, said))
}

/// Asks the replicas, and judges who of them has the longest log and what that costs.
async fn judged(parts: &Parts, image: &Image, named: Vec<Named>) -> Vec<Candidate> {
    let records: BTreeMap<PartitionId, &Partition> =
        named.iter().filter_map(|(_, id)| Some((*id, image.partition(*id)?.as_ref()))).collect();
    // A replica that has no other one beside it leads whatever became of its log.
    let open: Vec<_> = records
        .iter()
        .filter(|(_, record)| leaderless(record) || is_alone(record))
        .map(|(id, r)| (*id, *r))
        .collect();
    let replicas = open.iter().flat_map(|(_, record)| &record.replicas).map(|replica| replica.broker);
    let serving: BTreeSet<BrokerId> = replicas.filter(|broker| serves(image, *broker)).collect();
    let asking = parts.reports.ask(image.version(), open);
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
        let is_damaged =
            |record: &Partition| answers.values().any(|one| one.whole.is_some()) && is_alone(record);
        let mut chosen = None;
        match record {
            Some(record) if leaderless(record) || is_damaged(record) => {
                match longest(record, answers, |broker| serves(image, broker)) {
                    Some(one) => {
                        let name = (election.topic.clone(), election.partition);
                        let loss = Loss::of(name, image, record, answers, one.end);
                        election.records_lost = loss.records;
                        election.loss_unknown = !loss.is_known();
                        election.replicas = states(record, answers);
                        election.leader_after = one.broker.0;
                        chosen = Some((one, loss));
                    }
                    None => {
                        let is_gone =
                            |id| image.broker(id).is_none_or(|broker| broker.state == BrokerState::Removed);
                        let why = match record.replicas.iter().all(|replica| is_gone(replica.broker)) {
                            true => {
                                "every broker that had a replica of it was removed, and with them what was in it: delete the \
                                 topic and make it again"
                            }
                            false => "no replica with a log that can be used answers: start their brokers",
                        };
                        election.failure = fail(ErrorReason::NoLeader, why);
                    }
                }
            }
            Some(record) if record.leader.is_some() => {
                let why = "it is led: there is nothing to give up by an election. Where its leader cannot read what is damaged, \
                           weir topic trim gives up what comes up to behind that";
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

fn leaderless(record: &Partition) -> bool {
    record.leader.is_none() && !record.is_fresh()
}

/// Whether the only replica leads.
fn is_alone(record: &Partition) -> bool {
    record.leader.is_some() && record.replicas.len() == 1
}

/// The longest log of those that answer, the first of several; a damaged one as far as it is whole, behind one that is
/// as long and not damaged; one that readers have found damaged behind one in which they have not.
fn longest(
    record: &Partition,
    answers: &BTreeMap<BrokerId, Report>,
    serves: impl Fn(BrokerId) -> bool,
) -> Option<Chosen> {
    let judged = record.replicas.iter().filter_map(|replica| {
        let broker = replica.broker;
        let answer = answers.get(&broker).filter(|_| serves(broker))?;
        let is_damaged = !answer.problem.is_empty();
        let (end, epoch) = if is_damaged { answer.whole? } else { (answer.log_end, answer.last_epoch) };
        Some(((epoch, end, !is_damaged, answer.unreadable.is_empty()), Chosen { broker, end, is_damaged }))
    });
    judged.reduce(|best, next| if next.0 > best.0 { next } else { best }).map(|(_, chosen)| chosen)
}

fn serves(image: &Image, broker: BrokerId) -> bool {
    image.broker(broker).is_some_and(|broker| broker.state.serves())
}

fn states(record: &Partition, answers: &BTreeMap<BrokerId, Report>) -> Vec<v1::ReplicaState> {
    let state = |broker: BrokerId| {
        let silent = v1::ReplicaState { broker_id: broker.0, ..v1::ReplicaState::default() };
        answers.get(&broker).map_or(silent, |answer| v1::ReplicaState {
            broker_id: broker.0,
            answered: answer.unsaid().is_none(),
            last_epoch: answer.last_epoch,
            log_end_offset: answer.log_end,
            high_watermark: answer.high_watermark,
            problem: if answer.problem.is_empty() { &answer.unreadable } else { &answer.problem }.clone(),
            whole_until_offset: answer.whole.map(|(until, _)| until),
            known_end_offset: answer.known_end.unwrap_or(0),
        })
    };
    record.replicas.iter().map(|replica| state(replica.broker)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(end: i64, epoch: i32) -> Report {
        Report {
            epoch: 1,
            acted: 1,
            last_epoch: epoch,
            log_end: end,
            high_watermark: end,
            problem: String::new(),
            whole: None,
            known_end: Some(0),
            unreadable: String::new(),
        }
    }

    fn damaged(until: i64, epoch: i32, known_end: i64) -> Report {
        Report {
            problem: "damaged".into(),
            whole: Some((until, epoch)),
            known_end: Some(known_end),
            ..report(0, 0)
        }
    }

    #[test]
    fn the_longest_log_leads_and_a_damaged_one_as_far_as_it_is_whole() {
        let record = Partition::new([BrokerId(1), BrokerId(2), BrokerId(3)], 1);
        let chosen = |reports: [Report; 3]| {
            let answers = (1..).map(BrokerId).zip(reports).collect();
            longest(&record, &answers, |_| true).map(|one| (one.broker.0, one.end, one.is_damaged))
        };
        let lost = || Report { problem: "not here".into(), ..report(0, 0) };
        assert_eq!(chosen([report(5, 1), report(9, 1), damaged(7, 1, 30)]), Some((2, 9, false)));
        assert_eq!(chosen([report(5, 1), lost(), damaged(7, 1, 30)]), Some((3, 7, true)));
        assert_eq!(
            chosen([damaged(7, 1, 30), report(7, 1), lost()]),
            Some((2, 7, false)),
            "as long, and whole"
        );
        let rotten = || Report { unreadable: "at offset 3".into(), ..report(9, 1) };
        assert_eq!(
            chosen([rotten(), report(9, 1), lost()]),
            Some((2, 9, false)),
            "readers were refused there"
        );
        assert_eq!(chosen([rotten(), report(8, 1), lost()]), Some((1, 9, false)));
        assert_eq!(
            chosen([damaged(7, 2, 30), report(9, 1), lost()]),
            Some((1, 7, true)),
            "a later leadership"
        );
        assert_eq!(chosen([lost(), lost(), lost()]), None);
        let all = (1..).map(BrokerId).zip([report(5, 1), report(9, 1), lost()]).collect();
        let serves = longest(&record, &all, |broker| broker.0 != 2);
        assert_eq!(serves.map(|one| one.broker.0), Some(1), "who does not serve does not count");
    }
}
