//! Each planted bug is noticed: the same runs that find nothing wrong with the log find something wrong with each of
//! these.

use weir_io::Op;
use weir_storage::Mutant;

use crate::model::{self, Plant};
use crate::replicas;
use crate::support::notices;
use crate::{
    aside, basics, clocks, cut_off, damage, full_disk, leftovers, missing, offline, outcomes, retention,
    start_over, strays,
};

/// Where the search for a bug begins: that one row of seeds finds it may be luck.
const BEGINNINGS: [u64; 3] = [0, 1_000_000, 2_000_000];

/// So many seeds at most until a bug shows.
const SEEDS_MAX: u64 = 2000;

fn is_noticed(plant: Plant) {
    is_noticed_by(model::run, plant);
}

fn is_noticed_by(run: fn(u64, Plant) -> Result<(), String>, plant: Plant) {
    for begin in BEGINNINGS {
        // A test that panics on a bug has noticed it, too.
        let noticed = (begin..begin + SEEDS_MAX).find(|seed| {
            let ran = std::panic::catch_unwind(|| run(*seed, plant));
            !matches!(ran, Ok(Ok(())))
        });
        let Some(seed) = noticed else {
            panic!("{plant:?} was not noticed in {SEEDS_MAX} runs from {begin}")
        };
        eprintln!("{plant:?}: from {begin} on, seeds needed: {}", seed - begin + 1);
        // It is the bug that was noticed, not a flaw of the runs.
        assert_eq!(run(seed, Plant::Nothing), Ok(()), "seed {seed} without {plant:?}");
    }
}

#[test]
fn a_sync_left_out() {
    is_noticed(Plant::Skip(Op::SyncData, ".log"));
}

#[test]
fn a_sync_forgotten() {
    is_noticed(Plant::Bug(Mutant::SkipSync));
}

#[test]
fn a_folder_not_synced() {
    is_noticed(Plant::Skip(Op::SyncDir, ""));
}

#[test]
fn a_checkpoint_not_synced() {
    is_noticed(Plant::Skip(Op::SyncAll, "checkpoint.tmp"));
}

#[test]
fn an_acknowledgement_before_the_flush() {
    is_noticed(Plant::Bug(Mutant::AckBeforeFlush));
}

#[test]
fn a_failed_sync_tried_again() {
    is_noticed(Plant::Bug(Mutant::RetryFsync));
}

#[test]
fn a_torn_tail_believed() {
    is_noticed(Plant::Bug(Mutant::TrustTornTail));
}

#[test]
fn a_cache_believed_that_the_disk_belies() {
    is_noticed(Plant::Bug(Mutant::CacheTrusted));
}

/// These two take a row of events that is drawn too seldom: each is laid out where it is told that it does no harm.
#[tokio::test(start_paused = true)]
#[should_panic(expected = "all of it is there")]
async fn what_a_cut_has_left_behind_taken_for_part_of_the_log() {
    leftovers::torn_cut_and_lost_again(Some(Mutant::LeftoverCounts)).await;
}

#[tokio::test(start_paused = true)]
#[should_panic(expected = "was acknowledged and is gone")]
async fn a_cut_finished_by_a_later_open_and_not_written_down() {
    offline::acknowledged_after_a_reopened_cut(Some(Mutant::ReopenedCutKept)).await;
}

#[test]
fn a_recovery_point_not_lowered_by_a_cut() {
    is_noticed(Plant::Bug(Mutant::RecoveryPointKept));
}

#[test]
fn a_generation_raised_before_what_is_kept_is_flushed() {
    is_noticed(Plant::Bug(Mutant::GenerationBeforeKept));
}

#[test]
fn two_lives_under_one_name() {
    is_noticed(Plant::Bug(Mutant::NoIncarnation));
}

#[test]
fn a_dirty_handle_closed() {
    is_noticed(Plant::Bug(Mutant::EvictDirty));
}

#[test]
fn what_was_handed_to_the_disk_taken_for_durable() {
    is_noticed(Plant::Bug(Mutant::WritebackForSync));
}

#[test]
fn an_offset_used_again() {
    is_noticed(Plant::Bug(Mutant::ReuseOffset));
}

#[test]
fn a_decision_before_the_ones_in_front_are_applied() {
    is_noticed(Plant::Bug(Mutant::DecideEarly));
}

#[test]
fn a_duplicate_answered_early() {
    is_noticed(Plant::Bug(Mutant::DuplicateEarly));
}

#[test]
fn a_file_gone_before_the_new_start_is_durable() {
    is_noticed(Plant::Bug(Mutant::GoneBeforeStart));
}

