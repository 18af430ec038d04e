//! Registration and heartbeats.

use tokio::time::Instant;
use weir_cluster::Row;
use weir_metadata::{
    BrokerEpoch, BrokerState, Command, Error, FailDirectory, RegisterBroker, Reply, ReportDamage, SetSlow,
    StuckReplica, TrustBroker,
};
use weir_proto::internal::v1 as pb;
use weir_proto::v1;
use weir_rpc::Problem;
use weir_types::{BrokerId, PartitionId};

use super::{Parts, check_history, defect, required, row};

/// Damaged logs of one heartbeat, at most; the next one has the others.
const DAMAGED_MAX: usize = 1_000;

pub(super) async fn register(
    parts: &Parts,
    request: pb::RegisterBrokerRequest,
) -> Result<pb::RegisterBrokerResponse, Problem> {
    let arrived = Instant::now();
    let registration: RegisterBroker = row(request.registration, "registration")?;
    let id = registration.broker_id;
    let registered = parts.run(Command::RegisterBroker(registration), false).await;
    let (reply, metadata_version) = registered.inspect_err(|refusal| {
        if refusal.reason == v1::ErrorReason::ClusterMismatch
            && let Some(id) = id
        {
            parts.ahead.came(id, refusal);
        }
    })?;
    let (broker, epoch) = match reply {
        Reply::BrokerRegistered { broker, epoch } => (broker, epoch),
        Reply::BrokerDistrusted { refused } => {
            tracing::warn!("a broker is not registered: {refused}");
            return Err(weir_cluster::problem(&refused));
        }
        _ => return Err(defect()),
    };
    parts.sessions.heard(BrokerEpoch { broker, epoch }, arrived);
    let ms = |duration: std::time::Duration| i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
    Ok(pb::RegisterBrokerResponse {
        broker_id: broker.0,
        epoch,
        cluster_id: parts.cluster_id.to_wire(),
        metadata_version,
        session_timeout_ms: ms(parts.config.session_timeout),
        heartbeat_interval_ms: ms(parts.config.broker_heartbeat),
        feature_level: parts.machine.hub().image().feature_level(),
    })
}

/// The broker may trust that nobody else was given its partitions before the answer's quorum round: the round
/// began after the heartbeat came in (correctness rule 10).
pub(super) async fn heartbeat(
    parts: &Parts,
    request: pb::BrokerHeartbeatRequest,
) -> Result<pb::BrokerHeartbeatResponse, Problem> {
    let arrived = Instant::now();
    let by: BrokerEpoch = row(request.broker, "broker")?;
    // A fence that is on its way is decided first, and none begins until this is answered.
    let _answering = parts.fences.answering(by).await;
    parts.barrier.pass().await?;
    // What is promised here holds in this history alone.
    let image = parts.machine.hub().image();
    let follows = check_history(&image, request.metadata_version, request.metadata_author)
        .inspect_err(|refusal| parts.ahead.came(by.broker, refusal));
    let state = state_of(parts, by)?;
    follows?;
    // After the state was read: what overtook this one has changed it by then, or what this one wants comes first.
    let newest = parts.sessions.beat(by, arrived, request.number, request.feature_level);
    parts.reports.said(by, request.acted_version, request.reports);
    if newest && state.serves() {
        give_up_damaged(parts, by, request.damaged, request.stuck, request.unusable).await?;
    }
    let wanted = match state {
        _ if !newest => None,
        _ if request.stopped => has_stopped(parts, by, state),
        _ if state.serves() && request.wants_to_stop => Some(Command::DrainBroker(by)),
        BrokerState::Registered | BrokerState::Fenced
            if request.epoch_persisted && !request.wants_to_stop && !is_over(parts, by) =>
        {
            Some(Command::UnfenceBroker(by))
        }
        BrokerState::Active if request.disk_slow => stands_back(parts, by),
        BrokerState::Slow if !request.disk_slow => Some(Command::SetSlow(SetSlow { by, slow: false })),
        _ => None,
    };
    if let Some(command) = wanted {
        parts.run(command, false).await?;
        if request.stopped {
            tracing::info!(broker = by.broker.0, epoch = by.epoch, "broker has stopped in order");
        }
    }
    let state = state_of(parts, by)?;
    Ok(pb::BrokerHeartbeatResponse {
        state: state.to_wire(),
        metadata_version: parts.machine.hub().image().version(),
        may_stop: !state.serves(),
        wanted: parts.reports.wanted(by.broker),
        cuts: parts.reports.cuts(by.broker),
    })
}

