//! A lane by itself: what it sends, keeps and settles, with answers made by hand.

use bytes::Bytes;
use tokio::time::Instant;
use weir_proto::v1::{Applied as WireApplied, ErrorReason, Failure};
use weir_record::{Batch, Codec};
use weir_types::ProducerId;

use super::*;
use crate::producer::parcel::Wishes;

const ME: Producer = Producer { id: ProducerId(7), epoch: 0 };

fn parcel(records: i32) -> Parcel {
    Parcel {
        batch: Batch {
            payload: Bytes::new(),
            codec: Codec::None,
            uncompressed_bytes: 0,
            record_count: records,
            base_timestamp_ms: 0,
            max_timestamp_ms: 0,
            crc: 0,
        },
        topic_id: "".into(),
        wishes: Wishes::default(),
        ticket: Ticket::new(),
        deadline: Instant::now(),
        sequence: None,
        in_doubt: false,
        correlation_id: 0,
    }
}

/// A lane with batches of 10 records, of which `sent` are in flight as number 0, 1, 2 and so on.
fn lane(batches: u64, sent: i64) -> (Lane, Vec<Arc<Ticket>>) {
    let mut lane = Lane::new(true, 5);
    let mut tickets = Vec::new();
    for number in 0..batches {
        let parcel = parcel(10);
        tickets.push(Arc::clone(&parcel.ticket));
        lane.arrive(number, Some(parcel));
    }
    assert!(lane.offer_identity(ME));
    for id in 0..sent {
        lane.send(id).expect("there is room");
    }
    (lane, tickets)
}

fn refused(reason: ErrorReason, applied: WireApplied) -> Verdict {
    let retry = matches!(reason, ErrorReason::NotEnoughReplicas);
    Verdict::of(&Failure {
        reason: reason.into(),
        applied: applied.into(),
        retry_after_ms: retry.then_some(100),
        ..Default::default()
    })
}

fn timeout(applied: Applied) -> Error {
    Error::Timeout { what: "".into(), after: Default::default(), applied }
}

fn ok() -> Delivery {
    Delivery::unconfirmed(0)
}

/// Sends everything that may go; the sequences.
fn send_all(lane: &mut Lane) -> Vec<(i32, i32)> {
    let mut sent = Vec::new();
    let mut id = 1000;
    while let Some(parcel) = lane.send(id) {
        let (producer, sequence) = parcel.sequence.expect("idempotent");
        sent.push((producer.epoch, sequence));
        id += 1;
    }
    sent
}

#[test]
fn batches_go_in_the_order_of_their_numbers() {
    let mut lane = Lane::new(true, 5);
    lane.arrive(2, Some(parcel(1)));
    lane.arrive(0, Some(parcel(2)));
    assert!(!lane.can_send(), "no identity yet");
    assert!(lane.wants_identity());
    lane.offer_identity(ME);
    assert_eq!(send_all(&mut lane), [(0, 0)]);
    // Number 1 could not be compressed: the others do not wait for it.
    lane.arrive(1, None);
    assert_eq!(send_all(&mut lane), [(0, 2)]);
}

#[test]
fn no_more_than_the_window_is_in_flight() {
    let (mut lane, _) = lane(7, 0);
    assert_eq!(send_all(&mut lane).len(), 5);
    assert_eq!(lane.succeeded(1000, ok()).len(), 1);
    assert_eq!(send_all(&mut lane).len(), 1);
}

#[test]
fn after_a_refusal_everything_goes_again_in_the_old_order_under_the_old_numbers() {
    let (mut lane, tickets) = lane(4, 3);
    assert!(lane.failed(0, refused(ErrorReason::NotLeader, WireApplied::No)).is_empty());
    assert!(!lane.can_send(), "two are unanswered");
    lane.failed(1, Verdict::Behind);
    assert!(!lane.can_send());
    lane.failed(2, Verdict::Behind);
    assert_eq!(send_all(&mut lane), [(0, 0), (0, 10), (0, 20), (0, 30)]);
    let done = lane.succeeded(1000, ok());
    assert!(Arc::ptr_eq(&done[0].ticket, &tickets[0]));
}

#[test]
fn a_lost_stream_resends_under_the_same_numbers() {
    let (mut lane, _) = lane(3, 2);
    assert!(lane.lost(&Error::lost("cut")).is_empty());
    assert_eq!(send_all(&mut lane), [(0, 0), (0, 10), (0, 20)]);
}

