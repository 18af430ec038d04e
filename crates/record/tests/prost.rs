//! Our few lines of protobuf against prost: the same bytes out, the same records in, the same things refused.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may stop at the first surprise")]

mod support;

use bytes::{Bytes, BytesMut};
use proptest::collection::vec;
use proptest::prelude::*;
use prost::Message;
use support::{Given, any_records, pack};
use weir_proto::v1;
use weir_record::{Budget, Records, Source, Stop, Timestamps, Transcoder};

const ALL: Budget = Budget { records: usize::MAX, bytes: usize::MAX };

/// The same as the generated messages, based on `base_timestamp_ms`.
fn record_set(records: &[Given], base_timestamp_ms: i64) -> v1::RecordSet {
    let records = records.iter().zip(0..).map(|(record, offset_delta)| v1::BatchRecord {
        offset_delta,
        timestamp_delta_ms: record.timestamp_ms.wrapping_sub(base_timestamp_ms),
        key: record.key.clone().map(Into::into),
        value: record.value.clone().map(Into::into),
        headers: headers(record),
    });
    v1::RecordSet { records: records.collect() }
}

/// The headers as generated messages.
fn headers(record: &Given) -> Vec<v1::Header> {
    let header =
        |(key, value): &(String, Vec<u8>)| v1::Header { key: key.clone(), value: value.clone().into() };
    record.headers.iter().map(header).collect()
}

/// A record set as our reader sees it, in the words of the generated messages.
fn read(set: &[u8]) -> Option<v1::RecordSet> {
    let records = Records::new(set, i32::MAX).map(|record| {
        let record = record.ok()?;
        let headers = record.headers();
        assert_eq!(headers.len(), headers.count());
        Some(v1::BatchRecord {
            offset_delta: record.offset_delta,
            timestamp_delta_ms: record.timestamp_delta_ms,
            key: record.key.map(Bytes::copy_from_slice),
            value: record.value.map(Bytes::copy_from_slice),
            headers: headers
                .map(|header| v1::Header {
                    key: header.key.into(),
                    value: Bytes::copy_from_slice(header.value),
                })
                .collect(),
        })
    });
    Some(v1::RecordSet { records: records.collect::<Option<_>>()? })
}

/// What protobuf cannot say about a record set and our reader asks for.
fn offsets_rise(set: &v1::RecordSet) -> bool {
    let deltas = || set.records.iter().map(|record| record.offset_delta);
    deltas().next().is_none_or(|first| first >= 0) && deltas().is_sorted_by(|a, b| a < b)
}

/// A number that is small as often as not.
fn varint() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![0..3_u64, any::<u64>()].prop_map(|value| {
        let mut bytes = Vec::new();
        prost::encoding::encode_varint(value, &mut bytes);
        bytes
    })
}

/// A field as some encoder might write it: known or not, of the right type or not, possibly cut.
fn any_field(depth: u32) -> BoxedStrategy<Vec<u8>> {
    let content = if depth == 0 { vec(any::<u8>(), 0..6).boxed() } else { any_message(depth - 1) };
    let tagged = |wire_type: u8| move |field: u8| (field << 3) | wire_type;
    let number = (0..8_u8, varint()).prop_map(move |(field, value)| {
        let mut bytes = vec![tagged(0)(field)];
        bytes.extend(value);
        bytes
    });
    let delimited = (0..8_u8, content).prop_map(move |(field, value)| {
        let mut bytes = vec![tagged(2)(field)];
        prost::encoding::encode_varint(value.len() as u64, &mut bytes);
        bytes.extend(value);
        bytes
    });
    let fixed = (4..8_u8).prop_map(|field| vec![(field << 3) | 5, 1, 2, 3, 4]);
    let group = (6..8_u8).prop_map(|field| vec![(field << 3) | 3, 0x08, 1, (field << 3) | 4]);
    prop_oneof![4 => number, 6 => delimited, 1 => fixed, 1 => group, 1 => vec(any::<u8>(), 0..4)].boxed()
}

fn any_message(depth: u32) -> BoxedStrategy<Vec<u8>> {
    vec(any_field(depth), 0..6).prop_map(|fields| fields.concat()).boxed()
}

