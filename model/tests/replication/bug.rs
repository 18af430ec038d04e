//! The rules that can be taken out: in a core, at the line that keeps it, or in the edge of this model.

/// A rule that is taken out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Bug {
    Replication(weir_replication::Mutant),
    Metadata(weir_metadata::Mutant),
    Edge(Edge),
}

/// Rules that whoever plugs the cores together has to keep.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Edge {
    /// A leader answers and counts a follower of another leadership (rule 2).
    UnequalEpoch,
    /// A subscription's number is new to its process only, not in its leadership (D2).
    NumberedByProcess,
    /// A duplicate is answered at once (rule 17).
    DuplicateEarly,
    /// A start leaves the marker of the stop before it where it is (rule 9).
    MarkerStays,
}

/// Plants a bug in the cores on this thread, or none.
pub(crate) fn plant(bug: Option<Bug>) {
    weir_replication::Mutant::plant(match bug {
        Some(Bug::Replication(mutant)) => Some(mutant),
        _ => None,
    });
    weir_metadata::Mutant::plant(match bug {
        Some(Bug::Metadata(mutant)) => Some(mutant),
        _ => None,
    });
}
