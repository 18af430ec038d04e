//! What the owner, the flusher, the keeper and the readers of one partition share.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::ArcSwap;
use parking_lot::{Mutex, RwLock};
use tokio::sync::watch;
use weir_types::{Incarnation, Offset, PartitionId};

use crate::checkpoint;
use crate::claim::Claim;
use crate::dir::DirCore;
use crate::ends::Ends;
use crate::epochs::Epochs;
use crate::frame::Seed;
use crate::read::Places;
use crate::recovery;
use crate::retention::Rules;
use crate::segment::Segment;
use crate::spots::Spots;

pub(crate) struct Core {
    pub(crate) id: PartitionId,
    pub(crate) seed: Seed,
    pub(crate) incarnation: Incarnation,
    /// Its folder.
    pub(crate) path: PathBuf,
    pub(crate) dir: Arc<DirCore>,
    /// Published by the owner alone, who drops the other end when the partition is closed.
    pub(crate) ends: watch::Receiver<Ends>,
    /// In order of their offsets, at least one. Replaced whole, by the owner alone.
    pub(crate) segments: ArcSwap<Vec<Arc<Segment>>>,
    pub(crate) epochs: RwLock<Epochs>,
    /// Up to where the log is written: what a sync that begins now makes durable.
    pub(crate) tail: Mutex<Tail>,
    /// What the next checkpoint says of it.
    pub(crate) durable: Mutex<checkpoint::Entry>,
    /// When its segments end and go.
    pub(crate) rules: Mutex<Rules>,
    pub(crate) claim: Claim,
    /// It waits for the flusher.
    pub(crate) flush_queued: AtomicBool,
    /// It is in the list of those that nobody waits for but that have unsynced writes.
    pub(crate) lazy_listed: AtomicBool,
    /// It is in the list of those that have grown much since it was written down what is known of them.
    pub(crate) note_listed: AtomicBool,
    /// It is in the list of those that wait for room.
    pub(crate) stalled_listed: AtomicBool,
    pub(crate) closed: AtomicBool,
    /// This replica leads: only then do its settings say what is deleted.
    pub(crate) leads: AtomicBool,
    pub(crate) places: Places,
    pub(crate) spots: Spots,
    /// Held by whoever takes away, replaces or seals segment files. Never on an executor.
    pub(crate) files: Mutex<()>,
}

/// The end of what is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tail {
    /// How often the log was cut: what was seen before a cut says nothing after it.
    pub(crate) cuts: u64,
    pub(crate) point: checkpoint::RecoveryPoint,
}

impl Core {
    /// What people call it, for the log: see [`recovery::shown_name`].
    pub(crate) fn name(&self) -> String {
        recovery::shown_name(&self.path)
    }

    pub(crate) fn ends(&self) -> Ends {
        *self.ends.borrow()
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Those with unsynced writes, oldest first: a log is made durable from the front.
    pub(crate) fn dirty_segments(&self) -> Vec<Arc<Segment>> {
        let segments = self.segments.load();
        let dirty = dirty_tail(&segments, proves_nothing);
        // Not the clean one itself: it may just have been written to.
        let front = (segments.len() - dirty.len()).saturating_sub(1);
        debug_assert!(
            segments.iter().take(front).all(|segment| !segment.is_dirty()),
            "{}: a dirty segment in front of a clean one",
            self.id
        );
        dirty.iter().filter(|segment| segment.is_dirty()).cloned().collect()
    }

    /// How much of it is written and not known to be on the disk.
    pub(crate) fn unsynced_bytes(&self) -> u64 {
        let segments = self.segments.load();
        let dirty = dirty_tail(&segments, proves_nothing);
        dirty.iter().map(|segment| segment.written().saturating_sub(segment.synced().bytes)).sum()
    }

    /// The segment that holds an offset, and the ones behind it.
    pub(crate) fn segments_from(segments: &[Arc<Segment>], offset: Offset) -> &[Arc<Segment>] {
        let after = segments.partition_point(|segment| segment.base <= offset);
        segments.get(after.saturating_sub(1)..).unwrap_or_default()
    }

    /// Whether it is still a segment of this log.
    pub(crate) fn holds(&self, segment: &Arc<Segment>) -> bool {
        let segments = self.segments.load();
        Self::segments_from(&segments, segment.base).first().is_some_and(|other| Arc::ptr_eq(other, segment))
    }

    /// What the checkpoint is to say of it now.
    pub(crate) fn checkpoint_entry(&self) -> checkpoint::Entry {
        let mut entry = *self.durable.lock();
        let ends = self.ends();
        entry.high_watermark = ends.high_watermark;
        entry.log_end = ends.log_end;
        entry.leader_epoch = self.epochs.read().last().unwrap_or(-1);
        entry.in_place = true;
        entry
    }
}

/// The segments from the first dirty one on, found from the end: what it costs grows with what is dirty, not with the
/// log.
///
/// Why no dirty one is in front of a clean one: only the last segment is written to, and once the next one is begun it
/// is not written to any more. Whoever syncs one has seen it in the list and has synced all dirty ones before it first,
/// or found them clean, which they then stay. A cut leaves synced what was, and its last segment may be empty by it: that
/// one says nothing of those before. Recovery calls durable what lies before a point, and nothing behind it.
fn dirty_tail(segments: &[Arc<Segment>], mut may_be: impl FnMut(&Segment) -> bool) -> &[Arc<Segment>] {
    let clean = segments.iter().rposition(|segment| !may_be(segment)).map_or(0, |at| at + 1);
    segments.get(clean..).unwrap_or_default()
}

/// Whether the segments before this one may be dirty, too.
fn proves_nothing(segment: &Segment) -> bool {
    segment.is_dirty() || segment.written() == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::segment::Index;

    #[test]
    fn what_is_clean_is_not_looked_at() {
        let segment = |base: Offset| {
            Arc::new(Segment::new(std::path::Path::new("/"), base, 100, base < 4000, Index::Unloaded))
        };
        let segments: Vec<_> = (0..4003).map(segment).collect();
        let mut looks = 0;
        let dirty = dirty_tail(&segments, |segment| {
            looks += 1;
            segment.is_dirty()
        });
        let bases: Vec<_> = dirty.iter().map(|segment| segment.base).collect();
        assert_eq!((bases, looks), (vec![4000, 4001, 4002], 4));
        assert!(dirty_tail(&segments[..4000], Segment::is_dirty).is_empty());
        assert_eq!(dirty_tail(&segments[4000..], Segment::is_dirty).len(), 3);
        // Emptied by a cut: nothing of it is unsynced.
        let emptied = Arc::new(Segment::new(std::path::Path::new("/"), 4003, 0, true, Index::Unloaded));
        let cut: Vec<_> = segments.into_iter().chain([emptied]).collect();
        assert_eq!(dirty_tail(&cut, proves_nothing).len(), 4);
    }
}
