//! The life of a controller: built (folder, log, socket), served, stopped.

#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use openraft::error::{InitializeError, RaftError};
use openraft::{BasicNode, RaftMetrics};
use parking_lot::Mutex;
use tokio::time::{sleep, timeout};
use tonic::metadata::AsciiMetadataValue;
use tonic::service::interceptor::InterceptedService;
use weir_cluster::{CLUSTER_HEADER, MESSAGE_BYTES_MAX, ROUTE_DIRECT, ROUTE_HEADER, channel};
use weir_io::{LockError, LockGuard, make_dirs};
use weir_metadata::{Command, CreateCluster, Error as Refusal, FEATURE_LEVEL, Image, JoinController};
use weir_proto::internal::v1 as pb;
use weir_proto::internal::v1::controller_service_client::ControllerServiceClient;
use weir_proto::internal::v1::controller_service_server::ControllerServiceServer;
use weir_proto::internal::v1::raft_service_server::RaftServiceServer;
use weir_proto::v1;
use weir_rpc::{ConnectionLimits, servers, tuning};
use weir_runtime::{Listener, OnEnd, Os, RaftRuntime, Reason, Role, Stop, blocking};
use weir_types::{BrokerId, ClusterId, DirectoryId};

use crate::ahead::Ahead;
use crate::barrier::Barrier;
use crate::changes;
use crate::elections;
use crate::fences::Fences;
use crate::forward::Forward;
use crate::machine::Machine;
use crate::members;
use crate::metrics::Metrics;
use crate::mutant::Mutant;
use crate::news::watch_leaders;
use crate::propose::{Proposer, Unapplied};
use crate::raft::{
    Heard, Network, Outdone, Polled, Raft, RaftServer, Rewound, Timing, raft_config, watch_elections,
};
use crate::reports::Reports;
use crate::service::{Parts, Service, meant_for};
use crate::sessions::{Sessions, fence_the_silent};
use crate::store::{Identity, LogStore, Member};
use crate::unled;
use crate::{Config, Error};

/// Connections taken, in all and from one address. Only brokers and controllers connect, each with a few; many of
/// them may stand behind one address.
const CONNECTIONS: ConnectionLimits =
    ConnectionLimits { total_max: 10_000, per_address_max: 10_000, setting_prefix: "" };
/// The largest request, in bytes: a command must fit an entry, and an entry a message between controllers.
const REQUEST_BYTES_MAX: usize = MESSAGE_BYTES_MAX / 4;

/// Pause before a quorum is asked for again that did not answer.
const SERVES_AGAIN: Duration = Duration::from_secs(1);

/// The id of the controller that makes a cluster: raft index 1 is its own first entry, so nobody else gets it.
const FOUNDER: u64 = 1;

/// A controller that is ready to be served.
pub struct Controller {
    config: Config,
    parts: Arc<Parts>,
    member: Member,
    listener: Box<dyn Listener>,
    address: SocketAddr,
    me: JoinController,
    role: Role,
    _lock: LockGuard,
}

/// What others in the process may ask of a controller. Cheap to clone.
#[derive(Clone)]
pub struct Handle(Arc<Parts>);

impl Handle {
    /// The cluster's id.
    pub fn cluster_id(&self) -> ClusterId {
        self.0.cluster_id
    }

    /// Its id in the quorum.
    pub fn id(&self) -> u64 {
        self.0.raft.server_metrics().borrow().id
    }

    /// Why calls are not answered here now, if so.
    pub fn unready(&self) -> Option<String> {
        self.0.unready()
    }

    /// What people are to know though it is ready, if anything: brokers refuse it, or another quorum goes on without it.
    pub fn note(&self) -> Option<String> {
        let notes: Vec<_> = self.0.ahead.now().into_iter().chain(self.0.other_quorum()).collect();
        (!notes.is_empty()).then(|| notes.join("\n"))
    }

    /// Its metrics, in the text format of Prometheus.
    pub fn metrics(&self) -> Vec<u8> {
        self.0.metrics.render(&self.0)
    }

