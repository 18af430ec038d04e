//! Controllers whose logs have gone back: one has acknowledged entries, and does not have them any more. Its folder is an older
//! copy, or its disk has lost what was synced. What it once voted for may be lost with that, so that it must not count: a
//! quorum with it could elect somebody who lacks what was committed. openraft takes it for a defect of its own, and panics
//! where it looks.
//!
//! Only the leader to whom it has acknowledged them knows, for as long as it leads.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;

use super::LogId;

/// What each has acknowledged to this leader. Shared by whoever asks them and whoever tells people.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rewound(Arc<Mutex<BTreeMap<u64, Known>>>);

#[derive(Clone, Copy, Debug, Default)]
struct Known {
    term: u64,
    acknowledged: Option<LogId>,
    is_rewound: bool,
}

const WHAT: &str = "it has less of the log than it has acknowledged: its folder is an older copy, or its disk has lost what was \
                    synced. It is sent nothing: stop it, give it an empty data folder, and let it join again \
                    (docs/operations/quorum.md)";

impl Rewound {
    /// Up to where it has acknowledged the log to the leader of this term.
    pub(super) fn acknowledged(&self, id: u64, term: u64) -> Option<LogId> {
        self.0.lock().get(&id).filter(|known| known.term == term)?.acknowledged
    }

    /// It has the log up to here.
    pub(super) fn has(&self, id: u64, term: u64, upto: Option<LogId>) {
        let mut all = self.0.lock();
        let known = all.entry(id).or_default();
        if known.term != term {
            *known = Known { term, ..Known::default() };
        }
        if std::mem::take(&mut known.is_rewound) {
            tracing::info!(controller = id, "it has what it has acknowledged again");
        }
        known.acknowledged = known.acknowledged.max(upto);
    }

    /// It lacks an entry. Whether that is one that it had acknowledged before it was asked, up to there.
    pub(super) fn lacks(&self, id: u64, asked: Option<LogId>, acknowledged: Option<LogId>) -> bool {
        let is_rewound = asked.is_some() && asked <= acknowledged;
        if is_rewound
            && let Some(known) = self.0.lock().get_mut(&id)
            && !std::mem::replace(&mut known.is_rewound, true)
        {
            let upto = acknowledged.map_or(0, |last| last.index);
            tracing::error!(controller = id, upto, "{WHAT}");
        }
        is_rewound
    }

    /// What is to be said of it to people.
    pub(crate) fn said(&self, id: u64) -> Option<String> {
        self.0.lock().get(&id).filter(|known| known.is_rewound).map(|_| WHAT.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use openraft::CommittedLeaderId;

    use super::*;

    fn at(index: u64) -> Option<LogId> {
        Some(LogId::new(CommittedLeaderId::new(3, 1), index))
    }

    #[test]
    fn who_lacks_what_it_has_acknowledged_is_told_from_who_is_behind() {
        let rewound = Rewound::default();
        assert!(!rewound.lacks(2, at(9), rewound.acknowledged(2, 3)), "it has acknowledged nothing");
        rewound.has(2, 3, at(7));
        rewound.has(2, 3, at(5));
        assert_eq!(rewound.acknowledged(2, 3), at(7));
        assert!(!rewound.lacks(2, at(9), rewound.acknowledged(2, 3)));
        assert_eq!(rewound.said(2), None);
        assert!(rewound.lacks(2, at(7), rewound.acknowledged(2, 3)));
        assert!(rewound.said(2).is_some_and(|said| said.contains("older copy")));
        rewound.has(2, 3, at(7));
        assert_eq!(rewound.said(2), None, "somebody has brought the newer folder back");
        assert_eq!(rewound.acknowledged(2, 4), None, "another term");
        rewound.has(2, 4, at(2));
        assert_eq!(rewound.acknowledged(2, 4), at(2));
    }
}
