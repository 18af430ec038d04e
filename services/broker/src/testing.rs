//! The inner parts of a broker without the rest of it, for tests: logs on a disk that fails on command, and a place among
//! controllers that nobody asks.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use weir_io::{FaultDisk, MemDisk};
use weir_runtime::Os;
use weir_runtime::testing::TestOs;
use weir_storage::{DirOptions, LogDir};

use crate::cluster::{self, Cluster};
use crate::metrics::Metrics;
use crate::replicas::Replicas;
use crate::replication::Replication;
use crate::topic_map::Topics;

/// See the module.
pub(crate) struct Parts {
    pub(crate) disk: FaultDisk,
    pub(crate) log_dir: LogDir,
    pub(crate) cluster: Arc<Cluster>,
    pub(crate) replication: Arc<Replication>,
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
        let replicas = Replicas::new(os, log_dir.clone(), of_cluster, topics, of_replicas, followed);
        Self { disk, log_dir, cluster, replication, replicas }
    }
}
