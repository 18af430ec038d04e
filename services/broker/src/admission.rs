//! Where the pure core of replication is asked: in the partition's claim, by the log.

use weir_replication::{Attempt, Ends, Leader, Log, Member, Record, Refusal};
use weir_storage::{Admission, Append, LogView, Refused, Verdict};
use weir_types::{BrokerId, Durability, LeaderEpoch, Offset};

/// A leader, as the log asks it.
#[derive(Debug)]
pub(crate) struct Leading {
    me: BrokerId,
    durability: Durability,
    record: Record,
    /// Begins when the log asks first.
    leader: Option<Leader>,
}

impl Leading {
    /// Leads a partition that has no other replica in sync.
    pub(crate) fn alone(durability: Durability, leader_epoch: LeaderEpoch, min_insync: usize) -> Self {
        let me = BrokerId(0);
        let isr = vec![Member { broker: me, epoch: 0 }];
        let record = Record { leader_epoch, partition_epoch: 0, min_insync, isr, replicas: vec![me] };
        Self { me, durability, record, leader: None }
    }

    fn leader(&mut self, log: &Log) -> &mut Leader {
        let Self { me, durability, record, leader } = self;
        leader.get_or_insert_with(|| Leader::begin(*me, *durability, record.clone(), log, 0))
    }
}

impl Admission for Leading {
    fn leader_epoch(&self) -> Option<LeaderEpoch> {
        Some(self.record.leader_epoch)
    }

    fn admit(&mut self, log: &LogView<'_>, append: &Append) -> Verdict {
        let attempt = Attempt {
            producer: append.batch.producer,
            base_sequence: append.batch.base_sequence,
            last_offset_delta: append.batch.last_offset_delta,
            expected_next_offset: append.expected_next_offset,
        };
        let known = append.batch.producer.and_then(|producer| log.producer(producer.id));
        match self.leader(&ends(log)).admit(&ends(log), &attempt, known) {
            weir_replication::Verdict::Append(leader_epoch) => Verdict::Append { leader_epoch },
            weir_replication::Verdict::Duplicate(batch) => Verdict::Duplicate(batch),
            weir_replication::Verdict::Refuse(refusal) => Verdict::Refuse(refused(refusal)),
            weir_replication::Verdict::RefuseWhenCommitted(refusal) => {
                Verdict::RefuseWhenCommitted(refused(refusal))
            }
        }
    }

    fn high_watermark(&mut self, log: &LogView<'_>) -> Offset {
        self.leader(&ends(log)).high_watermark(&ends(log))
    }
}

fn ends(log: &LogView<'_>) -> Log {
    Log {
        log_start: log.log_start,
        high_watermark: log.high_watermark,
        ends: Ends { written: log.log_end, flushed: log.flushed_end },
    }
}

fn refused(refusal: Refusal) -> Refused {
    match refusal {
        Refusal::NotEnoughReplicas { in_sync, min_insync } => {
            Refused::NotEnoughReplicas { have: in_sync, need: min_insync }
        }
        Refusal::ProducerFenced { current } => Refused::ProducerFenced { current },
        Refusal::ProducerUnknown => Refused::ProducerUnknown,
        Refusal::SequenceGap { expected } => Refused::SequenceGap { expected },
        Refusal::SequenceTooOld { oldest } => Refused::SequenceTooOld { oldest },
        Refusal::OffsetMismatch { next } => Refused::OffsetMismatch { next },
    }
}
