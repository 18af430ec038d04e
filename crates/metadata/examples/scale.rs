//! What a cluster of many partitions costs: memory for each, and the death of a broker. docs/scale.md says how to read it.
//!
//! `cargo run -p weir-metadata --example scale -- PARTITIONS BROKERS DEATHS`; it has no clock: time it with and without
//! deaths.

use std::fmt::Display;
use std::io::Write as _;

use weir_metadata::*;
use weir_types::{BrokerId, ClusterId, DirectoryId, PartitionId, TopicId};

/// Partitions of one topic.
const TOPIC: i32 = 5_000;

struct Cluster {
    state: State,
    index: i64,
}

impl Cluster {
    fn run(&mut self, command: Command) -> usize {
        self.index += 1;
        let applied = self.state.apply(self.index, &Entry { at_ms: 0, author: 0, commands: vec![command] });
        for error in applied.outcomes.into_iter().filter_map(Result::err) {
            say("refused", error);
        }
        applied.delta.map_or(0, |delta| delta.events.len())
    }

    fn by(&self, id: i32) -> BrokerEpoch {
        let epoch = self.state.image.broker(BrokerId(id)).map_or(0, |broker| broker.epoch);
        BrokerEpoch { broker: BrokerId(id), epoch }
    }
}

fn say(what: &str, value: impl Display) {
    // Without a stdout there is nobody to tell.
    let _ = writeln!(std::io::stdout(), "{what:<44}{value:>12}");
}

/// Memory of this process, in bytes.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok()).unwrap_or(0) * 1024
}

fn register(id: i32) -> Command {
    let found = DirectoryFacts {
        id: DirectoryId(100 + id.unsigned_abs() as u128),
        clean_epoch: None,
        persisted_epoch: None,
        same_boot: true,
        failures: Vec::new(),
    };
    Command::RegisterBroker(RegisterBroker {
        cluster_id: None,
        broker_id: None,
        directories: vec![found],
        damaged: Vec::new(),
        rack: format!("zone-{}", id % 3),
        endpoints: Vec::new(),
        version: String::new(),
        feature_level: FEATURE_LEVEL,
        metadata_version: 0,
        metadata_author: 0,
        incarnation: 0,
    })
}

fn main() {
    let mut arguments = std::env::args().skip(1).filter_map(|text| text.parse::<i32>().ok());
    let partitions = arguments.next().unwrap_or(30_000);
    let brokers = arguments.next().unwrap_or(3).max(3);
    let deaths = arguments.next().unwrap_or(0);
    let mut cluster = Cluster { state: State::default(), index: 0 };
    let controller = JoinController { directory: DirectoryId(1), endpoint: String::new() };
    cluster.run(Command::CreateCluster(CreateCluster {
        cluster_id: ClusterId(1),
        feature_level: FEATURE_LEVEL,
        settings: [("min_insync_replicas".to_owned(), "2".to_owned())].into(),
        controller,
    }));
    for id in 1..=brokers {
        cluster.run(register(id));
        cluster.run(Command::UnfenceBroker(cluster.by(id)));
    }
    let before = resident();
    let topics = (0..partitions).step_by(TOPIC as usize).zip(1u128..);
    for (first, id) in topics {
        cluster.run(Command::CreateTopic(CreateTopic {
            name: format!("topic-{id}"),
            topic_id: TopicId(id),
            partitions: TOPIC.min(partitions - first),
            replication_factor: 3,
            config: Default::default(),
            if_absent: false,
            internal: false,
            request_id: String::new(),
        }));
    }
    let mut held = vec![Vec::new(); brokers.unsigned_abs() as usize + 1];
    for topic in cluster.state.image.topics() {
        for (number, record) in topic.partitions.iter() {
            for replica in &record.replicas {
                if let Some(of) = held.get_mut(replica.broker.0.unsigned_abs() as usize) {
                    of.push(PartitionId { topic: topic.id, partition: *number });
                }
            }
        }
    }
    for (id, held) in (0i32..).zip(held).skip(1) {
        let directory = DirectoryId(100 + id.unsigned_abs() as u128);
        let assignments = held.into_iter().map(|partition| (partition, directory)).collect();
        cluster.run(Command::AssignDirectories(AssignDirectories { by: cluster.by(id), assignments }));
    }
    // Everybody catches up.
    for leader in 1..=brokers {
        let image = cluster.state.image.clone();
        let led = image.topics().flat_map(|topic| {
            let led = topic.partitions.iter().filter(|(_, record)| record.leader == Some(BrokerId(leader)));
            led.map(|(number, record)| (PartitionId { topic: topic.id, partition: *number }, record))
        });
        let change = |(partition, record): (PartitionId, &std::sync::Arc<Partition>)| AlterPartition {
            partition,
            leader_epoch: record.leader_epoch,
            partition_epoch: record.partition_epoch,
            isr: record.replicas.iter().map(|replica| cluster.by(replica.broker.0)).collect(),
        };
        let changes = led.map(change).collect();
        cluster.run(Command::AlterPartitions(AlterPartitions { by: cluster.by(leader), changes }));
    }
    say("partitions, three replicas each", cluster.state.image.partition_count());
    say("brokers", brokers);
    say("under-replicated", cluster.state.image.health().under_replicated);
    let bytes = resident().saturating_sub(before);
    say("bytes of memory a partition", bytes / u64::from(partitions.unsigned_abs().max(1)));
    say("led by broker 1", cluster.state.image.load(BrokerId(1)).leaders);
    let mut events = 0;
    for _ in 0..deaths {
        events += cluster.run(Command::FenceBroker(cluster.by(1)));
        // It is back, in sync and preferred again, as it was.
        cluster.run(Command::UnfenceBroker(cluster.by(1)));
    }
    say("deaths", deaths);
    say("events of their deltas", events);
    say("leaderless after them", cluster.state.image.health().leaderless);
}
