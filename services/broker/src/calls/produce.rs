//! Produce: plain records or one batch, answered when they are as safe as was asked.
//!
//! An append runs in the partition's claim: when the caller's deadline passes, or its connection breaks, this
//! handler goes away and the append does not.
//!
//! Records that are spread by key may belong to partitions of several leaders: what is led elsewhere goes there, each
//! partition's share as one batch ([`elsewhere`]).

mod elsewhere;
mod plain_records;

use std::sync::Arc;

use futures::future::join_all;
use tokio::sync::oneshot;
use tokio::time::Instant;
use tonic::{Request, Response, Status};
use weir_proto::v1::{AppendReceipt, Applied, ErrorReason, ProduceRequest, ProduceResponse};
use weir_rpc::{Problem, deadline};
use weir_storage::{Acks, Append, AppendError, Appended, NewBatch};
use weir_types::PartitionId;

use crate::broker::Broker;
use crate::calls::produce_stream::answers::ANSWER_BYTES;
use crate::calls::shared::hello;
use crate::compression;
use crate::forward::Caller;
use crate::ingest;
use crate::problems;
use crate::receipts;
use crate::replication::Floor;
use crate::topic_map::Topic;

use elsewhere::Terms;

/// What one call appends to one partition.
pub(crate) struct Part {
    pub(crate) partition: i32,
    pub(crate) batch: NewBatch,
    /// Which of the request's records these are; empty: all, in order.
    pub(crate) record_indexes: Vec<i32>,
}

/// A part that was submitted.
struct Pending {
    partition: i32,
    record_indexes: Vec<i32>,
    /// The offset that it was meant for alone.
    expected: Option<i64>,
    outcome: oneshot::Receiver<Result<Appended, AppendError>>,
}

/// Answers the call. What goes to partitions that others lead is passed on by `onward`, if there is one.
pub(crate) async fn call(
    broker: &Arc<Broker>,
    request: Request<ProduceRequest>,
    onward: Option<&Caller>,
) -> Result<Response<ProduceResponse>, Status> {
    let came = Instant::now();
    let until = deadline::of(request.metadata()).map(deadline::before);
    let request = request.into_inner();
    room(broker, until).await?;
    hello::check_features(&request.required_features)?;
    hello::check_route(request.route)?;
    tracing::Span::current().record("topic", &request.topic).record("partition", request.partition);
    let acks = receipts::acks(request.acks, Acks::All)?;
    let topic = broker.topics.get(&request.topic)?;
    topic.check_id(&request.topic_id)?;
    let floor = receipts::floor(request.floor.as_ref(), &topic, acks)?;
    check_fields(&request, &topic)?;
    let expected_next_offset = request.expected_next_offset;
    let terms = Terms::of(&request);
    let parts = if request.batch.is_some() {
        vec![one_batch(broker, &topic, request).await?]
    } else {
        plain_records::parts(broker, &topic, request).await?
    };
    let (there, here) = elsewhere::split(broker, &topic, parts, onward);
    for part in &here {
        receipts::check_in_sync(&topic, part.partition, floor)?;
    }
    let pending = submit(broker, &topic, here, acks, expected_next_offset)?;
    let (here, there) = tokio::join!(
        collect(broker, &topic, pending, (acks, floor), came, until),
        elsewhere::append(broker, &topic, there, &terms, onward)
    );
    let receipts = in_all(here.into_iter().chain(there).collect())?;
    Ok(Response::new(ProduceResponse { receipts }))
}

/// Waits until what is being written leaves room for one more.
async fn room(broker: &Broker, until: Option<Instant>) -> Result<(), Problem> {
    let longest = Instant::now() + broker.config.wait_ms_default;
    let until = until.map_or(longest, |until| until.min(longest));
    tokio::time::timeout_at(until, broker.memory.room()).await.map_err(|_| {
        let limit = broker.memory.max();
        Problem::new(
            ErrorReason::Overloaded,
            format!(
                "{limit} bytes wait to be written on this broker, as many as may (inflight_total_bytes_max)"
            ),
        )
        .fact("limit", limit)
    })
}

