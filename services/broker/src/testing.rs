//! The inner parts of a broker without the rest of it, for tests: logs on a disk that fails on command, and a place among
//! controllers that nobody asks.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use weir_io::{FaultDisk, MemDisk};
use weir_metadata::{Command, DirectoryFacts, FEATURE_LEVEL, RegisterBroker};
use weir_replication::{Member, Record};
use weir_runtime::Os;
use weir_runtime::testing::TestOs;
use weir_storage::{
    Acks, Append, AppendError, Appended, Control, DirOptions, LogConfig, LogDir, NewBatch, Partition,
};
use weir_types::{BrokerId, DirectoryId, Durability, LeaderEpoch, Offset, PartitionId, TopicId};

use crate::cluster::{self, Cluster};
use crate::damage::Damage;
use crate::ingest::BatchRules;
use crate::metrics::Metrics;
use crate::replicas::Replicas;
use crate::replication::{Recorded, Replication};
use crate::topic_map::{Topic, Topics};

/// The partition that these tests are about.
pub(crate) const ID: PartitionId = PartitionId { topic: TopicId(7), partition: 0 };

/// See the module.
pub(crate) struct Parts {
    pub(crate) disk: FaultDisk,
    pub(crate) log_dir: LogDir,
    pub(crate) cluster: Arc<Cluster>,
    pub(crate) replication: Arc<Replication>,
    pub(crate) damage: Arc<Damage>,
    pub(crate) replicas: Replicas,
}

impl Parts {
    /// Those of broker 1, which has nothing yet.
    pub(crate) fn new() -> Self {
        let disk = FaultDisk::over_mem(&MemDisk::new(1));
        let os: Arc<dyn Os> = Arc::new(TestOs::new(Arc::new(disk.clone())));
        let options = DirOptions::new(|fatal| panic!("{fatal}"));
        let (log_dir, _) = LogDir::open(os.clone(), Path::new("/logs"), None, options).unwrap();
        let cluster = Arc::new(cluster::tests::registered_on(os.clone()));
        let (topics, metrics) = (Arc::new(Topics::default()), Metrics::new());
        let lag_max = Duration::from_secs(10);
        // Nobody dials, and nobody begins a log anew.
        let (replication, _, _) =
            Replication::new(os.clone(), cluster.clone(), 1, lag_max, metrics.replication.clone());
        let (of_cluster, of_replicas) = (cluster.clone(), replication.clone());
        let followed = metrics.followed_partitions.clone();
        let (damaged, unreadable) = (metrics.reads_damaged.clone(), metrics.reads_unreadable.clone());
        let damage = Arc::new(Damage::new(replication.clone(), damaged, unreadable));
        let of_damage = damage.clone();
        let replicas =
            Replicas::new(os, log_dir.clone(), of_cluster, topics, of_replicas, of_damage, followed);
        Self { disk, log_dir, cluster, replication, damage, replicas }
    }

    /// A log that is new here and led by this record.
    pub(crate) async fn lead(&self, id: PartitionId, record: Recorded) -> Partition {
        let log = self.log_dir.create_partition(id, "orders", LogConfig::default()).unwrap();
        let leading = self.replication.lead(&log, Durability::Fsync, record);
        log.control(Control::SetAdmission(Box::new(leading))).await.unwrap();
        log
    }

    /// A heartbeat of now is answered, and nothing was decided before that is to be acted upon.
    pub(crate) fn is_heard(&self) {
        cluster::tests::is_heard(&self.cluster, 0);
        assert!(self.cluster.session_valid());
    }

    /// No heartbeat is answered for longer than a session.
    pub(crate) async fn is_unheard(&self) {
        tokio::time::advance(2 * cluster::tests::SESSION).await;
        assert!(!self.cluster.session_valid());
    }
}

/// The record of a partition with replicas on brokers 1 and 2, of which these are in sync: one of them is enough.
pub(crate) fn recorded(leader_epoch: LeaderEpoch, in_sync: &[i32]) -> Recorded {
    let isr = in_sync.iter().map(|id| Member { broker: BrokerId(*id), epoch: 1 }).collect();
    let replicas = vec![BrokerId(1), BrokerId(2)];
    let record =
        Record { leader_epoch, partition_epoch: 1, min_insync: 1, isr, replicas, eligible: Vec::new() };
    Recorded { record, zones: Default::default() }
}

/// The topic that [`ID`] is of, as calls have it.
pub(crate) fn topic() -> Topic {
    Topic {
        name: "orders".into(),
        id: ID.topic,
        rules: BatchRules {
            batch_bytes_max: 1 << 20,
            max_timestamp_ahead_ms: i64::MAX,
            append_time: false,
            compression: None,
        },
        durability: Durability::Fsync,
        partitions: Default::default(),
    }
}

/// One record, as a batch of so many bytes.
pub(crate) fn batch(bytes: usize) -> NewBatch {
    NewBatch {
        last_offset_delta: 0,
        record_count: 1,
        base_timestamp_ms: 0,
        max_timestamp_ms: 0,
        append_time: false,
        codec: 0,
        uncompressed_bytes: 0,
        crc: 0,
        producer: None,
        base_sequence: 0,
        transactional: false,
        control: false,
        broker_compressed: false,
        payload: vec![0; bytes].into(),
    }
}

/// What an append is answered.
pub(crate) type Answer = oneshot::Receiver<Result<Appended, AppendError>>;

/// Appends it.
pub(crate) fn append(log: &Partition, batch: NewBatch, acks: Acks, expected: Option<Offset>) -> Answer {
    let (done, answered) = oneshot::channel();
    let done = Box::new(move |appended| drop(done.send(appended)));
    let (expected_next_offset, gate) = (expected, None);
    log.submit(vec![Append { batch, acks, expected_next_offset, gate, resume: false, done }]);
    answered
}

/// A command that registers a broker with one directory, for the first time.
pub(crate) fn registers(directory: DirectoryId) -> Command {
    let found = DirectoryFacts {
        id: directory,
        clean_epoch: None,
        persisted_epoch: None,
        same_boot: false,
        failures: Vec::new(),
    };
    Command::RegisterBroker(RegisterBroker {
        cluster_id: None,
        broker_id: None,
        directories: vec![found],
        damaged: Vec::new(),
        rack: String::new(),
        endpoints: Vec::new(),
        version: String::new(),
        feature_level: FEATURE_LEVEL,
        metadata_version: 0,
        metadata_author: 0,
        incarnation: 0,
    })
}
