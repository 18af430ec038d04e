//! `weir partition elect`.

use clap::Args;
use serde_json::Value;
use weir_proto::v1::{ElectLeadersRequest, ElectLeadersResponse, Election, ReplicaState, TopicPartition};

use super::loss::{Accepted, Before, Loss};
use crate::error::{Error, Result};
use crate::offsets;
use crate::output::{self, Column, Table, UNKNOWN, View};
use crate::prompt;
use crate::reference::Reference;
use crate::session::Session;
use crate::units;

/// Give leaderships back to preferred replicas; or elect where records will be lost
#[derive(Debug, Args)]
#[command(after_help = "\
Without --unclean a partition goes back to its first replica, if that is in sync; without a name
all of them do. With --unclean, for a partition that nobody leads and of which no replica that serves
is known to be complete: first it says what would be lost; with --accept-loss and exactly that number
the longest log leads. Where a replica does not answer that may come back, what would be lost is
unknown: no number is taken then, but the word, --accept-loss unknown, and of several partitions it
covers all. Start its broker first, if you can: it may have everything. One whose log is damaged leads
as far as it is whole; what is cut off there is kept in a folder beside it (*.damaged).

Examples:
  $ weir partition elect flights
  $ weir partition elect flights/3 --unclean --dry-run
  $ weir partition elect flights/3 --unclean --accept-loss 12 --yes")]
pub(crate) struct Elect {
    /// Topics or partitions; none: wherever another than the preferred replica leads
    #[arg(value_name = "TOPIC[/PARTITION]")]
    what: Vec<Reference>,
    /// A leader that is not known to be complete: acknowledged records are lost
    #[arg(long)]
    unclean: bool,
    /// What may be lost: exactly as many records as the dry run says, or "unknown" where it says that nobody knows
    #[arg(long, value_name = "N|unknown", requires = "unclean")]
    accept_loss: Option<Accepted>,
}

impl Elect {
    pub(crate) async fn run(self, session: &Session) -> Result<()> {
        if let Some(record) = self.what.iter().find(|what| what.offset.is_some()) {
            return Err(Error::Usage(format!("{record} is a record; name its partition")));
        }
        if self.unclean && self.what.is_empty() {
            return Err(Error::Usage("name the partitions: each of them loses records".to_owned()));
        }
        let named = match self.what.is_empty() {
            true => Vec::new(),
            false => offsets::partitions(session, &self.what).await?,
        };
        // Who led last is forgotten once somebody leads.
        let before = if self.unclean { Before::ask(session, &named).await? } else { Before::default() };
        let partitions = named.into_iter().map(|(topic, partition)| TopicPartition { topic, partition });
        let mut request = ElectLeadersRequest {
            partitions: partitions.collect(),
            unclean: self.unclean,
            accepted_loss_records: self.accept_loss.and_then(Accepted::records),
            accept_unknown_loss: self.accept_loss == Some(Accepted::Unknown),
            validate_only: session.dry_run(),
        };
        let mut client = session.admin().await?;
        if self.unclean && (session.dry_run() || self.accept_loss.is_none()) {
            request.validate_only = true;
            let answer = session.read(client.elect_leaders(session.request(request))).await?;
            let losses = before.losses(&answer);
            let mut view = view(&answer, &losses, true);
            if answer.elections.iter().all(|election| election.failure.is_some()) {
                session.print(&view)?;
                return Err(nobody(&answer));
            }
            view.line(self.next(&answer, &losses));
            return session.print(&view);
        }
        if let Some(accepted) = self.accept_loss {
            prompt::confirm(session, &accepted.question()).await?;
        }
        let answer = session.change(client.elect_leaders(session.request(request))).await?;
        let losses = before.losses(&answer);
        let mut view = view(&answer, &losses, session.dry_run());
        if session.dry_run() {
            view.line("dry run: nothing changed");
        }
        session.print(&view)?;
        let failed = answer.elections.iter().filter(|election| election.failure.is_some()).count();
        match failed {
            0 => Ok(()),
            failed if failed < answer.elections.len() => {
                Err(Error::Partly(format!("{failed} of {} were not elected", answer.elections.len())))
            }
            _ => Err(nobody(&answer)),
        }
    }
}

