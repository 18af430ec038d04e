//! Between the words of the log and those of the pure core of replication.

use weir_replication::{Ends, Log, Refusal};
use weir_storage::{LogView, Refused, Verdict};

/// A log, as the core is told of it.
pub(crate) fn log(log: &LogView<'_>) -> Log {
    Log {
        log_start: log.log_start,
        high_watermark: log.high_watermark,
        ends: Ends { written: log.log_end, flushed: log.flushed_end },
    }
}

/// What the core has decided, as the log is told.
pub(crate) fn verdict(verdict: weir_replication::Verdict) -> Verdict {
    use weir_replication::Verdict as Decided;
    match verdict {
        Decided::Append(leader_epoch) => Verdict::Append { leader_epoch },
        Decided::Duplicate(batch) => Verdict::Duplicate(batch),
        Decided::Refuse(refusal) => Verdict::Refuse(refused(refusal)),
        Decided::RefuseWhenCommitted(refusal) => Verdict::RefuseWhenCommitted(refused(refusal)),
    }
}

fn refused(refusal: Refusal) -> Refused {
    match refusal {
        Refusal::NotEnoughReplicas { in_sync, min_insync } => {
            Refused::NotEnoughReplicas { have: in_sync, need: min_insync }
        }
        Refusal::ProducerFenced { current } => Refused::ProducerFenced { current },
        Refusal::ProducerUnknown => Refused::ProducerUnknown,
        Refusal::SequenceGap { expected } => Refused::SequenceGap { expected },
        Refusal::SequenceTooOld { oldest } => Refused::SequenceTooOld { oldest },
        Refusal::OffsetMismatch { next } => Refused::OffsetMismatch { next },
    }
}
