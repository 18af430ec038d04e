//! What a leader admits that no controller has answered for a session (correctness rule 10).

use weir_storage::{AppendError, Control};

use super::*;
use crate::replication::bells::Bells;
use crate::testing::{ID, Parts, append, batch, recorded};

#[tokio::test(start_paused = true)]
async fn who_is_not_heard_for_a_session_admits_only_what_epochs_protect() {
    let parts = Parts::new();
    let log = parts.lead(ID, recorded(1, &[1])).await;
    let say = async |acks, expected| {
        let answer = append(&log, batch(0), acks, expected).await.unwrap();
        answer.map(|appended| appended.base_offset)
    };
    parts.is_heard();
    assert_eq!(say(Acks::None, None).await, Ok(0));
    assert_eq!(say(Acks::Leader, None).await, Ok(1));
    assert_eq!(say(Acks::All, None).await, Ok(2));
    let mismatch = Err(AppendError::Refused(Refused::OffsetMismatch { next: 3 }));
    assert_eq!(say(Acks::All, Some(9)).await, mismatch);
    parts.is_unheard().await;
    let refused = Err(AppendError::Refused(Refused::Unsure));
    assert_eq!(say(Acks::None, None).await, refused);
    assert_eq!(say(Acks::Leader, None).await, refused);
    assert_eq!(say(Acks::All, Some(9)).await, refused, "whoever leads now may have come to that offset");
    // All who are in sync must have it, and they follow nobody else meanwhile.
    assert_eq!(say(Acks::All, None).await, Ok(3));
    assert_eq!(say(Acks::All, Some(4)).await, Ok(4));
    parts.is_heard();
    assert_eq!(say(Acks::Leader, None).await, Ok(5));
}

/// A log of ten records in one segment, of which the first five are deleted.
#[tokio::test]
async fn who_ends_before_the_start_begins_anew_where_the_frame_begins_that_holds_it() {
    let parts = Parts::new();
    parts.is_heard();
    let log = parts.lead(ID, recorded(1, &[1])).await;
    for records in [3, 4, 3] {
        let batch =
            weir_storage::NewBatch { last_offset_delta: records - 1, record_count: records, ..batch(0) };
        append(&log, batch, Acks::All, None).await.unwrap().unwrap();
    }
    log.control(Control::SetLogStart { offset: 5 }).await.unwrap();
    let led = parts.replication.led(ID).unwrap();
    let follower = Member { broker: BrokerId(2), epoch: 1 };
    let ring = Bells::new();
    let welcome = |number, log_end| {
        let position = Position { log_end, flushed_end: log_end, last_epoch: (log_end > 0).then_some(1) };
        led.subscribe(follower, number, position, &ring.bell(1)).unwrap()
    };
    let begins_at = |log_start| Welcome::StartOver { log_start };
    assert_eq!([welcome(1, 0), welcome(2, 3)], [begins_at(5), begins_at(5)]);
    assert_eq!(welcome(3, 7), Welcome::Follow);
    // Somebody was told how it begins: with the second batch.
    let state = log.start_state().await.unwrap();
    assert_eq!(state.offset(), 3);
    led.gives_start(None, 5, state.offset());
    assert_eq!([welcome(4, 0), welcome(5, 3)], [begins_at(3), Welcome::Follow]);
    // That holds for this start alone.
    log.control(Control::SetLogStart { offset: 7 }).await.unwrap();
    assert_eq!([welcome(6, 3), welcome(7, 7)], [begins_at(7), Welcome::Follow]);
    // But for whoever was told to begin there, and comes with that once.
    led.gives_start(Some(BrokerId(2)), 5, 3);
    assert_eq!([welcome(8, 3), welcome(9, 3)], [Welcome::Follow, begins_at(7)]);
    led.gives_start(Some(BrokerId(2)), 5, 3);
    assert_eq!([welcome(10, 0), welcome(11, 3)], [begins_at(7); 2], "it comes with something else");
}

/// What the leader had there it has deleted, and where its leadership begins it knows still.
#[tokio::test]
async fn who_has_another_history_of_what_was_deleted_gives_that_up() {
    let parts = Parts::new();
    parts.is_heard();
    let log = parts.lead(ID, recorded(1, &[1])).await;
    let append_all = async |count| {
        for _ in 0..count {
            append(&log, batch(0), Acks::All, None).await.unwrap().unwrap();
        }
    };
    append_all(3).await;
    let leading = parts.replication.lead(&log, Durability::Fsync, recorded(2, &[1]));
    log.control(Control::SetAdmission(Box::new(leading))).await.unwrap();
    append_all(4).await;
    log.control(Control::SetLogStart { offset: 5 }).await.unwrap();
    let led = parts.replication.led(ID).unwrap();
    let (follower, ring) = (Member { broker: BrokerId(2), epoch: 1 }, Bells::new());
    let welcome = |number, log_end, last_epoch| {
        let position = Position { log_end, flushed_end: log_end, last_epoch: Some(last_epoch) };
        led.subscribe(follower, number, position, &ring.bell(1)).unwrap()
    };
    let parted = Welcome::Diverged { epoch: 1, end: 3, log_start: 5 };
    assert_eq!([welcome(1, 5, 1), welcome(2, 9, 1)], [parted; 2]);
    assert_eq!([welcome(3, 3, 1), welcome(4, 5, 2)], [Welcome::StartOver { log_start: 5 }, Welcome::Follow]);
}

#[test]
fn what_is_admitted_by_who_is_not_heard_is_noticed() {
    let test = who_is_not_heard_for_a_session_admits_only_what_epochs_protect;
    assert!(Mutant::AdmittedUnheard.is_noticed_by(test));
}

#[test]
fn what_is_deleted_and_given_to_a_follower_is_noticed() {
    let test = who_ends_before_the_start_begins_anew_where_the_frame_begins_that_holds_it;
    assert!(Mutant::DeletedGiven.is_noticed_by(test));
}
