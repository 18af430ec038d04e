//! Proposals: commands on their way into the log.
//!
//! openraft puts one entry into one fsync. So commands gather while the entry before is on its way and become one
//! entry (correctness rule 34); the first one never waits. Every entry has a deadline: openraft itself waits for a
//! quorum for ever, and past the deadline the outcome is unknown.

use std::sync::Arc;
use std::time::Duration;

use openraft::error::{ClientWriteError, RaftError};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use weir_metadata::{Command, Entry, Error, Reply};
use weir_proto::v1::{Applied, ErrorReason};
use weir_rpc::Problem;
use weir_runtime::Os;

use crate::machine::Machine;
use crate::mutant::Mutant;
use crate::raft::{Answer, Raft};

/// Commands that wait for the next entry, at most.
const QUEUE: usize = 4_096;
/// Commands in one entry, at most.
const COMMANDS_MAX: usize = 1_000;
/// What they may weigh together, so that an entry, and the change it makes, fit a message. In partitions, or what
/// is about as large.
const WEIGHT_MAX: usize = 20_000;

/// Why a proposal has no reply.
#[derive(Clone, Debug)]
pub(crate) enum Unapplied {
    /// Refused: it changed nothing.
    Refused(Error),
    /// This controller does not lead; the one that does, if that is known. Nothing was applied.
    NotLeader(Option<String>),
    /// Too much is waiting already. Nothing was applied.
    Overloaded,
    /// This controller is about to end. Nothing was applied.
    Stopping,
    /// Nobody knows.
    Unknown(String),
}

impl Unapplied {
    /// As it is said to a caller.
    pub(crate) fn problem(&self) -> Problem {
        match self {
            Self::Refused(error) => weir_cluster::problem(error),
            Self::NotLeader(leader) => not_leader(leader.as_deref()),
            Self::Overloaded => Problem::new(
                ErrorReason::Overloaded,
                format!("{QUEUE} changes wait for the controller, the most that may: try again"),
            ),
            Self::Stopping => stopping(),
            Self::Unknown(why) => {
                Problem::new(ErrorReason::OutcomeUnknown, why.clone()).applied(Applied::Maybe)
            }
        }
    }
}

/// What a controller says that is about to end: another one may go on.
pub(crate) fn stopping() -> Problem {
    Problem::new(ErrorReason::ControllerUnavailable, "this controller is stopping")
}

/// What a controller says that does not lead.
pub(crate) fn not_leader(leader: Option<&str>) -> Problem {
    let problem = Problem::new(
        ErrorReason::ControllerUnavailable,
        match leader {
            Some(leader) => format!("this controller does not lead, the one at {leader} does"),
            None => "no controller leads at the moment".to_owned(),
        },
    );
    match leader {
        Some(leader) => problem.fact(weir_cluster::LEADER_FACT, leader),
        None => problem,
    }
}

type Done = oneshot::Sender<Result<(Reply, i64), Unapplied>>;

/// Takes proposals. Cloning gives another way to the same queue.
#[derive(Clone, Debug)]
pub(crate) struct Proposer {
    queue: mpsc::Sender<(Command, Done)>,
    machine: Machine,
    author: u64,
}

impl Proposer {
    /// A proposer, and the task that carries proposals into the log.
    pub(crate) fn new(
        os: Arc<dyn Os>,
        raft: Raft,
        machine: Machine,
        deadline: Duration,
    ) -> (Self, impl Future<Output = ()> + Send) {
        let (queue, waiting) = mpsc::channel(QUEUE);
        // Of this process: what another one writes into the same places of the log is another history.
        let author = os.random_u64().max(1);
        (Self { queue, machine, author }, carry(os, author, raft, deadline, waiting))
    }

    /// The number of this process, which is in every entry that it has written.
    pub(crate) fn author(&self) -> u64 {
        self.author
    }

    /// How many wait.
    pub(crate) fn queued(&self) -> usize {
        self.queue.max_capacity().saturating_sub(self.queue.capacity())
    }

