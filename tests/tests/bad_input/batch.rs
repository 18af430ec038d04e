//! Ready batches: what a batch says of itself and what it holds.

use prost::bytes::Bytes;
use weir_proto::v1::{ErrorReason as R, ProducerIdentity, RecordBatch};
use weir_record::Codec;
use weir_tests::api::new_record;
use weir_tests::batch::pack_values;

use crate::call::Call;
use crate::produce::produce;
use crate::world::World;
use crate::{Case, case};

/// Three records.
pub(crate) fn good() -> RecordBatch {
    pack_values(Codec::None, [b"one".as_slice(), b"two", b"three"]).unwrap_or_default()
}

fn with(change: impl FnOnce(&mut RecordBatch)) -> Call {
    produce(|request| {
        request.records.clear();
        let mut batch = good();
        change(&mut batch);
        request.batch = Some(batch);
    })
}

/// Other bytes, with everything that is said of them right.
fn holding(batch: &mut RecordBatch, records: Vec<u8>) {
    batch.crc = weir_record::crc(&records);
    batch.uncompressed_bytes = i32::try_from(records.len()).unwrap_or(i32::MAX);
    batch.records = Bytes::from(records);
}

pub(crate) fn cases(world: &World) -> Vec<Case> {
    let identity = |id, epoch| Some(ProducerIdentity { id, epoch });
    let known = Some(world.producer);
    vec![
        case("ProduceRequest.batch", "batch", R::FieldsConflict, produce(|r| r.batch = Some(good()))),
        case(
            "ProduceRequest.batch",
            "partition",
            R::FieldRequired,
            produce(|r| {
                r.records.clear();
                (r.partition, r.batch) = (None, Some(good()));
            }),
        ),
        case(
            "ProduceRequest.producer",
            "producer",
            R::FieldsConflict,
            produce(|r| {
                r.records.clear();
                (r.producer, r.sequence, r.batch) = (known, Some(0), Some(good()));
            }),
        ),
        case("RecordBatch.format", "batch.format", R::FieldOutOfRange, with(|b| b.format = 2)),
        case("RecordBatch.format", "batch.format", R::FieldOutOfRange, with(|b| b.format = -1)),
        case(
            "RecordBatch.base_offset",
            "batch.base_offset",
            R::FieldOutOfRange,
            with(|b| b.base_offset = 10),
        ),
        case(
            "RecordBatch.last_offset_delta",
            "last_offset_delta",
            R::BatchInvalid,
            with(|b| b.last_offset_delta = 3),
        ),
        case(
            "RecordBatch.last_offset_delta",
            "last_offset_delta",
            R::BatchInvalid,
            with(|b| b.last_offset_delta = -1),
        ),
        case("RecordBatch.record_count", "record_count is 0", R::BatchInvalid, with(|b| b.record_count = 0)),
        case(
            "RecordBatch.record_count",
            "record_count is -1",
            R::BatchInvalid,
            with(|b| b.record_count = -1),
        ),
        case(
            "RecordBatch.record_count",
            "records",
            R::BatchInvalid,
            with(|b| (b.record_count, b.last_offset_delta) = (1_000_000, 999_999)),
        ),
        case(
            "RecordBatch.base_timestamp_ms",
            "base_timestamp_ms",
            R::TimestampOutOfRange,
            with(|b| b.base_timestamp_ms = -1),
        ),
        case(
            "RecordBatch.base_timestamp_ms",
            "base_timestamp_ms",
            R::TimestampOutOfRange,
            with(|b| b.base_timestamp_ms = i64::MAX),
        ),
        case(
            "RecordBatch.max_timestamp_ms",
            "max_timestamp_ms",
            R::TimestampOutOfRange,
            with(|b| b.max_timestamp_ms = i64::MIN),
        ),
        case(
            "RecordBatch.max_timestamp_ms",
            "max_timestamp_ms",
            R::TimestampOutOfRange,
            with(|b| b.max_timestamp_ms = 32_503_680_000_000),
        ),
        case("RecordBatch.timestamp_type", "timestamp_type", R::EnumUnknown, with(|b| b.timestamp_type = 99)),
        case("RecordBatch.codec", "codec", R::CodecUnsupported, with(|b| b.codec = 99)),
        case("RecordBatch.codec", "codec", R::CodecUnsupported, with(|b| b.codec = -1)),
        case(
            "RecordBatch.uncompressed_bytes",
            "uncompressed_bytes",
            R::FieldOutOfRange,
            with(|b| b.uncompressed_bytes = -1),
        ),
        case(
            "RecordBatch.uncompressed_bytes",
            "uncompressed_bytes",
            R::BatchInvalid,
            with(|b| b.uncompressed_bytes += 1),
        ),
        case(
            "RecordBatch.uncompressed_bytes",
            "uncompressed_bytes",
            R::DecompressionLimit,
            with(|b| (b.codec, b.uncompressed_bytes) = (Codec::Zstd.to_api(), i32::MAX)),
        ),
        case("RecordBatch.crc", "crc", R::BatchCorrupt, with(|b| b.crc ^= 1)),
        case(
            "RecordBatch.producer",
            "producer.id",
            R::FieldOutOfRange,
            with(|b| b.producer = identity(-1, 0)),
        ),
        case(
            "RecordBatch.producer",
            "producer.epoch",
            R::FieldOutOfRange,
            with(|b| b.producer = identity(0, -1)),
        ),
        case(
            "RecordBatch.base_sequence",
            "sequence",
            R::FieldOutOfRange,
            with(|b| (b.producer, b.base_sequence) = (known, -1)),
        ),
        case(
            "RecordBatch.base_sequence",
            "flights/0",
            R::ProducerUnknown,
            with(|b| (b.producer, b.base_sequence) = (known, 7)),
        ),
        case("RecordBatch.transactional", "transactional", R::NotSupported, with(|b| b.transactional = true)),
        case("RecordBatch.control", "control", R::BatchInvalid, with(|b| b.control = true)),
        case("RecordBatch.records", "records", R::BatchInvalid, with(|b| holding(b, Vec::new()))),
        case(
            "RecordBatch.records",
            "batch_bytes_max",
            R::BatchTooLarge,
            with(|b| holding(b, vec![0; (1 << 20) + 1])),
        ),
        case(
            "ProduceRequest.records",
            "records",
            R::FieldsConflict,
            produce(|r| (r.batch, r.records) = (Some(good()), vec![new_record("a")])),
        ),
    ]
}
