//! Every row reads back what was written, and what is not known is refused.

use proptest::prelude::*;
use weir_metadata::{
    AlterPartition, AlterPartitions, AssignDirectories, BrokerEpoch, Command, CreateCluster, CreateTopic,
    DeleteTopic, Delta, DirectoryFacts, ElectLeader, ElectPreferred, Endpoint, Entry, FEATURE_LEVEL,
    FailDirectory, FinalizeLevel, JoinController, RecoverPartitions, Recovery, RegisterBroker,
    RemoveController, ReplicaEnd, ReportDamage, SetClusterConfig, SetSlow, State, StuckReplica, TrustBroker,
    UpdateTopic,
};
use weir_proto::internal::v1 as pb;

use super::*;

fn text() -> impl Strategy<Value = String> {
    "[a-z]{0,8}"
}

fn settings() -> impl Strategy<Value = std::collections::BTreeMap<String, String>> {
    prop::collection::btree_map(text(), text(), 0..3)
}

fn by() -> impl Strategy<Value = BrokerEpoch> {
    (any::<i32>(), any::<i64>()).prop_map(|(broker, epoch)| BrokerEpoch { broker: BrokerId(broker), epoch })
}

fn some_ids() -> impl Strategy<Value = Vec<PartitionId>> {
    prop::collection::vec(partition_id(), 0..3)
}

fn stuck() -> impl Strategy<Value = StuckReplica> {
    (partition_id(), any::<i32>())
        .prop_map(|(partition, leader_epoch)| StuckReplica { partition, leader_epoch })
}

fn partition_id() -> impl Strategy<Value = PartitionId> {
    (any::<u128>(), any::<i32>())
        .prop_map(|(topic, partition)| PartitionId { topic: TopicId(topic), partition })
}

fn join() -> impl Strategy<Value = JoinController> {
    (any::<u128>(), text())
        .prop_map(|(directory, endpoint)| JoinController { directory: DirectoryId(directory), endpoint })
}

fn register() -> impl Strategy<Value = RegisterBroker> {
    let epoch = any::<Option<i64>>;
    let facts = (any::<u128>(), epoch(), epoch(), any::<bool>(), prop::collection::vec(any::<u64>(), 0..3))
        .prop_map(|(id, clean_epoch, persisted_epoch, same_boot, failures)| DirectoryFacts {
            id: DirectoryId(id),
            clean_epoch,
            persisted_epoch,
            same_boot,
            failures,
        });
    let endpoint =
        (text(), text(), any::<u16>()).prop_map(|(listener, host, port)| Endpoint { listener, host, port });
    (
        any::<Option<u128>>(),
        any::<Option<i32>>(),
        prop::collection::vec(facts, 0..3),
        prop::collection::vec(partition_id(), 0..3),
        text(),
        prop::collection::vec(endpoint, 0..3),
        text(),
        (any::<i32>(), any::<i64>(), any::<u128>(), any::<u64>()),
    )
        .prop_map(|(cluster, broker, directories, damaged, rack, endpoints, version, levels)| {
            RegisterBroker {
                cluster_id: cluster.map(ClusterId),
                broker_id: broker.map(BrokerId),
                directories,
                damaged,
                rack,
                endpoints,
                version,
                feature_level: levels.0,
                metadata_version: levels.1,
                incarnation: levels.2,
                metadata_author: levels.3,
            }
        })
}

