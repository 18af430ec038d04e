//! What a log knows where it begins, for a replica that is to begin there (correctness rules 15, 16): whose frames were in
//! front of it, and in which leaderships. It is not in the frames any more, so that it has to be copied.
//!
//! ```text
//! off size field                          off size field
//!   0    4 magic "WST1"                    40    8 append time of the frame before it, ms (i64::MIN: none)
//!   4    4 version                         48    4 flags: 1 a producer was forgotten
//!   8   16 topic id                        52    4 length of the epochs, bytes
//!  24    4 partition                       56    8 length of the producers, bytes
//!  28    4 0                               64      epochs, then producers: as in a sidecar
//!  32    8 offset                         end    4 CRC-32 of all before it
//! ```

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use weir_runtime::blocking;
use weir_types::{Offset, PartitionId, ProducerId, TopicId};

use crate::bytes::{Fields, Writer};
use crate::core::Core;
use crate::ends::Limit;
use crate::epochs::Epochs;
use crate::error::Error;
use crate::producers::Entry;
use crate::read::{self, ReadRequest};
use crate::recovery::{self, StateUntil};
use crate::sidecar;

const MAGIC: [u8; 4] = *b"WST1";
const VERSION: u32 = 1;

/// The state of a log at its start. Opaque: made by [`crate::Partition::start_state`], used by
/// [`crate::LogDir::start_over`].
#[derive(Clone, PartialEq, Eq)]
pub struct StartState {
    pub(crate) id: PartitionId,
    pub(crate) offset: Offset,
    pub(crate) last_append_ms: i64,
    pub(crate) forgot: bool,
    pub(crate) epochs: Epochs,
    pub(crate) producers: Vec<(ProducerId, Entry)>,
}

impl StartState {
    /// The longest there is, bytes: that of a log which remembers a million producers. Send it in pieces.
    pub const BYTES_MAX: usize = 256 << 20;

    /// Whose it is.
    pub fn id(&self) -> PartitionId {
        self.id
    }

    /// Where the log begins: with a whole frame, so that it may lie before the log start that the leader tells.
    pub fn offset(&self) -> Offset {
        self.offset
    }

    /// As it is sent.
    pub fn to_bytes(&self) -> Bytes {
        let (epochs, producers) =
            (sidecar::encode_epochs(&self.epochs), sidecar::encode_producers(&self.producers));
        let mut out = Writer::default();
        out.0.extend_from_slice(&MAGIC);
        out.u32(VERSION);
        out.u128(self.id.topic.0);
        out.i32(self.id.partition);
        out.u32(0);
        out.i64(self.offset);
        out.i64(self.last_append_ms);
        out.u32(u32::from(self.forgot));
        out.u32(epochs.len() as u32);
        out.u64(producers.len() as u64);
        out.0.extend_from_slice(&epochs);
        out.0.extend_from_slice(&producers);
        out.u32(crc32fast::hash(&out.0));
        out.0.into()
    }

    /// What was sent.
    ///
    /// # Errors
    /// [`Error::StartState`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Error> {
        Self::parse(bytes).map_err(Error::StartState)
    }

    fn parse(bytes: &[u8]) -> Result<Self, &'static str> {
        let short = "it is shorter than it says";
        if bytes.len() > Self::BYTES_MAX {
            return Err("it is longer than any can be");
        }
        let (body, crc) = bytes.split_last_chunk::<4>().ok_or(short)?;
        if crc32fast::hash(body) != u32::from_le_bytes(*crc) {
            return Err("it fails its checksum");
        }
        let mut fields = Fields(body);
        if fields.u32() != Some(u32::from_le_bytes(MAGIC)) {
            return Err("it is something else");
        }
        if fields.u32() != Some(VERSION) {
            return Err("it was written by a newer version");
        }
        let topic = TopicId(fields.u128().ok_or(short)?);
        let id = PartitionId { topic, partition: fields.i32().ok_or(short)? };
        let _ = fields.u32().ok_or(short)?;
        let (offset, last_append_ms) = (fields.i64().ok_or(short)?, fields.i64().ok_or(short)?);
        let forgot = fields.u32().ok_or(short)? & 1 != 0;
        let epochs = fields.u32().ok_or(short)? as usize;
        let producers = fields.u64().and_then(|len| usize::try_from(len).ok()).ok_or(short)?;
        let (epochs, rest) = fields.0.split_at_checked(epochs).ok_or(short)?;
        if rest.len() != producers {
            return Err("its producers are not as long as it says");
        }
        let (epochs, producers) = (sidecar::decode_epochs(epochs), sidecar::decode_producers(rest));
        let rising = |pair: &[(i32, Offset)]| matches!(pair, [one, two] if one.0 < two.0 && one.1 < two.1);
        let entries = epochs.entries();
        if offset < 0
            || !entries.windows(2).all(rising)
            || entries.iter().any(|(_, start)| *start > offset)
            || producers.iter().any(|(_, entry)| entry.last_offset >= offset)
        {
            return Err("it speaks of what comes after it");
        }
        Ok(Self { id, offset, last_append_ms, forgot, epochs, producers })
    }
}

