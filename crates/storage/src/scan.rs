//! Walking through the frames of a file, believing nothing.

use std::io;

use bytes::BytesMut;
use weir_io::File;
use weir_types::{LeaderEpoch, Offset};

use crate::epochs::Epochs;
use crate::frame::{FrameError, FrameHeader, HEADER_BYTES, MAGIC, Seed};
use crate::index::LiveIndex;
use crate::producers::ProducerTable;
use crate::stats::Counter;

/// What is read at a time.
const WINDOW_BYTES: usize = 256 << 10;

/// What is read to find the next header, where payloads are passed over.
const HEADER_WINDOW_BYTES: usize = 4 << 10;

/// What a log's frames add up to, up to some frame.
#[derive(Clone, Debug)]
pub(crate) struct State {
    pub(crate) producers: ProducerTable,
    pub(crate) epochs: Epochs,
    pub(crate) last_append_ms: i64,
}

impl State {
    fn apply(&mut self, header: &FrameHeader) {
        self.producers.apply(header);
        self.producers.keep();
        self.epochs.note(header.leader_epoch, header.base_offset);
        self.last_append_ms = header.append_time_ms;
    }
}

/// What to walk through.
pub(crate) struct Walk<'a> {
    pub(crate) file: &'a dyn File,
    pub(crate) seed: Seed,
    /// The segment's first offset.
    pub(crate) base: Offset,
    /// The file's length.
    pub(crate) len: u64,
    /// Payloads are checked from this position on; before it they were synced and are not read.
    pub(crate) verify_from: u64,
    /// Stop before the frame with this offset.
    pub(crate) until: Option<Offset>,
    /// What is known of its beginning: the walk goes on behind that.
    pub(crate) from: Option<From>,
    /// Where is counted how far it has come, for those who watch.
    pub(crate) passed_bytes: Option<&'a Counter>,
}

/// What is known of a segment's beginning.
#[derive(Debug)]
pub(crate) struct From {
    pub(crate) index: LiveIndex,
    pub(crate) end: Offset,
    pub(crate) position: u64,
}

/// What was found.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) index: LiveIndex,
    /// The offset after the last good frame.
    pub(crate) end: Offset,
    /// Where it ends.
    pub(crate) position: u64,
    /// Why it ended there, if not because the file does.
    pub(crate) bad: Option<Bad>,
    /// The first offset of the last good frame.
    pub(crate) last_base: Option<Offset>,
    /// Its length.
    last_bytes: usize,
}

/// Why a frame does not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Bad {
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error("it has offset {found}, {expected} is next")]
    Offset { found: Offset, expected: Offset },
    #[error("it has leader epoch {found}, after {before}")]
    Epoch { found: LeaderEpoch, before: LeaderEpoch },
}

/// Reads through a file without reading it twice.
struct Window<'a> {
    file: &'a dyn File,
    len: u64,
    start: u64,
    bytes: BytesMut,
}

impl Window<'_> {
    /// `len` bytes at `position`, fewer at the end of the file; if they have to be read, about `window` of them.
    fn at(&mut self, position: u64, len: usize, window: usize) -> io::Result<&[u8]> {
        let len = (self.len.saturating_sub(position)).min(len as u64) as usize;
        let held = self.start..self.start + self.bytes.len() as u64;
        if position < held.start || position + len as u64 > held.end {
            let wanted = self.len.saturating_sub(position).min(len.max(window) as u64) as usize;
            self.bytes.clear();
            self.start = position;
            while self.bytes.len() < wanted {
                let (at, left) = (position + self.bytes.len() as u64, wanted - self.bytes.len());
                if self.file.read_at(&mut self.bytes, left, at)? == 0 {
                    break;
                }
            }
        }
        let from = (position - self.start) as usize;
        Ok(self.bytes.get(from..(from + len).min(self.bytes.len())).unwrap_or_default())
    }

    /// What is held from `position` on: at least a header's bytes, unless the file ends before.
    fn ahead(&mut self, position: u64) -> io::Result<&[u8]> {
        self.at(position, HEADER_BYTES, WINDOW_BYTES)?;
        let from = position.saturating_sub(self.start) as usize;
        Ok(self.bytes.get(from..).unwrap_or_default())
    }

    /// The header at `position`, if one that holds is there.
    fn header(&mut self, position: u64, seed: Seed) -> io::Result<Option<FrameHeader>> {
        Ok(FrameHeader::decode(self.at(position, HEADER_BYTES, WINDOW_BYTES)?, seed).ok())
    }
}

