//! Every call between controllers and brokers says whom it means, in which cluster and in which epoch. Whatever is stale is
//! refused, by each of them. The calls are those of the compiled protos: one that is added needs a case here.

use anyhow::{Context, Result, bail, ensure};
use prost::Message;
use prost_types::FileDescriptorSet;
use tonic::metadata::MetadataValue;
use tonic::transport::Channel;
use tonic::{Request, Status};
use weir_proto::internal::v1 as pb;
use weir_proto::internal::v1::controller_service_client::ControllerServiceClient;
use weir_proto::internal::v1::raft_service_client::RaftServiceClient;
use weir_proto::internal::v1::replication_service_client::ReplicationServiceClient;
use weir_tests::process::{Process, Setup, free_port};

/// A controller, a broker, and somebody who registered once too often.
struct World {
    controller: Channel,
    broker: Channel,
    broker_id: i32,
    cluster_id: Vec<u8>,
    /// A registration that another one has come after.
    stale: pb::BrokerEpoch,
    processes: (Process, Process),
    _folder: tempfile::TempDir,
}

fn registration(incarnation: u8) -> pb::RegisterBroker {
    let directory = pb::DirectoryFacts { directory_id: vec![7; 16].into(), ..Default::default() };
    pb::RegisterBroker {
        directories: vec![directory],
        feature_level: 2,
        incarnation: vec![incarnation; 16].into(),
        ..Default::default()
    }
}

/// What a call was refused with.
fn refused<T>(answer: Result<T, Status>) -> Result<String> {
    match answer {
        Ok(_) => bail!("it was taken"),
        Err(status) => Ok(status.message().to_owned()),
    }
}

/// A call that another cluster was meant by.
fn astray<T: Default>() -> Request<T> {
    let mut request = Request::new(T::default());
    let other = MetadataValue::from_static("ffffffffffffffffffffffffffffffff");
    request.metadata_mut().insert("weir-cluster-id", other);
    request
}