fn stored(given: &[Given], source: &Source<'_>, start_offset: i64) -> Vec<v1::StoredRecord> {
    let base_ms = given[0].timestamp_ms;
    let set = record_set(given, base_ms);
    let as_text = |bytes: &Option<Bytes>| {
        let text = bytes.as_ref().filter(|bytes| source.text && !bytes.is_empty());
        text.and_then(|bytes| String::from_utf8(bytes.to_vec()).ok()).unwrap_or_default()
    };
    let records = set.records.into_iter().zip(given).map(|(record, given)| {
        let (key_text, value_text) = (as_text(&record.key), as_text(&record.value));
        v1::StoredRecord {
            topic: source.topic.into(),
            partition: source.partition,
            offset: source.base_offset + i64::from(record.offset_delta),
            timestamp_ms: match source.timestamps {
                Timestamps::Create { .. } => given.timestamp_ms,
                Timestamps::Append { ms } => ms,
            },
            tombstone: record.value.is_none(),
            key: record.key.filter(|_| key_text.is_empty()),
            value: record.value.filter(|_| value_text.is_empty()),
            headers: headers(given),
            leader_epoch: source.leader_epoch,
            key_text,
            value_text,
        }
    });
    records.filter(|record| record.offset >= start_offset).collect()
}

proptest! {
    #[test]
    fn packed_records_are_what_prost_would_write(given in any_records()) {
        let packed = pack(&given);
        prop_assert_eq!(packed.record_count() as usize, given.len());
        let set = packed.into_set();
        prop_assert_eq!(&set[..], record_set(&given, given[0].timestamp_ms).encode_to_vec());
    }

    #[test]
    fn what_prost_writes_is_read_back(given in any_records()) {
        let set = record_set(&given, given[0].timestamp_ms);
        let bytes = Bytes::from(set.encode_to_vec());
        prop_assert_eq!(read(&bytes).unwrap(), set);
    }

    /// Whatever the bytes: what prost reads we read, alike, and what prost refuses we refuse, but for offsets that
    /// do not rise.
    #[test]
    fn reader_and_prost_agree_on_any_bytes(set in any_message(3)) {
        match v1::RecordSet::decode(&set[..]) {
            Ok(decoded) if offsets_rise(&decoded) => prop_assert_eq!(read(&set), Some(decoded)),
            _ => prop_assert_eq!(read(&set), None),
        }
    }

    #[test]
    fn one_changed_byte_is_read_as_prost_reads_it(given in any_records(), at in any::<prop::sample::Index>(), to: u8) {
        let mut set = pack(&given).into_set().to_vec();
        let at = at.index(set.len());
        set[at] = to;
        match v1::RecordSet::decode(&set[..]) {
            Ok(decoded) if offsets_rise(&decoded) => prop_assert_eq!(read(&set), Some(decoded)),
            _ => prop_assert_eq!(read(&set), None),
        }
    }

    #[test]
    fn transcoded_records_are_what_prost_would_write(
        given in any_records(),
        topic in "[a-z]{0,20}",
        partition in 0..300_i32,
        base_offset in prop_oneof![Just(0), 0..i64::from(u32::MAX)],
        leader_epoch in 0..200_i32,
        text: bool,
        append in proptest::option::of(any::<i64>()),
        skip in 0..45_i64,
        portions in vec((0..20_usize, 0..900_usize), 0..20),
    ) {
        let set = pack(&given).into_set();
        let base_ms = given[0].timestamp_ms;
        let source = Source {
            topic: &topic,
            partition,
            base_offset,
            last_offset_delta: given.len() as i32 - 1,
            leader_epoch,
            timestamps: append.map_or(Timestamps::Create { base_ms }, |ms| Timestamps::Append { ms }),
            text,
        };
        let start = base_offset + skip;
        let expected = stored(&given, &source, start);
        let message = v1::ConsumeResponse { records: expected.clone(), ..Default::default() };

        // In one go, and in portions of any size: the same bytes.
        let mut whole = BytesMut::new();
        let filled = Transcoder::new(set.clone(), &source, start, 1).fill(&mut whole, ALL).unwrap();
        prop_assert_eq!(&whole[..], message.encode_to_vec());
        prop_assert_eq!((filled.records, filled.bytes, filled.stop), (expected.len(), whole.len(), Stop::End));
        prop_assert_eq!(filled.next_offset, start.max(base_offset + given.len() as i64));
        prop_assert_eq!(filled.last_timestamp_ms, expected.last().map(|record| record.timestamp_ms));

        let mut parts = Vec::new();
        let mut written = 0;
        let mut transcoder = Transcoder::new(set, &source, start, 1);
        for (records, bytes) in portions.into_iter().chain([(usize::MAX, usize::MAX)]) {
            let before = parts.len();
            let filled = transcoder.fill(&mut parts, Budget { records, bytes }).unwrap();
            prop_assert!(filled.records <= records && filled.bytes <= bytes);
            prop_assert_eq!(filled.bytes, parts.len() - before);
            written += filled.records;
            match filled.stop {
                Stop::End => prop_assert_eq!(written, expected.len()),
                Stop::Records => prop_assert_eq!(filled.records, records),
                Stop::Bytes { needed } => prop_assert!(filled.bytes + needed > bytes),
                Stop::Pause => prop_assert!(false, "small sets need no pause"),
            }
            let next = expected.get(written).map_or(start.max(base_offset + given.len() as i64), |r| r.offset);
            prop_assert!(filled.next_offset <= next);
        }
        prop_assert_eq!(parts, &whole[..]);
    }

    #[test]
    fn transcoding_malformed_bytes_leaves_whole_records(set in any_message(3)) {
        let source = Source {
            topic: "t",
            partition: 0,
            base_offset: 7,
            last_offset_delta: i32::MAX,
            leader_epoch: 0,
            timestamps: Timestamps::Create { base_ms: 1 },
            text: true,
        };
        let mut buf = Vec::new();
        let outcome = Transcoder::new(set.clone().into(), &source, 0, 1).fill(&mut buf, ALL);
        let written = v1::ConsumeResponse::decode(&buf[..]).unwrap().records;
        let readable = Records::new(&set, i32::MAX).take_while(Result::is_ok).count();
        prop_assert_eq!(written.len(), readable);
        prop_assert_eq!(outcome.is_ok(), read(&set).is_some());
    }
}

