//! What openraft refuses, in words that help whoever asked: it speaks of its own types.

use openraft::BasicNode;
use openraft::error::{ChangeMembershipError, ClientWriteError, QuorumNotEnough, RaftError};

/// Why who votes was not changed.
pub(crate) fn not_changed(error: &RaftError<u64, ClientWriteError<u64, BasicNode>>) -> String {
    match error {
        RaftError::Fatal(_) => failed(),
        RaftError::APIError(ClientWriteError::ForwardToLeader(_)) => {
            "this controller does not lead any more".to_owned()
        }
        RaftError::APIError(ClientWriteError::ChangeMembershipError(error)) => match error {
            ChangeMembershipError::InProgress(_) => {
                "another change of who votes is not finished: try again in a moment".to_owned()
            }
            ChangeMembershipError::EmptyMembership(_) => "nobody would be left to vote".to_owned(),
            ChangeMembershipError::LearnerNotFound(unknown) => {
                format!("controller {} has no place in the quorum yet", unknown.node_id)
            }
        },
    }
}

/// Why a round to the quorum was not answered by enough of those that vote.
pub(crate) fn too_few(missing: &QuorumNotEnough<u64>) -> String {
    let got: Vec<_> = missing.got.iter().map(ToString::to_string).collect();
    match got.as_slice() {
        [] => "no controller answers".to_owned(),
        [one] => format!("no quorum of controllers answers: controller {one} alone does"),
        several => {
            format!("no quorum of controllers answers: of those that vote only {} do", several.join(", "))
        }
    }
}

/// Of a controller whose consensus has ended, in order or by an error.
pub(crate) fn failed() -> String {
    "this controller is ending: its log says why".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_answers_is_named() {
        let of = |got: &[u64]| {
            too_few(&QuorumNotEnough { cluster: "[{1,2,3}]".to_owned(), got: got.iter().copied().collect() })
        };
        assert_eq!(of(&[1]), "no quorum of controllers answers: controller 1 alone does");
        assert_eq!(of(&[4, 2]), "no quorum of controllers answers: of those that vote only 2, 4 do");
        assert_eq!(of(&[]), "no controller answers");
    }
}
