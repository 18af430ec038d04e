//! Packing records into a batch: straight into one growing buffer, nothing allocated per record.
//!
//! Hot path of every producer: `push` runs on the caller's thread, under the partition's lock.

use bytes::Bytes;

use crate::wire::{
    BYTES, bytes_field_len, int, put_bytes_field, put_varint, put_varint_field, tag, varint_field_len,
    varint_len,
};
use crate::{BATCH_BYTES_MAX, Codec, Compressor, Declared, Error};

/// For records without headers.
pub const NO_HEADERS: [(&str, &[u8]); 0] = [];

/// Packs records of one partition. It can be used again after every [`take`](Self::take) or
/// [`finish`](Self::finish), and starts its next buffer at about the size of the last batch.
#[derive(Debug, Default)]
pub struct BatchBuilder {
    set: Vec<u8>,
    count: i32,
    base_timestamp_ms: i64,
    max_timestamp_ms: i64,
    expected_bytes: usize,
}

/// What a record takes: its body, and the whole with its framing.
#[derive(Clone, Copy)]
struct Sizes {
    timestamp_delta_ms: i64,
    body: usize,
    whole: usize,
}

impl BatchBuilder {
    /// A builder that has allocated nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// A builder whose first buffer will have room for `bytes`.
    pub fn with_capacity(bytes: usize) -> Self {
        Self { expected_bytes: bytes.min(BATCH_BYTES_MAX), ..Self::default() }
    }

    /// Packs the next batch into this memory, whose content is dropped. Does nothing once a record is in.
    pub fn reuse(&mut self, mut memory: Vec<u8>) {
        if self.count == 0 {
            memory.clear();
            self.set = memory;
        }
    }

    /// How many records are in.
    pub fn record_count(&self) -> i32 {
        self.count
    }

    /// Whether nothing is in.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The size of the record set so far, uncompressed, in bytes.
    pub fn bytes(&self) -> usize {
        self.set.len()
    }

    /// Adds a record, and returns its offset delta: its place in the batch, from 0. `timestamp_ms` is milliseconds
    /// since 1970 UTC.
    ///
    /// # Errors
    /// [`Error::RecordTooLarge`] if no batch could hold it, [`Error::BatchTooLarge`] if this one cannot; nothing is
    /// changed then.
    pub fn push<'h, H>(
        &mut self,
        timestamp_ms: i64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: H,
    ) -> Result<i32, Error>
    where
        H: IntoIterator<Item = (&'h str, &'h [u8])> + Clone,
    {
        let bytes = self.set.len();
        self.try_push(BATCH_BYTES_MAX, timestamp_ms, key, value, headers)?
            .ok_or(Error::BatchTooLarge { bytes, limit: BATCH_BYTES_MAX })
    }

    /// Like [`push`](Self::push), but `None`, and nothing changed, if the record set would pass `bytes_max` with
    /// this record: the batch is full, take it and push again. The first record goes in whatever its size, up to
    /// [`BATCH_BYTES_MAX`]: whoever has a limit for single records checks it before.
    ///
    /// # Errors
    /// [`Error::RecordTooLarge`], and what [`push`](Self::push) refuses beside the size of the batch.
    pub fn try_push<'h, H>(
        &mut self,
        bytes_max: usize,
        timestamp_ms: i64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: H,
    ) -> Result<Option<i32>, Error>
    where
        H: IntoIterator<Item = (&'h str, &'h [u8])> + Clone,
    {
        let sizes = self.sizes(timestamp_ms, key, value, headers.clone());
        if sizes.whole > BATCH_BYTES_MAX {
            return Err(Error::RecordTooLarge { bytes: sizes.whole, limit: BATCH_BYTES_MAX });
        }
        let bytes = self.set.len() + sizes.whole;
        if self.count > 0 && (bytes > bytes_max.min(BATCH_BYTES_MAX) || self.count == i32::MAX) {
            return Ok(None);
        }
        if self.count == 0 {
            // What was given to be used again is large enough for most.
            let expected = if self.set.capacity() == 0 { self.expected_bytes } else { 0 };
            self.set.reserve(expected.max(sizes.whole));
            self.base_timestamp_ms = timestamp_ms;
            self.max_timestamp_ms = timestamp_ms;
        } else {
            self.set.reserve(sizes.whole);
            self.max_timestamp_ms = self.max_timestamp_ms.max(timestamp_ms);
        }
        let delta = self.count;
        self.count += 1;
        self.write(delta, sizes, key, value, headers);
        debug_assert_eq!(self.set.len(), bytes, "sizes and write agree");
        Ok(Some(delta))
    }

    /// Takes what was packed; `None` if nothing was. Cheap: compression and checksum come with [`Packed::seal`],
    /// wherever there is time for it.
    pub fn take(&mut self) -> Option<Packed> {
        if self.count == 0 {
            return None;
        }
        let set = std::mem::take(&mut self.set);
        self.expected_bytes = (set.len() + set.len() / 8).min(BATCH_BYTES_MAX);
        Some(Packed {
            set: set.into(),
            record_count: std::mem::take(&mut self.count),
            base_timestamp_ms: self.base_timestamp_ms,
            max_timestamp_ms: self.max_timestamp_ms,
        })
    }

    /// Takes, compresses at the codec's default level, and sums up what was packed.
    ///
    /// # Errors
    /// [`Error::Invalid`] if nothing was packed: there are no empty batches.
    pub fn finish(&mut self, codec: Codec) -> Result<Batch, Error> {
        let packed = self.take().ok_or_else(|| Error::invalid("a batch has at least one record"))?;
        packed.seal(codec, None, &mut Compressor::new())
    }

    fn sizes<'h>(
        &self,
        timestamp_ms: i64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: impl IntoIterator<Item = (&'h str, &'h [u8])>,
    ) -> Sizes {
        let timestamp_delta_ms =
            if self.count == 0 { 0 } else { timestamp_ms.wrapping_sub(self.base_timestamp_ms) };
        let body = varint_field_len(int(self.count.into()))
            + varint_field_len(int(timestamp_delta_ms))
            + key.map_or(0, |key| bytes_field_len(key.len()))
            + value.map_or(0, |value| bytes_field_len(value.len()))
            + headers.into_iter().map(|(key, value)| bytes_field_len(header_len(key, value))).sum::<usize>();
        Sizes { timestamp_delta_ms, body, whole: bytes_field_len(body) }
    }

    fn write<'h>(
        &mut self,
        offset_delta: i32,
        sizes: Sizes,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: impl IntoIterator<Item = (&'h str, &'h [u8])>,
    ) {
        let set = &mut self.set;
        put_varint(set, tag(1, BYTES));
        put_varint(set, sizes.body as u64);
        put_varint_field(set, 1, int(offset_delta.into()));
        put_varint_field(set, 2, int(sizes.timestamp_delta_ms));
        if let Some(key) = key {
            put_bytes_field(set, 3, key);
        }
        if let Some(value) = value {
            put_bytes_field(set, 4, value);
        }
        for (key, value) in headers {
            put_varint(set, tag(5, BYTES));
            put_varint(set, header_len(key, value) as u64);
            if !key.is_empty() {
                put_bytes_field(set, 1, key.as_bytes());
            }
            if !value.is_empty() {
                put_bytes_field(set, 2, value);
            }
        }
    }
}

