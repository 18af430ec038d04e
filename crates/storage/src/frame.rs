//! The frame: one batch as it lies in a segment file, header and payload, without padding before the next one.
//! Hot path.
//!
//! The payload is opaque: it is what the producer packed and compressed, from socket to file and back. The header
//! says where it belongs, and proves it: its checksum is seeded with topic, partition and incarnation, so that a frame in
//! the wrong log never verifies. The incarnation is random and told to no client, nor is any header's checksum: so nobody
//! can put bytes into a payload that hold as a header there ([`Seed`]). Brokers tell each other, on their own listener.
//!
//! ```text
//! off size field                                off size field
//!   0    4 magic "WEF1"                          48    8 append time, ms
//!   4    1 version                               56    8 producer id, -1 none
//!   5    1 header length / 8                     64    4 base sequence
//!   6    2 attributes                            68    4 producer epoch
//!   8    4 payload length                        72    4 leader epoch
//!  12    4 payload CRC-32, the producer's        76    4 uncompressed length
//!  16    8 base offset                           80    4 flushed delta
//!  24    4 last offset delta                     84    4 CRC-32 of 0..84, seeded
//!  28    4 record count
//!  32    8 base timestamp, ms                    all little-endian, naturally aligned
//!  40    8 max timestamp, ms                     a follower changes only 80..88
//! ```
//!
//! Every version ever written stays readable; `tests/data` keeps bytes of each.

use std::fmt;

use weir_types::{Incarnation, LeaderEpoch, Offset, PartitionId, Producer, ProducerId};

/// Length of a header of version 1, in bytes.
pub const HEADER_BYTES: usize = 88;

/// The first bytes of every frame. Not zero, so that zeros are never a frame.
pub(crate) const MAGIC: [u8; 4] = *b"WEF1";

const VERSION: u8 = 1;

/// A flushed delta that says nothing.
const DELTA_UNKNOWN: u32 = u32::MAX;

const CODEC_MASK: u16 = 0x000f;
const APPEND_TIME: u16 = 1 << 4;
const TRANSACTIONAL: u16 = 1 << 5;
const CONTROL: u16 = 1 << 6;
const BROKER_COMPRESSED: u16 = 1 << 7;
const KNOWN_ATTRIBUTES: u16 = CODEC_MASK | APPEND_TIME | TRANSACTIONAL | CONTROL | BROKER_COMPRESSED;

/// What a frame says of its batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHeader {
    /// The first record's offset.
    pub base_offset: Offset,
    /// The last record's offset less the first one's.
    pub last_offset_delta: i32,
    /// How many records the payload holds: one more than the delta, fewer after compaction, none in a fence.
    pub record_count: i32,
    /// The first record's timestamp, milliseconds since 1970 UTC, as its producer says.
    pub base_timestamp_ms: i64,
    /// The largest timestamp of its records, as its producer says.
    pub max_timestamp_ms: i64,
    /// When it was appended by the leader's wall clock; never below the frame before.
    pub append_time_ms: i64,
    /// Whether the append time stands for the records' timestamps.
    pub append_time: bool,
    /// The number of the codec that the payload is compressed with, 0 to 15.
    pub codec: u8,
    /// Whether it belongs to a transaction.
    pub transactional: bool,
    /// Whether it is a marker or a fence and not data.
    pub control: bool,
    /// Whether a broker compressed it, not its producer.
    pub broker_compressed: bool,
    /// The payload's length before compression, in bytes.
    pub uncompressed_bytes: u32,
    /// The payload's length, in bytes.
    pub payload_bytes: u32,
    /// CRC-32 (IEEE) of the payload, the producer's.
    pub payload_crc: u32,
    /// Who wrote it, if exactly once was asked for.
    pub producer: Option<Producer>,
    /// The first record's sequence number; meaningless without a producer.
    pub base_sequence: i32,
    /// The leadership in which it was appended.
    pub leader_epoch: LeaderEpoch,
    /// How far this log was durable on this disk when the frame was written, if that was known.
    pub flushed_end: Option<Offset>,
}

