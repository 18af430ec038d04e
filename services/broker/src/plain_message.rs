//! Answers with plain records: the records are bytes already, transcoded from the batches; the rest is a message.
//! Hot path: nothing is built for a record.

use bytes::{BufMut, BytesMut};
use prost::Message;
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint, key_len};
use weir_proto::codec::Outgoing;
use weir_proto::v1::{FetchResponse, FetchedPartition};

/// `FetchResponse.partitions`.
const PARTITIONS: u32 = 1;

/// A message whose records are written already, as elements of its repeated field.
#[derive(Debug, Default)]
pub(crate) struct Plain<T> {
    pub(crate) records: BytesMut,
    /// Everything else; its own records are empty.
    pub(crate) rest: T,
}

impl<T> From<T> for Plain<T> {
    fn from(rest: T) -> Self {
        Self { records: BytesMut::new(), rest }
    }
}

impl<T: Message + 'static> Outgoing for Plain<T> {
    fn length(&self) -> usize {
        self.records.len() + self.rest.encoded_len()
    }

    fn write(&self, buffer: &mut impl BufMut) {
        buffer.put_slice(&self.records);
        self.rest.encode_raw(buffer);
    }
}

/// The answer of a Fetch.
#[derive(Debug)]
pub(crate) struct Fetched {
    pub(crate) partitions: Vec<Plain<FetchedPartition>>,
    pub(crate) waited_ms: i64,
}

impl Fetched {
    fn rest(&self) -> FetchResponse {
        FetchResponse { partitions: Vec::new(), waited_ms: self.waited_ms }
    }
}

impl Outgoing for Fetched {
    fn length(&self) -> usize {
        let one = |partition: &Plain<FetchedPartition>| {
            let length = partition.length();
            key_len(PARTITIONS) + encoded_len_varint(length as u64) + length
        };
        self.partitions.iter().map(one).sum::<usize>() + self.rest().encoded_len()
    }

    fn write(&self, buffer: &mut impl BufMut) {
        for partition in &self.partitions {
            encode_key(PARTITIONS, WireType::LengthDelimited, buffer);
            encode_varint(partition.length() as u64, buffer);
            partition.write(buffer);
        }
        self.rest().encode_raw(buffer);
    }
}

#[cfg(test)]
mod tests {
    use weir_proto::v1::{ConsumeResponse, PartitionProgress, StoredRecord, TopicPartitionOffset};

    use super::*;

    fn record(offset: i64) -> StoredRecord {
        StoredRecord { topic: "flights".into(), offset, value: Some("x".into()), ..StoredRecord::default() }
    }

    fn written(message: &impl Outgoing) -> Vec<u8> {
        let mut bytes = Vec::new();
        message.write(&mut bytes);
        assert_eq!(bytes.len(), message.length());
        bytes
    }

    #[test]
    fn what_is_written_in_two_parts_is_read_as_one_message() {
        let whole = ConsumeResponse { records: vec![record(1), record(2)], ..ConsumeResponse::default() };
        let next = vec![TopicPartitionOffset { offset: 3, ..TopicPartitionOffset::default() }];
        let rest = ConsumeResponse { next: next.clone(), ..ConsumeResponse::default() };
        let records = BytesMut::from(&whole.encode_to_vec()[..]);
        let read = ConsumeResponse::decode(&*written(&Plain { records, rest })).unwrap();
        assert_eq!(read, ConsumeResponse { next, ..whole });
    }

    #[test]
    fn a_fetch_of_several_partitions_is_read_as_one_message() {
        let progress = |next_offset| PartitionProgress { next_offset, ..PartitionProgress::default() };
        let partition = |offset| FetchedPartition {
            progress: Some(progress(offset + 1)),
            records: vec![record(offset)],
            ..FetchedPartition::default()
        };
        let whole = FetchResponse { partitions: vec![partition(1), partition(200)], waited_ms: 7 };
        let in_parts = |whole: FetchedPartition| {
            let records = FetchedPartition { records: whole.records.clone(), ..FetchedPartition::default() };
            let records = BytesMut::from(&records.encode_to_vec()[..]);
            Plain { records, rest: FetchedPartition { records: Vec::new(), ..whole } }
        };
        let parts = whole.partitions.iter().cloned().map(in_parts).collect();
        let read = FetchResponse::decode(&*written(&Fetched { partitions: parts, waited_ms: 7 })).unwrap();
        assert_eq!(read, whole);
    }
}
