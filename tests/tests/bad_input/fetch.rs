//! Consume, Fetch and ListOffsets.

use weir_proto::v1::{
    ConsumeRequest, ErrorReason as R, FetchPartition, FetchRequest, ListOffsetsRequest, OffsetQuery, StartAt,
    TopicPartitionOffset,
};

use crate::call::Call;
use crate::world::{TOPIC, World};
use crate::{Case, case};

pub(crate) fn cases(_: &World) -> Vec<Case> {
    let mut cases = consume();
    cases.extend(fetch());
    cases.extend(list_offsets());
    cases
}

fn consume() -> Vec<Case> {
    let consume = |change: &dyn Fn(&mut ConsumeRequest)| {
        let mut request =
            ConsumeRequest { topics: vec![TOPIC.to_owned()], until_end: true, ..ConsumeRequest::default() };
        change(&mut request);
        Call::Consume(request)
    };
    let at = |change: &dyn Fn(&mut TopicPartitionOffset)| {
        let mut position = TopicPartitionOffset { topic: TOPIC.to_owned(), offset: 5, ..Default::default() };
        change(&mut position);
        consume(&|r| (r.topics, r.positions) = (Vec::new(), vec![position.clone()]))
    };
    vec![
        case("ConsumeRequest.topics", "topics", R::FieldRequired, consume(&|r| r.topics.clear())),
        case(
            "ConsumeRequest.topics",
            "flights",
            R::TopicNotFound,
            consume(&|r| r.topics = vec!["flihgts".into()]),
        ),
        case(
            "ConsumeRequest.topic_pattern",
            "topic_pattern",
            R::FieldsConflict,
            consume(&|r| r.topic_pattern = "f.*".into()),
        ),
        case(
            "ConsumeRequest.topic_pattern",
            "topic_pattern",
            R::FieldMalformed,
            consume(&|r| (r.topics, r.topic_pattern) = (Vec::new(), "(".into())),
        ),
        case(
            "ConsumeRequest.topic_pattern",
            "z+",
            R::TopicNotFound,
            consume(&|r| (r.topics, r.topic_pattern) = (Vec::new(), "z+".into())),
        ),
        // A pattern that would take 100 MiB once compiled.
        case(
            "ConsumeRequest.topic_pattern",
            "topic_pattern",
            R::FieldMalformed,
            consume(&|r| (r.topics, r.topic_pattern) = (Vec::new(), "((a{1000}){1000}){1000}".into())),
        ),
        case("ConsumeRequest.start_at", "start_at", R::EnumUnknown, consume(&|r| r.start_at = 99)),
        case(
            "ConsumeRequest.start_at",
            "start_at",
            R::FieldsConflict,
            consume(&|r| (r.start_at, r.start_last) = (StartAt::Latest.into(), Some(1))),
        ),
        case(
            "ConsumeRequest.start_timestamp_ms",
            "start_timestamp_ms",
            R::FieldOutOfRange,
            consume(&|r| r.start_timestamp_ms = Some(-1)),
        ),
        case(
            "ConsumeRequest.start_last",
            "start_last",
            R::FieldOutOfRange,
            consume(&|r| r.start_last = Some(-1)),
        ),
        case("ConsumeRequest.positions", "none", R::TopicNotFound, at(&|p| p.topic = "none".into())),
        case("TopicPartitionOffset.topic", "none", R::TopicNotFound, at(&|p| p.topic = "none".into())),
        case("TopicPartitionOffset.partition", "2", R::PartitionNotFound, at(&|p| p.partition = 2)),
        case("TopicPartitionOffset.offset", "4", R::OffsetOutOfRange, at(&|p| p.offset = 3)),
        case("TopicPartitionOffset.offset", "-1", R::FieldOutOfRange, at(&|p| p.offset = -1)),
        case(
            "TopicPartitionOffset.leader_epoch",
            "99",
            R::LeaderEpochUnknown,
            at(&|p| p.leader_epoch = Some(99)),
        ),
        case(
            "ConsumeRequest.records_max",
            "records_max",
            R::FieldOutOfRange,
            consume(&|r| r.records_max = -1),
        ),
        case("ConsumeRequest.isolation", "isolation", R::EnumUnknown, consume(&|r| r.isolation = 99)),
        case(
            "ConsumeRequest.message_bytes_max",
            "message_bytes_max",
            R::FieldOutOfRange,
            consume(&|r| r.message_bytes_max = -1),
        ),
        case(
            "ConsumeRequest.message_bytes_max",
            "message_bytes_max",
            R::FieldOutOfRange,
            consume(&|r| r.message_bytes_max = 1_000),
        ),
        case(
            "ConsumeRequest.heartbeat_ms",
            "heartbeat_ms",
            R::FieldOutOfRange,
            consume(&|r| r.heartbeat_ms = 99),
        ),
        case(
            "ConsumeRequest.heartbeat_ms",
            "heartbeat_ms",
            R::FieldOutOfRange,
            consume(&|r| r.heartbeat_ms = -1),
        ),
        case("ConsumeRequest.group", "group", R::NotSupported, consume(&|r| r.group = "g".into())),
        case(
            "ConsumeRequest.instance_id",
            "instance_id",
            R::NotSupported,
            consume(&|r| r.instance_id = "i".into()),
        ),
        case(
            "ConsumeRequest.processing_timeout_ms",
            "processing_timeout_ms",
            R::NotSupported,
            consume(&|r| r.processing_timeout_ms = 1),
        ),
        case(
            "ConsumeRequest.required_features",
            "teleport",
            R::FeatureUnknown,
            consume(&|r| r.required_features = vec!["teleport".into()]),
        ),
    ]
}

