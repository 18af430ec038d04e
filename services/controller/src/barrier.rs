//! Makes sure that this controller leads, for reads and heartbeats that matter. A round to the quorum is shared by
//! everybody who came before it began (correctness rules 10, 33).

use std::time::Duration;

use openraft::error::{CheckIsLeaderError, RaftError};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use crate::mutant::Mutant;
use crate::propose::{not_leader, stopping};
use crate::raft::{Raft, failed, too_few};
use weir_proto::v1::ErrorReason;
use weir_rpc::Problem;

/// Callers that wait for a round, at most.
const QUEUE: usize = 4_096;

type Done = oneshot::Sender<Result<(), Problem>>;

/// Joins rounds. Cloning gives another way to the same rounds.
#[derive(Clone, Debug)]
pub(crate) struct Barrier(mpsc::Sender<Done>);

impl Barrier {
    /// A barrier, and the task that makes its rounds.
    pub(crate) fn new(raft: Raft, deadline: Duration) -> (Self, impl Future<Output = ()> + Send) {
        let (queue, waiting) = mpsc::channel(QUEUE);
        (Self(queue), rounds(raft, deadline, waiting))
    }

    /// After this, what the state machine holds is at least as new as everything that was committed before the
    /// call. Cancel safe.
    pub(crate) async fn pass(&self) -> Result<(), Problem> {
        let (done, result) = oneshot::channel();
        self.0.try_send(done).map_err(|error| match error {
            TrySendError::Full(_) => {
                Problem::new(ErrorReason::Overloaded, format!("{QUEUE} calls wait for a quorum round"))
            }
            TrySendError::Closed(_) => stopping(),
        })?;
        result.await.map_err(|_| stopping())?
    }
}

async fn rounds(raft: Raft, deadline: Duration, mut waiting: mpsc::Receiver<Done>) {
    while let Some(first) = waiting.recv().await {
        let mut callers = vec![first];
        while let Ok(caller) = waiting.try_recv() {
            callers.push(caller);
        }
        let answer = round(&raft, deadline).await;
        for caller in callers {
            // A caller that went away wants no answer.
            let _ = caller.send(answer.clone());
        }
    }
}

async fn round(raft: &Raft, deadline: Duration) -> Result<(), Problem> {
    if Mutant::NoBarrier.is_planted() {
        return Ok(());
    }
    let unavailable = |why: String| Err(Problem::new(ErrorReason::ControllerUnavailable, why));
    match timeout(deadline, raft.ensure_linearizable()).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(RaftError::APIError(CheckIsLeaderError::ForwardToLeader(to)))) => {
            Err(not_leader(to.leader_node.as_ref().map(|node| node.addr.as_str())))
        }
        Ok(Err(RaftError::APIError(CheckIsLeaderError::QuorumNotEnough(missing)))) => {
            unavailable(too_few(&missing))
        }
        Ok(Err(RaftError::Fatal(_))) => unavailable(failed()),
        Err(_) => unavailable(format!("no quorum of controllers answered within {deadline:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raft::follower;

    /// One of three that follows, and hears nobody any more.
    fn who_does_not_lead_answers_for_nothing() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
        runtime.unwrap().block_on(async {
            let (_disk, server) = follower().await;
            let (barrier, rounds) = Barrier::new(server.raft, Duration::from_secs(1));
            tokio::spawn(rounds);
            let refused = barrier.pass().await.unwrap_err();
            assert_eq!(refused.reason, ErrorReason::ControllerUnavailable, "{refused:?}");
        });
    }

    #[test]
    fn who_does_not_lead_and_answers_is_noticed() {
        assert!(Mutant::NoBarrier.is_noticed_by(who_does_not_lead_answers_for_nothing));
    }
}
