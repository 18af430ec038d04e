use std::collections::BTreeMap;

use tokio::time::advance;
use weir_metadata::{
    AlterPartition, AlterPartitions, AssignDirectories, BrokerEpoch, Command, CreateCluster, CreateTopic,
    DeleteTopic, DirectoryFacts, Entry, JoinController, RegisterBroker, SetClusterConfig, State, UpdateTopic,
};
use weir_runtime::testing::{Said, listen};
use weir_types::{BrokerId, ClusterId, DirectoryId, PartitionId, TopicId};

use super::*;

const PARTITIONS: i32 = 1_000;

/// A cluster whose changes are told to `news`.
struct Told {
    state: State,
    index: i64,
    news: News,
}

impl Told {
    /// With this many brokers that serve, whose log directories are 1, 2, ...
    fn with_brokers(count: i32) -> Self {
        listen();
        let mut told = Self { state: State::default(), index: 0, news: News::default() };
        told.run(vec![Command::CreateCluster(CreateCluster {
            cluster_id: ClusterId(1),
            feature_level: 1,
            settings: BTreeMap::new(),
            controller: JoinController { directory: DirectoryId(99), endpoint: "c1:9349".into() },
        })]);
        for id in 1..=count {
            told.registers(None, id);
            told.run(vec![Command::UnfenceBroker(told.by(id))]);
        }
        told
    }

    fn registers(&mut self, known: Option<i32>, id: i32) {
        let directory = DirectoryId(u128::from(id.unsigned_abs()));
        let facts = DirectoryFacts {
            id: directory,
            clean_epoch: None,
            persisted_epoch: None,
            same_boot: false,
            failures: Vec::new(),
        };
        self.run(vec![Command::RegisterBroker(RegisterBroker {
            cluster_id: known.map(|_| ClusterId(1)),
            broker_id: known.map(BrokerId),
            directories: vec![facts],
            damaged: Vec::new(),
            rack: String::new(),
            endpoints: Vec::new(),
            version: String::new(),
            feature_level: 1,
            metadata_version: 0,
            metadata_author: 0,
            incarnation: 0,
        })]);
    }

    fn by(&self, id: i32) -> BrokerEpoch {
        let broker = BrokerId(id);
        BrokerEpoch { broker, epoch: self.state.image.broker(broker).unwrap().epoch }
    }

    /// One entry.
    fn run(&mut self, commands: Vec<Command>) {
        self.index += 1;
        let older = self.state.image.clone();
        let applied = self.state.apply(self.index, &Entry { at_ms: 0, author: 1, commands });
        assert!(applied.outcomes.iter().all(Result::is_ok), "{:?}", applied.outcomes);
        if let Some(delta) = applied.delta {
            self.news.changed(&older, &self.state.image, &delta);
        }
        if self.news.due().is_some_and(|due| due <= Instant::now()) {
            self.news.say();
        }
    }

    /// A topic of which every broker has its replicas.
    fn create(&mut self, name: &str, id: u128, partitions: i32) {
        let brokers = self.state.image.brokers().count();
        self.run(vec![created(name, id, partitions, i32::try_from(brokers).unwrap())]);
    }
}

fn created(name: &str, id: u128, partitions: i32, replication_factor: i32) -> Command {
    Command::CreateTopic(CreateTopic {
        name: name.into(),
        topic_id: TopicId(id),
        partitions,
        replication_factor,
        config: BTreeMap::new(),
        if_absent: false,
        internal: false,
        request_id: String::new(),
    })
}

fn words(name: &str, value: &str) -> BTreeMap<String, String> {
    [(name.to_owned(), value.to_owned())].into()
}

#[tokio::test(start_paused = true)]
async fn topics_of_a_moment_are_one_line_a_kind() {
    let (mut told, said) = (Told::with_brokers(1), Said::here());
    told.create("flights", 1, 3);
    assert_eq!((said.count("topics were created"), said.count("flights (3 partitions)")), (1, 1), "at once");
    told.run((2..=900).map(|id| created(&format!("t{id}"), id, 1, 1)).collect());
    told.run(vec![created("last", 901, 1, 1)]);
    assert_eq!(said.count("topics were created"), 1, "not yet");
    advance(GATHER).await;
    told.run(vec![Command::UpdateTopic(UpdateTopic {
        name: "flights".into(),
        set_config: words("retention_ms", "1s"),
        unset_config: Vec::new(),
        partitions: Some(5),
        expected_revision: None,
        request_id: String::new(),
    })]);
    assert_eq!(said.count("topics were created"), 2);
    assert_eq!((said.count("900"), said.count("t5 (1 partition), t6 (1 partition), …")), (1, 1));
    assert_eq!(said.count("flights (3 to 5 partitions)"), 1);
    assert_eq!(said.count("flights (retention_ms: not set to 1000)"), 1);
    advance(GATHER).await;
    let gone = DeleteTopic { name: "flights".into(), topic_id: None, request_id: String::new() };
    told.run(vec![Command::DeleteTopic(gone)]);
    assert_eq!((said.count("topics were deleted"), said.count("flights")), (1, 4));
}

