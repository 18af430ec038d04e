//! A controller that starts from a snapshot is the one that wrote it: every part of its state, whatever led to it.
//! With one thing different the two would decide differently from then on (correctness rule D3).

use std::collections::BTreeMap;
use std::path::Path;

use proptest::prelude::*;
use weir_io::MemDisk;
use weir_metadata::{
    AlterPartition, AlterPartitions, AssignDirectories, BrokerEpoch, Command, CreateCluster, CreateTopic,
    DeleteTopic, DirectoryFacts, ElectLeader, Endpoint, Entry, FEATURE_LEVEL, FailDirectory, JoinController,
    REPLIES_MAX, RegisterBroker, Remembered, Reply, ReportDamage, SetClusterConfig, SetSlow, State,
    StuckReplica, TrustBroker, UpdateTopic,
};
use weir_types::{BrokerId, ClusterId, DirectoryId, PartitionId, TopicId};

use super::snapshot;
use crate::raft::SnapshotMeta;

const HOUR: i64 = 3_600_000;

/// What happens next, to what, when by its proposer's clock.
type Step = (u8, u8, u8, i64);

fn register(id: i32, variant: u8) -> Command {
    let found = |directory| DirectoryFacts {
        id: DirectoryId(directory),
        clean_epoch: None,
        persisted_epoch: Some(i64::from(variant)),
        same_boot: variant.is_multiple_of(2),
        failures: (0..variant % 3).map(u64::from).collect(),
    };
    let directory = 100 * u128::from(id.unsigned_abs());
    Command::RegisterBroker(RegisterBroker {
        cluster_id: Some(ClusterId(7)),
        broker_id: None,
        directories: (0..=u128::from(variant % 3)).map(|more| found(directory + more)).collect(),
        damaged: Vec::new(),
        rack: "r".repeat(usize::from(variant % 3)),
        endpoints: vec![Endpoint { listener: "public".into(), host: format!("host-{variant}"), port: 1 }],
        version: format!("0.{variant}.0"),
        feature_level: FEATURE_LEVEL,
        metadata_version: 0,
        metadata_author: 0,
        incarnation: u128::from(variant),
    })
}

/// A command that is mostly possible.
fn command(state: &State, index: i64, (kind, a, b, _): Step) -> Command {
    let image = &state.image;
    let epoch_of = |id: BrokerId| image.broker(id).map_or(0, |broker| broker.epoch);
    let broker = BrokerId(i32::from(b % 3) + 1);
    let by = BrokerEpoch { broker, epoch: epoch_of(broker) };
    let name = format!("topic-{}", a % 4);
    let request_id = if b.is_multiple_of(3) { String::new() } else { format!("request {index}") };
    let config = |more: bool| -> BTreeMap<String, String> {
        let mut config = BTreeMap::from([("retention_ms".to_owned(), format!("{}h", u16::from(b) + 1))]);
        config.extend(more.then(|| ("unclean_recovery".to_owned(), "longest".to_owned())));
        config
    };
    let topic = image.topic_named(&name);
    let partition = |number: i32| {
        let id = PartitionId { topic: topic.map_or(TopicId(1), |topic| topic.id), partition: number };
        (id, image.partition(id).map(|record| record.as_ref().clone()))
    };
    match kind % 21 {
        0 => register(broker.0, a),
        1 | 2 => Command::UnfenceBroker(by),
        3 if b.is_multiple_of(2) => Command::StopBroker(by),
        3 => Command::FenceBroker(by),
        4 => Command::DrainBroker(by),
        5 => Command::AllocateProducerIds(by),
        6 => Command::JoinController(JoinController {
            directory: DirectoryId(9_000 + u128::from(a)),
            endpoint: format!("controller-{b}:9349"),
        }),
        7 | 8 => Command::CreateTopic(CreateTopic {
            name,
            topic_id: TopicId(index.unsigned_abs().into()),
            partitions: i32::from(a % 5) + 1,
            replication_factor: i32::from(b % 3) + 1,
            config: config(a.is_multiple_of(2)),
            if_absent: b.is_multiple_of(2),
            internal: false,
            request_id,
        }),
        9 => Command::UpdateTopic(UpdateTopic {
            name,
            set_config: config(b.is_multiple_of(2)),
            unset_config: Vec::new(),
            partitions: topic.filter(|_| a.is_multiple_of(3)).map(|topic| topic.partition_count() + 1),
            expected_revision: None,
            request_id,
        }),
        10 => Command::DeleteTopic(DeleteTopic { name, topic_id: None, request_id }),
        11 => Command::SetClusterConfig(SetClusterConfig {
            set: config(false),
            unset: Vec::new(),
            expected: BTreeMap::new(),
            request_id,
        }),
        12 | 13 => {
            let directory = DirectoryId(100 * u128::from(broker.0.unsigned_abs()));
            let numbers = 0..topic.map_or(0, |topic| topic.partition_count());
            let assignments = numbers.map(|number| (partition(number).0, directory)).collect();
            Command::AssignDirectories(AssignDirectories { by, assignments })
        }
        14 => {
            let (id, record) = partition(0);
            let leader = record.as_ref().and_then(|record| record.leader).unwrap_or(broker);
            let members = record.iter().flat_map(|record| &record.replicas).map(|replica| replica.broker);
            let change = AlterPartition {
                partition: id,
                leader_epoch: record.as_ref().map_or(0, |record| record.leader_epoch),
                partition_epoch: record.as_ref().map_or(0, |record| record.partition_epoch),
                isr: members.map(|broker| BrokerEpoch { broker, epoch: epoch_of(broker) }).collect(),
            };
            let by = BrokerEpoch { broker: leader, epoch: epoch_of(leader) };
            Command::AlterPartitions(AlterPartitions { by, changes: vec![change] })
        }
        15 => Command::SetSlow(SetSlow { by, slow: a.is_multiple_of(2) }),
        16 => Command::LoseBroker(by),
        17 => Command::FailDirectory(FailDirectory {
            by,
            directory: DirectoryId(100 * u128::from(broker.0.unsigned_abs())),
            failure: u64::from(a % 3),
        }),
        19 => Command::ReportDamage(ReportDamage {
            by,
            partitions: vec![partition(0).0],
            stuck: vec![StuckReplica { partition: partition(0).0, leader_epoch: 3 }],
            unusable: vec![partition(0).0],
        }),
        18 => Command::TrustBroker(TrustBroker { broker: by.broker, failures: vec![u64::from(a), 7] }),
        _ => {
            let (id, record) = partition(0);
            let partition_epoch = record.map_or(0, |record| record.partition_epoch);
            Command::ElectLeader(ElectLeader { partition: id, broker, partition_epoch, unclean: true })
        }
    }
}

