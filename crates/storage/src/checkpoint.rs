//! The checkpoint: how much of each partition is proven to be on the disk, and where it begins. One small file a
//! directory, replaced whole.
//!
//! It is the first witness of recovery: what lies before a recovery point was synced, so a bad frame there is damage
//! and never a torn write (correctness rule 36). An entry counts only for the incarnation it names; of a partition that
//! was set aside and made again there is one for each of its lives.

use std::collections::BTreeMap;

use weir_types::{Durability, Incarnation, LeaderEpoch, Offset, PartitionId, TopicId};

use crate::bytes::{Fields, Writer};
use crate::config::LogConfig;

const MAGIC: [u8; 4] = *b"WCP1";
const VERSION: u32 = 1;
pub(crate) const HEADER_BYTES: usize = 24;
pub(crate) const ENTRY_BYTES: usize = 128;

/// The most partitions of a directory, times an entry: what is read at most.
pub(crate) const CHECKPOINT_BYTES_MAX: usize = HEADER_BYTES + 1_000_000 * ENTRY_BYTES + 4;

/// Where a log is durable up to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(crate) struct RecoveryPoint {
    /// Everything before this offset was synced.
    pub(crate) offset: Offset,
    /// The segment it lies in, by its first offset.
    pub(crate) segment: Offset,
    /// Where in that segment.
    pub(crate) position: u64,
}

impl RecoveryPoint {
    /// How far it is behind an earlier one, in bytes; of the segments in between only the last one counts.
    pub(crate) fn bytes_since(&self, earlier: &Self) -> u64 {
        let from = if self.segment == earlier.segment { earlier.position } else { 0 };
        self.position.saturating_sub(from)
    }
}

/// What the checkpoint says of one partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) incarnation: Incarnation,
    pub(crate) generation: u64,
    pub(crate) log_start: Offset,
    pub(crate) recovery_point: RecoveryPoint,
    pub(crate) high_watermark: Offset,
    pub(crate) log_end: Offset,
    pub(crate) leader_epoch: LeaderEpoch,
    /// A cut was begun and is not known to be done: everything from this offset on goes.
    pub(crate) cut_to: Option<Offset>,
    pub(crate) durability: Durability,
    pub(crate) producer_expiry_ms: i64,
    pub(crate) producers_max: u64,
    /// It is the partition's log, in its own folder: not one that was set aside.
    pub(crate) in_place: bool,
    /// A start has not found its folder: what has the name now stands for it (`dir/missing.rs`).
    pub(crate) missing: bool,
    /// What was known of it is lost with an earlier checkpoint: its folder is not believed.
    pub(crate) forgotten: bool,
}

/// The bits of the last field.
const IN_PLACE: u32 = 1;
const MISSING: u32 = 2;
const FORGOTTEN: u32 = 4;

impl Entry {
    /// How far it says that the log went, at least.
    pub(crate) fn said_end(&self) -> Offset {
        let said = self.log_end.max(self.high_watermark).max(self.recovery_point.offset);
        self.cut_to.map_or(said, |to| said.min(to))
    }

    /// What a start, or a walk through the log, has to know of its settings.
    pub(crate) fn log_config(&self) -> LogConfig {
        LogConfig {
            durability: self.durability,
            producer_expiry_ms: self.producer_expiry_ms,
            producers_max: usize::try_from(self.producers_max).unwrap_or(usize::MAX),
            ..LogConfig::default()
        }
    }
}

/// All of them.
pub(crate) type Checkpoint = BTreeMap<(PartitionId, Incarnation), Entry>;

pub(crate) fn encode(checkpoint: &Checkpoint, directory: u128) -> Vec<u8> {
    let mut out = Writer(Vec::with_capacity(HEADER_BYTES + checkpoint.len() * ENTRY_BYTES + 4));
    out.0.extend_from_slice(&MAGIC);
    out.u32(VERSION);
    out.u128(directory);
    for ((id, incarnation), entry) in checkpoint {
        let start = out.0.len();
        out.u128(id.topic.0);
        out.i32(id.partition);
        out.i32(entry.leader_epoch);
        out.u64(incarnation.0);
        out.u64(entry.generation);
        out.i64(entry.log_start);
        out.i64(entry.recovery_point.offset);
        out.i64(entry.recovery_point.segment);
        out.u64(entry.recovery_point.position);
        out.i64(entry.high_watermark);
        out.i64(entry.log_end);
        out.i64(entry.producer_expiry_ms);
        out.u64(entry.producers_max);
        out.i64(entry.cut_to.unwrap_or(-1));
        out.u32(match entry.durability {
            Durability::Fsync => 0,
            Durability::Replicated => 1,
        });
        let bits = [(entry.in_place, IN_PLACE), (entry.missing, MISSING), (entry.forgotten, FORGOTTEN)];
        out.u32(bits.into_iter().map(|(is_so, bit)| u32::from(is_so) * bit).sum());
        // Room for what a later version has to say of a partition.
        out.0.resize(start + ENTRY_BYTES, 0);
    }
    out.u32(crc32fast::hash(&out.0));
    out.0
}