    /// The newest image this controller has applied.
    pub fn image(&self) -> Arc<Image> {
        self.0.machine.hub().image()
    }

    /// The id of the controller that leads, as far as this one knows.
    pub fn leader(&self) -> Option<u64> {
        self.0.raft.server_metrics().borrow().current_leader
    }

    /// The term that this controller takes itself for the leader of, if it does. Another one may know better.
    pub fn leads(&self) -> Option<u64> {
        // Taken out at once (rule 34).
        let metrics = self.0.raft.server_metrics().borrow().clone();
        (metrics.current_leader == Some(metrics.id)).then_some(metrics.vote.leader_id().term)
    }

    /// How many controllers vote, as far as this one knows; `None` while that is being changed.
    pub fn voters(&self) -> Option<usize> {
        let metrics = self.0.raft.server_metrics().borrow().clone();
        let membership = metrics.membership_config.membership();
        (membership.get_joint_config().len() == 1).then(|| membership.voter_ids().count())
    }

    /// A broker of the cluster, if it ever had one: nothing that was committed before this call is missing. Waits
    /// for the controller to be [ready](Self::ready). Cancel safe.
    ///
    /// # Errors
    /// No quorum answers.
    pub async fn first_broker(&self) -> Result<Option<BrokerId>, Error> {
        self.ready().await;
        self.0.barrier.pass().await.map_err(|problem| Error::Raft(problem.message))?;
        Ok(self.image().brokers().map(|broker| broker.id).next())
    }

    /// Waits until a quorum has answered this controller, or the one that it follows: what is asked here is carried out. Cancel
    /// safe.
    pub async fn serves(&self) {
        loop {
            self.ready().await;
            if self.decides().await {
                return;
            }
            sleep(SERVES_AGAIN).await;
        }
    }

    /// Whether a quorum answers this controller now, or the one that it takes for the leader. That one may have died, and
    /// openraft's leader calls itself one for ever, whoever answers it: so it is asked what only a quorum lets it answer, and
    /// changes nothing. Cancel safe.
    pub async fn decides(&self) -> bool {
        // Taken out at once (rule 34).
        let metrics = self.0.raft.server_metrics().borrow().clone();
        let Some(leader) = metrics.current_leader else { return false };
        if leader == metrics.id {
            return self.0.barrier.pass().await.is_ok();
        }
        let Some(node) = metrics.membership_config.membership().get_node(&leader) else { return false };
        let Ok(channel) = channel(&self.0.os, &node.addr) else { return false };
        let nothing = v1::UpdateVotersRequest { remove_voter_ids: Vec::new(), validate_only: true };
        let mut request = tonic::Request::new(pb::UpdateVotersRequest { request: Some(nothing) });
        // Of another cluster, or another controller, it is no answer.
        let Ok(cluster) = self.cluster_id().to_string().parse() else { return false };
        request.metadata_mut().insert(CLUSTER_HEADER, cluster);
        request.metadata_mut().insert(ROUTE_HEADER, AsciiMetadataValue::from_static(ROUTE_DIRECT));
        let mut client = ControllerServiceClient::new(channel);
        let asked = timeout(self.0.config.write_timeout, client.update_voters(request));
        matches!(asked.await, Ok(Ok(_)))
    }

    /// Waits until the cluster is initialised and a leader is known: from then on calls are answered. Cancel safe.
    pub async fn ready(&self) {
        let mut metrics = self.0.raft.server_metrics();
        // An error means that raft has stopped; whoever serves says why.
        let _ = metrics.wait_for(|metrics| metrics.current_leader.is_some()).await;
        self.0.machine.hub().wait_for(1).await;
    }
}