/// A broker has found logs damaged that it uses, or is to lead with one that it cannot use: others take its place where they can. That is decided where it is applied;
/// what would change nothing is not asked for, since it is said with each heartbeat.
async fn give_up_damaged(
    parts: &Parts,
    by: BrokerEpoch,
    damaged: Vec<pb::PartitionRef>,
    stuck: Vec<pb::StuckReplica>,
    unusable: Vec<pb::PartitionRef>,
) -> Result<(), Problem> {
    let image = parts.machine.hub().image();
    let ids = |ids: Vec<pb::PartitionRef>| {
        ids.into_iter().take(DAMAGED_MAX).filter_map(|id| PartitionId::from_wire(id).ok())
    };
    let gives_up = |id: &PartitionId| image.gives_up_damaged(by.broker, *id).is_some();
    let partitions: Vec<_> = ids(damaged).filter(gives_up).collect();
    let unusable: Vec<_> = ids(unusable).filter(|id| image.hands_over(by.broker, *id)).collect();
    let known = stuck.into_iter().take(DAMAGED_MAX).filter_map(|stuck| StuckReplica::from_wire(stuck).ok());
    let stuck: Vec<_> =
        known.filter(|it| image.begins_anew(by.broker, it.partition, it.leader_epoch)).collect();
    let mut named = partitions.iter().chain(stuck.iter().map(|it| &it.partition)).chain(&unusable);
    let Some(first) = named.next() else { return Ok(()) };
    let name =
        image.topic(first.topic).map_or_else(|| first.topic.to_string(), |topic| topic.name.to_string());
    let others = named.count();
    let (broker, first) = (by.broker.0, format!("{name}/{}", first.partition));
    let command = Command::ReportDamage(ReportDamage { by, partitions, stuck, unusable });
    if parts.machine.allows(&command).is_err() {
        return Ok(());
    }
    tracing::warn!(
        broker,
        first,
        others,
        "a broker's log was found damaged, or cannot be used: others lead what they can, and it is fetched anew where it is \
         damaged and not needed"
    );
    parts.run(command, false).await?;
    Ok(())
}

/// A broker has stopped in order. Its stream has ended before, so it may be taken for dead already, and did not die. Where not
/// everybody knows that command yet it is fenced as any that is silent.
fn has_stopped(parts: &Parts, by: BrokerEpoch, state: BrokerState) -> Option<Command> {
    let stop = Command::StopBroker(by);
    match parts.machine.allows(&stop) {
        Ok(()) => Some(stop).filter(|_| state.is_alive() || state == BrokerState::Fenced),
        Err(_) => state.is_alive().then_some(Command::FenceBroker(by)),
    }
}

/// A broker whose disk is slow is to stand back, unless too many do already: that is decided where it is applied, and not
/// asked for with each heartbeat.
fn stands_back(parts: &Parts, by: BrokerEpoch) -> Option<Command> {
    let command = Command::SetSlow(SetSlow { by, slow: true });
    let may = parts.machine.allows(&command).is_ok() && parts.machine.hub().image().may_be_slow();
    may.then(|| {
        tracing::warn!(
            broker = by.broker.0,
            epoch = by.epoch,
            "broker's disk is slow: others lead what they can"
        );
        command
    })
}

