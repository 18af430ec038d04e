//! The follower's end: one task for each broker that leads partitions which are followed here. It keeps a stream to that
//! broker for as long as there are any, and begins again whenever it breaks.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use tonic::body::Body;
use tonic::codec::{Codec as _, EncodeBody};
use tonic::transport::Channel;
use weir_cluster::Row;
use weir_metadata::Image;
use weir_proto::codec::Codec;
use weir_proto::internal::v1 as wire;
use weir_proto::internal::v1::replicate_request::Frame as Says;
use weir_proto::internal::v1::replication_service_client::ReplicationServiceClient;
use weir_runtime::spread_ms;
use weir_types::{BrokerId, PartitionId};

use crate::forward::hop::cause;
use crate::replication::Replication;
use crate::replication::followed::Followed;
use crate::replication::following_stream::FollowingStream;
use crate::replication::{MESSAGE_BYTES_MAX, WINDOW_BYTES};

/// Pause before a stream is begun anew, at first, in milliseconds; doubled while it does not come to be.
const PAUSE_MS: u64 = 20;
/// And at most.
const PAUSE_MS_MAX: u64 = 1_000;

/// The call that a link is.
const PATH: &str = "/weir.internal.v1.ReplicationService/Replicate";

/// How long a leader may take to answer a dial.
const DIAL: Duration = Duration::from_secs(3);

/// What a link is told.
pub(crate) enum Change {
    /// Follow this, instead of what was followed of the partition before.
    Follow(Arc<Followed>),
    /// Follow that no more.
    Leave(PartitionId),
}

/// Whatever is followed of one leader.
pub(crate) type Wanted = BTreeMap<PartitionId, Arc<Followed>>;

/// Follows what it is told to follow of one broker, for as long as anybody may tell it.
pub(crate) async fn run(
    hub: Arc<Replication>,
    leader: BrokerId,
    mut changes: mpsc::UnboundedReceiver<Change>,
) {
    let mut wanted = Wanted::new();
    let mut pause_ms = PAUSE_MS;
    loop {
        while wanted.is_empty() {
            match changes.recv().await {
                Some(change) => take(&mut wanted, change),
                None => return,
            }
        }
        match session(&hub, leader, &mut wanted, &mut changes).await {
            Ok(was_answered) if was_answered => pause_ms = PAUSE_MS,
            Ok(_) => {}
            Err(status) => {
                tracing::debug!(leader = leader.0, %status, "no stream from a leader");
                hub.cluster.missed(leader, &cause(&status));
                hub.metrics.stream_failures.inc();
            }
        }
        wanted.values().for_each(|followed| followed.unsubscribed());
        let pause = sleep(Duration::from_millis(spread_ms(&*hub.os, pause_ms)));
        pause_ms = (pause_ms * 2).min(PAUSE_MS_MAX);
        tokio::pin!(pause);
        loop {
            tokio::select! {
                () = &mut pause => break,
                change = changes.recv() => match change {
                    Some(change) => take(&mut wanted, change),
                    None => return,
                },
            }
        }
    }
}

/// Notes what is wanted from now on.
pub(crate) fn take(wanted: &mut Wanted, change: Change) {
    match change {
        Change::Follow(followed) => drop(wanted.insert(followed.id, followed)),
        Change::Leave(id) => drop(wanted.remove(&id)),
    }
}

/// One stream, to its end. Whether the leader took it.
async fn session(
    hub: &Arc<Replication>,
    leader: BrokerId,
    wanted: &mut Wanted,
    changes: &mut mpsc::UnboundedReceiver<Change>,
) -> Result<bool, Status> {
    let (channel, hello) = channel(hub, leader)?;
    let (out, requests) = mpsc::channel(1);
    // There is room for the first.
    let _ = out.try_send(wire::ReplicateRequest { frame: Some(Says::Hello(hello)) });
    let encoder = Codec::<wire::ReplicateRequest, ()>::default().encoder();
    let requests = ReceiverStream::new(requests).map(Ok);
    let body = Body::new(EncodeBody::new_client(encoder, requests, None, None));
    // A dial that nobody answers would be waited for as long as the system likes, at an address that may be old by then.
    let answers = weir_rpc::duplex(channel, PATH, body, MESSAGE_BYTES_MAX);
    let answers = timeout(DIAL, answers).await.map_err(|_| Status::unavailable("no answer in time"))??;
    tracing::debug!(leader = leader.0, "following");
    FollowingStream::new(hub.clone(), leader, out).run(answers, wanted, changes).await
}

/// What a leader is asked one thing with, and told first.
pub(crate) fn client(
    hub: &Replication,
    leader: BrokerId,
) -> Result<(ReplicationServiceClient<Channel>, wire::ReplicateHello), Status> {
    let (channel, hello) = channel(hub, leader)?;
    let client = ReplicationServiceClient::new(channel)
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX);
    Ok((client, hello))
}

/// A connection to a leader, which is made with the first call, and what it is told first.
fn channel(hub: &Replication, leader: BrokerId) -> Result<(Channel, wire::ReplicateHello), Status> {
    let (endpoint, hello) = whom(hub, &hub.cluster.image(), leader)?;
    let channel = weir_cluster::channel(&hub.os, &endpoint)
        .map_err(|error| Status::unavailable(format!("broker {leader} at \"{endpoint}\": {error}")))?;
    Ok((channel, hello))
}

/// Where a leader is, and what it is told first.
fn whom(
    hub: &Replication,
    image: &Image,
    leader: BrokerId,
) -> Result<(String, wire::ReplicateHello), Status> {
    let unknown = |what: &str| Status::unavailable(format!("broker {leader} {what}"));
    let broker = image.broker(leader).ok_or_else(|| unknown("is not known"))?;
    let internal = broker.endpoints.iter().find(|endpoint| endpoint.listener == "internal");
    let internal = internal.ok_or_else(|| unknown("has no internal listener"))?;
    let host =
        if internal.host.contains(':') { format!("[{}]", internal.host) } else { internal.host.clone() };
    let hello = wire::ReplicateHello {
        cluster_id: image.cluster_id().map(|id| id.to_wire()).unwrap_or_default(),
        follower: Some(hub.cluster.broker_epoch()),
        leader: Some(wire::BrokerEpoch { broker_id: leader.0, epoch: broker.epoch }),
        window_bytes: WINDOW_BYTES as i64,
    };
    Ok((format!("{host}:{}", internal.port), hello))
}
