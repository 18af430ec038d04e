//! What is known of a sealed segment without reading it: the `.seal` beside its `.log`. The same format, named
//! `.tail`, saves reading the segment that is written to at a start.
//!
//! A header, a table of sections, the sections. Each section has its length and checksum; one of a kind that is not
//! known is passed over. A sidecar that does not hold is made again from the frames: it proves nothing by itself.
//!
//! ```text
//! off size field                                  off size field
//!   0    4 magic "WSC1"                            48    8 largest timestamp, ms
//!   4    1 version                                 56    8 largest append time, ms
//!   5    1 header length / 8                       64    8 first append time, ms (i64::MIN: no frame)
//!   6    2 number of sections                      72    4 flags: 1 a producer was forgotten
//!   8    8 first offset                            76    4 CRC-32 of 0..76 and the table, seeded
//!  16    8 end offset
//!  24    8 length of the .log, bytes              table, 16 bytes each: kind u32, CRC-32 u32, length u64
//!  32    8 incarnation
//!  40    8 generation
//! ```

use std::ops::Range;

use bytes::Bytes;
use weir_io::Mapping;
use weir_types::{KnownBatch, Offset, ProducerId};

use crate::bytes::{Fields, Writer};
use crate::epochs::Epochs;
use crate::frame::Seed;
use crate::index::{LiveIndex, Mark, Marks};
use crate::producers::Entry;

const MAGIC: [u8; 4] = *b"WSC1";
const VERSION: u8 = 1;
const HEADER_BYTES: usize = 80;
const TABLE_ENTRY_BYTES: usize = 16;

/// Sections. 5 is kept for aborted transactions.
const OFFSETS: u32 = 1;
const TIMES: u32 = 2;
const EPOCHS: u32 = 3;
const PRODUCERS: u32 = 4;

/// In a producer's number of batches: its last frame is a fence.
const SEALED: u32 = 1 << 31;

/// A sidecar is never larger than this: marks and producers of the largest segment.
pub(crate) const SIDECAR_BYTES_MAX: usize = 256 << 20;

/// What a sidecar says, apart from its marks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Summary {
    pub(crate) base: Offset,
    pub(crate) end: Offset,
    pub(crate) log_bytes: u64,
    pub(crate) incarnation: u64,
    pub(crate) generation: u64,
    pub(crate) max_timestamp_ms: i64,
    pub(crate) max_append_time_ms: i64,
    pub(crate) first_append_time_ms: Option<i64>,
    /// Whether a producer was forgotten before its end.
    pub(crate) forgot: bool,
}

/// A sidecar's bytes from what its segment's owner knows.
pub(crate) fn encode(
    summary: &Summary,
    index: &LiveIndex,
    epochs: &Epochs,
    producers: &[(ProducerId, Entry)],
    seed: Seed,
) -> Vec<u8> {
    let mut offsets = Writer::default();
    let mut times = Writer::default();
    for mark in &index.marks {
        offsets.u32(mark.delta);
        offsets.u32(mark.position);
        times.i64(mark.timestamp_before_ms);
    }
    let sections = [
        (OFFSETS, offsets.0),
        (TIMES, times.0),
        (EPOCHS, encode_epochs(epochs)),
        (PRODUCERS, encode_producers(producers)),
    ];
    let mut table = Writer::default();
    for (kind, bytes) in &sections {
        table.u32(*kind);
        table.u32(crc32fast::hash(bytes));
        table.u64(bytes.len() as u64);
    }
    let mut out = Writer::default();
    out.0.extend_from_slice(&MAGIC);
    out.u8(VERSION);
    out.u8((HEADER_BYTES / 8) as u8);
    out.u16(sections.len() as u16);
    out.i64(summary.base);
    out.i64(summary.end);
    out.u64(summary.log_bytes);
    out.u64(summary.incarnation);
    out.u64(summary.generation);
    out.i64(summary.max_timestamp_ms);
    out.i64(summary.max_append_time_ms);
    out.i64(summary.first_append_time_ms.unwrap_or(i64::MIN));
    out.u32(u32::from(summary.forgot));
    out.u32(seed.checksum(&[&out.0, &table.0]));
    out.0.extend_from_slice(&table.0);
    for (_, bytes) in &sections {
        out.0.extend_from_slice(bytes);
    }
    out.0
}

/// Epochs as a section has them.
pub(crate) fn encode_epochs(epochs: &Epochs) -> Vec<u8> {
    let mut out = Writer::default();
    for (epoch, start) in epochs.entries() {
        out.i32(*epoch);
        out.i32(0);
        out.i64(*start);
    }
    out.0
}

