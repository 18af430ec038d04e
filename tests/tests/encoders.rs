//! What other languages' encoders write, we read: `tests/data/encoders` holds their output byte for byte
//! (clients/README.md describes the messages, `cargo xtask stubs` compares the files with the encoders).

use std::fmt::Debug;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use prost::Message;
use prost::bytes::Bytes;
use weir_proto::v1::{
    Acks, BatchAppend, BatchDelivery, BatchRecord, Codec, Durability, DurabilityFloor, FetchResponse,
    FetchStreamResponse, FetchedPartition, Header, NewRecord, PartitionProgress, ProduceHello,
    ProduceRequest, ProduceStreamRequest, ProducerIdentity, RecordBatch, RecordSet, fetch_stream_response,
    produce_stream_request,
};

const LANGUAGES: [&str; 4] = ["python", "go", "java", "typescript"];

/// The messages that end with the batch's payload, and how deep the batch is in fields of number 100.
const WITH_PAYLOAD: [(&str, usize); 3] = [("produce_batch", 1), ("stream_append", 2), ("stream_delivery", 2)];

#[test]
fn every_encoder_is_understood() -> Result<()> {
    for language in LANGUAGES {
        let kept = read(language)?;
        assert_eq!(kept.len(), 7, "{language}");
        for (name, bytes) in kept {
            check(&name, &bytes).with_context(|| format!("{name} of {language}"))?;
        }
    }
    Ok(())
}

#[test]
fn every_encoder_writes_the_payload_last() -> Result<()> {
    let payload = record_set().encode_to_vec();
    for language in LANGUAGES {
        for (name, bytes) in read(language)? {
            let carries = WITH_PAYLOAD.iter().any(|(carrier, _)| *carrier == name);
            assert_eq!(bytes.ends_with(&payload), carries || name == "record_set", "{name} of {language}");
        }
    }
    Ok(())
}

#[test]
fn any_order_of_fields_is_understood() -> Result<()> {
    for (name, depth) in WITH_PAYLOAD {
        let canonical = read("go")?.into_iter().find(|(kept, _)| kept == name).context(name)?.1;
        let backwards = payload_first(&canonical, depth)?;
        assert_ne!(canonical, backwards);
        check(name, &backwards).with_context(|| format!("{name} with its fields in another order"))?;
    }
    Ok(())
}

fn check(name: &str, bytes: &[u8]) -> Result<()> {
    match name {
        "record_set" => same(bytes, &record_set()),
        "produce_records" => same(bytes, &produce_records()),
        "produce_batch" => {
            let batch = Some(batch(0, 0));
            same(
                bytes,
                &ProduceRequest { topic: "flights".into(), partition: Some(0), batch, ..Default::default() },
            )
        }
        "stream_hello" => {
            let hello = ProduceHello {
                client: "fixture".into(),
                version_max: 1,
                acks: Acks::All.into(),
                ..Default::default()
            };
            let frame = Some(produce_stream_request::Frame::Hello(hello));
            same(bytes, &ProduceStreamRequest { frame })
        }
        "stream_append" => {
            let append = BatchAppend {
                correlation_id: (1 << 53) + 1,
                topic: "flights".into(),
                partition: 7,
                resume: true,
                batch: Some(batch(0, 0)),
                ..Default::default()
            };
            let frame = Some(produce_stream_request::Frame::Append(append));
            same(bytes, &ProduceStreamRequest { frame })
        }
        "stream_delivery" => same(bytes, &stream_delivery()),
        "fetch_response" => same(bytes, &fetch_response()),
        unknown => anyhow::bail!("no test knows the message {unknown:?}"),
    }
}

fn same<M: Message + Default + PartialEq + Debug>(bytes: &[u8], expected: &M) -> Result<()> {
    let found = M::decode(bytes)?;
    ensure!(found == *expected, "decoded as {found:?}, should be {expected:?}");
    Ok(())
}

fn record_set() -> RecordSet {
    let plain = BatchRecord { headers: vec![], ..Default::default() };
    let text = |text: &'static str| Some(Bytes::from_static(text.as_bytes()));
    RecordSet {
        records: vec![
            BatchRecord { key: text("UA"), value: text("hello"), headers: vec![trace()], ..plain.clone() },
            BatchRecord {
                offset_delta: 1,
                timestamp_delta_ms: -5,
                key: text(""),
                value: text(""),
                ..plain.clone()
            },
            BatchRecord { offset_delta: 2, timestamp_delta_ms: 7, key: text("é"), ..plain },
        ],
    }
}

