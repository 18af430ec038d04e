//! Who is in the quorum: joining it, voting in it, listing it (correctness rule 30).

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use openraft::{BasicNode, ChangeMembers};
use tokio::time::{Instant, sleep, timeout};
use weir_cluster::{Controllers, Row, said};
use weir_metadata::{Command, FEATURE_LEVEL, JoinController, Reply};
use weir_proto::internal::v1 as pb;
use weir_proto::v1::{ErrorReason, Voter, VoterState};
use weir_rpc::Problem;
use weir_runtime::{Os, Seldom};
use weir_types::ClusterId;

use crate::Error;
use crate::machine::Machine;
use crate::propose::Proposer;
use crate::raft::{Raft, not_changed};
use crate::service::Parts;
use crate::store::{Member, quorum};

/// How long a join asks before it says that it still waits.
const ASK: Duration = Duration::from_secs(10);
/// Pause before it asks again after an answer that asking on does not mend.
const REFUSED: Duration = Duration::from_secs(1);
/// How often people are told again that it waits.
const TELL_AGAIN: Duration = Duration::from_secs(60);
/// A learner this close to the end of the log has caught up.
const CAUGHT_UP: u64 = 100;
/// How often a leader looks for learners that have caught up.
const LOOK: Duration = Duration::from_millis(200);

/// Asks the controllers that run for a place, until one gives it. Safe to repeat: the directory's id decides who
/// this is. Cancel safe.
pub(crate) async fn join(os: &Arc<dyn Os>, seeds: &[String], me: &JoinController) -> Result<Member, Error> {
    let controllers = Controllers::patiently(os.clone(), seeds.to_vec());
    let seldom = Seldom::new(TELL_AGAIN);
    loop {
        match ask_to_join(&controllers, me).await {
            Ok(given) => {
                let cluster_id = ClusterId::from_wire(given.cluster_id)?;
                let quorum_id = quorum(&given.quorum_id)?;
                return Ok(Member { cluster_id, node_id: given.node_id, quorum_id });
            }
            // A wrong address answers at once, each time.
            Err(status) if seldom.now().is_some() => {
                tracing::warn!(?seeds, "waiting to join the quorum: {}", said(&status));
            }
            Err(status) => tracing::debug!(?seeds, "still waiting to join the quorum: {}", said(&status)),
        }
        sleep(REFUSED).await;
    }
}

/// Gives a controller its place: an id, and the log as a learner; or notes that it has moved.
pub(crate) async fn admit(raft: &Raft, proposer: &Proposer, who: JoinController) -> Result<u64, Problem> {
    let endpoint = who.endpoint.clone();
    let proposed = proposer.propose(Command::JoinController(who)).await;
    let (reply, _) = proposed.map_err(|unapplied| unapplied.problem())?;
    let Reply::ControllerJoined { id } = reply else {
        return Err(Problem::new(ErrorReason::Internal, "a join got another command's answer"));
    };
    let id = u64::try_from(id).unwrap_or_default();
    let node = BasicNode::new(endpoint);
    let metrics = raft.server_metrics().borrow().clone();
    let known = metrics.membership_config.membership().get_node(&id).cloned();
    let changed = match known {
        Some(known) if known == node => return Ok(id),
        // It has moved.
        Some(_) => raft.change_membership(ChangeMembers::SetNodes([(id, node)].into()), true).await,
        None => raft.add_learner(id, node, false).await,
    };
    changed.map_err(|error| {
        let why = format!("controller {id} could not be added to the quorum now: {}", not_changed(&error));
        Problem::new(ErrorReason::ControllerUnavailable, why)
    })?;
    Ok(id)
}

/// Tells the others where this controller is, if it is not where they think. Ends when they know.
pub(crate) async fn announce(os: Arc<dyn Os>, machine: Machine, me: JoinController) {
    // Until the cluster exists there is nobody to tell.
    let mut image = machine.hub().wait_for(1).await;
    loop {
        let known = image.controllers().find(|controller| controller.directory == me.directory);
        if known.is_none_or(|known| known.endpoint == me.endpoint) {
            return;
        }
        let others = image.controllers().map(|controller| controller.endpoint.clone());
        let endpoints = std::iter::once(me.endpoint.clone()).chain(others).collect();
        tracing::info!(endpoint = me.endpoint, "telling the other controllers where this one is now");
        let controllers = Controllers::patiently(os.clone(), endpoints);
        if let Err(status) = ask_to_join(&controllers, &me).await {
            tracing::warn!("the other controllers do not know where this one is: {}", said(&status));
        }
        image = machine.hub().wait_for(image.version() + 1).await;
    }
}

