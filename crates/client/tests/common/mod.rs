//! A small Weir in memory, to try the SDK against: every broker of it in this process, reached over pipes, so
//! that a test decides when a connection breaks, an acknowledgement is lost, a leader moves. With the paused
//! clock of tokio nothing here takes time.
//!
//! It keeps the contract of proto/weir/v1 as far as the SDK can see it: offsets, sequences, poison and resume,
//! credits, generations. It is not a broker: it stores batches in vectors and trusts what it gets.
//!
//! # What each test is there for
//! Each of these bugs was put into the SDK, and the test beside it failed (others mostly too).
//!
//! | bug | test |
//! |---|---|
//! | an abandoned batch that turned out to be appended gives its sequence to the next | `applied::a_batch_nobody_answers_times_out_as_unknown_and_the_rest_goes_on` |
//! | a retry takes a new sequence | `producer_failures::a_lost_acknowledgement_is_made_up_for_and_nothing_is_doubled` |
//! | two batches in flight change places when they are sent again | `producer_failures::connections_that_break_again_and_again_change_nothing` |
//! | a refusal is not heard where its batch has expired, and more is sent than comes back | `producer_failures::what_is_behind_a_late_refusal_keeps_its_place`, in the lane `nothing_overtakes_what_is_refused_with_a_batch_that_expired` |
//! | a refusal is not heard where no answer was asked for | `producer_failures::what_is_behind_a_refusal_that_nobody_asked_for_keeps_its_place` |
//! | a refusal of what has expired is told as the reason of others | `applied::what_is_refused_after_it_was_given_up_is_not_why_others_wait` |
//! | questions outlive the producer, or are told as being asked | `producer_failures::nobody_asks_for_a_producer_that_is_gone` |
//! | a receipt is resolved before the answer | `producer::a_receipt_waits_for_the_answer` |
//! | what is taken back from a queue counts as sent | `applied::what_nobody_could_be_reached_for_was_not_applied` |
//! | what the connection took is taken back all the same | `applied::whatever_happens_receipts_say_no_less_and_no_more_than_is_known` |
//! | what failed keeps its memory | `producer_failures::what_fails_gives_its_memory_back` |
//! | a key goes elsewhere than documented | `producer::keys_choose_the_partition_that_every_client_chooses` |
//! | a batch stays until it is full | `producer::a_batch_leaves_when_it_has_lingered` |
//! | memory is allocated for every record, or anew for every batch | `memory::nothing_is_allocated_for_a_record_and_a_batch_uses_the_memory_of_another` |
//! | the CRC is not checked | `consumer::a_damaged_batch_is_not_handed_out` |
//! | the position moves before a batch is handed out | `consumer::a_damaged_batch_is_not_handed_out` |
//! | what was fetched before a seek comes after it | `consumer::seeking_drops_what_was_fetched_ahead`, in the fetcher `older_generations_are_dropped` |
//! | after a reconnect it goes on one too early or too late | `consumer::broken_connections_repeat_and_skip_nothing` |
//! | the epoch of what was filtered is not known | `consumer::a_cut_is_noticed_also_behind_what_was_not_handed_out` |
//! | a pause lets through what was fetched ahead | `consumer::pausing_holds_back_what_was_fetched_ahead` |
//! | news of one topic makes the rest of the map count as new | in the map `what_is_new_of_one_topic_makes_no_other_newer` |
//! | a watch that starts again leaves what is gone in the map | `metadata::a_watch_that_broke_has_missed_nothing` |
//! | a client that only reads takes long to notice silence | `metadata::a_reader_leaves_a_leader_that_died_without_a_word` |
//! | the map is waited for where it was asked for first | `metadata::a_call_leaves_a_broker_that_is_silent_for_one_that_answers` |
//! | a call waits for a broker that is gone, with others there | `metadata::who_led_leaves_in_order_and_nobody_waits_for_it` |
//! | a broker that cannot be reached is left alone for long | `metadata::who_led_dies_and_the_next_leader_is_found_soon` |
//! | a watch is kept on a broker that does not answer | `metadata::the_watched_one_may_be_the_one_that_died` |
//! | whoever owes an answer is taken for the one that died | `metadata::the_watched_one_may_have_died_where_another_owes_the_answer` |
//! | a map in pages is taken for as new as its last page | `metadata::a_map_in_pages_is_as_old_as_its_oldest_page` |
//! | what a snapshot lacked is gone as of what came behind it | `metadata::what_a_snapshot_lacked_is_gone_as_of_the_snapshot` |
//! | both watches are of one broker | `metadata::two_watches_are_of_two_brokers` |
//! | what a watch told that is over is never taken back | `outdated::what_a_second_watch_told_last_is_not_what_stays` |
//! | what an answer said is never taken back | `outdated::what_an_answer_said_last_is_not_what_stays` |
//! | a watch goes on from less than is known | `outdated::a_watch_that_begins_with_less_than_is_known_begins_again` |
//! | a watch begins again with every answer | `outdated::an_answer_that_says_what_is_known_ends_no_watch` |
//! | a watch is opened again without a pause | `metadata::a_server_that_ends_watches_is_not_stormed` |
//! | records of a deleted topic go to the next one of its name | `metadata::what_was_packed_for_a_topic_is_not_put_into_the_next_of_its_name` |

#![allow(
    dead_code,
    unused_imports,
    unreachable_pub,
    missing_docs,
    reason = "each test file uses a part of it"
)]
#![allow(clippy::indexing_slicing, clippy::unwrap_used, reason = "a test may stop at a surprise")]

mod calls;
mod fetch;
mod log;
mod net;
mod produce;
pub mod sending;
mod state;
pub mod told;

use std::sync::Arc;

use weir_client::{Client, ClientBuilder};

pub use log::Log;
pub use net::Net;
pub use state::{Cluster, Fate, Sent};
/// The clock is paused: what this lets pass is not real time.
pub use weir_runtime::testing::until;

/// A cluster with one broker, `broker1:1`.
pub fn cluster() -> Arc<Cluster> {
    Cluster::start(1)
}

/// A client of it, on the test's own runtime.
pub async fn client(cluster: &Arc<Cluster>) -> Client {
    builder(cluster).connect("broker1:1").await.expect("the fake cluster answers")
}

pub fn builder(cluster: &Arc<Cluster>) -> ClientBuilder {
    Client::builder().os(Arc::new(cluster.net())).on_current_runtime()
}
