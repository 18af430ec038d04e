//! Plain records on their way in: spread over partitions, packed into one batch for each, compressed.

use std::collections::BTreeMap;
use std::sync::Arc;

use weir_proto::v1::{ErrorReason, NewRecord, ProduceRequest};
use weir_record::{BatchBuilder, Codec, Packed, partition_for_key};
use weir_rpc::Problem;
use weir_runtime::Os;
use weir_storage::NewBatch;
use weir_types::Producer;

use crate::broker::Broker;
use crate::calls::produce::Part;
use crate::compression;
use crate::ingest;
use crate::topic_map::Topic;

/// The batches of a request's plain records, by partition.
pub(crate) async fn parts(
    broker: &Arc<Broker>,
    topic: &Arc<Topic>,
    request: ProduceRequest,
) -> Result<Vec<Part>, Problem> {
    let count = request.records.len();
    if count == 0 {
        return Err(Problem::required("records", "a call carries plain records or one batch"));
    }
    let limit = broker.config.records_per_request_max;
    if count > limit {
        return Err(Problem::new(
            ErrorReason::TooManyRecords,
            format!("the call has {count} records, a call takes {limit}: use several calls, or batches"),
        )
        .fact("records", count)
        .fact("limit", limit));
    }
    let producer = producer(&request)?;
    let codec = match ingest::codec(request.codec)? {
        Codec::None => topic.rules.compression.unwrap_or(Codec::None),
        asked => asked,
    };
    let now_ms = broker.os.wall_ms();
    let mut packed = Vec::new();
    for (partition, places) in spread(&*broker.os, &request, topic)? {
        let batch = pack(&request.records, &places, topic, now_ms)
            .map_err(|problem| problem.at(&topic.name, partition))?;
        // The places say nothing where one partition got everything in order.
        let record_indexes = if places.len() == count { Vec::new() } else { places };
        packed.push((partition, batch, record_indexes));
    }
    let mut parts = Vec::with_capacity(packed.len());
    for (partition, Gathered { packed, largest }, record_indexes) in packed {
        let batch = compression::seal(&broker.os, packed, codec).await?;
        let size = batch.payload.len();
        let limit = topic.rules.batch_bytes_max;
        if size > limit {
            let problem = match largest {
                (place, bytes) if bytes > limit => record_too_large(place, bytes, limit),
                _ => ingest::too_large(size, limit),
            };
            return Err(problem.at(&topic.name, partition));
        }
        let batch = NewBatch {
            last_offset_delta: batch.last_offset_delta(),
            record_count: batch.record_count,
            base_timestamp_ms: batch.base_timestamp_ms,
            max_timestamp_ms: batch.max_timestamp_ms,
            append_time: topic.rules.append_time,
            codec: batch.codec.number(),
            uncompressed_bytes: batch.uncompressed_bytes.unsigned_abs(),
            crc: batch.crc,
            producer,
            base_sequence: request.sequence.unwrap_or(0),
            transactional: false,
            control: false,
            broker_compressed: batch.codec != Codec::None,
            payload: batch.payload,
        };
        parts.push(Part { partition, batch, record_indexes });
    }
    Ok(parts)
}

fn producer(request: &ProduceRequest) -> Result<Option<Producer>, Problem> {
    match (request.producer, request.sequence) {
        (None, None) => Ok(None),
        (Some(identity), Some(sequence)) => ingest::producer(identity, sequence).map(Some),
        (Some(_), None) => Err(Problem::required("sequence", "a producer counts its records")),
        (None, Some(_)) => Err(Problem::required("producer", "a sequence is that of a producer")),
    }
}

/// The places of the records, by partition.
fn spread(os: &dyn Os, request: &ProduceRequest, topic: &Topic) -> Result<BTreeMap<i32, Vec<i32>>, Problem> {
    let partitions = topic.partition_count();
    let mut keyless = None;
    let mut places: BTreeMap<i32, Vec<i32>> = BTreeMap::new();
    for (place, record) in (0..).zip(&request.records) {
        let partition = match (request.partition, key(record, place)?) {
            (Some(partition), _) => partition,
            (None, Some(key)) => partition_for_key(key, partitions),
            (None, None) => *keyless.get_or_insert_with(|| any_partition(os, partitions)),
        };
        places.entry(partition).or_default().push(place);
    }
    Ok(places)
}

fn any_partition(os: &dyn Os, partitions: i32) -> i32 {
    let drawn = os.random_u64() % u64::from(partitions.unsigned_abs().max(1));
    i32::try_from(drawn).unwrap_or(0)
}

/// The records of one partition.
struct Gathered {
    packed: Packed,
    /// The largest of them: its place in the request, and its size in bytes.
    largest: (i32, usize),
}