#[test]
fn what_never_left_is_not_in_doubt_and_what_left_is() {
    let (mut lane, tickets) = lane(4, 3);
    assert!(lane.unsent(1).is_empty());
    assert!(lane.lost(&Error::lost("cut")).is_empty());
    assert_eq!(applied(&lane.expired(&tickets[2], timeout)), [Applied::No]);
    assert_eq!(applied(&lane.expired(&tickets[0], timeout)), [Applied::Maybe]);
    // Unless an attempt before may have arrived.
    let (mut lane, tickets) = in_doubt(2);
    assert!(lane.unsent(1000).is_empty());
    assert_eq!(applied(&lane.expired(&tickets[0], timeout)), [Applied::Maybe]);
}

#[test]
fn what_never_left_goes_again_behind_what_did() {
    let (mut lane, _) = lane(5, 4);
    lane.failed(1, again());
    assert!(lane.unsent(2).is_empty());
    assert!(!lane.can_send(), "the first is unanswered");
    assert_eq!(lane.succeeded(0, ok()).len(), 1);
    assert_eq!(send_all(&mut lane), [(0, 10), (0, 20), (0, 30), (0, 40)]);
}

#[test]
fn without_idempotence_what_never_left_goes_again() {
    let mut lane = Lane::new(false, 5);
    for number in 0..2 {
        lane.arrive(number, Some(parcel(1)));
        lane.send(number as i64).expect("there is room");
    }
    assert!(lane.unsent(1).is_empty());
    assert_eq!(applied(&lane.lost(&Error::lost("cut"))), [Applied::Maybe]);
    assert!(lane.send(2).is_some());
}

#[test]
fn a_batch_refused_for_good_gives_its_number_to_the_next() {
    let (mut lane, tickets) = lane(3, 3);
    let done = lane.failed(0, refused(ErrorReason::RecordTooLarge, WireApplied::No));
    assert!(Arc::ptr_eq(&done[0].ticket, &tickets[0]));
    assert_eq!(done[0].result.as_ref().unwrap_err().applied(), Applied::No);
    lane.failed(1, Verdict::Behind);
    assert!(send_all(&mut lane).is_empty());
    lane.failed(2, Verdict::Behind);
    assert_eq!(send_all(&mut lane), [(0, 0), (0, 10)]);
}

#[test]
fn a_number_in_doubt_is_settled_before_it_is_used_again() {
    let (mut lane, _) = lane(3, 2);
    lane.lost(&Error::lost("cut"));
    lane.send(10);
    // Refused now; but the attempt before may have been applied.
    let done = lane.failed(10, refused(ErrorReason::BatchTooLarge, WireApplied::No));
    assert!(done.is_empty());
    let settling = lane.settling().expect("asks");
    assert_eq!((settling.producer, settling.sequence), (ME, 0));
    assert!(!lane.can_send());
    let done = settle(&mut lane, Outcome::Never);
    assert_eq!(done[0].result.as_ref().unwrap_err().applied(), Applied::No);
    // The partition is fenced: the rest starts over in the next epoch.
    assert_eq!(send_all(&mut lane), [(1, 0), (1, 10)]);
}

#[test]
fn what_turns_out_to_be_there_is_acknowledged_and_keeps_its_number() {
    let (mut lane, _) = lane(2, 2);
    lane.lost(&Error::lost("cut"));
    lane.send(10);
    lane.failed(10, refused(ErrorReason::BatchTooLarge, WireApplied::No));
    let done = settle(&mut lane, Outcome::Appended(ok()));
    assert!(done[0].result.is_ok());
    assert_eq!(send_all(&mut lane), [(0, 10)]);
}

#[test]
fn a_refusal_with_others_in_doubt_is_settled_too() {
    let (mut lane, _) = lane(2, 2);
    // The first is refused, and the stream breaks before the answer to the second.
    let done = lane.failed(0, refused(ErrorReason::RecordTooLarge, WireApplied::No));
    assert_eq!(done.len(), 1);
    lane.lost(&Error::lost("cut"));
    assert_eq!(lane.settling().map(|s| s.sequence), Some(0));
    settle(&mut lane, Outcome::Never);
    assert_eq!(send_all(&mut lane), [(1, 0)]);
}

/// A lane with `batches`, of which the first two were sent, lost and sent again: as number 1000 and 1001.
fn in_doubt(batches: u64) -> (Lane, Vec<Arc<Ticket>>) {
    let (mut lane, tickets) = lane(batches, 2);
    assert!(lane.lost(&Error::lost("cut")).is_empty());
    lane.send(1000).expect("the first again");
    lane.send(1001).expect("the second again");
    (lane, tickets)
}

