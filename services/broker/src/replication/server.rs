//! What other brokers ask of this one about its logs.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures::stream::BoxStream;
use futures::{Stream, StreamExt};
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::body::Body;
use tonic::{Request, Response, Status, Streaming};
use weir_cluster::Row;
use weir_metadata::BrokerEpoch;
use weir_proto::body::BatchBody;
use weir_proto::internal::v1 as wire;
use weir_proto::internal::v1::replicate_request::Frame;
use weir_proto::internal::v1::replicate_response::Frame as Says;
use weir_proto::internal::v1::replication_service_server::{ReplicationService, ReplicationServiceServer};
use weir_replication::Member;
use weir_rpc::{Messages, Problem};
use weir_types::{BrokerId, ClusterId, PartitionId};

use crate::batch_stream::WithStream;
use crate::replication::leading_stream::LeadingStream;
use crate::replication::suspects::Suspect;
use crate::replication::{MESSAGE_BYTES_MAX, Replication, WINDOW_BYTES, start_state};

/// Answers other brokers.
#[derive(Clone)]
pub(crate) struct Replicator(pub(crate) Arc<Replication>);

impl Replicator {
    /// As a service, with the sizes that its messages may have: as generated, but for the way of Replicate
    /// ([`crate::batch_stream`]).
    pub(crate) fn service(
        self,
    ) -> WithStream<
        ReplicationServiceServer<Self>,
        impl Fn(http::Request<Body>) -> Result<Body, Problem> + Clone,
    > {
        let generated = ReplicationServiceServer::new(self.clone())
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX);
        let stream = move |request: http::Request<Body>| {
            let requests = Messages::new(request.into_body(), MESSAGE_BYTES_MAX);
            Ok(Body::new(BatchBody::of_answer(self.lead(requests.boxed()))))
        };
        WithStream { generated, called: "Replicate", stream }
    }

    /// Whether a follower means this broker, in this registration, of this cluster.
    fn check(&self, cluster_id: &[u8], leader: Option<&wire::BrokerEpoch>) -> Result<(), Status> {
        let cluster = &self.0.cluster;
        let ours = cluster.image().cluster_id();
        let meant = ClusterId::from_wire(cluster_id.to_vec().into())
            .map_err(|error| Status::invalid_argument(format!("cluster_id: {error}")))?;
        if ours != Some(meant) {
            return Err(Status::failed_precondition(format!("this broker is not one of cluster {meant}")));
        }
        let me = cluster.broker_epoch();
        match leader {
            Some(leader) if *leader != me => Err(Status::unavailable(format!(
                "this is broker {} in epoch {}, not broker {} in epoch {}",
                me.broker_id, me.epoch, leader.broker_id, leader.epoch
            ))),
            _ => Ok(()),
        }
    }

    /// Leads whatever the follower subscribes to, until it goes.
    fn lead(&self, mut requests: BoxStream<'static, Result<wire::ReplicateRequest, Status>>) -> Answers {
        let (out, answers) = mpsc::unbounded_channel();
        let this = self.clone();
        let is_telling = Arc::new(AtomicBool::new(false));
        let telling = is_telling.clone();
        // It ends with the stream: the follower's end, or the connection's.
        tokio::spawn(async move {
            let told = out.clone();
            let carried = async {
                let first = requests.next().await.transpose()?;
                let Some(wire::ReplicateRequest { frame: Some(Frame::Hello(hello)) }) = first else {
                    return Err(Status::invalid_argument("the first message is a hello"));
                };
                this.check(&hello.cluster_id, hello.leader.as_ref())?;
                let follower =
                    hello.follower.ok_or_else(|| Status::invalid_argument("follower: it is missing"))?;
                let follower = BrokerEpoch::from_wire(follower)
                    .map_err(|error| Status::invalid_argument(format!("follower: {error}")))?;
                let follower = Member { broker: follower.broker, epoch: follower.epoch };
                let window = usize::try_from(hello.window_bytes).unwrap_or(0).clamp(1, WINDOW_BYTES);
                tracing::debug!(follower = follower.broker.0, "followed");
                LeadingStream::new(this.0, follower, window, out, telling).run(requests).await
            };
            if let Err(status) = carried.await {
                // Whoever listened may have gone.
                let _ = told.send(Err(status));
            }
        });
        let answers = UnboundedReceiverStream::new(answers).inspect(move |answer| {
            let tells = |answer: &wire::ReplicateResponse| matches!(answer.frame, Some(Says::Progress(_)));
            if answer.as_ref().is_ok_and(tells) {
                is_telling.store(false, Ordering::SeqCst);
            }
        });
        Box::pin(answers)
    }
}

type Answers = Pin<Box<dyn Stream<Item = Result<wire::ReplicateResponse, Status>> + Send>>;
type Chunks = Pin<Box<dyn Stream<Item = Result<wire::GetStartStateResponse, Status>> + Send>>;

#[tonic::async_trait]
impl ReplicationService for Replicator {
    type ReplicateStream = Answers;

    async fn replicate(
        &self,
        request: Request<Streaming<wire::ReplicateRequest>>,
    ) -> Result<Response<Answers>, Status> {
        Ok(Response::new(self.lead(request.into_inner().boxed())))
    }

    type GetStartStateStream = Chunks;

    async fn get_start_state(
        &self,
        request: Request<wire::GetStartStateRequest>,
    ) -> Result<Response<Chunks>, Status> {
        let request = request.into_inner();
        self.check(&request.cluster_id, None)?;
        let id = request.partition.ok_or_else(|| Status::invalid_argument("partition: it is missing"))?;
        let id = PartitionId::from_wire(id)
            .map_err(|error| Status::invalid_argument(format!("partition: {error}")))?;
        let led = self.0.led(id).filter(|led| led.epoch() == request.leader_epoch);
        let elsewhere = || Status::unavailable(format!("{id} is not led here in that epoch"));
        let led = led.ok_or_else(elsewhere)?;
        let at = led.partition.ends().log_start;
        let state = led.partition.start_state().await.map_err(|error| {
            if matches!(error, weir_storage::Error::Damaged { .. }) {
                self.0.suspects.note(id, Suspect::Read(at, error.to_string()));
            }
            Status::internal(error.to_string())
        })?;
        // What was read is the leader's, if it still is.
        if led.has_ended() {
            return Err(elsewhere());
        }
        let who = request.follower.map(|follower| BrokerId(follower.broker_id));
        led.gives_start(who, at, state.offset());
        Ok(Response::new(Box::pin(futures::stream::iter(start_state::chunks(state.to_bytes())))))
    }
}
