//! Checking every byte of a partition's files, and saying which offsets are lost and where a reader can go on.

use std::io;

use weir_io::Disk;
use weir_types::Offset;

use super::{BadEnd, CheckpointEntry, FrameAt, PartitionFiles, Segment};
use crate::dir;
use crate::error::Error;
use crate::frame::Seed;
use crate::sidecar::{SIDECAR_BYTES_MAX, Sidecar};

/// What a check of one partition found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verified {
    /// Sound frames.
    pub frames: u64,
    /// Records in them.
    pub records: u64,
    /// Bytes in them, headers included.
    pub bytes: u64,
    /// Sidecars that hold.
    pub sidecars: u64,
    /// What is wrong, each with file and position. The torn end of the last segment is named, too: whether it was
    /// torn or lost the next start decides.
    pub problems: Vec<String>,
    /// Those of them that are batches, in order.
    pub bad_batches: Vec<BadBatch>,
}

/// A batch that does not hold; of several in a row with headers that do not hold either, all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadBatch {
    /// The first offset of its segment.
    pub segment: Offset,
    /// Where in that it begins.
    pub position: u64,
    /// Its first offset.
    pub first: Offset,
    /// Its last one. `None`: its header does not hold, and nothing behind it does.
    pub last: Option<Offset>,
    /// The first offset behind it of a batch that holds, if there is one.
    pub whole_from: Option<Offset>,
}

/// Checks every byte of a partition.
///
/// # Errors
/// [`Error::Io`]. What is wrong with the partition is in the answer.
pub fn verify(disk: &dyn Disk, partition: &PartitionFiles) -> Result<Verified, Error> {
    let mut verified = Verified::default();
    verified.problems.extend(unbelieved(partition));
    // Why each bad batch is one, and where its words go among the problems: they end with what is found behind it.
    let mut said = Vec::new();
    let mut expected = None;
    for (at, base) in partition.segments.iter().enumerate() {
        // What a cut has left behind the end of a segment is no part of the log.
        let next = partition.segments.get(at + 1).copied();
        let mut segment = Segment::open(disk, partition, *base)?;
        let path = segment.path().display().to_string();
        if let Some(expected) = expected.filter(|expected| expected != base) {
            verified.problems.push(format!("{path}: it begins at offset {base}, {expected} is next"));
        }
        loop {
            while next != Some(segment.next_offset())
                && let Some(frame) = segment.next_frame()?
            {
                let FrameAt { position, header, problem, .. } = frame;
                let Some(problem) = problem else {
                    verified.holds_from(header.base_offset);
                    verified.frames += 1;
                    verified.records += u64::try_from(header.record_count).unwrap_or(0);
                    verified.bytes += header.frame_bytes();
                    continue;
                };
                let (first, last) = (header.base_offset, Some(header.last_offset()));
                let bad = BadBatch { segment: *base, position, first, last, whole_from: None };
                said.push(verified.lost(bad, &path, problem.to_string()));
            }
            let Some(BadEnd { position, bytes, why }) = segment.bad_end().cloned() else { break };
            let first = segment.next_offset();
            let behind = segment.goes_on(next)?;
            let last = behind.or(next).map(|behind| behind - 1);
            let left = if behind.is_none() { format!("; {bytes} bytes are left") } else { String::new() };
            let bad = BadBatch { segment: *base, position, first, last, whole_from: None };
            said.push(verified.lost(bad, &path, format!("{why}{left}")));
            if behind.is_none() {
                break;
            }
        }
        // Behind a bad end it is the next segment that goes on, and the file what is left of this one.
        let (end, bytes) = match segment.bad_end() {
            Some(_) => (next.unwrap_or_else(|| segment.next_offset()), segment.bytes()),
            None => (segment.next_offset(), segment.position),
        };
        expected = Some(end);
        match sidecar(disk, partition, *base, &segment, (end, bytes)) {
            Some(Ok(())) => verified.sidecars += 1,
            Some(Err(problem)) => verified.problems.push(problem),
            None => {}
        }
    }
    for ((at, place, why), bad) in said.into_iter().zip(&verified.bad_batches) {
        if let Some(problem) = verified.problems.get_mut(at) {
            *problem = format!("{place}, {}: {why}{}", bad.offsets(), bad.goes_on());
        }
    }
    if let (Some(known), Some(end)) = (&partition.checkpoint, expected)
        && known.recovery_point > end
    {
        let (durable, path) = (known.recovery_point, partition.path.display());
        verified.problems.push(format!("{path}: it ends at offset {end}, {durable} were durable"));
    }
    Ok(verified)
}

