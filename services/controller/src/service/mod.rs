//! The calls of brokers: one file for each kind.

mod brokers;
mod config;
mod elections;
mod loss;
mod partitions;
mod quorum;
mod session;
mod topics;
mod watch;

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Request, Response, Status};
use weir_cluster::{CLUSTER_HEADER, Row, RowError};
use weir_metadata::{Command, Error, Image, Reply};
use weir_proto::internal::v1 as pb;
use weir_proto::internal::v1::controller_service_server::ControllerService;
use weir_proto::v1::ErrorReason;
use weir_rpc::Problem;
use weir_runtime::{Os, Stop};
use weir_types::ClusterId;

use crate::Config;
use crate::ahead::Ahead;
use crate::barrier::Barrier;
use crate::fences::Fences;
use crate::machine::Machine;
use crate::members;
use crate::metrics::Metrics;
use crate::mutant::Mutant;
use crate::propose::Proposer;
use crate::raft::{Heard, Polled, Raft, Rewound};
use crate::reports::Reports;
use crate::sessions::Sessions;
use crate::store::Member;

/// Answers brokers.
#[derive(Clone)]
pub(crate) struct Service(pub(crate) Arc<Parts>);

/// What the calls work with.
pub(crate) struct Parts {
    pub(crate) os: Arc<dyn Os>,
    pub(crate) config: Config,
    pub(crate) member: Member,
    pub(crate) cluster_id: ClusterId,
    pub(crate) raft: Raft,
    pub(crate) machine: Machine,
    pub(crate) proposer: Proposer,
    pub(crate) barrier: Barrier,
    pub(crate) sessions: Sessions,
    pub(crate) fences: Fences,
    pub(crate) reports: Reports,
    pub(crate) heard: Heard,
    pub(crate) polled: Polled,
    pub(crate) rewound: Rewound,
    pub(crate) ahead: Ahead,
    pub(crate) metrics: Metrics,
    pub(crate) stop: Stop,
    /// The way to the leader: where it is, and a connection.
    pub(crate) ways: Mutex<Option<(String, Channel)>>,
}

impl Parts {
    /// Why calls are not answered here now, if so.
    pub(crate) fn unready(&self) -> Option<String> {
        if self.stop.is_requested() {
            return Some("stopping".to_owned());
        }
        let starting =
            || (self.machine.hub().image().version() < 1).then(|| "the metadata has not come yet".to_owned());
        self.no_quorum().or_else(starting)
    }

    /// Whether this controller takes itself for the one that leads.
    pub(crate) fn leads(&self) -> bool {
        // Taken out at once (rule 34).
        let raft = self.raft.server_metrics().borrow().clone();
        raft.current_leader == Some(raft.id)
    }

    /// Why nothing can be decided here now, if so.
    pub(crate) fn no_quorum(&self) -> Option<String> {
        // Taken out at once (rule 34).
        let raft = self.raft.server_metrics().borrow().clone();
        let voters = raft.membership_config.membership().voter_ids().count();
        let needed = voters / 2 + 1;
        let given_up = || self.polled.given_up();
        if raft.current_leader.is_none() {
            let nobody = || format!("no controller leads: {needed} of the {voters} that vote must run");
            return Some(given_up().unwrap_or_else(nobody));
        }
        // openraft's leader calls itself one for ever, whoever answers it.
        let there = voters.saturating_sub(members::voters_away(self));
        let too_few = || {
            format!("no quorum of controllers: {needed} of the {voters} that vote must answer, {there} do")
        };
        (there < needed).then(|| given_up().unwrap_or_else(too_few))
    }

    /// That this controller leads a quorum which another controller goes on without, if so. It is ready, and decides: for
    /// whom, a person has to say.
    pub(crate) fn other_quorum(&self) -> Option<String> {
        let said = self.polled.recovered().filter(|_| self.leads())?;
        Some(format!("two quorums of this cluster decide, of which a person has given one up: {said}"))
    }

    /// Carries a command out, or says what it would do.
    pub(crate) async fn run(&self, command: Command, validate_only: bool) -> Result<(Reply, i64), Problem> {
        if validate_only {
            self.barrier.pass().await?;
            let reply = self.machine.try_out(&command).map_err(|error| weir_cluster::problem(&error))?;
            return Ok((reply, self.machine.hub().image().version()));
        }
        let begun = Instant::now();
        let outcome = self.proposer.propose(command).await;
        self.metrics.commit.observe(begun.elapsed().as_secs_f64());
        outcome.map_err(|unapplied| unapplied.problem())
    }
}

/// Refuses a call that was meant for another cluster. Whom it names, a broker in an epoch, there may well be here too;
/// topics and producer ids would be given to those who take them for others.
pub(crate) fn meant_for(ours: ClusterId, request: Request<()>) -> Result<Request<()>, Status> {
    match request.metadata().get(CLUSTER_HEADER) {
        Some(meant) if meant.to_str().ok().and_then(|meant| meant.parse().ok()) != Some(ours) => {
            Err(other_cluster(ours).status())
        }
        _ => Ok(request),
    }
}