/// Takes a broker out for good, in the registration that the caller has seen. Whoever says that disks are lost must have
/// seen one: a broker that came with them since may be the only one that is complete by now.
pub(super) async fn remove(
    parts: &Parts,
    request: pb::RemoveBrokerRequest,
) -> Result<pb::RemoveBrokerResponse, Problem> {
    let asked = required(request.request, "request")?;
    if asked.disk_lost && asked.expected_epoch.is_none() {
        let why = "disks are lost that were last seen in one registration of the broker (its broker_epoch)";
        return Err(Problem::required("expected_epoch", why));
    }
    parts.barrier.pass().await?;
    let (id, image) = (BrokerId(asked.broker_id), parts.machine.hub().image());
    let broker = image.broker(id).ok_or_else(|| weir_cluster::problem(&Error::BrokerNotFound(id)))?;
    let by = BrokerEpoch { broker: id, epoch: asked.expected_epoch.unwrap_or(broker.epoch) };
    let command = if asked.disk_lost { Command::LoseBroker(by) } else { Command::RemoveBroker(by) };
    let (_, metadata_version) = parts.run(command, asked.validate_only).await?;
    let response = v1::RemoveBrokerResponse { broker: Some(weir_cluster::public::broker(&image, broker)) };
    Ok(pb::RemoveBrokerResponse { response: Some(response), metadata_version })
}

/// The last words of a broker's process: a write or sync has failed in its directory. It is fenced by that, too.
pub(super) async fn fail_directory(
    parts: &Parts,
    request: pb::FailDirectoryRequest,
) -> Result<pb::FailDirectoryResponse, Problem> {
    let failed: FailDirectory = row(request.failed, "failed")?;
    parts.barrier.pass().await?;
    check_history(&parts.machine.hub().image(), request.metadata_version, request.metadata_author)?;
    let (_, metadata_version) = parts.run(Command::FailDirectory(failed), false).await?;
    tracing::warn!(
        broker = failed.by.broker.0,
        epoch = failed.by.epoch,
        directory = %failed.directory,
        "a write or sync has failed in a broker's log directory: it is out of use until somebody trusts it"
    );
    Ok(pb::FailDirectoryResponse { metadata_version })
}

/// Lets a broker use its directories again in spite of the failures that the caller has seen.
pub(super) async fn trust(
    parts: &Parts,
    request: pb::TrustBrokerRequest,
) -> Result<pb::TrustBrokerResponse, Problem> {
    let asked = required(request.request, "request")?;
    if asked.failures.is_empty() {
        let why = "a broker is trusted in spite of failures that were shown (failures of its directories)";
        return Err(Problem::required("failures", why));
    }
    parts.barrier.pass().await?;
    let (id, image) = (BrokerId(asked.broker_id), parts.machine.hub().image());
    let broker = image.broker(id).ok_or_else(|| weir_cluster::problem(&Error::BrokerNotFound(id)))?;
    let command = Command::TrustBroker(TrustBroker {
        broker: id,
        failures: asked.failures.into_iter().map(i64::cast_unsigned).collect(),
    });
    let (_, metadata_version) = parts.run(command, asked.validate_only).await?;
    let response = v1::TrustBrokerResponse { broker: Some(weir_cluster::public::broker(&image, broker)) };
    Ok(pb::TrustBrokerResponse { response: Some(response), metadata_version })
}

/// Whether the broker's process has said that its disk has failed, and is about to end.
fn is_over(parts: &Parts, by: BrokerEpoch) -> bool {
    parts.machine.hub().image().broker(by.broker).is_some_and(|broker| broker.is_over())
}

/// How the broker is, if that is its registration: a zombie learns here that it is one.
fn state_of(parts: &Parts, by: BrokerEpoch) -> Result<BrokerState, Problem> {
    let image = parts.machine.hub().image();
    let refuse = |error: Error| weir_cluster::problem(&error);
    let broker =
        image.broker(BrokerId(by.broker.0)).ok_or_else(|| refuse(Error::BrokerNotFound(by.broker)))?;
    if broker.epoch != by.epoch {
        let (broker, current) = (by.broker, broker.epoch);
        return Err(refuse(Error::BrokerEpochStale { broker, current, given: by.epoch }));
    }
    Ok(broker.state)
}
