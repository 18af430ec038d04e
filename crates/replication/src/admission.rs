//! Whether a batch from an idempotent producer is the next one, one we have, or neither (KIP-98).

use weir_types::{KnownBatch, KnownProducer, LeaderEpoch, Offset, Producer, next_sequence, sequence_add};

/// A batch that asks to be appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// Who writes it, if exactly once was asked for.
    pub producer: Option<Producer>,
    /// The first record's sequence number; meaningless without a producer.
    pub base_sequence: i32,
    /// The last record's offset less the first one's: 0 for one record.
    pub last_offset_delta: i32,
    /// Append only if this is the next offset.
    pub expected_next_offset: Option<Offset>,
}

/// What becomes of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It gets the next offsets, in this epoch.
    Append(LeaderEpoch),
    /// It is in the log already: the receipt is that of then, once that is committed (rule 17).
    Duplicate(KnownBatch),
    /// No.
    Refuse(Refusal),
    /// No, but only to be said once the high watermark has reached the log end that this was judged by: until
    /// then another leader may still judge otherwise (rule 20).
    RefuseWhenCommitted(Refusal),
}

/// Why not. Nothing was applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Fewer replicas in sync than min.insync (rule 11).
    NotEnoughReplicas {
        /// How many are in sync.
        in_sync: usize,
        /// How many there must be.
        min_insync: usize,
    },
    /// A newer epoch of this producer exists.
    ProducerFenced {
        /// The epoch in force.
        current: i32,
    },
    /// The log knows nothing of this producer, and this is not its beginning: it expired (rule 18).
    ProducerUnknown,
    /// A batch before this one is missing.
    SequenceGap {
        /// The sequence number that comes next.
        expected: i32,
    },
    /// Older than what is remembered: whether it was appended cannot be said.
    SequenceTooOld {
        /// The oldest sequence number remembered.
        oldest: i32,
    },
    /// The condition does not hold.
    OffsetMismatch {
        /// The actual next offset.
        next: Offset,
    },
}

/// Judges the sequence of an attempt. `None`: it is the next one.
pub(crate) fn judge_sequence(
    attempt: &Attempt,
    producer: Producer,
    known: Option<KnownProducer<'_>>,
) -> Option<Verdict> {
    let base = attempt.base_sequence;
    let Some(known) = known else {
        return (base != 0).then_some(Verdict::Refuse(Refusal::ProducerUnknown));
    };
    if producer.epoch < known.epoch {
        return Some(Verdict::Refuse(Refusal::ProducerFenced { current: known.epoch }));
    }
    let (Some(first), Some(last)) = (known.batches.first(), known.batches.last()) else {
        return (base != 0).then_some(Verdict::Refuse(Refusal::SequenceGap { expected: 0 }));
    };
    if producer.epoch > known.epoch {
        return (base != 0).then_some(Verdict::Refuse(Refusal::SequenceGap { expected: 0 }));
    }
    let same = known.batches.iter().rev().find(|batch| {
        batch.base_sequence == base
            && batch.last_offset - batch.base_offset == i64::from(attempt.last_offset_delta)
    });
    if let Some(batch) = same {
        return Some(Verdict::Duplicate(*batch));
    }
    let expected = next_sequence(last_sequence(last));
    if base == expected {
        return None;
    }
    // Sequence numbers go round: "behind" is the shorter way.
    let behind = expected.wrapping_sub(base) & i32::MAX;
    Some(Verdict::Refuse(if behind < i32::MAX / 2 {
        Refusal::SequenceTooOld { oldest: first.base_sequence }
    } else {
        Refusal::SequenceGap { expected }
    }))
}

fn last_sequence(batch: &KnownBatch) -> i32 {
    // A batch holds at most i32::MAX records, so the difference fits.
    sequence_add(
        batch.base_sequence,
        i32::try_from(batch.last_offset - batch.base_offset).unwrap_or(i32::MAX),
    )
}
