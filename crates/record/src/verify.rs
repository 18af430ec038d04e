//! What a broker checks before it appends a batch that came from outside.
//!
//! The payload is summed up and not opened: what is inside is between producer and consumer, whose reader checks
//! it again ([`Records`]). [`verify_deep`] opens it, where somebody asked for that.

use bytes::Bytes;

use crate::codec::check_declared;
use crate::{BATCH_BYTES_MAX, Codec, Decompressor, Error, Records};

/// What a batch says about its payload: the fields of `weir.v1.RecordBatch`, or of a frame on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Declared {
    /// CRC-32 over the payload.
    pub crc: u32,
    /// How the payload is compressed.
    pub codec: Codec,
    /// Its size once decompressed.
    pub uncompressed_bytes: i32,
    /// How many records there are.
    pub record_count: i32,
    /// The last record's offset less the first one's.
    pub last_offset_delta: i32,
    /// What the records' timestamp deltas are added to, milliseconds since 1970 UTC.
    pub base_timestamp_ms: i64,
    /// The largest timestamp among the records.
    pub max_timestamp_ms: i64,
}

/// What a batch may be at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The payload as sent, in bytes: the topic's `batch_bytes_max`.
    pub payload_bytes_max: usize,
    /// The record set once decompressed, in bytes.
    pub uncompressed_bytes_max: usize,
    /// The number of records.
    pub records_max: i32,
    /// Key, value and headers of one record, in bytes; only a deep check sees it.
    pub record_bytes_max: usize,
}

impl Default for Limits {
    /// What no topic can exceed.
    fn default() -> Self {
        Self {
            payload_bytes_max: BATCH_BYTES_MAX,
            uncompressed_bytes_max: BATCH_BYTES_MAX,
            records_max: i32::MAX,
            record_bytes_max: BATCH_BYTES_MAX,
        }
    }
}

/// Checks a produced batch without opening it: sizes within the limits and possible, counts that agree, and the CRC.
///
/// # Errors
/// [`Error::BatchTooLarge`], [`Error::DecompressionLimit`], [`Error::SizeMismatch`], [`Error::Invalid`],
/// [`Error::BatchCorrupt`].
pub fn verify(payload: &[u8], declared: &Declared, limits: &Limits) -> Result<(), Error> {
    if payload.len() > limits.payload_bytes_max {
        return Err(Error::BatchTooLarge { bytes: payload.len(), limit: limits.payload_bytes_max });
    }
    let count = declared.record_count;
    if count < 1 || count > limits.records_max {
        return Err(Error::invalid(format!(
            "record_count is {count}: a batch has 1 to {} records",
            limits.records_max
        )));
    }
    if declared.last_offset_delta != count - 1 {
        return Err(Error::invalid(format!(
            "last_offset_delta is {}: for record_count {count} it is {}",
            declared.last_offset_delta,
            count - 1
        )));
    }
    let uncompressed = usize::try_from(declared.uncompressed_bytes).map_err(|_| {
        Error::invalid(format!(
            "uncompressed_bytes is {}: it cannot be negative",
            declared.uncompressed_bytes
        ))
    })?;
    check_declared(declared.codec, payload.len(), uncompressed, limits.uncompressed_bytes_max)?;
    // The smallest record, empty, takes two bytes, and the offset of every one after the first two more. A batch
    // that claims more records than it can hold would waste the partition's offsets.
    let smallest = 4 * i64::from(count) - 2;
    if i64::from(declared.uncompressed_bytes) < smallest {
        return Err(Error::invalid(format!(
            "record_count is {count}: {uncompressed} B cannot hold as many records"
        )));
    }
    let actual = crate::crc(payload);
    if actual != declared.crc {
        return Err(Error::BatchCorrupt { declared: declared.crc, actual });
    }
    Ok(())
}

