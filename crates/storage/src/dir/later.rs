//! What is left for the keeper and the deleter: noted by whoever is in a hurry, done by those who are not.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::DirCore;
use crate::core::Core;
use crate::keeper::{SealJob, TailNote};
use crate::moves::Asked;

impl DirCore {
    pub(crate) fn seal_later(&self, job: SealJob) {
        self.seals.lock().push(job);
        if let Some(wake) = &*self.keeper.read() {
            wake();
        }
    }

    /// The same at the keeper's next turn.
    pub(crate) fn seal_again(&self, job: SealJob) {
        self.seals.lock().push(job);
    }

    /// A start is to move: at once, but not here.
    pub(crate) fn move_later(&self, asked: Asked) {
        self.moves.push(asked);
        if let Some(wake) = &*self.keeper.read() {
            wake();
        }
    }

    /// A log has grown much since the last note of it.
    pub(crate) fn has_grown(&self, core: &Arc<Core>) {
        if !core.note_listed.swap(true, Ordering::AcqRel) {
            self.grown.lock().push(Arc::clone(core));
        }
    }

    pub(crate) fn take_grown(&self) -> Vec<Arc<Core>> {
        let grown = std::mem::take(&mut *self.grown.lock());
        for core in &grown {
            core.note_listed.store(false, Ordering::Release);
        }
        grown
    }

    /// A recovery point has moved by so much: the checkpoint is to follow.
    pub(crate) fn recovery_point_moved(&self, bytes: u64) {
        let before = self.uncheckpointed_bytes.fetch_add(bytes, Ordering::AcqRel);
        let much = self.options.checkpoint_every_bytes;
        if before < much
            && before.saturating_add(bytes) >= much
            && let Some(wake) = &*self.keeper.read()
        {
            wake();
        }
    }

    /// The checkpoint lacks a partition: until it has it, a start knows neither its class nor that any of it was durable.
    pub(super) fn has_new_partitions(&self) {
        self.has_new.store(true, Ordering::Release);
        if let Some(wake) = &*self.keeper.read() {
            wake();
        }
    }

    /// Whether a checkpoint is due before its time.
    pub(crate) fn is_checkpoint_due(&self) -> bool {
        let much = self.uncheckpointed_bytes.load(Ordering::Acquire) >= self.options.checkpoint_every_bytes;
        much || self.has_new.load(Ordering::Acquire)
    }

    pub(crate) fn note_later(&self, note: TailNote) {
        self.notes.lock().push(note);
    }

    pub(crate) fn take_notes(&self) -> Vec<TailNote> {
        std::mem::take(&mut *self.notes.lock())
    }

    pub(crate) fn take_seals(&self) -> Vec<SealJob> {
        std::mem::take(&mut *self.seals.lock())
    }

    pub(crate) fn delete_later(&self, path: PathBuf) {
        self.deletes.push(path);
    }
}
