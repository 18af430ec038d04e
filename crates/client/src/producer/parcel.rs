//! A batch on its way: what is sent, and what is known about it.

use std::sync::Arc;

use tokio::time::Instant;
use weir_proto::v1;
use weir_record::Batch;
use weir_types::Producer;

use super::config::{Acks, Floor};
use super::receipt::Ticket;

/// What a single append asks for beyond the producer's settings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Wishes {
    pub(super) acks: Option<Acks>,
    pub(super) floor: Option<Floor>,
    pub(super) expected_next_offset: Option<i64>,
}

/// A batch that is sealed and not answered for good.
#[derive(Debug)]
pub(super) struct Parcel {
    pub(super) batch: Batch,
    pub(super) topic_id: Arc<str>,
    pub(super) wishes: Wishes,
    /// Where the result goes.
    pub(super) ticket: Arc<Ticket>,
    /// When its receipts fail, come what may.
    pub(super) deadline: Instant,
    /// The sequence number it was given, and by whom: kept as long as an attempt under it may have been applied.
    pub(super) sequence: Option<(Producer, i32)>,
    /// Whether an earlier attempt may have been applied.
    pub(super) in_doubt: bool,
    /// The number of the attempt that is unanswered now.
    pub(super) correlation_id: i64,
}

impl Parcel {
    /// What its leader is sent.
    pub(super) fn append(&self, topic: &str, partition: i32, resume: bool) -> v1::BatchAppend {
        let batch = &self.batch;
        let (producer, base_sequence) = match self.sequence {
            Some((producer, sequence)) => {
                (Some(v1::ProducerIdentity { id: producer.id.0, epoch: producer.epoch }), sequence)
            }
            None => (None, 0),
        };
        v1::BatchAppend {
            correlation_id: self.correlation_id,
            topic: topic.to_owned(),
            partition,
            acks: self.wishes.acks.map_or(0, |acks| v1::Acks::from(acks).into()),
            floor: self.wishes.floor.map(v1::DurabilityFloor::from),
            expected_next_offset: self.wishes.expected_next_offset,
            topic_id: self.topic_id.as_ref().to_owned(),
            resume,
            batch: Some(v1::RecordBatch {
                format: 1,
                last_offset_delta: batch.last_offset_delta(),
                record_count: batch.record_count,
                base_timestamp_ms: batch.base_timestamp_ms,
                max_timestamp_ms: batch.max_timestamp_ms,
                codec: batch.codec.to_api(),
                uncompressed_bytes: batch.uncompressed_bytes,
                crc: batch.crc,
                producer,
                base_sequence,
                records: batch.payload.clone(),
                ..Default::default()
            }),
        }
    }
}
