//! Whether this controller could win an election now: what the watch over elections goes by, and openraft keeps to itself.

use std::sync::Arc;

use parking_lot::Mutex;

use super::types::Vote;

/// The last vote that somebody refused to this controller because it lacks entries. Shared by whoever asks for votes and
/// whoever watches.
#[derive(Clone, Debug, Default)]
pub(crate) struct Outdone(Arc<Mutex<Option<Vote>>>);

impl Outdone {
    /// Somebody has more than this controller, which asked for that vote.
    pub(super) fn note(&self, asked: Vote) {
        *self.0.lock() = Some(asked);
    }

    /// Whether that is so still, at this vote. With a leader that came after, this controller has what he has, or gets it:
    /// then it is over, also when he has gone.
    pub(super) fn holds_at(&self, vote: &Vote) -> bool {
        let mut last = self.0.lock();
        last.take_if(|asked| vote.is_committed() && *vote > *asked);
        last.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_outdone_is_so_until_somebody_leads() {
        let outdone = Outdone::default();
        assert!(!outdone.holds_at(&Vote::new_committed(3, 1)));
        outdone.note(Vote::new(4, 2));
        for vote in [Vote::new_committed(3, 1), Vote::new(4, 2), Vote::new(5, 1), Vote::new(6, 2)] {
            assert!(outdone.holds_at(&vote), "{vote}");
        }
        for led in [Vote::new_committed(4, 2), Vote::new_committed(5, 1)] {
            outdone.note(Vote::new(4, 2));
            assert!(!outdone.holds_at(&led), "{led}");
            assert!(!outdone.holds_at(&Vote::new(6, 3)), "nor once that leader has died");
        }
    }
}
