//! What an unclean election loses, and whether a person has accepted that: by its number where it is known, by a word where it
//! is not. Who is elected is not decided here.
//!
//! A loss is known when every replica has said what it holds. One that is silent may hold more than anybody knows of; it may even
//! be known to hold everything, and only have been stopped. So may one whose broker answers, and cannot open its log now. A number is no answer to that: it would be what those who
//! answer happen to know, and who accepts a small one has not seen what he gives up. Only a broker that was removed is not
//! waited for: nothing that it had can be started any more, and whoever removed it has given that up.

use std::collections::BTreeMap;

use weir_metadata::{Broker, BrokerState, Image, Partition, Replica};
use weir_proto::v1::{ElectLeadersRequest, ErrorReason};
use weir_rpc::Problem;
use weir_types::BrokerId;

use crate::mutant::Mutant;
use crate::reports::Report;

/// What the election of one leader loses.
#[derive(Debug)]
pub(super) struct Loss {
    topic: String,
    partition: i32,
    /// As far as those know that answered.
    pub(super) records: i64,
    /// Who may hold more.
    silent: Vec<Silent>,
}

/// A replica that has not said what it holds, and still could.
#[derive(Debug, PartialEq, Eq)]
struct Silent {
    broker: BrokerId,
    /// How its broker is.
    how: String,
    /// Whether it is known to hold every acknowledged record.
    is_complete: bool,
}

impl Loss {
    /// Of a partition whose log goes on at `end`, by what was answered.
    pub(super) fn of(
        (topic, partition): (String, i32),
        image: &Image,
        record: &Partition,
        answers: &BTreeMap<BrokerId, Report>,
        end: i64,
    ) -> Self {
        let known = answers.values().map(Report::known).max();
        let silent = record.replicas.iter().filter_map(|replica| {
            let is_complete = record.waited_for().any(|broker| broker == replica.broker);
            let broker = image.broker(replica.broker)?;
            let how = silent(broker, replica, answers.get(&replica.broker))?;
            Some(Silent { broker: replica.broker, how, is_complete })
        });
        let records = known.unwrap_or(0).saturating_sub(end).max(0);
        Self { topic, partition, records, silent: silent.collect() }
    }

    /// Whether it is no more than that.
    pub(super) fn is_known(&self) -> bool {
        self.silent.is_empty()
    }

    /// Whoever looks for lost records later finds here what was accepted, for this partition alone.
    pub(super) fn say_accepted(&self, leader: BrokerId) {
        let (topic, partition, broker, lost) = (&self.topic, self.partition, leader.0, self.records);
        if self.is_known() {
            tracing::warn!(topic, partition, broker, lost, "a person has accepted the loss of records");
            return;
        }
        let silent = named(self.silent.iter());
        tracing::warn!(
            topic,
            partition,
            broker,
            lost_at_least = lost,
            silent,
            "a person has accepted the loss of records, of which nobody knows how many they are"
        );
    }
}

/// Whether a replica may hold more than anybody has said: how its broker is then. `None`: it has said what it holds, or holds
/// nothing that could be brought back.
fn silent(broker: &Broker, replica: &Replica, answer: Option<&Report>) -> Option<String> {
    if broker.state == BrokerState::Removed {
        return None;
    }
    // It answers for the directories that it has.
    let is_away = replica.directory().is_some_and(|directory| !broker.has_directory(directory));
    match answer {
        Some(_) if is_away => Some(format!("{}, without this replica's directory", broker.state)),
        // One that was never made is in no set, and nobody has waited for it.
        Some(answer) => {
            let why = replica.directory().and(answer.unsaid())?;
            Some(format!("{}, its log cannot be used: {why}", broker.state))
        }
        None if broker.is_failed() => Some("its disk has failed".to_owned()),
        None => Some(broker.state.to_string()),
    }
}

/// What a person has accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Accepted {
    /// He did not say.
    Nothing,
    /// So many records.
    Records(i64),
    /// Whatever it is.
    Unknown,
}

impl Accepted {
    pub(super) fn by(asked: &ElectLeadersRequest) -> Result<Self, Problem> {
        match (asked.accepted_loss_records, asked.accept_unknown_loss) {
            (None, false) => Ok(Self::Nothing),
            (Some(records), false) => Ok(Self::Records(records)),
            (None, true) => Ok(Self::Unknown),
            (Some(_), true) => {
                let why =
                    "a loss that is known is accepted by its number, and only one that is not by a word";
                Err(Problem::conflict("accepted_loss_records", "accept_unknown_loss", why))
            }
        }
    }
}

