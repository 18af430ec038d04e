//! Offsets by time: the log knows the batch, and the batch is opened for the record.

use weir_record::{Codec, Records};
use weir_rpc::Problem;
use weir_runtime::blocking;
use weir_storage::{Frame, Limit, Partition, ReadError, ReadRequest, TimestampOffset};
use weir_types::Offset;

use crate::broker::Broker;
use crate::contexts::DECOMPRESSORS;
use crate::damage::bad_payload;
use crate::topic_map::Topic;

/// A larger batch is opened off the executors.
const INLINE_BYTES_MAX: u32 = 1 << 20;

/// The first record below the limit with this timestamp or a later one, in milliseconds. `None`: there is none.
pub(crate) async fn first_since(
    broker: &Broker,
    topic: &Topic,
    partition: i32,
    log: &Partition,
    timestamp_ms: i64,
    limit: Limit,
) -> Result<Option<TimestampOffset>, Problem> {
    let problem = |at: Offset, error: &ReadError| broker.damage.refused(topic, partition, at, error);
    let start = log.ends().log_start;
    let found =
        log.offset_for_timestamp(timestamp_ms, limit).await.map_err(|error| problem(start, &error))?;
    let Some(found) = found else { return Ok(None) };
    let from = found.offset.max(log.ends().log_start);
    // The batch that holds it, whatever its size.
    let request = ReadRequest { from, bytes_max: 1, limit };
    let chunk = log.read(request).await.map_err(|error| problem(from, &error))?;
    let Some(frame) = chunk.frames().next() else { return Ok(Some(found)) };
    if frame.header.append_time {
        // One time for all of its records.
        return Ok(Some(found));
    }
    let base_offset = frame.header.base_offset;
    let checked = frame.header.verify_payload(&frame.payload);
    checked.map_err(|error| problem(base_offset, &bad_payload(log, &frame.header, &error)))?;
    let opened = if frame.header.uncompressed_bytes <= INLINE_BYTES_MAX {
        search(&frame, timestamp_ms, from)
    } else {
        blocking(&broker.os, move || search(&frame, timestamp_ms, from)).await
    };
    // A batch that its producer packed wrongly is no reason not to start before it.
    let (offset, timestamp_ms) = opened.unwrap_or((found.offset, found.timestamp_ms));
    Ok(Some(TimestampOffset { offset, timestamp_ms }))
}

/// The offset and timestamp of the first record that is not before either. If the batch promised one and has none,
/// what it promised, behind it: nothing before that is meant.
fn search(frame: &Frame, timestamp_ms: i64, from: Offset) -> Result<(Offset, i64), weir_record::Error> {
    let header = &frame.header;
    let codec = Codec::from_number(header.codec)?;
    let declared = header.uncompressed_bytes as usize;
    let set = DECOMPRESSORS.with(declared, |decompressor| {
        decompressor.decompress(codec, &frame.payload, declared, weir_record::BATCH_BYTES_MAX)
    })?;
    for record in Records::new(&set, header.last_offset_delta) {
        let record = record?;
        let offset = header.base_offset.saturating_add(i64::from(record.offset_delta));
        let at_ms = header.base_timestamp_ms.saturating_add(record.timestamp_delta_ms);
        if at_ms >= timestamp_ms && offset >= from {
            return Ok((offset, at_ms));
        }
    }
    Ok((header.next_offset(), header.timestamp_ms()))
}