impl fmt::Debug for StartState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StartState")
            .field("id", &self.id)
            .field("offset", &self.offset)
            .field("epochs", &self.epochs.entries().len())
            .field("producers", &self.producers.len())
            .finish_non_exhaustive()
    }
}

/// What a log knows where it begins. Where what lies before that is damaged, and what lies behind it is not, nobody knows any more
/// who wrote it, and it is not said of anybody that he did not.
pub(crate) async fn of(core: &Arc<Core>) -> Result<StartState, Error> {
    match remembered(core).await {
        Err(damaged @ Error::Damaged { .. }) => forgotten(core).await.ok_or(damaged),
        state => state,
    }
}

/// By the headers of its first segment, read on the pool.
async fn remembered(core: &Arc<Core>) -> Result<StartState, Error> {
    let away = Arc::clone(core);
    blocking(&core.dir.os, move || {
        loop {
            let _held = away.dir.hold().filter(|_| !away.is_closed()).ok_or(Error::Closed)?;
            let log_start = away.ends().log_start;
            let found = at(&away, log_start);
            // The start moves before what lies in front of it goes: what was found there until now was there.
            if away.ends().log_start == log_start {
                return found.map_err(|error| if away.is_closed() { Error::Closed } else { error });
            }
        }
    })
    .await
}

/// Without those who wrote before, if the log can be read where it begins. Its leaderships are known.
async fn forgotten(core: &Arc<Core>) -> Option<StartState> {
    loop {
        let log_start = core.ends().log_start;
        let request = ReadRequest { from: log_start, bytes_max: 1, limit: Limit::LogEnd };
        let chunk = read::read(core, request).await.ok()?;
        let offset = chunk.frames().next().map_or(log_start, |frame| frame.header.base_offset);
        let mut epochs = core.epochs.read().clone();
        epochs.cut(offset);
        epochs.cut_front(offset);
        // It moves before anything goes.
        if core.ends().log_start == log_start {
            tracing::warn!(
                name = core.name(),
                offset,
                "what lies before the log's start is damaged: a replica that begins there does not know who wrote it"
            );
            let (last_append_ms, producers) = (i64::MIN, Vec::new());
            return Some(StartState { id: core.id, offset, last_append_ms, forgot: true, epochs, producers });
        }
    }
}

/// What is known at an offset in its first segment: where the frame begins that holds it.
fn at(core: &Arc<Core>, log_start: Offset) -> Result<StartState, Error> {
    let segments = core.segments.load_full();
    let segment = Core::segments_from(&segments, log_start).first().ok_or(Error::Closed)?;
    let config = core.durable.lock().log_config();
    let mut until = recovery::state_until(core, segment, log_start, &config)?;
    if let Some(base) = until.found.last_base.filter(|_| until.found.end > log_start) {
        until = recovery::state_until(core, segment, base, &config)?;
    }
    let StateUntil { mut state, found } = until;
    state.epochs.cut_front(found.end);
    Ok(StartState {
        id: core.id,
        offset: found.end,
        last_append_ms: state.last_append_ms,
        forgot: state.producers.forgot(),
        epochs: state.epochs,
        producers: state.producers.snapshot().in_log_order(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use weir_types::KnownBatch;

    #[test]
    fn a_state_reads_back_and_every_flipped_bit_and_every_cut_is_noticed() {
        let mut entry = Entry::new(3, 99, 29);
        entry.push(KnownBatch {
            base_sequence: 1,
            base_offset: 98,
            last_offset: 99,
            leader_epoch: 2,
            append_time_ms: 29,
        });
        let state = StartState {
            id: PartitionId { topic: TopicId(9), partition: 4 },
            offset: 100,
            last_append_ms: 29,
            forgot: true,
            epochs: Epochs::from_entries(vec![(1, 40), (2, 70)]),
            producers: vec![(ProducerId(8), Entry::new(0, 12, 12)), (ProducerId(7), entry)],
        };
        let good = state.to_bytes();
        assert_eq!(StartState::from_bytes(&good).unwrap(), state);
        for bit in 0..good.len() * 8 {
            let mut bytes = good.to_vec();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(StartState::from_bytes(&bytes).is_err(), "bit {bit}");
        }
        for len in 0..good.len() {
            assert!(StartState::from_bytes(&good[..len]).is_err(), "cut at {len}");
        }
        let late = StartState { offset: 99, ..state };
        assert!(StartState::from_bytes(&late.to_bytes()).is_err());
    }
}
