//! DeleteRecords: moves the starts of logs up. Durable before the answer, and before anything is unlinked
//! (correctness rule 15).

use std::sync::Arc;

use futures::future::join_all;
use tonic::{Request, Response, Status};
use weir_proto::v1::{Applied, DeleteRecordsRequest, DeleteRecordsResponse, ErrorReason, RecordsBefore};
use weir_rpc::Problem;
use weir_storage::{Control, Error, Partition};

use crate::broker::Broker;
use crate::problems;
use crate::topic_map::Topic;

/// Answers the call.
pub(crate) async fn call(
    broker: &Arc<Broker>,
    request: Request<DeleteRecordsRequest>,
) -> Result<Response<DeleteRecordsResponse>, Status> {
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
}

fn target(broker: &Broker, topic: &Topic, before: &RecordsBefore) -> Result<Target, Problem> {
    let log = broker.led_here(topic, before.partition)?.clone();
    let ends = log.ends();
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