impl FrameHeader {
    /// The offset after the last record.
    pub fn next_offset(&self) -> Offset {
        self.base_offset.saturating_add(i64::from(self.last_offset_delta)).saturating_add(1)
    }

    /// The last record's offset.
    pub fn last_offset(&self) -> Offset {
        self.base_offset.saturating_add(i64::from(self.last_offset_delta))
    }

    /// Header and payload, in bytes.
    pub fn frame_bytes(&self) -> u64 {
        HEADER_BYTES as u64 + u64::from(self.payload_bytes)
    }

    /// The largest timestamp as a reader sees it: the append time, where that stands for it.
    pub fn timestamp_ms(&self) -> i64 {
        if self.append_time { self.append_time_ms } else { self.max_timestamp_ms }
    }

    /// The header's bytes, sealed for one log.
    pub fn encode(&self, seed: Seed) -> [u8; HEADER_BYTES] {
        let mut attributes = u16::from(self.codec) & CODEC_MASK;
        for (set, bit) in [
            (self.append_time, APPEND_TIME),
            (self.transactional, TRANSACTIONAL),
            (self.control, CONTROL),
            (self.broker_compressed, BROKER_COMPRESSED),
        ] {
            if set {
                attributes |= bit;
            }
        }
        let delta = self
            .flushed_end
            .and_then(|end| u32::try_from(self.base_offset.saturating_sub(end)).ok())
            .unwrap_or(DELTA_UNKNOWN);
        let (producer_id, producer_epoch) = match self.producer {
            Some(Producer { id, epoch }) => (id.0, epoch),
            None => (-1, -1),
        };
        let mut out = Fields::default();
        out.put(&MAGIC);
        out.put(&[VERSION, (HEADER_BYTES / 8) as u8]);
        out.put(&attributes.to_le_bytes());
        out.put(&self.payload_bytes.to_le_bytes());
        out.put(&self.payload_crc.to_le_bytes());
        out.put(&self.base_offset.to_le_bytes());
        out.put(&self.last_offset_delta.to_le_bytes());
        out.put(&self.record_count.to_le_bytes());
        out.put(&self.base_timestamp_ms.to_le_bytes());
        out.put(&self.max_timestamp_ms.to_le_bytes());
        out.put(&self.append_time_ms.to_le_bytes());
        out.put(&producer_id.to_le_bytes());
        out.put(&self.base_sequence.to_le_bytes());
        out.put(&producer_epoch.to_le_bytes());
        out.put(&self.leader_epoch.to_le_bytes());
        out.put(&self.uncompressed_bytes.to_le_bytes());
        out.put(&delta.to_le_bytes());
        out.seal(seed)
    }