fn command() -> impl Strategy<Value = Command> {
    let create_cluster = (any::<u128>(), any::<i32>(), settings(), join()).prop_map(
        |(cluster_id, feature_level, settings, controller)| {
            let cluster_id = ClusterId(cluster_id);
            Command::CreateCluster(CreateCluster { cluster_id, feature_level, settings, controller })
        },
    );
    let assign = (by(), prop::collection::vec((partition_id(), any::<u128>().prop_map(DirectoryId)), 0..3))
        .prop_map(|(by, assignments)| Command::AssignDirectories(AssignDirectories { by, assignments }));
    let change = (partition_id(), any::<i32>(), any::<i32>(), prop::collection::vec(by(), 0..3)).prop_map(
        |(partition, leader_epoch, partition_epoch, isr)| AlterPartition {
            partition,
            leader_epoch,
            partition_epoch,
            isr,
        },
    );
    let alter = (by(), prop::collection::vec(change, 0..3))
        .prop_map(|(by, changes)| Command::AlterPartitions(AlterPartitions { by, changes }));
    let elect = (partition_id(), any::<i32>(), any::<i32>(), any::<bool>()).prop_map(
        |(partition, broker, partition_epoch, unclean)| {
            let broker = BrokerId(broker);
            Command::ElectLeader(ElectLeader { partition, broker, partition_epoch, unclean })
        },
    );
    let create = (text(), any::<u128>(), any::<(i32, i32, bool, bool)>(), settings(), text()).prop_map(
        |(name, id, (partitions, replication_factor, if_absent, internal), config, request_id)| {
            Command::CreateTopic(CreateTopic {
                name,
                topic_id: TopicId(id),
                partitions,
                replication_factor,
                config,
                if_absent,
                internal,
                request_id,
            })
        },
    );
    let unset = || prop::collection::vec(text(), 0..3);
    let update = (text(), settings(), unset(), any::<Option<i32>>(), any::<Option<i64>>(), text()).prop_map(
        |(name, set_config, unset_config, partitions, expected_revision, request_id)| {
            Command::UpdateTopic(UpdateTopic {
                name,
                set_config,
                unset_config,
                partitions,
                expected_revision,
                request_id,
            })
        },
    );
    let delete = (text(), any::<Option<u128>>(), text()).prop_map(|(name, id, request_id)| {
        Command::DeleteTopic(DeleteTopic { name, topic_id: id.map(TopicId), request_id })
    });
    let config = (settings(), unset(), settings(), text()).prop_map(|(set, unset, expected, request_id)| {
        Command::SetClusterConfig(SetClusterConfig { set, unset, expected, request_id })
    });
    let end = (by(), any::<i32>(), any::<i64>()).prop_map(|(by, last_epoch, log_end)| ReplicaEnd {
        by,
        last_epoch,
        log_end,
    });
    let recovery = (partition_id(), any::<i32>(), prop::collection::vec(end, 0..3))
        .prop_map(|(partition, partition_epoch, ends)| Recovery { partition, partition_epoch, ends });
    let recover = prop::collection::vec(recovery, 0..3)
        .prop_map(|partitions| Command::RecoverPartitions(RecoverPartitions { partitions }));
    prop_oneof![
        create_cluster,
        join().prop_map(Command::JoinController),
        register().prop_map(Command::RegisterBroker),
        by().prop_map(Command::UnfenceBroker),
        by().prop_map(Command::FenceBroker),
        by().prop_map(Command::StopBroker),
        by().prop_map(Command::DrainBroker),
        by().prop_map(Command::AllocateProducerIds),
        by().prop_map(Command::RemoveBroker),
        by().prop_map(Command::LoseBroker),
        (1i32..9, prop::collection::vec(any::<u64>(), 0..3)).prop_map(|(id, failures)| {
            Command::TrustBroker(TrustBroker { broker: BrokerId(id), failures })
        }),
        (by(), any::<u128>().prop_map(DirectoryId), any::<u64>()).prop_map(|(by, directory, failure)| {
            Command::FailDirectory(FailDirectory { by, directory, failure })
        }),
        (by(), some_ids(), prop::collection::vec(stuck(), 0..3), some_ids()).prop_map(
            |(by, partitions, stuck, unusable)| Command::ReportDamage(ReportDamage {
                by,
                partitions,
                stuck,
                unusable
            })
        ),
        (by(), any::<bool>()).prop_map(|(by, slow)| Command::SetSlow(SetSlow { by, slow })),
        any::<(i32, i32)>()
            .prop_map(|(level, expected)| Command::FinalizeLevel(FinalizeLevel { level, expected })),
        any::<i64>().prop_map(|id| Command::RemoveController(RemoveController { id })),
        prop::collection::vec(partition_id(), 0..3)
            .prop_map(|partitions| Command::ElectPreferred(ElectPreferred { partitions })),
        recover,
        assign,
        alter,
        elect,
        create,
        update,
        delete,
        config,
    ]
}

