//! From a batch on the wire to one the log takes: everything that can be judged without the partition's state.
//! A check here may refuse, never admit (correctness rule D1). Hot path: once per batch, no copy of the payload.

use std::fmt;

use weir_metadata::settings::{Compression, TimestampType as TopicTime, TopicSettings};
use weir_proto::v1::{ErrorReason, RecordBatch, TimestampType};
use weir_record::{BATCH_BYTES_MAX, Codec, Declared, Error, Limits};
use weir_rpc::Problem;
use weir_storage::NewBatch;
use weir_types::{Producer, ProducerId};

/// What a topic allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BatchRules {
    /// The largest batch, in bytes, header not counted.
    pub(crate) batch_bytes_max: usize,
    /// How far ahead of the broker's clock a timestamp may be.
    pub(crate) max_timestamp_ahead_ms: i64,
    /// Whether the broker's clock replaces the producer's.
    pub(crate) append_time: bool,
    /// What the broker compresses with when a batch comes uncompressed.
    pub(crate) compression: Option<Codec>,
}

impl BatchRules {
    pub(crate) fn of(settings: &TopicSettings) -> Self {
        Self {
            batch_bytes_max: usize::try_from(settings.batch_bytes_max).unwrap_or(BATCH_BYTES_MAX),
            max_timestamp_ahead_ms: settings.max_timestamp_ahead_ms.unwrap_or(i64::MAX),
            append_time: settings.timestamp_type == TopicTime::Append,
            compression: match settings.compression {
                Compression::Producer => None,
                Compression::Zstd => Some(Codec::Zstd),
                Compression::Lz4 => Some(Codec::Lz4),
                Compression::Gzip => Some(Codec::Gzip),
            },
        }
    }
}

/// Checks a batch and turns it into what the log stores.
pub(crate) fn check(batch: RecordBatch, rules: &BatchRules, now_ms: i64) -> Result<NewBatch, Problem> {
    let codec = codec(batch.codec)?;
    check_fields(&batch)?;
    let uncompressed_bytes = u32::try_from(batch.uncompressed_bytes).map_err(|_| {
        Problem::out_of_range("batch.uncompressed_bytes", batch.uncompressed_bytes, "must not be negative")
    })?;
    let declared = Declared {
        crc: batch.crc,
        codec,
        uncompressed_bytes: batch.uncompressed_bytes,
        record_count: batch.record_count,
        last_offset_delta: batch.last_offset_delta,
        base_timestamp_ms: batch.base_timestamp_ms,
        max_timestamp_ms: batch.max_timestamp_ms,
    };
    let limits = Limits { payload_bytes_max: rules.batch_bytes_max, ..Limits::default() };
    weir_record::verify(&batch.records, &declared, &limits).map_err(|error| untrue(&error))?;
    check_times(&batch, rules, now_ms)?;
    let producer = check_producer(&batch)?;
    Ok(NewBatch {
        last_offset_delta: batch.last_offset_delta,
        record_count: batch.record_count,
        base_timestamp_ms: batch.base_timestamp_ms,
        max_timestamp_ms: batch.max_timestamp_ms,
        append_time: rules.append_time,
        codec: codec.number(),
        uncompressed_bytes,
        crc: batch.crc,
        producer,
        base_sequence: batch.base_sequence,
        transactional: false,
        control: false,
        broker_compressed: false,
        payload: batch.records,
    })
}

/// The codec of an enum value on the wire.
pub(crate) fn codec(value: i32) -> Result<Codec, Problem> {
    Codec::from_api(value)
        .map_err(|error| Problem::new(ErrorReason::CodecUnsupported, error.to_string()).fact("given", value))
}

/// A batch beyond the topic's limit.
pub(crate) fn too_large(size: usize, limit: usize) -> Problem {
    Problem::new(
        ErrorReason::BatchTooLarge,
        format!(
            "the batch has {size} bytes, the topic takes {limit}: send smaller batches, or raise the topic's \
             batch_bytes_max (weir topic set TOPIC batch_bytes_max={size})"
        ),
    )
    .fact("bytes", size)
    .fact("limit", limit)
}

