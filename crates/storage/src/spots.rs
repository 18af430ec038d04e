//! Places of a log that somebody remembers. An offset alone does not tell one: the log may be cut before it, and go on with other
//! records up to there and beyond.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use weir_types::Offset;

/// A place in a log, as it was when somebody began to remember it.
#[derive(Clone, Debug)]
pub struct Spot(Arc<AtomicBool>);

impl Spot {
    /// Whether the log was cut at it, or before it, since.
    pub fn is_cut_off(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// Those of one log.
#[derive(Debug, Default)]
pub(crate) struct Spots(Mutex<Vec<(Offset, Weak<AtomicBool>)>>);

impl Spots {
    pub(crate) fn remember(&self, offset: Offset) -> Spot {
        let spot = Arc::new(AtomicBool::new(false));
        let mut spots = self.0.lock();
        spots.retain(|(_, spot)| spot.strong_count() > 0);
        spots.push((offset, Arc::downgrade(&spot)));
        Spot(spot)
    }

    /// The log was cut: it ends there now.
    pub(crate) fn cut(&self, to: Offset) {
        self.0.lock().retain(|(offset, spot)| {
            let stays = *offset < to;
            if let Some(spot) = spot.upgrade().filter(|_| !stays) {
                spot.store(true, Ordering::Release);
            }
            stays
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lies_behind_a_cut_is_cut_off_and_what_comes_there_later_is_not() {
        let spots = Spots::default();
        let (before, at, behind) = (spots.remember(4), spots.remember(5), spots.remember(9));
        let are_cut_off = || [&before, &at, &behind].map(Spot::is_cut_off);
        assert_eq!(are_cut_off(), [false; 3]);
        spots.cut(5);
        assert_eq!(are_cut_off(), [false, true, true]);
        let again = spots.remember(9);
        assert!(!again.is_cut_off());
        spots.cut(9);
        assert!(again.is_cut_off() && !before.is_cut_off());
    }

    #[test]
    fn what_nobody_remembers_any_more_takes_no_room() {
        let spots = Spots::default();
        (0..1_000).for_each(|offset| drop(spots.remember(offset)));
        assert_eq!(spots.0.lock().len(), 1);
    }
}
