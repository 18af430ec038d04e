//! How the controllers are, and what to say of it.

use std::time::Duration;

use serde_json::{Value, json};
use weir_proto::v1::{Voter, VoterState};

use super::seen::Controllers;
use crate::units;

/// The controllers that vote.
#[derive(Debug)]
pub(super) enum Quorum<'a> {
    /// One of them leads, and knows how the others are.
    Led {
        voting: usize,
        /// Those that do not answer it, do not count, or say that they go on without it.
        away: Vec<&'a Voter>,
    },
    /// Nobody leads: how each is nobody knows.
    Unled { voting: usize },
    /// None answers, in these words.
    Silent(&'a str),
}

impl<'a> Quorum<'a> {
    pub(super) fn of(controllers: &'a Controllers) -> Self {
        let voters = match controllers {
            Controllers::Told(voters) => voters,
            Controllers::Silent(why) => return Self::Silent(why),
        };
        let voters = voters.iter().filter(|voter| voter.voting);
        let voting = voters.clone().count();
        match voters.clone().any(|voter| voter.leader) {
            true => {
                let is_missing =
                    |voter: &&Voter| matches!(voter.state(), VoterState::Away | VoterState::Rewound);
                let is_away = |voter: &&Voter| is_missing(voter) || is_apart(voter);
                Self::Led { voting, away: voters.filter(is_away).collect() }
            }
            false => Self::Unled { voting },
        }
    }

    /// Whether it says of brokers what is so now.
    pub(super) fn decides(&self) -> bool {
        matches!(self, Self::Led { voting, away } if 2 * (voting - away.len()) > *voting)
    }

    /// In the sentence.
    pub(super) fn counted(&self) -> String {
        match self {
            Self::Led { voting, away } => format!("{} of {voting} controllers", voting - away.len()),
            Self::Unled { voting } => format!("none of {voting} controllers leads"),
            Self::Silent(_) => "controllers unknown".to_owned(),
        }
    }

    /// What is wrong, each in a sentence.
    pub(super) fn problems(&self) -> Vec<String> {
        let known = "brokers and partitions are shown as they were last known";
        let cannot = "topics and settings cannot change";
        match self {
            Self::Led { voting, away } => {
                let mut said: Vec<_> = away.iter().map(|voter| said_of_away(voter)).collect();
                if 2 * away.len() >= *voting && !away.is_empty() {
                    said.push(format!("no quorum of controllers: {cannot}, and {known}"));
                }
                said
            }
            Self::Unled { .. } => vec![format!("no controller leads: {cannot}, and {known}")],
            Self::Silent(why) => vec![format!("{why}: {cannot}, and {known}")],
        }
    }

    /// The same in a few words.
    pub(super) fn brief(&self) -> Option<String> {
        match self {
            Self::Led { away, .. } if away.is_empty() => None,
            Self::Led { away, .. } if away.iter().any(|voter| is_apart(voter)) => {
                Some("two quorums of controllers decide".to_owned())
            }
            Self::Led { away, .. } if away.iter().any(|voter| is_rewound(voter)) => {
                let rewound = away.iter().filter(|voter| is_rewound(voter)).count();
                let have = if rewound == 1 { "has" } else { "have" };
                Some(format!(
                    "{} {have} an older copy of the log",
                    units::counted(rewound as u64, "controller")
                ))
            }
            Self::Led { away, .. } => {
                let are = if away.len() == 1 { "is" } else { "are" };
                Some(format!("{} {are} away", units::counted(away.len() as u64, "controller")))
            }
            Self::Unled { .. } => Some("no controller leads".to_owned()),
            Self::Silent(_) => Some("no controller answers".to_owned()),
        }
    }

    /// For programs: how many vote, how many of them are up, who is away; null is unknown.
    pub(super) fn json(&self) -> (Value, Value, Value) {
        match self {
            Self::Led { voting, away } => {
                let ids: Vec<_> = away.iter().map(|voter| voter.voter_id).collect();
                (json!(voting), json!(voting - away.len()), json!(ids))
            }
            Self::Unled { voting } => (json!(voting), Value::Null, Value::Null),
            Self::Silent(_) => (Value::Null, Value::Null, Value::Null),
        }
    }
}

/// Whether its quorum was recovered, and goes on without the one that leads here.
fn is_apart(voter: &Voter) -> bool {
    !voter.note.is_empty() && !is_rewound(voter)
}

