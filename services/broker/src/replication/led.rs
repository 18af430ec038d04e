//! A partition that is led here: the core of the leader, shared by the partition's claim, which asks it about appends
//! and how far the log is committed, and by the streams of the followers, which tell it how far they are. Hot path.
//!
//! The claim holds the core for the length of a question, never over a write.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use weir_replication::{
    Attempt, Ends, History, Leader, Log, Member, Outcome, Position, Proposal, Record, Welcome,
};
use weir_storage::{Acks, Admission, Append, LogView, Partition, Refused, Verdict};
use weir_types::{BrokerId, Durability, LeaderEpoch, Offset, PartitionId};

use crate::admission;
use crate::cluster::Cluster;
use crate::replication::bells::Bell;
use crate::replication::clock::Clock;

/// A partition that is led here in one epoch.
pub(crate) struct Led {
    pub(crate) partition: Partition,
    epoch: LeaderEpoch,
    me: BrokerId,
    durability: Durability,
    cluster: Arc<Cluster>,
    clock: Clock,
    /// The leadership is over. Set in the claim, before anything of the log is cut.
    ended: AtomicBool,
    /// Rung where the in-sync set may have to change.
    isr: Arc<Bell<PartitionId>>,
    state: Mutex<State>,
}

struct State {
    /// `None` until the log asks first: the epoch begins at its end of then.
    leader: Option<Leader>,
    record: Record,
    /// The log as it was when it was asked last.
    log: Log,
    /// The streams that carry it.
    feeds: Vec<(u64, Arc<Bell<i64>>)>,
}

impl Led {
    pub(crate) fn new(
        partition: Partition,
        cluster: Arc<Cluster>,
        durability: Durability,
        record: Record,
        clock: Clock,
        isr: Arc<Bell<PartitionId>>,
    ) -> Arc<Self> {
        let (epoch, me) = (record.leader_epoch, cluster.broker_id());
        let nothing = Log { log_start: 0, high_watermark: 0, ends: Ends { written: 0, flushed: 0 } };
        let state = Mutex::new(State { leader: None, record, log: nothing, feeds: Vec::new() });
        let ended = AtomicBool::new(false);
        Arc::new(Self { partition, epoch, me, durability, cluster, clock, ended, isr, state })
    }

    pub(crate) fn epoch(&self) -> LeaderEpoch {
        self.epoch
    }

    /// Whether this leadership is over. What was read from the log before is the leader's, if this is still false
    /// after it was read: it is cut only after this has become true.
    pub(crate) fn has_ended(&self) -> bool {
        self.ended.load(Ordering::SeqCst)
    }

    /// Whether a high watermark has reached the start of this leadership (rule 4).
    pub(crate) fn is_settled(&self, high_watermark: Offset) -> bool {
        self.state.lock().leader.as_ref().is_some_and(|leader| high_watermark >= leader.epoch_start())
    }

    /// The log's ends, as the claim saw them last.
    pub(crate) fn log(&self) -> Log {
        self.state.lock().log
    }

    /// A newer record of the partition.
    pub(crate) fn observe(&self, record: &Record) {
        {
            let mut state = self.state.lock();
            let State { leader, record: known, .. } = &mut *state;
            match leader {
                Some(leader) => leader.observe(record),
                None if record.partition_epoch > known.partition_epoch => known.clone_from(record),
                None => {}
            }
        }
        // The set that is waited for may be smaller.
        self.partition.advance();
        self.isr.ring();
    }

    /// A follower subscribes; `bell` is rung whenever there is something for it.
    pub(crate) fn subscribe(
        &self,
        who: Member,
        subscription: u64,
        position: Position,
        bell: &Arc<Bell<i64>>,
    ) -> Option<Welcome> {
        let mut state = self.state.lock();
        let State { leader, log, feeds, .. } = &mut *state;
        let leader = leader.as_mut().filter(|_| !self.has_ended())?;
        // Who begins anew does so with a whole frame, which may begin before the log does.
        let log = Log { log_start: self.partition.first_offset(), ..*log };
        let now_ms = self.clock.now_ms();
        let welcome = leader.subscribe(who, subscription, position, &Epochs(&self.partition), &log, now_ms);
        if welcome == Welcome::Follow {
            feeds.push((subscription, bell.clone()));
        }
        drop(state);
        self.progressed();
        Some(welcome)
    }

    /// A subscription is over.
    pub(crate) fn unsubscribe(&self, from: BrokerId, subscription: u64) {
        let mut state = self.state.lock();
        state.feeds.retain(|(other, _)| *other != subscription);
        if let Some(leader) = &mut state.leader {
            leader.unsubscribe(from, subscription, self.clock.now_ms());
        }
    }

