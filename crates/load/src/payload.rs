//! Ready batches: packed, with their CRC, before the clock starts. So a figure says what the server and the wire
//! do, not what packing costs.
//!
//! Records are JSON lines of about 1 KiB that compress 2 to 3 times, as such data does.

use bytes::Bytes;
use prost::Message;
use weir_proto::v1::{BatchRecord, Codec, RecordBatch, RecordSet};

/// The record size that batches are filled with.
pub const RECORD_BYTES: usize = 1024;

/// `count` different batches whose payload is close to and never above `batch_bytes`.
///
/// Different ones, so that neither a cache nor a clever file system sees the same bytes twice in a row.
#[must_use]
pub fn ready_batches(batch_bytes: usize, count: usize) -> Vec<RecordBatch> {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    (0..count.max(1)).map(|_| ready_batch(batch_bytes, &mut random)).collect()
}

fn ready_batch(batch_bytes: usize, random: &mut Random) -> RecordBatch {
    let mut set = RecordSet::default();
    let mut left = batch_bytes;
    // What a record costs beside its value: tags, lengths, the delta.
    let overhead = 16;
    loop {
        let value_bytes =
            if left > 2 * (RECORD_BYTES + overhead) { RECORD_BYTES } else { left.saturating_sub(overhead) };
        let record = BatchRecord {
            offset_delta: i32::try_from(set.records.len()).unwrap_or(i32::MAX),
            value: Some(json(value_bytes.max(1), random)),
            ..BatchRecord::default()
        };
        left = left.saturating_sub(RecordSet { records: vec![record.clone()] }.encoded_len());
        set.records.push(record);
        if value_bytes != RECORD_BYTES {
            break;
        }
    }
    let record_count = i32::try_from(set.records.len()).unwrap_or(i32::MAX);
    let records = Bytes::from(set.encode_to_vec());
    RecordBatch {
        last_offset_delta: record_count - 1,
        record_count,
        base_timestamp_ms: 1_795_000_000_000,
        max_timestamp_ms: 1_795_000_000_000,
        codec: Codec::None.into(),
        uncompressed_bytes: i32::try_from(records.len()).unwrap_or(i32::MAX),
        crc: crc32fast::hash(&records),
        records,
        ..RecordBatch::default()
    }
}

fn json(bytes: usize, random: &mut Random) -> Bytes {
    let mut text = String::with_capacity(bytes + 64);
    while text.len() < bytes {
        let (a, b) = (random.next(), random.next());
        text.push_str(&format!(
            "{{\"sensor\":\"{:04x}\",\"value\":{},\"unit\":\"mm/s\",\"trace\":\"{b:016x}\"}}",
            a % 512,
            a % 100_000
        ));
    }
    text.truncate(bytes);
    Bytes::from(text)
}

/// xorshift: the same payload on every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_fill_their_size_and_verify() {
        for size in [100, 4 << 10, 16 << 10, 252 << 10, 1 << 20] {
            for batch in ready_batches(size, 2) {
                assert!(batch.records.len() <= size, "{} of {size}", batch.records.len());
                assert!(batch.records.len() + 64 > size, "{} of {size}", batch.records.len());
                assert_eq!(crc32fast::hash(&batch.records), batch.crc);
                let set = RecordSet::decode(batch.records.clone()).unwrap();
                assert_eq!(set.records.len(), batch.record_count as usize);
            }
        }
    }
}