/// Walks from the beginning of a segment, adding up `state`.
pub(crate) fn walk(mut what: Walk<'_>, state: &mut State) -> io::Result<Found> {
    let mut window = Window { file: what.file, len: what.len, start: 0, bytes: BytesMut::new() };
    let From { index, end, position } = what.from.take().unwrap_or_else(|| From {
        index: LiveIndex::new(what.base),
        end: what.base,
        position: 0,
    });
    let mut found = Found { index, end, position, bad: None, last_base: None, last_bytes: 0 };
    while found.position < what.len && what.until.is_none_or(|until| found.end < until) {
        let header = match next(&mut window, &what, &found, state.epochs.last())? {
            Ok(header) => header,
            Err(bad) => {
                found.bad = Some(bad);
                break;
            }
        };
        found.index.note(&header, found.position as u32);
        found.last_base = Some(header.base_offset);
        found.end = header.next_offset();
        found.position += header.frame_bytes();
        found.last_bytes = header.frame_bytes() as usize;
        if let Some(passed_bytes) = what.passed_bytes {
            passed_bytes.add(header.frame_bytes());
        }
        state.apply(&header);
    }
    Ok(found)
}

fn next(
    window: &mut Window<'_>,
    what: &Walk<'_>,
    found: &Found,
    before: Option<LeaderEpoch>,
) -> io::Result<Result<FrameHeader, Bad>> {
    // Where payloads are not read and frames are large, there is no point in reading what lies between headers.
    let size = found.last_bytes;
    let ahead = if found.position < what.verify_from && size > WINDOW_BYTES / 4 {
        HEADER_WINDOW_BYTES
    } else {
        WINDOW_BYTES
    };
    let header = match FrameHeader::decode(window.at(found.position, HEADER_BYTES, ahead)?, what.seed) {
        Ok(header) => header,
        Err(error) => return Ok(Err(error.into())),
    };
    if header.base_offset != found.end {
        return Ok(Err(Bad::Offset { found: header.base_offset, expected: found.end }));
    }
    if let Some(before) = before.filter(|before| header.leader_epoch < *before) {
        return Ok(Err(Bad::Epoch { found: header.leader_epoch, before }));
    }
    if found.position + header.frame_bytes() > what.len {
        return Ok(Err(FrameError::Short.into()));
    }
    if found.position >= what.verify_from {
        let payload =
            window.at(found.position + HEADER_BYTES as u64, header.payload_bytes as usize, WINDOW_BYTES)?;
        if let Err(error) = header.verify_payload(payload) {
            return Ok(Err(error.into()));
        }
    }
    Ok(Ok(header))
}