/// Nobody loses what he has not seen: exactly so many records must have been accepted, or, where that is unknown, that it is. And
/// nobody gives up more than he must: where it is known, it is the number that is accepted.
pub(super) fn check_accepted(accepted: Accepted, losses: &[&Loss]) -> Result<(), Problem> {
    if Mutant::LossUnasked.is_planted() {
        return Ok(());
    }
    let lost: i64 = losses.iter().map(|loss| loss.records).sum();
    let unknown: Vec<_> = losses.iter().copied().filter(|loss| !loss.is_known()).collect();
    let Some(first) = unknown.first() else {
        let rest = match accepted {
            Accepted::Records(records) if records == lost => return Ok(()),
            Accepted::Records(records) => format!("and {records} were accepted"),
            Accepted::Nothing => "and how many may be was not said".to_owned(),
            Accepted::Unknown => {
                "and no more: every replica that is left has answered, so it is this number that is to be accepted".to_owned()
            }
        };
        let said = format!("{lost} records would be lost, {rest}");
        return Err(Problem::new(ErrorReason::LossNotAccepted, said).fact("records_lost", lost));
    };
    if accepted == Accepted::Unknown {
        return Ok(());
    }
    let (silent, complete) =
        (|| unknown.iter().flat_map(|loss| &loss.silent), |one: &&Silent| one.is_complete);
    let problem = Problem::new(ErrorReason::LossNotAccepted, refusal(first, unknown.len() - 1, lost))
        .fact("loss_unknown", true)
        .fact("records_lost_at_least", lost)
        .fact("unanswered", ids(silent()));
    let waits_for = ids(silent().filter(complete));
    let problem = if waits_for.is_empty() { problem } else { problem.fact("waits_for", waits_for) };
    Err(problem.at(&first.topic, first.partition))
}

/// Why no number is taken. What is better than to lose anything comes before the word that does it.
fn refusal(loss: &Loss, others: usize, lost: i64) -> String {
    let Loss { topic, partition, silent, .. } = loss;
    let does = match silent.len() {
        1 => "has not said what it holds",
        _ => "have not said what they hold",
    };
    let others = match others {
        0 => String::new(),
        1 => " (and 1 more partition is like it)".to_owned(),
        others => format!(" (and {others} more partitions are like it)"),
    };
    let complete: Vec<_> = silent.iter().filter(|one| one.is_complete).collect();
    let instead = match complete.as_slice() {
        [] => String::new(),
        [one] => format!(
            "; broker {} is known to have every acknowledged record: bring it back instead, and nothing is lost",
            one.broker
        ),
        _ => format!(
            "; brokers {} are known to have every acknowledged record: bring one of them back instead, and nothing is lost",
            ids(complete.into_iter())
        ),
    };
    format!(
        "how many records would be lost is unknown, at least {lost}: of {topic}/{partition} {} {does}{others}{instead}; no \
         number is taken for it, but accept_unknown_loss (--accept-loss unknown)",
        named(silent.iter())
    )
}

fn named<'a>(silent: impl Iterator<Item = &'a Silent>) -> String {
    silent.map(|one| format!("broker {} ({})", one.broker, one.how)).collect::<Vec<_>>().join(" and ")
}