    /// Reads a header and checks that it was written for this log.
    ///
    /// # Errors
    /// What is wrong with it: [`FrameError::HeaderCrc`] if it is another log's.
    pub fn decode(bytes: &[u8], seed: Seed) -> Result<Self, FrameError> {
        let header: &[u8; HEADER_BYTES] = bytes.first_chunk().ok_or(FrameError::Short)?;
        let mut from = Reader(header);
        if from.take::<4>() != MAGIC {
            return Err(FrameError::Magic);
        }
        let [version, eighths] = from.take::<2>();
        let body: &[u8; HEADER_BYTES - 4] = header.first_chunk().ok_or(FrameError::Short)?;
        if seed.crc(body) != crc_of(header) {
            return Err(FrameError::HeaderCrc);
        }
        if version != VERSION || usize::from(eighths) * 8 != HEADER_BYTES {
            return Err(FrameError::Version(version));
        }
        let attributes = u16::from_le_bytes(from.take());
        let payload_bytes = u32::from_le_bytes(from.take());
        let payload_crc = u32::from_le_bytes(from.take());
        let base_offset = i64::from_le_bytes(from.take());
        let last_offset_delta = i32::from_le_bytes(from.take());
        let record_count = i32::from_le_bytes(from.take());
        let base_timestamp_ms = i64::from_le_bytes(from.take());
        let max_timestamp_ms = i64::from_le_bytes(from.take());
        let append_time_ms = i64::from_le_bytes(from.take());
        let producer_id = i64::from_le_bytes(from.take());
        let base_sequence = i32::from_le_bytes(from.take());
        let producer_epoch = i32::from_le_bytes(from.take());
        let leader_epoch = i32::from_le_bytes(from.take());
        let uncompressed_bytes = u32::from_le_bytes(from.take());
        let delta = u32::from_le_bytes(from.take());
        // What passes the checksum was written by some Weir: these are its bugs or its future, not bit rot.
        if attributes & !KNOWN_ATTRIBUTES != 0 {
            return Err(FrameError::Attributes(attributes));
        }
        if base_offset < 0 || last_offset_delta < 0 || record_count < 0 {
            return Err(FrameError::Shape);
        }
        Ok(Self {
            base_offset,
            last_offset_delta,
            record_count,
            base_timestamp_ms,
            max_timestamp_ms,
            append_time_ms,
            append_time: attributes & APPEND_TIME != 0,
            codec: (attributes & CODEC_MASK) as u8,
            transactional: attributes & TRANSACTIONAL != 0,
            control: attributes & CONTROL != 0,
            broker_compressed: attributes & BROKER_COMPRESSED != 0,
            uncompressed_bytes,
            payload_bytes,
            payload_crc,
            producer: (producer_id >= 0)
                .then_some(Producer { id: ProducerId(producer_id), epoch: producer_epoch }),
            base_sequence,
            leader_epoch,
            flushed_end: (delta != DELTA_UNKNOWN).then(|| base_offset - i64::from(delta)),
        })
    }

    /// Whether the payload is the one its producer made.
    ///
    /// # Errors
    /// [`FrameError::PayloadCrc`].
    pub fn verify_payload(&self, payload: &[u8]) -> Result<(), FrameError> {
        if payload.len() as u64 != u64::from(self.payload_bytes) {
            return Err(FrameError::Short);
        }
        if crc32fast::hash(payload) != self.payload_crc {
            return Err(FrameError::PayloadCrc);
        }
        Ok(())
    }
}

/// What ties frames to one life of one partition. As long as its incarnation is known here alone, producers cannot write
/// what holds as a header: so no client is sent it, neither as it is nor as a header's checksum, from which it follows. A
/// follower is: it has to check what it is sent.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Seed(u32);

/// Not the number: what is printed may be sent.
impl fmt::Debug for Seed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Seed")
    }
}

impl Seed {
    /// That of a partition's life in one directory.
    pub fn of(id: PartitionId, incarnation: Incarnation) -> Self {
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&id.topic.0.to_le_bytes());
        hasher.update(&id.partition.to_le_bytes());
        hasher.update(&incarnation.0.to_le_bytes());
        Self(hasher.finalize())
    }

    pub(crate) fn hasher(self) -> crc32fast::Hasher {
        crc32fast::Hasher::new_with_initial(self.0)
    }

    fn crc(self, bytes: &[u8]) -> u32 {
        let mut hasher = self.hasher();
        hasher.update(bytes);
        hasher.finalize()
    }
}

/// Why bytes are not a frame of this log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The file ends within it.
    #[error("the file ends within the frame")]
    Short,
    /// It does not begin like one.
    #[error("no frame begins here")]
    Magic,
    /// The header's checksum does not hold, or it belongs to another partition, or to another life of this one.
    #[error(
        "the header fails its checksum, or belongs to another partition, or to an earlier one of the same name"
    )]
    HeaderCrc,
    /// Written by a newer Weir.
    #[error("frame version {0} is newer than this program")]
    Version(u8),
    /// Written by a newer Weir.
    #[error("frame attributes {0:#06x} are newer than this program")]
    Attributes(u16),
    /// Counts below zero.
    #[error("a count or offset in the header is negative")]
    Shape,
    /// The payload's checksum does not hold.
    #[error("the payload fails its checksum")]
    PayloadCrc,
    /// It does not follow the one before it.
    #[error("the frame has offset {given}, {expected} is next")]
    Gap {
        /// The offset that is next.
        expected: Offset,
        /// The frame's.
        given: Offset,
    },
}