/// Checks a produced batch through and through: as [`verify`] does, and that it decompresses to what it says, to
/// as many records as it says, with offsets that follow one another and the declared largest timestamp. Returns the
/// record set.
///
/// # Errors
/// Those of [`verify`] and of [`Decompressor::decompress`], [`Error::Malformed`], [`Error::RecordTooLarge`].
pub fn verify_deep(
    payload: &Bytes,
    declared: &Declared,
    limits: &Limits,
    decompressor: &mut Decompressor,
) -> Result<Bytes, Error> {
    verify(payload, declared, limits)?;
    let uncompressed = usize::try_from(declared.uncompressed_bytes).unwrap_or_default();
    let set =
        decompressor.decompress(declared.codec, payload, uncompressed, limits.uncompressed_bytes_max)?;
    let mut count = 0;
    let mut max_timestamp_ms = i64::MIN;
    for record in Records::new(&set, declared.last_offset_delta) {
        let record = record?;
        if record.offset_delta != count {
            return Err(Error::invalid(format!(
                "record {count} of the batch has offset_delta {}: as produced they are 0, 1, 2 …",
                record.offset_delta
            )));
        }
        let bytes = record.payload_bytes();
        if bytes > limits.record_bytes_max {
            return Err(Error::RecordTooLarge { bytes, limit: limits.record_bytes_max });
        }
        count += 1;
        max_timestamp_ms =
            max_timestamp_ms.max(declared.base_timestamp_ms.wrapping_add(record.timestamp_delta_ms));
    }
    if count != declared.record_count {
        return Err(Error::invalid(format!(
            "record_count is {}: the batch holds {count}",
            declared.record_count
        )));
    }
    if max_timestamp_ms != declared.max_timestamp_ms {
        return Err(Error::invalid(format!(
            "max_timestamp_ms is {}: the largest among the records is {max_timestamp_ms}",
            declared.max_timestamp_ms
        )));
    }
    Ok(set)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Batch, BatchBuilder, NO_HEADERS};

    type Change = fn(&mut Declared);

    fn batch(codec: Codec) -> Batch {
        let mut builder = BatchBuilder::new();
        for i in 0..50 {
            builder.push(1_000 + i, Some(b"some key"), Some(&[7; 100]), NO_HEADERS).unwrap();
        }
        let batch = builder.finish(codec).unwrap();
        assert_eq!(batch.codec, codec);
        batch
    }

    #[test]
    fn what_the_builder_makes_passes() {
        for codec in Codec::ALL {
            let batch = batch(codec);
            let set =
                verify_deep(&batch.payload, &batch.declared(), &Limits::default(), &mut Decompressor::new())
                    .unwrap();
            assert_eq!(set.len(), batch.uncompressed_bytes as usize);
        }
        // The smallest batches there are.
        let mut builder = BatchBuilder::new();
        for count in 1..200 {
            for _ in 0..count {
                builder.push(0, None, None, NO_HEADERS).unwrap();
            }
            let batch = builder.finish(Codec::None).unwrap();
            assert_eq!(verify(&batch.payload, &batch.declared(), &Limits::default()), Ok(()));
        }
    }

    #[test]
    fn every_untrue_word_is_found_without_opening() {
        let cases: [(&str, Change); 9] = [
            ("CRC-32", |d| d.crc ^= 1),
            ("declares 5000000", |d| d.uncompressed_bytes = 5_000_000),
            ("limit is", |d| d.uncompressed_bytes = i32::MAX),
            ("cannot be negative", |d| d.uncompressed_bytes = -1),
            ("1 to", |d| d.record_count = 0),
            ("1 to", |d| d.record_count = -1),
            ("for record_count 50 it is 49", |d| d.last_offset_delta = 50),
            ("as many records", |d| (d.record_count, d.last_offset_delta) = (1_000_000, 999_999)),
            ("as many records", |d| (d.record_count, d.last_offset_delta) = (i32::MAX, i32::MAX - 1)),
        ];
        for codec in Codec::ALL {
            let batch = batch(codec);
            for (what, change) in cases {
                let mut declared = batch.declared();
                change(&mut declared);
                let outcome = verify(&batch.payload, &declared, &Limits::default());
                if codec == Codec::Zstd && what == "declares 5000000" {
                    // zstd could make as much of it: only decompressing tells.
                    assert_eq!(outcome, Ok(()));
                    continue;
                }
                let error = outcome.unwrap_err().to_string();
                assert!(error.contains(what), "{codec}: {error}");
            }
        }
    }

    #[test]
    fn limits_are_kept() {
        let batch = batch(Codec::Zstd);
        let refused = |limits: Limits| {
            verify_deep(&batch.payload, &batch.declared(), &limits, &mut Decompressor::new()).unwrap_err()
        };
        let limits = Limits::default();
        let bytes = batch.payload.len();
        assert_eq!(
            refused(Limits { payload_bytes_max: bytes - 1, ..limits }),
            Error::BatchTooLarge { bytes, limit: bytes - 1 }
        );
        assert!(matches!(
            refused(Limits { uncompressed_bytes_max: 5_000, ..limits }),
            Error::DecompressionLimit { limit: 5_000, .. }
        ));
        assert!(refused(Limits { records_max: 49, ..limits }).to_string().contains("1 to 49"));
        assert_eq!(
            refused(Limits { record_bytes_max: 107, ..limits }),
            Error::RecordTooLarge { bytes: 108, limit: 107 }
        );
    }

    #[test]
    fn what_only_opening_shows_is_found_by_opening() {
        let cases: [(&str, Change); 4] = [
            ("declares", |d| d.uncompressed_bytes += 1),
            ("declares", |d| d.uncompressed_bytes -= 1),
            ("the batch holds 50", |d| (d.record_count, d.last_offset_delta) = (51, 50)),
            ("its offset is not", |d| (d.record_count, d.last_offset_delta) = (49, 48)),
        ];
        for codec in [Codec::Gzip, Codec::Zstd, Codec::Lz4] {
            let batch = batch(codec);
            for (what, change) in cases {
                let mut declared = batch.declared();
                change(&mut declared);
                assert_eq!(verify(&batch.payload, &declared, &Limits::default()), Ok(()));
                let error =
                    verify_deep(&batch.payload, &declared, &Limits::default(), &mut Decompressor::new())
                        .unwrap_err()
                        .to_string();
                assert!(error.contains(what), "{codec}: {error}");
            }
        }
        let batch = batch(Codec::None);
        let mut declared = batch.declared();
        declared.max_timestamp_ms += 1;
        let error =
            verify_deep(&batch.payload, &declared, &Limits::default(), &mut Decompressor::new()).unwrap_err();
        assert!(error.to_string().contains("largest among the records is 1049"), "{error}");
    }
}
