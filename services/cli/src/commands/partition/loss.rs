//! What an unclean election loses, and what of it a person accepts: exactly so many records, where the server knows how many
//! they are; else at least so many, and who may have had more.

use std::fmt;
use std::str::FromStr;

use weir_proto::v1::{BrokerDescription, BrokerState, ElectLeadersResponse, Election, PartitionDescription};

use crate::commands::{broker, partition};
use crate::error::Result;
use crate::session::Session;
use crate::units;

/// What a person accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Accepted {
    /// So many records.
    Records(i64),
    /// Whatever it is.
    Unknown,
}

impl Accepted {
    /// How many, if that is said.
    pub(super) fn records(self) -> Option<i64> {
        match self {
            Self::Records(records) => Some(records),
            Self::Unknown => None,
        }
    }

    /// Asked before it is done.
    pub(super) fn question(self) -> String {
        match self {
            Self::Records(records) => {
                format!("Elect leaders and lose {} for good?", units::counted(records, "record"))
            }
            Self::Unknown => "Elect leaders and lose for good whatever only replicas have that do not answer, however much \
                              that is?"
                .to_owned(),
        }
    }
}

impl FromStr for Accepted {
    type Err = String;

    fn from_str(given: &str) -> std::result::Result<Self, String> {
        if given == "unknown" {
            return Ok(Self::Unknown);
        }
        let records = given.parse().map_err(|_| {
            "it is a number of records, as the dry run says it, or the word unknown, where that says so"
                .to_owned()
        });
        records.map(Self::Records)
    }
}

impl fmt::Display for Accepted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Records(records) => write!(f, "{records}"),
            Self::Unknown => f.write_str("unknown"),
        }
    }
}

/// What was known before anybody was elected.
#[derive(Debug, Default)]
pub(super) struct Before {
    /// The partitions, for who led them last.
    described: Vec<PartitionDescription>,
    brokers: Vec<BrokerDescription>,
}

impl Before {
    pub(super) async fn ask(session: &Session, partitions: &[(String, i32)]) -> Result<Self> {
        let names: Vec<_> = partitions.iter().map(|(topic, number)| format!("{topic}/{number}")).collect();
        Ok(Self { described: partition::named(session, &names).await?, brokers: broker::all(session).await? })
    }

    /// Of unclean elections, each of them.
    pub(super) fn losses(&self, answer: &ElectLeadersResponse) -> Vec<Loss> {
        answer.elections.iter().map(|election| Loss::of(election, &self.described, &self.brokers)).collect()
    }
}

/// What one election loses.
#[derive(Debug, Default)]
pub(super) struct Loss {
    /// As far as those know that answered.
    records: i64,
    /// Whether there may be more, as the server says.
    is_unknown: bool,
    /// Those that have not said what they hold, in words, but for those that were removed.
    silent: Vec<String>,
    /// Those that were removed: what they had nobody waits for.
    removed: Vec<String>,
    /// Those of them that are known to have every acknowledged record.
    complete: Vec<String>,
    led_last: LedLast,
}

/// Who led last, and what that says of the loss.
#[derive(Debug, Default, PartialEq, Eq)]
enum LedLast {
    #[default]
    Unknown,
    /// It has said what it holds.
    Answered(i32),
    Silent(i32),
    /// It was removed.
    Removed(i32),
    /// It has no replica any more.
    Elsewhere(i32),
}

impl LedLast {
    fn of(leader: Option<i32>, election: &Election, silent: &[i32], removed: &[i32]) -> Self {
        match leader {
            None => Self::Unknown,
            Some(id) if removed.contains(&id) => Self::Removed(id),
            Some(id) if silent.contains(&id) => Self::Silent(id),
            Some(id) if election.replicas.iter().any(|replica| replica.broker_id == id) => Self::Answered(id),
            Some(id) => Self::Elsewhere(id),
        }
    }

    /// In words.
    fn said(&self) -> String {
        match self {
            Self::Unknown => "who led last is unknown".to_owned(),
            Self::Answered(id) => format!("broker {id}, which led last, has answered"),
            Self::Silent(id) => {
                format!("broker {id} led last, and what it acknowledged alone nobody else has")
            }
            Self::Removed(id) => {
                format!("broker {id} led last and was removed: what it acknowledged alone is lost already")
            }
            Self::Elsewhere(id) => format!("broker {id}, which led last, has no replica any more"),
        }
    }
}

