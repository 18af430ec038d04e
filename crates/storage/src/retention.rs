//! Which segments at the front of a log go, by size, by time, or because somebody deletes records, and how its start
//! moves: prepared without the claim, from what the owner has published, so that a log with nothing to delete costs a look
//! and appends never wait.
//!
//! Why nothing is lost that should not be, and nothing comes back that went:
//!
//! - What goes lies below the last stable offset, which never falls: no cut reaches it, whenever the owner hears of it.
//! - The sidecar of the last segment to go is durable first: it says what was known where the log then begins.
//! - The new start is durable before the owner hears of it, and the owner publishes it before a file goes. Who is cut
//!   off in between has records that may go, and at the next start they do.
//! - If the start cannot be made durable nobody has heard of it: nothing has changed, whoever asked is told so, and the
//!   next look begins anew.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use weir_types::Offset;

use crate::clock;
use crate::config::{LogConfig, Mutant};
use crate::core::Core;
use crate::error::Error;
use crate::flusher;
use crate::keeper;
use crate::owner::Owner;
use crate::recovery;
use crate::segment::Segment;

/// What of a partition's settings says when segments end and go.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules {
    segment_ms: i64,
    retention_ms: Option<i64>,
    retention_bytes: Option<u64>,
}

impl From<&LogConfig> for Rules {
    fn from(config: &LogConfig) -> Self {
        Self {
            segment_ms: config.segment_ms,
            retention_ms: config.retention_ms,
            retention_bytes: config.retention_bytes,
        }
    }
}

impl Rules {
    fn is_expired(&self, timestamp_ms: i64, append_ms: i64, now_ms: i64) -> bool {
        // The smaller of the two: a producer in the year 2099 keeps nothing for ever (rule 18).
        self.retention_ms.is_some_and(|ms| timestamp_ms.min(append_ms).saturating_add(ms) <= now_ms)
    }

    /// Whether a segment that is written to has lived long enough.
    fn is_over(&self, segment: &Segment, now_ms: i64) -> bool {
        segment.times().is_some_and(|(timestamp_ms, append_ms, first_ms)| {
            first_ms.is_some_and(|first_ms| first_ms.saturating_add(self.segment_ms) <= now_ms)
                || self.is_expired(timestamp_ms, append_ms, now_ms)
        })
    }
}

/// Where a log is to begin, and what may be deleted then.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Front {
    pub(crate) start: Offset,
    /// Segments that end here or before may go. Less than the start if a sidecar found no room.
    until: Offset,
}

/// Whether the owner should begin a new segment, so that what the active one holds can go.
pub(crate) fn should_roll(core: &Core, now_ms: i64) -> bool {
    let rules = *core.rules.lock();
    let segments = core.segments.load();
    segments.last().is_some_and(|active| active.written() > 0 && rules.is_over(active, now_ms))
}

/// What is to go now; `None`: nothing. Only a leader decides: a follower's log begins where its leader says (rule 15). May wait for the disk, but only if there is something to look at.
pub(crate) fn plan(core: &Arc<Core>, now_ms: Option<i64>) -> Result<Option<Front>, Error> {
    let rules = *core.rules.lock();
    let leads = core.leads.load(Ordering::Acquire) || core.dir.has(Mutant::FollowerRetains);
    if core.is_closed() || !leads || (rules.retention_ms.is_none() && rules.retention_bytes.is_none()) {
        return Ok(None);
    }
    let segments = core.segments.load();
    if segments.len() < 2 {
        return Ok(None);
    }
    let begun = core.durable.lock().log_start;
    let start = retained_start(core, &segments, (rules, begun), now_ms);
    // What could not go when the start was moved is tried again.
    if start == begun && segments.first().and_then(|first| first.end()).is_none_or(|end| end > begun) {
        return Ok(None);
    }
    front(core, start).map(Some)
}

/// Where the log begins once retention has done its work: only whole sealed segments below the last stable offset.
fn retained_start(
    core: &Arc<Core>,
    segments: &[Arc<Segment>],
    (rules, begun): (Rules, Offset),
    now_ms: Option<i64>,
) -> Offset {
    let last_stable =
        if core.dir.has(Mutant::RetainUnstable) { Offset::MAX } else { core.ends().last_stable };
    let mut left: u64 =
        rules.retention_bytes.map_or(0, |_| segments.iter().map(|segment| segment.written()).sum());
    let mut start = begun;
    for (at, segment) in segments.iter().enumerate() {
        let Some(end) = segment.end().filter(|end| *end <= last_stable) else { break };
        left = left.saturating_sub(segment.written());
        if end <= start {
            // It could not go when the start was moved.
            continue;
        }
        let by_size = rules.retention_bytes.is_some_and(|bytes| left >= bytes);
        let behind = segments.get(at + 1..).unwrap_or_default();
        let by_time = !by_size
            && rules.retention_ms.is_some()
            && now_ms.is_some_and(|now_ms| by_time(core, rules, (segment, behind), now_ms));
        if !by_size && !by_time {
            break;
        }
        start = end;
    }
    start
}