/// Why a start does not believe a partition's files whatever is in them, if so.
fn unbelieved(partition: &PartitionFiles) -> Option<String> {
    let is_so = |of: fn(&CheckpointEntry) -> bool| partition.checkpoint.as_ref().is_some_and(of);
    let path = partition.path.display();
    // With its files somebody has brought it back.
    let stands_in = is_so(|known| known.missing) || dir::is_stand_in(&partition.path);
    if stands_in && partition.segments.is_empty() {
        let known = partition.checkpoint.as_ref().map(|known| known.log_end.max(known.high_watermark));
        let went = known.map_or_else(String::new, |end| format!(", up to offset {end} at least"));
        return Some(format!(
            "{path}: a start has not found the folder of this log, and this empty one stands for it: all that was in it is \
             missing{went}"
        ));
    }
    is_so(|known| known.forgotten).then(|| {
        format!(
            "{path}: how far it was durable, and where it began, is not known, for the checkpoint of this directory was not \
             there at a start: no start uses this log before a person takes what is whole of it (weir partition elect)"
        )
    })
}

impl Verified {
    /// Takes a bad batch down, and keeps a place for its words among the problems: which that is, where the batch is, and why it is
    /// one.
    fn lost(&mut self, bad: BadBatch, path: &str, why: String) -> (usize, String, String) {
        self.bad_batches.push(bad);
        self.problems.push(String::new());
        (self.problems.len() - 1, format!("{path}: byte {}", bad.position), why)
    }

    /// A batch with this first offset holds: there readers go on who could not read what is before it.
    fn holds_from(&mut self, offset: Offset) {
        let waiting = self.bad_batches.iter_mut().rev().take_while(|bad| bad.whole_from.is_none());
        waiting.for_each(|bad| bad.whole_from = Some(offset));
    }
}

impl BadBatch {
    fn offsets(&self) -> String {
        match self.last {
            Some(last) if last <= self.first => format!("offset {}", self.first),
            Some(last) => format!("offsets {} to {last}", self.first),
            None => format!("offsets from {} on", self.first),
        }
    }

    fn goes_on(&self) -> String {
        match self.whole_from {
            Some(offset) => format!("; whole again from offset {offset}"),
            None => "; nothing behind it is whole".to_owned(),
        }
    }
}

/// Whether a segment's sidecar holds, by the end and the length of the segment; `None`: it has none.
fn sidecar(
    disk: &dyn Disk,
    partition: &PartitionFiles,
    base: Offset,
    segment: &Segment,
    (end, bytes): (Offset, u64),
) -> Option<Result<(), String>> {
    let path = segment.path().with_extension("seal");
    let held = match disk.read(&path, SIDECAR_BYTES_MAX) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
        Err(error) => return Some(Err(format!("{}: {error}", path.display()))),
    };
    let problem = match Sidecar::held(held, Seed::of(partition.id, partition.incarnation)) {
        Err(problem) => problem,
        Ok(sidecar) => {
            let summary = &sidecar.summary;
            let expected = (base, end, bytes);
            if (summary.base, summary.end, summary.log_bytes) == expected {
                return Some(Ok(()));
            }
            "it does not belong to its segment"
        }
    };
    Some(Err(format!("{}: {problem} (it is made again when it is needed)", path.display())))
}
