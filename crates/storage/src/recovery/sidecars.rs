//! Sidecars while a partition is open: read when they are needed, made again when they do not hold, dropped when old.

use std::io;
use std::sync::Arc;

use weir_types::Offset;

use super::files::{START, WITNESSES};
use super::{Place, Recovery};
use crate::config::LogConfig;
use crate::core::Core;
use crate::error::Error;
use crate::jobs;
use crate::keeper;
use crate::scan::{Found, State};
use crate::segment::{Index, Segment, Times, file_name, parse_file_name};

/// What is known up to an offset in a segment.
pub(crate) struct StateUntil {
    pub(crate) state: State,
    pub(crate) found: Found,
}

/// Adds up a log's frames up to an offset in one of its segments.
pub(crate) fn state_until(
    core: &Arc<Core>,
    segment: &Arc<Segment>,
    until: Offset,
    config: &LogConfig,
) -> Result<StateUntil, Error> {
    let place = Place { id: core.id, incarnation: core.incarnation, path: core.path.clone() };
    let recovery = Recovery::new(&core.dir, &place, config);
    let segments = core.segments.load_full();
    let bases: Vec<Offset> =
        segments.iter().map(|other| other.base).take_while(|base| *base <= segment.base).collect();
    let (from, mut state) = recovery.start(&bases)?;
    for before in segments.iter().skip(from).take_while(|other| other.base < segment.base) {
        jobs::walk_file(core, before, before.end(), &mut state)?;
    }
    let found = jobs::walk_file(core, segment, Some(until), &mut state)?;
    Ok(StateUntil { state, found })
}

/// Makes sure that the marks of a sealed segment are at hand: from its sidecar, or made again if that does not hold. An
/// error if it is no segment of the log any more, or the log is closed for good.
pub(crate) fn load_sidecar(core: &Arc<Core>, segment: &Arc<Segment>) -> Result<(), Error> {
    if !matches!(&*segment.index.read(), Index::Unloaded) {
        return Ok(());
    }
    let _files = core.files.lock();
    let gone = || Error::io(&*segment.path, "open")(io::ErrorKind::NotFound.into());
    if !core.holds(segment) || segment.is_let_go() {
        // Cut off, or deleted. Made again of a file that is still open, its sidecar would speak of another history.
        return Err(gone());
    }
    let sidecar = match keeper::open_sidecar(core, segment, "seal") {
        Ok(sidecar) => sidecar,
        // Nothing is wrong with it.
        Err(error) if error.passes() => return Err(error),
        Err(error) => {
            tracing::warn!(name = core.name(), %error, "a sidecar does not hold and is made again");
            rebuild_sidecar(core, segment)?;
            keeper::open_sidecar(core, segment, "seal")?
        }
    };
    // Another may have been faster, or a cut has made it the one that is written to.
    if matches!(&*segment.index.read(), Index::Unloaded) {
        segment.set_sealed(&core.dir.handles, sidecar);
    }
    // In the meantime: whoever wants the marks would ask for ever.
    if segment.is_let_go() { Err(gone()) } else { Ok(()) }
}

/// A segment's times, from its sidecar if nobody has read that yet. `None`: that cannot be done now.
pub(crate) fn times_of(core: &Arc<Core>, segment: &Arc<Segment>) -> Option<Times> {
    segment.times().or_else(|| {
        load_sidecar(core, segment).ok()?;
        segment.times()
    })
}

fn rebuild_sidecar(core: &Arc<Core>, segment: &Arc<Segment>) -> Result<(), Error> {
    let entry = *core.durable.lock();
    let config = entry.log_config();
    let until = segment.end().unwrap_or(Offset::MAX);
    let StateUntil { state, found } = state_until(core, segment, until, &config)?;
    if found.end != until {
        let what = format!("it ends at offset {}, the next segment begins at {until}", found.end);
        return Err(Error::damaged(&*segment.path, what));
    }
    // Nothing said so at the start: what is behind that is left of a cut.
    segment.set_written(found.position);
    let place = Place { id: core.id, incarnation: core.incarnation, path: core.path.clone() };
    let recovery = Recovery::new(&core.dir, &place, &config);
    recovery.write_seal(segment.base, &found, &state, &entry)
}

/// Removes the sidecars of deleted segments but the last one's `.seal`, which says what was known where the log now
/// begins; and the `.start` of one that begins behind that by now.
pub(crate) fn drop_old_sidecars(core: &Core) {
    let Some(first) = core.segments.load().first().map(|first| first.base) else { return };
    let entries = core.dir.handles.disk.list(&core.path).unwrap_or_default();
    let named = entries.iter().filter_map(|entry| parse_file_name(&entry.name));
    let old: Vec<_> =
        named.filter(|(base, kind)| (WITNESSES.contains(kind) || *kind == START) && *base < first).collect();
    let last = old.iter().rfind(|(_, kind)| *kind == "seal");
    for (base, kind) in old.iter().filter(|one| Some(*one) != last) {
        // Left behind it costs a little space until the next time.
        let _ = core.dir.handles.disk.unlink(&core.path.join(file_name(*base, kind)));
    }
}
