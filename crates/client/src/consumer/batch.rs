//! A batch as the caller gets it: checked, decompressed once, read in place.

use std::sync::Arc;

use bytes::Bytes;
use weir_proto::v1;
use weir_record::{Codec, Decompressor, Headers, Records};

use crate::{Error, Result};

/// Records of one partition, in order. Owns the memory that its records are views of.
#[derive(Clone, Debug)]
pub struct Batch {
    topic: Arc<str>,
    partition: i32,
    base_offset: i64,
    last_offset_delta: i32,
    base_timestamp_ms: i64,
    /// With append timestamps: what every record has.
    append_timestamp_ms: Option<i64>,
    leader_epoch: i32,
    /// Records below this are not wanted.
    from: i64,
    next_offset: i64,
    high_watermark: i64,
    set: Bytes,
}

/// A record, borrowed from its batch.
#[derive(Clone, Copy, Debug)]
pub struct RecordView<'a> {
    /// Its offset in the partition.
    pub offset: i64,
    /// Milliseconds since 1970 UTC: the producer's time or the leader's, as the topic has it.
    pub timestamp_ms: i64,
    /// The key; an empty key is one.
    pub key: Option<&'a [u8]>,
    /// The value; none is a tombstone.
    pub value: Option<&'a [u8]>,
    headers: Headers<'a>,
}

/// A record that owns what it says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnedRecord {
    /// Its offset in the partition.
    pub offset: i64,
    /// Milliseconds since 1970 UTC.
    pub timestamp_ms: i64,
    /// The key.
    pub key: Option<Vec<u8>>,
    /// The value.
    pub value: Option<Vec<u8>>,
    /// Names and values, in order.
    pub headers: Vec<(String, Vec<u8>)>,
}

impl<'a> RecordView<'a> {
    /// Names and values, in order.
    pub fn headers(&self) -> impl Iterator<Item = (&'a str, &'a [u8])> + use<'a> {
        self.headers.map(|header| (header.key, header.value))
    }

    /// A copy that outlives the batch.
    pub fn to_owned(&self) -> OwnedRecord {
        OwnedRecord {
            offset: self.offset,
            timestamp_ms: self.timestamp_ms,
            key: self.key.map(<[u8]>::to_vec),
            value: self.value.map(<[u8]>::to_vec),
            headers: self.headers().map(|(key, value)| (key.to_owned(), value.to_vec())).collect(),
        }
    }
}

impl Batch {
    /// Opens what a leader delivered: checks the sum, decompresses within what was declared. `None`: a marker of
    /// the system's, of which nothing is to be seen.
    pub(super) fn open(
        topic: &Arc<str>,
        partition: i32,
        from: i64,
        delivery: v1::BatchDelivery,
        decompressor: &mut Decompressor,
    ) -> Result<Option<Self>> {
        let Some(batch) = delivery.batch.filter(|batch| !batch.control) else { return Ok(None) };
        let corrupt = |cause: String| Error::Corrupt {
            topic: Arc::clone(topic),
            partition,
            offset: batch.base_offset,
            cause: cause.into(),
        };
        let actual = weir_record::crc(&batch.records);
        if actual != batch.crc {
            return Err(corrupt(format!("its CRC-32 is {actual:08x}, declared is {:08x}", batch.crc)));
        }
        let append_timestamp_ms =
            (batch.timestamp_type() == v1::TimestampType::Append).then_some(batch.max_timestamp_ms);
        let declared = usize::try_from(batch.uncompressed_bytes)
            .map_err(|_| corrupt("its uncompressed size is negative".to_owned()))?;
        let set = Codec::from_api(batch.codec)
            .and_then(|codec| {
                decompressor.decompress(codec, &batch.records, declared, weir_record::BATCH_BYTES_MAX)
            })
            .map_err(|e| corrupt(e.to_string()))?;
        Ok(Some(Self {
            topic: Arc::clone(topic),
            partition,
            base_offset: batch.base_offset,
            last_offset_delta: batch.last_offset_delta,
            base_timestamp_ms: batch.base_timestamp_ms,
            append_timestamp_ms,
            leader_epoch: batch.leader_epoch,
            from,
            next_offset: delivery.next_offset,
            high_watermark: delivery.high_watermark,
            set,
        }))
    }

    /// The topic.
    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// The partition.
    pub fn partition(&self) -> i32 {
        self.partition
    }

    /// Where reading goes on after this batch.
    pub fn next_offset(&self) -> i64 {
        self.next_offset
    }

    /// The leader epoch that the records were written in.
    pub fn leader_epoch(&self) -> i32 {
        self.leader_epoch
    }

    /// The end of what was committed when this was read. Less [`Batch::next_offset`]: how many offsets behind. `None`: the
    /// partition's leader had just begun, and did not know it.
    pub fn high_watermark(&self) -> Option<i64> {
        (self.high_watermark >= 0).then_some(self.high_watermark)
    }

    /// The size of the records, uncompressed, in bytes.
    pub fn bytes(&self) -> usize {
        self.set.len()
    }