impl Loss {
    fn of(election: &Election, described: &[PartitionDescription], brokers: &[BrokerDescription]) -> Self {
        let this =
            |p: &&PartitionDescription| (&p.topic, p.partition) == (&election.topic, election.partition);
        let described = described.iter().find(this);
        let led_last = described.map(|p| p.last_known_leader).filter(|leader| *leader >= 0);
        let is_complete = |id: &i32| described.is_some_and(|p| p.isr.contains(id) || p.eligible.contains(id));
        let unheard = election.replicas.iter().filter(|replica| !replica.answered);
        let state =
            |id: &i32| brokers.iter().find(|broker| broker.broker_id == *id).map(BrokerDescription::state);
        let (removed, silent): (Vec<i32>, Vec<i32>) =
            unheard.map(|replica| replica.broker_id).partition(|id| state(id) == Some(BrokerState::Removed));
        let in_words = |id: &i32| match state(id) {
            Some(state) => format!("broker {id} ({})", broker::state(state)),
            None => format!("broker {id}"),
        };
        Self {
            records: election.records_lost,
            is_unknown: election.loss_unknown,
            led_last: LedLast::of(led_last, election, &silent, &removed),
            silent: silent.iter().map(in_words).collect(),
            removed: removed.iter().map(in_words).collect(),
            complete: silent.iter().filter(|id| is_complete(id)).map(in_words).collect(),
        }
    }

    /// What is lost already, and nobody can count: it was on disks that somebody has given up.
    pub(super) fn lost_before(&self) -> Option<String> {
        let also = match self.led_last {
            LedLast::Removed(_) => format!(" ({})", self.led_last.said()),
            _ => String::new(),
        };
        (!self.removed.is_empty()).then(|| {
            format!("what only {} had, which was lost with its disk{also}", self.removed.join(" and "))
        })
    }

    /// Why there may be more to lose, or what is lost already; `None`: there is nothing more.
    /// `trial`: nobody is elected yet.
    pub(super) fn said(&self, trial: bool) -> Option<String> {
        if !self.is_unknown {
            return self.lost_before().map(|lost| format!("not counted: {lost}"));
        }
        let (do_not, may) = match self.silent.len() {
            0 => ("a replica has not said what it holds", "may have more"),
            1 => ("has not said what it holds", "may have more"),
            _ => ("have not said what they hold", "may each have more"),
        };
        let led = self.led_last.said();
        let instead = match self.complete.as_slice() {
            complete if complete.is_empty() || !trial => String::new(),
            [one] => {
                format!(
                    "{one} has every acknowledged record: bring it back instead, and nothing is lost. Else "
                )
            }
            some => format!(
                "{} have every acknowledged record: bring one of them back instead, and nothing is lost. Else ",
                some.join(" and ")
            ),
        };
        Some(format!(
            "{instead}at least {} lost; how many more is unknown: {}{do_not} and {may}; {led}",
            units::counted(self.records, "record"),
            self.silent.iter().map(|one| format!("{one} ")).collect::<Vec<_>>().join("and ")
        ))
    }
}

#[cfg(test)]
mod tests {
    use weir_proto::v1::{BrokerState, ReplicaState};

    use super::*;

    /// Of `t/0`; broker 4 was removed.
    fn loss(answered: &[(i32, bool)], last_known_leader: i32, loss_unknown: bool) -> Loss {
        let replica = |(broker_id, answered): &(i32, bool)| ReplicaState {
            broker_id: *broker_id,
            answered: *answered,
            ..ReplicaState::default()
        };
        let replicas = answered.iter().map(replica).collect();
        let election = Election { topic: "t".into(), replicas, loss_unknown, ..Election::default() };
        let described =
            PartitionDescription { topic: "t".into(), last_known_leader, ..PartitionDescription::default() };
        let broker = |broker_id, state: BrokerState| BrokerDescription {
            broker_id,
            state: state.into(),
            ..BrokerDescription::default()
        };
        Loss::of(&election, &[described], &[broker(2, BrokerState::Fenced), broker(4, BrokerState::Removed)])
    }

