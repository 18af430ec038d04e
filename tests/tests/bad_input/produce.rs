//! Produce with plain records, OpenProducer, GetAppendOutcome.

use weir_proto::v1::{
    Acks, Durability, DurabilityFloor, ErrorReason as R, GetAppendOutcomeRequest, NewRecord,
    OpenProducerRequest, ProduceRequest, ProducerIdentity,
};
use weir_tests::api::new_record;

use crate::call::Call;
use crate::world::{REPLICATED, TOPIC, World};
use crate::{Case, case};

/// A call that is right but for what `change` does to it.
pub(crate) fn produce(change: impl FnOnce(&mut ProduceRequest)) -> Call {
    let mut request = ProduceRequest {
        topic: TOPIC.to_owned(),
        partition: Some(0),
        records: vec![new_record("a"), new_record("b")],
        ..ProduceRequest::default()
    };
    change(&mut request);
    Call::Produce(request)
}

fn second(change: impl FnOnce(&mut NewRecord)) -> Call {
    produce(|request| {
        if let Some(record) = request.records.get_mut(1) {
            change(record);
        }
    })
}

fn floor(durability: i32, replicas: i32, zones: i32) -> Call {
    produce(|request| request.floor = Some(DurabilityFloor { durability, replicas, zones }))
}

pub(crate) fn cases(world: &World) -> Vec<Case> {
    let bytes = |text: &'static str| Some(text.into());
    let identity = |id, epoch| Some(ProducerIdentity { id, epoch });
    let as_producer =
        |producer, sequence| produce(|request| (request.producer, request.sequence) = (producer, sequence));
    let known = Some(world.producer);
    let mut cases = vec![
        case("ProduceRequest.topic", "topic", R::TopicNotFound, produce(|r| r.topic.clear())),
        case("ProduceRequest.topic", "flights", R::TopicNotFound, produce(|r| r.topic = "flihgts".into())),
        case("ProduceRequest.topic", "topic", R::FieldMalformed, produce(|r| r.topic = "x".repeat(1 << 20))),
        case("ProduceRequest.records", "records", R::FieldRequired, produce(|r| r.records.clear())),
        case(
            "ProduceRequest.records",
            "16777216",
            R::RequestTooLarge,
            produce(|r| r.records = vec![new_record("x".repeat(17 << 20))]),
        ),
        case(
            "ProduceRequest.records",
            "records",
            R::TooManyRecords,
            produce(|r| r.records = vec![new_record("a"); 500_000]),
        ),
        case(
            "ProduceRequest.partition",
            "partitions 0 to 1",
            R::PartitionNotFound,
            produce(|r| r.partition = Some(2)),
        ),
        case("ProduceRequest.partition", "-1", R::PartitionNotFound, produce(|r| r.partition = Some(-1))),
        case("ProduceRequest.acks", "acks", R::EnumUnknown, produce(|r| r.acks = 99)),
        case("DurabilityFloor.durability", "floor.durability", R::EnumUnknown, floor(99, 0, 0)),
        case("DurabilityFloor.replicas", "floor.replicas", R::FieldOutOfRange, floor(0, -1, 0)),
        case("DurabilityFloor.replicas", "2 replicas", R::FloorNotMet, floor(0, 2, 0)),
        case("DurabilityFloor.zones", "floor.zones", R::FieldOutOfRange, floor(0, 0, -1)),
        case("DurabilityFloor.zones", "2 zones", R::FloorNotMet, floor(0, 0, 2)),
        case(
            "ProduceRequest.floor",
            "floor",
            R::FloorNotMet,
            produce(|r| (r.acks, r.floor) = (Acks::None.into(), Some(DurabilityFloor::default()))),
        ),
        case(
            "ProduceRequest.floor",
            REPLICATED,
            R::FloorNotMet,
            produce(|r| {
                r.topic = REPLICATED.into();
                r.floor = Some(DurabilityFloor { durability: Durability::Disk.into(), ..Default::default() });
            }),
        ),
        case(
            "ProduceRequest.expected_next_offset",
            "expected_next_offset",
            R::FieldOutOfRange,
            produce(|r| r.expected_next_offset = Some(-1)),
        ),
        case(
            "ProduceRequest.expected_next_offset",
            "10",
            R::OffsetMismatch,
            produce(|r| r.expected_next_offset = Some(9)),
        ),
        case(
            "ProduceRequest.expected_next_offset",
            "partition",
            R::FieldRequired,
            produce(|r| (r.partition, r.expected_next_offset) = (None, Some(0))),
        ),
        case("ProduceRequest.producer", "sequence", R::FieldRequired, as_producer(known, None)),
        case("ProduceRequest.sequence", "producer", R::FieldRequired, as_producer(None, Some(0))),
        case("ProduceRequest.sequence", "sequence", R::FieldOutOfRange, as_producer(known, Some(-1))),
        case("ProduceRequest.sequence", "flights/0", R::ProducerUnknown, as_producer(known, Some(7))),
        case("ProducerIdentity.id", "producer.id", R::FieldOutOfRange, as_producer(identity(-1, 0), Some(0))),
        case(
            "ProducerIdentity.epoch",
            "producer.epoch",
            R::FieldOutOfRange,
            as_producer(identity(0, -1), Some(0)),
        ),
        case(
            "ProduceRequest.acks",
            "acks",
            R::FieldsConflict,
            produce(|r| (r.producer, r.sequence, r.acks) = (known, Some(0), Acks::Leader.into())),
        ),
        case("ProduceRequest.route", "route", R::EnumUnknown, produce(|r| r.route = 99)),
        case("ProduceRequest.codec", "codec", R::CodecUnsupported, produce(|r| r.codec = 99)),
        case(
            "ProduceRequest.required_features",
            "teleport",
            R::FeatureUnknown,
            produce(|r| r.required_features = vec!["teleport".into()]),
        ),
        case(
            "ProduceRequest.topic_id",
            "deleted and created again",
            R::TopicIdMismatch,
            produce(|r| r.topic_id = "0123456789abcdef0123456789abcdef".into()),
        ),
        case(
            "ProduceRequest.transactional_id",
            "transactional_id",
            R::NotSupported,
            produce(|r| r.transactional_id = "t".into()),
        ),
        case(
            "NewRecord.key",
            "records[1].key",
            R::FieldsConflict,
            second(|r| (r.key, r.key_text) = (bytes("k"), "k".into())),
        ),
        case(
            "NewRecord.key_text",
            "records[1].key_text",
            R::FieldsConflict,
            second(|r| (r.key, r.key_text) = (bytes(""), "k".into())),
        ),
        case("NewRecord.value", "records[1]", R::ValueMissing, second(|r| r.value = None)),
        case(
            "NewRecord.value",
            "records[1]",
            R::RecordTooLarge,
            second(|r| r.value = Some(vec![7; 2 << 20].into())),
        ),
        case(
            "NewRecord.value_text",
            "records[1].value_text",
            R::FieldsConflict,
            second(|r| r.value_text = "v".into()),
        ),
        case(
            "NewRecord.tombstone",
            "records[1].tombstone",
            R::FieldsConflict,
            second(|r| r.tombstone = true),
        ),
        case(
            "NewRecord.timestamp_ms",
            "records[1].timestamp_ms",
            R::TimestampOutOfRange,
            second(|r| r.timestamp_ms = Some(-1)),
        ),
        case(
            "NewRecord.timestamp_ms",
            "records[1].timestamp_ms",
            R::TimestampOutOfRange,
            second(|r| r.timestamp_ms = Some(i64::MAX)),
        ),
    ];
    cases.extend(open_producer(world));
    cases.extend(outcome(world));
    cases
}

