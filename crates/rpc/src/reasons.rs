//! The one table from a reason to its status code. Everything that fails passes through here.

use tonic::Code;
use weir_proto::v1::{Applied, ErrorReason};

/// The class, the usual answer to "was it applied?", and whether a retry of the same call can help.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Class {
    /// The status code.
    pub code: Code,
    /// Whether it was applied, unless the failure knows better.
    pub applied: Applied,
    /// Whether the same call may succeed later.
    pub retry: bool,
}

const fn no(code: Code) -> Class {
    Class { code, applied: Applied::No, retry: false }
}

const fn later(code: Code) -> Class {
    Class { code, applied: Applied::No, retry: true }
}

const fn maybe(code: Code, retry: bool) -> Class {
    Class { code, applied: Applied::Maybe, retry }
}

/// The class of a reason.
///
/// UNAVAILABLE only ever stands for "not applied, try again": generic retry policies repeat it blindly.
pub const fn class(reason: ErrorReason) -> Class {
    use ErrorReason as R;
    match reason {
        R::FieldRequired
        | R::FieldOutOfRange
        | R::FieldsConflict
        | R::FieldMalformed
        | R::EnumUnknown
        | R::PageTokenInvalid
        | R::RequestTooLarge
        | R::TopicNameInvalid
        | R::PartitionCountInvalid
        | R::ReplicationFactorInvalid
        | R::ConfigUnknown
        | R::ConfigInvalid
        | R::RecordTooLarge
        | R::BatchTooLarge
        | R::BatchCorrupt
        | R::BatchInvalid
        | R::CodecUnsupported
        | R::DecompressionLimit
        | R::TimestampOutOfRange
        | R::ValueMissing
        | R::TooManyRecords => no(Code::InvalidArgument),
        R::FeatureUnknown | R::NotSupported => no(Code::Unimplemented),
        R::TopicNotFound | R::PartitionNotFound | R::BrokerNotFound => no(Code::NotFound),
        R::TopicAlreadyExists => no(Code::AlreadyExists),
        R::OffsetOutOfRange => no(Code::OutOfRange),
        R::PartitionDamaged => no(Code::DataLoss),
        R::TopicIdMismatch
        | R::RevisionMismatch
        | R::TopicInternal
        | R::BrokerEpochStale
        | R::ClusterMismatch
        | R::BrokerInUse
        | R::QuorumAtRisk
        | R::DirectoryFailed
        | R::LossNotAccepted
        | R::NotLeader
        | R::LeaderEpochStale
        | R::FloorNotMet
        | R::StreamPoisoned
        | R::OffsetMismatch
        | R::LogTruncated
        | R::ProducerUnknown
        | R::ProducerFenced
        | R::SequenceGap
        | R::SequenceTooOld
        | R::MessageLargerThanClientLimit => no(Code::FailedPrecondition),
        R::NoLeader
        | R::LeaderEpochUnknown
        | R::NotEnoughReplicas
        | R::OffsetNotAvailable
        | R::PartitionOffline
        | R::Draining
        | R::MaxAge
        | R::ControllerUnavailable => later(Code::Unavailable),
        R::DiskFull | R::Overloaded | R::ProducersTooMany | R::ConnectionLongCalls | R::SlowReader => {
            later(Code::ResourceExhausted)
        }
        R::DeadlineExceeded => maybe(Code::DeadlineExceeded, false),
        R::OutcomeUnknown => maybe(Code::Aborted, false),
        R::Internal | R::Unspecified => maybe(Code::Internal, false),
    }
}

/// The name that programs compare: the enum's without its prefix.
pub fn name(reason: ErrorReason) -> &'static str {
    reason.as_str_name().trim_start_matches("ERROR_REASON_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unavailable_never_stands_for_something_that_may_have_been_applied() {
        for number in 0..1000 {
            let Ok(reason) = ErrorReason::try_from(number) else { continue };
            let class = class(reason);
            if class.code == Code::Unavailable {
                assert_eq!(class.applied, Applied::No, "{}", name(reason));
                assert!(class.retry, "{}", name(reason));
            }
        }
    }

    #[test]
    fn a_reason_is_named_without_its_prefix() {
        assert_eq!(name(ErrorReason::TopicNotFound), "TOPIC_NOT_FOUND");
    }
}