async fn ask_to_join(
    controllers: &Controllers,
    me: &JoinController,
) -> Result<pb::JoinControllerResponse, tonic::Status> {
    let request = pb::JoinControllerRequest { controller: Some(me.to_wire()), feature_level: FEATURE_LEVEL };
    let asked = controllers.call(Instant::now() + ASK, |mut client| {
        let request = request.clone();
        async move { client.join_controller(request).await }
    });
    asked.await
}

/// Gives learners that have caught up their vote, one after the other, while this controller leads. Ends with
/// raft.
///
/// A change of voters takes two entries, and between them a majority of the old voters is needed as well as one of the new.
/// A leader that dies there leaves the second to the next one: until it is made, one more death may be one too many.
pub(crate) async fn promote(raft: Raft) {
    let mut changes = raft.metrics();
    loop {
        // Taken out at once (rule 34).
        let metrics = changes.borrow_and_update().clone();
        let membership = metrics.membership_config.membership();
        let settled = membership.get_joint_config().len() <= 1;
        let mut refused = false;
        if metrics.replication.is_some() && !settled {
            // Nobody is added: what was begun is finished.
            match raft.change_membership(ChangeMembers::AddVoterIds(BTreeSet::new()), false).await {
                Ok(_) => tracing::info!("a change of voters that another leader began is made"),
                Err(error) => {
                    refused = true;
                    tracing::warn!("a change of voters cannot be made yet: {}", not_changed(&error));
                }
            }
        } else if let Some(progress) = metrics.replication.as_ref() {
            let last = metrics.last_log_index.unwrap_or(0);
            let ready = membership.learner_ids().find(|id| {
                let matched = progress.get(id).copied().flatten().map(|log_id| log_id.index);
                matched.is_some_and(|index| index + CAUGHT_UP >= last)
            });
            if let Some(id) = ready {
                match raft.change_membership(ChangeMembers::AddVoterIds([id].into()), false).await {
                    Ok(_) => tracing::info!(controller = id, "votes from now on"),
                    Err(error) => {
                        refused = true;
                        tracing::warn!(controller = id, "cannot vote yet: {}", not_changed(&error));
                    }
                }
            }
        }
        if refused {
            // To be asked is a change for openraft, which would wake this at once, again and again.
            sleep(LOOK).await;
        }
        // Progress of followers is only told now and then: look again by the clock too.
        if let Ok(Err(_)) = timeout(LOOK, changes.changed()).await {
            return;
        }
    }
}

/// The controllers, as operators see them.
pub(crate) fn voters(parts: &Parts) -> Vec<Voter> {
    let metrics = parts.raft.metrics().borrow().clone();
    let membership = metrics.membership_config.membership();
    let voting = parts.machine.voters();
    let image = parts.machine.hub().image();
    let leads = metrics.current_leader == Some(metrics.id);
    // Only the one that leads asks the others all the time.
    let is_rewound = |id: u64| parts.polled.recovered_from(id).is_none() && parts.rewound.said(id).is_some();
    let state = |id: u64| match leads {
        false => VoterState::Unspecified,
        true if is_rewound(id) => VoterState::Rewound,
        true if id != metrics.id && parts.heard.is_away(id) => VoterState::Away,
        true => VoterState::Up,
    };
    let silence = |id: u64| match leads && id != metrics.id {
        true => parts.heard.silence(id).unwrap_or_default(),
        false => Duration::ZERO,
    };
    let index = |id: u64| {
        let own = (id == metrics.id).then_some(metrics.last_log_index).flatten();
        let matched = || metrics.replication.as_ref()?.get(&id).copied().flatten().map(|log_id| log_id.index);
        own.or_else(matched).and_then(|index| i64::try_from(index).ok()).unwrap_or(0)
    };
    let note = |id: u64| parts.polled.recovered_from(id).or_else(|| parts.rewound.said(id));
    let voter = |(id, node): (&u64, &BasicNode)| {
        let voter_id = i64::try_from(*id).unwrap_or(i64::MAX);
        let known = image.controllers().find(|controller| controller.id == voter_id);
        Voter {
            voter_id,
            endpoint: known.map_or_else(|| node.addr.clone(), |controller| controller.endpoint.clone()),
            leader: metrics.current_leader == Some(*id),
            voting: voting.contains(id),
            log_index: index(*id),
            state: state(*id).into(),
            silent_ms: i64::try_from(silence(*id).as_millis()).unwrap_or(i64::MAX),
            note: note(*id).filter(|_| leads).unwrap_or_default(),
        }
    };
    membership.nodes().map(voter).collect()
}

/// How many of those that vote are away, or do not count, as far as this controller knows: none, if it does not lead.
pub(crate) fn voters_away(parts: &Parts) -> usize {
    let is_missing = |voter: &Voter| matches!(voter.state(), VoterState::Away | VoterState::Rewound);
    voters(parts).iter().filter(|voter| voter.voting && is_missing(voter)).count()
}