impl Elect {
    /// What would be lost altogether, and the command that does it.
    fn next(&self, answer: &ElectLeadersResponse, losses: &[Loss]) -> String {
        let before = losses.iter().filter(|loss| loss.lost_before().is_some()).count();
        let before = match before {
            0 => String::new(),
            _ => ", beside what was lost before with the disks of removed brokers, which nobody can count"
                .to_owned(),
        };
        let lost = units::counted(answer.records_lost, "record");
        let (said, accepted) = match answer.elections.iter().any(|election| election.loss_unknown) {
            true => {
                (format!("at least {lost} would be lost, and how many more is unknown"), Accepted::Unknown)
            }
            false => (format!("{lost} would be lost"), Accepted::Records(answer.records_lost)),
        };
        let what = self.what.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
        format!("{said}{before}; to do it: weir partition elect {what} --unclean --accept-loss {accepted}")
    }
}

fn nobody(answer: &ElectLeadersResponse) -> Error {
    Error::Failed(format!("{} not elected", units::counted(answer.elections.len() as u64, "leader")))
}

/// What became of it, or would. `losses`: of unclean elections, each of them.
fn view(answer: &ElectLeadersResponse, losses: &[Loss], trial: bool) -> View {
    let name = |election: &Election| format!("{}/{}", election.topic, election.partition);
    let mut view = View {
        names: answer.elections.iter().map(name).collect(),
        objects: answer.elections.iter().map(object).collect(),
        ..View::default()
    };
    if answer.elections.is_empty() {
        view.line("every partition is led by its preferred replica, or that is not in sync");
    }
    let broker = |id: i32| if id < 0 { "none".to_owned() } else { id.to_string() };
    for (i, election) in answer.elections.iter().enumerate() {
        let name = name(election);
        match &election.failure {
            Some(failure) => view.line(failure.message.clone()),
            None if election.leader_before == election.leader_after => {
                view.line(format!("{name} is led by {} as before", broker(election.leader_after)));
            }
            None => {
                let would = if trial { "would be" } else { "is" };
                let (before, after) = (broker(election.leader_before), broker(election.leader_after));
                view.line(format!("{name} {would} led by {after} (before: {before})"));
            }
        }
        if let Some(said) = said_of_cut(election, trial) {
            view.line(said);
        }
        if !election.replicas.is_empty() {
            view.table(replicas(&election.replicas));
        }
        let loss = losses.get(i).filter(|_| election.failure.is_none());
        if let Some(said) = loss.and_then(|loss| loss.said(trial)) {
            view.line(format!("  {name}: {said}"));
        }
    }
    if answer.omitted > 0 {
        view.line(format!("and {} more", answer.omitted));
    }
    view
}

/// An election for programs: null is unknown.
fn object(election: &Election) -> Value {
    let mut object = output::proto_json(election, "weir.v1.Election");
    let replica = |replica: &ReplicaState| {
        let mut object = output::proto_json(replica, "weir.v1.ReplicaState");
        if !replica.answered {
            for field in ["lastEpoch", "logEndOffset", "highWatermark", "knownEndOffset"] {
                output::set(&mut object, field, Value::Null);
            }
            if replica.problem.is_empty() {
                output::set(&mut object, "problem", Value::Null);
            }
        }
        object
    };
    let replicas: Vec<Value> = election.replicas.iter().map(replica).collect();
    output::set(&mut object, "replicas", replicas);
    output::set(&mut object, "recordsLostAtLeast", election.loss_unknown);
    object
}

/// What becomes of the log of whoever leads then, if it is damaged.
fn said_of_cut(election: &Election, trial: bool) -> Option<String> {
    let leads = |replica: &&ReplicaState| replica.broker_id == election.leader_after;
    let replica = election.replicas.iter().find(leads).filter(|_| election.failure.is_none())?;
    let (from, to) = (replica.whole_until_offset?, replica.known_end_offset);
    let (broker, is) = (replica.broker_id, if trial { "would be" } else { "are" });
    Some(match to - from {
        // It has not said how far it went.
        _ if !replica.answered => format!(
            "  the log of broker {broker} ends at offset {from} as far as it is whole: what came behind that, nobody knows"
        ),
        1.. => format!(
            "  the log of broker {broker} is damaged: offsets {from} to {} {is} cut off, and kept in a folder beside it",
            to - 1
        ),
        _ => {
            format!("  the log of broker {broker} is damaged at its end, offset {from}: no record is missing")
        }
    })
}

