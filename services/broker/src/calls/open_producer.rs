//! OpenProducer: an identity for writing exactly once.

use std::sync::Arc;

use tonic::{Request, Response, Status};
use weir_proto::v1::{ErrorReason, OpenProducerRequest, OpenProducerResponse, ProducerIdentity};
use weir_rpc::Problem;

use crate::broker::Broker;
use crate::cluster::answer_by;

/// Answers the call.
pub(crate) async fn call(
    broker: &Arc<Broker>,
    request: Request<OpenProducerRequest>,
) -> Result<Response<OpenProducerResponse>, Status> {
    let until = answer_by(&request);
    let request = request.into_inner();
    if !request.transactional_id.is_empty() || request.transaction_timeout_ms != 0 {
        return Err(Problem::new(
            ErrorReason::NotSupported,
            "transactional_id is set: this version has no transactions yet; leave it out for an idempotent producer",
        )
        .into());
    }
    let producer = match request.current {
        Some(current) => next_epoch(current)?,
        None => ProducerIdentity { id: broker.producer_ids.next(&broker.cluster, until).await?, epoch: 0 },
    };
    Ok(Response::new(OpenProducerResponse { producer: Some(producer) }))
}

/// The same producer, one epoch on. Partitions learn of it with its first batch, and refuse the old one from then on.
fn next_epoch(current: ProducerIdentity) -> Result<ProducerIdentity, Problem> {
    crate::ingest::producer(current, 0)?;
    match current.epoch.checked_add(1) {
        Some(epoch) => Ok(ProducerIdentity { id: current.id, epoch }),
        None => Err(Problem::out_of_range(
            "current.epoch",
            current.epoch,
            "this was the last epoch: open a producer without `current` for a new id",
        )),
    }
}
