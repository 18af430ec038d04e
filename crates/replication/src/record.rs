//! The partition's record, as far as replication asks for it.

use weir_types::{BrokerId, LeaderEpoch};

/// A broker in one registration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Member {
    /// The broker.
    pub broker: BrokerId,
    /// The epoch of its registration.
    pub epoch: i64,
}

/// What the controller has decided about a partition, at one version of the metadata.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Record {
    /// Counts the leaders.
    pub leader_epoch: LeaderEpoch,
    /// Counts the changes of the record.
    pub partition_epoch: i32,
    /// How many must be in sync for anything to be appended or committed.
    pub min_insync: usize,
    /// The replicas in sync, the leader among them, each in the registration in which it is: a new registration ends
    /// the membership in the command that makes it (correctness rule 8).
    pub isr: Vec<Member>,
    /// All that hold a replica.
    pub replicas: Vec<BrokerId>,
    /// Where the leader was elected from the eligible (rule 8): who else is. Each of them, like the leader, has all that was
    /// acknowledged, unless a disk has lost some of that unnoticed. Empty where it was elected from those in sync.
    pub eligible: Vec<BrokerId>,
}

impl Record {
    /// The member of the in-sync set that is this broker.
    pub fn in_sync(&self, broker: BrokerId) -> Option<Member> {
        self.isr.iter().find(|member| member.broker == broker).copied()
    }
}

/// A change of the in-sync set that a leader asks the controller for: a compare-and-set on both epochs
/// (correctness rule 5).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Proposal {
    /// The leadership that asks.
    pub leader_epoch: LeaderEpoch,
    /// The record that was seen.
    pub partition_epoch: i32,
    /// The new in-sync set, in the order of the replicas.
    pub isr: Vec<Member>,
}

/// What became of a proposal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// The controller refused it, and it was asked once only: it never takes effect.
    Refused,
    /// It may have taken effect, or may yet.
    Unknown,
}