fn open_producer(world: &World) -> Vec<Case> {
    let open = |change: &dyn Fn(&mut OpenProducerRequest)| {
        let mut request =
            OpenProducerRequest { current: Some(world.producer), ..OpenProducerRequest::default() };
        change(&mut request);
        Call::OpenProducer(request)
    };
    let current = |id, epoch| open(&|r| r.current = Some(ProducerIdentity { id, epoch }));
    vec![
        case(
            "OpenProducerRequest.transactional_id",
            "transactional_id",
            R::NotSupported,
            open(&|r| r.transactional_id = "t".into()),
        ),
        case("OpenProducerRequest.current", "id", R::FieldOutOfRange, current(-1, 0)),
        case("OpenProducerRequest.current", "epoch", R::FieldOutOfRange, current(world.producer.id, -1)),
        case(
            "OpenProducerRequest.current",
            "epoch",
            R::FieldOutOfRange,
            current(world.producer.id, i32::MAX),
        ),
    ]
}

fn outcome(world: &World) -> Vec<Case> {
    let ask = |change: &dyn Fn(&mut GetAppendOutcomeRequest)| {
        let mut request = GetAppendOutcomeRequest {
            topic: TOPIC.to_owned(),
            producer: Some(world.producer),
            ..GetAppendOutcomeRequest::default()
        };
        change(&mut request);
        Call::GetAppendOutcome(request)
    };
    let identity = |id, epoch| Some(ProducerIdentity { id, epoch });
    vec![
        case("GetAppendOutcomeRequest.topic", "topic", R::TopicNotFound, ask(&|r| r.topic = "none".into())),
        case(
            "GetAppendOutcomeRequest.topic_id",
            "deleted and created again",
            R::TopicIdMismatch,
            ask(&|r| r.topic_id = "0123456789abcdef0123456789abcdef".into()),
        ),
        case("GetAppendOutcomeRequest.partition", "2", R::PartitionNotFound, ask(&|r| r.partition = 2)),
        case("GetAppendOutcomeRequest.producer", "producer", R::FieldRequired, ask(&|r| r.producer = None)),
        case(
            "GetAppendOutcomeRequest.producer",
            "producer.id",
            R::FieldOutOfRange,
            ask(&|r| r.producer = identity(-1, 0)),
        ),
        case("GetAppendOutcomeRequest.sequence", "sequence", R::FieldOutOfRange, ask(&|r| r.sequence = -1)),
        case("GetAppendOutcomeRequest.wait_ms", "wait_ms", R::FieldOutOfRange, ask(&|r| r.wait_ms = -1)),
    ]
}
