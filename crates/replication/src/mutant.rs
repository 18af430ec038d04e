//! Rules that the replication of a partition keeps, and that can be taken out: see [`weir_types::mutants`]. Who notices it stands
//! in docs/correctness.md: mostly the model, by a row in `model/tests/replication/mutants.rs`.

weir_types::mutants! {
    /// A follower cuts its log at its own high watermark (rule 1).
    CutAtHighWatermark,
    /// Data of another leadership is taken (rule 2).
    OldEpochData,
    /// What was known of a follower in an earlier registration of its broker counts (D2).
    EndKept,
    /// The high watermark rises with fewer than min.insync in sync (rule 3).
    BelowMin,
    /// Who was only proposed is counted (rule 5).
    CountProposed,
    /// min.insync is what it was when the leadership began (rule 3).
    MinOfBegin,
    /// The high watermark is told before it has reached the start of the leadership (rule 4).
    UnsettledServes,
    /// Who was only proposed is not waited for (rule 5).
    ProposedNotAwaited,
    /// A change of unknown outcome is taken for done (rule 5).
    UnknownTakenAsDone,
    /// A follower joins without the start of the leadership (rule 6).
    JoinBelowEpochStart,
    /// A follower joins below the high watermark (rule 6).
    JoinBelowHighWatermark,
    /// A follower joins when it has written, in class fsync (rule 6).
    JoinOnWritten,
    /// A follower takes for committed what it has only written, in class fsync (rule 3).
    FollowerOnWritten,
    /// A follower joins that still has what was deleted (rule 15).
    JoinBelowStart,
    /// A deletion does not wait for who is in sync (rule 15).
    StartNotAwaited,
    /// What a follower has written counts, in class fsync (rule 3).
    FollowersWritten,
    /// What the leader has written counts, in class fsync (rule 3).
    OwnWritten,
    /// An append is admitted with fewer than min.insync in sync (rule 11).
    AdmitBelowMin,
    /// A repetition is not known again before its condition is looked at (rule 20).
    ConditionFirst,
    /// A leader that was elected from the eligible lets others join before it has heard the rest of them (rule 8).
    EligibleUnheard,
    /// It has a log cut before it has heard them (rule 8).
    CutUnheard,
    /// It has one of them cut what it lacks itself (rule 8).
    FurtherCut,
    /// It tells its high watermark before it has heard them (rule 4).
    UnheardServes,
}
