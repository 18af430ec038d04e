//! The one place where the log's and the controller's errors become answers to callers.

use std::time::Duration;

use weir_proto::v1::{Applied, ErrorReason};
use weir_rpc::Problem;
use weir_storage::{AppendError, ReadError, Refused};

use crate::mutant::Mutant;

/// In a refusal: the broker leads the partition as far as it knows, and another one may by now.
pub(crate) const UNSURE_FACT: &str = "leader_unsure";

/// Places in a full table of producers become free by and by.
const NEWCOMER_WAITS: Duration = Duration::from_secs(1);

/// Why an append failed, which may have been meant for one offset only.
pub(crate) fn append(topic: &str, partition: i32, expected: Option<i64>, error: &AppendError) -> Problem {
    let at = format!("{topic}/{partition}");
    let problem = match error {
        AppendError::Refused(refused) => self::refused(&at, expected, refused),
        AppendError::Poisoned => Problem::new(
            ErrorReason::StreamPoisoned,
            format!(
                "{at}: an earlier append of this stream failed; send resume = true once you have seen it"
            ),
        ),
        AppendError::DiskFull { available_bytes, reserved_bytes } => Problem::new(
            ErrorReason::DiskFull,
            format!(
                "{at}: {available_bytes} bytes are left on the broker's disk and {reserved_bytes} of them kept in reserve \
                 (disk_reserved_bytes), too little for this batch: delete records or topics, shorten retention, or \
                 add space"
            ),
        )
        .fact("available_bytes", available_bytes)
        .fact("reserved_bytes", reserved_bytes),
        AppendError::NoHandles => Problem::new(
            ErrorReason::Overloaded,
            format!(
                "{at}: the broker has no file descriptor left: try again, or raise its limit (ulimit -n)"
            ),
        ),
        AppendError::Malformed(what) => {
            Problem::new(ErrorReason::BatchInvalid, format!("{at}: the batch cannot be stored: {what}"))
        }
        AppendError::Closed => {
            Problem::new(ErrorReason::NoLeader, format!("{at} is being closed on this broker: try again"))
        }
        AppendError::Indeterminate => Problem::new(
            ErrorReason::OutcomeUnknown,
            format!(
                "{at}: this broker's log of the partition was closed before the append was acknowledged, for it leads no more, \
                 begins its log anew or stops; it may be in the log of whoever leads now"
            ),
        )
        .applied(if Mutant::UnknownIsFailure.is_planted() { Applied::No } else { Applied::Maybe }),
    };
    problem.at(topic, partition)
}

fn refused(at: &str, expected: Option<i64>, refused: &Refused) -> Problem {
    match refused {
        Refused::NotLeader => {
            Problem::new(ErrorReason::NotLeader, format!("{at} is not led by this broker any more"))
        }
        Refused::Unsure => Problem::new(
            ErrorReason::NoLeader,
            format!(
                "{at}: the broker that leads it has not heard of a controller for a session: another one may lead it by now. \
                 Acks ALL is taken all the same"
            ),
        )
        .fact(UNSURE_FACT, true),
        Refused::NotEnoughReplicas { have, need } => Problem::new(
            ErrorReason::NotEnoughReplicas,
            format!(
                "{at}: {have} {} in sync, min_insync_replicas is {need}",
                if *have == 1 { "replica is" } else { "replicas are" }
            ),
        )
        .fact("in_sync", have)
        .fact("min_insync_replicas", need),
        Refused::ProducerFenced { current } => Problem::new(
            ErrorReason::ProducerFenced,
            format!("{at}: this producer has epoch {current} by now: another one took its place"),
        )
        .fact("epoch", current),
        Refused::ProducerUnknown => Problem::new(
            ErrorReason::ProducerUnknown,
            format!(
                "{at}: this producer is not known here (any more), and the batch is not its first: take a new \
                 id (OpenProducer) and find out what was appended before sending again"
            ),
        ),
        Refused::ProducersTooMany { max } => Problem::new(
            ErrorReason::ProducersTooMany,
            format!(
                "{at}: {max} producers have written here within ten minutes, as many as a partition remembers: a \
                 new one has to wait; write with fewer that live longer, or to more partitions"
            ),
        )
        .fact("producers_max", max)
        .retry_after(NEWCOMER_WAITS),
        Refused::SequenceGap { expected } => Problem::new(
            ErrorReason::SequenceGap,
            format!("{at}: the next sequence number is {expected}: a batch before this one is missing"),
        )
        .fact("expected", expected),
        Refused::SequenceTooOld { oldest } => Problem::new(
            ErrorReason::SequenceTooOld,
            format!(
                "{at}: the sequence is older than the last five batches, which begin at {oldest}: whether it \
                 was appended cannot be said any more"
            ),
        )
        .fact("oldest", oldest)
        .applied(Applied::Maybe),
        Refused::OffsetMismatch { next } => {
            let given =
                expected.map_or("the one the call expects".to_owned(), |expected| expected.to_string());
            let problem = Problem::new(
                ErrorReason::OffsetMismatch,
                format!("{at}: the next offset is {next}, not {given}"),
            )
            .fact("next_offset", next);
            match expected {
                Some(expected) => problem.fact("expected_next_offset", expected),
                None => problem,
            }
        }
    }
}

