//! TopicService.

use weir_proto::v1::{
    CreateTopicRequest, DeleteRecordsRequest, DeleteTopicRequest, ErrorReason as R, GetTopicRequest,
    ListTopicsRequest, RecordsBefore, Topic, UpdateTopicRequest,
};

use crate::call::Call;
use crate::world::TOPIC;
use crate::{Case, case};

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = create();
    cases.extend(update());
    cases.extend(read_and_delete());
    cases
}

fn create() -> Vec<Case> {
    let create = |change: &dyn Fn(&mut CreateTopicRequest)| {
        let topic = Topic { name: "new".into(), ..Topic::default() };
        let mut request = CreateTopicRequest { topic: Some(topic), ..CreateTopicRequest::default() };
        change(&mut request);
        Call::CreateTopic(request)
    };
    let topic = |change: &dyn Fn(&mut Topic)| {
        create(&|r| {
            if let Some(topic) = &mut r.topic {
                change(topic);
            }
        })
    };
    let named = |name: &str| topic(&|t| t.name = name.to_owned());
    let config = |name: &str, value: &str| {
        topic(&|t| {
            t.config.insert(name.to_owned(), value.to_owned());
        })
    };
    let mut cases = vec![
        case("CreateTopicRequest.topic", "topic", R::FieldRequired, create(&|r| r.topic = None)),
        case(
            "CreateTopicRequest.request_id",
            "request_id",
            R::FieldOutOfRange,
            create(&|r| r.request_id = "x".repeat(65)),
        ),
        case("Topic.name", TOPIC, R::TopicAlreadyExists, named(TOPIC)),
        case("Topic.name", "empty", R::TopicNameInvalid, named("")),
        case("Topic.name", "249", R::TopicNameInvalid, named(&"x".repeat(250))),
        case("Topic.name", "249", R::TopicNameInvalid, named(&"x".repeat(1 << 20))),
        case("Topic.name", "a-z", R::TopicNameInvalid, named("a/b")),
        case("Topic.name", "a-z", R::TopicNameInvalid, named("a\0b")),
        case("Topic.name", "folders", R::TopicNameInvalid, named("..")),
        case("Topic.name", "__mine", R::TopicInternal, named("__mine")),
        case("Topic.partitions", "-1", R::PartitionCountInvalid, topic(&|t| t.partitions = -1)),
        case("Topic.partitions", "partitions", R::PartitionCountInvalid, topic(&|t| t.partitions = i32::MAX)),
        case(
            "Topic.replication_factor",
            "-1",
            R::ReplicationFactorInvalid,
            topic(&|t| t.replication_factor = -1),
        ),
        case(
            "Topic.replication_factor",
            "2",
            R::ReplicationFactorInvalid,
            topic(&|t| t.replication_factor = 2),
        ),
        case("Topic.config", "retention_ms", R::ConfigUnknown, config("retention_mss", "1d")),
        case("Topic.config", "batch_bytes_max", R::FieldOutOfRange, config("batch_bytes_max", "64MiB")),
    ];
    let values = [
        ("batch_bytes_max", "-1"),
        ("batch_bytes_max", "much"),
        ("cleanup_policy", "never"),
        ("compression", "brotli"),
        ("durability", "hope"),
        ("max_timestamp_ahead_ms", "-5"),
        ("min_insync_replicas", "0"),
        ("retention_bytes", "-5"),
        ("retention_ms", "yesterday"),
        ("segment_bytes", "1"),
        ("segment_bytes", "2GiB"),
        ("segment_ms", "1"),
        ("timestamp_type", "never"),
        ("unclean_recovery", "99"),
    ];
    cases.extend(
        values.map(|(name, value)| case("Topic.config", name, R::ConfigInvalid, config(name, value))),
    );
    cases
}

