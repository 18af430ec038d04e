//! A broker, as far as it takes part: what plugs the cores into a disk and a network.

use std::collections::BTreeMap;

use weir_metadata::Partition;
use weir_replication::{Follower, Leader, Log, Member, Proposal, Record};
use weir_types::{BrokerId, DirectoryId, Durability, KnownBatch};

use crate::config::Config;
use crate::disk::{Disk, index, offset};

/// A broker: its disk, and its process if one runs.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Node {
    pub(crate) disk: Disk,
    /// A copy of the disk that somebody took.
    pub(crate) copy: Option<Disk>,
    /// Whether its log lost something that was there, and the controller was not told since.
    pub(crate) lost: bool,
    /// Whether it lacks something that was on its disk, and nobody was told.
    pub(crate) lacks_its_end: bool,
    pub(crate) process: Option<Process>,
}

/// A running process.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Process {
    /// Its registration.
    pub(crate) epoch: i64,
    /// How many versions of the metadata it has not seen yet.
    pub(crate) behind: usize,
    /// How far it knows its log to be committed.
    pub(crate) high_watermark: usize,
    pub(crate) role: Role,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Role {
    Idle,
    Follows(Following),
    Leads(Box<Leading>),
}

/// The follower's side of the edge.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Following {
    pub(crate) core: Follower,
    pub(crate) leader: usize,
    /// How often it has subscribed in this leadership.
    pub(crate) subscriptions: u64,
    /// The subscription that waits for an answer.
    pub(crate) asked: Option<u64>,
    /// The one that was granted.
    pub(crate) granted: Option<u64>,
    /// Where the leader's log begins.
    pub(crate) leaders_start: usize,
}

/// The leader's side of the edge.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Leading {
    pub(crate) core: Leader,
    /// Who is sent data, under which subscription.
    pub(crate) streams: BTreeMap<usize, u64>,
    /// The change that the controller was asked for.
    pub(crate) asked: Option<Proposal>,
    /// A deletion that is not answered yet: where the log begins then.
    pub(crate) deleting: Option<usize>,
    /// Its clock.
    pub(crate) now_ms: u64,
}

/// The partition's record at one version of the metadata, and the registrations at it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct View {
    pub(crate) record: Partition,
    pub(crate) epochs: Vec<i64>,
}

pub(crate) fn id(node: usize) -> BrokerId {
    BrokerId(node as i32 + 1)
}

pub(crate) fn number(broker: BrokerId) -> usize {
    broker.0 as usize - 1
}

impl View {
    pub(crate) fn member(&self, broker: BrokerId) -> Member {
        Member { broker, epoch: self.epochs[number(broker)] }
    }

    pub(crate) fn record(&self) -> Record {
        Record {
            leader_epoch: self.record.leader_epoch,
            partition_epoch: self.record.partition_epoch,
            min_insync: self.record.min_insync as usize,
            isr: self.record.isr.iter().map(|broker| self.member(*broker)).collect(),
            replicas: self.record.replicas.iter().map(|replica| replica.broker).collect(),
            eligible: self.record.unheard().to_vec(),
        }
    }
}

impl Node {
    pub(crate) fn log(&self) -> Log {
        let high_watermark = self.process.as_ref().map_or(0, |process| process.high_watermark);
        self.disk.view(high_watermark)
    }

    /// What counts of its log.
    pub(crate) fn safe(&self, config: &Config) -> &[i32] {
        match config.durability {
            Durability::Fsync => &self.disk.log[..self.disk.flushed],
            Durability::Replicated => &self.disk.log,
        }
    }

    pub(crate) fn leading(&self) -> Option<&Leading> {
        match &self.process.as_ref()?.role {
            Role::Leads(leading) => Some(leading.as_ref()),
            _ => None,
        }
    }

    pub(crate) fn leading_mut(&mut self) -> Option<&mut Leading> {
        match &mut self.process.as_mut()?.role {
            Role::Leads(leading) => Some(leading.as_mut()),
            _ => None,
        }
    }

    pub(crate) fn following(&self) -> Option<&Following> {
        match &self.process.as_ref()?.role {
            Role::Follows(following) => Some(following),
            _ => None,
        }
    }

    pub(crate) fn following_mut(&mut self) -> Option<&mut Following> {
        match &mut self.process.as_mut()?.role {
            Role::Follows(following) => Some(following),
            _ => None,
        }
    }

    /// Whether the process has written its registration down, without which it touches no log (rule 9).
    pub(crate) fn is_settled_in(&self) -> bool {
        self.process.as_ref().is_some_and(|process| self.disk.epoch_file == Some(process.epoch))
    }

    /// Does what a version of the metadata asks: see `Me::asked` in the broker.
    pub(crate) fn see(&mut self, me: usize, config: &Config, view: &View) {
        let log = self.log();
        let directory = DirectoryId(self.disk.directory);
        let Some(process) = &mut self.process else { return };
        let is_here = view.record.replica(id(me)).and_then(|replica| replica.directory()) == Some(directory);
        if view.epochs[me] != process.epoch || !is_here {
            process.role = Role::Idle;
            return;
        }
        let epoch = view.record.leader_epoch;
        let known = match &process.role {
            Role::Idle => None,
            Role::Follows(following) => Some(following.core.epoch()),
            Role::Leads(leading) => Some(leading.core.epoch()),
        };
        if known == Some(epoch) {
            if let Role::Leads(leading) = &mut process.role {
                let before = leading.core.record().partition_epoch;
                leading.core.observe(&view.record());
                if leading.core.record().partition_epoch != before {
                    leading.asked = None;
                }
            }
            return;
        }
        process.role = match view.record.leader {
            None => Role::Idle,
            Some(leader) if leader == id(me) => Role::Leads(Box::new(Leading {
                core: Leader::begin(leader, config.durability, view.record(), &log, 0),
                streams: BTreeMap::new(),
                asked: None,
                deleting: None,
                now_ms: 0,
            })),
            Some(leader) => Role::Follows(Following {
                core: Follower::new(config.durability, epoch),
                leader: number(leader),
                subscriptions: 0,
                asked: None,
                granted: None,
                leaders_start: 0,
            }),
        };
    }

    /// The log's batches of the one producer there is, which writes sequence n at offset n.
    pub(crate) fn batches(&self) -> Vec<KnownBatch> {
        let from = self.disk.log.len().saturating_sub(5);
        let batch = |(at, epoch): (usize, &i32)| KnownBatch {
            base_sequence: at as i32,
            base_offset: offset(at),
            last_offset: offset(at),
            leader_epoch: *epoch,
            append_time_ms: 0,
        };
        self.disk.log.iter().enumerate().skip(from).map(batch).collect()
    }

    /// Carries the follower's high watermark on.
    pub(crate) fn learn(&mut self) {
        let log = self.log();
        let Some(following) = self.following() else { return };
        let high_watermark = index(following.core.high_watermark(&log));
        // A start is moved as far as the log is committed here.
        self.disk.start = self.disk.start.max(following.leaders_start.min(high_watermark));
        if let Some(process) = &mut self.process {
            process.high_watermark = high_watermark;
        }
    }

    /// Begins a log anew, behind what the leader has deleted.
    pub(crate) fn begin_anew(&mut self, before: Vec<i32>) {
        self.cut(0);
        self.disk.start = before.len();
        self.disk.log = before;
        self.disk.flush();
    }

    pub(crate) fn cut(&mut self, to: i64) {
        self.disk.cut(to);
        if let Some(process) = &mut self.process {
            process.high_watermark = process.high_watermark.min(self.disk.log.len());
        }
    }
}