fn check_fields(request: &ProduceRequest, topic: &Topic) -> Result<(), Problem> {
    let about_one_partition = [
        (request.batch.is_some(), "batch"),
        (request.sequence.is_some(), "sequence"),
        (request.producer.is_some(), "producer"),
        (request.expected_next_offset.is_some(), "expected_next_offset"),
    ];
    match (request.partition, about_one_partition.iter().find(|(set, _)| *set)) {
        (None, Some((_, field))) => {
            return Err(Problem::required("partition", &format!("{field} is about one partition")));
        }
        (Some(partition), _) => {
            topic.partition(partition)?;
        }
        (None, None) => {}
    }
    if let Some(offset) = request.expected_next_offset.filter(|offset| *offset < 0) {
        return Err(Problem::out_of_range("expected_next_offset", offset, "offsets start at 0"));
    }
    if !request.transactional_id.is_empty() {
        return Err(Problem::new(
            ErrorReason::NotSupported,
            "transactional_id is set: this version has no transactions yet",
        ));
    }
    Ok(())
}

async fn one_batch(broker: &Arc<Broker>, topic: &Topic, request: ProduceRequest) -> Result<Part, Problem> {
    let (Some(batch), Some(partition)) = (request.batch, request.partition) else {
        return Err(Problem::required("batch", "a call carries plain records or one batch"));
    };
    if !request.records.is_empty() {
        return Err(Problem::conflict("records", "batch", "a call carries plain records or one batch"));
    }
    if request.producer.is_some() || request.sequence.is_some() {
        return Err(Problem::conflict("producer", "batch", "a batch carries its own producer and sequence"));
    }
    let batch = ingest::check(batch, &topic.rules, broker.os.wall_ms())
        .map_err(|problem| problem.at(&topic.name, partition))?;
    let batch = compression::of_topic(&broker.os, topic.rules.compression, batch).await?;
    Ok(Part { partition, batch, record_indexes: Vec::new() })
}

/// Submits all parts or none: where one cannot even be submitted, nothing is.
fn submit(
    broker: &Broker,
    topic: &Topic,
    parts: Vec<Part>,
    acks: Acks,
    expected_next_offset: Option<i64>,
) -> Result<Vec<Pending>, Problem> {
    let logs =
        parts.iter().map(|part| broker.led_here(topic, part.partition)).collect::<Result<Vec<_>, _>>()?;
    if let Some(part) = parts.iter().find(|part| part.batch.producer.is_some() && acks != Acks::All) {
        return Err(receipts::producer_needs_all(&topic.name, part.partition));
    }
    let submitted = logs.into_iter().zip(parts.iter().map(|part| part.partition)).collect::<Vec<_>>();
    Ok(submitted
        .into_iter()
        .zip(parts)
        .map(|((log, partition), part)| {
            let (tx, outcome) = oneshot::channel();
            let held = broker.memory.hold(part.batch.payload.len() + ANSWER_BYTES);
            log.submit(vec![Append {
                batch: part.batch,
                acks,
                expected_next_offset,
                gate: None,
                resume: false,
                done: Box::new(move |result| {
                    drop(held);
                    // Nobody waits any more when the caller has gone.
                    drop(tx.send(result));
                }),
            }]);
            Pending {
                partition,
                record_indexes: part.record_indexes,
                expected: expected_next_offset,
                outcome,
            }
        })
        .collect())
}

/// What became of a part: a receipt, none for who wants none, or what went wrong.
type Outcome = Result<Option<AppendReceipt>, Vec<Problem>>;

