//! The shares of a call that other brokers append. Everything that can be found wrong with a record has been by now: a
//! call fails for its records before anything of it is written, here or there.

use std::sync::Arc;

use futures::future::join_all;
use weir_proto::v1::{AppendReceipt, DurabilityFloor, ProduceRequest, RecordBatch};
use weir_record::Codec;
use weir_types::BrokerId;

use super::{Outcome, Part};
use crate::broker::Broker;
use crate::forward::Caller;
use crate::topic_map::Topic;

/// What goes with each share as it came with the call.
#[derive(Debug)]
pub(super) struct Terms {
    acks: i32,
    floor: Option<DurabilityFloor>,
    required_features: Vec<String>,
}

impl Terms {
    pub(super) fn of(request: &ProduceRequest) -> Self {
        Self {
            acks: request.acks,
            floor: request.floor,
            required_features: request.required_features.clone(),
        }
    }
}

/// The parts that another broker appends, with whom, and those that are left for this one.
pub(super) fn split(
    broker: &Broker,
    topic: &Topic,
    parts: Vec<Part>,
    onward: Option<&Caller>,
) -> (Vec<(BrokerId, Part)>, Vec<Part>) {
    let (mut there, mut here) = (Vec::new(), Vec::new());
    for part in parts {
        match onward.and_then(|_| broker.owner_in(topic, part.partition)) {
            Some(owner) => there.push((owner, part)),
            None => here.push(part),
        }
    }
    (there, here)
}

/// Has them appended, each by its owner.
pub(super) async fn append(
    broker: &Arc<Broker>,
    topic: &Topic,
    parts: Vec<(BrokerId, Part)>,
    terms: &Terms,
    onward: Option<&Caller>,
) -> Vec<Outcome> {
    let Some(onward) = onward else { return Vec::new() };
    join_all(parts.into_iter().map(async |(owner, part)| {
        let _held = broker.memory.hold(part.batch.payload.len());
        let record_indexes = part.record_indexes.clone();
        let receipt = onward.append(owner, &share(topic, part, terms)).await?;
        Ok(receipt.map(|receipt| AppendReceipt { record_indexes, ..receipt }))
    }))
    .await
}

fn share(topic: &Topic, part: Part, terms: &Terms) -> ProduceRequest {
    let batch = part.batch;
    let codec = Codec::from_number(batch.codec).map_or(0, Codec::to_api);
    let batch = RecordBatch {
        format: 1,
        last_offset_delta: batch.last_offset_delta,
        record_count: batch.record_count,
        base_timestamp_ms: batch.base_timestamp_ms,
        max_timestamp_ms: batch.max_timestamp_ms,
        codec,
        uncompressed_bytes: i32::try_from(batch.uncompressed_bytes).unwrap_or(i32::MAX),
        crc: batch.crc,
        records: batch.payload,
        ..RecordBatch::default()
    };
    ProduceRequest {
        topic: topic.name.to_string(),
        partition: Some(part.partition),
        acks: terms.acks,
        floor: terms.floor,
        required_features: terms.required_features.clone(),
        // The same topic, or none.
        topic_id: topic.id.to_string(),
        batch: Some(batch),
        ..ProduceRequest::default()
    }
}
