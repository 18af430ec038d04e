//! Which partition a record goes to.

use std::fmt;
use std::sync::Arc;

use weir_runtime::Os;

use crate::record::Record;

/// Chooses partitions.
pub trait Partitioner: Send + Sync + 'static {
    /// A partition from 0 to below `partitions`, which is at least 1 and may grow between two calls. Runs under the
    /// producer's lock: it must be quick and must not send.
    fn partition(&self, topic: &str, key: Option<&[u8]>, value: Option<&[u8]>, partitions: i32) -> i32;
}

/// How records find their partition, unless they name it.
#[derive(Clone, Default)]
pub enum Partitioning {
    /// By key: crc32(key) modulo the number of partitions, as the server does it and every client. Records without
    /// a key stay on one partition until its batch is sent, then on another: full batches, evenly spread.
    #[default]
    Key,
    /// The next partition for each record, whatever its key.
    RoundRobin,
    /// The caller's own.
    Custom(Arc<dyn Partitioner>),
}

impl fmt::Debug for Partitioning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Key => "Key",
            Self::RoundRobin => "RoundRobin",
            Self::Custom(_) => "Custom",
        })
    }
}

/// What is remembered of a topic between two choices.
#[derive(Debug, Default)]
pub(super) struct Choice {
    sticky: Option<i32>,
    next: u32,
}

impl Choice {
    /// The partition of a record, which may be one that does not exist if the caller said so.
    #[inline]
    pub(super) fn choose(
        &mut self,
        os: &dyn Os,
        how: &Partitioning,
        topic: &str,
        record: &Record<'_>,
        partitions: i32,
    ) -> i32 {
        if let Some(partition) = record.partition {
            return partition;
        }
        match how {
            Partitioning::Key => match record.key {
                Some(key) => weir_record::partition_for_key(key, partitions),
                None => *self.sticky.get_or_insert_with(|| {
                    // The low bits of a random number, without a bias that matters.
                    i32::try_from(os.random_u64() % u64::from(partitions.max(1).unsigned_abs())).unwrap_or(0)
                }),
            },
            Partitioning::RoundRobin => {
                let partition = self.next % partitions.max(1).unsigned_abs();
                self.next = self.next.wrapping_add(1);
                i32::try_from(partition).unwrap_or(0)
            }
            Partitioning::Custom(partitioner) => {
                partitioner.partition(topic, record.key, record.value, partitions)
            }
        }
    }

    /// A batch of this partition was closed: records without a key go elsewhere from now on.
    #[inline]
    pub(super) fn batch_closed(&mut self, os: &dyn Os, partition: i32, partitions: i32) {
        if self.sticky == Some(partition) && partitions > 1 {
            let others = u64::from((partitions - 1).unsigned_abs());
            let step = i32::try_from(os.random_u64() % others).unwrap_or(0) + 1;
            self.sticky = Some((partition + step) % partitions);
        }
    }
}

#[cfg(test)]
mod tests {
    use weir_io::MemDisk;
    use weir_runtime::testing::TestOs;

    use super::*;

    #[tokio::test]
    async fn keys_decide_and_the_rest_sticks_until_its_batch_is_closed() {
        let os = TestOs::new(Arc::new(MemDisk::new(1)));
        let mut choice = Choice::default();
        let mut of = |record: Record<'_>| choice.choose(&os, &Partitioning::Key, "t", &record, 8);
        assert_eq!(of(Record::new("v").key("a")), 3);
        assert_eq!(of(Record::new("v").key("")), 0);
        assert_eq!(of(Record::new("v").partition(7)), 7);
        let sticky = of(Record::new("v"));
        assert_eq!(of(Record::new("w")), sticky);
        for _ in 0..100 {
            let before = choice.choose(&os, &Partitioning::Key, "t", &Record::new("v"), 8);
            choice.batch_closed(&os, before, 8);
            let after = choice.choose(&os, &Partitioning::Key, "t", &Record::new("v"), 8);
            assert!(after != before && (0..8).contains(&after));
        }
        choice.batch_closed(&os, 0, 1);
    }

    #[tokio::test]
    async fn round_robin_takes_turns_whatever_the_key() {
        let os = TestOs::new(Arc::new(MemDisk::new(1)));
        let mut choice = Choice::default();
        let turns: Vec<_> = (0..5)
            .map(|_| choice.choose(&os, &Partitioning::RoundRobin, "t", &Record::new("v").key("a"), 3))
            .collect();
        assert_eq!(turns, [0, 1, 2, 0, 1]);
    }
}