    /// A follower says how far it is.
    pub(crate) fn acknowledged(&self, from: BrokerId, subscription: u64, ends: Ends) {
        let mut state = self.state.lock();
        let State { leader, log, .. } = &mut *state;
        let Some(leader) = leader else { return };
        let is_news = leader.acknowledged(from, subscription, ends, log, self.clock.now_ms());
        let joins = leader.record().in_sync(from).is_none();
        drop(state);
        if is_news {
            self.progressed();
            if joins {
                self.isr.ring();
            }
        }
    }

    /// The high watermark may have risen: the claim is asked to look, if it has.
    fn progressed(&self) {
        let rises = {
            let mut state = self.state.lock();
            let State { leader, log, .. } = &mut *state;
            leader.as_mut().is_some_and(|leader| leader.high_watermark(log) > log.high_watermark)
        };
        if rises {
            self.partition.advance();
        }
    }

    /// The change of the in-sync set that is due, if one is.
    pub(crate) fn propose(&self, lag_ms: u64) -> Option<Proposal> {
        let mut state = self.state.lock();
        let leader = state.leader.as_mut().filter(|_| !self.has_ended())?;
        leader.propose(self.clock.now_ms(), lag_ms)
    }

    /// It was carried out. What changes the set comes back with the metadata, and is on its way until then.
    pub(crate) fn carried_out(&self, proposal: &Proposal) {
        let settles = self.state.lock().leader.as_ref().is_some_and(|leader| leader.settles(proposal));
        if settles {
            // Nothing may come back of that.
            self.decided(proposal, Outcome::Unknown);
        }
    }

    /// What became of it.
    pub(crate) fn decided(&self, proposal: &Proposal, outcome: Outcome) {
        if let Some(leader) = &mut self.state.lock().leader {
            leader.decided(proposal, outcome);
        }
        self.progressed();
    }

    /// How many replicas have everything before an offset: written, and on their disks.
    pub(crate) fn holders(&self, end: Offset) -> (usize, usize) {
        let state = self.state.lock();
        state.leader.as_ref().map_or((1, 0), |leader| leader.holders(&state.log, end))
    }

    /// The claim looks: the log is this now. How far is it committed?
    fn looked(&self, log: &Log) -> Offset {
        let mut state = self.state.lock();
        let State { leader, record, log: before, feeds } = &mut *state;
        let leader = leader.get_or_insert_with(|| {
            Leader::begin(self.me, self.durability, record.clone(), log, self.clock.now_ms())
        });
        if log.ends != before.ends {
            leader.grows(log, self.clock.now_ms());
        }
        let high_watermark = leader.high_watermark(log).min(log.ends.written).max(log.high_watermark);
        let now = Log { high_watermark, ..*log };
        let told = |log: &Log| (log.ends.written, log.high_watermark, log.log_start);
        if told(&now) != told(before) {
            feeds.iter().for_each(|(_, bell)| bell.ring());
        }
        *before = now;
        high_watermark
    }
}

impl fmt::Debug for Led {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Led({}, epoch {})", self.partition.id(), self.epoch)
    }
}

/// A log's history.
pub(crate) struct Epochs<'a>(pub(crate) &'a Partition);

impl History for Epochs<'_> {
    fn end_of(&self, epoch: LeaderEpoch) -> (LeaderEpoch, Offset) {
        self.0.epoch_end(epoch)
    }
}

/// The leader as the log asks it. Once the log lets go of it, the leadership is over.
#[derive(Debug)]
pub(crate) struct Leading(pub(crate) Arc<Led>);

impl Admission for Leading {
    fn leader_epoch(&self) -> Option<LeaderEpoch> {
        Some(self.0.epoch)
    }

    fn admit(&mut self, log: &LogView<'_>, append: &Append) -> Verdict {
        let attempt = Attempt {
            producer: append.batch.producer,
            base_sequence: append.batch.base_sequence,
            last_offset_delta: append.batch.last_offset_delta,
            expected_next_offset: append.expected_next_offset,
        };
        let known = append.batch.producer.and_then(|producer| log.producer(producer.id));
        let verdict = match &self.0.state.lock().leader {
            Some(leader) => admission::verdict(leader.admit(&admission::log(log), &attempt, known)),
            None => return Verdict::Refuse(Refused::NotLeader),
        };
        // What epochs do not protect: another leader may have been elected, which knows nothing of this append, or judges
        // its condition by another log (correctness rule 10).
        let is_unprotected = append.acks != Acks::All || matches!(verdict, Verdict::RefuseWhenCommitted(_));
        if is_unprotected && !self.0.cluster.session_valid() {
            return Verdict::Refuse(Refused::NotLeader);
        }
        verdict
    }

    fn high_watermark(&mut self, log: &LogView<'_>) -> Offset {
        self.0.looked(&admission::log(log))
    }
}

impl Drop for Leading {
    fn drop(&mut self) {
        self.0.ended.store(true, Ordering::SeqCst);
        self.0.state.lock().feeds.drain(..).for_each(|(_, bell)| bell.ring());
    }
}
