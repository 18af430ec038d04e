//! Rules that a controller keeps around consensus and cores, and that can be taken out: see [`weir_types::mutants`]. Who
//! notices it stands in docs/correctness.md, "Planted bugs".

weir_types::mutants! {
    /// A new leader fences whoever it has not heard of (rule 10).
    NoGrace,
    /// Who is cut off is taken for dead before its session is over (rule 10).
    SilenceIsDeath,
    /// A heartbeat is answered while the fence of its registration is on its way into the log (rule 10).
    AnsweredWhileFenced,
    /// A vote is given and not written down (rule 29).
    VoteForgotten,
    /// Every controller begins a cluster when it finds none on its disk (rule 30).
    EveryoneBegins,
    /// A snapshot is not synced before it gets its name (rule 32).
    SnapshotUnsynced,
    /// A snapshot that was built takes the place of a newer one that came meanwhile (rule 32).
    OlderSnapshotPut,
    /// What a snapshot is to cover is purged from the log before it is in its place (rule 32).
    PurgedUncovered,
    /// Heartbeats are answered without asking whether this controller still leads (rules 10, 33).
    NoBarrier,
    /// A command is proposed that not everybody understands (rule D4).
    AnyLevel,
    /// Nobody watches over elections (rule 31).
    Unwatched,
    /// Whoever has seen another history is told of this one (rule 33).
    AnyHistoryTold,
    /// A proposal waits for a quorum for ever (rule 34).
    NoDeadline,
    /// Each command has an entry of its own (rule 34).
    OneByOne,
    /// No leadership is given back to its preferred replica, unless a person asks for it.
    NeverGivenBack,
    /// What was not accepted is lost all the same (rules 8, 36).
    LossUnasked,
    /// One that cannot say how far its log goes, which cannot be used, holds nothing (rules 8, 36).
    UnsaidCounts,
    /// What a replica says that it holds counts, whatever of the metadata its broker has not acted upon (rules 8, 36).
    UnactedCounts,
}
