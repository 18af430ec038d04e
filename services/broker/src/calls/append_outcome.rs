//! GetAppendOutcome: after a lost answer, what became of the append (correctness rule 19).

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tonic::{Request, Response, Status};
use weir_proto::v1::{AppendOutcome, ErrorReason, GetAppendOutcomeRequest, GetAppendOutcomeResponse};
use weir_rpc::{Problem, deadline};
use weir_storage::{Appended, Ends, Limit, Outcome, OutcomeQuery, Partition, UnknownCause};
use weir_types::{KnownBatch, PartitionId};

use crate::broker::Broker;
use crate::calls::list_offsets;
use crate::ingest;
use crate::mutant::Mutant;
use crate::problems;
use crate::reading;
use crate::receipts;
use crate::replication::Replication;
use crate::topic_map::Topic;

/// The log is given at least so long to answer, also to callers who do not wait.
const SEAL_MIN: Duration = Duration::from_secs(1);

/// Answers the call.
pub(crate) async fn call(
    broker: &Arc<Broker>,
    request: Request<GetAppendOutcomeRequest>,
) -> Result<Response<GetAppendOutcomeResponse>, Status> {
    let caller_ends = deadline::of(request.metadata());
    let request = request.into_inner();
    let identity = request
        .producer
        .ok_or_else(|| Problem::required("producer", "an outcome is asked by its producer"))?;
    let producer = ingest::producer(identity, request.sequence)?;
    let wait = u64::try_from(request.wait_ms)
        .map(Duration::from_millis)
        .map_err(|_| Problem::out_of_range("wait_ms", request.wait_ms, "must not be negative"))?
        .min(broker.config.wait_ms_max);
    let until = deadline::wait_until(wait, caller_ends);
    let topic = broker.topics.get(&request.topic)?;
    topic.check_id(&request.topic_id)?;
    let log = broker.led_here(&topic, request.partition)?;
    let query = OutcomeQuery { producer, base_sequence: request.sequence, seal: request.seal };
    loop {
        let asked = tokio::time::timeout_at(until.max(Instant::now() + SEAL_MIN), log.append_outcome(query));
        let outcome = match asked.await {
            Err(_) => return Err(not_in_time(broker, &topic, request.partition).into()),
            Ok(answer) => answer
                .map_err(|error| problems::control(&topic.name, request.partition, &error))?
                .map_err(|error| problems::append(&topic.name, request.partition, None, &error))?,
        };
        if let Err(unsure) = sure(&broker.replication, &topic, request.partition, &log.ends(), &outcome) {
            if Instant::now() >= until {
                return Err(unsure.into());
            }
            let mut changes = log.watch();
            tokio::select! {
                _ = changes.changed() => {}
                () = tokio::time::sleep_until(until) => {}
            }
            continue;
        }
        match outcome {
            Outcome::Pending(batch) if Instant::now() < until => {
                tokio::select! {
                    () = reading::arrival(log.clone(), Limit::HighWatermark, batch.last_offset) => {}
                    () = tokio::time::sleep_until(until) => {}
                }
            }
            outcome => return Ok(Response::new(answer(broker, &topic, request.partition, log, &outcome))),
        }
    }
}

/// Whether an outcome is what any leader would say. What is committed is; anything else only once all that was committed
/// before this leadership is known here, and while nobody else can lead (correctness rules 10, 19).
fn sure(
    replication: &Replication,
    topic: &Topic,
    partition: i32,
    ends: &Ends,
    outcome: &Outcome,
) -> Result<(), Problem> {
    if matches!(outcome, Outcome::Appended(_) | Outcome::Never { .. }) {
        return Ok(());
    }
    if !Mutant::OutcomeUnheard.is_planted() {
        list_offsets::still_leads(replication, topic, partition)?;
    }
    topic.check_settled(partition, ends)
}

fn not_in_time(broker: &Broker, topic: &Topic, partition: i32) -> Problem {
    let led = broker.replication.led(PartitionId { topic: topic.id, partition });
    let why = led.map(|led| led.awaited(0).behind_a_colon()).unwrap_or_default();
    let said = format!("{}/{partition}: the fence was not committed in time; ask again{why}", topic.name);
    Problem::new(ErrorReason::DeadlineExceeded, said).at(&topic.name, partition)
}

