//! What a leader admits that no controller has answered for a session (correctness rule 10).

use weir_storage::AppendError;

use super::*;
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

#[test]
fn what_is_admitted_by_who_is_not_heard_is_noticed() {
    let test = who_is_not_heard_for_a_session_admits_only_what_epochs_protect;
    assert!(Mutant::AdmittedUnheard.is_noticed_by(test));
}