fn header_len(key: &str, value: &[u8]) -> usize {
    let field =
        |bytes: &[u8]| if bytes.is_empty() { 0 } else { 1 + varint_len(bytes.len() as u64) + bytes.len() };
    field(key.as_bytes()) + field(value)
}

/// Records that were packed and neither compressed nor summed up yet.
#[derive(Clone, Debug)]
pub struct Packed {
    set: Bytes,
    record_count: i32,
    base_timestamp_ms: i64,
    max_timestamp_ms: i64,
}

impl Packed {
    /// How many records there are.
    pub fn record_count(&self) -> i32 {
        self.record_count
    }

    /// The size of the record set, in bytes.
    pub fn bytes(&self) -> usize {
        self.set.len()
    }

    /// The record set, uncompressed.
    pub fn into_set(self) -> Bytes {
        self.set
    }

    /// Compresses and sums up. Without compression nothing is copied. Records that the codec would make larger stay
    /// uncompressed, which the batch then says.
    ///
    /// # Errors
    /// [`Error::LevelUnsupported`].
    pub fn seal(self, codec: Codec, level: Option<i32>, compressor: &mut Compressor) -> Result<Batch, Error> {
        let uncompressed_bytes = self.set.len();
        let (codec, payload) = compressor.compress(codec, level, &self.set)?;
        Ok(Batch {
            crc: crate::crc(&payload),
            payload,
            codec,
            uncompressed_bytes: i32::try_from(uncompressed_bytes).unwrap_or(i32::MAX),
            record_count: self.record_count,
            base_timestamp_ms: self.base_timestamp_ms,
            max_timestamp_ms: self.max_timestamp_ms,
        })
    }
}

/// A batch, ready to be sent or stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// The record set, compressed.
    pub payload: Bytes,
    /// How it is compressed.
    pub codec: Codec,
    /// Its size once decompressed.
    pub uncompressed_bytes: i32,
    /// How many records there are.
    pub record_count: i32,
    /// What the records' timestamp deltas are added to: the first record's timestamp, milliseconds since 1970 UTC.
    pub base_timestamp_ms: i64,
    /// The largest timestamp among the records.
    pub max_timestamp_ms: i64,
    /// CRC-32 over the payload.
    pub crc: u32,
}

impl Batch {
    /// The last record's offset less the first one's.
    pub fn last_offset_delta(&self) -> i32 {
        self.record_count - 1
    }

