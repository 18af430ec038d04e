//! DeleteRecords: moves the starts of logs up. Durable before the answer, and before anything is unlinked
//! (correctness rule 15).

use std::sync::Arc;

use tonic::{Request, Response, Status};
use weir_proto::v1::{Applied, DeleteRecordsRequest, DeleteRecordsResponse, ErrorReason, RecordsBefore};
use weir_rpc::Problem;
use weir_storage::Control;

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
    let targets = request
        .before
        .iter()
        .map(|before| target(&topic, before).map(|offset| (before.partition, offset)))
        .collect::<Result<Vec<_>, _>>()?;
    let mut log_start = Vec::with_capacity(targets.len());
    for (partition, offset) in targets {
        let log = topic.led_here(partition)?;
        match log.control(Control::SetLogStart { offset }).await {
            Ok(()) => log_start.push(RecordsBefore { partition, offset: log.ends().log_start }),
            Err(error) => {
                let problem = problems::control(&topic.name, partition, &error);
                // What failed was not done and will not be, unless the process ends over it.
                let none = log_start.is_empty() && !matches!(error, weir_storage::Error::Failed);
                return Err(problem.applied(if none { Applied::No } else { Applied::Maybe }).into());
            }
        }
    }
    Ok(Response::new(DeleteRecordsResponse { log_start }))
}

fn target(topic: &Topic, before: &RecordsBefore) -> Result<i64, Problem> {
    let ends = topic.led_here(before.partition)?.ends();
    match before.offset {
        -1 => Ok(ends.last_stable),
        offset if (0..=ends.last_stable).contains(&offset) => Ok(offset),
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