proptest! {
    #[test]
    fn commands_read_back(at_ms in any::<i64>(), commands in prop::collection::vec(command(), 0..4)) {
        let entry = Entry { at_ms, author: u64::MAX, commands };
        prop_assert_eq!(Entry::from_wire(entry.to_wire()), Ok(entry));
    }
}

/// A state with one of everything in it, and the deltas that led there.
fn everything() -> (State, Vec<Delta>) {
    let by = |broker, epoch| BrokerEpoch { broker: BrokerId(broker), epoch };
    let id = PartitionId { topic: TopicId(9), partition: 0 };
    let facts = DirectoryFacts {
        id: DirectoryId(5),
        clean_epoch: None,
        persisted_epoch: Some(0),
        same_boot: true,
        failures: Vec::new(),
    };
    let register = |incarnation| {
        Command::RegisterBroker(RegisterBroker {
            cluster_id: None,
            broker_id: None,
            directories: vec![facts.clone()],
            damaged: vec![id],
            rack: "r".into(),
            endpoints: vec![Endpoint { listener: "public".into(), host: "h".into(), port: 1 }],
            version: "v".into(),
            feature_level: FEATURE_LEVEL,
            metadata_version: 0,
            metadata_author: u64::MAX - 1,
            incarnation,
        })
    };
    let fail =
        |failure| Command::FailDirectory(FailDirectory { by: by(1, 15), directory: DirectoryId(5), failure });
    let pairs = |pairs: &[(&str, &str)]| pairs.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect();
    let topic = |name: &str, id: u128| {
        Command::CreateTopic(CreateTopic {
            name: name.into(),
            topic_id: TopicId(id),
            partitions: 2,
            replication_factor: 1,
            config: pairs(&[("retention_ms", "1d")]),
            if_absent: false,
            internal: false,
            request_id: format!("create-{name}"),
        })
    };
    let controller = |id| JoinController { directory: DirectoryId(id), endpoint: "h:1".into() };
    let commands = vec![
        Command::CreateCluster(CreateCluster {
            cluster_id: ClusterId(1),
            feature_level: 1,
            settings: pairs(&[("min_insync_replicas", "1")]),
            controller: controller(1),
        }),
        Command::JoinController(controller(2)),
        register(7),
        Command::UnfenceBroker(by(1, 3)),
        topic("kept", 9),
        topic("dropped", 10),
        Command::AssignDirectories(AssignDirectories {
            by: by(1, 3),
            assignments: vec![(id, DirectoryId(5))],
        }),
        Command::UpdateTopic(UpdateTopic {
            name: "kept".into(),
            set_config: pairs(&[("compression", "zstd")]),
            unset_config: vec![],
            partitions: Some(3),
            expected_revision: None,
            request_id: "update".into(),
        }),
        Command::DeleteTopic(DeleteTopic {
            name: "dropped".into(),
            topic_id: None,
            request_id: "delete".into(),
        }),
        Command::SetClusterConfig(SetClusterConfig {
            set: pairs(&[("default_partitions", "4")]),
            unset: vec![],
            expected: pairs(&[("default_partitions", "1")]),
            request_id: "config".into(),
        }),
        Command::AllocateProducerIds(by(1, 3)),
        Command::DrainBroker(by(1, 3)),
        Command::FenceBroker(by(1, 3)),
        Command::FinalizeLevel(FinalizeLevel { level: FEATURE_LEVEL, expected: 1 }),
        register(8),
        // It proved nothing, and somebody takes what it has.
        Command::UnfenceBroker(by(1, 15)),
        Command::ElectLeader(ElectLeader {
            partition: id,
            broker: BrokerId(1),
            partition_epoch: 3,
            unclean: true,
        }),
        Command::DeleteTopic(DeleteTopic { name: "kept".into(), topic_id: None, request_id: String::new() }),
        topic("again", 11),
        Command::StopBroker(by(1, 15)),
        Command::RemoveController(RemoveController { id: 2 }),
        fail(1),
        Command::TrustBroker(TrustBroker { broker: BrokerId(1), failures: vec![1] }),
        fail(u64::MAX),
    ];
    let mut state = State::default();
    let mut deltas = Vec::new();
    for (index, command) in (1..).zip(commands) {
        let applied = state.apply(
            index,
            &Entry { at_ms: index, author: 1 + index.unsigned_abs() % 3, commands: vec![command] },
        );
        assert!(applied.outcomes.iter().all(Result::is_ok), "{:?}", applied.outcomes);
        deltas.extend(applied.delta.map(|delta| delta.as_ref().clone()));
    }
    (state, deltas)
}