fn update() -> Vec<Case> {
    let update = |change: &dyn Fn(&mut UpdateTopicRequest)| {
        let mut request = UpdateTopicRequest { name: TOPIC.into(), ..UpdateTopicRequest::default() };
        change(&mut request);
        Call::UpdateTopic(request)
    };
    let set = |name: &str, value: &str| {
        update(&|r| {
            r.set_config.insert(name.to_owned(), value.to_owned());
        })
    };
    let partitions = |count| update(&|r| r.partitions = Some(count));
    vec![
        case("UpdateTopicRequest.name", "none", R::TopicNotFound, update(&|r| r.name = "none".into())),
        case("UpdateTopicRequest.set_config", "retention_ms", R::ConfigUnknown, set("retention_mss", "1d")),
        case("UpdateTopicRequest.set_config", "segment_bytes", R::ConfigInvalid, set("segment_bytes", "x")),
        // Fixed when the topic was made.
        case(
            "UpdateTopicRequest.set_config",
            "durability",
            R::ConfigInvalid,
            set("durability", "replicated"),
        ),
        case(
            "UpdateTopicRequest.unset_config",
            "retention_ms",
            R::ConfigUnknown,
            update(&|r| r.unset_config = vec!["retention_mss".into()]),
        ),
        case("UpdateTopicRequest.partitions", "0", R::PartitionCountInvalid, partitions(0)),
        case("UpdateTopicRequest.partitions", "1", R::PartitionCountInvalid, partitions(1)),
        case("UpdateTopicRequest.partitions", "-1", R::PartitionCountInvalid, partitions(-1)),
        case("UpdateTopicRequest.partitions", "partitions", R::PartitionCountInvalid, partitions(i32::MAX)),
        case(
            "UpdateTopicRequest.expected_revision",
            "revision",
            R::RevisionMismatch,
            update(&|r| {
                r.partitions = Some(3);
                r.expected_revision = Some(1 << 40);
            }),
        ),
        case(
            "UpdateTopicRequest.request_id",
            "request_id",
            R::FieldOutOfRange,
            update(&|r| r.request_id = "x".repeat(65)),
        ),
    ]
}

fn read_and_delete() -> Vec<Case> {
    let list = |page_size, page_token: &str| {
        Call::ListTopics(ListTopicsRequest { page_size, page_token: page_token.into(), internal: false })
    };
    let delete = |change: &dyn Fn(&mut DeleteTopicRequest)| {
        let mut request = DeleteTopicRequest { name: TOPIC.into(), ..DeleteTopicRequest::default() };
        change(&mut request);
        Call::DeleteTopic(request)
    };
    let before = |topic: &str, before: &[(i32, i64)]| {
        let before = before.iter().map(|&(partition, offset)| RecordsBefore { partition, offset }).collect();
        Call::DeleteRecords(DeleteRecordsRequest { topic: topic.into(), before })
    };
    vec![
        case(
            "GetTopicRequest.name",
            "flights",
            R::TopicNotFound,
            Call::GetTopic(GetTopicRequest { name: "fligths".into() }),
        ),
        case(
            "GetTopicRequest.name",
            "name",
            R::FieldRequired,
            Call::GetTopic(GetTopicRequest { name: String::new() }),
        ),
        case("ListTopicsRequest.page_size", "page_size", R::FieldOutOfRange, list(-1, "")),
        case("ListTopicsRequest.page_token", "page_token", R::PageTokenInvalid, list(0, "nonsense")),
        case("DeleteTopicRequest.name", "none", R::TopicNotFound, delete(&|r| r.name = "none".into())),
        case(
            "DeleteTopicRequest.topic_id",
            "0123456789abcdef0123456789abcdef",
            R::TopicIdMismatch,
            delete(&|r| r.topic_id = "0123456789abcdef0123456789abcdef".into()),
        ),
        case(
            "DeleteTopicRequest.request_id",
            "request_id",
            R::FieldOutOfRange,
            delete(&|r| r.request_id = "x".repeat(65)),
        ),
        case("DeleteRecordsRequest.topic", "none", R::TopicNotFound, before("none", &[(0, 5)])),
        case("DeleteRecordsRequest.before", "before", R::FieldRequired, before(TOPIC, &[])),
        case("RecordsBefore.partition", "2", R::PartitionNotFound, before(TOPIC, &[(0, 5), (2, 0)])),
        case("RecordsBefore.offset", "11", R::OffsetOutOfRange, before(TOPIC, &[(0, 11)])),
        case("RecordsBefore.offset", "-2", R::OffsetOutOfRange, before(TOPIC, &[(0, -2)])),
        // All are checked before the first is carried out.
        case("RecordsBefore.offset", "1", R::OffsetOutOfRange, before(TOPIC, &[(0, 6), (1, 1)])),
    ]
}
