//! The leader of a partition.
//!
//! ```text
//!   log_start          last_stable      high_watermark         log_end
//!      |--------- committed, readable --------|-- may disappear --|  next append
//! ```

use weir_types::{Durability, KnownProducer, LeaderEpoch, Offset};

use crate::admission::{Attempt, Refusal, Verdict, judge_sequence};

/// The ends of the local log, as the partition's owner sees them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Log {
    /// The first offset still there.
    pub log_start: Offset,
    /// The end of what is on this disk.
    pub flushed_end: Offset,
    /// The end of what is written.
    pub log_end: Offset,
}

/// Leads one partition in one epoch, with the record that the controller gave it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leader {
    epoch: LeaderEpoch,
    durability: Durability,
    min_insync: usize,
    in_sync: usize,
}

impl Leader {
    /// A leader that is alone in the in-sync set.
    pub fn new(epoch: LeaderEpoch, durability: Durability, min_insync: usize) -> Self {
        Self { epoch, durability, min_insync, in_sync: 1 }
    }

    /// The epoch it leads in.
    pub fn epoch(&self) -> LeaderEpoch {
        self.epoch
    }

    /// Decides about an attempt. Duplicates are recognised before the condition is looked at (rule 20): the
    /// second arrival of a conditional append must not be told that the first one took its place.
    pub fn admit(&self, log: &Log, attempt: &Attempt, known: Option<KnownProducer<'_>>) -> Verdict {
        if let Some(verdict) = attempt.producer.and_then(|producer| judge_sequence(attempt, producer, known))
        {
            return verdict;
        }
        if self.in_sync < self.min_insync {
            let refusal = Refusal::NotEnoughReplicas { in_sync: self.in_sync, min_insync: self.min_insync };
            return Verdict::Refuse(refusal);
        }
        match attempt.expected_next_offset {
            Some(expected) if expected != log.log_end => {
                Verdict::RefuseWhenCommitted(Refusal::OffsetMismatch { next: log.log_end })
            }
            _ => Verdict::Append(self.epoch),
        }
    }

    /// How far the log is committed: the lowest end of the in-sync set, which is this replica, in the sense of
    /// the topic's class; nothing while fewer than min.insync are in sync (rule 3).
    pub fn high_watermark(&self, log: &Log) -> Option<Offset> {
        if self.in_sync < self.min_insync {
            return None;
        }
        Some(match self.durability {
            Durability::Fsync => log.flushed_end,
            Durability::Replicated => log.log_end,
        })
    }
}

#[cfg(test)]
mod tests {
    use weir_types::{KnownBatch, Producer, ProducerId};

    use super::*;

    const LOG: Log = Log { log_start: 0, flushed_end: 90, log_end: 100 };

    fn leader() -> Leader {
        Leader::new(3, Durability::Fsync, 1)
    }

    fn batch(base_sequence: i32, base_offset: Offset, records: i32) -> KnownBatch {
        let last_offset = base_offset + i64::from(records) - 1;
        KnownBatch { base_sequence, base_offset, last_offset, leader_epoch: 3, append_time_ms: 7 }
    }

    fn attempt(epoch: i32, base_sequence: i32, records: i32) -> Attempt {
        Attempt {
            producer: Some(Producer { id: ProducerId(1), epoch }),
            base_sequence,
            last_offset_delta: records - 1,
            expected_next_offset: None,
        }
    }

    fn judge(attempt: Attempt, epoch: i32, batches: &[KnownBatch]) -> Verdict {
        leader().admit(&LOG, &attempt, Some(KnownProducer { epoch, batches }))
    }

    #[test]
    fn a_new_producer_starts_at_sequence_0() {
        assert_eq!(leader().admit(&LOG, &attempt(0, 0, 5), None), Verdict::Append(3));
        assert_eq!(leader().admit(&LOG, &attempt(0, 5, 5), None), Verdict::Refuse(Refusal::ProducerUnknown));
    }