impl Controller {
    /// Opens the folder, binds the socket, and starts raft. Waits for a place in the quorum if it is to join one.
    /// Cancel safe: a controller that was not built is started again from the same folder.
    ///
    /// # Errors
    /// If the folder is locked, another cluster's, newer or damaged; if the port is taken; if raft does not start.
    pub async fn build(os: Arc<dyn Os>, config: Config) -> Result<Self, Error> {
        config.check()?;
        let lock = take_folder(&os, &config.dir).await?;
        let address = config.listen;
        let listener = weir_rpc::listen(&*os, "controller", address)
            .await
            .map_err(|source| Error::Listen { address, source })?;
        let address = listener.local_addr();
        let endpoint = config.advertise.clone().unwrap_or_else(|| address.to_string());

        let (store, identity) = open_store(&os, &config).await?;
        let member = match identity.member {
            Some(member) => member,
            None if config.join.is_empty() => return Err(Error::Unplaced { path: config.dir.clone() }),
            None => {
                let me = JoinController { directory: identity.directory, endpoint: endpoint.clone() };
                let member = members::join(&os, &config.join, &me).await?;
                store.save_identity(&Identity { member: Some(member), ..identity }).await?;
                member
            }
        };
        let machine = Machine::open(&os, &config.dir, config.snapshot_commands).await?;
        store.purges_what_is(machine.covered());
        let outdone = Outdone::default();
        // Whoever lives has answered several heartbeats by then.
        let heard = Heard::new(2 * config.election_timeout_max);
        let polled = Polled::default();
        let rewound = Rewound::default();
        let told = (heard.clone(), polled.clone(), rewound.clone());
        let network = Network::new(os.clone(), member, outdone.clone(), told);
        let raft = start_raft(&os, &config, member, store, machine.clone(), network, &endpoint).await?;

        let (proposer, carrying) =
            Proposer::new(os.clone(), raft.clone(), machine.clone(), config.write_timeout);
        let (barrier, rounds) = Barrier::new(raft.clone(), config.write_timeout);
        let parts = Arc::new(Parts {
            os,
            config: config.clone(),
            member,
            cluster_id: member.cluster_id,
            raft: raft.clone(),
            machine: machine.clone(),
            proposer: proposer.clone(),
            barrier,
            sessions: Sessions::default(),
            fences: Fences::default(),
            reports: Reports::default(),
            heard,
            polled,
            rewound,
            ahead: Ahead::default(),
            metrics: Metrics::new(),
            stop: Stop::new(),
            ways: Mutex::default(),
        });
        let role = Role::new("controller", parts.stop.clone());
        tokio::spawn(role.task("proposals", OnEnd::StopRole, carrying));
        tokio::spawn(role.task("barrier", OnEnd::StopRole, rounds));
        // They end with raft, which is watched by itself.
        tokio::spawn(role.task("voters", OnEnd::Ignore, members::promote(raft.clone())));
        let snapshots = machine.clone().make_snapshots(raft.clone());
        tokio::spawn(role.task("snapshots", OnEnd::Ignore, snapshots));
        let timing = Timing { min: config.election_timeout_min, max: config.election_timeout_max };
        let elections = watch_elections(parts.os.clone(), raft.clone(), outdone, timing);
        tokio::spawn(role.task("elections", OnEnd::Ignore, elections));
        let (sessions, timeout) =
            ((parts.sessions.clone(), parts.fences.clone(), parts.heard.clone()), config.session_timeout);
        let fenced = parts.metrics.fenced("silence");
        let fencing =
            fence_the_silent(raft.clone(), machine.clone(), proposer.clone(), sessions, timeout, fenced);
        tokio::spawn(role.task("quorum", OnEnd::Ignore, unled::watch(parts.clone())));
        tokio::spawn(role.task("changes", OnEnd::Ignore, changes::follow(parts.clone())));
        tokio::spawn(role.task("leaders", OnEnd::Ignore, watch_leaders(parts.clone())));
        tokio::spawn(role.task("sessions", OnEnd::Ignore, fencing));
        let every = config.leader_rebalance;
        let giving = elections::give_back(raft.clone(), machine.clone(), proposer.clone(), every);
        tokio::spawn(role.task("preferred", OnEnd::Ignore, giving));
        let reports = parts.reports.clone();
        let recovering = elections::recover(raft, machine.clone(), proposer, reports, timeout);
        tokio::spawn(role.task("recovery", OnEnd::Ignore, recovering));
        // It ends when everybody knows.
        let me = JoinController { directory: identity.directory, endpoint };
        let announcing = members::announce(parts.os.clone(), machine, me.clone());
        tokio::spawn(role.task("address", OnEnd::Ignore, announcing));
        Ok(Self { config, parts, member, me, listener, address, role, _lock: lock })
    }

    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// What others in the process may ask of it.
    pub fn handle(&self) -> Handle {
        Handle(self.parts.clone())
    }

