//! Reading: one path for consumers, followers and tools. Hot path.
//!
//! The page cache is the cache: what is in it is read on the caller's thread, into the buffer that becomes the
//! message; what is not goes to the pool. A read begins at the frame that holds the offset and ends at a frame's
//! boundary; only whole frames are given out, the first one whatever its size.

mod deleted;

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::{Buf, Bytes, BytesMut};
use parking_lot::Mutex;
use weir_runtime::blocking;
use weir_types::{Incarnation, Offset, PartitionId};

use self::deleted::past_deleted;
use crate::clock;
use crate::config::Mutant;
use crate::core::Core;
use crate::ends::{Ends, Limit};
use crate::error::{ReadError, shown};
use crate::frame::{FrameError, FrameHeader, HEADER_BYTES, Seed};
use crate::recovery;
use crate::segment::{MarksDyn, Segment};

/// What is read at a time while looking for a timestamp.
const SEARCH_BYTES: usize = 64 << 10;

/// How much may be read in vain behind the last frame that the marks know to be whole: between two marks there are
/// small frames alone, and some of them are.
const SPARE_BYTES: u64 = 16 << 10;

/// How many readers' places are remembered, so that one who reads on does not search again.
const PLACES: usize = 8;

/// What to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadRequest {
    /// The first offset wanted. The first frame may begin before it.
    pub from: Offset,
    /// About how much: whole frames up to this many bytes with their headers, the first one even if it is larger.
    pub bytes_max: usize,
    /// How far the reader may see.
    pub limit: Limit,
}

/// Whole frames, one after the other.
#[derive(Clone, Debug)]
pub struct Chunk {
    /// The frames as they lie in the file.
    pub bytes: Bytes,
    /// The offset to read on from: behind the last frame, or the one asked for if there is none.
    pub next_offset: Offset,
    /// The log's ends before it was read.
    pub ends: Ends,
    /// Whether it came from the page cache alone.
    pub from_page_cache: bool,
    seed: Seed,
}

impl Chunk {
    /// Whether there was nothing within the limit.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// The frames; payloads are slices of the chunk.
    pub fn frames(&self) -> Frames {
        Frames { rest: self.bytes.clone(), seed: self.seed }
    }
}

/// One frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Its header, checked.
    pub header: FrameHeader,
    /// Its payload; its checksum is for whoever opens it to check ([`FrameHeader::verify_payload`]).
    pub payload: Bytes,
}

/// The frames of a chunk.
#[derive(Clone, Debug)]
pub struct Frames {
    rest: Bytes,
    seed: Seed,
}

impl Iterator for Frames {
    type Item = Frame;

    fn next(&mut self) -> Option<Frame> {
        let header = FrameHeader::decode(&self.rest, self.seed).ok()?;
        let payload_bytes = header.payload_bytes as usize;
        if self.rest.len() < HEADER_BYTES + payload_bytes {
            return None;
        }
        self.rest.advance(HEADER_BYTES);
        Some(Frame { header, payload: self.rest.split_to(payload_bytes) })
    }
}

/// The frames that another replica has read ([`Chunk::bytes`]), as they lie in its file: `incarnation` is its log's.
/// Everything is checked, headers, payloads, and that each frame follows the one before it; payloads are slices of
/// `bytes`. Also what is wrong with the first frame that does not hold, which is not among them, nor any behind it.
pub fn decode_frames(
    mut bytes: Bytes,
    id: PartitionId,
    incarnation: Incarnation,
) -> (Vec<Frame>, Option<FrameError>) {
    let seed = Seed::of(id, incarnation);
    let mut frames: Vec<Frame> = Vec::new();
    while !bytes.is_empty() {
        let expected = frames.last().map(|last| last.header.next_offset());
        match decode_frame(&mut bytes, seed, expected) {
            Ok(frame) => frames.push(frame),
            Err(error) => return (frames, Some(error)),
        }
    }
    (frames, None)
}