fn other_cluster(ours: ClusterId) -> Problem {
    Problem::new(ErrorReason::ClusterMismatch, format!("this is cluster {ours}, not the one that was meant"))
}

/// Refuses whoever has seen more of the metadata than there is here, or something else: what this controller says is no
/// part of the history that the caller follows (correctness rules 10, 33). For one that has caught up.
fn check_history(image: &Image, seen: i64, author: u64) -> Result<(), Problem> {
    let ours = image.version();
    let refusal = match seen {
        seen if seen > ours => Error::Behind { ours, seen },
        seen if !image.continues(seen, author) && !Mutant::AnyHistoryTold.is_planted() => {
            Error::OtherHistory { ours, seen }
        }
        _ => return Ok(()),
    };
    Err(weir_cluster::problem(&refusal))
}

/// A field that must be there.
fn required<T>(field: Option<T>, name: &str) -> Result<T, Problem> {
    field.ok_or_else(|| Problem::required(name, "the call is about it"))
}

/// A row that must be there and be one.
fn row<T: Row>(wire: Option<T::Wire>, name: &str) -> Result<T, Problem> {
    T::from_wire(required(wire, name)?).map_err(|error| malformed(name, &error))
}

fn malformed(name: &str, error: &RowError) -> Problem {
    Problem::new(ErrorReason::FieldMalformed, format!("{name}: {error}")).fact("field", name)
}

/// A command got the answer of another kind of command.
fn defect() -> Problem {
    Problem::new(ErrorReason::Internal, "the state machine answered another question; please report this")
}

#[tonic::async_trait]
impl ControllerService for Service {
    async fn register_broker(
        &self,
        request: Request<pb::RegisterBrokerRequest>,
    ) -> Result<Response<pb::RegisterBrokerResponse>, Status> {
        Ok(Response::new(brokers::register(&self.0, request.into_inner()).await?))
    }

    async fn broker_heartbeat(
        &self,
        request: Request<pb::BrokerHeartbeatRequest>,
    ) -> Result<Response<pb::BrokerHeartbeatResponse>, Status> {
        Ok(Response::new(brokers::heartbeat(&self.0, request.into_inner()).await?))
    }

    type BrokerSessionStream = ReceiverStream<Result<pb::BrokerSessionResponse, Status>>;

    async fn broker_session(
        &self,
        request: Request<tonic::Streaming<pb::BrokerSessionRequest>>,
    ) -> Result<Response<Self::BrokerSessionStream>, Status> {
        Ok(Response::new(session::run(&self.0, request.into_inner())))
    }

    type WatchMetadataStream = ReceiverStream<Result<pb::WatchMetadataResponse, Status>>;

    async fn watch_metadata(
        &self,
        request: Request<pb::WatchMetadataRequest>,
    ) -> Result<Response<Self::WatchMetadataStream>, Status> {
        Ok(Response::new(watch::watch(&self.0, request.into_inner()).await?))
    }

    async fn create_topic(
        &self,
        request: Request<pb::CreateTopicRequest>,
    ) -> Result<Response<pb::CreateTopicResponse>, Status> {
        Ok(Response::new(topics::create(&self.0, request.into_inner()).await?))
    }

    async fn update_topic(
        &self,
        request: Request<pb::UpdateTopicRequest>,
    ) -> Result<Response<pb::UpdateTopicResponse>, Status> {
        Ok(Response::new(topics::update(&self.0, request.into_inner()).await?))
    }

    async fn delete_topic(
        &self,
        request: Request<pb::DeleteTopicRequest>,
    ) -> Result<Response<pb::DeleteTopicResponse>, Status> {
        Ok(Response::new(topics::delete(&self.0, request.into_inner()).await?))
    }

    async fn update_configs(
        &self,
        request: Request<pb::UpdateConfigsRequest>,
    ) -> Result<Response<pb::UpdateConfigsResponse>, Status> {
        Ok(Response::new(config::update(&self.0, request.into_inner()).await?))
    }

    async fn allocate_producer_ids(
        &self,
        request: Request<pb::AllocateProducerIdsRequest>,
    ) -> Result<Response<pb::AllocateProducerIdsResponse>, Status> {
        Ok(Response::new(config::allocate_producer_ids(&self.0, request.into_inner()).await?))
    }

    async fn assign_directories(
        &self,
        request: Request<pb::AssignDirectoriesRequest>,
    ) -> Result<Response<pb::AssignDirectoriesResponse>, Status> {
        Ok(Response::new(partitions::assign_directories(&self.0, request.into_inner()).await?))
    }

    async fn alter_partitions(
        &self,
        request: Request<pb::AlterPartitionsRequest>,
    ) -> Result<Response<pb::AlterPartitionsResponse>, Status> {
        Ok(Response::new(partitions::alter(&self.0, request.into_inner()).await?))
    }

