//! Questions to brokers on the way of a batch: what became of it, as long as it takes to get an answer; who produces.

use std::time::Duration;

use weir_proto::v1;
use weir_proto::v1::producer_service_client::ProducerServiceClient;
use weir_types::{Producer, ProducerId};

use super::lane::Question;
use super::receipt::Delivery;
use super::verdict::Outcome;
use crate::backoff::Backoff;
use crate::client::Inner;
use crate::{Error, ErrorReason, Result};

/// How long the partition may take to commit what it finds pending, before it is asked again.
const PENDING_WAIT: Duration = Duration::from_secs(5);

/// Asks about a sequence number, sealing it if it is not there.
pub(super) async fn ask(inner: &Inner, topic: &str, partition: i32, question: &Question) -> Outcome {
    let producer = question.producer;
    let mut backoff = Backoff::usual();
    loop {
        let request = v1::GetAppendOutcomeRequest {
            topic: topic.to_owned(),
            topic_id: question.topic_id.as_ref().to_owned(),
            partition,
            producer: Some(v1::ProducerIdentity { id: producer.id.0, epoch: producer.epoch }),
            sequence: question.sequence,
            seal: true,
            wait_ms: i64::try_from(PENDING_WAIT.as_millis()).unwrap_or(i64::MAX),
        };
        let answer = inner
            .call_here("GetAppendOutcome", request, &|channel, request| async move {
                ProducerServiceClient::new(channel).get_append_outcome(request).await
            })
            .await;
        match answer {
            Ok(answer) => match answer.outcome() {
                v1::AppendOutcome::Appended => {
                    let receipt = answer.receipt.unwrap_or_default();
                    return Outcome::Appended(Delivery { duplicate: true, ..Delivery::of_batch(&receipt) });
                }
                v1::AppendOutcome::Never => return Outcome::Never,
                v1::AppendOutcome::Unknown => return Outcome::Forgotten,
                v1::AppendOutcome::Pending | v1::AppendOutcome::NotSoFar | v1::AppendOutcome::Unspecified => {
                }
            },
            Err(error) => match error.reason() {
                Some(
                    ErrorReason::TopicNotFound
                    | ErrorReason::PartitionNotFound
                    | ErrorReason::TopicIdMismatch,
                ) => return Outcome::Gone(error),
                Some(ErrorReason::ProducerUnknown | ErrorReason::ProducerFenced) => {
                    return Outcome::Forgotten;
                }
                _ => tracing::debug!(topic, partition, %error, "the outcome of a batch is still not known"),
            },
        }
        tokio::time::sleep(backoff.next(&*inner.os, None)).await;
    }
}

/// Takes a producer id.
pub(super) async fn open_producer(inner: &Inner) -> Result<Producer> {
    let answer = inner
        .call_here("OpenProducer", v1::OpenProducerRequest::default(), &|channel, request| async move {
            ProducerServiceClient::new(channel).open_producer(request).await
        })
        .await?;
    let producer = crate::topics::present(answer.producer, "OpenProducer")?;
    if producer.id < 0 {
        return Err(Error::invalid("OpenProducer gave a negative id; is this Weir?"));
    }
    Ok(Producer { id: ProducerId(producer.id), epoch: producer.epoch })
}
