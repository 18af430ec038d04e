//! Registration and heartbeats.

use tokio::time::Instant;
use weir_cluster::Row;
use weir_metadata::{BrokerEpoch, BrokerState, Command, Error, RegisterBroker, Reply};
use weir_proto::internal::v1 as pb;
use weir_proto::v1;
use weir_rpc::Problem;
use weir_types::BrokerId;

use super::{Parts, defect, required, row};

pub(super) async fn register(
    parts: &Parts,
    request: pb::RegisterBrokerRequest,
) -> Result<pb::RegisterBrokerResponse, Problem> {
    let arrived = Instant::now();
    let registration: RegisterBroker = row(request.registration, "registration")?;
    let (reply, metadata_version) = parts.run(Command::RegisterBroker(registration), false).await?;
    let Reply::BrokerRegistered { broker, epoch } = reply else { return Err(defect()) };
    parts.sessions.heard(BrokerEpoch { broker, epoch }, arrived);
    let ms = |duration: std::time::Duration| i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
    tracing::info!(broker = broker.0, epoch, "broker registered");
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
    parts.barrier.pass().await?;
    let state = state_of(parts, by)?;
    // After the state was read: what overtook this one has changed it by then, or what this one wants comes first.
    let newest = parts.sessions.beat(by, arrived, request.number, request.feature_level);
    parts.reports.said(by, request.reports);
    let wanted = match state {
        _ if !newest => None,
        _ if request.stopped => state.is_alive().then_some(Command::FenceBroker(by)),
        BrokerState::Active if request.wants_to_stop => Some(Command::DrainBroker(by)),
        BrokerState::Registered | BrokerState::Fenced
            if request.epoch_persisted && !request.wants_to_stop =>
        {
            Some(Command::UnfenceBroker(by))
        }
        _ => None,
    };
    if let Some(command) = wanted {
        parts.run(command, false).await?;
    }
    let state = state_of(parts, by)?;
    Ok(pb::BrokerHeartbeatResponse {
        state: state.to_wire(),
        metadata_version: parts.machine.hub().image().version(),
        may_stop: state != BrokerState::Active,
        wanted: parts.reports.wanted(by.broker),
    })
}

/// Takes a broker out for good, in the registration that it has now.
pub(super) async fn remove(
    parts: &Parts,
    request: pb::RemoveBrokerRequest,
) -> Result<pb::RemoveBrokerResponse, Problem> {
    let asked = required(request.request, "request")?;
    parts.barrier.pass().await?;
    let (id, image) = (BrokerId(asked.broker_id), parts.machine.hub().image());
    let broker = image.broker(id).ok_or_else(|| weir_cluster::problem(&Error::BrokerNotFound(id)))?;
    let command = Command::RemoveBroker(BrokerEpoch { broker: id, epoch: broker.epoch });
    let (_, metadata_version) = parts.run(command, asked.validate_only).await?;
    let response = v1::RemoveBrokerResponse { broker: Some(weir_cluster::public::broker(&image, broker)) };
    Ok(pb::RemoveBrokerResponse { response: Some(response), metadata_version })
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