/// Waits for all of them, or until the caller is about to give up.
async fn collect(
    broker: &Arc<Broker>,
    topic: &Arc<Topic>,
    pending: Vec<Pending>,
    (acks, floor): (Acks, Floor),
    came: Instant,
    until: Option<Instant>,
) -> Vec<Outcome> {
    if acks == Acks::None {
        return Vec::new();
    }
    join_all(pending.into_iter().map(async |part| {
        wait_for(broker, topic, part, floor, came, until).await.map(Some).map_err(|problem| vec![problem])
    }))
    .await
}

/// The receipts of all parts, by partition, or what becomes of the call where some failed.
fn in_all(outcomes: Vec<Outcome>) -> Result<Vec<AppendReceipt>, Status> {
    let (succeeded, failed): (Vec<_>, Vec<_>) = outcomes.into_iter().partition(Result::is_ok);
    let mut problems: Vec<Problem> = failed.into_iter().filter_map(Result::err).flatten().collect();
    let mut receipts: Vec<AppendReceipt> = succeeded.into_iter().filter_map(Result::ok).flatten().collect();
    receipts.sort_by_key(|receipt| receipt.partition);
    // The call is as uncertain as the most uncertain of its parts: a retry of what may be there would be a second one.
    problems.sort_by_key(|problem| problem.applied == Applied::No);
    if let Some(first) = problems.first_mut().filter(|_| !receipts.is_empty()) {
        // Some partitions have their records: the call as a whole is not "not applied".
        first.applied = Applied::Maybe;
        first.facts.insert("partitions_applied".to_owned(), receipts.len().to_string());
    }
    match Problem::status_of_all(&problems) {
        Some(status) => Err(status),
        None => Ok(receipts),
    }
}

async fn wait_for(
    broker: &Arc<Broker>,
    topic: &Arc<Topic>,
    part: Pending,
    floor: Floor,
    came: Instant,
    until: Option<Instant>,
) -> Result<AppendReceipt, Problem> {
    let outcome = match until {
        Some(until) => tokio::time::timeout_at(until, part.outcome).await,
        None => Ok(part.outcome.await),
    };
    match outcome {
        Ok(Ok(Ok(appended))) => {
            broker.metrics.acknowledged(&appended, Some(came));
            let (given, receipt) = oneshot::channel();
            // Nobody waits any more when the caller has gone.
            let give = move |answer| drop(given.send(answer));
            receipts::acknowledge(broker, topic, part.partition, appended, (floor, until), give);
            let unmet = || receipts::not_met(topic, part.partition, floor, &appended);
            let receipt = match until {
                Some(until) => tokio::time::timeout_at(until, receipt).await.map_err(|_| unmet())?,
                None => receipt.await,
            };
            let mut receipt = receipt.map_err(|_| unmet())??;
            receipt.record_indexes = part.record_indexes;
            Ok(receipt)
        }
        Ok(Ok(Err(error))) => {
            let problem = problems::append(&topic.name, part.partition, part.expected, &error);
            broker.metrics.append_failed(problem.reason);
            Err(problem)
        }
        Ok(Err(_)) => Err(problems::append(&topic.name, part.partition, None, &AppendError::Indeterminate)),
        Err(_) => Err(too_late(broker, topic, part.partition)),
    }
}

/// It is in the log of this broker, or on its way there, and somebody who is in sync has not got it.
fn too_late(broker: &Broker, topic: &Topic, partition: i32) -> Problem {
    let led = broker.replication.led(PartitionId { topic: topic.id, partition });
    let awaited = led.map(|led| led.awaited(0)).unwrap_or_default();
    let problem = Problem::new(
        ErrorReason::DeadlineExceeded,
        format!(
            "{}/{partition}: not acknowledged before the call's deadline; it may still be appended{}",
            topic.name,
            awaited.behind_a_colon()
        ),
    )
    .at(&topic.name, partition);
    if awaited.replicas.is_empty() { problem } else { problem.fact("awaited_brokers", awaited.brokers()) }
}