/// The open question is answered.
fn settle(lane: &mut Lane, outcome: Outcome) -> Vec<Done> {
    let question = lane.settling().expect("a question").clone();
    lane.settled(&question, outcome)
}

fn again() -> Verdict {
    Verdict::Again { elsewhere: false, after: None }
}

fn never() -> Verdict {
    refused(ErrorReason::TimestampOutOfRange, WireApplied::No)
}

fn applied(done: &[Done]) -> Vec<Applied> {
    done.iter().map(|done| done.result.as_ref().unwrap_err().applied()).collect()
}

#[test]
fn what_is_before_a_freed_number_goes_again_first_and_keeps_its_own() {
    let (mut lane, tickets) = in_doubt(3);
    // The first is refused for now, although an attempt before may have been applied; the second for ever.
    assert!(lane.failed(1000, again()).is_empty());
    assert!(lane.failed(1001, never()).is_empty(), "in doubt");
    assert!(lane.settling().is_none(), "the answer would say nothing of the first");
    assert_eq!(send_all(&mut lane), [(0, 0)], "and nothing that comes after the number in question");
    let done = lane.succeeded(1000, ok());
    assert!(Arc::ptr_eq(&done[0].ticket, &tickets[0]));
    assert_eq!(lane.settling().map(|s| s.sequence), Some(10));
    let done = settle(&mut lane, Outcome::Never);
    assert!(Arc::ptr_eq(&done[0].ticket, &tickets[1]));
    assert_eq!(applied(&done), [Applied::No]);
    assert_eq!(send_all(&mut lane), [(1, 0)]);
}

#[test]
fn a_freed_number_is_not_given_to_what_had_an_earlier_one() {
    let (mut lane, _) = lane(3, 2);
    assert!(lane.failed(0, again()).is_empty());
    assert_eq!(applied(&lane.failed(1, never())), [Applied::No], "never in doubt");
    assert_eq!(send_all(&mut lane), [(0, 0)]);
    assert_eq!(lane.succeeded(1000, ok()).len(), 1);
    assert_eq!(send_all(&mut lane), [(0, 10)]);
}

#[test]
fn the_first_of_several_freed_numbers_is_asked_about() {
    let (mut lane, tickets) = in_doubt(2);
    assert!(lane.failed(1000, again()).is_empty());
    assert!(lane.failed(1001, never()).is_empty());
    let done = lane.expired(&tickets[0], timeout);
    assert_eq!(applied(&done), [Applied::Maybe]);
    assert_eq!(lane.settling().map(|s| s.sequence), Some(0));
    assert_eq!(applied(&settle(&mut lane, Outcome::Never)), [Applied::No]);
}

#[test]
fn sequence_numbers_go_round() {
    assert!(comes_before(0, 10) && !comes_before(10, 0) && !comes_before(0, 0));
    assert!(comes_before(i32::MAX - 3, 6) && !comes_before(6, i32::MAX - 3));
}

#[test]
fn a_refused_batch_in_doubt_expires_while_others_are_before_it() {
    let (mut lane, tickets) = in_doubt(2);
    assert!(lane.failed(1000, again()).is_empty());
    assert!(lane.failed(1001, never()).is_empty());
    let done = lane.expired(&tickets[1], timeout);
    assert!(Arc::ptr_eq(&done[0].ticket, &tickets[1]));
    assert_eq!(applied(&done), [Applied::Maybe]);
    assert_eq!(send_all(&mut lane), [(0, 0)]);
    assert_eq!(lane.succeeded(1000, ok()).len(), 1);
    assert_eq!(lane.settling().map(|s| s.sequence), Some(10));
}

#[test]
fn numbers_that_turn_out_to_be_used_are_not_given_again() {
    let (mut lane, tickets) = lane(3, 2);
    lane.lost(&Error::lost("cut"));
    lane.send(1000).expect("the first again");
    // Both expire, the second before it went again; both are there.
    assert_eq!(applied(&lane.expired(&tickets[0], timeout)), [Applied::Maybe]);
    assert_eq!(applied(&lane.expired(&tickets[1], timeout)), [Applied::Maybe]);
    settle(&mut lane, Outcome::Appended(ok()));
    settle(&mut lane, Outcome::Appended(ok()));
    assert_eq!(send_all(&mut lane), [(0, 20)]);
}

#[test]
fn nothing_goes_past_a_number_that_was_freed_while_others_are_in_flight() {
    let (mut lane, tickets) = lane(3, 2);
    lane.lost(&Error::lost("cut"));
    lane.send(1000).expect("the first again");
    assert_eq!(applied(&lane.expired(&tickets[1], timeout)), [Applied::Maybe]);
    assert!(!lane.can_send(), "it would leave a gap");
}