#[test]
fn a_new_start_heard_of_before_it_is_durable() {
    is_noticed(Plant::Bug(Mutant::HeardBeforeStart));
}

#[test]
fn a_last_segment_gone_without_its_sidecar() {
    is_noticed(Plant::Bug(Mutant::GoneUnsealed));
}

#[test]
fn a_sidecar_not_synced() {
    is_noticed(Plant::Skip(Op::SyncAll, ".seal.tmp"));
}

#[test]
fn a_deletion_beyond_what_is_stable() {
    is_noticed(Plant::Bug(Mutant::RetainUnstable));
}

#[tokio::test(start_paused = true)]
#[should_panic(expected = "nobody has decided that")]
async fn a_follower_that_deletes_by_its_own_settings() {
    retention::decided_by_the_leader_alone(Some(Mutant::FollowerRetains)).await;
}

#[test]
fn data_of_another_leadership_taken() {
    is_noticed_by(replicas::run, Plant::Bug(Mutant::AnyEpochFollowed));
}

#[test]
fn a_list_of_epochs_that_outlives_a_cut() {
    is_noticed_by(replicas::run, Plant::Bug(Mutant::EpochsKept));
}

#[test]
fn producers_that_outlive_a_cut() {
    is_noticed_by(replicas::run, Plant::Bug(Mutant::ProducersKept));
}

#[test]
fn a_step_back_that_leaves_others_in_the_future() {
    is_noticed(Plant::Bug(Mutant::OthersLeftInFuture));
}

/// Tests that lay out by themselves what the rule is about.
#[test]
fn a_start_of_which_nothing_is_known() {
    let test = start_over::a_log_that_begins_anew_knows_what_its_leader_knows_there;
    assert!(notices(test, Mutant::StartForgotten));
}

#[test]
fn what_is_cut_off_a_damaged_log_and_not_kept() {
    let test = cut_off::a_damaged_log_is_cut_where_its_damage_begins_and_what_is_cut_off_is_kept;
    assert!(notices(test, Mutant::DamageUnkept));
}

#[test]
fn what_was_set_aside_and_is_not_told_of() {
    let test = aside::what_was_set_aside_is_told_of_and_taken_back_as_long_as_it_goes_further;
    assert!(notices(test, Mutant::AsideUntold));
}

#[test]
fn a_log_that_is_gone_and_not_missed() {
    let test = missing::a_log_whose_folder_is_gone_is_damaged_until_it_is_fetched_anew;
    assert!(notices(test, Mutant::MissingUnnoticed));
}

#[test]
fn a_log_of_which_nothing_is_known_that_is_believed() {
    let test = damage::without_its_checkpoint_no_log_of_a_directory_is_believed;
    assert!(notices(test, Mutant::ForgottenBelieved));
}

#[test]
fn a_log_that_is_deleted_before_a_checkpoint_says_so() {
    let test = missing::a_log_that_was_deleted_is_not_missed_wherever_that_is_cut_off;
    assert!(notices(test, Mutant::DeletedUnsaid));
}

#[test]
fn never_said_before_the_fence_is_committed() {
    assert!(notices(outcomes::never_is_said_to_nobody_before_the_fence_is_flushed, Mutant::NeverEarly));
}

#[test]
fn a_mismatch_said_before_it_is_committed() {
    assert!(notices(
        outcomes::a_mismatch_is_said_once_what_it_was_judged_by_is_committed,
        Mutant::MismatchEarly
    ));
}

#[test]
fn a_reserve_that_appends_take() {
    assert!(notices(full_disk::a_group_does_not_reach_into_the_reserve, Mutant::NoReserve));
}

#[test]
fn a_clock_believed_that_has_just_jumped() {
    let test = clocks::a_clock_that_is_set_soon_after_the_start_makes_nobody_older;
    assert!(notices(test, Mutant::JumpBelieved));
}

#[test]
fn a_row_that_goes_on_behind_a_failure() {
    assert!(notices(basics::a_shut_gate_stops_the_row_until_resumed, Mutant::RowGoesOn));
}

#[test]
fn segments_that_readers_have_mapped() {
    is_noticed_by(replicas::run, Plant::Bug(Mutant::SegmentMapped));
}

#[test]
fn a_version_of_the_metadata_of_which_nobody_knows_who_wrote_it() {
    assert!(notices(strays::what_was_acted_upon_is_known_after_a_power_loss, Mutant::AuthorForgotten));
}

#[test]
fn a_marker_that_a_start_leaves() {
    assert!(notices(basics::after_an_orderly_stop_nothing_is_scanned, Mutant::MarkerStays));
}
