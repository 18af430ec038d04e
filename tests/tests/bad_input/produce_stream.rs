//! ProduceStream: what ends the stream, and what fails one append.

use weir_proto::v1::produce_stream_request::Frame;
use weir_proto::v1::{
    BatchAppend, DurabilityFloor, ErrorReason as R, ProduceHello, ProduceStreamRequest, RecordBatch,
};

use crate::batch::good;
use crate::call::Call;
use crate::world::{TOPIC, World};
use crate::{Case, case};

fn stream(frames: impl IntoIterator<Item = Frame>) -> Call {
    Call::ProduceStream(frames.into_iter().map(|frame| ProduceStreamRequest { frame: Some(frame) }).collect())
}

fn hello(change: impl FnOnce(&mut ProduceHello)) -> Call {
    let mut hello = ProduceHello { client: "test".into(), ..ProduceHello::default() };
    change(&mut hello);
    stream([Frame::Hello(hello)])
}

fn good_append() -> BatchAppend {
    BatchAppend { correlation_id: 1, topic: TOPIC.to_owned(), batch: Some(good()), ..BatchAppend::default() }
}

fn append(change: impl FnOnce(&mut BatchAppend)) -> Call {
    let mut append = good_append();
    change(&mut append);
    stream([Frame::Hello(ProduceHello::default()), Frame::Append(append)])
}

pub(crate) fn cases(world: &World) -> Vec<Case> {
    let floor = |replicas| Some(DurabilityFloor { replicas, ..DurabilityFloor::default() });
    let known = Some(world.producer);
    vec![
        case("ProduceStreamRequest.hello", "hello", R::FieldRequired, stream([Frame::Append(good_append())])),
        case(
            "ProduceStreamRequest.hello",
            "hello",
            R::FieldsConflict,
            stream([Frame::Hello(ProduceHello::default()), Frame::Hello(ProduceHello::default())]),
        ),
        case(
            "ProduceStreamRequest.append",
            "hello",
            R::FieldRequired,
            Call::ProduceStream(vec![ProduceStreamRequest::default()]),
        ),
        case(
            "ProduceStreamRequest.append",
            "16777216",
            R::RequestTooLarge,
            append(|a| a.batch = Some(RecordBatch { records: vec![0; 17 << 20].into(), ..good() })),
        ),
        case(
            "ProduceHello.client",
            "hello.client",
            R::FieldOutOfRange,
            hello(|h| h.client = "x".repeat(201)),
        ),
        case(
            "ProduceHello.version_min",
            "hello.version_min",
            R::FieldOutOfRange,
            hello(|h| h.version_min = -1),
        ),
        case("ProduceHello.version_min", "version", R::FeatureUnknown, hello(|h| h.version_min = 2)),
        case(
            "ProduceHello.version_max",
            "hello.version_max",
            R::FieldOutOfRange,
            hello(|h| h.version_max = -1),
        ),
        case(
            "ProduceHello.required_features",
            "teleport",
            R::FeatureUnknown,
            hello(|h| h.required_features = vec!["teleport".into()]),
        ),
        case("ProduceHello.route", "route", R::EnumUnknown, hello(|h| h.route = 99)),
        case("ProduceHello.acks", "acks", R::EnumUnknown, hello(|h| h.acks = 99)),
        case("BatchAppend.topic", "none", R::TopicNotFound, append(|a| a.topic = "none".into())),
        case("BatchAppend.partition", "2", R::PartitionNotFound, append(|a| a.partition = 2)),
        case("BatchAppend.partition", "-1", R::PartitionNotFound, append(|a| a.partition = -1)),
        case("BatchAppend.acks", "acks", R::EnumUnknown, append(|a| a.acks = 99)),
        case("BatchAppend.floor", "2 replicas", R::FloorNotMet, append(|a| a.floor = floor(2))),
        case(
            "BatchAppend.expected_next_offset",
            "expected_next_offset",
            R::FieldOutOfRange,
            append(|a| a.expected_next_offset = Some(-1)),
        ),
        case(
            "BatchAppend.expected_next_offset",
            "10",
            R::OffsetMismatch,
            append(|a| a.expected_next_offset = Some(11)),
        ),
        case(
            "BatchAppend.topic_id",
            "deleted and created again",
            R::TopicIdMismatch,
            append(|a| a.topic_id = "0123456789abcdef0123456789abcdef".into()),
        ),
        case("BatchAppend.batch", "batch", R::FieldRequired, append(|a| a.batch = None)),
        case(
            "BatchAppend.batch",
            "crc",
            R::BatchCorrupt,
            append(|a| a.batch = Some(weir_proto::v1::RecordBatch { crc: 7, ..good() })),
        ),
        case(
            "BatchAppend.batch",
            "acks",
            R::FieldsConflict,
            append(|a| {
                a.acks = weir_proto::v1::Acks::Leader.into();
                a.batch = Some(weir_proto::v1::RecordBatch { producer: known, ..good() });
            }),
        ),
        // What follows a failure fails as well, until the client says that it has seen it.
        case(
            "BatchAppend.resume",
            "resume",
            R::StreamPoisoned,
            stream([
                Frame::Hello(ProduceHello::default()),
                Frame::Append(BatchAppend { expected_next_offset: Some(99), ..good_append() }),
                Frame::Append(BatchAppend { correlation_id: 2, ..good_append() }),
            ]),
        ),
    ]
}
