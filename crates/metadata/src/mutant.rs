//! Rules that cluster metadata keeps, and that can be taken out: see [`weir_types::mutants`]. Who notices it stands
//! in docs/correctness.md: mostly the model, by a row in `model/tests/replication/mutants.rs`.

weir_types::mutants! {
    /// The ELR stays when min.insync sinks to what is in sync (rule 3).
    ElrKept,
    /// The partition epoch is not compared (rule 5).
    NoPartitionEpoch,
    /// Neither epoch is compared (rule 5).
    NoEpochs,
    /// The registrations of proposed members are not compared (rule 7).
    NoBrokerEpoch,
    /// A fenced broker is let in (rule 7).
    FencedAdmitted,
    /// The last known leader is elected when nobody else can be (rule 8).
    LastLeaderElected,
    /// Who proves nothing stays in the in-sync set (rule 8).
    UncleanKeptInIsr,
    /// Who proves nothing stays eligible (rule 8).
    UncleanKeptInElr,
    /// Any directory will do (rule 8).
    AnyDirectory,
    /// The broker epoch that a directory holds is not looked at (rule 8).
    NoEpochFile,
    /// In class replicated too, the disk is enough (rule 8).
    AnyBoot,
    /// Nobody is eligible (rule 8).
    NoElr,
    /// A clean marker of any stop will do (rule 9).
    StaleMarker,
    /// Who led and proves that it is complete leads on in its new registration (rule 8).
    LeadsOn,
    /// A broker whose disk is slow keeps its leaderships and its places (rule 41).
    SlowStays,
    /// It leaves in-sync sets that are too small without it (rule 41).
    SlowLeavesTooFew,
    /// A member whose log was found damaged keeps its leadership and its place (rule 36).
    RottenStays,
    /// Whoever cannot use its log leads on (rule 36).
    UnusableLeads,
    /// It leaves in-sync sets that are too small without it (rule 36).
    RottenLeavesTooFew,
    /// It may be let in again for what it has said before it left (rule 36).
    RottenLetIn,
    /// One that cannot follow begins anew though it is in sync (rule 36).
    StuckInSync,
    /// A leader from the ELR is not told that it is one (rule 8).
    ElrUnsaid,
    /// Any number of brokers may be slow at a time (rule 41).
    AllSlow,
    /// A broker is registered with a directory that has failed, though nobody has trusted it since (rule 35).
    FailedTrusted,
    /// What a command comes to depends on the process that applies it: a topic's time counts what it has applied (rule D3).
    ByProcess,
    /// A broker is registered that has seen another history (rule 33).
    AnyHistory,
    /// Nobody knows who wrote what (rule 33).
    Unsigned,
}

/// How often this was asked in the process: what no two controllers have in common.
pub(crate) fn of_this_process() -> i64 {
    use std::sync::atomic::{AtomicI64, Ordering};
    static ASKED: AtomicI64 = AtomicI64::new(0);
    ASKED.fetch_add(1, Ordering::SeqCst)
}