    /// The records, from the position that was asked for on.
    ///
    /// # Errors
    /// An item is [`Error::Corrupt`] if what the producer packed is not a record; it is the last one then.
    pub fn records(&self) -> RecordViews<'_> {
        RecordViews { batch: self, records: Records::new(&self.set, self.last_offset_delta) }
    }
}

impl<'a> IntoIterator for &'a Batch {
    type Item = Result<RecordView<'a>>;
    type IntoIter = RecordViews<'a>;

    fn into_iter(self) -> RecordViews<'a> {
        self.records()
    }
}

/// The records of a [`Batch`].
#[derive(Clone, Debug)]
pub struct RecordViews<'a> {
    batch: &'a Batch,
    records: Records<'a>,
}

impl<'a> Iterator for RecordViews<'a> {
    type Item = Result<RecordView<'a>>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        let batch = self.batch;
        loop {
            let record = match self.records.next()? {
                Ok(record) => record,
                Err(e) => {
                    return Some(Err(Error::Corrupt {
                        topic: Arc::clone(&batch.topic),
                        partition: batch.partition,
                        offset: batch.base_offset,
                        cause: e.to_string().into(),
                    }));
                }
            };
            let offset = batch.base_offset + i64::from(record.offset_delta);
            if offset < batch.from {
                continue;
            }
            let timestamp_ms = match batch.append_timestamp_ms {
                Some(at) => at,
                None => batch.base_timestamp_ms.wrapping_add(record.timestamp_delta_ms),
            };
            let headers = record.headers();
            return Some(Ok(RecordView {
                offset,
                timestamp_ms,
                key: record.key,
                value: record.value,
                headers,
            }));
        }
    }
}

#[cfg(test)]
mod tests {
    use weir_record::{BatchBuilder, NO_HEADERS};

    use super::*;

    fn delivery(codec: Codec) -> v1::BatchDelivery {
        let mut builder = BatchBuilder::new();
        for i in 0..100 {
            let header = [("n", &b"x"[..])];
            builder.push(1_000 + i, Some(b"k"), Some(b"value value value"), header).unwrap();
        }
        builder.push(7, None, None, NO_HEADERS).unwrap();
        let batch = builder.finish(codec).unwrap();
        v1::BatchDelivery {
            next_offset: 151,
            high_watermark: 200,
            batch: Some(v1::RecordBatch {
                base_offset: 50,
                last_offset_delta: batch.last_offset_delta(),
                record_count: batch.record_count,
                base_timestamp_ms: batch.base_timestamp_ms,
                max_timestamp_ms: batch.max_timestamp_ms,
                codec: batch.codec.to_api(),
                uncompressed_bytes: batch.uncompressed_bytes,
                crc: batch.crc,
                leader_epoch: 3,
                records: batch.payload,
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    fn open(delivery: v1::BatchDelivery) -> Result<Option<Batch>> {
        Batch::open(&"t".into(), 1, 148, delivery, &mut Decompressor::new())
    }

    #[test]
    fn records_below_the_position_are_passed_over() {
        for codec in Codec::ALL {
            let batch = open(delivery(codec)).unwrap().unwrap();
            let records: Vec<_> = batch.records().map(Result::unwrap).collect();
            let offsets: Vec<_> = records.iter().map(|record| record.offset).collect();
            assert_eq!(offsets, [148, 149, 150]);
            assert_eq!((records[0].timestamp_ms, records[2].timestamp_ms), (1_098, 7));
            assert_eq!(records[0].headers().collect::<Vec<_>>(), [("n", &b"x"[..])]);
            assert_eq!((records[2].key, records[2].value), (None, None));
            assert_eq!(records[0].to_owned().key.as_deref(), Some(&b"k"[..]));
        }
    }

    #[test]
    fn append_timestamps_are_the_same_for_all() {
        let mut delivery = delivery(Codec::None);
        delivery.batch.as_mut().unwrap().timestamp_type = v1::TimestampType::Append.into();
        let batch = open(delivery).unwrap().unwrap();
        assert!(batch.records().all(|record| record.unwrap().timestamp_ms == 1_099));
    }

    #[test]
    fn what_is_damaged_is_refused_with_its_place() {
        let spoiled: [fn(&mut v1::RecordBatch); 4] = [
            |batch| batch.crc ^= 1,
            |batch| batch.uncompressed_bytes += 1,
            |batch| batch.uncompressed_bytes = -1,
            |batch| batch.codec = 99,
        ];
        for spoil in spoiled {
            let mut delivery = delivery(Codec::Zstd);
            spoil(delivery.batch.as_mut().unwrap());
            let error = open(delivery).unwrap_err();
            assert!(error.to_string().starts_with("t/1@50: "), "{error}");
        }
        let mut delivery = delivery(Codec::None);
        delivery.batch.as_mut().unwrap().last_offset_delta = 99;
        let batch = open(delivery).unwrap().unwrap();
        assert!(batch.records().last().unwrap().is_err(), "a record that claims its neighbour's offset");
    }

    #[test]
    fn markers_are_not_seen() {
        let mut delivery = delivery(Codec::None);
        delivery.batch.as_mut().unwrap().control = true;
        assert!(open(delivery).unwrap().is_none());
    }
}
