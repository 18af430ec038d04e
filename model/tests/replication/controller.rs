//! The controller: `weir-metadata`'s state, one command an entry.

use std::sync::Arc;

use weir_metadata::{
    AssignDirectories, BrokerEpoch, Command, CreateCluster, CreateTopic, Endpoint, Entry, Error,
    FEATURE_LEVEL, JoinController, RegisterBroker, Reply, State, UpdateTopic,
};
use weir_types::{BrokerId, ClusterId, DirectoryId, Durability, PartitionId, TopicId};

use crate::config::Config;
use crate::disk::Disk;
use crate::node::{Node, Process, Role, View, id, number};
use crate::world::World;

const CLUSTER: ClusterId = ClusterId(7);
pub(crate) const PARTITION: PartitionId = PartitionId { topic: TopicId(9), partition: 0 };

impl World {
    /// Carries out a command, and lets brokers know what it changed.
    pub(crate) fn command(&mut self, config: &Config, command: Command) -> Result<Reply, Error> {
        let reply = apply(Arc::make_mut(&mut self.controller), command);
        self.publish(config);
        reply
    }

    /// A node's process, as the commands of brokers name it.
    pub(crate) fn by(&self, node: usize) -> BrokerEpoch {
        let epoch = self.nodes[node].process.as_ref().map_or(0, |process| process.epoch);
        BrokerEpoch { broker: id(node), epoch }
    }

    /// A broker's registration, as the controller knows it.
    pub(crate) fn registered(&self, node: usize) -> BrokerEpoch {
        let epoch = self.controller.image.broker(id(node)).map_or(0, |broker| broker.epoch);
        BrokerEpoch { broker: id(node), epoch }
    }

    /// A process begins: what it finds in its directory goes to the controller with its registration.
    pub(crate) fn register(&mut self, config: &Config, node: usize) -> Result<(), Error> {
        let command = registration(Some(id(node)), &self.nodes[node].disk);
        if let Reply::BrokerRegistered { epoch, .. } = self.command(config, command)? {
            let node = self.node_mut(node);
            node.lost = false;
            let high_watermark = node.disk.checkpoint;
            // (What was before its registration is no news to it.)
            node.process = Some(Process { epoch, behind: 1, high_watermark, role: Role::Idle });
        }
        Ok(())
    }
}

/// Only registrations get a new index: nothing else looks at it, and two histories that differ in nothing else are one.
fn apply(state: &mut State, command: Command) -> Result<Reply, Error> {
    let version = state.image.version();
    let index = match &command {
        Command::RegisterBroker(_) => version + 1,
        _ => version,
    };
    state.apply(index, &Entry { at_ms: 0, author: 0, commands: vec![command] }).outcomes.remove(0)
}

fn registration(broker_id: Option<BrokerId>, disk: &Disk) -> Command {
    Command::RegisterBroker(RegisterBroker {
        cluster_id: Some(CLUSTER),
        broker_id,
        directories: vec![disk.facts(), disk.other_facts()],
        damaged: Vec::new(),
        rack: String::new(),
        endpoints: Vec::<Endpoint>::new(),
        version: String::new(),
        feature_level: FEATURE_LEVEL,
        metadata_version: 0,
        metadata_author: 0,
        incarnation: 0,
    })
}

/// The partition's record, and who is registered how.
pub(crate) fn view(state: &State, brokers: usize) -> View {
    let record = state.image.partition(PARTITION).expect("it was made at the start").as_ref().clone();
    let epoch = |node| state.image.broker(id(node)).map_or(0, |broker| broker.epoch);
    View { record, epochs: (0..brokers).map(epoch).collect() }
}

/// The command that changes min.insync.
pub(crate) fn set_min_insync(value: i32) -> Command {
    Command::UpdateTopic(UpdateTopic {
        name: "model".to_owned(),
        set_config: [("min_insync_replicas".to_owned(), value.to_string())].into(),
        unset_config: Vec::new(),
        partitions: None,
        expected_revision: None,
        request_id: String::new(),
    })
}

/// A cluster with a topic of one partition, of which everybody has a replica in sync.
pub(crate) fn begin(config: &Config) -> (State, Vec<Node>) {
    let mut state = State::default();
    let mut run = |command| apply(&mut state, command).expect("a cluster can be made");
    run(Command::CreateCluster(CreateCluster {
        cluster_id: CLUSTER,
        feature_level: FEATURE_LEVEL,
        settings: [].into(),
        controller: JoinController { directory: DirectoryId(1), endpoint: "localhost:1".to_owned() },
    }));
    let mut nodes = Vec::new();
    for node in 0..config.brokers {
        let mut disk = Disk::new(100 + node as u128);
        let Reply::BrokerRegistered { epoch, .. } = run(registration(None, &disk)) else { unreachable!() };
        run(Command::UnfenceBroker(BrokerEpoch { broker: id(node), epoch }));
        (disk.epoch_file, disk.same_boot) = (Some(epoch), true);
        let process = Process { epoch, behind: 0, high_watermark: 0, role: Role::Idle };
        nodes.push(Node { disk, copy: None, lost: false, lacks_its_end: false, process: Some(process) });
    }
    let durability = match config.durability {
        Durability::Fsync => "fsync",
        Durability::Replicated => "replicated",
    };
    let settings = [("durability", durability), ("min_insync_replicas", &config.min_insync.to_string())]
        .map(|(name, value)| (name.to_owned(), value.to_owned()));
    run(Command::CreateTopic(CreateTopic {
        name: "model".to_owned(),
        topic_id: PARTITION.topic,
        partitions: 1,
        replication_factor: config.brokers as i32,
        config: settings.into(),
        if_absent: false,
        internal: false,
        request_id: String::new(),
    }));
    // The first replica leads as soon as it has its log: whoever was there before begins in sync.
    let mut replicas = view(&state, config.brokers).record.replicas;
    if !config.begins_alone {
        replicas.reverse();
    }
    for replica in &replicas {
        let disk = &nodes[number(replica.broker)].disk;
        let by = BrokerEpoch { broker: replica.broker, epoch: disk.epoch_file.unwrap_or(0) };
        let assignments = vec![(PARTITION, DirectoryId(disk.directory))];
        let assign = Command::AssignDirectories(AssignDirectories { by, assignments });
        apply(&mut state, assign).expect("a replica can be made");
    }
    (state, nodes)
}