fn trace() -> Header {
    Header { key: "trace".into(), value: Bytes::from_static(&[0, 255]) }
}

fn batch(base_offset: i64, leader_epoch: i32) -> RecordBatch {
    let records = Bytes::from(record_set().encode_to_vec());
    RecordBatch {
        base_offset,
        leader_epoch,
        last_offset_delta: 2,
        record_count: 3,
        base_timestamp_ms: 1_700_000_000_000,
        max_timestamp_ms: 1_700_000_000_007,
        codec: Codec::None.into(),
        uncompressed_bytes: records.len() as i32,
        crc: crc32fast::hash(&records),
        producer: Some(ProducerIdentity { id: 77, epoch: 3 }),
        base_sequence: i32::MAX,
        records,
        ..Default::default()
    }
}

fn produce_records() -> ProduceRequest {
    ProduceRequest {
        topic: "flights".into(),
        records: vec![
            NewRecord {
                key: Some(Bytes::from_static(b"UA")),
                value: Some(Bytes::from_static(b"hello")),
                headers: vec![trace()],
                timestamp_ms: Some(0),
                ..Default::default()
            },
            NewRecord { tombstone: true, key_text: "é".into(), ..Default::default() },
        ],
        partition: Some(0),
        acks: Acks::Leader.into(),
        floor: Some(DurabilityFloor { durability: Durability::Disk.into(), replicas: 2, zones: 0 }),
        expected_next_offset: Some(0),
        required_features: vec!["fixtures".into()],
        ..Default::default()
    }
}

fn stream_delivery() -> FetchStreamResponse {
    let delivery = BatchDelivery {
        subscription_id: 1,
        generation: 2,
        next_offset: (1 << 40) + 3,
        high_watermark: (1 << 40) + 9,
        last_stable_offset: (1 << 40) + 8,
        log_start_offset: 4,
        batch: Some(batch(1 << 40, 5)),
        ..Default::default()
    };
    FetchStreamResponse { frame: Some(fetch_stream_response::Frame::Delivery(delivery)) }
}

fn fetch_response() -> FetchResponse {
    let progress = PartitionProgress {
        topic: "flights".into(),
        partition: 7,
        log_start_offset: 4,
        next_offset: (1 << 40) + 3,
        ..Default::default()
    };
    let batches = vec![batch(1 << 40, 5); 2];
    let partition = FetchedPartition { progress: Some(progress), batches, ..Default::default() };
    FetchResponse { partitions: vec![partition], waited_ms: 12 }
}

/// The lines of a language's file, decoded from hex.
fn read(language: &str) -> Result<Vec<(String, Vec<u8>)>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("data/encoders/{language}.txt"));
    let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    text.lines()
        .map(|line| {
            let (name, hex) = line.split_once(' ').with_context(|| format!("no space in {line:?}"))?;
            let bytes: Result<Vec<u8>, _> =
                (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16)).collect();
            Ok((name.to_owned(), bytes?))
        })
        .collect()
}

/// The same message with field 100 first, and so in the message that field 100 holds, `depth` times.
fn payload_first(message: &[u8], depth: usize) -> Result<Vec<u8>> {
    let (mut first, mut rest) = (Vec::new(), Vec::new());
    let mut left = message;
    while !left.is_empty() {
        let field = left;
        let key = prost::encoding::decode_varint(&mut left)?;
        if key >> 3 == 100 {
            let length = prost::encoding::decode_varint(&mut left)? as usize;
            let (body, after) = left.split_at(length);
            let body = if depth == 0 { body.to_vec() } else { payload_first(body, depth - 1)? };
            prost::encoding::encode_varint(key, &mut first);
            prost::encoding::encode_varint(body.len() as u64, &mut first);
            first.extend(body);
            left = after;
        } else {
            match key & 7 {
                0 => drop(prost::encoding::decode_varint(&mut left)?),
                2 => {
                    let length = prost::encoding::decode_varint(&mut left)? as usize;
                    left = left.split_at(length).1;
                }
                5 => left = left.split_at(4).1,
                other => anyhow::bail!("wire type {other} is in none of these messages"),
            }
            rest.extend_from_slice(field.split_at(field.len() - left.len()).0);
        }
    }
    first.extend(rest);
    Ok(first)
}