fn fetch() -> Vec<Case> {
    let partition = || FetchPartition { topic: TOPIC.to_owned(), offset: 5, ..FetchPartition::default() };
    let fetch = |change: &dyn Fn(&mut FetchRequest)| {
        let mut request =
            FetchRequest { partitions: vec![partition()], wait_ms: Some(0), ..FetchRequest::default() };
        change(&mut request);
        Call::Fetch(request)
    };
    let of = |change: &dyn Fn(&mut FetchPartition)| {
        let mut partition = partition();
        change(&mut partition);
        fetch(&|r| r.partitions = vec![partition.clone()])
    };
    vec![
        case("FetchRequest.partitions", "partitions", R::FieldOutOfRange, fetch(&|r| r.partitions.clear())),
        case(
            "FetchRequest.partitions",
            "partitions",
            R::FieldOutOfRange,
            fetch(&|r| r.partitions = vec![partition(); 1_001]),
        ),
        case("FetchPartition.topic", "none", R::TopicNotFound, of(&|p| p.topic = "none".into())),
        case("FetchPartition.partition", "2", R::PartitionNotFound, of(&|p| p.partition = 2)),
        case("FetchPartition.offset", "4", R::OffsetOutOfRange, of(&|p| p.offset = 3)),
        case("FetchPartition.offset", "-1", R::FieldOutOfRange, of(&|p| p.offset = -1)),
        case("FetchPartition.bytes_max", "bytes_max", R::FieldOutOfRange, of(&|p| p.bytes_max = -1)),
        case("FetchPartition.leader_epoch", "99", R::LeaderEpochUnknown, of(&|p| p.leader_epoch = Some(99))),
        case("FetchRequest.wait_ms", "wait_ms", R::FieldOutOfRange, fetch(&|r| r.wait_ms = Some(-1))),
        case("FetchRequest.bytes_min", "bytes_min", R::FieldOutOfRange, fetch(&|r| r.bytes_min = -1)),
        case("FetchRequest.bytes_max", "bytes_max", R::FieldOutOfRange, fetch(&|r| r.bytes_max = -1)),
        case("FetchRequest.isolation", "isolation", R::EnumUnknown, fetch(&|r| r.isolation = 99)),
        case("FetchRequest.format", "format", R::EnumUnknown, fetch(&|r| r.format = 99)),
        case("FetchRequest.route", "route", R::EnumUnknown, fetch(&|r| r.route = 99)),
        case(
            "FetchRequest.message_bytes_max",
            "message_bytes_max",
            R::FieldOutOfRange,
            fetch(&|r| r.message_bytes_max = 7),
        ),
    ]
}

fn list_offsets() -> Vec<Case> {
    let query = || OffsetQuery { topic: TOPIC.to_owned(), ..OffsetQuery::default() };
    let list = |change: &dyn Fn(&mut ListOffsetsRequest)| {
        let mut request = ListOffsetsRequest { queries: vec![query()], ..ListOffsetsRequest::default() };
        change(&mut request);
        Call::ListOffsets(request)
    };
    let of = |change: &dyn Fn(&mut OffsetQuery)| {
        let mut query = query();
        change(&mut query);
        list(&|r| r.queries = vec![query.clone()])
    };
    vec![
        case("ListOffsetsRequest.queries", "queries", R::FieldOutOfRange, list(&|r| r.queries.clear())),
        case(
            "ListOffsetsRequest.queries",
            "queries",
            R::FieldOutOfRange,
            list(&|r| r.queries = vec![query(); 10_001]),
        ),
        case("ListOffsetsRequest.isolation", "isolation", R::EnumUnknown, list(&|r| r.isolation = 99)),
        case("OffsetQuery.topic", "none", R::TopicNotFound, of(&|q| q.topic = "none".into())),
        case("OffsetQuery.partition", "2", R::PartitionNotFound, of(&|q| q.partition = 2)),
        case("OffsetQuery.start_at", "start_at", R::EnumUnknown, of(&|q| q.start_at = 99)),
        case(
            "OffsetQuery.timestamp_ms",
            "timestamp_ms",
            R::FieldOutOfRange,
            of(&|q| q.timestamp_ms = Some(-1)),
        ),
        case(
            "OffsetQuery.timestamp_ms",
            "timestamp_ms",
            R::FieldsConflict,
            of(&|q| (q.start_at, q.timestamp_ms) = (StartAt::Latest.into(), Some(0))),
        ),
    ]
}
