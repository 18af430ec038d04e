//! Folders as earlier versions have left them, in `tests/data`: each must stay readable for ever, row by row, and a
//! controller must go on from it.
//!
//! A new format gets a new folder beside the old ones, whose test writes it if it is not there:
//! `WEIR_FIXTURES=write cargo test -p weir-controller --lib -- --test-threads 1 fixtures`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use openraft::storage::{RaftLogStorage, RaftLogStorageExt};
use openraft::{BasicNode, CommittedLeaderId, EntryPayload, Membership, RaftLogReader};
use tokio::time::timeout;
use weir_io::{Access, Disk, MemDisk, RealDisk};
use weir_metadata::{
    AlterPartition, AlterPartitions, AssignDirectories, Broker, BrokerEpoch, BrokerState, Command,
    Controller as Member, CreateCluster, CreateTopic, DeleteTopic, DirectoryFacts, ElectLeader, Endpoint,
    Entry, JoinController, Partition, RegisterBroker, Remembered, Replica, Reply, SetClusterConfig, State,
    Topic, TopicSummary, UpdateTopic,
};
use weir_runtime::testing::{PATIENCE, TestOs, until};
use weir_runtime::{Os, Reason, Stop};
use weir_types::{BrokerId, ClusterId, DirectoryId, PartitionId, TopicId};

use crate::machine::{SnapshotFile, snapshot};
use crate::raft::{LogEntry, LogId, SnapshotMeta, StoredMembership, Vote};
use crate::store::{self, Identity, LogStore};
use crate::{Config, Controller};

/// The controller's folder, on the disk of a test.
const DIR: &str = "/controller";
/// The snapshot covers what is up to here; the entries after it are in the log.
const COVERED: u64 = 14;
/// The log was purged up to here: some entries that the snapshot covers stay, as in a running controller.
const PURGED: u64 = 11;
const HOUR: i64 = 3_600_000;
const ENDPOINT: &str = "controller.test:9349";
const DIRECTORY: DirectoryId = DirectoryId(0xd1);
const CLUSTER: ClusterId = ClusterId(0xc1);
const KEPT: TopicId = TopicId(0xfeed);
const GONE: TopicId = TopicId(0xdead);

pub(crate) const IDENTITY: Identity = Identity {
    directory: DIRECTORY,
    member: Some(store::Member { cluster_id: CLUSTER, node_id: 1, quorum_id: 0 }),
};

fn id(index: u64) -> LogId {
    let term = if index == 0 { 0 } else { 3 };
    LogId::new(CommittedLeaderId::new(term, u64::from(index > 0)), index)
}

fn words<const N: usize>(pairs: [(&str, &str); N]) -> BTreeMap<String, String> {
    pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).into()
}

fn partition(topic: TopicId, partition: i32) -> PartitionId {
    PartitionId { topic, partition }
}

fn by(broker: i32, epoch: i64) -> BrokerEpoch {
    BrokerEpoch { broker: BrokerId(broker), epoch }
}

fn membership() -> Membership<u64, BasicNode> {
    let node = |id: u64, endpoint: &str| (id, BasicNode::new(endpoint));
    Membership::new(vec![[1].into()], BTreeMap::from([node(1, ENDPOINT)]))
}

fn endpoints(host: &str) -> Vec<Endpoint> {
    let on = |listener: &str, port| Endpoint { listener: listener.into(), host: host.into(), port };
    vec![on("internal", 65_535), on("public", 9_092)]
}

fn register(broker: Option<i32>, directory: u128) -> Command {
    let facts = |id, clean_epoch, persisted_epoch, same_boot| DirectoryFacts {
        id: DirectoryId(id),
        clean_epoch,
        persisted_epoch,
        same_boot,
        failures: Vec::new(),
    };
    Command::RegisterBroker(RegisterBroker {
        cluster_id: broker.map(|_| CLUSTER),
        broker_id: broker.map(BrokerId),
        directories: vec![facts(directory, Some(1), Some(2), true), facts(directory + 1, None, None, false)],
        damaged: broker.map(|_| partition(KEPT, 2)).into_iter().collect(),
        rack: "rack".into(),
        endpoints: endpoints("broker.test"),
        version: "0.1.0".into(),
        feature_level: 1,
        metadata_version: broker.map_or(0, |_| 9),
        metadata_author: 0,
        incarnation: 0,
    })
}