fn pack(records: &[NewRecord], places: &[i32], topic: &Topic, now_ms: i64) -> Result<Gathered, Problem> {
    let latest_ms = now_ms.saturating_add(topic.rules.max_timestamp_ahead_ms);
    let mut builder = BatchBuilder::new();
    let mut largest = (0, 0);
    for &place in places {
        let Some(record) = usize::try_from(place).ok().and_then(|i| records.get(i)) else { continue };
        let timestamp_ms = record.timestamp_ms.unwrap_or(now_ms);
        if !topic.rules.append_time {
            ingest::check_time(format_args!("records[{place}].timestamp_ms"), timestamp_ms, latest_ms)?;
        }
        let headers = record.headers.iter().map(|header| (header.key.as_str(), &*header.value));
        let before = builder.bytes();
        builder
            .push(timestamp_ms, key(record, place)?, value(record, place)?, headers)
            .map_err(|error| too_large(&error, place))?;
        let bytes = builder.bytes() - before;
        if bytes > largest.1 {
            largest = (place, bytes);
        }
    }
    let packed = builder
        .take()
        .ok_or_else(|| Problem::required("records", "a call carries plain records or one batch"))?;
    Ok(Gathered { packed, largest })
}

/// A record that no batch of this topic could hold.
fn record_too_large(place: i32, bytes: usize, limit: usize) -> Problem {
    Problem::new(
        ErrorReason::RecordTooLarge,
        format!(
            "records[{place}] has {bytes} bytes, the topic takes {limit}: raise its batch_bytes_max, or keep large \
             values elsewhere and send where they are"
        ),
    )
    .fact("record", place)
    .fact("bytes", bytes)
    .fact("limit", limit)
}

fn too_large(error: &weir_record::Error, place: i32) -> Problem {
    let said = format!("records[{place}]: {error}");
    match error {
        weir_record::Error::RecordTooLarge { bytes, limit } => {
            Problem::new(ErrorReason::RecordTooLarge, said).fact("bytes", bytes).fact("limit", limit)
        }
        _ => Problem::new(ErrorReason::BatchTooLarge, said),
    }
    .fact("record", place)
}

fn key(record: &NewRecord, place: i32) -> Result<Option<&[u8]>, Problem> {
    match (&record.key, record.key_text.as_str()) {
        (key, "") => Ok(key.as_deref()),
        (None, text) => Ok(Some(text.as_bytes())),
        (Some(_), _) => Err(both(place, "key", "key_text")),
    }
}

fn value(record: &NewRecord, place: i32) -> Result<Option<&[u8]>, Problem> {
    let value = match (&record.value, record.value_text.as_str()) {
        (value, "") => value.as_deref(),
        (None, text) => Some(text.as_bytes()),
        (Some(_), _) => return Err(both(place, "value", "value_text")),
    };
    match (value, record.tombstone) {
        (Some(_), true) => Err(both(place, "value", "tombstone")),
        (None, false) => Err(Problem::new(
            ErrorReason::ValueMissing,
            format!(
                "records[{place}] has no value: set tombstone = true if that is meant, or an empty value \
                 (nil and None are sent as no value)"
            ),
        )
        .fact("record", place)),
        _ => Ok(value),
    }
}

fn both(place: i32, field: &str, other: &str) -> Problem {
    Problem::conflict(
        &format!("records[{place}].{field}"),
        &format!("records[{place}].{other}"),
        "one of them says it",
    )
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn text_is_a_shorthand_and_never_a_second_value() {
        let text = NewRecord { key_text: "k".into(), value_text: "v".into(), ..NewRecord::default() };
        assert_eq!(key(&text, 0), Ok(Some(b"k".as_slice())));
        assert_eq!(value(&text, 0), Ok(Some(b"v".as_slice())));
        let both = NewRecord { key: Some(Bytes::new()), value: Some(Bytes::new()), ..text };
        assert_eq!(key(&both, 3).unwrap_err().reason, ErrorReason::FieldsConflict);
        assert_eq!(value(&both, 3).unwrap_err().reason, ErrorReason::FieldsConflict);
    }

    #[test]
    fn a_missing_value_must_be_meant() {
        let absent = NewRecord::default();
        assert_eq!(value(&absent, 0).unwrap_err().reason, ErrorReason::ValueMissing);
        assert_eq!(value(&NewRecord { tombstone: true, ..absent.clone() }, 0), Ok(None));
        assert_eq!(value(&NewRecord { value: Some(Bytes::new()), ..absent }, 0), Ok(Some(b"".as_slice())));
        let odd = NewRecord { value: Some(Bytes::new()), tombstone: true, ..NewRecord::default() };
        assert_eq!(value(&odd, 0).unwrap_err().reason, ErrorReason::FieldsConflict);
    }
}
