//! Reading nearby: a reader who says in which rack it stands is served by a replica there, instead of by the leader.
//!
//! What such a replica gives is below its own high watermark, and it serves only while the metadata has it in sync in the
//! leadership that it follows. So whatever it gives is committed, and in the leader's log too: a replica that may still have
//! to give up committed records, after an unclean election, is not in sync until it has. Once its leadership ends it gives
//! nothing more, before anything of its log is cut: the reader goes on elsewhere, with the epoch of what it has read
//! (correctness rule 13). What a replica cannot judge (a position that it has not reached, or that its log does not have) it
//! refuses as not led here: the leader judges, and says LOG_TRUNCATED where it is so.
//!
//! A replica hears a little later than it has a record that the record is committed. A reader who has that one from somebody
//! else waits until the replica knows it, too, and is told nothing of where the log is until then.

use std::sync::Arc;

use prometheus::IntCounter;
use weir_rpc::Problem;
use weir_storage::{Chunk, Ends};
use weir_types::{BrokerId, LeaderEpoch, Offset, near};

use crate::broker::Broker;
use crate::replication::{Followed, Led};
use crate::topic_map::{Topic, Topics};

/// By what right a log is read here.
#[derive(Clone, Debug)]
pub(crate) enum Standing {
    /// It is led here.
    Leads(Option<Arc<Led>>),
    /// It is followed here, in sync; what is read so is counted.
    Follows { followed: Arc<Followed>, topics: Arc<Topics>, bytes: IntCounter },
}

impl Standing {
    /// Whether that is over. What was read before is committed in the leader's log, if this is false after it was read.
    pub(crate) fn is_over(&self, topic: &Topic, partition: i32) -> bool {
        match self {
            Self::Leads(led) => led.as_ref().is_some_and(|led| led.has_ended()),
            Self::Follows { followed, topics, .. } => {
                let topics = topics.load();
                let now = topics.find(&topic.name).and_then(|topic| topic.partitions.get(&partition));
                let now = now.and_then(|placed| placed.in_sync_here.as_ref());
                followed.has_ended() || now.is_none_or(|now| !Arc::ptr_eq(now, followed))
            }
        }
    }

    /// Whether this replica does not know yet that what lies before an offset is committed, of which a reader has all: what it
    /// could say of it is not sure, or less than the reader has been told.
    pub(crate) fn is_behind(&self, ends: &Ends, offset: Offset) -> bool {
        matches!(self, Self::Follows { .. }) && offset > ends.high_watermark
    }

    /// This was read by it.
    pub(crate) fn read(&self, chunk: &Chunk) {
        if let Self::Follows { bytes, .. } = self {
            bytes.inc_by(chunk.bytes.len() as u64);
        }
    }
}

impl Broker {
    /// By what right a replica is read here.
    pub(crate) fn follows(&self, followed: &Arc<Followed>) -> Standing {
        let bytes = self.metrics.read_from_replicas();
        Standing::Follows { followed: followed.clone(), topics: self.topics.clone(), bytes }
    }

    /// The replica here that serves readers of a rack, if it does.
    pub(crate) fn replica_here<'a>(
        &self,
        topic: &'a Topic,
        partition: i32,
        rack: &str,
    ) -> Option<&'a Arc<Followed>> {
        if rack.is_empty() || rack != self.config.rack {
            return None;
        }
        topic.partitions.get(&partition)?.in_sync_here.as_ref()
    }

    /// Whether a replica of it, here or on another broker, serves readers of a rack where the leader does not stand.
    pub(crate) fn stands_near(&self, topic: &Topic, partition: i32, rack: &str) -> bool {
        self.replica_here(topic, partition, rack).is_some() || self.near(topic, partition, rack).is_some()
    }

    /// Another broker in a rack that has a replica in sync, where neither this one nor the leader stands there.
    pub(crate) fn near(&self, topic: &Topic, partition: i32, rack: &str) -> Option<BrokerId> {
        let me = self.cluster.broker_id();
        if rack.is_empty() || self.replica_here(topic, partition, rack).is_some() {
            return None;
        }
        let image = self.cluster.image();
        let record = image.topic(topic.id)?.partitions.get(&partition)?;
        let serves = |id: &BrokerId| {
            image.broker(*id).is_some_and(|it| it.rack == rack && it.state.is_alive())
                && self.peers.knows(&image, *id)
        };
        near(partition, record.leader.filter(|leader| *leader != me)?, &record.isr, serves)
    }
}

/// Whether a position can be judged by a replica: it has everything before it, of the same history.
pub(crate) fn has_reached(
    followed: &Followed,
    ends: &Ends,
    offset: Offset,
    leader_epoch: Option<LeaderEpoch>,
) -> bool {
    let same_history = |epoch: LeaderEpoch| {
        epoch <= followed.epoch && followed.partition.parts((offset, epoch), followed.epoch).is_none()
    };
    (ends.log_start..=ends.log_end).contains(&offset) && leader_epoch.is_none_or(same_history)
}

/// Why a replica does not serve a reader: the leader does.
pub(crate) fn ask_the_leader(broker: &Broker, topic: &Topic, partition: i32) -> Problem {
    match broker.led_here(topic, partition) {
        Err(problem) => problem,
        // Since just now.
        Ok(_) => broker.gone(topic, partition),
    }
}
