//! What an unclean election loses: exactly, where all replicas have answered; else at least so much, and who may have had
//! more.

use weir_proto::v1::{BrokerDescription, ElectLeadersResponse, Election, PartitionDescription};

use crate::commands::{broker, partition};
use crate::error::Result;
use crate::session::Session;
use crate::units;

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
    /// Those that did not, in words.
    silent: Vec<String>,
    /// Those of them that are known to have every acknowledged record.
    complete: Vec<String>,
    /// Who led last, if that is known.
    led_last: Option<i32>,
    /// Whether that one has not answered.
    is_leader_silent: bool,
}

impl Loss {
    fn of(election: &Election, described: &[PartitionDescription], brokers: &[BrokerDescription]) -> Self {
        let this =
            |p: &&PartitionDescription| (&p.topic, p.partition) == (&election.topic, election.partition);
        let described = described.iter().find(this);
        let led_last = described.map(|p| p.last_known_leader).filter(|leader| *leader >= 0);
        let is_complete = |id: &i32| described.is_some_and(|p| p.isr.contains(id) || p.eligible.contains(id));
        let silent: Vec<i32> = election
            .replicas
            .iter()
            .filter(|replica| !replica.answered)
            .map(|replica| replica.broker_id)
            .collect();
        let in_words = |id: &i32| match brokers.iter().find(|broker| broker.broker_id == *id) {
            Some(known) => format!("broker {id} ({})", broker::state(known.state())),
            None => format!("broker {id}"),
        };
        Self {
            records: election.records_lost,
            is_leader_silent: led_last.is_some_and(|leader| silent.contains(&leader)),
            led_last,
            silent: silent.iter().map(in_words).collect(),
            complete: silent.iter().filter(|id| is_complete(id)).map(in_words).collect(),
        }
    }

    /// Whether no replica is left that could have had more.
    pub(super) fn is_known(&self) -> bool {
        self.silent.is_empty()
    }

    /// Why there may be more to lose; `None`: there is no more.
    pub(super) fn said(&self) -> Option<String> {
        if self.is_known() {
            return None;
        }
        let (do_not, may) = match self.silent.len() {
            1 => ("does not answer", "may have more"),
            _ => ("do not answer", "may each have more"),
        };
        let led = match self.led_last {
            Some(leader) if self.is_leader_silent => {
                format!("; broker {leader} led last, and what it acknowledged alone nobody else has")
            }
            Some(leader) => format!("; broker {leader}, which led last, has answered"),
            None => "; who led last is unknown".to_owned(),
        };
        let instead = match self.complete.as_slice() {
            [] => String::new(),
            [one] => {
                format!("{one} has every acknowledged record: start it instead, and nothing is lost. Else ")
            }
            some => format!(
                "{} have every acknowledged record: start one of them instead, and nothing is lost. Else ",
                some.join(" and ")
            ),
        };
        Some(format!(
            "{instead}at least {} lost; how many more is unknown: {} {do_not} and {may}{led}",
            units::counted(self.records, "record"),
            self.silent.join(" and ")
        ))
    }
}

#[cfg(test)]
mod tests {
    use weir_proto::v1::{BrokerState, ReplicaState};

    use super::*;

    /// Of `t/0`, which broker 2 led last, if anybody.
    fn loss(answered: &[(i32, bool)], last_known_leader: i32) -> Loss {
        let replica = |(broker_id, answered): &(i32, bool)| ReplicaState {
            broker_id: *broker_id,
            answered: *answered,
            ..ReplicaState::default()
        };
        let replicas = answered.iter().map(replica).collect();
        let election = Election { topic: "t".into(), replicas, ..Election::default() };
        let described =
            PartitionDescription { topic: "t".into(), last_known_leader, ..PartitionDescription::default() };
        let removed = BrokerDescription {
            broker_id: 2,
            state: BrokerState::Removed.into(),
            ..BrokerDescription::default()
        };
        Loss::of(&election, &[described], &[removed])
    }

    #[test]
    fn whoever_is_complete_and_only_stopped_is_named_first() {
        let replica = |broker_id, answered| ReplicaState { broker_id, answered, ..ReplicaState::default() };
        let replicas = vec![replica(1, true), replica(2, false), replica(3, false)];
        let election = Election { topic: "t".into(), replicas, ..Election::default() };
        let said = |isr: &[i32], eligible: &[i32]| {
            let (isr, eligible) = (isr.to_vec(), eligible.to_vec());
            let described = PartitionDescription { topic: "t".into(), isr, eligible, ..Default::default() };
            Loss::of(&election, &[described], &[]).said().unwrap()
        };
        let both = said(&[2], &[3]);
        assert!(
            both.starts_with("broker 2 and broker 3 have every acknowledged record: start one of them"),
            "{both}"
        );
        let one = said(&[], &[3]);
        assert!(one.starts_with("broker 3 has every acknowledged record: start it instead"), "{one}");
        assert!(said(&[], &[]).starts_with("at least 0 records lost"));
    }

    #[test]
    fn a_loss_is_known_where_everybody_answers() {
        let known = loss(&[(1, true), (2, true)], 2);
        assert_eq!((known.is_known(), known.said()), (true, None));
    }

    #[test]
    fn a_replica_that_does_not_answer_may_have_had_more() {
        let leader = loss(&[(1, true), (2, false)], 2);
        assert!(!leader.is_known());
        assert_eq!(
            leader.said().unwrap(),
            "at least 0 records lost; how many more is unknown: broker 2 (removed) does not answer and may have more; \
             broker 2 led last, and what it acknowledged alone nobody else has"
        );
        let both = loss(&[(1, true), (2, false), (3, false)], 1).said().unwrap();
        assert!(
            both.contains("broker 2 (removed) and broker 3 do not answer and may each have more"),
            "{both}"
        );
        assert!(both.ends_with("; broker 1, which led last, has answered"), "{both}");
        let unknown = loss(&[(1, true), (2, false)], -1).said().unwrap();
        assert!(unknown.ends_with("; who led last is unknown"), "{unknown}");
    }
}
