//! Which fields a caller can set, from the descriptors, against those that have a case.

use std::collections::BTreeSet;

use anyhow::{Context, Result};
use prost::Message;
use prost_types::field_descriptor_proto::Type;
use prost_types::{DescriptorProto, FileDescriptorSet};

use crate::Case;

/// Fields that may have any value of their type, and why.
const ANY_VALUE: &[(&str, &str)] = &[
    ("NewRecord.headers", "any names and values"),
    ("Header.key", "any text"),
    ("Header.value", "any bytes"),
    ("RecordBatch.leader_epoch", "the leader sets it"),
    ("OpenProducerRequest.transaction_timeout_ms", "goes with transactional_id"),
    ("ProduceHello.floor", "that of each append, where it is checked"),
    ("FetchAssign.offset", "FetchPartition.offset, by the same rule"),
    ("GetAppendOutcomeRequest.seal", "both values mean something"),
    ("BatchAppend.correlation_id", "the client's own"),
    ("ConsumeRequest.until_end", "both values mean something"),
    ("ConsumeRequest.text", "both values mean something"),
    ("ConsumeRequest.rack", "a hint"),
    ("TopicPartitionOffset.metadata", "a committer's note; readers may send it back"),
    ("FetchRequest.text", "both values mean something"),
    ("FetchRequest.rack", "a hint"),
    ("FetchHello.rack", "a hint"),
    ("FetchStreamRequest.release", "what is not assigned is released already"),
    ("FetchRelease.subscription_id", "what is not assigned is released already"),
    ("FetchAssign.subscription_id", "the client's own"),
    ("FetchAssign.paused", "both values mean something"),
    ("ListOffsetsRequest.allow_partial", "both values mean something"),
    ("GetMetadataRequest.topics", "a topic that does not exist is left out"),
    ("WatchMetadataRequest.topics", "a topic that does not exist may come to be"),
    ("WatchMetadataRequest.partition_changes", "both values mean something"),
    ("CreateTopicRequest.if_absent", "both values mean something"),
    ("CreateTopicRequest.validate_only", "both values mean something"),
    ("Topic.topic_id", "the cluster's to say"),
    ("Topic.revision", "the cluster's to say"),
    ("Topic.created_ms", "the cluster's to say"),
    ("Topic.effective", "the cluster's to say"),
    ("ConfigValue.*", "only in replies"),
    ("ListTopicsRequest.internal", "both values mean something"),
    ("UpdateTopicRequest.validate_only", "both values mean something"),
    ("DeleteTopicRequest.validate_only", "both values mean something"),
    ("UpdateConfigsRequest.validate_only", "both values mean something"),
    ("DescribePartitionsRequest.problems_only", "both values mean something"),
    ("ElectLeadersRequest.unclean", "both values mean something"),
    ("ElectLeadersRequest.accepted_loss_records", "compared with what would be lost, where nobody leads"),
    ("ElectLeadersRequest.validate_only", "both values mean something"),
    ("FinalizeFeatureLevelRequest.validate_only", "both values mean something"),
    ("RemoveBrokerRequest.validate_only", "both values mean something"),
    ("RemoveBrokerRequest.disk_lost", "both values mean something"),
    ("TrustBrokerRequest.validate_only", "both values mean something"),
    ("UpdateVotersRequest.remove_voter_ids", "who is no controller is out of the quorum already"),
    ("UpdateVotersRequest.validate_only", "both values mean something"),
];

/// Fields of requests, and of what is in them, that have neither a case nor a reason to have none; and entries of
/// either kind that name no field of any request.
pub(crate) fn without_a_case(cases: &[Case]) -> Result<Vec<String>> {
    let set = FileDescriptorSet::decode(weir_proto::FILE_DESCRIPTOR_SET)?;
    let files: Vec<_> = set.file.iter().filter(|file| file.package() == "weir.v1").collect();
    let messages: Vec<&DescriptorProto> = files.iter().flat_map(|file| &file.message_type).collect();
    let methods = files.iter().flat_map(|file| &file.service).flat_map(|service| &service.method);
    let mut wanted = BTreeSet::new();
    for method in methods {
        add(short(method.input_type()), &messages, &mut wanted)?;
    }
    let covered: BTreeSet<String> = cases.iter().map(|case| case.field.to_owned()).collect();
    let free = |field: &str| {
        ANY_VALUE
            .iter()
            .any(|(any, _)| *any == field || any.strip_suffix('*').is_some_and(|all| field.starts_with(all)))
    };
    let mut wrong: Vec<String> =
        wanted.iter().filter(|field| !covered.contains(*field) && !free(field)).cloned().collect();
    wrong.extend(covered.difference(&wanted).map(|field| format!("{field}, which is no field of a request")));
    Ok(wrong)
}

fn add(name: &str, messages: &[&DescriptorProto], wanted: &mut BTreeSet<String>) -> Result<()> {
    let message = messages.iter().find(|message| message.name() == name).with_context(|| name.to_owned())?;
    for field in &message.field {
        if !wanted.insert(format!("{name}.{}", field.name())) || field.r#type() != Type::Message {
            continue;
        }
        let inner = short(field.type_name());
        // The entries of maps are messages inside the message.
        if !message.nested_type.iter().any(|nested| nested.name() == inner) {
            add(inner, messages, wanted)?;
        }
    }
    Ok(())
}

fn short(full: &str) -> &str {
    full.rsplit('.').next().unwrap_or(full)
}
