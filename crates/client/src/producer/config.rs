//! How a producer is to be.

use std::time::Duration;

use weir_proto::v1;
use weir_record::Codec;
use weir_types::Durability;

use super::partitioner::Partitioning;
use crate::{Error, Result};

/// When a record counts as sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Acks {
    /// When it is on its way. No receipt of its place; it may be lost without notice.
    None,
    /// When the leader has it. It may be lost with the leader.
    Leader,
    /// When it is committed: it will not be lost, as the topic's durability class promises.
    #[default]
    All,
}

impl From<Acks> for v1::Acks {
    fn from(acks: Acks) -> Self {
        match acks {
            Acks::None => Self::None,
            Acks::Leader => Self::Leader,
            Acks::All => Self::All,
        }
    }
}

/// What an append must have reached to be acknowledged, beyond the topic's settings. What cannot be reached is
/// refused (FLOOR_NOT_MET).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Floor {
    /// On disk, or in memory at least; `None`: as the topic says.
    pub durability: Option<Durability>,
    /// In so many replicas; 0: as the topic says.
    pub replicas: i32,
    /// In so many zones; 0: as the topic says.
    pub zones: i32,
}

impl From<Floor> for v1::DurabilityFloor {
    fn from(floor: Floor) -> Self {
        let durability = match floor.durability {
            None => v1::Durability::Unspecified,
            Some(Durability::Replicated) => v1::Durability::Memory,
            Some(Durability::Fsync) => v1::Durability::Disk,
        };
        Self { durability: durability.into(), replicas: floor.replicas, zones: floor.zones }
    }
}

/// How a producer is to be. The defaults lose nothing, write nothing twice, and are fast.
#[derive(Clone, Debug)]
pub struct ProducerConfig {
    pub(super) acks: Acks,
    pub(super) floor: Option<Floor>,
    pub(super) idempotence: Option<bool>,
    pub(super) batch_bytes: usize,
    pub(super) linger: Duration,
    pub(super) buffer_bytes_max: usize,
    pub(super) inflight_max: usize,
    pub(super) codec: Codec,
    pub(super) level: Option<i32>,
    pub(super) delivery_timeout: Duration,
    pub(super) partitioning: Partitioning,
}

/// How many batches of a producer and a partition a leader remembers, to recognise repetitions: more may not be on
/// their way at once.
const WINDOW: usize = 5;

impl Default for ProducerConfig {
    fn default() -> Self {
        Self {
            acks: Acks::All,
            floor: None,
            idempotence: None,
            // Not 256 KiB: with its envelope such a batch would just miss the frame and the allocator's size class.
            batch_bytes: 252 * 1024,
            linger: Duration::from_millis(5),
            buffer_bytes_max: 64 << 20,
            inflight_max: WINDOW,
            codec: Codec::None,
            level: None,
            delivery_timeout: Duration::from_secs(120),
            partitioning: Partitioning::Key,
        }
    }
}

impl ProducerConfig {
    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// When a record counts as sent. [`Acks::All`].
    #[must_use]
    pub fn acks(mut self, acks: Acks) -> Self {
        self.acks = acks;
        self
    }

    /// What every append must have reached to be acknowledged. Nothing beyond the topic's settings.
    #[must_use]
    pub fn floor(mut self, floor: Floor) -> Self {
        self.floor = Some(floor);
        self
    }

    /// Whether a record that had to be sent again is written once. On with [`Acks::All`], and not to be had with
    /// the others. Without it a batch whose outcome is unknown is not sent again: its receipt says so.
    #[must_use]
    pub fn idempotence(mut self, idempotence: bool) -> Self {
        self.idempotence = Some(idempotence);
        self
    }

    /// How large a batch becomes before it is sent, in bytes, uncompressed. 252 KiB, or the topic's
    /// `batch_bytes_max` if that is less. A larger record gets a batch of its own.
    #[must_use]
    pub fn batch_bytes(mut self, bytes: usize) -> Self {
        self.batch_bytes = bytes;
        self
    }

    /// How long a record may wait for others to share its batch. 5 ms. A record does not wait while there is
    /// nothing to gain: where its partition has nothing on the way and the producer little else to do, it is sent
    /// at once. Zero: whatever has gathered is sent as soon as the partition has nothing on the way.
    #[must_use]
    pub fn linger(mut self, linger: Duration) -> Self {
        self.linger = linger;
        self
    }

    /// How many bytes of records may be unsent or unacknowledged. 64 MiB. Beyond, `send` waits and `try_send`
    /// refuses.
    #[must_use]
    pub fn buffer_bytes_max(mut self, bytes: usize) -> Self {
        self.buffer_bytes_max = bytes;
        self
    }

    /// How many batches of a partition may be on their way at once, 1 to 5. 5.
    #[must_use]
    pub fn inflight_max(mut self, batches: usize) -> Self {
        self.inflight_max = batches;
        self
    }

    /// How batches are compressed. Not at all.
    #[must_use]
    pub fn compression(mut self, codec: Codec) -> Self {
        self.codec = codec;
        self
    }

    /// How hard it is tried to compress. zstd 1, gzip 6.
    #[must_use]
    pub fn compression_level(mut self, level: i32) -> Self {
        self.level = Some(level);
        self
    }

    /// How long a batch is tried to be delivered before its receipts fail. 2 min.
    #[must_use]
    pub fn delivery_timeout(mut self, timeout: Duration) -> Self {
        self.delivery_timeout = timeout;
        self
    }

    /// How records find their partition. [`Partitioning::Key`].
    #[must_use]
    pub fn partitioning(mut self, partitioning: Partitioning) -> Self {
        self.partitioning = partitioning;
        self
    }

    pub(super) fn idempotent(&self) -> bool {
        self.idempotence.unwrap_or(self.acks == Acks::All)
    }

    pub(super) fn check(&self) -> Result<()> {
        let no = |text: String| Err(Error::invalid(text));
        if self.idempotent() && self.acks != Acks::All {
            return no("idempotence needs acks all: what is lost with its leader cannot be recognised".into());
        }
        if !(1..=WINDOW).contains(&self.inflight_max) {
            return no(format!("inflight_max is {}: it must be 1 to {WINDOW}", self.inflight_max));
        }
        if !(1..=weir_record::BATCH_BYTES_MAX).contains(&self.batch_bytes) {
            return no(format!(
                "batch_bytes is {}: it must be 1 to {}",
                self.batch_bytes,
                weir_record::BATCH_BYTES_MAX
            ));
        }
        if self.buffer_bytes_max < self.batch_bytes {
            return no(format!(
                "buffer_bytes_max is {}: it must hold a batch of batch_bytes = {}",
                self.buffer_bytes_max, self.batch_bytes
            ));
        }
        let (_, levels) = self.codec.levels();
        match self.level {
            Some(level) if !levels.contains(&level) => {
                no(format!("compression level {level}: {} has {levels:?}", self.codec))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_is_refused_before_anything_is_sent() {
        let config = ProducerConfig::new;
        assert!(config().check().is_ok());
        assert!(config().acks(Acks::Leader).check().is_ok());
        assert!(!config().acks(Acks::Leader).idempotent());
        for bad in [
            config().acks(Acks::Leader).idempotence(true),
            config().inflight_max(6),
            config().inflight_max(0),
            config().batch_bytes(0),
            config().buffer_bytes_max(1000),
            config().compression(Codec::Lz4).compression_level(3),
        ] {
            assert!(bad.check().is_err(), "{bad:?}");
        }
    }
}