fn decode_frame(bytes: &mut Bytes, seed: Seed, expected: Option<Offset>) -> Result<Frame, FrameError> {
    let header = FrameHeader::decode(bytes, seed)?;
    if bytes.len() as u64 - (HEADER_BYTES as u64) < u64::from(header.payload_bytes) {
        return Err(FrameError::Short);
    }
    if let Some(expected) = expected.filter(|expected| header.base_offset != *expected) {
        return Err(FrameError::Gap { expected, given: header.base_offset });
    }
    bytes.advance(HEADER_BYTES);
    let payload = bytes.split_to(header.payload_bytes as usize);
    header.verify_payload(&payload)?;
    Ok(Frame { header, payload })
}

/// Where the first frame with a timestamp or a later one is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimestampOffset {
    /// The frame's first offset: the record is in it, or it is that one.
    pub offset: Offset,
    /// The frame's largest timestamp.
    pub timestamp_ms: i64,
}

/// Where readers have stopped, since the log was last cut.
#[derive(Debug, Default)]
pub(crate) struct Places {
    cuts: AtomicU64,
    places: Mutex<VecDeque<Place>>,
}

#[derive(Clone, Copy, Debug)]
struct Place {
    offset: Offset,
    segment: Offset,
    position: u64,
}

impl Places {
    /// How often the log was cut: a place is one of the log as it was when this was asked.
    fn cuts(&self) -> u64 {
        self.cuts.load(Ordering::Acquire)
    }

    fn take(&self, offset: Offset, segment: Offset) -> Option<u64> {
        let mut places = self.places.lock();
        let at = places.iter().position(|place| place.offset == offset && place.segment == segment)?;
        places.remove(at).map(|place| place.position)
    }

    fn put(&self, cuts: u64, place: Place) {
        let mut places = self.places.lock();
        if cuts != self.cuts() {
            return;
        }
        if places.len() == PLACES {
            places.pop_front();
        }
        places.push_back(place);
    }

    /// The log was cut: positions may lie elsewhere now.
    pub(crate) fn clear(&self) {
        let mut places = self.places.lock();
        self.cuts.fetch_add(1, Ordering::AcqRel);
        places.clear();
    }
}

/// Reads frames.
pub(crate) async fn read(core: &Arc<Core>, request: ReadRequest) -> Result<Chunk, ReadError> {
    let cuts = core.places.cuts();
    // The ends come first: whatever is in the files by then may be read up to them.
    let ends = core.ends();
    let limit = ends.end(request.limit);
    let out_of_range = ReadError::OutOfRange { log_start: ends.log_start, end: limit };
    if core.is_closed() {
        return Err(closed());
    }
    let segments = core.segments.load_full();
    if request.from < first_readable(&segments, request.limit, ends.log_start)
        || request.from > ends.log_end.max(limit)
    {
        return Err(out_of_range);
    }
    let nothing = |next_offset| Chunk {
        bytes: Bytes::new(),
        next_offset,
        ends,
        from_page_cache: true,
        seed: core.seed,
    };
    if request.from >= limit {
        return Ok(nothing(request.from));
    }
    // The start may have moved since the ends were looked at; it moves before its segments go.
    let start = core.ends().log_start;
    if request.from < first_readable(&segments, request.limit, start) {
        return Err(ReadError::OutOfRange { log_start: start, end: limit.max(start) });
    }
    for segment in Core::segments_from(&segments, request.from) {
        if segment.base >= limit {
            break;
        }
        let from = request.from.max(segment.base);
        let read = read_segment(core, segment, from, request.bytes_max, limit).await;
        match read {
            _ if core.places.cuts() != cuts => {
                // The log was cut meanwhile: what was read may be half of what was there and half of what is.
                return Box::pin(self::read(core, request)).await;
            }
            Ok(Some((bytes, place, from_page_cache))) => {
                core.places.put(cuts, place);
                let next_offset = place.offset;
                let stats = &core.dir.stats;
                if from_page_cache { &stats.reads_cached } else { &stats.reads_cold }.add(1);
                stats.read_bytes.add(bytes.len() as u64);
                return Ok(Chunk { bytes, next_offset, ends, from_page_cache, seed: core.seed });
            }
            // Nothing at or behind the offset in this one: compaction emptied its end.
            Ok(None) => {}
            Err(error) => {
                let now = core.ends();
                if request.from < now.log_start {
                    return Err(ReadError::OutOfRange {
                        log_start: now.log_start,
                        end: now.end(request.limit),
                    });
                }
                if core.is_closed() {
                    return Err(closed());
                }
                if !core.holds(segment) {
                    // It is being cut: what lies at the offset, if anything, lies elsewhere soon.
                    return Box::pin(self::read(core, request)).await;
                }
                return Err(error);
            }
        }
    }
    Ok(nothing(limit))
}