    #[test]
    fn whoever_is_complete_and_only_stopped_is_named_first() {
        let replica = |broker_id, answered| ReplicaState { broker_id, answered, ..ReplicaState::default() };
        let replicas = vec![replica(1, true), replica(2, false), replica(3, false)];
        let election = Election { topic: "t".into(), replicas, loss_unknown: true, ..Election::default() };
        let said = |isr: &[i32], eligible: &[i32]| {
            let (isr, eligible) = (isr.to_vec(), eligible.to_vec());
            let described = PartitionDescription { topic: "t".into(), isr, eligible, ..Default::default() };
            Loss::of(&election, &[described], &[]).said(true).unwrap()
        };
        let both = said(&[2], &[3]);
        assert!(
            both.starts_with("broker 2 and broker 3 have every acknowledged record: bring one of them"),
            "{both}"
        );
        let one = said(&[], &[3]);
        assert!(one.starts_with("broker 3 has every acknowledged record: bring it back instead"), "{one}");
        assert!(said(&[], &[]).starts_with("at least 0 records lost"));
        let described = PartitionDescription { topic: "t".into(), isr: vec![2], ..Default::default() };
        let done = Loss::of(&election, &[described], &[]).said(false).unwrap();
        assert!(done.starts_with("at least 0 records lost"), "it is too late for that: {done}");
    }

    #[test]
    fn a_loss_is_known_where_the_server_says_so() {
        assert_eq!(loss(&[(1, true), (2, true)], 2, false).said(true), None);
        let given_up = loss(&[(1, true), (4, false)], 4, false).said(true).unwrap();
        assert_eq!(
            given_up,
            "not counted: what only broker 4 (removed) had, which was lost with its disk (broker 4 led last and was removed: what \
             it acknowledged alone is lost already)"
        );
        let followed = loss(&[(1, true), (4, false)], 1, false).said(true).unwrap();
        assert_eq!(followed, "not counted: what only broker 4 (removed) had, which was lost with its disk");
        let unsaid = loss(&[(1, true)], 1, true).said(true).unwrap();
        assert!(
            unsaid.contains("how many more is unknown: a replica has not said what it holds and may"),
            "{unsaid}"
        );
    }

    #[test]
    fn a_replica_that_does_not_answer_may_have_had_more() {
        assert_eq!(
            loss(&[(1, true), (2, false), (4, false)], 2, true).said(true).unwrap(),
            "at least 0 records lost; how many more is unknown: broker 2 (fenced) has not said what it holds and may have more; \
             broker 2 led last, and what it acknowledged alone nobody else has"
        );
        let both = loss(&[(1, true), (2, false), (3, false)], 1, true).said(true).unwrap();
        assert!(
            both.contains(
                "broker 2 (fenced) and broker 3 have not said what they hold and may each have more"
            ),
            "{both}"
        );
        assert!(both.ends_with("; broker 1, which led last, has answered"), "{both}");
        let removed = loss(&[(1, true), (2, false), (4, false)], 4, true).said(true).unwrap();
        assert!(
            removed.contains("; broker 4 led last and was removed: what it acknowledged alone"),
            "{removed}"
        );
        let moved = loss(&[(1, true), (2, false)], 7, true).said(true).unwrap();
        assert!(moved.ends_with("; broker 7, which led last, has no replica any more"), "{moved}");
        let unknown = loss(&[(1, true), (2, false)], -1, true).said(true).unwrap();
        assert!(unknown.ends_with("; who led last is unknown"), "{unknown}");
    }

    #[test]
    fn what_is_accepted_is_a_number_or_the_word() {
        let accepted = |given: &str| given.parse::<Accepted>();
        assert_eq!((accepted("12"), accepted("unknown")), (Ok(Accepted::Records(12)), Ok(Accepted::Unknown)));
        for wrong in ["", "all", "12 records", "UNKNOWN?"] {
            assert!(accepted(wrong).unwrap_err().contains("or the word unknown"), "{wrong}");
        }
    }
}