    async fn elect_leader(
        &self,
        request: Request<pb::ElectLeaderRequest>,
    ) -> Result<Response<pb::ElectLeaderResponse>, Status> {
        Ok(Response::new(partitions::elect_leader(&self.0, request.into_inner()).await?))
    }

    async fn describe_controller(
        &self,
        _request: Request<pb::DescribeControllerRequest>,
    ) -> Result<Response<pb::DescribeControllerResponse>, Status> {
        Ok(Response::new(quorum::describe(&self.0)))
    }

    async fn update_voters(
        &self,
        request: Request<pb::UpdateVotersRequest>,
    ) -> Result<Response<pb::UpdateVotersResponse>, Status> {
        Ok(Response::new(quorum::update_voters(&self.0, request.into_inner()).await?))
    }

    async fn remove_broker(
        &self,
        request: Request<pb::RemoveBrokerRequest>,
    ) -> Result<Response<pb::RemoveBrokerResponse>, Status> {
        Ok(Response::new(brokers::remove(&self.0, request.into_inner()).await?))
    }

    async fn fail_directory(
        &self,
        request: Request<pb::FailDirectoryRequest>,
    ) -> Result<Response<pb::FailDirectoryResponse>, Status> {
        Ok(Response::new(brokers::fail_directory(&self.0, request.into_inner()).await?))
    }

    async fn trust_broker(
        &self,
        request: Request<pb::TrustBrokerRequest>,
    ) -> Result<Response<pb::TrustBrokerResponse>, Status> {
        Ok(Response::new(brokers::trust(&self.0, request.into_inner()).await?))
    }

    async fn elect_leaders(
        &self,
        request: Request<pb::ElectLeadersRequest>,
    ) -> Result<Response<pb::ElectLeadersResponse>, Status> {
        Ok(Response::new(elections::elect(&self.0, request.into_inner()).await?))
    }

    async fn finalize_feature_level(
        &self,
        request: Request<pb::FinalizeFeatureLevelRequest>,
    ) -> Result<Response<pb::FinalizeFeatureLevelResponse>, Status> {
        Ok(Response::new(quorum::finalize(&self.0, request.into_inner()).await?))
    }

    async fn list_voters(
        &self,
        _request: Request<pb::ListVotersRequest>,
    ) -> Result<Response<pb::ListVotersResponse>, Status> {
        let voters = members::voters(&self.0);
        Ok(Response::new(pb::ListVotersResponse { voters }))
    }

    async fn join_controller(
        &self,
        request: Request<pb::JoinControllerRequest>,
    ) -> Result<Response<pb::JoinControllerResponse>, Status> {
        let request = request.into_inner();
        let who = row(request.controller, "controller")?;
        let level = self.0.machine.hub().image().feature_level();
        if request.feature_level.max(1) < level {
            let said = format!(
                "the cluster is at feature level {level}, this controller understands an earlier one: upgrade it"
            );
            return Err(Problem::new(ErrorReason::FeatureUnknown, said).into());
        }
        let node_id = members::admit(&self.0.raft, &self.0.proposer, who).await?;
        Ok(Response::new(pb::JoinControllerResponse {
            cluster_id: self.0.cluster_id.to_wire(),
            node_id,
            quorum_id: self.0.member.quorum(),
        }))
    }
}

#[cfg(test)]
mod tests {
    use weir_metadata::{CreateCluster, Entry, FEATURE_LEVEL, JoinController, SetClusterConfig, State};
    use weir_types::{ClusterId, DirectoryId};

    use super::*;

    #[test]
    fn who_has_seen_another_history_is_told_nothing_of_this_one() {
        let mut state = State::default();
        let create = Command::CreateCluster(CreateCluster {
            cluster_id: ClusterId(1),
            feature_level: FEATURE_LEVEL,
            settings: Default::default(),
            controller: JoinController { directory: DirectoryId(1), endpoint: String::new() },
        });
        let set = Command::SetClusterConfig(SetClusterConfig {
            set: [("retention_ms".to_owned(), "1d".to_owned())].into(),
            unset: Vec::new(),
            expected: Default::default(),
            request_id: String::new(),
        });
        for (index, author, command) in [(1, 7, create), (2, 8, set)] {
            state.apply(index, &Entry { at_ms: 0, author, commands: vec![command] });
        }
        let told = |seen, author| check_history(&state.image, seen, author);
        assert!(told(2, 8).is_ok() && told(1, 7).is_ok());
        assert!(told(2, 0).is_ok(), "it does not know who wrote what it has seen");
        let refused = told(2, 7).unwrap_err();
        assert_eq!(refused.reason, ErrorReason::ClusterMismatch, "{refused:?}");
    }

    #[test]
    fn somebody_of_another_history_who_is_told_is_noticed() {
        assert!(
            Mutant::AnyHistoryTold.is_noticed_by(who_has_seen_another_history_is_told_nothing_of_this_one)
        );
    }
}
