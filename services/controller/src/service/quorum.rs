//! The quorum as operators change it: who is in it, and which feature level everybody in the cluster understands.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures::future::join_all;
use openraft::ChangeMembers;
use tokio::time::timeout;
use weir_cluster::channel;
use weir_metadata::{BrokerEpoch, Command, FEATURE_LEVEL, FinalizeLevel, RemoveController};
use weir_proto::internal::v1 as pb;
use weir_proto::internal::v1::controller_service_client::ControllerServiceClient;
use weir_proto::v1;
use weir_proto::v1::ErrorReason;
use weir_rpc::Problem;

use super::{Parts, required};
use crate::members;
use crate::propose::not_leader;
use crate::raft::not_changed;

/// A controller that does not answer within this time counts as dead.
const ANSWER: Duration = Duration::from_secs(1);
/// Controllers of the first version do not say which level they understand.
const FIRST_LEVEL: i32 = 1;

/// What this controller is.
pub(super) fn describe(parts: &Parts) -> pb::DescribeControllerResponse {
    pb::DescribeControllerResponse {
        node_id: parts.member.node_id,
        feature_level: FEATURE_LEVEL,
        version: env!("CARGO_PKG_VERSION").to_owned(),
    }
}

/// Takes controllers out: of the quorum first, then of the record. Whoever leads stays, and so does a majority that lives:
/// a quorum that cannot decide could not undo it either.
pub(super) async fn update_voters(
    parts: &Parts,
    request: pb::UpdateVotersRequest,
) -> Result<pb::UpdateVotersResponse, Problem> {
    let asked = required(request.request, "request")?;
    parts.barrier.pass().await?;
    let before = members::voters(parts);
    let image = parts.machine.hub().image();
    let metrics = parts.raft.metrics().borrow().clone();
    let membership = metrics.membership_config.membership().clone();
    if membership.get_joint_config().len() > 1 {
        let said = "the quorum is changing at this moment: try again";
        return Err(Problem::new(ErrorReason::ControllerUnavailable, said));
    }
    let asked_for: BTreeSet<u64> =
        asked.remove_voter_ids.iter().filter_map(|id| u64::try_from(*id).ok()).collect();
    let at_risk = |said: String| Err(Problem::new(ErrorReason::QuorumAtRisk, said));
    if asked_for.contains(&metrics.id) {
        let id = metrics.id;
        return at_risk(format!(
            "controller {id} leads: stop it, so that another one does, and remove it then"
        ));
    }
    let voters: BTreeSet<u64> = membership.voter_ids().collect();
    let (gone, left): (BTreeSet<u64>, BTreeSet<u64>) = voters.iter().partition(|id| asked_for.contains(id));
    let learners: BTreeSet<u64> = membership.learner_ids().filter(|id| asked_for.contains(id)).collect();
    if !gone.is_empty() {
        let others = membership.nodes().filter(|(id, _)| left.contains(id) && **id != metrics.id);
        let answers = ask(parts, others.map(|(id, node)| (*id, node.addr.clone()))).await;
        // This one is among those that are left, and lives.
        let alive = 1 + answers.values().filter(|answer| answer.is_some()).count();
        if alive * 2 <= left.len() {
            let dead = answers.iter().filter(|(_, answer)| answer.is_none()).map(|(id, _)| id.to_string());
            let dead = dead.collect::<Vec<_>>().join(", ");
            return at_risk(format!(
                "of the {} controllers that would be left, {alive} live, which is no majority: remove those that are dead \
                 first, or bring them back ({dead})",
                left.len()
            ));
        }
    }
    let is_going = |id: i64| u64::try_from(id).is_ok_and(|id| asked_for.contains(&id));
    let recorded: Vec<i64> = image.controllers().map(|known| known.id).filter(|id| is_going(*id)).collect();
    for id in &recorded {
        let command = Command::RemoveController(RemoveController { id: *id });
        parts.machine.allows(&command).map_err(|error| weir_cluster::problem(&error))?;
    }
    let mut response = v1::UpdateVotersResponse { before, after: Vec::new() };
    if asked.validate_only {
        response.after = response.before.iter().filter(|voter| !is_going(voter.voter_id)).cloned().collect();
        return Ok(pb::UpdateVotersResponse { response: Some(response), metadata_version: image.version() });
    }
    if !gone.is_empty() {
        change(parts, ChangeMembers::RemoveVoters(gone)).await?;
    }
    if !learners.is_empty() {
        change(parts, ChangeMembers::RemoveNodes(learners)).await?;
    }
    let mut metadata_version = image.version();
    for id in recorded {
        let (_, version) = parts.run(Command::RemoveController(RemoveController { id }), false).await?;
        metadata_version = version;
        tracing::info!(controller = id, "a controller was removed from the quorum");
    }
    response.after = members::voters(parts);
    Ok(pb::UpdateVotersResponse { response: Some(response), metadata_version })
}

