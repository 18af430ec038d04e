//! How far a damaged log is whole, and how far it is known to have gone: what a person has to know who may give up the
//! rest, because there is no other replica (correctness rule 36). Nothing is changed here.
//!
//! A walk as at a start, but for two things. It checks every byte of what it walks through, so that what is kept is found
//! whole again when it is opened. And it begins where a sidecar belies its segment, be that long before the last one.

use std::sync::Arc;

use weir_types::{LeaderEpoch, Offset};

use super::walk::Recovery;
use super::{Place, default_entry};
use crate::checkpoint::{self, RecoveryPoint};
use crate::config::LogConfig;
use crate::dir::DirCore;
use crate::error::Error;
use crate::scan::{self, State, Walk};

/// A damaged log, as far as it is whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Whole {
    /// Where the first bad frame is: all that comes before is whole, as far as the start has looked.
    pub end: Offset,
    /// The leader epoch of the last frame before.
    pub last_epoch: Option<LeaderEpoch>,
    /// How far the log is known to have gone: the records from `end` up to here would be given up.
    pub known_end: Offset,
    /// What was known of it is lost: it may have gone further.
    pub forgotten: bool,
    /// The segment that the cut lies in. It and those behind it lose something.
    pub(crate) cut_in: Offset,
    /// What the checkpoint is to say so that every start makes the cut.
    pub(crate) cut: checkpoint::Entry,
}

/// Looks through a damaged log.
///
/// # Errors
/// [`Error::Io`] if it cannot be read, [`Error::Damaged`] if nothing of it could lead: nobody knows who wrote before it begins.
pub(crate) fn whole(
    dir: &Arc<DirCore>,
    place: &Place,
    entry: Option<checkpoint::Entry>,
) -> Result<Whole, Error> {
    let forgotten = entry.is_some_and(|entry| entry.forgotten);
    let known = entry.is_some() && !forgotten;
    let mut entry = entry.unwrap_or_else(|| default_entry(place.incarnation, 0, &LogConfig::default()));
    let config = entry.log_config();
    let recovery = Recovery::new(dir, place, &config);
    let mut bases = recovery.bases()?;
    if !known {
        entry.log_start = bases.first().copied().unwrap_or(0);
    }
    let until = entry.cut_to;
    bases.retain(|base| until.is_none_or(|to| *base <= to));
    let mut known_end = entry.said_end();
    let first = bases.first().copied().unwrap_or(Offset::MAX);
    let Doubtful { from, mut state, belied } = if first <= entry.log_start {
        recovery.doubtful(&bases)?
    } else {
        // Its beginning is gone, so that nothing of it follows on what is known.
        Doubtful { from: bases.len(), state: recovery.state_before(entry.log_start)?, belied: None }
    };
    let open = bases.get(from..).unwrap_or_default();
    let begin = open.first().copied().unwrap_or(entry.log_start);
    let (mut end, mut cut_in, mut position) = (begin, open.first().copied().unwrap_or(0), 0);
    for (at, base) in open.iter().enumerate() {
        let next = open.get(at + 1).copied();
        let (file, len) = recovery.open(*base)?;
        if !recovery.survives_in_memory(&entry) {
            recovery.drop_cache(&*file, *base, len, 0)?;
        }
        let walk = Walk {
            file: &*file,
            seed: recovery.seed,
            base: *base,
            len,
            verify_from: 0,
            until: next.or(until),
            from: None,
            passed_bytes: None,
        };
        let path = recovery.path(*base, "log");
        let found = scan::walk(walk, &mut state).map_err(Error::io(path, "read"))?;
        (end, cut_in, position) = (found.end, *base, found.position);
        let is_belied = belied == Some(from + at);
        let goes_on = next.is_none_or(|next| next == end) && end >= recovery.witnessed(*base, &entry)?;
        if found.bad.is_some() || !goes_on || is_belied {
            break;
        }
    }
    // What lies behind: in the file that the cut is in, and in all that follow.
    for (at, base) in bases.iter().enumerate().filter(|(_, base)| **base >= cut_in) {
        let (file, len) = recovery.open(*base)?;
        let from = if *base == cut_in && !open.is_empty() { position } else { 0 };
        let next = bases.get(at + 1).copied();
        let behind = scan::behind(&*file, recovery.seed, len, from, end, next.or(until));
        let behind = behind.map_err(Error::io(recovery.path(*base, "log"), "read"))?;
        let witnessed = recovery.witnessed(*base, &entry)?;
        known_end = known_end.max(behind.end).max(behind.proven).max(witnessed);
    }
    let cut = checkpoint::Entry {
        cut_to: Some(end),
        // Whoever gives up the rest takes it as it is.
        forgotten: false,
        log_end: end,
        high_watermark: entry.high_watermark.min(end),
        // From there on every byte is looked at again.
        recovery_point: match entry.recovery_point {
            point if point.offset <= begin => point,
            _ => RecoveryPoint { offset: begin, segment: begin, position: 0 },
        },
        ..entry
    };
    let end = end.max(entry.log_start);
    Ok(Whole { end, last_epoch: state.epochs.last(), known_end: known_end.max(end), forgotten, cut_in, cut })
}

/// Where a walk has to begin.
struct Doubtful {
    /// Which segment.
    from: usize,
    /// What is known where it begins.
    state: State,
    /// The one whose sidecar says something else of it, if that is how it is damaged.
    belied: Option<usize>,
}

impl Recovery<'_> {
    fn doubtful(&self, bases: &[Offset]) -> Result<Doubtful, Error> {
        let (from, state) = self.start(bases)?;
        for (at, pair) in bases.get(..=from).unwrap_or(bases).windows(2).enumerate() {
            let [base, next] = *pair else { continue };
            let Some(said) = self.seal(base)? else { continue };
            if said.end != next || self.open(base)?.1 < said.log_bytes {
                let (from, state) = self.start(bases.get(..=at).unwrap_or(bases))?;
                return Ok(Doubtful { from, state, belied: Some(at) });
            }
        }
        Ok(Doubtful { from, state, belied: None })
    }
}