fn replicas(replicas: &[ReplicaState]) -> Table {
    let mut table = Table::new(&[
        Column::right("REPLICA"),
        Column::right("LAST EPOCH"),
        Column::right("END"),
        Column::right("COMMITTED"),
        Column::left("LOG"),
    ]);
    for replica in replicas {
        let number = |number: i64| if replica.answered { number.to_string() } else { UNKNOWN.to_owned() };
        table.row([
            replica.broker_id.to_string(),
            number(replica.last_epoch.into()),
            number(replica.log_end_offset),
            number(replica.high_watermark),
            match (replica.answered, replica.problem.as_str(), replica.whole_until_offset) {
                (false, "", _) => "does not answer".to_owned(),
                (true, "", _) => "ok".to_owned(),
                (false, problem, Some(whole)) => format!("whole up to {whole}: {problem}"),
                (false, problem, None) | (true, problem, None) => problem.to_owned(),
                (true, problem, Some(whole)) => {
                    format!("whole up to {whole} of {}: {problem}", replica.known_end_offset)
                }
            },
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_replica_that_does_not_answer_holds_is_unknown() {
        let replica = |broker_id, answered| ReplicaState { broker_id, answered, ..ReplicaState::default() };
        let election = |answered| Election {
            leader_before: -1,
            leader_after: 1,
            replicas: vec![replica(1, true), replica(2, answered)],
            loss_unknown: !answered,
            ..Election::default()
        };
        let silent = object(&election(false));
        assert_eq!(
            (&silent["recordsLostAtLeast"], &silent["replicas"][0]["logEndOffset"]),
            (&true.into(), &0.into())
        );
        assert!(silent["replicas"][1]["logEndOffset"].is_null(), "{silent}");
        let known = object(&election(true));
        assert_eq!(
            (&known["recordsLostAtLeast"], &known["replicas"][1]["logEndOffset"]),
            (&false.into(), &0.into())
        );
        let given_up = object(&Election { loss_unknown: false, ..election(false) });
        assert_eq!(given_up["recordsLostAtLeast"], false, "the server knows whether it is: {given_up}");
    }

    #[test]
    fn the_command_that_does_it_is_said_whole() {
        let what = ["t/0", "u"].map(|what| what.parse().unwrap()).to_vec();
        let elect = Elect { what, unclean: true, accept_loss: None };
        let next = |loss_unknown| {
            let elections = vec![Election::default(), Election { loss_unknown, ..Election::default() }];
            elect.next(&ElectLeadersResponse { elections, records_lost: 3, omitted: 0 }, &[])
        };
        assert_eq!(
            next(false),
            "3 records would be lost; to do it: weir partition elect t/0 u --unclean --accept-loss 3"
        );
        assert_eq!(
            next(true),
            "at least 3 records would be lost, and how many more is unknown; to do it: weir partition elect t/0 u --unclean \
             --accept-loss unknown"
        );
    }

    #[test]
    fn what_is_cut_off_a_damaged_log_is_said_before_it_is_and_after() {
        let replica = |broker_id, whole_until_offset, known_end_offset| ReplicaState {
            broker_id,
            answered: true,
            whole_until_offset,
            known_end_offset,
            ..ReplicaState::default()
        };
        let replicas = vec![replica(1, None, 0), replica(2, Some(120), 132), replica(3, Some(7), 7)];
        let led_by =
            |leader_after| Election { leader_after, replicas: replicas.clone(), ..Election::default() };
        assert_eq!(said_of_cut(&led_by(1), true), None, "it is not damaged");
        let said = said_of_cut(&led_by(2), true).unwrap();
        assert!(said.contains("broker 2") && said.contains("offsets 120 to 131 would be cut off"), "{said}");
        assert!(said_of_cut(&led_by(2), false).unwrap().contains("131 are cut off"));
        assert!(said_of_cut(&led_by(3), true).unwrap().contains("no record is missing"));
        let unknown = ReplicaState { answered: false, ..replica(4, Some(7), 0) };
        let unknown = Election { leader_after: 4, replicas: vec![unknown], ..Election::default() };
        assert!(said_of_cut(&unknown, true).unwrap().ends_with("nobody knows"));
        let failed = Election { failure: Some(weir_proto::v1::Failure::default()), ..led_by(2) };
        assert_eq!(said_of_cut(&failed, false), None);
    }
}