fn closed() -> ReadError {
    ReadError::Offline("it is closed".to_owned())
}

/// From where on a reader with this limit may read. A replica may as long as the frames are there: the start may lie within
/// one, and whoever is to begin with that frame has to get it.
fn first_readable(segments: &[Arc<Segment>], limit: Limit, log_start: Offset) -> Offset {
    let first = segments.first().filter(|_| limit == Limit::LogEnd);
    first.map_or(log_start, |first| first.base.min(log_start))
}

/// The frames of one segment from the one that holds `from` on, and where they end. `None`: there is none.
async fn read_segment(
    core: &Arc<Core>,
    segment: &Arc<Segment>,
    from: Offset,
    bytes_max: usize,
    limit: Offset,
) -> Result<Option<(Bytes, Place, bool)>, ReadError> {
    load_index(core, segment).await?;
    let delta = u32::try_from(from - segment.base).unwrap_or(u32::MAX);
    let hint = core.places.take(from, segment.base);
    let mut position = match hint {
        Some(position) => position,
        None => u64::from(marks(core, segment, |marks| marks.position_of(delta)).await?),
    };
    let mut cached = true;
    let mut wanted = bytes_max.max(HEADER_BYTES) as u64;
    loop {
        let written = segment.written();
        if position >= written {
            return Ok(None);
        }
        let until = position.saturating_add(wanted);
        let end = marks(core, segment, |marks| marks.boundary(position, until, written)).await?;
        let end = if until.saturating_sub(end) < SPARE_BYTES { end.max(until.min(written)) } else { end };
        let (bytes, from_cache) = pread(core, segment, position, (end - position) as usize).await?;
        cached &= from_cache;
        match cut(&bytes, core.seed, from, bytes_max, limit) {
            Cut::Frames { start, end, next_offset } => {
                let place =
                    Place { offset: next_offset, segment: segment.base, position: position + end as u64 };
                return Ok(Some((bytes.slice(start..end), place, cached)));
            }
            Cut::NeedMore { skip, frame_bytes } => {
                position += skip as u64;
                wanted = wanted.max(frame_bytes as u64);
            }
            Cut::Skip { skip } => position += skip as u64,
            Cut::AtLimit => return Ok(None),
            Cut::Bad(at, why) => {
                position = goes_on(core, segment, position + at as u64, from, why).await?;
            }
        }
    }
}

/// Where a read for `from` goes on behind a header that does not hold: only behind what was deleted.
async fn goes_on(
    core: &Arc<Core>,
    segment: &Arc<Segment>,
    bad: u64,
    from: Offset,
    why: FrameError,
) -> Result<u64, ReadError> {
    let damaged = || ReadError::Damaged(format!("{} at byte {bad}: {why}", shown(&segment.path)));
    past_deleted(core, segment, bad, from).await?.ok_or_else(damaged)
}

enum Cut {
    Frames {
        start: usize,
        end: usize,
        next_offset: Offset,
    },
    /// The wanted frame begins after `skip` bytes and needs this many.
    NeedMore {
        skip: usize,
        frame_bytes: usize,
    },
    /// All frames end before what is wanted.
    Skip {
        skip: usize,
    },
    AtLimit,
    Bad(usize, FrameError),
}

