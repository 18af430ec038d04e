//! ListOffsets: offsets by place or by time.

use std::sync::Arc;

use tonic::{Request, Response, Status};
use weir_proto::v1::{
    ErrorReason, ListOffsetsRequest, ListOffsetsResponse, OffsetAnswer, OffsetQuery, StartAt,
};
use weir_rpc::Problem;
use weir_storage::{Ends, Limit};
use weir_types::{Offset, PartitionId};

use crate::broker::Broker;
use crate::mutant::Mutant;
use crate::reading;
use crate::replication::{Replication, UNSURE};
use crate::times;
use crate::topic_map::{Hints, Topic};

const QUERIES_MAX: usize = 10_000;

/// What an end is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum For {
    /// To be told: it must be sure that no other broker knows of a later one (correctness rule 10).
    Telling,
    /// To read up to it, for a Consume that came to another broker. Committed reads go on at a leader that no controller
    /// answers, and a Consume that comes to it ends where its own committed records end: so does one that is passed on.
    /// Nobody is told that nothing comes after them; what is read is committed, and in every later leader's log.
    Reading,
}

/// Answers the call.
pub(crate) async fn call(
    broker: &Arc<Broker>,
    request: Request<ListOffsetsRequest>,
    asked_for: For,
) -> Result<Response<ListOffsetsResponse>, Status> {
    let request = request.into_inner();
    let limit = reading::limit(request.isolation)?;
    let count = request.queries.len();
    if !(1..=QUERIES_MAX).contains(&count) {
        return Err(Problem::out_of_range("queries", count, "a call asks 1 to 10000 questions").into());
    }
    let mut offsets = Vec::with_capacity(count);
    let mut problems = Vec::new();
    let mut hints = Hints::default();
    for query in request.queries {
        // Others must have their turn between so many questions.
        tokio::task::coop::consume_budget().await;
        match answer(broker, &query, limit, asked_for, &mut hints).await {
            Ok(answer) => offsets.push(answer),
            Err(problem) => {
                offsets.push(OffsetAnswer {
                    topic: query.topic,
                    partition: query.partition,
                    failure: Some(problem.failure()),
                    ..OffsetAnswer::default()
                });
                problems.push(problem);
            }
        }
    }
    match Problem::status_of_all(&problems).filter(|_| !request.allow_partial) {
        Some(status) => Err(status),
        None => Ok(Response::new(ListOffsetsResponse { offsets })),
    }
}

/// Another broker may lead by now, with records that this one has not: its end is no answer (correctness rule 10).
pub(super) fn still_leads(replication: &Replication, topic: &Topic, partition: i32) -> Result<(), Problem> {
    if replication.is_sure(PartitionId { topic: topic.id, partition }) {
        return Ok(());
    }
    let name = &topic.name;
    let said =
        format!("the end of {name}/{partition} is not known for sure: this broker leads it, but {UNSURE}");
    Err(Problem::new(ErrorReason::OffsetNotAvailable, said).at(name, partition))
}

/// The end of what a reader may see.
fn latest(
    replication: &Replication,
    topic: &Topic,
    partition: i32,
    ends: &Ends,
    limit: Limit,
    asked_for: For,
) -> Result<Offset, Problem> {
    if asked_for == For::Telling && !Mutant::LatestUnheard.is_planted() {
        still_leads(replication, topic, partition)?;
    }
    topic.check_settled(partition, ends)?;
    Ok(ends.end(limit))
}

async fn answer(
    broker: &Broker,
    query: &OffsetQuery,
    limit: Limit,
    asked_for: For,
    hints: &mut Hints,
) -> Result<OffsetAnswer, Problem> {
    let topic = broker.topics.get_hinting(&query.topic, hints)?;
    let log = broker.led_here(&topic, query.partition)?;
    let at = StartAt::try_from(query.start_at)
        .map_err(|_| Problem::unknown_enum("queries.start_at", query.start_at))?;
    let ends = log.ends();
    let (offset, timestamp_ms) = match (query.timestamp_ms, at) {
        (Some(_), StartAt::Earliest | StartAt::Latest) => {
            return Err(Problem::conflict(
                "queries.timestamp_ms",
                "queries.start_at",
                "a question is about a time or a place",
            ));
        }
        (Some(ms), StartAt::Unspecified) if ms < 0 => {
            return Err(Problem::out_of_range("queries.timestamp_ms", ms, "must not be negative"));
        }
        (Some(ms), StartAt::Unspecified) => {
            match times::first_since(broker, &topic, query.partition, log, ms, limit).await? {
                Some(found) => (found.offset, found.timestamp_ms),
                // Nothing came since, as far as anybody may say that.
                None => (latest(&broker.replication, &topic, query.partition, &ends, limit, asked_for)?, 0),
            }
        }
        (None, StartAt::Earliest) => (ends.log_start, 0),
        (None, StartAt::Latest | StartAt::Unspecified) => {
            (latest(&broker.replication, &topic, query.partition, &ends, limit, asked_for)?, 0)
        }
    };
    Ok(OffsetAnswer {
        topic: query.topic.clone(),
        partition: query.partition,
        offset,
        timestamp_ms,
        // Of what is before it: the epoch in force may have nothing there, and whoever names it would be taken for a reader of
        // something that is not there.
        leader_epoch: log.epoch_before(offset).unwrap_or(0),
        failure: None,
    })
}

#[cfg(test)]
mod tests {
    use weir_storage::Acks;

    use super::*;
    use crate::testing::{ID, Parts, append, batch, recorded, topic};

    #[tokio::test(start_paused = true)]
    async fn the_end_is_told_only_within_the_session() {
        let (parts, topic) = (Parts::new(), topic());
        let log = parts.lead(ID, recorded(1, &[1])).await;
        append(&log, batch(0), Acks::All, None).await.unwrap().unwrap();
        let told = |asked_for| {
            let end = latest(&parts.replication, &topic, 0, &log.ends(), Limit::HighWatermark, asked_for);
            end.map_err(|problem| problem.reason)
        };
        parts.is_heard();
        assert_eq!((told(For::Telling), told(For::Reading)), (Ok(1), Ok(1)));
        parts.is_unheard().await;
        assert_eq!(told(For::Telling), Err(ErrorReason::OffsetNotAvailable));
        assert_eq!(told(For::Reading), Ok(1), "what is committed is read on");
    }

    #[test]
    fn an_end_that_is_told_by_who_is_not_heard_is_noticed() {
        assert!(Mutant::LatestUnheard.is_noticed_by(the_end_is_told_only_within_the_session));
    }
}