/// Producers as a section has them.
pub(crate) fn encode_producers(producers: &[(ProducerId, Entry)]) -> Vec<u8> {
    let mut out = Writer::default();
    for (id, entry) in producers {
        out.i64(id.0);
        out.i32(entry.epoch);
        out.u32(entry.batches().len() as u32 | if entry.sealed { SEALED } else { 0 });
        out.i64(entry.last_offset);
        out.i64(entry.last_time_ms);
        for batch in entry.batches() {
            out.i32(batch.base_sequence);
            out.i32(batch.leader_epoch);
            out.i64(batch.base_offset);
            out.i64(batch.last_offset);
            out.i64(batch.append_time_ms);
        }
    }
    out.0
}

/// A sidecar that holds.
#[derive(Debug)]
pub(crate) struct Sidecar {
    backing: Backing,
    pub(crate) summary: Summary,
    offsets: Range<usize>,
    times: Range<usize>,
    epochs: Range<usize>,
    producers: Range<usize>,
}

#[derive(Debug)]
enum Backing {
    Mapped(Mapping),
    Held(Bytes),
}

impl Backing {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Mapped(mapping) => mapping,
            Self::Held(bytes) => bytes,
        }
    }
}

/// So much of a file is enough for [`summary`].
pub(crate) const SUMMARY_BYTES: usize = 4 << 10;

/// What a sidecar says, from its first bytes.
pub(crate) fn summary(bytes: &[u8], seed: Seed) -> Option<Summary> {
    parse_header(bytes, seed).ok().map(|(summary, _)| summary)
}

impl Sidecar {
    /// Over a mapped file: it is never changed or cut once it has its name.
    pub(crate) fn mapped(mapping: Mapping, seed: Seed) -> Result<Self, &'static str> {
        Self::open(Backing::Mapped(mapping), seed)
    }

    /// Over bytes that were read.
    pub(crate) fn held(bytes: Bytes, seed: Seed) -> Result<Self, &'static str> {
        Self::open(Backing::Held(bytes), seed)
    }

    fn open(backing: Backing, seed: Seed) -> Result<Self, &'static str> {
        let bytes = backing.bytes();
        let (summary, sections) = parse_header(bytes, seed)?;
        let mut ranges = [const { 0..0 }; 4];
        let mut at = HEADER_BYTES + sections.len() * TABLE_ENTRY_BYTES;
        for (kind, crc, len) in sections {
            let end = usize::try_from(len)
                .ok()
                .and_then(|len| at.checked_add(len))
                .ok_or("a section is too long")?;
            let section = bytes.get(at..end).ok_or("the file ends within a section")?;
            if crc32fast::hash(section) != crc {
                return Err("a section fails its checksum");
            }
            if let Some(range) = (kind as usize).checked_sub(1).and_then(|i| ranges.get_mut(i)) {
                *range = at..end;
            }
            at = end;
        }
        let [offsets, times, epochs, producers] = ranges;
        if offsets.len() % 8 != 0 || offsets.len() != times.len() {
            return Err("the two indexes do not match");
        }
        Ok(Self { summary, offsets, times, epochs, producers, backing })
    }

    fn section(&self, range: &Range<usize>) -> &[u8] {
        self.backing.bytes().get(range.clone()).unwrap_or_default()
    }

    /// The epochs of the log up to the end of this segment.
    pub(crate) fn epochs(&self) -> Epochs {
        decode_epochs(self.section(&self.epochs))
    }

    /// What was known of producers at the end of this segment.
    pub(crate) fn producers(&self) -> Vec<(ProducerId, Entry)> {
        decode_producers(self.section(&self.producers))
    }

    /// As the index of a segment that is written to.
    pub(crate) fn live_index(&self) -> LiveIndex {
        let marks = (0..self.count()).filter_map(|at| self.mark(at)).collect();
        let summary = &self.summary;
        let times = (summary.max_timestamp_ms, summary.max_append_time_ms, summary.first_append_time_ms);
        LiveIndex::restore(summary.base, marks, times)
    }
}

impl Marks for Sidecar {
    fn count(&self) -> usize {
        self.offsets.len() / 8
    }

    fn mark(&self, at: usize) -> Option<Mark> {
        let mut offsets = Fields(self.section(&self.offsets).get(at * 8..)?);
        let mut times = Fields(self.section(&self.times).get(at * 8..)?);
        Some(Mark { delta: offsets.u32()?, position: offsets.u32()?, timestamp_before_ms: times.i64()? })
    }
}

type Section = (u32, u32, u64);