fn create(name: &str, topic_id: TopicId, request_id: &str) -> Command {
    Command::CreateTopic(CreateTopic {
        name: name.into(),
        topic_id,
        partitions: 2,
        replication_factor: 1,
        config: words([("retention_ms", "2h")]),
        if_absent: true,
        internal: false,
        request_id: request_id.into(),
    })
}

fn update(set: (&str, &str), unset: &str, partitions: i32, revision: i64, request_id: &str) -> Command {
    Command::UpdateTopic(UpdateTopic {
        name: "kept".into(),
        set_config: words([set]),
        unset_config: vec![unset.into()],
        partitions: Some(partitions),
        expected_revision: Some(revision),
        request_id: request_id.into(),
    })
}

/// The commands of each entry from index 2 on; every kind is in the log, and every kind of row in the snapshot.
fn commands() -> Vec<Vec<Command>> {
    let config = |unset: &str, request: &str| {
        Command::SetClusterConfig(SetClusterConfig {
            set: words([("segment_bytes", "64MiB")]),
            unset: vec![unset.into()],
            expected: words([]),
            request_id: request.into(),
        })
    };
    let join = |directory, endpoint: &str| JoinController { directory, endpoint: endpoint.into() };
    let found = CreateCluster {
        cluster_id: CLUSTER,
        feature_level: 1,
        settings: words([("default_replication_factor", "1"), ("min_insync_replicas", "1")]),
        controller: join(DIRECTORY, ENDPOINT),
    };
    let delete = |name: &str, topic_id, request: &str| {
        Command::DeleteTopic(DeleteTopic { name: name.into(), topic_id, request_id: request.into() })
    };
    let alter = AlterPartition {
        partition: partition(KEPT, 0),
        leader_epoch: 1,
        partition_epoch: 1,
        isr: vec![by(1, 3)],
    };
    let elect = |partition_epoch, unclean| {
        let partition = partition(KEPT, 1);
        Command::ElectLeader(ElectLeader { partition, broker: BrokerId(1), partition_epoch, unclean })
    };
    let assign = |partitions: i32, directory: u128| {
        let made = (0..partitions).map(|number| (partition(KEPT, number), DirectoryId(directory)));
        Command::AssignDirectories(AssignDirectories { by: by(1, 3), assignments: made.collect() })
    };
    vec![
        vec![Command::CreateCluster(found.clone())],
        vec![register(None, 0xb0)],
        vec![Command::UnfenceBroker(by(1, 3))],
        vec![create("kept", KEPT, "kept is made"), create("gone", GONE, "gone is made")],
        vec![update(("batch_bytes_max", "2MiB"), "retention_ms", 3, 5, "kept is changed")],
        vec![delete("gone", Some(GONE), "gone is deleted")],
        vec![config("min_insync_replicas", "settings are set")],
        vec![Command::AllocateProducerIds(by(1, 3))],
        vec![Command::JoinController(join(DirectoryId(0xd2), "second.test:9349"))],
        vec![register(None, 0xb8), Command::UnfenceBroker(by(2, 11))],
        vec![assign(2, 0xb0)],
        vec![register(None, 0xbc)],
        vec![Command::DrainBroker(by(2, 11))],
        // From here on in the log alone.
        vec![
            Command::CreateCluster(found),
            Command::JoinController(join(DirectoryId(0xd3), "third.test:9349")),
        ],
        vec![register(Some(3), 0xbc)],
        vec![
            Command::UnfenceBroker(by(3, 16)),
            Command::FenceBroker(by(2, 11)),
            Command::DrainBroker(by(3, 16)),
        ],
        vec![
            assign(3, 0xb0),
            Command::AlterPartitions(AlterPartitions { by: by(1, 3), changes: vec![alter] }),
        ],
        vec![elect(1, true), elect(1, false)],
        vec![create("last", TopicId(u128::MAX), ""), delete("unknown", None, "")],
        vec![update(("retention_ms", "1d"), "batch_bytes_max", 4, 6, "kept is changed again")],
        vec![config("default_replication_factor", ""), Command::AllocateProducerIds(by(1, 3))],
    ]
}