fn answer(
    broker: &Broker,
    topic: &Topic,
    partition: i32,
    log: &Partition,
    outcome: &Outcome,
) -> GetAppendOutcomeResponse {
    let led = broker.replication.led(log.id());
    let receipt = |batch: &KnownBatch, committed| {
        let appended = Appended {
            base_offset: batch.base_offset,
            last_offset: batch.last_offset,
            leader_epoch: batch.leader_epoch,
            append_time_ms: batch.append_time_ms,
            duplicate: true,
            committed,
            flushed: log.ends().flushed_end > batch.last_offset,
            holders: led.as_ref().map(|led| led.holders(batch.last_offset + 1)).unwrap_or_default(),
        };
        Some(receipts::receipt(topic, partition, &appended))
    };
    let (outcome, receipt, cause) = match outcome {
        Outcome::Appended(batch) => (AppendOutcome::Appended, receipt(batch, true), ""),
        Outcome::Pending(batch) => (AppendOutcome::Pending, receipt(batch, false), ""),
        Outcome::NotSoFar => (AppendOutcome::NotSoFar, None, ""),
        Outcome::Never { .. } => (AppendOutcome::Never, None, ""),
        Outcome::Unknown(UnknownCause::Expired) => (AppendOutcome::Unknown, None, "expired"),
        Outcome::Unknown(UnknownCause::Window) => (AppendOutcome::Unknown, None, "window"),
        Outcome::Unknown(UnknownCause::Fenced) => (AppendOutcome::Unknown, None, "fenced"),
    };
    GetAppendOutcomeResponse { outcome: outcome.into(), receipt, unknown_cause: cause.to_owned() }
}

#[cfg(test)]
mod tests {
    use weir_storage::Acks;
    use weir_types::{Producer, ProducerId};

    use super::*;
    use crate::testing::{ID, Parts, append, batch, recorded, topic};

    #[tokio::test(start_paused = true)]
    async fn what_another_leader_may_know_better_is_told_only_within_the_session() {
        let (parts, topic) = (Parts::new(), topic());
        let log = parts.lead(ID, recorded(1, &[1])).await;
        let producer = Producer { id: ProducerId(9), epoch: 0 };
        let first = weir_storage::NewBatch { producer: Some(producer), ..batch(0) };
        append(&log, first, Acks::All, None).await.unwrap().unwrap();
        let ask = async |base_sequence| {
            let query = OutcomeQuery { producer, base_sequence, seal: false };
            log.append_outcome(query).await.unwrap().unwrap()
        };
        let (appended, not_so_far) = (ask(0).await, ask(1).await);
        let Outcome::Appended(batch) = appended else { panic!("{appended:?}") };
        assert_eq!(not_so_far, Outcome::NotSoFar);
        let (pending, never) = (Outcome::Pending(batch), Outcome::Never { next_epoch: 1 });
        let causes =
            [UnknownCause::Expired, UnknownCause::Window, UnknownCause::Fenced].map(Outcome::Unknown);
        let said = |outcome: &Outcome| {
            let sure = sure(&parts.replication, &topic, 0, &log.ends(), outcome);
            sure.map_err(|unsure| unsure.reason)
        };
        let changeable = causes.iter().chain([&not_so_far, &pending]).collect::<Vec<_>>();
        parts.is_heard();
        for outcome in changeable.iter().copied().chain([&appended, &never]) {
            assert_eq!(said(outcome), Ok(()), "{outcome:?}");
        }
        parts.is_unheard().await;
        for outcome in changeable {
            assert_eq!(said(outcome), Err(ErrorReason::OffsetNotAvailable), "{outcome:?}");
        }
        // What is committed stays, a fence too.
        for outcome in [&appended, &never] {
            assert_eq!(said(outcome), Ok(()), "{outcome:?}");
        }
    }

    #[test]
    fn an_outcome_that_is_told_by_who_is_not_heard_is_noticed() {
        let test = what_another_leader_may_know_better_is_told_only_within_the_session;
        assert!(Mutant::OutcomeUnheard.is_noticed_by(test));
    }
}
