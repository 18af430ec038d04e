//! Replicas: from the metadata to logs on this broker's disk, and from both to the map that calls use.
//!
//! One task follows the metadata and brings the disk in line with each version it sees: logs are made where the
//! record says that none has been made yet, opened where it names our directory, led where it names this broker,
//! and deleted with their topic. A named directory that is not ours, or a log that is gone, makes the partition
//! offline; it is never made again (correctness rule 14).

use std::collections::HashMap;
use std::sync::Arc;

use tokio::sync::watch;
use weir_cluster::Row;
use weir_metadata::Image;
use weir_metadata::settings::TopicSettings;
use weir_proto::internal::v1 as wire;
use weir_replication::Leader;
use weir_runtime::Os;
use weir_storage::{Control, LogConfig, LogDir, Partition};
use weir_types::{LeaderEpoch, PartitionId};

use crate::admission::{Leading, NotLeading};
use crate::blocking::blocking;
use crate::cluster::Cluster;
use crate::ingest::BatchRules;
use crate::topic_map::{Placed, Topic, TopicMap, Topics};

/// The replicas of this broker.
#[derive(Debug)]
pub(crate) struct Replicas {
    os: Arc<dyn Os>,
    log_dir: LogDir,
    cluster: Arc<Cluster>,
    topics: Arc<Topics>,
    /// What was found damaged at the start, and how.
    damaged: HashMap<PartitionId, String>,
    settled: watch::Sender<i64>,
}

/// What the task knows from one version to the next.
#[derive(Default)]
struct Known {
    logs: HashMap<PartitionId, Log>,
}

/// A log that is open here.
struct Log {
    partition: Partition,
    /// What it was last told; `None`: nothing since it was opened.
    config: Option<LogConfig>,
    /// The epoch it leads in; `None`: it does not.
    leads: Option<LeaderEpoch>,
    /// Whether an image has named its topic since the start.
    named: bool,
    /// Whether a person was told that none has.
    stray: bool,
}

impl Log {
    fn opened(partition: Partition) -> Self {
        Self { partition, config: None, leads: None, named: false, stray: false }
    }
}

impl Replicas {
    pub(crate) fn new(
        os: Arc<dyn Os>,
        log_dir: LogDir,
        damaged: HashMap<PartitionId, String>,
        cluster: Arc<Cluster>,
        topics: Arc<Topics>,
    ) -> Self {
        Self { os, log_dir, cluster, topics, damaged, settled: watch::Sender::new(0) }
    }

    /// Waits until the disk and the map are in line with a version of the metadata.
    pub(crate) async fn settled(&self, version: i64) {
        // The sender lives as long as self.
        let _ = self.settled.subscribe().wait_for(|settled| *settled >= version).await;
    }

    /// Follows the metadata for as long as the process lives.
    pub(crate) async fn run(self: Arc<Self>) {
        let mut known = Known::default();
        for partition in self.log_dir.partitions() {
            known.logs.insert(partition.id(), Log::opened(partition));
        }
        let mut versions = self.cluster.versions();
        loop {
            versions.borrow_and_update();
            let image = self.cluster.image();
            if image.version() > 0 {
                self.follow(&mut known, &image).await;
                self.settled.send_replace(image.version());
            }
            if versions.changed().await.is_err() {
                return;
            }
        }
    }

    async fn follow(&self, known: &mut Known, image: &Arc<Image>) {
        self.delete_gone(known, image).await;
        let made = self.make_missing(known, image).await;
        self.lead(known, image).await;
        self.topics.replace(self.map(known, image));
        if !made.is_empty() {
            self.report(made).await;
        }
    }

    /// Deletes the logs of topics that were deleted while this process looked: whose topic was there in an earlier
    /// image. A log that no image has ever named is a stray, and stays: the controller may have been restored from
    /// an old backup, and know less than this disk.
    async fn delete_gone(&self, known: &mut Known, image: &Image) {
        for (id, log) in &mut known.logs {
            let named = image.topic(id.topic).is_some();
            if !named && !log.named && !log.stray {
                tracing::warn!(partition = %id, log = ?log.partition, "a log that no topic names is left alone");
                log.stray = true;
            }
            log.named |= named;
        }
        let is_gone =
            |(id, log): (&PartitionId, &Log)| (log.named && image.topic(id.topic).is_none()).then_some(*id);
        let gone: Vec<PartitionId> = known.logs.iter().filter_map(is_gone).collect();
        for id in gone {
            let Some(log) = known.logs.remove(&id) else { continue };
            let deleted = self.log_dir.delete_partition(&log.partition).await;
            if let Err(error) = deleted {
                tracing::error!(partition = %id, %error, "cannot delete the log of a deleted topic");
            }
        }
    }