#[test]
fn deltas_read_back() {
    let (_, deltas) = everything();
    let kinds: std::collections::BTreeSet<String> = deltas
        .iter()
        .flat_map(|delta| &delta.events)
        .map(|event| format!("{event:?}").chars().take_while(char::is_ascii_alphanumeric).collect())
        .collect();
    assert_eq!(kinds.len(), 18, "each kind of event is there: {kinds:?}");
    for delta in deltas {
        assert_eq!(Delta::from_wire(delta.to_wire()), Ok(delta));
    }
    let removed = weir_metadata::Event::BrokerRemoved { broker: BrokerId(7) };
    assert_eq!(weir_metadata::Event::from_wire(removed.to_wire()), Ok(removed));
    for slow in [true, false] {
        let event = weir_metadata::Event::BrokerSlow { broker: BrokerId(7), slow };
        assert_eq!(weir_metadata::Event::from_wire(event.to_wire()), Ok(event));
    }
}

#[test]
fn images_and_replies_read_back() {
    let (state, _) = everything();
    let mut reader = ImageReader::default();
    for row in image_rows(&state.image) {
        reader.push(row).unwrap();
    }
    assert_eq!(reader.finish(), Ok(state.image.clone()));
    let replies: Vec<_> = state.replies.iter().collect();
    assert_eq!(replies.len(), 6);
    for reply in replies {
        assert_eq!(weir_metadata::Remembered::from_wire(reply.to_wire()), Ok(reply));
    }
}

#[test]
fn an_image_with_rows_missing_is_refused() {
    let (state, _) = everything();
    let rows: Vec<_> = image_rows(&state.image).collect();
    for without in 0..rows.len() {
        let mut reader = ImageReader::default();
        let kept = rows.iter().enumerate().filter(|(at, _)| *at != without).map(|(_, row)| row.clone());
        let read = kept.map(|row| reader.push(row)).collect::<Result<Vec<()>, _>>();
        let is_partition = matches!(rows[without].row, Some(pb::image_row::Row::Partition(_)));
        let is_topic = matches!(rows[without].row, Some(pb::image_row::Row::Topic(_)));
        if without == 0 || is_partition || is_topic {
            assert!(read.is_err() || reader.finish().is_err(), "row {without} is missed");
        }
    }
}

#[test]
fn what_a_newer_version_wrote_is_refused() {
    assert_eq!(Command::from_wire(pb::Command::default()), Err(RowError::Unknown("command")));
    assert_eq!(weir_metadata::Event::from_wire(pb::Event::default()), Err(RowError::Unknown("event")));
    assert_eq!(ImageReader::default().push(pb::ImageRow::default()), Err(RowError::Unknown("kind")));
    let broker = pb::Broker { state: 99, ..pb::Broker::default() };
    assert_eq!(weir_metadata::Broker::from_wire(broker), Err(RowError::Unknown("broker state")));
    assert_eq!(TopicId::from_wire(Bytes::from_static(b"short")), Err(RowError::Malformed("topic id")));
}