/// Each once.
fn ids<'a>(silent: impl Iterator<Item = &'a Silent>) -> String {
    let ids: std::collections::BTreeSet<_> = silent.map(|one| one.broker).collect();
    ids.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use weir_types::DirectoryId;

    use super::*;

    fn broker(state: BrokerState) -> Broker {
        Broker {
            id: BrokerId(2),
            epoch: 1,
            state,
            persisted_epoch: 1,
            directories: vec![DirectoryId(7)],
            rack: String::new(),
            endpoints: Vec::new(),
            version: String::new(),
            registered_ms: 0,
            incarnation: 0,
            failed: Vec::new(),
            stopped: false,
        }
    }

    #[test]
    fn who_was_removed_is_not_waited_for_and_everybody_else_who_is_silent_is() {
        let replica = |directory| Replica::new(BrokerId(2), Some(DirectoryId(directory)));
        let holds = said_by("", Some(0));
        let said = |state, directory, answered: bool| {
            silent(&broker(state), &replica(directory), answered.then_some(&holds))
        };
        use BrokerState as State;
        assert_eq!(said(State::Fenced, 7, false).as_deref(), Some("fenced"));
        assert_eq!(said(State::Active, 7, false).as_deref(), Some("active"), "it is slow to answer");
        assert_eq!(said(State::Active, 7, true), None);
        assert_eq!(said(State::Removed, 7, false), None);
        assert!(said(State::Active, 8, true).unwrap().contains("without this replica's directory"));
    }

    fn said_by(problem: &str, known_end: Option<i64>) -> Report {
        Report {
            epoch: 1,
            acted: 1,
            last_epoch: 0,
            log_end: 0,
            high_watermark: 0,
            problem: problem.to_owned(),
            whole: None,
            known_end,
            unreadable: String::new(),
        }
    }

    fn who_cannot_say_what_it_holds_is_silent() {
        let said = |directory, problem, known_end| {
            let replica = Replica::new(BrokerId(2), directory);
            silent(&broker(BrokerState::Active), &replica, Some(&said_by(problem, known_end)))
        };
        let here = Some(DirectoryId(7));
        let closed = said(here, "open 0.log: Too many open files", None).unwrap();
        assert_eq!(closed, "active, its log cannot be used: open 0.log: Too many open files");
        assert_eq!(said(here, "damaged", Some(0)), None, "how far it went is known");
        assert_eq!(said(here, "", None), None);
        assert_eq!(said(None, "its log is not here", None), None, "it was never made");
    }

    #[test]
    fn who_answers_and_cannot_say_what_it_holds_is_silent() {
        who_cannot_say_what_it_holds_is_silent();
    }

    #[test]
    fn one_that_cannot_say_and_counts_as_nothing_is_noticed() {
        assert!(Mutant::UnsaidCounts.is_noticed_by(who_cannot_say_what_it_holds_is_silent));
    }

    fn loss(partition: i32, records: i64, silent: &[(i32, bool)]) -> Loss {
        let silent = silent.iter().map(|(broker, is_complete)| Silent {
            broker: BrokerId(*broker),
            how: "fenced".to_owned(),
            is_complete: *is_complete,
        });
        Loss { topic: "t".to_owned(), partition, records, silent: silent.collect() }
    }

    fn refused(accepted: Accepted, losses: &[&Loss]) -> Problem {
        let refused = check_accepted(accepted, losses).unwrap_err();
        assert_eq!(refused.reason, ErrorReason::LossNotAccepted);
        refused
    }

    fn what_is_lost_was_accepted() {
        use Accepted::{Nothing, Records, Unknown};
        let (some, none) = (loss(0, 12, &[]), loss(1, 0, &[]));
        assert!(check_accepted(Records(12), &[&some, &none]).is_ok());
        assert!(check_accepted(Records(0), &[&none]).is_ok());
        for (accepted, said) in [
            (Nothing, "was not said"),
            (Records(11), "and 11 were"),
            (Records(13), "and 13 were"),
            (Unknown, "and no more"),
        ] {
            let refused = refused(accepted, &[&some, &none]);
            assert!(
                refused.message.starts_with("12 records") && refused.message.contains(said),
                "{refused:?}"
            );
            assert_eq!(refused.facts["records_lost"], "12");
        }
        let silent = loss(2, 0, &[(3, true)]);
        for accepted in [Nothing, Records(0), Records(12)] {
            let refused = refused(accepted, &[&some, &silent]);
            assert_eq!(
                (&*refused.facts["loss_unknown"], &*refused.facts["records_lost_at_least"]),
                ("true", "12")
            );
            assert!(!refused.facts.contains_key("records_lost"), "nobody takes it for the number");
        }
        assert!(check_accepted(Unknown, &[&some, &silent]).is_ok());
    }

    #[test]
    fn a_loss_is_accepted_by_its_number_and_an_unknown_one_by_the_word() {
        what_is_lost_was_accepted();
    }

    #[test]
    fn a_loss_that_nobody_was_asked_for_is_noticed() {
        assert!(Mutant::LossUnasked.is_noticed_by(what_is_lost_was_accepted));
    }

    #[test]
    fn who_could_be_started_instead_is_said_before_the_word_that_loses() {
        let one = refused(Accepted::Records(0), &[&loss(3, 0, &[(2, true)])]);
        assert_eq!(
            one.message,
            "how many records would be lost is unknown, at least 0: of t/3 broker 2 (fenced) has not said what it holds; \
             broker 2 is known to have every acknowledged record: bring it back instead, and nothing is lost; no number is \
             taken for it, but accept_unknown_loss (--accept-loss unknown)"
        );
        let nobody = refused(Accepted::Nothing, &[&loss(3, 4, &[(2, false), (5, false)])]);
        assert!(
            nobody
                .message
                .contains("broker 2 (fenced) and broker 5 (fenced) have not said what they hold; no number"),
            "{nobody}"
        );
        assert_eq!((nobody.facts.get("waits_for"), &*nobody.facts["unanswered"]), (None, "2,5"));
        let many = [
            loss(0, 1, &[(2, true), (3, true)]),
            loss(1, 2, &[(2, false), (4, true)]),
            loss(2, 0, &[(2, false)]),
        ];
        let many = refused(Accepted::Records(3), &many.iter().collect::<Vec<_>>());
        assert!(
            many.message.contains("at least 3: of t/0 ") && many.message.contains("2 more partitions"),
            "{many}"
        );
        assert!(many.message.contains("brokers 2,3 are known to have"), "{many}");
        assert_eq!((&*many.facts["unanswered"], &*many.facts["waits_for"]), ("2,3,4", "2,3,4"));
    }

    #[test]
    fn a_number_and_the_word_are_too_much() {
        let both = ElectLeadersRequest {
            accepted_loss_records: Some(0),
            accept_unknown_loss: true,
            ..ElectLeadersRequest::default()
        };
        assert_eq!(Accepted::by(&both).unwrap_err().reason, ErrorReason::FieldsConflict);
    }
}