pub(crate) fn decode(bytes: &[u8], directory: u128) -> Result<Checkpoint, String> {
    let (body, crc) = bytes.split_last_chunk::<4>().ok_or("it is shorter than its checksum")?;
    if crc32fast::hash(body) != u32::from_le_bytes(*crc) {
        return Err("it fails its checksum".to_owned());
    }
    let mut fields = Fields(body);
    let parse = |fields: &mut Fields<'_>| Some((fields.u32()?, fields.u32()?, fields.u128()?));
    let (magic, version, found) = parse(&mut fields).ok_or("it is shorter than its header")?;
    if magic != u32::from_le_bytes(MAGIC) || version != VERSION {
        return Err(format!("it has version {version}, this program knows {VERSION}"));
    }
    if found != directory {
        return Err("it belongs to another directory".to_owned());
    }
    if fields.0.len() % ENTRY_BYTES != 0 {
        return Err("it ends within an entry".to_owned());
    }
    let mut checkpoint = Checkpoint::new();
    for entry in fields.0.chunks_exact(ENTRY_BYTES) {
        let (id, entry) = decode_entry(&mut Fields(entry)).ok_or("an entry makes no sense")?;
        checkpoint.insert((id, entry.incarnation), entry);
    }
    Ok(checkpoint)
}

fn decode_entry(fields: &mut Fields<'_>) -> Option<(PartitionId, Entry)> {
    let id = PartitionId { topic: TopicId(fields.u128()?), partition: fields.i32()? };
    let leader_epoch = fields.i32()?;
    let mut entry = Entry {
        leader_epoch,
        incarnation: Incarnation(fields.u64()?),
        generation: fields.u64()?,
        log_start: fields.i64()?,
        recovery_point: RecoveryPoint {
            offset: fields.i64()?,
            segment: fields.i64()?,
            position: fields.u64()?,
        },
        high_watermark: fields.i64()?,
        log_end: fields.i64()?,
        producer_expiry_ms: fields.i64()?,
        producers_max: fields.u64()?,
        cut_to: Some(fields.i64()?).filter(|to| *to >= 0),
        durability: match fields.u32()? {
            0 => Durability::Fsync,
            1 => Durability::Replicated,
            _ => return None,
        },
        in_place: false,
        missing: false,
        forgotten: false,
    };
    // An earlier version has written 0.
    let bits = fields.u32()?;
    (entry.in_place, entry.missing) = (bits & IN_PLACE != 0, bits & MISSING != 0);
    entry.forgotten = bits & FORGOTTEN != 0;
    Some((id, entry))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checkpoint_reads_back_and_every_flipped_bit_is_noticed() {
        let id = |partition| PartitionId { topic: TopicId(4), partition };
        let entry = Entry {
            incarnation: Incarnation(7),
            generation: 3,
            log_start: 5,
            recovery_point: RecoveryPoint { offset: 50, segment: 40, position: 999 },
            high_watermark: 48,
            log_end: 60,
            leader_epoch: -1,
            cut_to: Some(48),
            durability: Durability::Replicated,
            producer_expiry_ms: 1,
            producers_max: 2,
            in_place: true,
            missing: false,
            forgotten: false,
        };
        let other = Entry { generation: 9, missing: true, forgotten: true, ..entry };
        let again = Entry { incarnation: Incarnation(8), in_place: false, ..entry };
        let entries = [(id(0), entry), (id(1), other), (id(0), again)];
        let checkpoint = Checkpoint::from(entries.map(|(id, entry)| ((id, entry.incarnation), entry)));
        let bytes = encode(&checkpoint, 11);
        assert_eq!(decode(&bytes, 11), Ok(checkpoint));
        assert!(decode(&bytes, 12).is_err());
        for bit in 0..bytes.len() * 8 {
            let mut bad = bytes.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(decode(&bad, 11).is_err(), "bit {bit}");
        }
        for len in 0..bytes.len() {
            assert!(decode(&bytes[..len], 11).is_err(), "cut at {len}");
        }
    }
}