#[test]
fn a_refused_batch_in_doubt_is_unknown_where_its_producer_is_forgotten() {
    let (mut lane, _) = in_doubt(2);
    assert!(lane.failed(1000, refused(ErrorReason::ProducerUnknown, WireApplied::No)).is_empty());
    assert_eq!(applied(&lane.failed(1001, never())), [Applied::Maybe, Applied::Maybe]);
}

#[test]
fn a_forgotten_producer_takes_a_new_id_and_owns_up_to_what_it_does_not_know() {
    let (mut lane, tickets) = lane(3, 1);
    lane.lost(&Error::lost("cut"));
    lane.send(10);
    lane.send(11);
    let done = lane.failed(10, refused(ErrorReason::ProducerUnknown, WireApplied::No));
    assert!(done.is_empty(), "one is unanswered");
    let done = lane.failed(11, Verdict::Behind);
    assert!(Arc::ptr_eq(&done[0].ticket, &tickets[0]));
    assert_eq!(done[0].result.as_ref().unwrap_err().applied(), Applied::Maybe);
    assert!(lane.wants_identity());
    assert!(!lane.offer_identity(ME), "never the old id at number 0");
    assert!(lane.offer_identity(Producer { id: ProducerId(8), epoch: 0 }));
    assert_eq!(send_all(&mut lane), [(0, 0), (0, 10)]);
}

#[test]
fn a_batch_that_was_never_sent_expires_without_a_trace() {
    let (mut lane, tickets) = lane(2, 0);
    let done = lane.expired(&tickets[0], timeout);
    assert_eq!(done[0].result.as_ref().unwrap_err().applied(), Applied::No);
    assert_eq!(send_all(&mut lane), [(0, 0)]);
}

#[test]
fn a_batch_that_nobody_answers_expires_as_unknown_and_is_settled() {
    let (mut lane, tickets) = lane(3, 2);
    let done = lane.expired(&tickets[0], timeout);
    assert_eq!(done[0].result.as_ref().unwrap_err().applied(), Applied::Maybe);
    assert_eq!(lane.settling().map(|s| s.sequence), Some(0));
    // The second expires meanwhile; once the first turns out to be there, its number must be settled as well.
    lane.expired(&tickets[1], timeout);
    settle(&mut lane, Outcome::Appended(ok()));
    assert_eq!(lane.settling().map(|s| s.sequence), Some(10));
    // An answer of the old stream changes nothing.
    assert!(lane.succeeded(1, ok()).is_empty());
    settle(&mut lane, Outcome::Never);
    assert_eq!(send_all(&mut lane), [(1, 0)]);
}

#[test]
fn without_idempotence_nothing_is_repeated_that_may_be_there() {
    let mut lane = Lane::new(false, 5);
    for number in 0..4 {
        lane.arrive(number, Some(parcel(1)));
    }
    for id in 0..3 {
        assert_eq!(lane.send(id).map(|parcel| parcel.sequence), Some(None));
    }
    // Refused as not applied: it may go again, and what was behind it was not applied either.
    lane.failed(0, refused(ErrorReason::NotEnoughReplicas, WireApplied::No));
    let done = lane.failed(1, refused(ErrorReason::OutcomeUnknown, WireApplied::Maybe));
    assert_eq!(done[0].result.as_ref().unwrap_err().applied(), Applied::Maybe);
    let done = lane.lost(&Error::lost("cut"));
    assert_eq!(done.len(), 1);
    assert!(lane.send(9).is_some() && lane.send(10).is_some() && lane.send(11).is_none());
}

#[test]
fn nothing_overtakes_what_is_refused_with_a_batch_that_expired() {
    let mut lane = Lane::new(false, 5);
    let mut tickets = Vec::new();
    for number in 0..4 {
        let parcel = parcel(1);
        tickets.push(Arc::clone(&parcel.ticket));
        lane.arrive(number, Some(parcel));
    }
    (0..3).for_each(|id| assert!(lane.send(id).is_some()));
    assert_eq!(applied(&lane.expired(&tickets[0], timeout)), [Applied::Maybe]);
    assert!(lane.can_send(), "nothing was refused yet");
    assert!(lane.failed(0, never()).is_empty());
    assert!(!lane.can_send(), "two are behind it");
    lane.failed(1, Verdict::Behind);
    assert!(!lane.can_send(), "one is");
    lane.failed(2, Verdict::Behind);
    for (id, ticket) in (3..).zip(&tickets[1..]) {
        assert!(Arc::ptr_eq(&lane.send(id).expect("it may go").ticket, ticket));
    }
}