/// How far the log was durable, by what the frames from `from` on say: there the frame before them ends, so that it is
/// known that one begins there, be it a bad one. Frames before `expected`, and at or beyond `until`, say nothing.
///
/// What is at stake. To pass over a frame that says "flushed" cuts what was acknowledged. To believe bytes that a
/// producer has put into a record turns what a crash has torn into damage, and whoever may produce could take a partition
/// offline. What is in the way of that:
///
/// - The checksum of a header is seeded with what no producer knows ([`Seed`]).
/// - What counts is where a header stands. Where a frame ends the next one begins, and producers write no headers: one
///   that holds there is ours, and so is its length. It is believed whatever became of its payload, and the payload is
///   passed over, never searched. Only where a header does not hold nobody knows where the next frame begins, and what
///   follows may be a payload: that is searched byte by byte, up to the next header that holds and is of a frame after
///   the one that is lost.
///
/// Nothing is asked of what lies behind a header that was found: the frame may be the last one that the crash has left
/// whole, or be torn itself, and what it says of those before it is as true. Who guesses the seed could write any number
/// of frames in a row. He has to guess 32 bits, and needs a crash that loses the page with the header of his own batch and
/// keeps the ones behind it; the partition is then kept as it is, which loses nothing.
///
/// What the log itself wrote never makes damage of what is only torn, in whatever order its pages have come to the disk. A
/// frame says how far the log was durable when it was written, and that was true: frames that were still on their way are
/// not in it, and one that is in it and not there the disk has lost. It claims nothing it could not have known: what a
/// header can say is at most its own offset.
///
/// A header is read at each frame, and once where a payload looks like one: the work grows with the bytes, whatever they
/// are, and nothing is allocated by a length that is only claimed.
pub(crate) fn proven_behind(
    file: &dyn File,
    seed: Seed,
    len: u64,
    from: u64,
    expected: Offset,
    until: Option<Offset>,
) -> io::Result<Offset> {
    Ok(behind(file, seed, len, from, expected, until)?.proven)
}

/// What the frames behind a bad one say.
#[derive(Debug, Default)]
pub(crate) struct Behind {
    /// How far the log was durable.
    pub(crate) proven: Offset,
    /// The end of the last of them, be its payload whole or not.
    pub(crate) end: Offset,
}

/// The same, and how far frames go.
pub(crate) fn behind(
    file: &dyn File,
    seed: Seed,
    len: u64,
    from: u64,
    expected: Offset,
    until: Option<Offset>,
) -> io::Result<Behind> {
    let mut window = Window { file, len, start: 0, bytes: BytesMut::new() };
    let mut said = Behind::default();
    let mut next = Some(from);
    while let Some(mut position) = next {
        while let Some(header) = window.header(position, seed)? {
            let counts =
                header.base_offset >= expected && until.is_none_or(|until| header.base_offset < until);
            if counts {
                said.proven = said.proven.max(header.flushed_end.unwrap_or(0));
                said.end = said.end.max(header.next_offset());
            }
            position = position.saturating_add(header.frame_bytes());
        }
        next = find_frame(&mut window, seed, position.saturating_add(1), expected)?;
    }
    Ok(said)
}

/// Where the next frame that holds begins at or behind a position at which nothing is known to begin, after the frame `lost`; and
/// its first offset.
pub(crate) fn frame_behind(
    file: &dyn File,
    seed: Seed,
    len: u64,
    from: u64,
    lost: Offset,
) -> io::Result<Option<(u64, Offset)>> {
    let mut window = Window { file, len, start: 0, bytes: BytesMut::new() };
    let Some(position) = find_frame(&mut window, seed, from, lost)? else { return Ok(None) };
    Ok(window.header(position, seed)?.map(|header| (position, header.base_offset)))
}

/// Where the next frame begins at or behind a position at which nothing is known to begin, after the frame `lost`.
fn find_frame(window: &mut Window<'_>, seed: Seed, from: u64, lost: Offset) -> io::Result<Option<u64>> {
    let mut position = from;
    while position.saturating_add(HEADER_BYTES as u64) <= window.len {
        let bytes = window.ahead(position)?;
        let Some(at) = bytes.windows(MAGIC.len()).position(|window| window == MAGIC) else {
            position += bytes.len().saturating_sub(MAGIC.len() - 1).max(1) as u64;
            continue;
        };
        position += at as u64;
        if window.header(position, seed)?.is_some_and(|header| header.base_offset > lost) {
            return Ok(Some(position));
        }
        position += 1;
    }
    Ok(None)
}