fn parse_header(bytes: &[u8], seed: Seed) -> Result<(Summary, Vec<Section>), &'static str> {
    let short = "the file ends within its header";
    let header = bytes.get(..HEADER_BYTES).ok_or(short)?;
    let mut fields = Fields(header);
    if fields.u32() != Some(u32::from_le_bytes(MAGIC)) {
        return Err("not a sidecar");
    }
    let version = fields.u8().ok_or(short)?;
    let eighths = fields.u8().ok_or(short)?;
    let count = usize::from(fields.u16().ok_or(short)?);
    let mut next = || fields.i64().ok_or(short);
    let (base, end, log_bytes, incarnation, generation) = (next()?, next()?, next()?, next()?, next()?);
    let (max_timestamp_ms, max_append_time_ms, first) = (next()?, next()?, next()?);
    let flags = fields.u32().ok_or(short)?;
    let table = bytes.get(HEADER_BYTES..HEADER_BYTES + count * TABLE_ENTRY_BYTES).ok_or(short)?;
    let (body, crc) = header.split_at(HEADER_BYTES - 4);
    if Fields(crc).u32() != Some(seed.checksum(&[body, table])) {
        return Err(
            "the header fails its checksum, or belongs to another partition, or to an earlier one of the same name",
        );
    }
    if version != VERSION || usize::from(eighths) * 8 != HEADER_BYTES {
        return Err("written by a newer version");
    }
    let mut rows = Fields(table);
    let mut sections = Vec::with_capacity(count);
    while let (Some(kind), Some(crc), Some(len)) = (rows.u32(), rows.u32(), rows.u64()) {
        sections.push((kind, crc, len));
    }
    let summary = Summary {
        base,
        end,
        log_bytes: log_bytes as u64,
        incarnation: incarnation as u64,
        generation: generation as u64,
        max_timestamp_ms,
        max_append_time_ms,
        first_append_time_ms: (first != i64::MIN).then_some(first),
        forgot: flags & 1 != 0,
    };
    Ok((summary, sections))
}

pub(crate) fn decode_epochs(section: &[u8]) -> Epochs {
    let mut fields = Fields(section);
    let mut entries = Vec::new();
    while let (Some(epoch), Some(_), Some(start)) = (fields.i32(), fields.i32(), fields.i64()) {
        entries.push((epoch, start));
    }
    Epochs::from_entries(entries)
}

pub(crate) fn decode_producers(section: &[u8]) -> Vec<(ProducerId, Entry)> {
    let mut fields = Fields(section);
    std::iter::from_fn(|| next_producer(&mut fields)).collect()
}

fn next_producer(fields: &mut Fields<'_>) -> Option<(ProducerId, Entry)> {
    let id = ProducerId(fields.i64()?);
    let epoch = fields.i32()?;
    let count = fields.u32()?;
    let mut entry = Entry::new(epoch, fields.i64()?, fields.i64()?);
    entry.sealed = count & SEALED != 0;
    for _ in 0..count & !SEALED {
        entry.push(KnownBatch {
            base_sequence: fields.i32()?,
            leader_epoch: fields.i32()?,
            base_offset: fields.i64()?,
            last_offset: fields.i64()?,
            append_time_ms: fields.i64()?,
        });
    }
    Some((id, entry))
}

#[cfg(test)]
mod tests {
    use super::*;
    use weir_types::{Incarnation, PartitionId, TopicId};

    fn sample() -> (Summary, LiveIndex, Epochs, Vec<(ProducerId, Entry)>) {
        let summary = Summary {
            base: 100,
            end: 300,
            log_bytes: 70_000,
            incarnation: 5,
            generation: 2,
            max_timestamp_ms: 20,
            max_append_time_ms: 30,
            first_append_time_ms: Some(10),
            forgot: true,
        };
        let marks = (0..4u32)
            .map(|i| Mark { delta: i * 50, position: i * 20_000, timestamp_before_ms: i64::from(i) })
            .collect();
        let index = LiveIndex::restore(100, marks, (20, 30, Some(10)));
        let mut entry = Entry::new(3, 250, 29);
        entry.push(KnownBatch {
            base_sequence: 1,
            base_offset: 249,
            last_offset: 250,
            leader_epoch: 2,
            append_time_ms: 29,
        });
        entry.sealed = true;
        let producers = vec![(ProducerId(8), Entry::new(0, 120, 12)), (ProducerId(7), entry)];
        (summary, index, Epochs::from_entries(vec![(1, 0), (2, 150)]), producers)
    }

    fn seed(partition: i32) -> Seed {
        Seed::of(PartitionId { topic: TopicId(9), partition }, Incarnation(5))
    }

    #[test]
    fn a_sidecar_reads_back() {
        let (summary, index, epochs, producers) = sample();
        let bytes = encode(&summary, &index, &epochs, &producers, seed(1));
        let read = Sidecar::held(bytes.clone().into(), seed(1)).unwrap();
        assert_eq!(read.summary, summary);
        assert_eq!(read.live_index().marks, index.marks);
        assert_eq!(read.epochs(), epochs);
        assert_eq!(read.producers(), producers);
        assert_eq!(read.position_of(60), 20_000);
        assert!(Sidecar::held(bytes.into(), seed(2)).is_err());
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_noticed() {
        let (summary, index, epochs, producers) = sample();
        let good = encode(&summary, &index, &epochs, &producers, seed(1));
        for bit in 0..good.len() * 8 {
            let mut bytes = good.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(Sidecar::held(bytes.into(), seed(1)).is_err(), "bit {bit}");
        }
        for len in 0..good.len() {
            assert!(Sidecar::held(good[..len].to_vec().into(), seed(1)).is_err(), "cut at {len}");
        }
    }
}