async fn change(parts: &Parts, change: ChangeMembers<u64, openraft::BasicNode>) -> Result<(), Problem> {
    let deadline = parts.config.write_timeout;
    match timeout(deadline, parts.raft.change_membership(change, false)).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => match error.forward_to_leader() {
            Some(to) => Err(not_leader(to.leader_node.as_ref().map(|node| node.addr.as_str()))),
            None => {
                let said = format!("the quorum could not be changed: {}", not_changed(&error));
                Err(Problem::new(ErrorReason::ControllerUnavailable, said))
            }
        },
        Err(_) => {
            let said = format!("no quorum of controllers agreed within {deadline:?}");
            Err(Problem::new(ErrorReason::OutcomeUnknown, said))
        }
    }
}

/// What controllers say of themselves; `None`: nothing, in time.
async fn ask(
    parts: &Parts,
    whom: impl Iterator<Item = (u64, String)>,
) -> BTreeMap<u64, Option<pb::DescribeControllerResponse>> {
    let one = |(id, endpoint): (u64, String)| async move {
        let asked = async {
            let mut client = ControllerServiceClient::new(channel(&parts.os, &endpoint).ok()?);
            match client.describe_controller(pb::DescribeControllerRequest {}).await {
                Ok(answer) => Some(answer.into_inner()),
                // It lives, and is of a version that knows this question not.
                Err(status) if status.code() == tonic::Code::Unimplemented => {
                    let feature_level = FIRST_LEVEL;
                    Some(pb::DescribeControllerResponse { node_id: id, feature_level, ..Default::default() })
                }
                Err(_) => None,
            }
        };
        (id, timeout(ANSWER, asked).await.ok().flatten().filter(|answer| answer.node_id == id))
    };
    join_all(whom.map(one)).await.into_iter().collect()
}

/// Raises the level to what everybody understands who follows the log: the controllers, all of which must answer, and the
/// brokers that serve. Whoever is down is judged when it comes back.
pub(super) async fn finalize(
    parts: &Parts,
    request: pb::FinalizeFeatureLevelRequest,
) -> Result<pb::FinalizeFeatureLevelResponse, Problem> {
    let asked = required(request.request, "request")?;
    parts.barrier.pass().await?;
    let image = parts.machine.hub().image();
    let before = image.feature_level();
    let metrics = parts.raft.metrics().borrow().clone();
    let membership = metrics.membership_config.membership().clone();
    let others = membership.nodes().filter(|(id, _)| **id != metrics.id);
    let controllers = ask(parts, others.map(|(id, node)| (*id, node.addr.clone()))).await;
    let (mut after, mut held_back_by) = (FEATURE_LEVEL, Vec::new());
    let mut holds = |level: i32, who: String| {
        after = after.min(level);
        if level < FEATURE_LEVEL {
            held_back_by.push(who);
        }
    };
    for (id, answer) in &controllers {
        match answer {
            Some(answer) => {
                let level = answer.feature_level;
                holds(level, format!("controller {id} understands level {level}"));
            }
            None => holds(before, format!("controller {id} does not answer")),
        }
    }
    for broker in image.brokers().filter(|broker| broker.state.is_alive()) {
        let by = BrokerEpoch { broker: broker.id, epoch: broker.epoch };
        match parts.sessions.feature_level(by) {
            Some(level) => holds(level, format!("broker {} understands level {level}", broker.id)),
            None => holds(before, format!("broker {} has not said which level it understands", broker.id)),
        }
    }
    let after = after.max(before);
    let response = Some(v1::FinalizeFeatureLevelResponse { before, after, held_back_by });
    if asked.validate_only || after == before {
        return Ok(pb::FinalizeFeatureLevelResponse { response, metadata_version: image.version() });
    }
    let command = Command::FinalizeLevel(FinalizeLevel { level: after, expected: before });
    let (_, metadata_version) = parts.run(command, false).await?;
    tracing::info!(before, after, "the feature level was raised");
    Ok(pb::FinalizeFeatureLevelResponse { response, metadata_version })
}