#[test]
fn field_numbers_beyond_fifteen_take_two_bytes() {
    let mut builder = weir_record::BatchBuilder::new();
    builder.push(3, Some(b"k"), Some(b"v"), weir_record::NO_HEADERS).unwrap();
    let source = Source {
        topic: "t",
        partition: 1,
        base_offset: 9,
        last_offset_delta: 0,
        leader_epoch: 2,
        timestamps: Timestamps::Create { base_ms: 3 },
        text: false,
    };
    let set = builder.take().unwrap().into_set();
    let mut buf = Vec::new();
    let filled = Transcoder::new(set.clone(), &source, 0, 100).fill(&mut buf, ALL).unwrap();
    assert_eq!(buf[..2], [0xa2, 0x06]);
    assert_eq!(filled.bytes, buf.len());
    let mut exactly = Vec::new();
    let budget = Budget { records: 1, bytes: buf.len() };
    assert_eq!(Transcoder::new(set.clone(), &source, 0, 100).fill(&mut exactly, budget).unwrap().records, 1);
    let budget = Budget { records: 1, bytes: buf.len() - 1 };
    let filled = Transcoder::new(set, &source, 0, 100).fill(&mut exactly, budget).unwrap();
    assert_eq!((filled.records, filled.stop), (0, Stop::Bytes { needed: buf.len() }));
}

#[test]
fn passing_over_much_pauses_in_between() {
    let mut builder = weir_record::BatchBuilder::new();
    while builder.bytes() < 5 << 20 {
        builder.push(0, None, Some(&[1; 1_000]), weir_record::NO_HEADERS).unwrap();
    }
    let count = builder.record_count();
    let source = Source {
        topic: "t",
        partition: 0,
        base_offset: 0,
        last_offset_delta: count - 1,
        leader_epoch: 0,
        timestamps: Timestamps::Append { ms: 1 },
        text: false,
    };
    let mut transcoder =
        Transcoder::new(builder.take().unwrap().into_set(), &source, i64::from(count) - 1, 1);
    let mut buf = Vec::new();
    let mut pauses = 0;
    let last = loop {
        let filled = transcoder.fill(&mut buf, ALL).unwrap();
        match filled.stop {
            Stop::Pause => pauses += 1,
            _ => break filled,
        }
    };
    assert_eq!((pauses, last.records, last.stop), (4, 1, Stop::End));
    assert_eq!(last.next_offset, i64::from(count));
}
