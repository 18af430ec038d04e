//! Producers and their sequence numbers.

use std::fmt;

use crate::{LeaderEpoch, Offset};

/// A producer's id: given by the cluster, from 0.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ProducerId(pub i64);

impl fmt::Display for ProducerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A producer at one epoch; a higher epoch fences the lower ones.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Producer {
    /// Who.
    pub id: ProducerId,
    /// Since when.
    pub epoch: i32,
}

/// The sequence number of the record after one; after `i32::MAX` comes 0 (KIP-98).
pub fn next_sequence(sequence: i32) -> i32 {
    sequence_add(sequence, 1)
}

/// The sequence number `count` records after `sequence`. Both must not be negative.
pub fn sequence_add(sequence: i32, count: i32) -> i32 {
    sequence.wrapping_add(count) & i32::MAX
}

/// One of the last batches of a producer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct KnownBatch {
    /// The first record's sequence number.
    pub base_sequence: i32,
    /// The first record's offset.
    pub base_offset: Offset,
    /// The last record's offset.
    pub last_offset: Offset,
    /// The leader epoch it was written in.
    pub leader_epoch: LeaderEpoch,
    /// When it was appended, milliseconds since 1970 UTC.
    pub append_time_ms: i64,
}

/// What a log says of a producer: its epoch and its last batches of that epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KnownProducer<'a> {
    /// The highest epoch seen.
    pub epoch: i32,
    /// The window's worth of batches at most, oldest first; none right after a fence.
    pub batches: &'a [KnownBatch],
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequences_go_round_without_turning_negative() {
        assert_eq!(next_sequence(0), 1);
        assert_eq!(next_sequence(i32::MAX), 0);
        assert_eq!(sequence_add(i32::MAX - 1, 5), 3);
    }
}
