//! Why records wait: what the last attempt of each partition failed with, as long as it is being tried again. For
//! those who wait, and for the error of who has waited too long; nothing is decided by it.

use std::collections::HashMap;

use parking_lot::Mutex;

use super::buffer::Place;
use crate::Error;

#[derive(Debug, Default)]
pub(super) struct Hindrances(Mutex<HashMap<Place, Error>>);

impl Hindrances {
    /// An attempt failed and will be made again.
    pub(super) fn note(&self, place: Place, error: Error) {
        self.0.lock().insert(place, error);
    }

    /// An attempt succeeded, or is not made again. Per batch, so it costs no more than a look.
    pub(super) fn over(&self, place: Place) {
        self.0.lock().remove(&place);
    }

    /// What keeps a partition's records.
    pub(super) fn of(&self, place: Place) -> Option<Error> {
        self.0.lock().get(&place).cloned()
    }

    /// What keeps anybody's.
    pub(super) fn any(&self) -> Option<Error> {
        self.0.lock().values().next().cloned()
    }
}