    /// What the batch says about its payload.
    pub fn declared(&self) -> Declared {
        Declared {
            crc: self.crc,
            codec: self.codec,
            uncompressed_bytes: self.uncompressed_bytes,
            record_count: self.record_count,
            last_offset_delta: self.last_offset_delta(),
            base_timestamp_ms: self.base_timestamp_ms,
            max_timestamp_ms: self.max_timestamp_ms,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_are_told_from_the_first_record() {
        let mut builder = BatchBuilder::new();
        for timestamp_ms in [1_000, 990, 1_500] {
            builder.push(timestamp_ms, None, Some(b"v"), NO_HEADERS).unwrap();
        }
        let batch = builder.finish(Codec::None).unwrap();
        assert_eq!((batch.base_timestamp_ms, batch.max_timestamp_ms), (1_000, 1_500));
        let deltas: Vec<_> = crate::Records::new(&batch.payload, batch.last_offset_delta())
            .map(|record| record.map(|record| (record.offset_delta, record.timestamp_delta_ms)).unwrap())
            .collect();
        assert_eq!(deltas, [(0, 0), (1, -10), (2, 500)]);
        assert_eq!(batch.crc, crate::crc(&batch.payload));
    }

    #[test]
    fn timestamps_at_the_ends_of_time_come_back() {
        let mut builder = BatchBuilder::new();
        for timestamp_ms in [i64::MAX, i64::MIN, -1] {
            builder.push(timestamp_ms, None, None, NO_HEADERS).unwrap();
        }
        let batch = builder.finish(Codec::None).unwrap();
        let back: Vec<_> = crate::Records::new(&batch.payload, 2)
            .map(|record| batch.base_timestamp_ms.wrapping_add(record.unwrap().timestamp_delta_ms))
            .collect();
        assert_eq!(back, [i64::MAX, i64::MIN, -1]);
    }

    #[test]
    fn a_full_batch_takes_no_more_and_loses_nothing() {
        let mut builder = BatchBuilder::new();
        let value = [7_u8; 100];
        let mut pushed = 0;
        while let Some(at) = builder.try_push(1_000, 0, None, Some(&value), NO_HEADERS).unwrap() {
            assert_eq!(at, pushed);
            pushed += 1;
        }
        let full = builder.bytes();
        assert!(full <= 1_000 && full > 890, "{full}");
        assert_eq!(builder.try_push(1_000, 0, None, Some(&value), NO_HEADERS), Ok(None));
        assert_eq!((builder.bytes(), builder.record_count()), (full, pushed));
        // A smaller one still goes in.
        assert_eq!(builder.try_push(full + 4, 0, None, None, NO_HEADERS), Ok(Some(pushed)));
    }

    #[test]
    fn the_first_record_goes_in_whatever_its_size() {
        let mut builder = BatchBuilder::new();
        assert_eq!(builder.try_push(10, 0, None, Some(&[0; 5_000]), NO_HEADERS), Ok(Some(0)));
        assert_eq!(builder.try_push(10, 0, None, None, NO_HEADERS), Ok(None));
    }

    #[test]
    fn what_no_batch_can_hold_is_refused_and_changes_nothing() {
        let mut builder = BatchBuilder::new();
        let large = vec![0; BATCH_BYTES_MAX];
        let error = builder.push(0, None, Some(&large), NO_HEADERS).unwrap_err();
        assert!(matches!(error, Error::RecordTooLarge { limit: BATCH_BYTES_MAX, .. }), "{error}");
        assert!(builder.is_empty());
        builder.push(0, None, Some(b"v"), NO_HEADERS).unwrap();
        let error = builder.push(0, None, Some(&large[8..]), NO_HEADERS).unwrap_err();
        assert!(matches!(error, Error::BatchTooLarge { .. } | Error::RecordTooLarge { .. }), "{error}");
        assert_eq!(builder.record_count(), 1);
    }

    #[test]
    fn a_builder_starts_afresh_after_each_batch() {
        let mut builder = BatchBuilder::with_capacity(1 << 20);
        assert!(builder.take().is_none());
        assert!(builder.finish(Codec::None).is_err());
        builder.push(50, Some(b"k"), None, NO_HEADERS).unwrap();
        let first = builder.finish(Codec::None).unwrap();
        builder.push(50, Some(b"k"), None, NO_HEADERS).unwrap();
        assert_eq!(builder.finish(Codec::None).unwrap(), first);
    }

    #[test]
    fn memory_given_back_is_packed_into_again() {
        let mut builder = BatchBuilder::new();
        let mut memory = Vec::with_capacity(10_000);
        memory.push(7);
        let at = memory.as_ptr();
        builder.reuse(memory);
        builder.push(50, Some(b"k"), None, NO_HEADERS).unwrap();
        builder.reuse(Vec::new());
        let set = builder.take().unwrap().into_set();
        assert_eq!(set.as_ptr(), at);
        builder.push(50, Some(b"k"), None, NO_HEADERS).unwrap();
        assert_eq!(builder.take().unwrap().into_set(), set);
    }
}