    /// Makes the logs that the records say have not been made anywhere yet.
    async fn make_missing(&self, known: &mut Known, image: &Image) -> Vec<PartitionId> {
        let me = self.cluster.broker_id();
        let mut wanted = Vec::new();
        let mut unreported = Vec::new();
        for topic in image.topics() {
            let unassigned = topic.partitions.iter().filter(|(_, record)| {
                record.replica(me).is_some_and(|replica| replica.directory().is_none())
            });
            for (number, _) in unassigned {
                let id = PartitionId { topic: topic.id, partition: *number };
                unreported.push(id);
                if !known.logs.contains_key(&id) {
                    wanted.push((id, topic.name.to_string(), log_config(&image.topic_settings(topic))));
                }
            }
        }
        if !wanted.is_empty() {
            let dir = self.log_dir.clone();
            let made = blocking(&self.os, move || dir.create_partitions(wanted)).await;
            match made {
                Ok(made) => {
                    for (id, outcome) in made {
                        match outcome {
                            Ok(partition) => drop(known.logs.insert(id, Log::opened(partition))),
                            Err(error) => tracing::error!(partition = %id, %error, "cannot make a log"),
                        }
                    }
                }
                Err(error) => tracing::error!(%error, "cannot make logs"),
            }
        }
        unreported.retain(|id| known.logs.contains_key(id));
        unreported
    }

    /// Says which directory the new logs are in; the controller elects leaders then.
    async fn report(&self, made: Vec<PartitionId>) {
        let directory = self.log_dir.directory_id();
        let assignments = wire::AssignDirectories {
            by: Some(self.cluster.broker_epoch()),
            assignments: made
                .iter()
                .map(|id| wire::DirectoryAssignment {
                    partition: Some(id.to_wire()),
                    directory_id: directory.to_wire(),
                })
                .collect(),
        };
        let request = wire::AssignDirectoriesRequest { assignments: Some(assignments) };
        let reported = self.cluster.change(|mut client| {
            let request = request.clone();
            async move { client.assign_directories(request).await }
        });
        match reported.await {
            Ok(answer) => {
                for refused in answer.refused {
                    tracing::warn!(
                        reason = refused.reason,
                        message = refused.message,
                        "a new log was not accepted"
                    );
                }
            }
            // The next version of the metadata still has them unassigned: they are reported again.
            Err(status) => tracing::warn!(%status, "the controller did not hear of new logs"),
        }
    }

    /// Takes up what this broker leads by now, and new settings.
    async fn lead(&self, known: &mut Known, image: &Image) {
        let me = self.cluster.broker_id();
        for (id, log) in &mut known.logs {
            let (Some(topic), Some(record)) = (image.topic(id.topic), image.partition(*id)) else { continue };
            let config = log_config(&image.topic_settings(topic));
            if log.config.as_ref() != Some(&config) {
                match log.partition.control(Control::Configure(config.clone())).await {
                    Ok(()) => log.config = Some(config),
                    Err(error) => tracing::error!(partition = %id, %error, "cannot take up new settings"),
                }
            }
            let leads = (record.leader == Some(me)).then_some(record.leader_epoch);
            if leads == log.leads {
                continue;
            }
            let role = match leads {
                Some(epoch) => {
                    let min_insync = usize::try_from(record.min_insync).unwrap_or(1);
                    let durability = image.topic_settings(topic).durability;
                    Control::SetAdmission(Box::new(Leading(Leader::new(epoch, durability, min_insync))))
                }
                None => Control::SetAdmission(Box::new(NotLeading)),
            };
            match log.partition.control(role).await {
                Ok(()) => log.leads = leads,
                Err(error) => tracing::error!(partition = %id, %error, "cannot take up a leadership"),
            }
        }
    }

    /// The map that calls use, at this version.
    fn map(&self, known: &Known, image: &Image) -> TopicMap {
        let me = self.cluster.broker_id();
        let mine = self.log_dir.directory_id();
        TopicMap::new(image.topics().map(|topic| {
            let settings = image.topic_settings(topic);
            let partitions =
                topic
                    .partitions
                    .iter()
                    .map(|(number, record)| {
                        let id = PartitionId { topic: topic.id, partition: *number };
                        let log = known.logs.get(&id).filter(|log| log.leads.is_some());
                        let problem =
                            match record.replica(me).and_then(|replica| replica.directory()) {
                                Some(directory) if directory != mine => {
                                    Some(format!("it is in directory {directory}, which is not mounted here"))
                                }
                                Some(_) => match known.logs.get(&id) {
                                    None => Some(self.damaged.get(&id).cloned().unwrap_or_else(|| {
                                        "its files are gone from the directory".to_owned()
                                    })),
                                    Some(_) => None,
                                },
                                None => None,
                            };
                        Placed {
                            leader: record.leader,
                            leader_epoch: record.leader_epoch,
                            local: log.filter(|_| problem.is_none()).map(|log| log.partition.clone()),
                            problem: problem.map(Arc::from),
                        }
                    })
                    .collect();
            Arc::new(Topic {
                name: topic.name.clone(),
                id: topic.id,
                rules: BatchRules::of(&settings),
                durability: settings.durability,
                partitions,
            })
        }))
    }
}

fn log_config(settings: &TopicSettings) -> LogConfig {
    LogConfig {
        durability: settings.durability,
        segment_bytes: settings.segment_bytes.unsigned_abs(),
        segment_ms: settings.segment_ms,
        retention_ms: settings.retention_ms,
        retention_bytes: settings.retention_bytes.map(i64::unsigned_abs),
        ..LogConfig::default()
    }
}