/// Finds the whole frames in what was read: from the one that holds `from`, below `limit`, up to about `bytes_max`.
fn cut(bytes: &[u8], seed: Seed, from: Offset, bytes_max: usize, limit: Offset) -> Cut {
    let mut at = 0;
    let mut start = None;
    let mut next_offset = from;
    while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
        if rest.len() < HEADER_BYTES {
            if start.is_none() {
                return Cut::NeedMore { skip: at, frame_bytes: HEADER_BYTES };
            }
            break;
        }
        let header = match FrameHeader::decode(rest, seed) {
            Ok(header) => header,
            // What is whole before it is given out; the next read says what is wrong.
            Err(_) if start.is_some() => break,
            Err(why) => return Cut::Bad(at, why),
        };
        let frame_bytes = header.frame_bytes() as usize;
        if header.next_offset() <= from {
            at += frame_bytes;
            continue;
        }
        if header.next_offset() > limit {
            if start.is_none() {
                return Cut::AtLimit;
            }
            break;
        }
        match start {
            None if rest.len() < frame_bytes => return Cut::NeedMore { skip: at, frame_bytes },
            None => start = Some(at),
            Some(start) => {
                if rest.len() < frame_bytes || at + frame_bytes - start > bytes_max {
                    break;
                }
            }
        }
        at += frame_bytes;
        next_offset = header.next_offset();
    }
    match start {
        Some(start) => Cut::Frames { start, end: at.min(bytes.len()), next_offset },
        None => Cut::Skip { skip: at },
    }
}

/// Reads exactly this much, from the page cache if it is there.
async fn pread(
    core: &Arc<Core>,
    segment: &Arc<Segment>,
    position: u64,
    len: usize,
) -> Result<(Bytes, bool), ReadError> {
    let mut buf = BytesMut::with_capacity(len);
    if let Some(file) = segment.opened() {
        if core.dir.has(Mutant::SegmentMapped) {
            // For as long as the process lives.
            let _mapped = Box::leak(Box::new(file.map()));
        }
        match file.read_cached(&mut buf, len, position) {
            Ok(Some(n)) if n == len => return Ok((buf.freeze(), true)),
            // Not all of it is cached, or the system has something to say: the pool finds out.
            Ok(_) | Err(_) => buf.clear(),
        }
    }
    let handles = Arc::clone(&core.dir.handles);
    let held = Arc::clone(segment);
    let read = blocking(&core.dir.os, move || {
        let n = held.open(&handles)?.read_at(&mut buf, len, position)?;
        io::Result::Ok((buf.freeze(), n))
    });
    match read.await {
        Ok((bytes, n)) if n == len => Ok((bytes, false)),
        Ok((_, n)) => {
            Err(ReadError::Damaged(format!("{}: it ends {} bytes early", shown(&segment.path), len - n)))
        }
        Err(error) => Err(ReadError::Unreadable(format!("{}: {error}", shown(&segment.path)))),
    }
}

/// Looks something up in a segment's marks. They may be let go of at any time, and are loaded again then.
async fn marks<T>(
    core: &Arc<Core>,
    segment: &Arc<Segment>,
    look: impl Fn(&dyn MarksDyn) -> T,
) -> Result<T, ReadError> {
    loop {
        match segment.with_marks(&look) {
            Some(found) => return Ok(found),
            // Cancelled here nothing has happened but that they are loaded.
            None => load_index(core, segment).await?,
        }
    }
}

/// Makes sure that a sealed segment's marks are at hand.
async fn load_index(core: &Arc<Core>, segment: &Arc<Segment>) -> Result<(), ReadError> {
    if segment.with_marks(|_| ()).is_some() {
        return Ok(());
    }
    let held = Arc::clone(segment);
    let away = Arc::clone(core);
    match blocking(&core.dir.os, move || recovery::load_sidecar(&away, &held)).await {
        Ok(()) => Ok(()),
        Err(error) if error.passes() => Err(ReadError::Unreadable(error.to_string())),
        Err(error) => Err(ReadError::Damaged(error.to_string())),
    }
}

