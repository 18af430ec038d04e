//! Where in a segment an offset or a timestamp lies: a mark every 16 KiB, then frame headers. Hot path.
//!
//! A mark is a frame's offset and position, and the largest timestamp before it: that one only ever rises, so that
//! both can be searched for.

use weir_types::Offset;

use crate::frame::FrameHeader;

/// A frame gets a mark if it begins at least so far behind the last one.
const MARK_EVERY_BYTES: u32 = 16 << 10;

/// A frame that can be found without reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mark {
    /// Its offset less the segment's first one.
    pub(crate) delta: u32,
    /// Where it begins.
    pub(crate) position: u32,
    /// The largest timestamp of all frames before it in the segment; `i64::MIN` before the first.
    pub(crate) timestamp_before_ms: i64,
}

/// Marks in order.
pub(crate) trait Marks {
    fn count(&self) -> usize;
    fn mark(&self, at: usize) -> Option<Mark>;

    /// How many marks at the front satisfy `holds`, which once false stays false.
    fn partition(&self, holds: impl Fn(&Mark) -> bool) -> usize {
        let (mut low, mut high) = (0, self.count());
        while low < high {
            let middle = low + (high - low) / 2;
            if self.mark(middle).is_some_and(|mark| holds(&mark)) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low
    }

    /// A position at or before the frame that holds this offset (less the segment's first), at most a mark away.
    fn position_of(&self, delta: u32) -> u32 {
        let after = self.partition(|mark| mark.delta <= delta);
        after.checked_sub(1).and_then(|at| self.mark(at)).map_or(0, |mark| mark.position)
    }

    /// A position at or before the first frame with this timestamp or a later one.
    fn position_of_timestamp(&self, timestamp_ms: i64) -> u32 {
        let after = self.partition(|mark| mark.timestamp_before_ms < timestamp_ms);
        after.checked_sub(1).and_then(|at| self.mark(at)).map_or(0, |mark| mark.position)
    }

    /// Where to stop a read that begins at `from` and wants to go to `until`: a frame's boundary, the last one known
    /// that is not beyond, else the next one, so that the first frame comes whole. `written` is the end of the file.
    fn boundary(&self, from: u64, until: u64, written: u64) -> u64 {
        if until >= written {
            return written;
        }
        let position = |at: usize| self.mark(at).map(|mark| u64::from(mark.position));
        let beyond = self.partition(|mark| u64::from(mark.position) <= until);
        match beyond.checked_sub(1).and_then(position) {
            Some(last) if last > from => last,
            // Not beyond the end: of a log that is being cut the marks go last.
            _ => position(beyond).unwrap_or(written).min(written),
        }
    }
}

/// The marks of a segment that is written to, and what else is known of its frames.
#[derive(Clone, Debug)]
pub(crate) struct LiveIndex {
    pub(crate) marks: Vec<Mark>,
    pub(crate) max_timestamp_ms: i64,
    pub(crate) max_append_time_ms: i64,
    /// The append time of the first frame.
    pub(crate) first_append_time_ms: Option<i64>,
    base: Offset,
}

impl LiveIndex {
    pub(crate) fn new(base: Offset) -> Self {
        Self {
            marks: Vec::new(),
            max_timestamp_ms: i64::MIN,
            max_append_time_ms: i64::MIN,
            first_append_time_ms: None,
            base,
        }
    }

    /// From what was written down.
    pub(crate) fn restore(base: Offset, marks: Vec<Mark>, times: (i64, i64, Option<i64>)) -> Self {
        let (max_timestamp_ms, max_append_time_ms, first_append_time_ms) = times;
        Self { marks, max_timestamp_ms, max_append_time_ms, first_append_time_ms, base }
    }

    pub(crate) fn base(&self) -> Offset {
        self.base
    }

    /// A frame was appended at this position.
    pub(crate) fn note(&mut self, header: &FrameHeader, position: u32) {
        let due =
            self.marks.last().is_none_or(|last| position >= last.position.saturating_add(MARK_EVERY_BYTES));
        if due {
            self.marks.push(Mark {
                delta: u32::try_from(header.base_offset - self.base).unwrap_or(u32::MAX),
                position,
                timestamp_before_ms: self.max_timestamp_ms,
            });
        }
        self.max_timestamp_ms = self.max_timestamp_ms.max(header.timestamp_ms());
        self.max_append_time_ms = self.max_append_time_ms.max(header.append_time_ms);
        self.first_append_time_ms.get_or_insert(header.append_time_ms);
    }
}

impl Marks for LiveIndex {
    fn count(&self) -> usize {
        self.marks.len()
    }
    fn mark(&self, at: usize) -> Option<Mark> {
        self.marks.get(at).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index() -> LiveIndex {
        let marks = [(0, 0, i64::MIN), (10, 20_000, 5), (30, 40_000, 5), (31, 1_000_000, 9)];
        let marks = marks
            .map(|(delta, position, timestamp_before_ms)| Mark { delta, position, timestamp_before_ms })
            .to_vec();
        LiveIndex::restore(100, marks, (9, 9, Some(1)))
    }

    #[test]
    fn an_offset_is_searched_from_the_mark_before_it() {
        let at = |delta| index().position_of(delta);
        assert_eq!((at(0), at(9), at(10), at(30), at(500)), (0, 0, 20_000, 40_000, 1_000_000));
    }

    #[test]
    fn a_timestamp_is_searched_from_the_last_mark_that_is_below_it() {
        let at = |ms| index().position_of_timestamp(ms);
        assert_eq!((at(1), at(5), at(6), at(9), at(10)), (0, 0, 40_000, 40_000, 1_000_000));
    }

    #[test]
    fn a_read_ends_at_a_boundary() {
        let index = index();
        let boundary = |from, until| index.boundary(from, until, 1_500_000);
        assert_eq!(boundary(0, 50_000), 40_000);
        // The first frame comes whole even if it is larger than what was asked for.
        assert_eq!(boundary(40_000, 50_000), 1_000_000);
        assert_eq!(boundary(20_000, 20_500), 40_000);
        assert_eq!(boundary(1_000_000, 1_400_000), 1_500_000);
        assert_eq!(boundary(20_000, 1_400_000), 1_000_000);
        assert_eq!(boundary(0, 2_000_000), 1_500_000);
    }
}