/// What a batch says of itself is not so.
fn untrue(error: &Error) -> Problem {
    match error {
        Error::BatchTooLarge { bytes, limit } => too_large(*bytes, *limit),
        Error::BatchCorrupt { declared, actual } => Problem::new(
            ErrorReason::BatchCorrupt,
            format!(
                "the batch's crc is {declared:08x}, its bytes have {actual:08x}: it was changed on the way, or the \
                 crc is not CRC-32 (IEEE) over `records`"
            ),
        )
        .fact("declared", format_args!("{declared:08x}"))
        .fact("actual", format_args!("{actual:08x}")),
        Error::DecompressionLimit { declared, limit } => {
            Problem::new(ErrorReason::DecompressionLimit, format!("batch.uncompressed_bytes: {error}"))
                .fact("declared", declared)
                .fact("limit", limit)
        }
        Error::SizeMismatch { .. } => {
            Problem::new(ErrorReason::BatchInvalid, format!("batch.uncompressed_bytes: {error}"))
        }
        error => Problem::new(ErrorReason::BatchInvalid, error.to_string()),
    }
}

/// What only a batch from outside can have wrong.
fn check_fields(batch: &RecordBatch) -> Result<(), Problem> {
    if !(0..=1).contains(&batch.format) {
        return Err(Problem::out_of_range("batch.format", batch.format, "0 or 1 (a RecordSet)"));
    }
    if batch.base_offset != 0 {
        return Err(Problem::out_of_range(
            "batch.base_offset",
            batch.base_offset,
            "must be 0, the leader assigns offsets (a condition goes into expected_next_offset)",
        ));
    }
    if batch.control {
        return Err(Problem::new(
            ErrorReason::BatchInvalid,
            "batch.control is set: markers are written by the system alone",
        ));
    }
    if batch.transactional {
        return Err(Problem::new(
            ErrorReason::NotSupported,
            "batch.transactional is set: this version has no transactions yet",
        ));
    }
    if TimestampType::try_from(batch.timestamp_type).is_err() {
        return Err(Problem::unknown_enum("batch.timestamp_type", batch.timestamp_type));
    }
    Ok(())
}

fn check_times(batch: &RecordBatch, rules: &BatchRules, now_ms: i64) -> Result<(), Problem> {
    if rules.append_time {
        return Ok(());
    }
    let latest = now_ms.saturating_add(rules.max_timestamp_ahead_ms);
    for (field, given) in
        [("base_timestamp_ms", batch.base_timestamp_ms), ("max_timestamp_ms", batch.max_timestamp_ms)]
    {
        check_time(field, given, latest)?;
    }
    Ok(())
}

/// Checks one timestamp.
pub(crate) fn check_time(field: impl fmt::Display, given_ms: i64, latest_ms: i64) -> Result<(), Problem> {
    if (0..=latest_ms).contains(&given_ms) {
        return Ok(());
    }
    let why = if given_ms < 0 {
        "before 1970".to_owned()
    } else {
        format!("later than {latest_ms}, the broker's clock and the topic's max_timestamp_ahead_ms")
    };
    Err(Problem::new(
        ErrorReason::TimestampOutOfRange,
        format!("{field} is {given_ms}, {why}: timestamps are milliseconds since 1970 UTC"),
    )
    .fact("field", field)
    .fact("given", given_ms)
    .fact("limit", latest_ms))
}

fn check_producer(batch: &RecordBatch) -> Result<Option<Producer>, Problem> {
    let Some(identity) = batch.producer else {
        return Ok(None);
    };
    producer(identity, batch.base_sequence).map(Some)
}