impl World {
    async fn start() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let at = format!("127.0.0.1:{}", free_port()?);
        let internal = format!("127.0.0.1:{}", free_port()?);
        let controller = Setup::controller(folder.path().join("c1")).flag("--controller-listen", at.as_str());
        let controller = controller.flag("--bootstrap", "true").start().await?;
        let broker =
            Setup::broker(folder.path().join("b1"), &at).flag("--internal-listen", internal.as_str());
        let broker = broker.start().await?;
        let broker_id =
            broker.ready().get("brokerId").and_then(serde_json::Value::as_i64).context("no id")?;
        let channel =
            async |at: &str| Channel::from_shared(format!("http://{at}"))?.connect().await.context("no way");
        let (to_controller, to_broker) = (channel(&at).await?, channel(&internal).await?);
        let mut client = ControllerServiceClient::new(to_controller.clone());
        let mut registered = Vec::new();
        for incarnation in [1, 2] {
            let request = pb::RegisterBrokerRequest { registration: Some(registration(incarnation)) };
            registered.push(client.register_broker(request).await?.into_inner());
        }
        let first = registered.first().context("a registration")?;
        Ok(Self {
            controller: to_controller,
            broker: to_broker,
            broker_id: broker_id.try_into()?,
            cluster_id: first.cluster_id.to_vec(),
            stale: pb::BrokerEpoch { broker_id: first.broker_id, epoch: first.epoch },
            processes: (controller, broker),
            _folder: folder,
        })
    }

    /// What a call says that is stale, and what it has to say; `None`: there is no such case.
    async fn said(&self, call: &str) -> Result<Option<(String, &'static str)>> {
        const AGAIN: &str = "it registered again";
        const BACKUP: &str = "restored from a backup";
        const ASTRAY: &str = "not the one that was meant";
        let mut controller = ControllerServiceClient::new(self.controller.clone());
        let mut raft = RaftServiceClient::new(self.controller.clone());
        let mut broker = ReplicationServiceClient::new(self.broker.clone());
        let stale = Some(self.stale);
        let cluster_id: prost::bytes::Bytes = self.cluster_id.clone().into();
        // Of a term that is long over.
        let vote = Some(pb::RaftVote { term: 0, node_id: 1, committed: false });
        Ok(Some(match call {
            "ControllerService/RegisterBroker" => {
                let ahead = pb::RegisterBroker { metadata_version: i64::MAX, ..registration(3) };
                let request = pb::RegisterBrokerRequest { registration: Some(ahead) };
                (refused(controller.register_broker(request).await)?, BACKUP)
            }
            "ControllerService/BrokerHeartbeat" => {
                let request = pb::BrokerHeartbeatRequest { broker: stale, ..Default::default() };
                (refused(controller.broker_heartbeat(request).await)?, AGAIN)
            }
            "ControllerService/BrokerSession" => {
                let heartbeat = pb::BrokerHeartbeatRequest { broker: stale, ..Default::default() };
                let said = tokio_stream::iter([pb::BrokerSessionRequest { heartbeat: Some(heartbeat) }]);
                let mut answers = controller.broker_session(said).await?.into_inner();
                (refused(answers.message().await)?, AGAIN)
            }
            "ControllerService/WatchMetadata" => {
                let request = pb::WatchMetadataRequest { from_version: i64::MAX, ..Default::default() };
                (refused(controller.watch_metadata(request).await)?, BACKUP)
            }
            "ControllerService/AllocateProducerIds" => {
                let request = pb::AllocateProducerIdsRequest { broker: stale };
                (refused(controller.allocate_producer_ids(request).await)?, AGAIN)
            }
            "ControllerService/AssignDirectories" => {
                let assignments = Some(pb::AssignDirectories { by: stale, assignments: Vec::new() });
                let request = pb::AssignDirectoriesRequest { assignments };
                (refused(controller.assign_directories(request).await)?, AGAIN)
            }
            "ControllerService/AlterPartitions" => {
                let changes = Some(pb::AlterPartitions { by: stale, changes: Vec::new() });
                (refused(controller.alter_partitions(pb::AlterPartitionsRequest { changes }).await)?, AGAIN)
            }
            "ControllerService/FailDirectory" => {
                let failed = pb::FailDirectory { by: stale, directory_id: vec![7; 16].into(), failure: 1 };
                let request = pb::FailDirectoryRequest { failed: Some(failed), ..Default::default() };
                (refused(controller.fail_directory(request).await)?, AGAIN)
            }
            // These name no epoch: facts and expected versions, if anything. But the cluster that is meant.
            "ControllerService/CreateTopic" => (refused(controller.create_topic(astray()).await)?, ASTRAY),
            "ControllerService/UpdateTopic" => (refused(controller.update_topic(astray()).await)?, ASTRAY),
            "ControllerService/DeleteTopic" => (refused(controller.delete_topic(astray()).await)?, ASTRAY),
            "ControllerService/UpdateConfigs" => {
                (refused(controller.update_configs(astray()).await)?, ASTRAY)
            }
            "ControllerService/ElectLeader" => (refused(controller.elect_leader(astray()).await)?, ASTRAY),
            "ControllerService/ElectLeaders" => (refused(controller.elect_leaders(astray()).await)?, ASTRAY),
            "ControllerService/RemoveBroker" => (refused(controller.remove_broker(astray()).await)?, ASTRAY),
            "ControllerService/TrustBroker" => (refused(controller.trust_broker(astray()).await)?, ASTRAY),
            "ControllerService/ListVoters" => (refused(controller.list_voters(astray()).await)?, ASTRAY),
            "ControllerService/DescribeController" => {
                (refused(controller.describe_controller(astray()).await)?, ASTRAY)
            }
            "ControllerService/UpdateVoters" => (refused(controller.update_voters(astray()).await)?, ASTRAY),
            "ControllerService/FinalizeFeatureLevel" => {
                (refused(controller.finalize_feature_level(astray()).await)?, ASTRAY)
            }
            "ControllerService/JoinController" => {
                (refused(controller.join_controller(astray()).await)?, ASTRAY)
            }
            "RaftService/AppendEntries" => {
                let request =
                    pb::AppendEntriesRequest { cluster_id, target_id: 1, vote, ..Default::default() };
                let answer = raft.append_entries(request).await?.into_inner();
                (format!("{:?}", answer.outcome()), "HigherVote")
            }
            "RaftService/Vote" => {
                let request = pb::VoteRequest { cluster_id, target_id: 1, vote, ..Default::default() };
                let answer = raft.vote(request).await?.into_inner();
                (format!("granted: {}", answer.granted), "granted: false")
            }
            "RaftService/InstallSnapshot" => {
                let head = pb::InstallSnapshotRequest { cluster_id, target_id: 2, ..Default::default() };
                let answer = raft.install_snapshot(tokio_stream::iter([head])).await;
                (refused(answer)?, "this is controller 1 of cluster")
            }
            "ReplicationService/Replicate" => {
                let hello = pb::ReplicateHello {
                    cluster_id,
                    follower: stale,
                    leader: Some(pb::BrokerEpoch { broker_id: self.broker_id, epoch: 1 }),
                    window_bytes: 1,
                };
                let frame = Some(pb::replicate_request::Frame::Hello(hello));
                let said = tokio_stream::iter([pb::ReplicateRequest { frame }]);
                let mut answers = broker.replicate(said).await?.into_inner();
                (refused(answers.message().await)?, "in epoch 1")
            }
            "ReplicationService/GetStartState" => {
                let partition = Some(pb::PartitionRef { topic_id: vec![1; 16].into(), partition: 0 });
                let request = pb::GetStartStateRequest { cluster_id, partition, ..Default::default() };
                (refused(broker.get_start_state(request).await)?, "is not led here in that epoch")
            }
            _ => return Ok(None),
        }))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_internal_call_refuses_what_is_stale() -> Result<()> {
    let world = World::start().await?;
    let set = FileDescriptorSet::decode(weir_proto::FILE_DESCRIPTOR_SET)?;
    let services =
        set.file.iter().filter(|file| file.package() == "weir.internal.v1").flat_map(|file| &file.service);
    let mut calls = 0;
    for service in services {
        for method in &service.method {
            let call = format!("{}/{}", service.name(), method.name());
            let said = world.said(&call).await.with_context(|| call.clone())?;
            let Some((said, expected)) = said else { bail!("{call} has no case here") };
            ensure!(said.contains(expected), "{call}: {said:?} does not say {expected:?}");
            calls += 1;
        }
    }
    ensure!(calls >= 24, "{calls} calls were found");
    let (controller, broker) = world.processes;
    broker.stop().await?;
    controller.stop().await
}
