//! A damaged log that was set aside, and of which nobody knows how far it is whole: the disk did not let it be read, or it
//! is damaged so that nothing of it could lead (correctness rule 36).
//!
//! It may be whole as far as the checkpoint says that it went. Until the log in its place has come as far, that one counts
//! for nobody: else an empty log could lead, and be in sync, and what is aside would be deleted though it has more.

use std::sync::Arc;

use weir_types::{Offset, PartitionId};

use super::aside::{Aside, of};
use super::{DirCore, Unusable};
use crate::checkpoint;
use crate::error::{Error, shown};
use crate::recovery::Place;

/// Why it is not known how far a log is whole.
#[derive(Debug)]
pub(super) struct Unseen {
    why: String,
    /// Somebody has looked, in vain.
    was_looked_at: bool,
    /// Another look may tell.
    may_be_seen: bool,
    /// Somebody looks.
    is_looked_at: bool,
}

impl Default for Unseen {
    fn default() -> Self {
        let why = "it was not looked at yet".to_owned();
        Self { why, was_looked_at: false, may_be_seen: true, is_looked_at: false }
    }
}

impl Aside {
    /// How far it is known to have gone, if anything is known.
    pub(super) fn known_end(&self) -> Option<Offset> {
        let whole = self.log.whole.map(|whole| whole.known_end);
        whole.max(self.known.map(|entry| entry.said_end()))
    }

    /// It, if nobody knows how far it is whole, and that may be further than the log in its place goes. Of one that nobody has
    /// looked at, or that the checkpoint says nothing of, that is always so.
    pub(super) fn unseen_beyond(&self, in_place: Option<Offset>) -> Option<Unusable> {
        let is_reached = in_place.zip(self.known_end()).is_some_and(|(end, known_end)| end >= known_end);
        if self.log.whole.is_some() || is_reached && self.unseen.was_looked_at {
            return None;
        }
        let (folder, Unseen { why, may_be_seen, .. }) = (shown(&self.log.path), &self.unseen);
        let again = if *may_be_seen { "ask again, for it is looked at again; or " } else { "" };
        let what = format!(
            "{}; nobody knows how far {folder} is whole ({why}): {again}move it away, if what is in it may be lost, and ask again",
            self.log.what
        );
        Some(Unusable { what, ..self.log.clone() })
    }
}

impl DirCore {
    /// Looks up how far a damaged log is whole that was set aside, as of one in its place.
    pub(super) fn look_at_aside(self: &Arc<Self>, place: &Place, known: Option<checkpoint::Entry>) {
        let seen = self.whole_of(place, known);
        // It may have been taken back, or deleted, meanwhile.
        if let Some(aside) = self.damaged.lock().get_mut(&(place.id, place.incarnation)) {
            aside.known = known;
            aside.log.whole = seen.as_ref().ok().copied();
            if let Err(error) = seen {
                let may_be_seen = !matches!(error, Error::Damaged { .. });
                let why = error.to_string();
                aside.unseen = Unseen { why, was_looked_at: true, may_be_seen, is_looked_at: false };
            }
        }
    }

    /// Looks again at those of which it is not known how far they are whole, one after the other beside whoever asks: who
    /// asks next is told.
    pub(super) fn look_again(self: &Arc<Self>, ids: &[PartitionId]) {
        let mut due = Vec::new();
        let mut damaged = self.damaged.lock();
        for id in ids {
            for ((id, incarnation), aside) in damaged.range_mut(of(*id)) {
                if aside.log.whole.is_none() && !std::mem::replace(&mut aside.unseen.is_looked_at, true) {
                    let path = aside.log.path.clone();
                    let place = Place { id: *id, incarnation: *incarnation, path };
                    due.push((place, aside.log.clone(), aside.known));
                }
            }
        }
        drop(damaged);
        if due.is_empty() {
            return;
        }
        let dir = Arc::clone(self);
        self.os.block(Box::new(move || {
            for (place, aside, known) in due {
                dir.look_again_at(&place, &aside, known);
            }
        }));
    }

    fn look_again_at(self: &Arc<Self>, place: &Place, aside: &Unusable, known: Option<checkpoint::Entry>) {
        if self.handles.disk.exists(&place.path).is_ok_and(|exists| !exists) {
            self.is_gone(aside);
            return;
        }
        let key = (place.id, place.incarnation);
        let may_be_seen = self.damaged.lock().get(&key).is_some_and(|aside| aside.unseen.may_be_seen);
        if may_be_seen && !self.stopping() {
            self.look_at_aside(place, known);
        }
        if let Some(aside) = self.damaged.lock().get_mut(&key) {
            aside.unseen.is_looked_at = false;
        }
    }
}