/// Checks an identity and the sequence that goes with it.
pub(crate) fn producer(
    identity: weir_proto::v1::ProducerIdentity,
    sequence: i32,
) -> Result<Producer, Problem> {
    if identity.id < 0 {
        return Err(Problem::out_of_range("producer.id", identity.id, "ids come from OpenProducer"));
    }
    if identity.epoch < 0 {
        return Err(Problem::out_of_range("producer.epoch", identity.epoch, "must not be negative"));
    }
    if sequence < 0 {
        return Err(Problem::out_of_range("sequence", sequence, "sequences go from 0 to 2147483647"));
    }
    Ok(Producer { id: ProducerId(identity.id), epoch: identity.epoch })
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use weir_proto::v1::ProducerIdentity;

    use super::*;

    const NOW: i64 = 1_700_000_000_000;
    const RULES: BatchRules = BatchRules {
        batch_bytes_max: 100,
        max_timestamp_ahead_ms: 1_000,
        append_time: false,
        compression: None,
    };

    fn good() -> RecordBatch {
        let records = Bytes::from_static(b"0123456789");
        RecordBatch {
            last_offset_delta: 1,
            record_count: 2,
            base_timestamp_ms: NOW,
            max_timestamp_ms: NOW,
            uncompressed_bytes: 10,
            crc: weir_record::crc(&records),
            records,
            ..RecordBatch::default()
        }
    }

    fn reason(change: impl FnOnce(&mut RecordBatch)) -> ErrorReason {
        let mut batch = good();
        change(&mut batch);
        check(batch, &RULES, NOW).unwrap_err().reason
    }

    #[test]
    fn a_good_batch_passes_with_its_payload_uncopied() {
        let batch = good();
        let at = batch.records.as_ptr();
        let checked = check(batch, &RULES, NOW).unwrap();
        assert_eq!(checked.payload.as_ptr(), at);
        assert_eq!(checked.record_count, 2);
    }

    #[test]
    fn every_field_has_its_limit() {
        use ErrorReason as R;
        assert_eq!(reason(|b| b.format = 2), R::FieldOutOfRange);
        assert_eq!(reason(|b| b.base_offset = 7), R::FieldOutOfRange);
        assert_eq!(reason(|b| b.record_count = 0), R::BatchInvalid);
        assert_eq!(reason(|b| b.record_count = -1), R::BatchInvalid);
        assert_eq!(reason(|b| b.last_offset_delta = 2), R::BatchInvalid);
        assert_eq!(reason(|b| b.control = true), R::BatchInvalid);
        assert_eq!(reason(|b| b.transactional = true), R::NotSupported);
        assert_eq!(reason(|b| b.timestamp_type = 9), R::EnumUnknown);
        assert_eq!(reason(|b| b.codec = 9), R::CodecUnsupported);
        assert_eq!(reason(|b| b.crc += 1), R::BatchCorrupt);
        assert_eq!(reason(|b| b.records = Bytes::new()), R::BatchInvalid);
        assert_eq!(reason(|b| b.records = Bytes::from(vec![0; 101])), R::BatchTooLarge);
        assert_eq!(reason(|b| b.uncompressed_bytes = -1), R::FieldOutOfRange);
        assert_eq!(reason(|b| b.uncompressed_bytes = 11), R::BatchInvalid);
        assert_eq!(reason(|b| (b.codec, b.uncompressed_bytes) = (3, i32::MAX)), R::DecompressionLimit);
        assert_eq!(reason(|b| (b.record_count, b.last_offset_delta) = (6, 5)), R::BatchInvalid);
        assert_eq!(reason(|b| b.base_timestamp_ms = -1), R::TimestampOutOfRange);
        assert_eq!(reason(|b| b.max_timestamp_ms = NOW + 1_001), R::TimestampOutOfRange);
        let producer = |id, epoch| Some(ProducerIdentity { id, epoch });
        assert_eq!(reason(|b| b.producer = producer(-1, 0)), R::FieldOutOfRange);
        assert_eq!(reason(|b| b.producer = producer(0, -1)), R::FieldOutOfRange);
        assert_eq!(reason(|b| (b.producer, b.base_sequence) = (producer(0, 0), -1)), R::FieldOutOfRange);
    }
}
