//! DeleteRecords: moves the starts of logs up. Durable before the answer, and before anything is unlinked, and answered
//! when every replica in sync begins there: whoever leads next has not what was deleted (correctness rule 15).

use std::sync::Arc;

use futures::future::join_all;
use tokio::time::{Instant, timeout_at};
use tonic::{Request, Response, Status};
use weir_proto::v1::{Applied, DeleteRecordsRequest, DeleteRecordsResponse, ErrorReason, RecordsBefore};
use weir_rpc::{Problem, deadline};
use weir_storage::{Control, Error, Partition};

use crate::broker::Broker;
use crate::problems;
use crate::topic_map::Topic;

/// Answers the call.
pub(crate) async fn call(
    broker: &Arc<Broker>,
    request: Request<DeleteRecordsRequest>,
) -> Result<Response<DeleteRecordsResponse>, Status> {
    let caller_ends = deadline::of(request.metadata()).map(deadline::before);
    let request = request.into_inner();
    let topic = broker.topics.get(&request.topic)?;
    if request.before.is_empty() {
        return Err(Problem::required("before", "name at least one partition").into());
    }
    if topic.is_internal() {
        return Err(Problem::new(
            ErrorReason::TopicInternal,
            format!("topic \"{}\" belongs to the system: its records are not deleted by hand", topic.name),
        )
        .into());
    }
    // All are checked before the first is carried out.
    let targets =
        request.before.iter().map(|before| target(broker, &topic, before)).collect::<Result<Vec<_>, _>>()?;
    // Together: those of a moment become durable at once.
    let moves = join_all(targets.iter().map(|target| target.log.control(target.control()))).await;
    let mut log_start = Vec::with_capacity(targets.len());
    let (mut refused, mut unsure) = (None, false);
    for (target, moved) in targets.iter().zip(moves) {
        let partition = target.log.id().partition;
        match moved {
            Ok(()) => log_start.push(RecordsBefore { partition, offset: target.log.ends().log_start }),
            Err(error) => {
                // What failed was not done and will not be, unless the log was closed or the process ends over it.
                unsure |= matches!(error, Error::Failed | Error::Closed);
                refused.get_or_insert((partition, error));
            }
        }
    }
    if let Some((partition, error)) = refused {
        let problem = problems::control(&topic.name, partition, &error);
        let none = log_start.is_empty() && !unsure;
        return Err(problem.applied(if none { Applied::No } else { Applied::Maybe }).into());
    }
    // Who does not follow leaves the in-sync set in less.
    let longest = Instant::now() + 2 * broker.config.replica_lag_ms_max;
    let until = caller_ends.map_or(longest, |ends| ends.min(longest));
    let moved = join_all(targets.iter().map(|target| target.is_everywhere(broker, &topic, until))).await;
    moved.into_iter().collect::<Result<Vec<()>, _>>()?;
    Ok(Response::new(DeleteRecordsResponse { log_start }))
}

/// Where a log is to begin.
struct Target {
    log: Partition,
    offset: i64,
}

impl Target {
    fn control(&self) -> Control {
        Control::SetLogStart { offset: self.offset }
    }

    /// Waits until every replica in sync begins there. What this one has deleted stays deleted, whatever comes of it.
    async fn is_everywhere(&self, broker: &Broker, topic: &Topic, until: Instant) -> Result<(), Problem> {
        let (id, offset) = (self.log.id(), self.offset);
        let place = format!("{}/{}", topic.name, id.partition);
        let led = broker.replication.led(id);
        let moved = async { Some(led.as_ref()?.begins_everywhere_at(offset).await) };
        let problem = match timeout_at(until, moved).await {
            Ok(Some(true)) => return Ok(()),
            Ok(Some(false) | None) => Problem::new(
                ErrorReason::OutcomeUnknown,
                format!(
                    "{place}: this broker has deleted what is before {offset}, and does not lead any more: whoever does may \
                     not have; ask again"
                ),
            )
            .applied(Applied::Maybe),
            Err(_) => {
                let lacks = led.map(|led| led.lacks_start(offset)).unwrap_or_default();
                let lacks: Vec<_> = lacks.iter().map(ToString::to_string).collect();
                let lacks = lacks.join(", ");
                let why = if lacks.is_empty() {
                    "fewer replicas than min_insync_replicas are in sync".to_owned()
                } else {
                    format!("brokers {lacks}, which are in sync, have not deleted it yet")
                };
                Problem::new(
                    ErrorReason::DeadlineExceeded,
                    format!(
                        "{place}: what is before {offset} is deleted on the leader, and {why}: replicas follow by themselves, \
                         and if one leads before it has, ask again"
                    ),
                )
                .applied(Applied::Yes)
                .fact("brokers", lacks)
            }
        };
        Err(problem.fact("log_start_offset", offset).at(&topic.name, id.partition))
    }
}

fn target(broker: &Broker, topic: &Topic, before: &RecordsBefore) -> Result<Target, Problem> {
    let log = broker.led_here(topic, before.partition)?.clone();
    let ends = log.ends();
    if before.offset == -1 || before.offset > ends.last_stable {
        // More may be committed than this leader knows yet (correctness rules 4, 8).
        topic.check_settled(before.partition, &ends)?;
    }
    match before.offset {
        -1 => Ok(Target { log, offset: ends.last_stable }),
        offset if (0..=ends.last_stable).contains(&offset) => Ok(Target { log, offset }),
        offset => Err(Problem::new(
            ErrorReason::OffsetOutOfRange,
            format!(
                "{}/{}: records before {offset} cannot be deleted: give -1, or an offset from 0 to {}, the end of \
                 what is committed",
                topic.name, before.partition, ends.last_stable
            ),
        )
        .fact("offset", offset)
        .fact("last_stable_offset", ends.last_stable)
        .at(&topic.name, before.partition)),
    }
}