/// A broker that was asked as the leader of a partition says that it is not, and this one knows no other.
pub(crate) fn moving(topic: &str, partition: i32) -> Problem {
    let said = format!(
        "{topic}/{partition}: brokers do not agree yet who leads it: its leader is changing, try again"
    );
    Problem::new(ErrorReason::NoLeader, said).at(topic, partition)
}

/// Why a read failed.
pub(crate) fn read(topic: &str, partition: i32, from: i64, error: &ReadError) -> Problem {
    let at = format!("{topic}/{partition}");
    let problem = match error {
        ReadError::OutOfRange { log_start, end, .. } => Problem::new(
            ErrorReason::OffsetOutOfRange,
            format!(
                "{at} holds offsets {log_start} to {end}, not {from}: start at EARLIEST or LATEST, or at an \
                 offset in between"
            ),
        )
        .fact("offset", from)
        .fact("log_start_offset", log_start)
        .fact("end_offset", end),
        ReadError::Damaged(what) => Problem::new(
            ErrorReason::PartitionDamaged,
            format!(
                "{at}: the files are damaged: {what} (weir segment verify DIR says which offsets are lost)"
            ),
        )
        .fact("offset", from),
        ReadError::Unreadable(what) => {
            Problem::new(ErrorReason::PartitionOffline, format!("{at}: the disk does not read: {what}"))
        }
        ReadError::Offline(why) => {
            Problem::new(ErrorReason::PartitionOffline, format!("{at} is offline on this broker: {why}"))
        }
    };
    problem.at(topic, partition)
}

/// Why something else that was asked of a log was not done.
pub(crate) fn control(topic: &str, partition: i32, error: &weir_storage::Error) -> Problem {
    let at = format!("{topic}/{partition}");
    let problem = match error {
        weir_storage::Error::Closed => {
            Problem::new(ErrorReason::NoLeader, format!("{at} is being closed on this broker: try again"))
        }
        weir_storage::Error::OutOfRange { given, min, max } => Problem::new(
            ErrorReason::OffsetOutOfRange,
            format!("{at}: offset {given} is not between {min} and {max}"),
        )
        .fact("offset", given),
        full if full.is_no_space() => Problem::new(
            ErrorReason::DiskFull,
            format!("{at}: the broker's disk has no room left: {full}; delete topics, or add space"),
        ),
        // Whether it is done the next start will tell.
        weir_storage::Error::Failed => {
            let said = format!("{at}: the broker's disk has failed and the broker is ending");
            Problem::new(ErrorReason::Internal, said).applied(Applied::Maybe)
        }
        other => Problem::new(ErrorReason::Internal, format!("{at}: {other}")),
    };
    problem.at(topic, partition)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_be_in_the_log_has_not_failed() {
        let problem = append("t", 0, None, &AppendError::Indeterminate);
        assert_eq!(problem.failure().applied(), Applied::Maybe);
    }

    #[test]
    fn an_unknown_outcome_called_a_failure_is_noticed() {
        assert!(Mutant::UnknownIsFailure.is_noticed_by(what_may_be_in_the_log_has_not_failed));
    }
}
