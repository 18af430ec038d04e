//! Where the pure core of replication is asked: in the partition's claim, by the log.

use weir_replication::{Attempt, Leader, Log, Refusal};
use weir_storage::{Admission, Append, LogView, Refused, Verdict};
use weir_types::{LeaderEpoch, Offset};

/// A leader, as the log asks it.
#[derive(Debug)]
pub(crate) struct Leading(pub(crate) Leader);

impl Admission for Leading {
    fn leader_epoch(&self) -> Option<LeaderEpoch> {
        Some(self.0.epoch())
    }

    fn admit(&mut self, log: &LogView<'_>, append: &Append) -> Verdict {
        let attempt = Attempt {
            producer: append.batch.producer,
            base_sequence: append.batch.base_sequence,
            last_offset_delta: append.batch.last_offset_delta,
            expected_next_offset: append.expected_next_offset,
        };
        let known = append.batch.producer.and_then(|producer| log.producer(producer.id));
        match self.0.admit(&ends(log), &attempt, known) {
            weir_replication::Verdict::Append(leader_epoch) => Verdict::Append { leader_epoch },
            weir_replication::Verdict::Duplicate(batch) => Verdict::Duplicate(batch),
            weir_replication::Verdict::Refuse(refusal) => Verdict::Refuse(refused(refusal)),
            weir_replication::Verdict::RefuseWhenCommitted(refusal) => {
                Verdict::RefuseWhenCommitted(refused(refusal))
            }
        }
    }

    fn high_watermark(&mut self, log: &LogView<'_>) -> Offset {
        self.0.high_watermark(&ends(log)).unwrap_or(log.high_watermark)
    }
}

fn ends(log: &LogView<'_>) -> Log {
    Log { log_start: log.log_start, flushed_end: log.flushed_end, log_end: log.log_end }
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