/// Whether a segment's time is over.
///
/// One that is ahead of the clock is of a clock that was wrong. But it was written before what is behind it, so that it is at
/// least as old as the first segment there that begins with a time which the clock has reached. As long as there is none
/// nothing says how old it is.
fn by_time(
    core: &Arc<Core>,
    rules: Rules,
    (segment, behind): (&Arc<Segment>, &[Arc<Segment>]),
    now_ms: i64,
) -> bool {
    let Some((timestamp_ms, append_ms, _)) = recovery::times_of(core, segment) else { return false };
    let first_reached = || {
        let mut firsts = behind.iter().filter_map(|later| recovery::times_of(core, later)?.2);
        firsts.find(|first_ms| !clock::is_ahead(*first_ms, now_ms))
    };
    let append_ms =
        if clock::is_ahead(append_ms, now_ms) { first_reached().unwrap_or(append_ms) } else { append_ms };
    rules.is_expired(timestamp_ms, append_ms, now_ms)
}

/// What may be deleted once the log begins at an offset: the last of it has its sidecar.
pub(crate) fn front(core: &Arc<Core>, start: Offset) -> Result<Front, Error> {
    let segments = core.segments.load();
    let gone = segments.partition_point(|segment| segment.end().is_some_and(|end| end <= start));
    if core.dir.has(Mutant::GoneUnsealed) {
        return Ok(Front { start, until: start });
    }
    for segment in segments.iter().take(gone).rev() {
        match seal_now(core, segment) {
            Ok(()) => return Ok(Front { start, until: segment.end().unwrap_or(Offset::MIN) }),
            // Without room for its sidecar a segment stays; the ones before it make some.
            Err(error) if error.is_no_space() => {}
            Err(error) => return Err(error),
        }
    }
    Ok(Front { start, until: Offset::MIN })
}

/// Makes sure that a segment which is about to go has its sidecar: it says what was known of producers and epochs
/// where the log begins from then on.
fn seal_now(core: &Arc<Core>, segment: &Arc<Segment>) -> Result<(), Error> {
    // A sidecar speaks of frames that are durable.
    if segment.is_dirty() {
        flusher::sync_segments(&core.dir, core)?;
    }
    keeper::seal(core, segment)?;
    recovery::load_sidecar(core, segment)
}

/// The owner hears of a start that is durable. Nothing here waits for the disk: the files go by and by.
pub(crate) fn begin_at(core: &Arc<Core>, owner: &mut Owner, front: Front) -> Result<(), Error> {
    if owner.closed {
        return Err(Error::Closed);
    }
    if front.start > owner.ends.log_start {
        owner.ends.log_start = front.start;
        core.epochs.write().cut_front(front.start);
        owner.publish();
    }
    let segments = core.segments.load_full();
    let gone = segments.partition_point(|segment| segment.end().is_some_and(|end| end <= front.until));
    let Some((gone, kept)) = segments.split_at_checked(gone).filter(|(gone, _)| !gone.is_empty()) else {
        return Ok(());
    };
    core.segments.store(Arc::new(kept.to_vec()));
    for segment in gone {
        core.dir.synced(segment.give_up());
        core.dir.delete_later(segment.path.clone());
    }
    core.dir.stats.segments_deleted.add(gone.len() as u64);
    Ok(())
}

/// A planted bug: what may go once the start is durable goes at once.
pub(crate) fn unlink(core: &Core, front: Front) {
    for segment in core.segments.load().iter() {
        if segment.end().is_some_and(|end| end <= front.until) {
            let _ = core.dir.handles.disk.unlink(&segment.path);
        }
    }
}

/// Begins a new segment if the active one holds only what is to go.
pub(crate) fn roll_old(core: &Arc<Core>, owner: &mut Owner, now_ms: i64) {
    if !owner.closed && core.rules.lock().is_over(&owner.active, now_ms) {
        // Tried again at the next turn; an append that needs the segment says so by itself.
        owner.try_roll(core);
    }
}