#[test]
fn a_refusal_of_what_expired_is_heard_whatever_has_been_settled() {
    let (mut lane, tickets) = lane(3, 2);
    assert_eq!(applied(&lane.expired(&tickets[0], timeout)), [Applied::Maybe]);
    assert!(lane.failed(0, never()).is_empty());
    assert!(settle(&mut lane, Outcome::Never).is_empty());
    lane.send(2).expect("the second again");
    // Its first attempt was refused as well: this one comes back, or was let in.
    assert!(lane.failed(1, Verdict::Behind).is_empty());
    assert!(!lane.can_send());
    assert_eq!(lane.succeeded(2, ok()).len(), 1);
    assert_eq!(send_all(&mut lane), [(1, 10)]);
}

#[test]
fn a_topic_that_is_gone_fails_everything() {
    let (mut lane, _) = lane(3, 2);
    assert!(lane.failed(0, refused(ErrorReason::TopicIdMismatch, WireApplied::No)).is_empty());
    let done = lane.failed(1, Verdict::Behind);
    assert_eq!(done.len(), 3);
    assert!(done.iter().all(|done| done.result.as_ref().unwrap_err().applied() == Applied::No));
    assert!(!lane.can_send() && !lane.has_inflight());
}

#[test]
fn what_was_early_when_everything_failed_leaves_no_hole() {
    let mut lane = Lane::new(true, 5);
    lane.arrive(1, Some(parcel(1)));
    assert_eq!(applied(&lane.fail_everything(&Error::topic_gone("t"))), [Applied::No]);
    lane.arrive(0, Some(parcel(1)));
    lane.arrive(2, Some(parcel(1)));
    assert!(lane.offer_identity(ME));
    assert_eq!(send_all(&mut lane), [(0, 0), (0, 1)]);
}

#[test]
fn the_old_id_is_refused_in_whatever_epoch() {
    let (mut lane, _) = in_doubt(2);
    lane.succeeded(1000, ok());
    lane.failed(1001, never());
    lane.arrive(2, Some(parcel(10)));
    settle(&mut lane, Outcome::Never);
    assert_eq!(send_all(&mut lane), [(1, 0)]);
    lane.failed(1000, refused(ErrorReason::ProducerUnknown, WireApplied::No));
    assert!(lane.wants_identity());
    assert!(!lane.offer_identity(ME), "never the old id at number 0");
}

#[test]
fn a_batch_expires_that_is_behind_one_that_has_not_come() {
    let mut lane = Lane::new(true, 5);
    let early = parcel(1);
    let ticket = Arc::clone(&early.ticket);
    lane.arrive(1, Some(early));
    assert_eq!(applied(&lane.expired(&ticket, timeout)), [Applied::No]);
    lane.arrive(0, Some(parcel(1)));
    lane.arrive(2, Some(parcel(1)));
    assert!(lane.offer_identity(ME));
    assert_eq!(send_all(&mut lane), [(0, 0), (0, 1)]);
}

#[test]
fn an_answer_to_an_older_question_says_nothing() {
    let (mut lane, _) = in_doubt(2);
    lane.succeeded(1000, ok());
    lane.failed(1001, never());
    let older = lane.settling().expect("a question").clone();
    // The map says that the topic is gone. It comes back, and the same happens again.
    assert_eq!(applied(&lane.fail_everything(&Error::topic_gone("t"))), [Applied::Maybe]);
    lane.arrive(2, Some(parcel(10)));
    assert!(lane.offer_identity(Producer { id: ProducerId(8), epoch: 0 }));
    lane.send(1000);
    lane.lost(&Error::lost("cut"));
    lane.send(1000);
    lane.failed(1000, never());
    assert!(lane.settled(&older, Outcome::Never).is_empty());
    assert_eq!(lane.settling().map(|s| s.producer.id), Some(ProducerId(8)));
}

#[test]
fn what_is_for_the_next_topic_of_the_name_outlives_the_one_that_is_gone() {
    let (mut lane, _) = lane(1, 1);
    lane.arrive(1, Some(Parcel { topic_id: "next".into(), ..parcel(10) }));
    let done = lane.failed(0, refused(ErrorReason::TopicIdMismatch, WireApplied::No));
    assert_eq!(applied(&done), [Applied::No]);
    assert!(lane.wants_identity());
    assert!(lane.offer_identity(Producer { id: ProducerId(8), epoch: 0 }));
    assert_eq!(send_all(&mut lane), [(0, 0)]);
}
