//! Rules that a broker keeps around the cores, and that can be taken out: see [`weir_types::mutants`]. Who notices it stands
//! in docs/correctness.md, "Planted bugs".

weir_types::mutants! {
    /// A follower of another leadership is answered (rule 2).
    AnyEpochFollowed,
    /// What a follower says under another leadership counts (rule 2).
    AnyEpochHeard,
    /// A subscription's number in a leadership is the one that it has on its stream, as others have on theirs (rule D2).
    NumberReused,
    /// A broker that no controller answers promises what epochs do not protect (rule 10).
    SessionForever,
    /// A broker that has asked for its leaderships to be given away goes on promising it, until it hears that they are
    /// (rule 10).
    LeavingPromises,
    /// So does one that has said that its disk is slow (rule 10).
    SlowPromises,
    /// So does a leader that has said that its log is damaged (rules 10, 36).
    RottenPromises,
    /// Whoever has not heard of a controller for a session admits acks NONE and LEADER, and says that a condition does not hold
    /// (rule 10).
    AdmittedUnheard,
    /// It acknowledges what is not committed (rule 10).
    AcknowledgedUnheard,
    /// It says where the log ends (rule 10).
    LatestUnheard,
    /// It says what became of an append that is not committed (rule 10).
    OutcomeUnheard,
    /// An append whose leadership ends under it has failed (rule 11).
    UnknownIsFailure,
    /// A position on a history that was cut off goes on where it is (rule 13).
    PositionUnchecked,
    /// A reader whose place was deleted goes on where the log begins, in silence (rule 13).
    MovedInSilence,
    /// A log that readers find damaged is set aside under a leader that may have let it in (rule 36).
    RottenInSync,
    /// So is one by a version of the metadata that is not written down (rules 33, 36).
    AsideUnnoted,
    /// One that is closed for that is told of as one that may lead (rules 8, 36).
    ClosedTold,
    /// What was set aside of a damaged log is deleted although it goes further than the log in its place (rule 36).
    AsideDeleted,
    /// Whoever was elected uncleanly, for what it has set aside since perhaps, leads with the log in its place (rule 36).
    AsidePassedOver,
    /// A replica whose directory is missing is made again (rule 14).
    MadeAgain,
    /// Records are kept half as long as their topic says (rule 18).
    HalfKept,
    /// An acknowledgement of all is given for what the leader alone has, and says that it is committed (rule 43).
    LeaderIsAll,
    /// A receipt counts one replica more than have the record, and one disk more (rule 43).
    OneMore,
    /// Any part of what may be on its way to a follower may be of one partition.
    NoWindowOfAPartition,
    /// Who reads a stream is not told of what is left out behind the last batch (rule 44).
    GapUntold,
    /// A follower is given what lies before the log's start (rule 15).
    DeletedGiven,
}