fn run(state: &mut State, from: i64, steps: &[Step]) {
    for (index, step) in (from..).zip(steps) {
        let commands = vec![command(state, index, *step)];
        state.apply(index, &Entry { at_ms: step.3, author: u64::from(step.0 % 3), commands });
    }
}

/// Three brokers that serve, and what came after. `full`: with room for so many answers more, the oldest of them given by
/// a clock that was so much ahead.
fn state(full: Option<(usize, i64)>, steps: &[Step]) -> State {
    let mut state = State::default();
    let create = CreateCluster {
        cluster_id: ClusterId(7),
        feature_level: FEATURE_LEVEL,
        settings: BTreeMap::new(),
        controller: JoinController { directory: DirectoryId(9_999), endpoint: "localhost:1".into() },
    };
    state.apply(1, &Entry { at_ms: 0, author: 0, commands: vec![Command::CreateCluster(create)] });
    for broker in 1..=3 {
        let index = i64::from(broker) * 2;
        state.apply(index, &Entry { at_ms: 0, author: 0, commands: vec![register(broker, 0)] });
        let by = BrokerEpoch { broker: BrokerId(broker), epoch: index };
        state.apply(index + 1, &Entry { at_ms: 0, author: 0, commands: vec![Command::UnfenceBroker(by)] });
    }
    if let Some((room, mut at_ms)) = full {
        for number in room..REPLIES_MAX {
            let request_id = format!("before {number}");
            let reply = Reply::ClusterConfigSet { before: BTreeMap::new(), after: BTreeMap::new() };
            state.replies.remember(Remembered { request_id, at_ms, reply });
            at_ms = 0;
        }
    }
    run(&mut state, 10, steps);
    state
}

fn written_and_read(state: &State) -> State {
    let disk = MemDisk::new(1);
    let file = snapshot::create(&disk, Path::new("/"), "test").unwrap();
    snapshot::write(&file, &SnapshotMeta::default(), state).unwrap();
    snapshot::read(&file).unwrap().state
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    // Clocks that agree about the hour, and now and then one that does not.
    let at_ms = prop_oneof![8 => 0..HOUR, 2 => 0..10 * HOUR];
    prop::collection::vec((any::<u8>(), any::<u8>(), any::<u8>(), at_ms), 1..120)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn a_state_that_is_written_and_read_is_the_same_and_stays_so(
        full in prop::option::weighted(0.2, (1usize..12, 0..10 * HOUR)),
        before in steps(),
        after in steps(),
    ) {
        let mut live = state(full, &before);
        let mut restored = written_and_read(&live);
        prop_assert!(restored == live);
        let next = live.image.version() + 1_000;
        run(&mut live, next, &after);
        run(&mut restored, next, &after);
        prop_assert!(restored == live);
    }
}

#[test]
fn the_histories_reach_every_part_of_the_state() {
    let kinds = [7, 12, 12, 12, 14, 5, 6, 11, 3, 0, 9, 7, 10, 4, 17];
    let steps: Vec<Step> = (0u8..).zip(kinds).map(|(at, kind)| (kind, at / 12, at + 1, 0)).collect();
    let state = state(None, &steps);
    let image = &state.image;
    assert!(image.topics().next().is_some() && image.partition_count() > 0, "{image:?}");
    assert!(image.controllers().count() > 1 && !image.cluster_settings().is_empty(), "{image:?}");
    assert!(image.next_producer_id() > weir_metadata::PRODUCER_ID_FIRST, "{image:?}");
    assert!(image.brokers().any(|broker| broker.is_failed()), "{image:?}");
    assert!(state.replies.iter().count() > 1, "{state:?}");
    assert_eq!(written_and_read(&state), state);
}
