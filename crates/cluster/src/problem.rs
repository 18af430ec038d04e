//! How a refusal of the metadata core is said to a caller.

use weir_metadata::Error;
use weir_proto::v1::ErrorReason as R;
use weir_rpc::Problem;

/// The name of a refusal: the record has changed since, as whoever asked is about to hear.
pub const PARTITION_EPOCH_STALE: &str = "PARTITION_EPOCH_STALE";

/// The public reason of a refusal. All of them were not applied: a refusal changes nothing.
pub fn problem(error: &Error) -> Problem {
    let reason = match error {
        Error::Cluster { .. } | Error::Busy { .. } | Error::TopicIdTaken(_) => R::ControllerUnavailable,
        Error::WrongCluster { .. }
        | Error::DirectoryTaken { .. }
        | Error::DirectoryUnknown { .. }
        | Error::Behind { .. }
        | Error::OtherHistory { .. }
        | Error::BrokerRemoved(_) => R::ClusterMismatch,
        Error::BrokerInUse { .. } => R::BrokerInUse,
        Error::DirectoryFailed { .. } | Error::DirectoryCopied { .. } => R::DirectoryFailed,
        Error::ControllerNotRemovable { .. } => R::QuorumAtRisk,
        Error::FeatureLevel { .. } | Error::LevelTooLow { .. } => R::FeatureUnknown,
        Error::BrokerNotFound(_) => R::BrokerNotFound,
        Error::BrokerEpochStale { .. } => R::BrokerEpochStale,
        Error::Directories { .. } | Error::OutOfRange { .. } => R::FieldOutOfRange,
        Error::TopicNameInvalid { .. } => R::TopicNameInvalid,
        Error::TopicExists(_) => R::TopicAlreadyExists,
        Error::TopicNotFound { .. } | Error::TopicIdNotFound(_) => R::TopicNotFound,
        Error::TopicIdMismatch { .. } => R::TopicIdMismatch,
        Error::TopicInternal(_) => R::TopicInternal,
        Error::RevisionMismatch { .. }
        | Error::ConfigMismatch { .. }
        | Error::PartitionEpochStale { .. }
        | Error::FailureUnknown { .. }
        | Error::Level { .. } => R::RevisionMismatch,
        Error::PartitionCount { .. } => R::PartitionCountInvalid,
        Error::ReplicationFactor { .. } => R::ReplicationFactorInvalid,
        Error::ConfigUnknown { .. } => R::ConfigUnknown,
        Error::ConfigInvalid { .. } | Error::ConfigFixed { .. } => R::ConfigInvalid,
        Error::NotBuiltYet { .. } => R::NotSupported,
        Error::PartitionNotFound(_) | Error::NotAReplica { .. } | Error::DirectoryMismatch { .. } => {
            R::PartitionNotFound
        }
        Error::IneligibleMember { .. } | Error::IneligibleLeader { .. } => R::FieldOutOfRange,
        Error::RequestIdReused(_) => R::FieldsConflict,
    };
    let problem = Problem::new(reason, error.to_string());
    match error {
        Error::TopicNotFound { name, nearest: Some(nearest) } => {
            problem.fact("topic", name).fact("nearest", nearest)
        }
        Error::TopicExists(topic) | Error::TopicInternal(topic) => problem.fact("topic", topic),
        Error::TopicNotFound { name: topic, nearest: None } | Error::TopicNameInvalid { name: topic, .. } => {
            problem.fact("topic", topic)
        }
        Error::ConfigUnknown { name, nearest: Some(nearest) } => {
            problem.fact("config", name).fact("nearest", nearest)
        }
        Error::ConfigUnknown { name, .. }
        | Error::ConfigInvalid { name, .. }
        | Error::ConfigFixed { name } => problem.fact("config", name),
        Error::RevisionMismatch { current, expected, .. } => {
            problem.fact("current", current).fact("expected", expected)
        }
        Error::ConfigMismatch { name, current, expected } => {
            problem.fact("config", name).fact("current", current).fact("expected", expected)
        }
        Error::Behind { ours, seen } | Error::OtherHistory { ours, seen } => {
            problem.fact("current", ours).fact("seen", seen)
        }
        Error::DirectoryFailed { directory, broker } | Error::DirectoryCopied { directory, broker } => {
            problem.fact("directory", directory).fact("broker", broker)
        }
        Error::FailureUnknown { broker, given, current } => {
            let current: Vec<_> = current.iter().map(u64::to_string).collect();
            problem.fact("broker", broker).fact("current", current.join(",")).fact("given", given)
        }
        Error::BrokerEpochStale { broker, current, given } => {
            problem.fact("broker", broker).fact("current", current).fact("given", given)
        }
        _ => problem,
    }
}

/// The name of a refusal for programs, where several are listed in one answer.
pub fn refusal_name(error: &Error) -> &'static str {
    match error {
        Error::PartitionEpochStale { .. } => PARTITION_EPOCH_STALE,
        Error::PartitionNotFound(_) | Error::TopicIdNotFound(_) => "PARTITION_NOT_FOUND",
        Error::NotAReplica { .. } => "NOT_A_REPLICA",
        Error::DirectoryMismatch { .. } => "DIRECTORY_MISMATCH",
        Error::BrokerEpochStale { .. } => "BROKER_EPOCH_STALE",
        Error::BrokerNotFound(_) => "BROKER_NOT_FOUND",
        Error::IneligibleMember { .. } => "INELIGIBLE_MEMBER",
        Error::IneligibleLeader { .. } => "INELIGIBLE_LEADER",
        _ => "REFUSED",
    }
}