#[tokio::test(start_paused = true)]
async fn a_change_of_the_clusters_settings_says_what_it_was_before() {
    let (mut told, said) = (Told::with_brokers(1), Said::here());
    for value in ["1s", "2s"] {
        told.run(vec![Command::SetClusterConfig(SetClusterConfig {
            set: words("retention_ms", value),
            unset: Vec::new(),
            expected: BTreeMap::new(),
            request_id: String::new(),
        })]);
    }
    assert_eq!(said.count("the cluster's settings were changed"), 2);
    assert_eq!(said.count("retention_ms: not set to 1000"), 1);
    assert_eq!(said.count("retention_ms: 1000 to 2000"), 1);
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_stops_and_comes_back_has_a_line_for_each_step() {
    let said = Said::here();
    let mut told = Told::with_brokers(1);
    assert_eq!(said.count("broker registered, for the first time"), 1);
    assert_eq!(said.count("broker is active: it serves"), 1);
    told.run(vec![Command::DrainBroker(told.by(1))]);
    told.run(vec![Command::FenceBroker(told.by(1))]);
    assert_eq!(said.count("broker is about to stop"), 1);
    told.registers(Some(1), 1);
    told.run(vec![Command::UnfenceBroker(told.by(1))]);
    assert_eq!(said.count("broker registered again"), 1);
    assert_eq!(said.count("broker is active: it serves"), 2);
    assert_eq!(said.count("led by others"), 0, "it led nothing");
}

#[tokio::test(start_paused = true)]
async fn what_a_broker_leads_that_is_about_to_stop_is_said_as_it_was_before_others_lead_it() {
    const COUNT: i32 = 74;
    let mut told = Told::with_brokers(2);
    told.create("a", 7, COUNT);
    let all = (0..COUNT).map(|partition| PartitionId { topic: TopicId(7), partition });
    for id in [1, 2] {
        let assignments = all.clone().map(|partition| (partition, DirectoryId(id as u128))).collect();
        let by = told.by(id);
        told.run(vec![Command::AssignDirectories(AssignDirectories { by, assignments })]);
    }
    let image = told.state.image.clone();
    let changes = all.filter_map(|partition| {
        let record = image.partition(partition).filter(|record| record.leader == Some(BrokerId(1)))?;
        let (leader_epoch, partition_epoch) = (record.leader_epoch, record.partition_epoch);
        Some(AlterPartition { partition, leader_epoch, partition_epoch, isr: vec![told.by(1), told.by(2)] })
    });
    let (by, changes) = (told.by(1), changes.collect());
    told.run(vec![Command::AlterPartitions(AlterPartitions { by, changes })]);
    let leads = |told: &Told| told.state.image.load(BrokerId(1)).leaders;
    let (led, said) = (leads(&told), Said::here());
    told.run(vec![Command::DrainBroker(told.by(1))]);
    assert_eq!((led, leads(&told)), (i64::from(COUNT / 2), 0));
    assert_eq!(said.count("broker is about to stop"), 1);
    assert_eq!(said.count(&led.to_string()), 1);
}

#[tokio::test(start_paused = true)]
async fn partitions_that_lose_their_last_leader_are_one_line_and_so_is_their_return() {
    let mut told = Told::with_brokers(2);
    told.create("a", 7, PARTITIONS);
    for id in [1, 2] {
        let assignments = (0..PARTITIONS)
            .map(|partition| (PartitionId { topic: TopicId(7), partition }, DirectoryId(id as u128)));
        let (by, assignments) = (told.by(id), assignments.collect());
        told.run(vec![Command::AssignDirectories(AssignDirectories { by, assignments })]);
    }
    assert_eq!(told.state.image.health().leaderless, 0);
    advance(GATHER).await;
    let said = Said::here();
    let gone = vec![Command::FenceBroker(told.by(1)), Command::FenceBroker(told.by(2))];
    told.run(gone);
    assert_eq!(said.count("partitions have lost their last leader"), 1);
    assert_eq!(said.count("a/0, a/1, a/2, a/3, a/4, …"), 1);
    assert_eq!(said.count("broker 1 (500), broker "), 1, "whom they wait for");
    advance(GATHER).await;
    told.run(vec![Command::UnfenceBroker(told.by(2))]);
    assert_eq!(said.count("partitions that nobody led are led again"), 1);
}