/// Whether its data has gone back, so that it does not count.
fn is_rewound(voter: &Voter) -> bool {
    voter.state() == VoterState::Rewound
}

fn said_of_away(voter: &Voter) -> String {
    let (id, endpoint, note) = (voter.voter_id, &voter.endpoint, &voter.note);
    if is_apart(voter) {
        return format!(
            "two quorums of this cluster decide, of which a person has given one up: controller {id} at {endpoint} says: \
             {note}. Stop those that were given up (docs/operations/quorum.md)"
        );
    }
    if is_rewound(voter) {
        return format!("controller {id} at {endpoint} does not count: {note}");
    }
    let silence = units::elapsed(Duration::from_millis(voter.silent_ms.max(0).unsigned_abs()));
    format!("controller {id} at {endpoint} is away: the one that leads has not heard it for {silence}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn voter(voter_id: i64, leader: bool, voting: bool, state: VoterState) -> Voter {
        Voter {
            voter_id,
            endpoint: format!("c{voter_id}:1"),
            leader,
            voting,
            state: state.into(),
            silent_ms: 4_200,
            ..Voter::default()
        }
    }

    #[test]
    fn a_controller_that_votes_and_is_away_is_named() {
        let (up, away) = (VoterState::Up, VoterState::Away);
        let told = |voters: &[(i64, bool, bool, VoterState)]| {
            Controllers::Told(voters.iter().map(|(id, l, v, s)| voter(*id, *l, *v, *s)).collect())
        };
        let two = told(&[(1, true, true, up), (2, false, true, away), (3, false, false, away)]);
        let quorum = Quorum::of(&two);
        assert_eq!(quorum.counted(), "1 of 2 controllers", "who learns is not counted");
        let said = quorum.problems();
        assert_eq!(said[0], "controller 2 at c2:1 is away: the one that leads has not heard it for 4.2 s");
        assert!(said[1].starts_with("no quorum of controllers: "), "{said:?}");
        assert_eq!(quorum.json(), (json!(2), json!(1), json!([2])));

        let three = told(&[(1, true, true, up), (2, false, true, away), (3, false, true, up)]);
        assert_eq!(Quorum::of(&three).problems().len(), 1);
        let mut parted = voter(2, false, true, up);
        parted.note = "this quorum was recovered".to_owned();
        let parted = Controllers::Told(vec![voter(1, true, true, up), parted, voter(3, false, true, up)]);
        let quorum = Quorum::of(&parted);
        assert!(quorum.problems()[0].contains("controller 2 at c2:1 says: this quorum was recovered."));
        assert_eq!(quorum.brief().as_deref(), Some("two quorums of controllers decide"));

        let mut rewound = voter(2, false, true, VoterState::Rewound);
        rewound.note = "it has less of the log than it has acknowledged".to_owned();
        let rewound = Controllers::Told(vec![voter(1, true, true, up), rewound, voter(3, false, true, up)]);
        let quorum = Quorum::of(&rewound);
        assert_eq!(
            quorum.problems(),
            ["controller 2 at c2:1 does not count: it has less of the log than it has acknowledged"]
        );
        assert_eq!(quorum.brief().as_deref(), Some("1 controller has an older copy of the log"));
        assert_eq!((quorum.counted().as_str(), quorum.decides()), ("2 of 3 controllers", true));

        let well = told(&[(1, true, true, up)]);
        let quorum = Quorum::of(&well);
        assert_eq!((quorum.counted().as_str(), quorum.brief()), ("1 of 1 controllers", None));
        assert!(quorum.problems().is_empty());
    }

    #[test]
    fn where_none_leads_or_answers_none_is_counted_up_or_away() {
        let unknown = VoterState::Unspecified;
        let unled = Controllers::Told(vec![voter(1, false, true, unknown), voter(2, false, true, unknown)]);
        let quorum = Quorum::of(&unled);
        assert_eq!(quorum.counted(), "none of 2 controllers leads");
        assert!(quorum.problems()[0].starts_with("no controller leads: "));
        assert_eq!(quorum.json(), (json!(2), Value::Null, Value::Null));

        let silent = Controllers::Silent("no controller answered".to_owned());
        let quorum = Quorum::of(&silent);
        assert_eq!(quorum.counted(), "controllers unknown");
        assert!(
            quorum.problems()[0].starts_with("no controller answered: topics and settings cannot change")
        );
        assert!(quorum.brief().is_some());
        assert_eq!(quorum.json(), (Value::Null, Value::Null, Value::Null));
    }
}
