//! A follower of a partition: whose data it takes.

use weir_types::{Durability, LeaderEpoch, Offset};

use crate::ends::Log;
use crate::mutant::Mutant;

/// Follows one leadership.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Follower {
    durability: Durability,
    epoch: LeaderEpoch,
    /// The subscription that is answered now; `None`: none is.
    subscription: Option<u64>,
    /// The leader's high watermark, as far as it was told.
    committed: Offset,
}

impl Follower {
    /// Follows the leader of an epoch.
    pub fn new(durability: Durability, epoch: LeaderEpoch) -> Self {
        Self { durability, epoch, subscription: None, committed: 0 }
    }

    /// The epoch it follows in.
    pub fn epoch(&self) -> LeaderEpoch {
        self.epoch
    }

    /// From here on this subscription counts, and no other one.
    pub fn subscribed(&mut self, subscription: u64) {
        self.subscription = Some(subscription);
    }

    /// What was subscribed to has ended.
    pub fn unsubscribed(&mut self) {
        self.subscription = None;
    }

    /// Whether a message of the leader's is to be taken: only of the same leadership, and of the subscription that is
    /// answered now (rule 2 and D2). It says how far the leader's log is committed.
    pub fn hears(&mut self, epoch: LeaderEpoch, subscription: u64, high_watermark: Offset) -> bool {
        let ours = epoch == self.epoch && self.subscription == Some(subscription)
            || Mutant::OldEpochData.is_planted();
        if ours {
            self.committed = self.committed.max(high_watermark);
        }
        ours
    }

    /// How far this replica's log is known to be committed: what the leader said, as far as it is here. In class `fsync`
    /// that is, on the disk: this replica may be out of sync, and if a person has it lead all the same, it has committed
    /// nothing that the next power loss takes from it.
    pub fn high_watermark(&self, log: &Log) -> Offset {
        let here = match Mutant::FollowerOnWritten.is_planted() {
            true => log.ends.written,
            false => log.ends.of(self.durability),
        };
        self.committed.min(here).max(log.high_watermark)
    }
}
