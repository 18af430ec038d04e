//! What the brokers say of themselves: who leads, who is in sync. Nothing here goes by the clock; a state is there when
//! every broker says so.

use std::time::Duration;

use anyhow::{Context, ensure};
use tokio::time::{Instant, sleep, timeout};
use tonic::transport::{Channel, Endpoint};
use weir_proto::v1::admin_service_client::AdminServiceClient;
use weir_proto::v1::metadata_service_client::MetadataServiceClient;
use weir_proto::v1::{ElectLeadersRequest, GetMetadataRequest, ListVotersRequest, PartitionMetadata, Voter};

use crate::cluster::Cluster;

/// How often is asked.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// A broker that does not answer by then does not serve.
const ANSWER_MAX: Duration = Duration::from_secs(1);
/// A state that has not come about by then never will.
const SETTLE_MAX: Duration = Duration::from_secs(90);

/// A way to each broker.
pub(crate) struct View {
    topic: String,
    brokers: Vec<Channel>,
}

impl View {
    pub(crate) fn new(cluster: &Cluster, topic: &str) -> anyhow::Result<Self> {
        let channel = |address: &String| {
            let endpoint = Endpoint::from_shared(format!("http://{address}"))?;
            anyhow::Ok(weir_rpc::tuning::endpoint(endpoint).connect_lazy())
        };
        let brokers = cluster.brokers.iter().map(|broker| channel(&broker.address));
        Ok(Self { topic: topic.to_owned(), brokers: brokers.collect::<Result<_, _>>()? })
    }

    /// The partitions, by number, as all brokers have them: `None` if they differ, or one does not answer.
    async fn agreed(&self) -> Option<Vec<PartitionMetadata>> {
        let mut agreed: Option<Vec<PartitionMetadata>> = None;
        for channel in &self.brokers {
            let request =
                GetMetadataRequest { topics: vec![self.topic.clone()], ..GetMetadataRequest::default() };
            let mut client = MetadataServiceClient::new(channel.clone());
            let answer = timeout(ANSWER_MAX, client.get_metadata(request)).await.ok()?.ok()?.into_inner();
            let mut partitions = answer.topics.into_iter().next()?.partitions;
            partitions.sort_by_key(|partition| partition.partition);
            // Their order says nothing.
            partitions.iter_mut().for_each(|partition| partition.isr.sort_unstable());
            if agreed.as_ref().is_some_and(|agreed| *agreed != partitions) {
                return None;
            }
            agreed = Some(partitions);
        }
        agreed
    }

    /// Waits until all replicas of all partitions are in sync, and all brokers know it. The partitions, by number.
    pub(crate) async fn in_sync(&self) -> anyhow::Result<Vec<PartitionMetadata>> {
        let whole = |partition: &PartitionMetadata| {
            partition.leader > 0 && partition.isr.len() == partition.replicas.len()
        };
        self.seen(|partitions| partitions.iter().all(whole)).await.context("replicas did not come in sync")
    }

    /// The same, with every partition led by the replica that is preferred for it.
    pub(crate) async fn in_sync_and_even(&self) -> anyhow::Result<Vec<PartitionMetadata>> {
        let until = Instant::now() + SETTLE_MAX;
        loop {
            let partitions = self.in_sync().await?;
            if partitions.iter().all(|partition| partition.replicas.first() == Some(&partition.leader)) {
                return Ok(partitions);
            }
            ensure!(Instant::now() < until, "preferred leaders were not elected");
            self.elect_preferred().await?;
            sleep(LOOK_EVERY).await;
        }
    }

    async fn seen(
        &self,
        holds: impl Fn(&[PartitionMetadata]) -> bool,
    ) -> anyhow::Result<Vec<PartitionMetadata>> {
        let until = Instant::now() + SETTLE_MAX;
        loop {
            if let Some(partitions) = self.agreed().await.filter(|partitions| holds(partitions)) {
                return Ok(partitions);
            }
            ensure!(Instant::now() < until, "it has not come about within {SETTLE_MAX:?}");
            sleep(LOOK_EVERY).await;
        }
    }

    /// Asks for the election of preferred leaders everywhere.
    pub(crate) async fn elect_preferred(&self) -> anyhow::Result<()> {
        let channel = self.brokers.first().context("a broker")?.clone();
        AdminServiceClient::new(channel).elect_leaders(ElectLeadersRequest::default()).await?;
        Ok(())
    }

    /// The controllers, as the first broker that knows has them; none if none does.
    pub(crate) async fn voters(&self) -> Vec<Voter> {
        for channel in &self.brokers {
            let mut client = AdminServiceClient::new(channel.clone());
            if let Ok(Ok(answer)) = timeout(ANSWER_MAX, client.list_voters(ListVotersRequest {})).await {
                return answer.into_inner().voters;
            }
        }
        Vec::new()
    }

    /// Waits until every controller votes and has all that the leader has.
    pub(crate) async fn voters_in_sync(&self) -> anyhow::Result<Vec<Voter>> {
        let until = Instant::now() + SETTLE_MAX;
        loop {
            let voters = self.voters().await;
            let leader = voters.iter().find(|voter| voter.leader);
            if leader.is_some_and(|leader| {
                voters.iter().all(|voter| voter.voting && voter.log_index >= leader.log_index)
            }) {
                return Ok(voters);
            }
            ensure!(Instant::now() < until, "the controllers did not come in sync: {voters:?}");
            sleep(LOOK_EVERY).await;
        }
    }
}