    /// Serves until asked to stop, until raft fails, or a task without which it is worth nothing: then the process
    /// must end. After a failure of raft it is not known what the disk holds.
    ///
    /// # Errors
    /// What raft, the disk or a task failed with.
    pub async fn serve(self, stop: Stop) -> Result<(), Error> {
        let (acceptor, mut connections) = servers(1, CONNECTIONS);
        let Some(connections) = connections.pop() else { return Err(Error::Stopping) };
        tokio::spawn(self.role.task("acceptor", OnEnd::StopRole, acceptor.run(self.listener)));
        let raft_server = RaftServer {
            raft: self.parts.raft.clone(),
            machine: self.parts.machine.clone(),
            os: self.parts.os.clone(),
            member: self.member,
        };
        let raft_server = RaftServiceServer::new(raft_server)
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX);
        let service = ControllerServiceServer::new(Service(self.parts.clone()))
            .max_decoding_message_size(REQUEST_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX);
        let ours = self.parts.cluster_id;
        let service = Forward::new(self.parts.clone(), service);
        let service = InterceptedService::new(service, move |request| meant_for(ours, request));
        let draining = self.parts.stop.clone();
        let server = tuning::server(tonic::transport::Server::builder())
            .add_service(raft_server)
            .add_service(service)
            .serve_with_incoming_shutdown(connections, async move { draining.requested().await });
        tokio::pin!(server);
        let broken = async {
            // Not before the others are answered: a founder that starts again needs them to win an election.
            if self.member.node_id == FOUNDER
                && let Err(error) = create_cluster(&self.config, &self.parts, &self.me).await
            {
                return error;
            }
            Error::Raft(raft_failure(self.parts.raft.clone()).await)
        };
        let ended = tokio::select! {
            biased;
            // Only a task can have asked for it by now. The server would end of it, too.
            () = self.parts.stop.requested() => Err(Error::Task(reason(&self.parts.stop).to_string())),
            ended = &mut server => ended.map_err(Error::from),
            error = broken => {
                self.parts.stop.request(Reason::Asked("the controller failed".to_owned()));
                return Err(error);
            }
            () = stop.requested() => {
                self.parts.stop.request(reason(&stop));
                let ended = timeout(self.config.drain_timeout, &mut server).await;
                let last = self.parts.machine.make_last_snapshot(&self.parts.raft);
                if timeout(self.config.drain_timeout, last).await.is_err() {
                    tracing::warn!("no time for a last snapshot: the next start applies the log instead");
                }
                ended.unwrap_or(Ok(())).map_err(Error::from)
            }
        };
        self.role.end().await;
        // Fails only if raft has ended by itself before.
        let _ = self.parts.raft.shutdown().await;
        ended
    }
}

/// Why something is to stop.
fn reason(stop: &Stop) -> Reason {
    stop.reason().unwrap_or_else(|| Reason::Asked("asked to stop".to_owned()))
}

/// Makes the folder and takes it for this process.
pub(crate) async fn take_folder(os: &Arc<dyn Os>, dir: &Path) -> Result<LockGuard, Error> {
    let (disk, dir) = (os.disk(), dir.to_owned());
    let taken = blocking(os, move || {
        let failed = |source| Error::Folder { path: dir.clone(), source };
        make_dirs(&*disk, &dir).map_err(failed)?;
        disk.lock(&dir.join("lock"), &std::process::id().to_string()).map_err(|error| match error {
            LockError::Held(owner) => Error::Locked { path: dir.clone(), owner },
            LockError::Io(source) => failed(source),
        })
    });
    taken.await
}

