//! Commands as tests like to write them.

use weir_metadata::Endpoint;
use weir_metadata::*;
use weir_types::*;

pub(crate) const CLUSTER: ClusterId = ClusterId(7);

/// A state, the raft index, and everything that was handed out.
#[derive(Clone, Default)]
pub(crate) struct Cluster {
    pub(crate) state: State,
    pub(crate) index: i64,
    pub(crate) at_ms: i64,
    /// Who writes.
    pub(crate) author: u64,
    pub(crate) deltas: Vec<SharedDelta>,
}

impl Cluster {
    /// A cluster with active brokers 1 to `brokers`, each with directory 100 + id.
    pub(crate) fn new(brokers: i32) -> Self {
        let mut cluster = Self::default();
        cluster
            .run(Command::CreateCluster(CreateCluster {
                cluster_id: CLUSTER,
                feature_level: FEATURE_LEVEL,
                settings: [("min_insync_replicas".to_owned(), "1".to_owned())].into(),
                controller: JoinController { directory: DirectoryId(1), endpoint: "localhost:1".into() },
            }))
            .unwrap();
        for id in 1..=brokers {
            cluster.run(register(None, id)).unwrap();
            cluster.run(Command::UnfenceBroker(cluster.by(id))).unwrap();
        }
        cluster
    }

    pub(crate) fn run_all(&mut self, commands: Vec<Command>) -> Vec<Result<Reply, Error>> {
        self.index += 1;
        let applied =
            self.state.apply(self.index, &Entry { at_ms: self.at_ms, author: self.author, commands });
        self.deltas.extend(applied.delta);
        self.state.image.check().unwrap();
        applied.outcomes
    }

    pub(crate) fn run(&mut self, command: Command) -> Result<Reply, Error> {
        self.run_all(vec![command]).remove(0)
    }

    /// A broker in its current registration.
    pub(crate) fn by(&self, id: i32) -> BrokerEpoch {
        let epoch = self.state.image.broker(BrokerId(id)).map_or(0, |broker| broker.epoch);
        BrokerEpoch { broker: BrokerId(id), epoch }
    }

    /// Creates a topic and lets every broker say where its replicas are.
    pub(crate) fn topic(
        &mut self,
        name: &str,
        partitions: i32,
        replicas: i32,
        config: &[(&str, &str)],
    ) -> TopicId {
        let command = CreateTopic { config: pairs(config), ..create(name, partitions, replicas) };
        let id = command.topic_id;
        self.run(Command::CreateTopic(command)).unwrap();
        self.assign_all(id);
        id
    }

    pub(crate) fn assign_all(&mut self, topic: TopicId) {
        let brokers: Vec<i32> = self.state.image.brokers().map(|broker| broker.id.0).collect();
        for broker in brokers {
            self.assign(topic, broker);
        }
    }

    /// Lets a broker say where its replicas are, unless it was removed.
    pub(crate) fn assign(&mut self, topic: TopicId, broker: i32) {
        let state = self.state.image.broker(BrokerId(broker)).map(|broker| broker.state);
        if state == Some(BrokerState::Removed) {
            return;
        }
        let partitions = &self.state.image.topic(topic).unwrap().partitions;
        let assignments = partitions
            .iter()
            .filter(|(_, partition)| {
                partition.replica(BrokerId(broker)).is_some_and(|r| r.directory().is_none())
            })
            .map(|(number, _)| (PartitionId { topic, partition: *number }, directory(broker)))
            .collect();
        let by = self.by(broker);
        let reply = self.run(Command::AssignDirectories(AssignDirectories { by, assignments })).unwrap();
        assert_eq!(reply, Reply::Partitions { refused: Vec::new() });
    }

    pub(crate) fn partition(&self, topic: TopicId, number: i32) -> &Partition {
        self.state.image.partition(PartitionId { topic, partition: number }).unwrap()
    }

    pub(crate) fn alter(&mut self, topic: TopicId, number: i32, isr: &[i32]) -> Result<Reply, Error> {
        let partition = self.partition(topic, number);
        let change = AlterPartition {
            partition: PartitionId { topic, partition: number },
            leader_epoch: partition.leader_epoch,
            partition_epoch: partition.partition_epoch,
            isr: isr.iter().map(|id| self.by(*id)).collect(),
        };
        let leader = partition.leader.map_or(0, |leader| leader.0);
        self.run(Command::AlterPartitions(AlterPartitions { by: self.by(leader), changes: vec![change] }))
    }
}

pub(crate) fn directory(broker: i32) -> DirectoryId {
    DirectoryId(100 + broker as u128)
}

pub(crate) fn found(
    broker: i32,
    clean: Option<i64>,
    persisted: Option<i64>,
    same_boot: bool,
) -> DirectoryFacts {
    let id = directory(broker);
    DirectoryFacts { id, clean_epoch: clean, persisted_epoch: persisted, same_boot, failures: Vec::new() }
}

/// A registration of the broker with directory 100 + `broker` that proves nothing.
pub(crate) fn register(broker_id: Option<i32>, broker: i32) -> Command {
    register_with(broker_id, found(broker, None, None, false))
}

pub(crate) fn register_with(broker_id: Option<i32>, found: DirectoryFacts) -> Command {
    Command::RegisterBroker(RegisterBroker {
        cluster_id: broker_id.map(|_| CLUSTER),
        broker_id: broker_id.map(BrokerId),
        directories: vec![found],
        damaged: Vec::new(),
        rack: String::new(),
        endpoints: vec![Endpoint { listener: "public".into(), host: "localhost".into(), port: 9347 }],
        version: "0.1.0".into(),
        feature_level: FEATURE_LEVEL,
        metadata_version: 0,
        metadata_author: 0,
        incarnation: 0,
    })
}

pub(crate) fn create(name: &str, partitions: i32, replicas: i32) -> CreateTopic {
    CreateTopic {
        name: name.into(),
        topic_id: TopicId(name.bytes().fold(3, |sum: u128, byte| sum * 257 + u128::from(byte))),
        partitions,
        replication_factor: replicas,
        config: pairs(&[]),
        if_absent: false,
        internal: false,
        request_id: String::new(),
    }
}

pub(crate) fn update(name: &str, set: &[(&str, &str)]) -> UpdateTopic {
    UpdateTopic {
        name: name.into(),
        set_config: pairs(set),
        unset_config: Vec::new(),
        partitions: None,
        expected_revision: None,
        request_id: String::new(),
    }
}

pub(crate) fn delete(name: &str) -> DeleteTopic {
    DeleteTopic { name: name.into(), topic_id: None, request_id: String::new() }
}

pub(crate) fn pairs(pairs: &[(&str, &str)]) -> settings::Settings {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

pub(crate) fn ids(ids: &[i32]) -> Vec<BrokerId> {
    ids.iter().map(|id| BrokerId(*id)).collect()
}
