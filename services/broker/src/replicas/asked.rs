//! What the record of a partition asks of this broker. Pure.

use weir_metadata::Partition;
use weir_types::{BrokerId, DirectoryId, LeaderEpoch};

use crate::mutant::Mutant;

/// This broker, as records name it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Me {
    pub(super) broker: BrokerId,
    pub(super) directory: DirectoryId,
    /// Whether the image has the registration of this process: else what it says of this broker is said of another
    /// process, with a copy of this directory perhaps (correctness rule 8).
    pub(super) registered: bool,
}

/// What is to be done about a partition here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// There is no replica here.
    Nothing,
    /// Make the log: that has not been done anywhere yet.
    Make,
    /// Keep the log, and use it so.
    Keep(Role),
    /// The replica is in a directory that is not here: offline, never made again (correctness rule 14).
    Elsewhere(DirectoryId),
    /// Lead nothing, make nothing, take nothing away: the image does not speak of this process.
    StandBack,
}

/// What a log is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// Lead, in this epoch, by the record of this number.
    Lead {
        /// The leadership.
        epoch: LeaderEpoch,
        /// Another one under the same epoch changes the rules, not the leader (rules 3, 5).
        partition_epoch: i32,
    },
    /// Follow this broker, in this epoch.
    Follow {
        /// Who leads.
        leader: BrokerId,
        /// The leadership.
        epoch: LeaderEpoch,
    },
    /// Nobody leads, or nobody says who.
    Rest,
}

impl Me {
    /// What a record asks; `None`: the partition does not exist.
    pub(super) fn asked(&self, record: Option<&Partition>) -> Asked {
        if !self.registered {
            return Asked::StandBack;
        }
        let Some((record, replica)) = record.and_then(|record| Some((record, record.replica(self.broker)?)))
        else {
            return Asked::Nothing;
        };
        match replica.directory() {
            None => Asked::Make,
            Some(directory) if directory != self.directory => match Mutant::MadeAgain.is_planted() {
                true => Asked::Make,
                false => Asked::Elsewhere(directory),
            },
            Some(_) => Asked::Keep(match record.leader {
                Some(leader) if leader == self.broker => {
                    Role::Lead { epoch: record.leader_epoch, partition_epoch: record.partition_epoch }
                }
                Some(leader) => Role::Follow { leader, epoch: record.leader_epoch },
                None => Role::Rest,
            }),
        }
    }

    /// Whether a damaged log here may be cut where its damage begins: nobody counts on it (correctness rule 36). Where
    /// others are in sync, or may be, they have what it had; where there is no other replica, nobody else can.
    pub(super) fn may_cut(&self, record: &Partition) -> bool {
        let is_only = record.replicas.len() == 1;
        let counts = record.isr.contains(&self.broker) || record.elr.contains(&self.broker);
        matches!(self.asked(Some(record)), Asked::Keep(_)) && (is_only || record.leader.is_none() && !counts)
    }
}

#[cfg(test)]
mod tests {
    use weir_metadata::Replica;

    use super::*;

    const ME: Me = Me { broker: BrokerId(1), directory: DirectoryId(11), registered: true };

    fn record(directory: Option<u128>, leader: Option<i32>) -> Partition {
        let mut record = Partition::new([BrokerId(1), BrokerId(2)], 2);
        for replica in record.replicas.iter_mut().filter(|replica| replica.broker == ME.broker) {
            *replica = Replica::new(ME.broker, directory.map(DirectoryId));
        }
        Partition { leader: leader.map(BrokerId), leader_epoch: 5, ..record }
    }

    #[test]
    fn the_record_says_what_to_do() {
        let led = Role::Lead { epoch: 5, partition_epoch: 0 };
        let followed = Role::Follow { leader: BrokerId(2), epoch: 5 };
        let cases = [
            (None, Asked::Nothing),
            (Some(Partition::new([BrokerId(2)], 1)), Asked::Nothing),
            (Some(record(None, None)), Asked::Make),
            (Some(record(Some(11), None)), Asked::Keep(Role::Rest)),
            (Some(record(Some(11), Some(2))), Asked::Keep(followed)),
            (Some(record(Some(11), Some(1))), Asked::Keep(led)),
            (Some(record(Some(12), Some(1))), Asked::Elsewhere(DirectoryId(12))),
        ];
        for (record, expected) in cases {
            assert_eq!(ME.asked(record.as_ref()), expected, "{record:?}");
            let other = Me { registered: false, ..ME };
            assert_eq!(other.asked(record.as_ref()), Asked::StandBack, "{record:?}");
        }
    }

    #[test]
    fn a_damaged_log_is_cut_only_where_nobody_counts_on_it() {
        let nobody = record(Some(11), None);
        assert!(ME.may_cut(&nobody));
        for (what, record) in [
            ("another one leads", record(Some(11), Some(2))),
            ("it is in sync", Partition { isr: vec![ME.broker], ..nobody.clone() }),
            ("it may be complete", Partition { elr: vec![ME.broker], ..nobody.clone() }),
            ("it is elsewhere", record(Some(12), None)),
        ] {
            assert!(!ME.may_cut(&record), "{what}");
        }
        assert!(!Me { registered: false, ..ME }.may_cut(&nobody), "it is said of another process");
        let mut only = record(Some(11), Some(1));
        only.replicas.retain(|replica| replica.broker == ME.broker);
        assert!(ME.may_cut(&only), "there is no other one, so that it was elected");
    }

    #[test]
    fn a_replica_made_again_is_noticed() {
        assert!(Mutant::MadeAgain.is_noticed_by(the_record_says_what_to_do));
    }
}
