//! What a stranger sees of the cluster who asks everybody: who leads, and what is not well yet.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tonic::transport::{Channel, Endpoint};
use weir_proto::v1::admin_service_client::AdminServiceClient;
use weir_proto::v1::metadata_service_client::MetadataServiceClient;
use weir_proto::v1::{GetMetadataRequest, GetMetadataResponse, ListVotersRequest, UpdateVotersRequest};
use weir_tests::history::Place;

use crate::waiting::WAITS;
use crate::who::Who;

/// How long an answer may take. Whoever is well answers at once.
const PATIENCE: Duration = Duration::from_secs(1);

/// The broker that leads a partition, as far as one of these knows: the latest that is heard of.
pub(crate) async fn leader(place: &Place, asked: &[Who]) -> Option<Who> {
    let mut answers = JoinSet::new();
    asked.iter().for_each(|broker| drop(answers.spawn(timeout(PATIENCE, metadata(*broker)))));
    let mut latest = (-1, None);
    while let Some(answer) = answers.join_next().await {
        let Ok(Ok(Ok(known))) = answer else { continue };
        let topic = known.topics.iter().find(|topic| topic.name == place.topic);
        let mut partitions = topic.into_iter().flat_map(|topic| &topic.partitions);
        let Some(partition) = partitions.find(|known| known.partition == place.partition) else { continue };
        if partition.leader_epoch > latest.0 {
            let leads = known.brokers.iter().find(|broker| broker.broker_id == partition.leader);
            latest = (partition.leader_epoch, leads.and_then(|broker| Who::at(&broker.endpoint)));
        }
    }
    latest.1
}

/// The controller that leads, if one of these says so.
pub(crate) async fn leading_controller(asked: &[Who]) -> Option<Who> {
    for who in asked {
        let metrics = page(*who, "/metrics").await.unwrap_or_default();
        if metrics.lines().any(|line| line == "weir_controller_leads 1") {
            return Some(*who);
        }
    }
    None
}

/// How many batches a broker has refused for want of space since it began, and whether it still does; `None`: it does not
/// answer.
pub(crate) async fn refused_for_space(broker: Who) -> Option<(u64, bool)> {
    let metrics = page(broker, "/metrics").await.ok()?;
    let value = |name: &str| {
        let line = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line?.trim().parse::<u64>().ok()
    };
    Some((value("weir_appends_disk_full_total")?, value("weir_disk_missing_bytes")? > 0))
}

/// Whether a process says that it is ready; else why not.
pub(crate) async fn ready(who: Who) -> Result<()> {
    let answer = page(who, "/readyz").await.with_context(|| format!("{who} does not answer"))?;
    ensure!(
        answer.starts_with("HTTP/1.1 200"),
        "{who} is not ready: {}",
        answer.lines().last().unwrap_or_default()
    );
    Ok(())
}

/// Whether everybody is ready and has room on the disk, three controllers vote, and every broker knows that every replica is in sync whose broker is
/// there; else what is not so. A topic that waits for a person may wait. Controllers that were lost are taken out, as people do.
pub(crate) async fn well() -> Result<()> {
    for who in Who::nodes() {
        ready(who).await?;
    }
    for broker in Who::BROKERS {
        let refuses = refused_for_space(broker).await.is_none_or(|(_, refuses)| refuses);
        ensure!(!refuses, "{broker} refuses appends for want of space, or does not say");
        let known = metadata(broker).await.with_context(|| format!("{broker} does not say what it knows"))?;
        let alive: BTreeSet<i32> = known.brokers.iter().map(|broker| broker.broker_id).collect();
        ensure!(alive.len() == Who::BROKERS.len(), "{broker} knows of {} brokers", alive.len());
        for topic in &known.topics {
            for partition in &topic.partitions {
                let (name, number) = (&topic.name, partition.partition);
                if name == WAITS && partition.leader <= 0 {
                    continue;
                }
                ensure!(partition.leader > 0, "{broker} knows nobody who leads {name}/{number}");
                let there = partition.replicas.iter().filter(|replica| alive.contains(replica));
                let behind: Vec<_> = there.filter(|replica| !partition.isr.contains(replica)).collect();
                ensure!(
                    behind.is_empty(),
                    "{broker} knows that {behind:?} are not in sync in {name}/{number}: {partition:?}"
                );
            }
        }
    }
    three_vote().await
}

/// Whether a broker leads nothing, as far as every other one knows; else what it leads.
pub(crate) async fn leads_nothing(who: Who) -> Result<()> {
    for broker in Who::BROKERS.into_iter().filter(|broker| *broker != who) {
        let known = metadata(broker).await.with_context(|| format!("{broker} does not say what it knows"))?;
        let it = known.brokers.iter().find(|broker| Who::at(&broker.endpoint) == Some(who));
        let it = it.with_context(|| format!("{broker} does not know {who}"))?.broker_id;
        for topic in &known.topics {
            let led = topic.partitions.iter().find(|partition| partition.leader == it);
            let led = led.map(|partition| partition.partition);
            ensure!(led.is_none(), "{broker} knows that {who} leads {}/{led:?}", topic.name);
        }
    }
    Ok(())
}

async fn three_vote() -> Result<()> {
    let mut admin = AdminServiceClient::new(channel(Who::Broker(1))?);
    let mut voters = admin.list_voters(ListVotersRequest {}).await?.into_inner().voters;
    voters.sort_by_key(|voter| voter.voter_id);
    let newer =
        |at: usize, endpoint: &str| voters.iter().skip(at + 1).any(|voter| voter.endpoint == endpoint);
    let lost = voters.iter().enumerate().find(|(at, voter)| newer(*at, &voter.endpoint));
    if let Some((_, lost)) = lost {
        let request =
            UpdateVotersRequest { remove_voter_ids: vec![lost.voter_id], ..UpdateVotersRequest::default() };
        admin
            .update_voters(request)
            .await
            .with_context(|| format!("voter {} is not taken out", lost.voter_id))?;
        bail!("voter {} was lost, and is taken out", lost.voter_id);
    }
    let voting = voters.iter().filter(|voter| voter.voting).count();
    ensure!(voting == Who::CONTROLLERS.len(), "{voting} controllers vote: {voters:?}");
    ensure!(voters.iter().any(|voter| voter.leader), "no controller leads");
    Ok(())
}

async fn metadata(broker: Who) -> Result<GetMetadataResponse> {
    let request = GetMetadataRequest { page_size: 1_000, ..GetMetadataRequest::default() };
    Ok(MetadataServiceClient::new(channel(broker)?).get_metadata(request).await?.into_inner())
}

fn channel(broker: Who) -> Result<Channel> {
    let endpoint = Endpoint::from_shared(format!("http://{}", broker.endpoint()))?;
    Ok(endpoint.connect_timeout(PATIENCE).timeout(3 * PATIENCE).connect_lazy())
}

/// A page of a process, head and all.
async fn page(who: Who, path: &str) -> Result<String> {
    let ask = async {
        let mut stream = TcpStream::connect((who.ip(), 9_348)).await?;
        let request = format!("GET {path} HTTP/1.1\r\nHost: {who}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        anyhow::Ok(answer)
    };
    timeout(PATIENCE, ask).await.context("no answer")?
}