/// The whole log of version 1, from index 0 on.
fn history() -> Vec<LogEntry> {
    let first = [EntryPayload::Membership(membership()), EntryPayload::Blank];
    let at = |number: usize| number as i64 * HOUR / 100;
    let rest = commands().into_iter().enumerate();
    let rest =
        rest.map(|(number, commands)| EntryPayload::Normal(Entry { at_ms: at(number), author: 0, commands }));
    let payloads = first.into_iter().chain(rest);
    payloads.zip(0..).map(|(payload, index)| LogEntry { log_id: id(index), payload }).collect()
}

fn covered() -> SnapshotMeta {
    SnapshotMeta {
        last_log_id: Some(id(COVERED)),
        last_membership: StoredMembership::new(Some(id(0)), membership()),
        snapshot_id: "00000000000000a1".to_owned(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_of_voters_is_finished_by_whoever_leads_next() {
    let (disk, dir) = (MemDisk::new(1), Path::new(DIR));
    disk.create_dir(dir).unwrap();
    let os: Arc<dyn Os> = Arc::new(TestOs::threads(Arc::new(disk)).unwrap());
    let (mut store, _) = LogStore::open(&os, dir, || Ok(IDENTITY)).await.unwrap();
    let nodes = [1, 2].map(|node| (node, BasicNode::new(ENDPOINT)));
    let vote_of_old_and_new = Membership::new(vec![[1].into(), [1].into()], BTreeMap::from(nodes));
    let entry = LogEntry { log_id: id(0), payload: EntryPayload::Membership(vote_of_old_and_new) };
    store.blocking_append([entry]).await.unwrap();
    store.save_vote(&Vote::new(3, 1)).await.unwrap();
    drop(store);

    let config = Config::new(PathBuf::from(DIR), "127.0.0.1:0".parse().unwrap());
    let controller = Controller::build(os, config.standalone()).await.unwrap();
    let (handle, stop) = (controller.handle(), Stop::new());
    let serving = tokio::spawn(controller.serve(stop.clone()));
    until("the change is made", async || handle.voters() == Some(1)).await;
    assert_eq!(handle.leader(), Some(1));
    assert!(handle.leads().is_some_and(|term| term > 3), "{:?}", handle.leads());
    stop.request(Reason::Asked("the test".to_owned()));
    timeout(PATIENCE, serving).await.unwrap().unwrap().unwrap();
}

async fn write_v1() -> MemDisk {
    let disk = MemDisk::new(1);
    disk.create_dir(Path::new(DIR)).unwrap();
    let os: Arc<dyn Os> = Arc::new(TestOs::new(Arc::new(disk.clone())));
    let (mut store, _) = LogStore::open(&os, Path::new(DIR), || Ok(IDENTITY)).await.unwrap();
    store.blocking_append(history()).await.unwrap();
    let mut state = State::default();
    for entry in history().into_iter().filter(|entry| entry.log_id.index <= COVERED) {
        if let EntryPayload::Normal(commands) = entry.payload {
            let applied = state.apply(entry.log_id.index as i64, &commands);
            assert!(applied.outcomes.iter().all(Result::is_ok), "{}: {:?}", entry.log_id, applied.outcomes);
        }
    }
    let file = snapshot::create(&disk, Path::new(DIR), "new").unwrap();
    snapshot::write(&file, &covered(), &state).unwrap();
    snapshot::finish(&disk, Path::new(DIR), &file, &covered()).unwrap();
    store.save_committed(history().last().map(|entry| entry.log_id)).await.unwrap();
    store.purge(id(PURGED)).await.unwrap();
    store.save_vote(&Vote::new_committed(3, 1)).await.unwrap();
    disk
}

/// Copies the files of a folder.
fn copy(from: &dyn Disk, source: &Path, to: &dyn Disk, target: &Path) {
    to.create_dir(target).unwrap();
    for entry in from.list(source).unwrap() {
        let bytes = from.read(&source.join(&entry.name), 4 << 20).unwrap();
        to.replace_durably(&target.join(&entry.name), &bytes).unwrap();
    }
}

/// A disk with what version 1 has left.
async fn v1() -> MemDisk {
    let source: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/v1");
    let real = RealDisk::new();
    if !real.exists(&source).unwrap() && std::env::var("WEIR_FIXTURES").as_deref() == Ok("write") {
        let parent = source.parent().unwrap();
        if !real.exists(parent).unwrap() {
            real.create_dir(parent).unwrap();
        }
        copy(&write_v1().await, Path::new(DIR), &real, &source);
    }
    let disk = MemDisk::new(1);
    copy(&real, &source, &disk, Path::new(DIR));
    disk
}

#[tokio::test]
async fn the_log_of_version_1_is_read_row_by_row() {
    let os: Arc<dyn Os> = Arc::new(TestOs::new(Arc::new(v1().await)));
    let none = || Err(crate::Error::Stopping);
    let (mut store, identity) = LogStore::open(&os, Path::new(DIR), none).await.unwrap();
    assert_eq!(identity, IDENTITY);
    assert_eq!(store.read_vote().await.unwrap(), Some(Vote::new_committed(3, 1)));
    let last = id(history().len() as u64 - 1);
    assert_eq!(store.read_committed().await.unwrap(), Some(last));
    let state = store.get_log_state().await.unwrap();
    assert_eq!((state.last_purged_log_id, state.last_log_id), (Some(id(PURGED)), Some(last)));
    let kept: Vec<LogEntry> = history().into_iter().filter(|entry| entry.log_id.index > PURGED).collect();
    assert_eq!(store.try_get_log_entries(..).await.unwrap(), kept);
}

#[tokio::test]
async fn the_snapshot_of_version_1_is_read_row_by_row() {
    let disk = v1().await;
    let path = Path::new(DIR).join("00000000000000000014-00000000000000000003.snap");
    assert_eq!(snapshot::finished(&disk, Path::new(DIR)).unwrap(), std::slice::from_ref(&path));
    let file = disk.open(&path, Access::Read).unwrap();
    let loaded = snapshot::read(&SnapshotFile { path, file, checked: None }).unwrap();
    assert_eq!(loaded.meta, covered());
    let State { image, replies, .. } = loaded.state;

    assert_eq!((image.version(), image.cluster_id(), image.feature_level()), (14, Some(CLUSTER), 1));
    let settings = words([("default_replication_factor", "1"), ("segment_bytes", "67108864")]);
    assert_eq!(image.cluster_settings(), &settings);
    assert_eq!((image.next_broker_id(), image.next_producer_id()), (4, 2_000));
    let member = |id, directory, endpoint: &str| Member { id, directory, endpoint: endpoint.into() };
    let members = [member(1, DIRECTORY, ENDPOINT), member(10, DirectoryId(0xd2), "second.test:9349")];
    assert!(image.controllers().eq(&members), "{:?}", image.controllers().collect::<Vec<_>>());

    let broker = |id, epoch, state, persisted_epoch, directory, registered_ms| Broker {
        id: BrokerId(id),
        epoch,
        state,
        persisted_epoch,
        directories: vec![DirectoryId(directory), DirectoryId(directory + 1)],
        rack: "rack".into(),
        endpoints: endpoints("broker.test"),
        version: "0.1.0".into(),
        registered_ms,
        incarnation: 0,
        failed: Vec::new(),
        stopped: false,
    };
    let brokers = [
        broker(1, 3, BrokerState::Active, 3, 0xb0, 36_000),
        broker(2, 11, BrokerState::Draining, 11, 0xb8, 324_000),
        broker(3, 13, BrokerState::Registered, 0, 0xbc, 396_000),
    ];
    assert!(image.brokers().eq(&brokers), "{:?}", image.brokers().collect::<Vec<_>>());

    let kept = TopicSummary {
        id: KEPT,
        name: "kept".into(),
        partitions: 3,
        replication_factor: 1,
        config: words([("batch_bytes_max", "2097152")]),
        copied: words([("durability", "fsync"), ("min_insync_replicas", "1")]),
        revision: 6,
        created_ms: 108_000,
    };
    assert!(
        image.topics().map(Topic::summary).eq([kept.clone()]),
        "{:?}",
        image.topics().collect::<Vec<_>>()
    );
    for number in 0..3 {
        // Nobody has made the third yet.
        let (leader, made) = if number < 2 { (Some(BrokerId(1)), 1) } else { (None, 0) };
        let expected = Partition {
            replicas: vec![Replica::new(BrokerId(1), leader.map(|_| DirectoryId(0xb0)))],
            leader,
            leader_epoch: made,
            partition_epoch: made,
            min_insync: 1,
            isr: leader.into_iter().collect(),
            ..Partition::new([], 0)
        };
        assert_eq!(image.partition(partition(KEPT, number)).map(Arc::as_ref), Some(&expected), "{number}");
    }

    let before = TopicSummary {
        partitions: 2,
        config: words([("retention_ms", "7200000")]),
        revision: 5,
        ..kept.clone()
    };
    let gone = TopicSummary { id: GONE, name: "gone".into(), ..before.clone() };
    let settings_before = words([("default_replication_factor", "1"), ("min_insync_replicas", "1")]);
    let answer = |request: &str, at_ms, reply| Remembered { request_id: request.into(), at_ms, reply };
    let expected = [
        answer("kept is made", 108_000, Reply::TopicCreated { topic: before.clone(), created: true }),
        answer("gone is made", 108_000, Reply::TopicCreated { topic: gone.clone(), created: true }),
        answer("kept is changed", 144_000, Reply::TopicUpdated { before, after: kept }),
        answer("gone is deleted", 180_000, Reply::TopicDeleted { topic: gone }),
        answer(
            "settings are set",
            216_000,
            Reply::ClusterConfigSet { before: settings_before, after: settings },
        ),
    ];
    assert!(replies.iter().eq(expected), "{:#?}", replies.iter().collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_controller_goes_on_from_what_version_1_has_left() {
    let mut disk = v1().await;
    for lost_power in [true, false] {
        let os = Arc::new(TestOs::threads(Arc::new(disk.clone())).unwrap());
        let config = Config {
            advertise: Some(ENDPOINT.into()),
            session_timeout: 10 * PATIENCE,
            ..Config::new(PathBuf::from(DIR), "127.0.0.1:0".parse().unwrap())
        };
        let controller = Controller::build(os, config).await.unwrap();
        let (handle, stop) = (controller.handle(), Stop::new());
        let serving = tokio::spawn(controller.serve(stop.clone()));
        timeout(PATIENCE, handle.ready()).await.unwrap();
        assert_eq!(handle.cluster_id(), CLUSTER);
        // The third controller, the last topic and the second block of ids are in the log alone.
        until("the log is applied", async || handle.image().next_producer_id() == 3_000).await;
        let image = handle.image();
        assert_eq!(image.controllers().map(|controller| controller.id).collect::<Vec<_>>(), [1, 10, 15]);
        assert!(image.topics_after("").map(|topic| topic.name.as_ref()).eq(["kept", "last"]));
        assert_eq!(image.topic(KEPT).map(Topic::partition_count), Some(4));
        let states = image.brokers().map(|broker| broker.state).collect::<Vec<_>>();
        assert_eq!(states, [BrokerState::Active, BrokerState::Fenced, BrokerState::Draining]);
        assert_eq!(image.cluster_settings(), &words([("segment_bytes", "67108864")]));
        if lost_power {
            disk = disk.crash(7);
        }
        stop.request(Reason::Asked("the test".to_owned()));
        timeout(PATIENCE, serving).await.unwrap().unwrap().unwrap();
    }
}
