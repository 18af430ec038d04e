//! Who leads what: load goes straight to each partition's leader, so that no figure holds a broker's way to another.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::time::{Instant, sleep};
use tonic::Code;
use tonic::transport::Channel;
use weir_proto::v1::consumer_service_client::ConsumerServiceClient;
use weir_proto::v1::metadata_service_client::MetadataServiceClient;
use weir_proto::v1::{
    FetchPartition, FetchRequest, GetMetadataRequest, GetServerInfoRequest, PartitionMetadata, RecordFormat,
    Route,
};

use crate::connect::{MESSAGE_BYTES_MAX, connect};

/// How long a topic may take until each of its partitions has a leader that serves it.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long until it is looked again.
const PAUSE: Duration = Duration::from_millis(20);

/// A partition and the address (`host:port`) of its leader.
pub type Led = (i32, String);

/// The leader of each of these partitions of a topic, as the server at `server` tells it, once it serves the partition.
/// What `server` itself leads is reached by the address that was given for it. A server that tells of no leaders (the
/// floor) leads all of them. Replicas whose brokers are up are waited for, as long as for a leader: a new topic takes
/// nothing before enough of them are in sync.
///
/// # Errors
/// If a server cannot be reached, or a partition has no leader within 30 s.
pub async fn leaders(server: &str, topic: &str, partitions: &[i32]) -> anyhow::Result<Vec<Led>> {
    let channel = connect(server).await?;
    let mut connections = BTreeMap::from([(server.to_owned(), channel.clone())]);
    let mut metadata = MetadataServiceClient::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX);
    let own = match metadata.get_server_info(GetServerInfoRequest {}).await {
        Ok(info) => info.into_inner().broker_id,
        Err(status) if status.code() == Code::Unimplemented => {
            return Ok(partitions.iter().map(|partition| (*partition, server.to_owned())).collect());
        }
        Err(status) => return Err(status).with_context(|| format!("asking {server} who it is")),
    };
    let until = Instant::now() + PATIENCE;
    loop {
        let missing = match once(&mut metadata, (own, server), topic, partitions).await? {
            Ok((led, in_sync)) => match unready(&mut connections, topic, &led).await? {
                // One that is far behind is no reason not to measure.
                None if in_sync || Instant::now() >= until => return Ok(led),
                None => format!("{topic} has replicas that are not in sync"),
                Some(why) => why,
            },
            Err(why) => why,
        };
        if Instant::now() >= until {
            bail!("{missing}, after {} s", PATIENCE.as_secs());
        }
        sleep(PAUSE).await;
    }
}

/// One look at the map: the leaders, and whether all replicas are in sync whose brokers are up; or what is missing for now.
async fn once(
    metadata: &mut MetadataServiceClient<Channel>,
    (own, server): (i32, &str),
    topic: &str,
    partitions: &[i32],
) -> anyhow::Result<Result<(Vec<Led>, bool), String>> {
    let request = GetMetadataRequest { topics: vec![topic.to_owned()], ..GetMetadataRequest::default() };
    let answer = metadata.get_metadata(request).await;
    let answer = answer.with_context(|| format!("asking {server} who leads {topic}"))?.into_inner();
    let known: BTreeMap<i32, &PartitionMetadata> =
        answer.topics.iter().flat_map(|topic| &topic.partitions).map(|it| (it.partition, it)).collect();
    let mut led = Vec::with_capacity(partitions.len());
    let is_up = |id: &i32| answer.brokers.iter().any(|broker| broker.broker_id == *id);
    let mut in_sync = true;
    for partition in partitions {
        let it = known.get(partition);
        let leader = it.map(|it| it.leader).unwrap_or_default();
        in_sync &= it.is_none_or(|it| it.replicas.iter().all(|id| it.isr.contains(id) || !is_up(id)));
        let broker = answer.brokers.iter().find(|broker| broker.broker_id == leader);
        match broker {
            Some(broker) if leader != own => led.push((*partition, broker.endpoint.clone())),
            Some(_) => led.push((*partition, server.to_owned())),
            None => return Ok(Err(format!("{topic}/{partition} has no leader"))),
        }
    }
    Ok(Ok((led, in_sync)))
}

