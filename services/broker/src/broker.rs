//! What every call of a broker works with. Its life, from start to stop, is `running`.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::SetOnce;
use weir_proto::v1::{ErrorReason, Limits};
use weir_rpc::Problem;
use weir_runtime::{Os, Stop};
use weir_storage::{LogDir, Partition};

use crate::cluster::Cluster;
use crate::damage::Damage;
use crate::forward::VERSION_FACT;
use crate::forward::peers::Peers;
use crate::leaderless;
use crate::memory::Memory;
use crate::metrics::Metrics;
use crate::options;
use crate::producer_ids::ProducerIds;
use crate::replicas::Replicas;
use crate::replication::Replication;
use crate::serve::Entrance;
use crate::topic_map::{Topic, Topics};

/// What every call of a broker works with.
#[derive(Debug)]
pub(crate) struct Broker {
    pub(crate) os: Arc<dyn Os>,
    pub(crate) config: weir_config::Broker,
    pub(crate) settings: Vec<weir_config::Resolved>,
    pub(crate) data_dir: PathBuf,
    pub(crate) drain: Duration,
    pub(crate) cluster: Arc<Cluster>,
    pub(crate) log_dir: LogDir,
    pub(crate) topics: Arc<Topics>,
    pub(crate) replicas: Arc<Replicas>,
    pub(crate) peers: Peers,
    pub(crate) replication: Arc<Replication>,
    pub(crate) producer_ids: ProducerIds,
    pub(crate) damage: Arc<Damage>,
    pub(crate) metrics: Metrics,
    pub(crate) memory: Arc<Memory>,
    /// Set once it serves.
    pub(crate) ready: SetOnce<()>,
    /// The wish that it ends: streams end, parked calls answer.
    pub(crate) stopping: Stop,
}

impl Broker {
    /// A partition's log, if this broker leads it. Who does instead is said with all that it takes to ask there; where nobody
    /// does, who is waited for.
    pub(crate) fn led_here<'a>(&self, topic: &'a Topic, partition: i32) -> Result<&'a Partition, Problem> {
        topic.led_here(partition).map_err(|problem| match problem.reason {
            ErrorReason::NotLeader => self.located(problem, topic, partition),
            ErrorReason::NoLeader => leaderless::explained(problem, &self.cluster.image(), topic, partition),
            _ => problem,
        })
    }

    fn located(&self, problem: Problem, topic: &Topic, partition: i32) -> Problem {
        let image = self.cluster.image();
        let leader = topic.partitions.get(&partition).and_then(|placed| image.broker(placed.leader?));
        let problem = problem.fact(VERSION_FACT, image.version());
        match leader.and_then(|leader| leader.endpoint(Entrance::Public.name())) {
            Some(at) => problem.fact("leader_endpoint", format_args!("{}:{}", at.host, at.port)),
            None => problem,
        }
    }

    /// Why a log that was read or written here is closed.
    pub(crate) fn gone(&self, topic: &Topic, partition: i32) -> Problem {
        let now = self.topics.get(&topic.name).and_then(|topic| self.led_here(&topic, partition).map(drop));
        now.err().unwrap_or_else(|| {
            let said = format!(
                "{}/{partition} was closed on this broker, or is led by it anew: try again",
                topic.name
            );
            Problem::new(ErrorReason::NoLeader, said).at(&topic.name, partition)
        })
    }

    /// Why nobody should be sent here now, if so.
    pub(crate) fn unready(&self) -> Option<String> {
        if self.stopping.is_requested() {
            return Some("stopping".to_owned());
        }
        if self.ready.initialized() {
            return self.cluster.trouble();
        }
        Some(format!("starting: {}", self.awaited()))
    }

    /// What a start is at, or waits for.
    pub(crate) fn awaited(&self) -> String {
        let alone = || {
            (!self.cluster.is_registered()).then(|| {
                let asked = self.cluster.asked();
                format!(
                    "no controller has taken this broker yet, for which a quorum of them is needed ({asked})"
                )
            })
        };
        self.cluster.trouble().or_else(alone).unwrap_or_else(|| "taking up its partitions".to_owned())
    }

    /// What people are to know though it is ready, if anything.
    pub(crate) fn note(&self) -> Option<String> {
        let mut notes = self.cluster.unreached();
        let in_vain = self.cluster.asked_in_vain();
        notes.extend(in_vain.map(|asked| format!("no controller takes calls now ({asked})")));
        notes.extend(self.full());
        (!notes.is_empty()).then(|| notes.join("\n"))
    }

    /// That appends are refused for want of space, if so: where, how much is left, the limit, what to do. It is no
    /// reason to send nobody here: reads and metadata are answered, and whoever makes room must get through, too.
    pub(crate) fn full(&self) -> Option<String> {
        let (space, reserved) = (self.log_dir.space().ok()?, self.config.disk_reserved_bytes);
        let is_full = self.log_dir.missing_bytes() > 0 || space.available_bytes < reserved;
        is_full.then(|| {
            format!(
                "{} has {} bytes free and keeps {reserved} (disk_reserved_bytes): appends are refused until there is \
                 room; delete records or topics, shorten retention, or add space",
                self.data_dir.display(),
                space.available_bytes
            )
        })
    }

    /// The limits as clients see them.
    pub(crate) fn limits(&self) -> Limits {
        options::limits(&self.config)
    }
}
