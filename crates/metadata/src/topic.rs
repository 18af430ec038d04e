//! What the cluster knows of a topic and its partitions.

use std::fmt;
use std::sync::Arc;

use weir_types::{BrokerId, DirectoryId, TopicId};

use crate::settings::Settings;
use crate::shared_map::SharedMap;

/// A topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topic {
    /// Its id: a topic deleted and created again has another.
    pub id: TopicId,
    /// Its name.
    pub name: Arc<str>,
    /// Replicas of each partition.
    pub replication_factor: i32,
    /// What was set on it, canonical values by name.
    pub config: Settings,
    /// Values of the cluster that were copied when it was made (durability, min_insync_replicas).
    pub copied: Settings,
    /// The raft index of its last change.
    pub revision: i64,
    /// When it was made, milliseconds since 1970 UTC.
    pub created_ms: i64,
    /// Its partitions by number, without gaps.
    pub partitions: SharedMap<i32, Arc<Partition>>,
}

impl Topic {
    /// How many partitions it has.
    pub fn partition_count(&self) -> i32 {
        i32::try_from(self.partitions.len()).unwrap_or(i32::MAX)
    }

    /// What is said of it in replies: everything but where its partitions are.
    pub fn summary(&self) -> TopicSummary {
        TopicSummary {
            id: self.id,
            name: self.name.clone(),
            partitions: self.partition_count(),
            replication_factor: self.replication_factor,
            config: self.config.clone(),
            copied: self.copied.clone(),
            revision: self.revision,
            created_ms: self.created_ms,
        }
    }
}

/// A topic without its partitions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicSummary {
    /// Its id.
    pub id: TopicId,
    /// Its name.
    pub name: Arc<str>,
    /// How many partitions it has.
    pub partitions: i32,
    /// Replicas of each.
    pub replication_factor: i32,
    /// What was set on it.
    pub config: Settings,
    /// Values of the cluster that were copied when it was made.
    pub copied: Settings,
    /// The raft index of its last change.
    pub revision: i64,
    /// When it was made, milliseconds since 1970 UTC.
    pub created_ms: i64,
}

/// A replica: who holds it, and where. 20 bytes: there are millions of them in an image.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Replica {
    /// The broker.
    pub broker: BrokerId,
    /// The directory's id; all zeros: unassigned.
    directory: [u8; 16],
}

impl Replica {
    /// A replica on a broker.
    pub fn new(broker: BrokerId, directory: Option<DirectoryId>) -> Self {
        Self { broker, directory: directory.map_or(0, |id| id.0).to_ne_bytes() }
    }

    /// The log directory; `None`: unassigned, the broker shall create it and say where. A directory on record
    /// that is not there means offline, never "create again" (correctness rule 14).
    pub fn directory(&self) -> Option<DirectoryId> {
        Some(DirectoryId(u128::from_ne_bytes(self.directory))).filter(|id| id.0 != 0)
    }
}

impl fmt::Debug for Replica {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} in {:?}", self.broker, self.directory())
    }
}

/// The record of a partition. Always: `leader` is in `isr`; `isr` and `elr` hold replicas only and nobody twice;
/// `elr` is empty when the ISR has `min_insync` members; `from_elr` is said only where somebody leads and `elr` is not empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partition {
    /// Its replicas; the first is preferred as leader.
    pub replicas: Vec<Replica>,
    /// Who leads it; `None`: nobody.
    pub leader: Option<BrokerId>,
    /// Counts the changes of `leader`, also to nobody, and the members that have left because their logs were damaged. 0: nobody
    /// has ever led it, so there is no record in it.
    pub leader_epoch: i32,
    /// Counts the changes of this record.
    pub partition_epoch: i32,
    /// min_insync_replicas in force: leader and controller use only this one.
    pub min_insync: i32,
    /// In sync: each holds every acknowledged record and is waited for by the next.
    pub isr: Vec<BrokerId>,
    /// Not in sync, or not yet, but known to hold every acknowledged record (KIP-966).
    pub elr: Vec<BrokerId>,
    /// Replicas that a reassignment adds.
    pub adding: Vec<BrokerId>,
    /// Replicas that a reassignment removes.
    pub removing: Vec<BrokerId>,
    /// Who led last while nobody does: shown to people, never elected.
    pub last_known_leader: Option<BrokerId>,
    /// The leader epoch of the last election of a replica that was not known to be complete; 0: there was none.
    /// Whoever last wrote in an earlier epoch may have to give up records that were acknowledged.
    pub unclean_epoch: i32,
    /// Whether its leader was elected from the ELR, or has joined one that was, and others are left there: it hears them before
    /// anybody joins it, for one of them may have what a disk has lost unnoticed.
    pub from_elr: bool,
}

impl Partition {
    /// A new partition: no replica has its directory yet, nobody leads.
    pub fn new(brokers: impl IntoIterator<Item = BrokerId>, min_insync: i32) -> Self {
        Self {
            replicas: brokers.into_iter().map(|broker| Replica::new(broker, None)).collect(),
            leader: None,
            leader_epoch: 0,
            partition_epoch: 0,
            min_insync,
            isr: Vec::new(),
            elr: Vec::new(),
            adding: Vec::new(),
            removing: Vec::new(),
            last_known_leader: None,
            unclean_epoch: 0,
            from_elr: false,
        }
    }

    /// The replica on a broker.
    pub fn replica(&self, broker: BrokerId) -> Option<&Replica> {
        self.replicas.iter().find(|replica| replica.broker == broker)
    }

    /// Whom the leader hears before anybody joins it.
    pub fn unheard(&self) -> &[BrokerId] {
        if self.from_elr { &self.elr } else { &[] }
    }

    /// Whether no replica is known to hold every acknowledged record, so that none leads by itself.
    pub fn waits_for_a_person(&self) -> bool {
        self.leader.is_none() && !self.is_fresh() && self.isr.is_empty() && self.elr.is_empty()
    }

    /// While nobody leads it: the brokers that it waits for, any of which would do. They alone are known to hold every
    /// acknowledged record, and are waited for however long they are away. None of a partition that waits for a person, or that
    /// nobody has ever led.
    pub fn waited_for(&self) -> impl Iterator<Item = BrokerId> {
        let waits = self.leader.is_none() && !self.is_fresh();
        self.isr.iter().chain(&self.elr).copied().filter(move |_| waits)
    }

    /// Whether fewer are in sync than a write needs.
    pub fn lacks_members(&self) -> bool {
        i32::try_from(self.isr.len()).unwrap_or(i32::MAX) < self.min_insync
    }

    /// Whether nobody has ever led it: every replica is complete, because there is nothing.
    pub fn is_fresh(&self) -> bool {
        self.leader_epoch == 0
    }
}