/// Why not every leader serves what it leads. A new one may learn of it after those who tell of it.
async fn unready(
    connections: &mut BTreeMap<String, Channel>,
    topic: &str,
    led: &[Led],
) -> anyhow::Result<Option<String>> {
    for (server, partitions) in by_leader(led) {
        if !connections.contains_key(&server) {
            connections.insert(server.clone(), connect(&server).await?);
        }
        let Some(channel) = connections.get(&server) else { continue };
        let partitions = partitions.into_iter().map(|partition| FetchPartition {
            topic: topic.to_owned(),
            partition,
            bytes_max: 1,
            ..FetchPartition::default()
        });
        let request = FetchRequest {
            partitions: partitions.collect(),
            wait_ms: Some(0),
            bytes_max: 1,
            format: RecordFormat::Batches.into(),
            route: Route::Direct.into(),
            message_bytes_max: i32::try_from(MESSAGE_BYTES_MAX).unwrap_or(i32::MAX),
            ..FetchRequest::default()
        };
        let mut client =
            ConsumerServiceClient::new(channel.clone()).max_decoding_message_size(MESSAGE_BYTES_MAX);
        let answer = client.fetch(request).await;
        let answer = answer.with_context(|| format!("asking {server} for what it leads"))?.into_inner();
        // A log that begins above 0 is served, too.
        let failures = answer.partitions.into_iter().filter_map(|partition| partition.failure);
        let mut unready = failures.filter(|failure| failure.retry_after_ms.is_some());
        if let Some(failure) = unready.next() {
            return Ok(Some(format!("{topic} is not served by its leaders: {}", failure.message)));
        }
    }
    Ok(None)
}

/// What each connection has: partitions of one leader. Each leader gets so many connections, at most one a partition.
#[must_use]
pub fn shares<T: Clone>(all: &[(T, String)], connections: usize) -> Vec<(String, Vec<T>)> {
    let shared = by_leader(all).into_iter().flat_map(|(server, mine)| {
        let connections = connections.clamp(1, mine.len().max(1));
        (0..connections).map(move |at| {
            let share = mine.iter().skip(at).step_by(connections).cloned().collect();
            (server.clone(), share)
        })
    });
    shared.collect()
}

fn by_leader<T: Clone>(all: &[(T, String)]) -> BTreeMap<String, Vec<T>> {
    let mut by_leader: BTreeMap<String, Vec<T>> = BTreeMap::new();
    for (partition, server) in all {
        by_leader.entry(server.clone()).or_default().push(partition.clone());
    }
    by_leader
}

/// What a connection writes of `total` batches: as much for each partition.
#[must_use]
pub fn part(total: u64, partitions: usize, of: usize) -> u64 {
    (total * partitions as u64 / of.max(1) as u64).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn led(servers: &[&str]) -> Vec<Led> {
        (0..).zip(servers).map(|(partition, server)| (partition, (*server).to_owned())).collect()
    }

    #[test]
    fn partitions_are_shared_out_and_every_connection_has_one() {
        let one = led(&["a"; 5]);
        assert_eq!(shares(&one, 2), [("a".to_owned(), vec![0, 2, 4]), ("a".to_owned(), vec![1, 3])]);
        assert_eq!(shares(&led(&["a", "a"]), 8), [("a".to_owned(), vec![0]), ("a".to_owned(), vec![1])]);
        assert_eq!(shares(&led(&["a"]), 1), [("a".to_owned(), vec![0])]);
    }

    #[test]
    fn every_leader_has_connections_of_its_own() {
        let three = led(&["a", "b", "c", "a", "b", "a"]);
        let expected =
            [("a".to_owned(), vec![0, 3, 5]), ("b".to_owned(), vec![1, 4]), ("c".to_owned(), vec![2])];
        assert_eq!(shares(&three, 1), expected);
        assert_eq!(shares(&three, 2).len(), 5);
    }

    #[test]
    fn what_is_written_is_spread_over_partitions() {
        assert_eq!((part(12, 3, 6), part(12, 1, 6), part(1, 1, 6)), (6, 2, 1));
    }
}
