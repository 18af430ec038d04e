//! AdminService.

use weir_proto::v1::{
    DescribePartitionsRequest, ElectLeadersRequest, ErrorReason as R, ListBrokersRequest, ListConfigsRequest,
    RemoveBrokerRequest, TopicPartition, TrustBrokerRequest, UpdateConfigsRequest,
};

use crate::call::Call;
use crate::world::TOPIC;
use crate::{Case, case};

pub(crate) fn cases() -> Vec<Case> {
    let brokers = |page_size, page_token: &str| {
        Call::ListBrokers(ListBrokersRequest { page_size, page_token: page_token.into() })
    };
    let update = |change: &dyn Fn(&mut UpdateConfigsRequest)| {
        let mut request = UpdateConfigsRequest::default();
        request.set_config.insert("retention_ms".into(), "3d".into());
        change(&mut request);
        Call::UpdateConfigs(request)
    };
    let set = |name: &str, value: &str| {
        update(&|r| {
            r.set_config.insert(name.to_owned(), value.to_owned());
        })
    };
    let describe = |change: &dyn Fn(&mut DescribePartitionsRequest)| {
        let mut request =
            DescribePartitionsRequest { topic: TOPIC.into(), ..DescribePartitionsRequest::default() };
        change(&mut request);
        Call::DescribePartitions(request)
    };
    let elect = |topic: &str, partition| {
        Call::ElectLeaders(ElectLeadersRequest {
            partitions: vec![TopicPartition { topic: topic.into(), partition }],
            ..ElectLeadersRequest::default()
        })
    };
    let none_named = ElectLeadersRequest { unclean: true, ..ElectLeadersRequest::default() };
    vec![
        case("TopicPartition.topic", "none", R::TopicNotFound, elect("none", 0)),
        case("TopicPartition.partition", "99", R::PartitionNotFound, elect(TOPIC, 99)),
        case(
            "ElectLeadersRequest.partitions",
            "partitions",
            R::FieldOutOfRange,
            Call::ElectLeaders(none_named.clone()),
        ),
        case(
            "ElectLeadersRequest.accept_unknown_loss",
            "accept_unknown_loss",
            R::FieldsConflict,
            Call::ElectLeaders(ElectLeadersRequest {
                accepted_loss_records: Some(0),
                accept_unknown_loss: true,
                ..none_named.clone()
            }),
        ),
        case(
            "RemoveBrokerRequest.broker_id",
            "99",
            R::BrokerNotFound,
            Call::RemoveBroker(RemoveBrokerRequest { broker_id: 99, ..RemoveBrokerRequest::default() }),
        ),
        case(
            "RemoveBrokerRequest.expected_epoch",
            "expected_epoch",
            R::FieldRequired,
            Call::RemoveBroker(RemoveBrokerRequest {
                broker_id: 1,
                disk_lost: true,
                ..RemoveBrokerRequest::default()
            }),
        ),
        case(
            "TrustBrokerRequest.broker_id",
            "99",
            R::BrokerNotFound,
            Call::TrustBroker(TrustBrokerRequest {
                broker_id: 99,
                failures: vec![1],
                ..TrustBrokerRequest::default()
            }),
        ),
        case(
            "TrustBrokerRequest.failures",
            "failures",
            R::FieldRequired,
            Call::TrustBroker(TrustBrokerRequest { broker_id: 1, ..TrustBrokerRequest::default() }),
        ),
        case("ListBrokersRequest.page_size", "page_size", R::FieldOutOfRange, brokers(-1, "")),
        case("ListBrokersRequest.page_token", "page_token", R::PageTokenInvalid, brokers(0, "nonsense")),
        case(
            "ListConfigsRequest.broker_id",
            "99",
            R::BrokerNotFound,
            Call::ListConfigs(ListConfigsRequest { broker_id: Some(99) }),
        ),
        case("UpdateConfigsRequest.broker_id", "99", R::NotSupported, update(&|r| r.broker_id = Some(99))),
        case(
            "UpdateConfigsRequest.set_config",
            "segment_bytes",
            R::ConfigUnknown,
            set("segment_byte", "1GiB"),
        ),
        case("UpdateConfigsRequest.set_config", "segment_bytes", R::ConfigInvalid, set("segment_bytes", "x")),
        case(
            "UpdateConfigsRequest.unset_config",
            "segment_bytes",
            R::ConfigUnknown,
            update(&|r| r.unset_config = vec!["segment_byte".into()]),
        ),
        case(
            "UpdateConfigsRequest.expected_config",
            "retention_ms of the cluster is 604800000 by now, not 1000",
            R::RevisionMismatch,
            update(&|r| {
                r.expected_config.insert("retention_ms".into(), "1s".into());
            }),
        ),
        case(
            "UpdateConfigsRequest.expected_config",
            "segment_bytes",
            R::ConfigUnknown,
            update(&|r| {
                r.expected_config.insert("segment_byte".into(), "1GiB".into());
            }),
        ),
        case(
            "UpdateConfigsRequest.request_id",
            "request_id",
            R::FieldOutOfRange,
            update(&|r| r.request_id = "x".repeat(65)),
        ),
        case(
            "DescribePartitionsRequest.topic",
            "none",
            R::TopicNotFound,
            describe(&|r| r.topic = "none".into()),
        ),
        case(
            "DescribePartitionsRequest.partitions",
            "2",
            R::PartitionNotFound,
            describe(&|r| r.partitions = vec![2]),
        ),
        case(
            "DescribePartitionsRequest.page_size",
            "page_size",
            R::FieldOutOfRange,
            describe(&|r| r.page_size = -1),
        ),
        case(
            "DescribePartitionsRequest.page_token",
            "page_token",
            R::PageTokenInvalid,
            describe(&|r| r.page_token = "x".into()),
        ),
    ]
}