    #[test]
    fn the_next_sequence_is_admitted_and_a_repeated_one_recognised() {
        let known = [batch(0, 80, 10), batch(10, 90, 10)];
        assert_eq!(judge(attempt(0, 20, 1), 0, &known), Verdict::Append(3));
        assert_eq!(judge(attempt(0, 0, 10), 0, &known), Verdict::Duplicate(known[0]));
        assert_eq!(judge(attempt(0, 10, 10), 0, &known), Verdict::Duplicate(known[1]));
    }

    #[test]
    fn a_gap_and_a_forgotten_batch_are_told_apart() {
        let known = [batch(100, 80, 10), batch(110, 90, 10)];
        let gap = Verdict::Refuse(Refusal::SequenceGap { expected: 120 });
        assert_eq!(judge(attempt(0, 121, 1), 0, &known), gap);
        let old = Verdict::Refuse(Refusal::SequenceTooOld { oldest: 100 });
        assert_eq!(judge(attempt(0, 90, 10), 0, &known), old);
        // The same start with another count is not the same batch.
        assert_eq!(judge(attempt(0, 110, 3), 0, &known), old);
    }

    #[test]
    fn sequences_go_round() {
        let known = [batch(i32::MAX - 1, 90, 2)];
        assert_eq!(judge(attempt(0, 0, 1), 0, &known), Verdict::Append(3));
        assert_eq!(judge(attempt(0, 1, 1), 0, &known), Verdict::Refuse(Refusal::SequenceGap { expected: 0 }));
    }

    #[test]
    fn an_older_epoch_is_fenced_and_a_newer_one_starts_over() {
        let known = [batch(0, 90, 10)];
        let fenced = Verdict::Refuse(Refusal::ProducerFenced { current: 2 });
        assert_eq!(judge(attempt(1, 10, 1), 2, &known), fenced);
        assert_eq!(judge(attempt(3, 0, 1), 2, &known), Verdict::Append(3));
        assert_eq!(
            judge(attempt(3, 10, 1), 2, &known),
            Verdict::Refuse(Refusal::SequenceGap { expected: 0 })
        );
        // A fence leaves an epoch without batches.
        assert_eq!(judge(attempt(1, 10, 1), 2, &[]), fenced);
        assert_eq!(judge(attempt(2, 0, 1), 2, &[]), Verdict::Append(3));
    }

    #[test]
    fn a_condition_is_judged_by_the_log_end_and_after_duplicates() {
        let conditional =
            |expected| Attempt { producer: None, expected_next_offset: Some(expected), ..attempt(0, 0, 1) };
        assert_eq!(leader().admit(&LOG, &conditional(100), None), Verdict::Append(3));
        assert_eq!(
            leader().admit(&LOG, &conditional(90), None),
            Verdict::RefuseWhenCommitted(Refusal::OffsetMismatch { next: 100 })
        );
        let known = [batch(0, 90, 10)];
        let again = Attempt { expected_next_offset: Some(90), ..attempt(0, 0, 10) };
        assert_eq!(judge(again, 0, &known), Verdict::Duplicate(known[0]));
    }

    #[test]
    fn below_min_insync_nothing_is_admitted_or_committed() {
        let lonely = Leader::new(3, Durability::Fsync, 2);
        let verdict = lonely.admit(&LOG, &Attempt { producer: None, ..attempt(0, 0, 1) }, None);
        assert_eq!(verdict, Verdict::Refuse(Refusal::NotEnoughReplicas { in_sync: 1, min_insync: 2 }));
        assert_eq!(lonely.high_watermark(&LOG), None);
    }

    #[test]
    fn committed_means_flushed_or_written_as_the_class_says() {
        assert_eq!(leader().high_watermark(&LOG), Some(90));
        assert_eq!(Leader::new(0, Durability::Replicated, 1).high_watermark(&LOG), Some(100));
    }
}