/// The first of these segments that begins with an append time which the clock has reached: its first offset, and that time.
/// The largest ones if there is none.
async fn first_reached(
    core: &Arc<Core>,
    segments: &[Arc<Segment>],
    now_ms: i64,
) -> Result<(Offset, i64), ReadError> {
    for segment in segments {
        load_index(core, segment).await?;
        let first_ms = segment.times().and_then(|(_, _, first_ms)| first_ms);
        if let Some(first_ms) = first_ms.filter(|first_ms| !clock::is_ahead(*first_ms, now_ms)) {
            return Ok((segment.base, first_ms));
        }
    }
    Ok((Offset::MAX, i64::MAX))
}

/// The first frame below the limit whose largest timestamp is not before `timestamp_ms`.
///
/// Where the append time stands for timestamps and is ahead of the clock it is of a clock that was wrong, and whoever looks
/// for any time since would find it. But it was written before what is behind it, and counts as no later than that.
pub(crate) async fn offset_for_timestamp(
    core: &Arc<Core>,
    timestamp_ms: i64,
    limit: Limit,
) -> Result<Option<TimestampOffset>, ReadError> {
    loop {
        let cuts = core.places.cuts();
        let found = find_timestamp(core, timestamp_ms, limit).await;
        if core.is_closed() {
            return Err(closed());
        }
        if core.places.cuts() == cuts {
            return found;
        }
    }
}

async fn find_timestamp(
    core: &Arc<Core>,
    timestamp_ms: i64,
    limit: Limit,
) -> Result<Option<TimestampOffset>, ReadError> {
    let ends = core.ends();
    let segments = core.segments.load_full();
    let now_ms = core.dir.clock.now_ms();
    let mut reached = (Offset::MIN, i64::MAX);
    let mut left = Core::segments_from(&segments, ends.log_start);
    while let Some((segment, behind)) = left.split_first() {
        left = behind;
        if segment.base >= ends.end(limit) {
            break;
        }
        load_index(core, segment).await?;
        if let Some((mut latest_ms, append_ms, _)) = segment.times() {
            if latest_ms == append_ms && clock::is_ahead(append_ms, now_ms) {
                if reached.0 <= segment.base {
                    reached = first_reached(core, behind, now_ms).await?;
                }
                latest_ms = latest_ms.min(reached.1);
            }
            if latest_ms < timestamp_ms {
                continue;
            }
        }
        let mut position =
            u64::from(marks(core, segment, |marks| marks.position_of_timestamp(timestamp_ms)).await?);
        while position < segment.written() {
            let len = (segment.written() - position).min(SEARCH_BYTES as u64) as usize;
            let (bytes, _) = pread(core, segment, position, len).await?;
            let (mut at, mut passed) = (0, false);
            while let Some(rest) = bytes.get(at..).filter(|rest| rest.len() >= HEADER_BYTES) {
                let header = match FrameHeader::decode(rest, core.seed) {
                    Ok(header) => header,
                    Err(why) => {
                        let bad = position + at as u64;
                        position = goes_on(core, segment, bad, ends.log_start, why).await?;
                        at = 0;
                        passed = true;
                        break;
                    }
                };
                if header.next_offset() > ends.end(limit) {
                    return Ok(None);
                }
                // Fences and what lies before the log's start are not looked for.
                let counts = header.record_count > 0 && header.next_offset() > ends.log_start;
                if counts && header.timestamp_ms() >= timestamp_ms {
                    return Ok(Some(TimestampOffset {
                        offset: header.base_offset.max(ends.log_start),
                        timestamp_ms: header.timestamp_ms(),
                    }));
                }
                at += header.frame_bytes() as usize;
            }
            if !passed {
                position += at.max(1) as u64;
            }
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_from_before_a_cut_is_not_remembered() {
        let places = Places::default();
        let place = Place { offset: 7, segment: 0, position: 700 };
        let before = places.cuts();
        places.put(before, place);
        assert_eq!(places.take(7, 0), Some(700));
        // Whoever reads takes their time; the log is cut meanwhile.
        places.clear();
        places.put(before, place);
        assert_eq!(places.take(7, 0), None);
        places.put(places.cuts(), place);
        assert_eq!(places.take(7, 0), Some(700));
    }
}
