//! Bugs that can be planted: with the feature `mutants` one rule is taken out on this thread, to show that the model
//! checker notices it. Without the feature the compiler sees that none ever is.

/// A bug that can be planted. Each takes out one rule, at the line that keeps it.
///
/// To add one: a variant here, `mutant::is(Mutant::…)` at the line, and a row in `model/tests/replication/mutants.rs` that finds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mutant {
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
    /// What a command comes to depends on the process that applies it: a topic's time counts what it has applied (rule D3).
    ByProcess,
}

#[cfg(any(test, feature = "mutants"))]
thread_local! {
    static PLANTED: std::cell::Cell<Option<Mutant>> = const { std::cell::Cell::new(None) };
}

/// Plants a bug on this thread, or takes it back.
#[cfg(any(test, feature = "mutants"))]
pub fn plant(mutant: Option<Mutant>) {
    PLANTED.set(mutant);
}

/// How often this was asked in the process: what no two controllers have in common.
pub(crate) fn of_this_process() -> i64 {
    use std::sync::atomic::{AtomicI64, Ordering};
    static ASKED: AtomicI64 = AtomicI64::new(0);
    ASKED.fetch_add(1, Ordering::SeqCst)
}

/// Whether this bug is planted.
#[inline]
pub(crate) fn is(mutant: Mutant) -> bool {
    #[cfg(any(test, feature = "mutants"))]
    return PLANTED.get() == Some(mutant);
    #[cfg(not(any(test, feature = "mutants")))]
    {
        let _ = mutant;
        false
    }
}
