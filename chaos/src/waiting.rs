//! A topic of class `replicated`, where power is lost everywhere: what it acknowledged was in memory, so that nobody can know
//! what is lost, and no replica may lead by itself. It waits for a person, who is told, and accepts it.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::task::JoinHandle;
use weir_client::{Client, NewTopic, ProducerConfig, Record};
use weir_proto::v1::{
    DescribePartitionsRequest, ElectLeadersRequest, ElectLeadersResponse, Election, PartitionDescription,
    TopicPartition,
};
use weir_tests::api::Api;
use weir_tests::history::{History, Mark, Place, holds};
use weir_tests::reader;

use crate::clients::connect;
use crate::cluster::Cluster;
use crate::who::Who;

/// Its name.
pub(crate) const WAITS: &str = "waits";
/// Records at a time. Each time is acknowledged before the next.
const BURST: u64 = 10;
/// A record that is not acknowledged by then finds nobody to do it any more.
const DELIVERY: Duration = Duration::from_secs(3);
/// Nobody else's number.
const WRITER: u32 = 99;

/// The topic, with its only partition.
pub(crate) struct Waiting {
    /// Ends when nothing is acknowledged any more.
    writing: JoinHandle<Result<History>>,
    place: Place,
}

impl Waiting {
    /// Makes it, and writes to it until power is lost.
    pub(crate) async fn begin() -> Result<Self> {
        let client = connect(Client::builder()).await?;
        let topic = NewTopic::new(WAITS).partitions(1).replication_factor(3);
        let topic = topic.config("durability", "replicated").config("min_insync_replicas", "2");
        client.topics().create(topic.config("retention_ms", "unlimited")).await?;
        let place = Place { topic: WAITS.to_owned(), partition: 0 };
        Ok(Self { writing: tokio::spawn(write(client, place.clone())), place })
    }

    /// Once all else is well: it waits, as every broker says, and then a person decides. How many records are lost, and of how
    /// many.
    pub(crate) async fn decided(self, cluster: &mut Cluster) -> Result<(usize, usize)> {
        let mut history = self.writing.await??;
        let acknowledged = history.acknowledgements();
        waits().await.with_context(|| format!("{WAITS} is to wait for a person"))?;
        let shown = elect(None).await?;
        let leader = held(&shown)?;
        let replica = leader.replicas.iter().find(|replica| replica.broker_id == leader.leader_after);
        let end = replica.context("nobody says what is kept")?.high_watermark;
        held(&elect(Some(&shown)).await?)?;
        cluster.until(&format!("{WAITS} is led"), led).await?;
        cluster.until_well().await?;
        let told = history.acknowledged_so_far();
        let api = Api::connect(&Who::Broker(1).endpoint()).await?;
        let readings = [reader::consume(&api, &self.place).await?, reader::fetch(&api, &self.place).await?];
        let lost = history.give_up(&self.place, &told, &holds(&self.place, &readings), Some(end))?;
        let anomalies = history.check(&readings);
        ensure!(anomalies.is_empty(), "of what is left: {anomalies:?}");
        Ok((lost, acknowledged))
    }
}

async fn write(client: Client, place: Place) -> Result<History> {
    let producer = client.producer(ProducerConfig::new().delivery_timeout(DELIVERY))?;
    let mut history = History::default();
    let mut is_over = false;
    let mut number = 0;
    while !is_over {
        let mut receipts = Vec::new();
        for _ in 0..BURST {
            let mark = Mark { writer: WRITER, number };
            number += 1;
            history.sent(mark, &place);
            receipts.push((mark, producer.send(WAITS, Record::new(&mark.value()).partition(0)).await));
        }
        for (mark, receipt) in receipts {
            let Ok(receipt) = receipt else {
                is_over = true;
                continue;
            };
            match receipt.await {
                Ok(delivery) => {
                    history.acknowledged(mark, delivery.offset.context("a receipt without an offset")?)?
                }
                Err(_) => is_over = true,
            }
        }
    }
    Ok(history)
}

/// Whether everybody knows that nobody leads it, and that nobody will by itself.
async fn waits() -> Result<()> {
    for broker in Who::BROKERS {
        let known = known(broker).await?;
        // Or it waits for a broker that is gone with its disk, and might know more.
        let waits = known.waits_for_a_person || !known.eligible.is_empty();
        ensure!(known.leader <= 0 && waits, "{broker} says {known:?}");
    }
    Ok(())
}

/// Whether everybody knows who leads it.
async fn led() -> Result<()> {
    for broker in Who::BROKERS {
        ensure!(known(broker).await?.leader > 0, "{broker} knows nobody who leads {WAITS}");
    }
    Ok(())
}

async fn known(broker: Who) -> Result<PartitionDescription> {
    let request =
        DescribePartitionsRequest { topic: WAITS.to_owned(), ..DescribePartitionsRequest::default() };
    let api = Api::connect(&broker.endpoint()).await?;
    let known = api.admin().describe_partitions(request).await?.into_inner().partitions;
    known.into_iter().next().with_context(|| format!("{broker} does not know {WAITS}"))
}

/// Accepts what was shown: a number, or that it is unknown, where somebody who was killed does not answer. Where nothing was
/// shown, that is only asked for.
async fn elect(shown: Option<&ElectLeadersResponse>) -> Result<ElectLeadersResponse> {
    let is_unknown = shown.is_some_and(|shown| shown.elections.iter().any(|election| election.loss_unknown));
    let request = ElectLeadersRequest {
        partitions: vec![TopicPartition { topic: WAITS.to_owned(), partition: 0 }],
        unclean: true,
        accepted_loss_records: shown.filter(|_| !is_unknown).map(|shown| shown.records_lost),
        accept_unknown_loss: is_unknown,
        validate_only: shown.is_none(),
    };
    let api = Api::connect(&Who::Broker(1).endpoint()).await?;
    Ok(api.admin().elect_leaders(request).await?.into_inner())
}

fn held(answer: &ElectLeadersResponse) -> Result<&Election> {
    let election = answer.elections.first().context("an election without an answer")?;
    ensure!(election.failure.is_none(), "nobody is elected: {:?}", election.failure);
    Ok(election)
}