/// The last four bytes of a header.
fn crc_of(header: &[u8; HEADER_BYTES]) -> u32 {
    header.last_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes))
}

/// A header being written, field by field.
struct Fields {
    bytes: [u8; HEADER_BYTES],
    at: usize,
}

impl Default for Fields {
    fn default() -> Self {
        Self { bytes: [0; HEADER_BYTES], at: 0 }
    }
}

impl Fields {
    fn put(&mut self, field: &[u8]) {
        if let Some(place) = self.bytes.get_mut(self.at..self.at + field.len()) {
            place.copy_from_slice(field);
        }
        self.at += field.len();
    }

    fn seal(mut self, seed: Seed) -> [u8; HEADER_BYTES] {
        debug_assert_eq!(self.at, HEADER_BYTES - 4, "the table above and the fields agree");
        let crc = self.bytes.get(..HEADER_BYTES - 4).map_or(0, |body| seed.crc(body));
        self.put(&crc.to_le_bytes());
        self.bytes
    }
}

/// Takes fields off a header whose length is checked.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> [u8; N] {
        match self.0.split_first_chunk::<N>() {
            Some((field, rest)) => {
                self.0 = rest;
                *field
            }
            None => [0; N],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use weir_types::TopicId;

    fn seed_of(topic: u128, partition: i32, incarnation: u64) -> Seed {
        Seed::of(PartitionId { topic: TopicId(topic), partition }, Incarnation(incarnation))
    }

    fn header() -> FrameHeader {
        FrameHeader {
            base_offset: 1000,
            last_offset_delta: 9,
            record_count: 10,
            base_timestamp_ms: 1,
            max_timestamp_ms: 2,
            append_time_ms: 3,
            append_time: false,
            codec: 3,
            transactional: true,
            control: false,
            broker_compressed: true,
            uncompressed_bytes: 500,
            payload_bytes: 5,
            payload_crc: crc32fast::hash(b"hello"),
            producer: Some(Producer { id: ProducerId(7), epoch: 2 }),
            base_sequence: 40,
            leader_epoch: 6,
            flushed_end: Some(990),
        }
    }

    #[test]
    fn a_header_reads_back() {
        let seed = seed_of(1, 2, 3);
        let header = header();
        assert_eq!(FrameHeader::decode(&header.encode(seed), seed), Ok(header));
        let unknown = FrameHeader { flushed_end: None, producer: None, ..header };
        assert_eq!(FrameHeader::decode(&unknown.encode(seed), seed), Ok(unknown));
        assert_eq!(header.verify_payload(b"hello"), Ok(()));
        assert_eq!(header.verify_payload(b"hellO"), Err(FrameError::PayloadCrc));
    }

    #[test]
    fn a_frame_of_another_log_never_verifies() {
        let bytes = header().encode(seed_of(1, 2, 3));
        for other in [seed_of(1, 3, 3), seed_of(2, 2, 3), seed_of(1, 2, 4)] {
            assert_eq!(FrameHeader::decode(&bytes, other), Err(FrameError::HeaderCrc));
        }
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let seed = seed_of(1, 2, 3);
        let good = header().encode(seed);
        for bit in 0..HEADER_BYTES * 8 {
            let mut bytes = good;
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(FrameHeader::decode(&bytes, seed).is_err(), "bit {bit}");
        }
        assert_eq!(FrameHeader::decode(&[0; HEADER_BYTES], seed), Err(FrameError::Magic));
        assert_eq!(FrameHeader::decode(&good[..87], seed), Err(FrameError::Short));
    }

    #[test]
    fn a_delta_too_large_to_say_says_nothing() {
        let seed = seed_of(1, 2, 3);
        let far = FrameHeader { base_offset: 1 << 40, flushed_end: Some(0), ..header() };
        let read = FrameHeader::decode(&far.encode(seed), seed).unwrap();
        assert_eq!(read.flushed_end, None);
    }
}