    /// Proposes a command; answers once it is applied here, with the version that holds it. A caller that is
    /// dropped takes nothing back.
    pub(crate) async fn propose(&self, command: Command) -> Result<(Reply, i64), Unapplied> {
        self.machine.allows(&command).map_err(Unapplied::Refused)?;
        let (done, result) = oneshot::channel();
        self.queue.try_send((command, done)).map_err(|error| match error {
            TrySendError::Full(_) => Unapplied::Overloaded,
            TrySendError::Closed(_) => Unapplied::Stopping,
        })?;
        result.await.unwrap_or_else(|_| Err(Unapplied::Unknown("the controller is stopping".to_owned())))
    }
}

async fn carry(
    os: Arc<dyn Os>,
    author: u64,
    raft: Raft,
    deadline: Duration,
    mut waiting: mpsc::Receiver<(Command, Done)>,
) {
    while let Some((command, done)) = waiting.recv().await {
        let mut weight = weigh(&command);
        let (mut commands, mut callers) = (vec![command], vec![done]);
        let one = Mutant::OneByOne.is_planted();
        while weight < WEIGHT_MAX && commands.len() < COMMANDS_MAX && !one {
            let Ok((command, done)) = waiting.try_recv() else { break };
            weight += weigh(&command);
            commands.push(command);
            callers.push(done);
        }
        let written = write(&raft, deadline, Entry { at_ms: os.wall_ms(), author, commands }).await;
        answer(callers, written);
    }
}

async fn write(raft: &Raft, deadline: Duration, entry: Entry) -> Result<Answer, Unapplied> {
    // Asked before: a controller that is not the leader can then say for sure that nothing was applied.
    let metrics = raft.server_metrics().borrow().clone();
    if metrics.current_leader != Some(metrics.id) {
        let nodes = metrics.membership_config.membership();
        let leader = metrics.current_leader.and_then(|id| nodes.get_node(&id)).map(|node| node.addr.clone());
        return Err(Unapplied::NotLeader(leader));
    }
    let deadline = if Mutant::NoDeadline.is_planted() { Duration::MAX } else { deadline };
    match timeout(deadline, raft.client_write(entry)).await {
        Ok(Ok(response)) => Ok(response.data),
        Ok(Err(RaftError::APIError(ClientWriteError::ForwardToLeader(_)))) => {
            Err(Unapplied::Unknown("the controller lost its leadership while it wrote".to_owned()))
        }
        Ok(Err(_)) => Err(Unapplied::Unknown("the controller stopped while it wrote".to_owned())),
        Err(_) => Err(Unapplied::Unknown(format!("no quorum of controllers agreed within {deadline:?}"))),
    }
}

fn answer(callers: Vec<Done>, written: Result<Answer, Unapplied>) {
    let mut outcomes = match &written {
        Ok(_) => Vec::new(),
        Err(unapplied) => callers.iter().map(|_| Err(unapplied.clone())).collect(),
    };
    if let Ok(Answer { version, outcomes: applied }) = written {
        outcomes = applied
            .into_iter()
            .map(|outcome| outcome.map(|reply| (reply, version)).map_err(Unapplied::Refused))
            .collect();
    }
    for (caller, outcome) in callers.into_iter().zip(outcomes) {
        // A caller that went away wants no answer.
        let _ = caller.send(outcome);
    }
}

/// How much a command adds to an entry and to the change it makes.
fn weigh(command: &Command) -> usize {
    let partitions = |asked: i32| match asked {
        // The cluster's default, whatever it is.
        0 => 1_000,
        asked => usize::try_from(asked).unwrap_or(0),
    };
    1 + match command {
        Command::CreateTopic(command) => partitions(command.partitions),
        Command::UpdateTopic(command) => command.partitions.map_or(0, partitions),
        Command::AssignDirectories(command) => command.assignments.len(),
        Command::AlterPartitions(command) => command.changes.len(),
        Command::RegisterBroker(command) => command.damaged.len(),
        Command::ReportDamage(weir_metadata::ReportDamage { partitions, stuck, unusable, .. }) => {
            partitions.len() + stuck.len() + unusable.len()
        }
        Command::ElectPreferred(command) => command.partitions.len(),
        Command::RecoverPartitions(command) => command.partitions.iter().map(|one| 1 + one.ends.len()).sum(),
        _ => 0,
    }
}
