//! Batches as a program packs them that has the stubs and the codecs.

use anyhow::Result;
use weir_proto::v1::RecordBatch;
use weir_record::{BatchBuilder, Codec, NO_HEADERS};

/// When all batches of these tests were written, milliseconds since 1970 UTC.
pub const WRITTEN_MS: i64 = 1_700_000_000_000;

/// A batch of key and value pairs.
///
/// # Errors
/// There are none, or they are too large.
pub fn pack<'a>(
    codec: Codec,
    records: impl IntoIterator<Item = (Option<&'a [u8]>, &'a [u8])>,
) -> Result<RecordBatch> {
    let mut builder = BatchBuilder::new();
    for (key, value) in records {
        builder.push(WRITTEN_MS, key, Some(value), NO_HEADERS)?;
    }
    let batch = builder.finish(codec)?;
    Ok(RecordBatch {
        last_offset_delta: batch.last_offset_delta(),
        record_count: batch.record_count,
        base_timestamp_ms: batch.base_timestamp_ms,
        max_timestamp_ms: batch.max_timestamp_ms,
        codec: batch.codec.to_api(),
        uncompressed_bytes: batch.uncompressed_bytes,
        crc: batch.crc,
        records: batch.payload,
        ..RecordBatch::default()
    })
}

/// The same of values without keys.
///
/// # Errors
/// There are none, or they are too large.
pub fn pack_values<'a>(codec: Codec, values: impl IntoIterator<Item = &'a [u8]>) -> Result<RecordBatch> {
    pack(codec, values.into_iter().map(|value| (None, value)))
}
