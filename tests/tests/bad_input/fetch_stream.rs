//! FetchStream: what ends the stream, and what ends one subscription.

use weir_proto::v1::fetch_stream_request::Frame;
use weir_proto::v1::{ErrorReason as R, FetchAssign, FetchCredit, FetchHello, FetchStreamRequest};

use crate::call::Call;
use crate::world::{TOPIC, World};
use crate::{Case, case};

fn stream(frames: impl IntoIterator<Item = Frame>) -> Call {
    Call::FetchStream(frames.into_iter().map(|frame| FetchStreamRequest { frame: Some(frame) }).collect())
}

fn hello(change: impl FnOnce(&mut FetchHello)) -> Call {
    let mut hello = FetchHello { client: "test".into(), ..FetchHello::default() };
    change(&mut hello);
    stream([Frame::Hello(hello)])
}

fn good_assign() -> FetchAssign {
    FetchAssign {
        subscription_id: 1,
        generation: 1,
        topic: TOPIC.to_owned(),
        offset: 5,
        ..FetchAssign::default()
    }
}

fn assign(change: impl FnOnce(&mut FetchAssign)) -> Call {
    let mut assign = good_assign();
    change(&mut assign);
    stream([Frame::Hello(FetchHello::default()), Frame::Assign(assign)])
}

fn credit(bytes: i64, records: i64) -> Call {
    stream([Frame::Hello(FetchHello::default()), Frame::Credit(FetchCredit { bytes, records })])
}

pub(crate) fn cases(_: &World) -> Vec<Case> {
    vec![
        case("FetchStreamRequest.hello", "hello", R::FieldRequired, stream([Frame::Assign(good_assign())])),
        case(
            "FetchStreamRequest.hello",
            "hello",
            R::FieldsConflict,
            stream([Frame::Hello(FetchHello::default()), Frame::Hello(FetchHello::default())]),
        ),
        case(
            "FetchStreamRequest.assign",
            "hello",
            R::FieldRequired,
            Call::FetchStream(vec![FetchStreamRequest::default()]),
        ),
        case(
            "FetchStreamRequest.credit",
            "hello",
            R::FieldRequired,
            stream([Frame::Credit(FetchCredit::default())]),
        ),
        case("FetchHello.client", "hello.client", R::FieldOutOfRange, hello(|h| h.client = "x".repeat(201))),
        case(
            "FetchHello.version_min",
            "hello.version_min",
            R::FieldOutOfRange,
            hello(|h| h.version_min = -1),
        ),
        case(
            "FetchHello.version_max",
            "hello.version_max",
            R::FieldOutOfRange,
            hello(|h| h.version_max = -1),
        ),
        case(
            "FetchHello.version_min",
            "version",
            R::FeatureUnknown,
            hello(|h| (h.version_min, h.version_max) = (2, 3)),
        ),
        case(
            "FetchHello.required_features",
            "teleport",
            R::FeatureUnknown,
            hello(|h| h.required_features = vec!["teleport".into()]),
        ),
        case("FetchHello.route", "route", R::EnumUnknown, hello(|h| h.route = 99)),
        case("FetchHello.isolation", "isolation", R::EnumUnknown, hello(|h| h.isolation = 99)),
        case(
            "FetchHello.message_bytes_max",
            "message_bytes_max",
            R::FieldOutOfRange,
            hello(|h| h.message_bytes_max = -1),
        ),
        case(
            "FetchHello.credit",
            "credit.bytes",
            R::FieldOutOfRange,
            hello(|h| h.credit = Some(FetchCredit { bytes: -1, records: 0 })),
        ),
        case("FetchCredit.bytes", "credit.bytes", R::FieldOutOfRange, credit(-1, 0)),
        case("FetchCredit.records", "credit.records", R::FieldOutOfRange, credit(0, -1)),
        case("FetchAssign.topic", "none", R::TopicNotFound, assign(|a| a.topic = "none".into())),
        case("FetchAssign.partition", "2", R::PartitionNotFound, assign(|a| a.partition = 2)),
        case(
            "FetchAssign.topic_id",
            "deleted and created again",
            R::TopicIdMismatch,
            assign(|a| a.topic_id = "0123456789abcdef0123456789abcdef".into()),
        ),
        case("FetchAssign.leader_epoch", "99", R::LeaderEpochUnknown, assign(|a| a.leader_epoch = Some(99))),
        case(
            "FetchAssign.generation",
            "generation",
            R::FieldOutOfRange,
            stream([
                Frame::Hello(FetchHello::default()),
                Frame::Assign(good_assign()),
                Frame::Assign(FetchAssign { offset: 6, ..good_assign() }),
            ]),
        ),
    ]
}
