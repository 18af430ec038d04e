//! One rule at a time is taken out, and the properties must miss it: in a world that has them all while the rule is
//! in place (`exhaustive.rs`).

use weir_metadata::Mutant as M;
use weir_replication::Mutant as R;

use crate::bug::Bug::{self, Edge, Metadata, Replication};
use crate::bug::Edge as E;
use crate::check::exhaust;
use crate::config::Config;
use crate::worlds;

fn is_missed(name: &str, bug: Bug, world: &Config, property: &str) {
    let config = Config { bug: Some(bug), ..world.clone() };
    let Some(found) = exhaust(name, &config) else { panic!("{name}: nothing was noticed") };
    eprintln!("{}", found.trace);
    assert!(found.properties.contains(&property), "it was: {:?}", found.properties);
}

/// One test a rule: what is taken out, the world that notices it, and the property by which it does.
macro_rules! missed {
    ($($name:ident: $bug:expr, $world:ident, $property:literal;)*) => {$(
        #[test]
        fn $name() {
            is_missed(stringify!($name), $bug, &worlds::$world, $property);
        }
    )*};
}

missed! {
    a_cut_at_the_high_watermark: Replication(R::CutAtHighWatermark), LATE_DATA, "candidates are complete";
    data_of_an_old_leadership: Replication(R::OldEpochData), LATE_DATA, "logs match";
    committed_below_min_insync: Replication(R::BelowMin), LATE_PROPOSALS, "candidates are complete";
    the_proposed_counted: Replication(R::CountProposed), LATE_PROPOSALS, "candidates are complete";
    a_high_watermark_told_before_it_is_settled: Replication(R::UnsettledServes), MOVES, "no lower high watermark is served";
    the_partition_epoch_not_compared: Metadata(M::NoPartitionEpoch), LATE_PROPOSALS, "candidates are complete";
    no_epoch_compared: Metadata(M::NoEpochs), LATE_PROPOSALS, "candidates are complete";
    the_proposed_not_waited_for: Replication(R::ProposedNotAwaited), LATE_PROPOSALS, "candidates are complete";
    an_unknown_shrink_taken_for_done: Replication(R::UnknownTakenAsDone), LATE_PROPOSALS, "candidates are complete";
    in_sync_without_the_start_of_the_epoch: Replication(R::JoinBelowEpochStart), LATE_PROPOSALS, "candidates are complete";
    in_sync_below_the_high_watermark: Replication(R::JoinBelowHighWatermark), LATE_PROPOSALS_MIN_1, "candidates are complete";
    in_sync_when_written: Replication(R::JoinOnWritten), POWER_MIN_1, "candidates are complete";
    a_fenced_broker_let_in: Metadata(M::FencedAdmitted), LATE_PROPOSALS, "no fenced broker in sync";
    a_follower_that_takes_what_it_has_written_for_committed: Replication(R::FollowerOnWritten), UNCLEAN_FSYNC, "candidates are complete";
    what_followers_have_written_counted: Replication(R::FollowersWritten), POWER, "candidates are complete";
    what_the_leader_has_written_counted: Replication(R::OwnWritten), POWER_MIN_1, "candidates are complete";
    a_duplicate_answered_early: Edge(E::DuplicateEarly), FAILOVER, "current leader holds every acknowledged record";
    an_end_kept_over_a_new_registration: Replication(R::EndKept), REPLICATED, "candidates are complete";
    an_elr_kept_when_min_insync_sinks: Metadata(M::ElrKept), MINS, "candidates are complete";
    min_insync_not_that_of_the_record: Replication(R::MinOfBegin), MINS_UP, "candidates are complete";
    registrations_not_compared: Metadata(M::NoBrokerEpoch), REPLICATED_LATE_PROPOSALS, "candidates are complete";
    the_last_leader_elected: Metadata(M::LastLeaderElected), UNCLEAN, "candidates are complete";
    who_proves_nothing_kept_in_sync: Metadata(M::UncleanKeptInIsr), LOST_DISK, "the record is well formed";
    who_proves_nothing_kept_eligible: Metadata(M::UncleanKeptInElr), LOST_DISK_MIN_3, "candidates are complete";
    who_joins_before_the_eligible_are_heard: Replication(R::EligibleUnheard), LOST_END, "candidates are complete";
    who_goes_further_is_cut: Replication(R::FurtherCut), LOST_END, "current leader holds every acknowledged record";
    a_high_watermark_told_before_the_eligible_are_heard: Replication(R::UnheardServes), LOST_END, "no lower high watermark is served";
    a_leader_that_does_not_know_the_eligible: Metadata(M::ElrUnsaid), LOST_END, "current leader holds every acknowledged record";
    any_directory_taken: Metadata(M::AnyDirectory), OLD_COPY, "candidates are complete";
    no_epoch_file: Metadata(M::NoEpochFile), OLD_COPY, "candidates are complete";
    any_boot_taken: Metadata(M::AnyBoot), REPLICATED_MIN_3, "candidates are complete";
    nobody_eligible: Metadata(M::NoElr), FENCES, "somebody is known to be complete";
    a_stale_marker_believed: Metadata(M::StaleMarker), OLD_MARKER, "candidates are complete";
    a_marker_that_stays: Edge(E::MarkerStays), REPLICATED_MIN_3, "candidates are complete";
    a_new_registration_that_leads_on: Metadata(M::LeadsOn), STOPS, "the record is well formed";
    in_sync_with_what_was_deleted: Replication(R::JoinBelowStart), DELETES, "what is deleted stays deleted";
    a_deletion_that_waits_for_nobody: Replication(R::StartNotAwaited), DELETES, "what is deleted stays deleted";
    a_number_used_by_two_registrations: Edge(E::NumberedByProcess), REPLICATED_LATE_ACKS, "candidates are complete";
    an_unequal_epoch_counted: Edge(E::UnequalEpoch), STEPWISE, "candidates are complete";
}