/// Opens the log. An empty folder becomes somebody only if it is told to: the founder of a cluster, or one that
/// will ask for a place (correctness rule 30).
async fn open_store(os: &Arc<dyn Os>, config: &Config) -> Result<(LogStore, Identity), Error> {
    let founder = Member { cluster_id: ClusterId(os.random_u128()), node_id: FOUNDER, quorum_id: 0 };
    let directory = DirectoryId(os.random_u128());
    let begins = config.bootstrap || Mutant::EveryoneBegins.is_planted();
    let new = match (begins, config.join.is_empty()) {
        (true, _) => Ok(Identity { directory, member: Some(founder) }),
        (false, false) => Ok(Identity { directory, member: None }),
        (false, true) => Err(Error::Empty { path: config.dir.clone() }),
    };
    LogStore::open(os, &config.dir, move || new).await
}

async fn start_raft(
    os: &Arc<dyn Os>,
    config: &Config,
    member: Member,
    store: LogStore,
    machine: Machine,
    network: Network,
    endpoint: &str,
) -> Result<Raft, Error> {
    let stopped = |error: &dyn std::fmt::Display| Error::Raft(error.to_string());
    let raft_config = Arc::new(raft_config(config, member.cluster_id)?);
    let raft = Raft::new(member.node_id, raft_config, network, store, machine);
    let raft = RaftRuntime::drawing_from(Arc::clone(os), raft).await;
    let raft = raft.map_err(|error| stopped(&error))?;
    let initialized = raft.is_initialized().await.map_err(|error| stopped(&error))?;
    if !initialized && member.node_id == FOUNDER {
        let founder = std::collections::BTreeMap::from([(member.node_id, BasicNode::new(endpoint))]);
        match raft.initialize(founder).await {
            Ok(()) | Err(RaftError::APIError(InitializeError::NotAllowed(_))) => {}
            Err(error) => return Err(Error::Bootstrap(error.to_string())),
        }
    }
    let alone = raft.with_raft_state(|state| state.membership_state.effective().voter_ids().count() == 1);
    if alone.await.map_err(|error| stopped(&error))? {
        // Nobody else can win: no reason to wait for an election timeout. Does nothing if it leads already.
        raft.trigger().elect().await.map_err(|error| stopped(&error))?;
    }
    Ok(raft)
}

/// The first command of a new cluster; again after a crash before it.
async fn create_cluster(config: &Config, parts: &Parts, me: &JoinController) -> Result<(), Error> {
    let mut metrics = parts.raft.server_metrics();
    let known = metrics.wait_for(|metrics| metrics.current_leader.is_some()).await.map(|m| m.clone());
    let leads = known.is_ok_and(|metrics| metrics.current_leader == Some(metrics.id));
    if !leads || parts.machine.hub().image().cluster_id().is_some() {
        return Ok(());
    }
    let command = CreateCluster {
        cluster_id: parts.cluster_id,
        feature_level: FEATURE_LEVEL,
        settings: config.initial_settings.clone(),
        controller: me.clone(),
    };
    match parts.proposer.propose(Command::CreateCluster(command)).await {
        Ok(_) => Ok(()),
        Err(Unapplied::Refused(Refusal::Cluster { exists: true })) => Ok(()),
        Err(unapplied) => Err(Error::Bootstrap(unapplied.problem().message)),
    }
}

/// Waits until raft has failed, and says why.
async fn raft_failure(raft: Raft) -> String {
    let mut metrics = raft.metrics();
    let failed = metrics.wait_for(|metrics| metrics.running_state.is_err()).await.map(|m| m.clone());
    match failed {
        Ok(RaftMetrics { running_state: Err(error), .. }) => error.to_string(),
        _ => "it ended".to_owned(),
    }
}
