//! A partition that is led here: the core of the leader, shared by the partition's claim, which asks it about appends
//! and how far the log is committed, and by the streams of the followers, which tell it how far they are. Hot path.
//!
//! The claim holds the core for the length of a question, never over a write.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;
use weir_metadata::{BrokerState, Image};
use weir_replication::{
    Attempt, Ends, History, Leader, Log, Member, Outcome, Position, Proposal, Record, Welcome,
};
use weir_storage::{Acks, Admission, Append, Holders, LogView, Partition, Refused, Verdict};
use weir_types::{BrokerId, Durability, LeaderEpoch, Offset, PartitionId};

use crate::admission;
use crate::awaited::Awaited;
use crate::cluster::Cluster;
use crate::mutant::Mutant;
use crate::news::Behind;
use crate::replication::Recorded;
use crate::replication::bells::Bell;
use crate::replication::clock::Clock;
use crate::replication::floors::{Floor, Met, Waiting};
use crate::replication::zones::Zones;

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
    /// The log was found damaged, and the controllers are told: somebody else may lead until this version of the metadata is
    /// acted upon. 0: they were not told.
    given_up: AtomicI64,
    /// Whether others are waited for that may have what this log lacks: see [`Leader::may_lack`].
    may_lack: AtomicBool,
    /// Rung where the in-sync set may have to change.
    isr: Arc<Bell<PartitionId>>,
    /// Tells those who wait for a log start that somebody has moved, or left.
    moved: Notify,
    state: Mutex<State>,
}

struct State {
    /// `None` until the log asks first: the epoch begins at its end of then.
    leader: Option<Leader>,
    record: Record,
    zones: Zones,
    /// The log as it was when it was asked last.
    log: Log,
    /// Where a replica begins that begins anew, for the log start of that moment: [`Led::gives_start`].
    begins: Option<(Offset, Offset)>,
    /// Where a replica was told to begin that has not come with that yet.
    told_to_begin: BTreeMap<BrokerId, Offset>,
    /// The streams that carry it.
    feeds: Vec<(u64, Arc<Bell<i64>>)>,
    /// Acknowledgements that wait for more than the topic asks.
    floors: Vec<Waiting>,
}

impl Led {
    pub(crate) fn new(
        partition: Partition,
        cluster: Arc<Cluster>,
        durability: Durability,
        Recorded { record, zones }: Recorded,
        clock: Clock,
        isr: Arc<Bell<PartitionId>>,
    ) -> Arc<Self> {
        let (epoch, me) = (record.leader_epoch, cluster.broker_id());
        let nothing = Log { log_start: 0, high_watermark: 0, ends: Ends { written: 0, flushed: 0 } };
        let (feeds, floors) = (Vec::new(), Vec::new());
        let may_lack = AtomicBool::new(!record.eligible.is_empty());
        let (begins, told_to_begin) = (None, BTreeMap::new());
        let state = State { leader: None, record, zones, log: nothing, begins, told_to_begin, feeds, floors };
        let state = Mutex::new(state);
        let (ended, given_up) = (AtomicBool::new(false), AtomicI64::new(0));
        let moved = Notify::new();
        Arc::new(Self {
            partition,
            epoch,
            me,
            durability,
            cluster,
            clock,
            ended,
            given_up,
            may_lack,
            isr,
            moved,
            state,
        })
    }

    pub(crate) fn epoch(&self) -> LeaderEpoch {
        self.epoch
    }

    /// Whether this leadership is over. What was read from the log before is the leader's, if this is still false
    /// after it was read: it is cut only after this has become true.
    pub(crate) fn has_ended(&self) -> bool {
        self.ended.load(Ordering::SeqCst)
    }

    /// Whether nobody else can lead it now, so that what epochs do not protect may be promised (correctness rule 10).
    pub(crate) fn is_sure(&self) -> bool {
        let is_alone = || self.state.lock().leader.as_ref().is_some_and(Leader::is_alone);
        let stands_back = || self.cluster.stands_back() && !Mutant::SlowPromises.is_planted();
        let stays = || !(stands_back() || self.is_given_up()) || is_alone();
        self.cluster.session_valid() && !self.has_ended() && stays()
    }

    /// The controllers are about to be asked to let somebody else lead (correctness rules 10, 36).
    pub(crate) fn give_up(&self) {
        self.given_up.store(i64::MAX, Ordering::Release);
    }

    /// They are asked no more, and whatever came of it was decided by this version of the metadata.
    pub(crate) fn is_kept_from(&self, version: i64) {
        self.given_up.store(version, Ordering::Release);
    }

    fn is_given_up(&self) -> bool {
        !self.cluster.has_acted_upon(self.given_up.load(Ordering::Acquire))
            && !Mutant::RottenPromises.is_planted()
    }

    /// Whether others are waited for that may have what was acknowledged and is not here.
    pub(crate) fn may_lack(&self) -> bool {
        self.may_lack.load(Ordering::Acquire)
    }

    /// Who they are.
    pub(crate) fn unheard(&self) -> Vec<BrokerId> {
        let state = self.state.lock();
        state
            .leader
            .as_ref()
            .map_or_else(|| state.record.eligible.clone(), |leader| leader.unheard().collect())
    }

    /// Whether that is otherwise than before: then the claim is to look.
    fn note_heard(&self, leader: &Leader) -> bool {
        let may_lack = leader.may_lack();
        self.may_lack.swap(may_lack, Ordering::AcqRel) != may_lack
    }

    /// The log's ends, as the claim saw them last.
    pub(crate) fn log(&self) -> Log {
        self.state.lock().log
    }

    /// A newer record of the partition.
    pub(crate) fn observe(&self, Recorded { record, zones }: &Recorded) {
        {
            let mut state = self.state.lock();
            let State { leader, record: known, zones: zones_known, .. } = &mut *state;
            zones_known.clone_from(zones);
            match leader {
                Some(leader) => {
                    leader.observe(record);
                    // The claim looks in any case.
                    let _ = self.note_heard(leader);
                }
                None if record.partition_epoch > known.partition_epoch => known.clone_from(record),
                None => {}
            }
        }
        self.moved.notify_waiters();
        self.look_at_floors();
        // The set that is waited for may be smaller.
        self.partition.advance();
        self.isr.ring();
    }

    /// A follower is given what it has to know where it begins anew: the first frame that this log needs from this start on.
    pub(crate) fn gives_start(&self, who: Option<BrokerId>, log_start: Offset, frame: Offset) {
        let mut state = self.state.lock();
        // If it has moved meanwhile, this may be of the new one.
        if self.partition.ends().log_start == log_start {
            state.begins = Some((log_start, frame));
        }
        state.told_to_begin.extend(who.map(|who| (who, frame)));
    }

    /// A follower subscribes; `bell` is rung whenever there is something for it. It is given nothing that lies before the
    /// log's start, though that may still be in a file: nobody needs it, and it may be what was deleted for its damage.
    pub(crate) fn subscribe(
        &self,
        who: Member,
        subscription: u64,
        position: Position,
        bell: &Arc<Bell<i64>>,
    ) -> Option<Welcome> {
        let mut state = self.state.lock();
        let State { leader, log, begins, told_to_begin, feeds, .. } = &mut *state;
        let leader = leader.as_mut().filter(|_| !self.has_ended())?;
        // It begins where it was told to, also where the start has moved since: once, so that one whose records are deleted all the
        // time comes to follow, and one that cannot be given what lies there begins at the new one.
        let was_told = told_to_begin.remove(&who.broker).filter(|frame| *frame == position.log_end);
        // Who begins anew does so with a whole frame, which may begin before the log does. As long as nobody has asked where
        // that is, nobody begins there.
        let log_start = self.partition.ends().log_start;
        let begin = match begins.filter(|(of, _)| *of == log_start) {
            _ if Mutant::DeletedGiven.is_planted() => 0,
            Some((_, frame)) => frame,
            None => log_start,
        };
        let log = Log { log_start: was_told.map_or(begin, |frame| frame.min(begin)), ..*log };
        let now_ms = self.clock.now_ms();
        let welcome = leader.subscribe(who, subscription, position, &Epochs(&self.partition), &log, now_ms);
        if welcome == Welcome::Follow {
            feeds.push((subscription, bell.clone()));
        }
        let is_eligible = leader.record().eligible.contains(&who.broker);
        let has_heard = self.note_heard(leader);
        drop(state);
        self.progressed();
        if has_heard {
            self.partition.advance();
        }
        if is_eligible {
            // It was waited for, or shall lead.
            self.isr.ring();
        }
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

    /// A follower says how far it is, and where its log begins.
    pub(crate) fn acknowledged(&self, from: BrokerId, subscription: u64, ends: Ends, log_start: Offset) {
        let mut state = self.state.lock();
        let State { leader, log, floors, .. } = &mut *state;
        let Some(leader) = leader else { return };
        let is_further = leader.acknowledged(from, subscription, ends, log, self.clock.now_ms());
        let has_moved = leader.begins(from, subscription, log_start);
        let joins = leader.record().in_sync(from).is_none();
        let has_floors = !floors.is_empty();
        drop(state);
        if has_moved {
            self.moved.notify_waiters();
        }
        if has_floors {
            self.look_at_floors();
        }
        if is_further || has_moved {
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

    /// The change of the in-sync set that is due, if one is. A replica whose broker's disk is slow is not proposed where it
    /// would be refused (correctness rule 41), nor one whose broker is about to stop: it has just left.
    pub(crate) fn propose(&self, lag_ms: u64, image: &Image) -> Asked {
        let mut state = self.state.lock();
        let Some(leader) = state.leader.as_mut().filter(|_| !self.has_ended()) else {
            return Asked::default();
        };
        let is_enough = !image.admits_slow(self.partition.id());
        let may_join = |id| match image.broker(id).map(|broker| broker.state) {
            Some(BrokerState::Slow) => !is_enough,
            state => state != Some(BrokerState::Draining),
        };
        let before: BTreeSet<_> = leader.unheard().collect();
        let proposal = leader.propose_of(self.clock.now_ms(), lag_ms, may_join);
        let has_heard = self.note_heard(leader);
        let without = &before - &leader.unheard().collect();
        let further = leader.goes_further().filter(|_| proposal.is_some());
        drop(state);
        if has_heard {
            self.partition.advance();
        }
        Asked { proposal, further, without }
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
        self.moved.notify_waiters();
        self.progressed();
    }

    /// Waits until everybody who is, or may be, in sync begins at an offset or behind it, and enough are in sync: then no
    /// leader that is elected has what was deleted before it (correctness rule 15). `false`: this leadership is over. Cancel safe.
    pub(crate) async fn begins_everywhere_at(&self, log_start: Offset) -> bool {
        loop {
            let moved = self.moved.notified();
            tokio::pin!(moved);
            // From here on nothing is missed.
            moved.as_mut().enable();
            if self.has_ended() {
                return false;
            }
            let is_done = |leader: &Leader| leader.begins_everywhere(log_start);
            if self.state.lock().leader.as_ref().is_some_and(is_done) {
                return true;
            }
            moved.await;
        }
    }

    /// Who of those does not yet, as far as is known.
    pub(crate) fn lacks_start(&self, log_start: Offset) -> BTreeSet<BrokerId> {
        self.state.lock().leader.as_ref().map(|leader| leader.lacks_start(log_start)).unwrap_or_default()
    }

    /// Who has everything before an offset.
    pub(crate) fn holders(&self, end: Offset) -> Holders {
        self.state.lock().holders(self.durability, end)
    }

    /// Who is in sync: if all of them have an append, these have it.
    pub(crate) fn in_sync(&self) -> Holders {
        let state = self.state.lock();
        let record = state.leader.as_ref().map_or(&state.record, Leader::record);
        let (written, members) = (record.isr.len(), record.isr.iter().map(|member| member.broker));
        let flushed = if self.durability == Durability::Fsync { written } else { 0 };
        Holders { written, flushed, zones: state.zones.count(members) }
    }

    /// Waits until enough replicas have what lies before an offset.
    pub(crate) fn when_met(&self, end: Offset, floor: Floor, until: Instant, met: Met) {
        {
            let mut state = self.state.lock();
            if !self.has_ended() {
                state.floors.push(Waiting { end, floor, until, met });
                drop(state);
                return self.look_at_floors();
            }
        }
        met(None);
    }

    /// Answers what waits for floors that are met by now, or waits no longer.
    pub(crate) fn look_at_floors(&self) {
        let mut due = Vec::new();
        {
            let mut state = self.state.lock();
            for waiting in std::mem::take(&mut state.floors) {
                let holders = state.holders(self.durability, waiting.end);
                match waiting.look(holders) {
                    Ok(answer) => due.push(answer),
                    Err(waiting) => state.floors.push(waiting),
                }
            }
        }
        // Outside the lock: whoever is answered may ask.
        due.into_iter().for_each(|(met, holders)| met(holders));
    }

    /// The newest record.
    pub(crate) fn record(&self) -> Record {
        let state = self.state.lock();
        state.leader.as_ref().map_or_else(|| state.record.clone(), |leader| leader.record().clone())
    }

    /// How far another replica is behind.
    pub(crate) fn lag_of(&self, who: BrokerId) -> Lag {
        let state = self.state.lock();
        let (now_ms, log) = (self.clock.now_ms(), state.log);
        let behind = state.leader.as_ref().and_then(|leader| leader.behind(who, now_ms));
        let age_ms = state.leader.as_ref().map_or(0, |leader| leader.age_ms(now_ms));
        drop(state);
        let (ends, ms) = behind.map_or((None, age_ms), |(ends, ms)| (Some(ends), ms));
        let has = ends.map_or(log.log_start, |ends| ends.written.max(log.log_start));
        let records = log.ends.written.saturating_sub(has).max(0);
        let bytes = if records == 0 { 0 } else { self.bytes_of(records, &log) };
        Lag { ends, records, bytes, ms: if records == 0 { 0 } else { ms } }
    }

    /// Whom acknowledgements that wait for all who are in sync have waited for, for longer than that.
    pub(crate) fn awaited(&self, longer_than_ms: u64) -> Awaited {
        let (state, now_ms) = (self.state.lock(), self.clock.now_ms());
        let replicas = state.leader.as_ref().map(|leader| leader.awaited(now_ms, longer_than_ms));
        drop(state);
        let replicas = replicas.filter(|_| !self.has_ended()).unwrap_or_default();
        Awaited { replicas, controllers_silent: self.cluster.controllers_silent() }
    }

    /// How another replica stands with this broker; `None`: the leadership has not begun.
    pub(crate) fn stands(&self, who: BrokerId) -> Option<Behind> {
        let (state, now_ms) = (self.state.lock(), self.clock.now_ms());
        let leader = state.leader.as_ref()?;
        let is_heard = leader.followers().any(|(member, _, subscribed)| member.broker == who && subscribed);
        let ms = leader.behind(who, now_ms).map_or_else(|| leader.age_ms(now_ms), |(_, ms)| ms);
        Some(Behind { is_heard, ms })
    }

    /// About how many bytes so many records are.
    fn bytes_of(&self, records: Offset, log: &Log) -> u64 {
        let all = log.ends.written.saturating_sub(log.log_start).max(1).unsigned_abs();
        let bytes = u128::from(self.partition.describe().bytes) * u128::from(records.unsigned_abs());
        u64::try_from(bytes / u128::from(all)).unwrap_or(u64::MAX)
    }

    /// The claim looks: the log is this now. How far is it committed?
    fn looked(&self, log: &Log) -> Offset {
        let mut state = self.state.lock();
        let State { leader, record, log: before, feeds, .. } = &mut *state;
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

impl State {
    fn holders(&self, durability: Durability, end: Offset) -> Holders {
        let Some(leader) = &self.leader else { return Holders::default() };
        let mut holders = Holders::default();
        let all = leader.holders(&self.log, end).inspect(|(_, is_flushed)| {
            holders.written += 1;
            holders.flushed += usize::from(*is_flushed);
        });
        let counts = |(broker, is_flushed): (BrokerId, bool)| {
            (is_flushed || durability == Durability::Replicated).then_some(broker)
        };
        let zones = self.zones.count(all.filter_map(counts));
        if Mutant::OneMore.is_planted() {
            let most = leader.record().replicas.len();
            holders.written = most.min(holders.written + 1);
            holders.flushed = most.min(holders.flushed + 1);
        }
        Holders { zones, ..holders }
    }
}

impl fmt::Debug for Led {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Led({}, epoch {})", self.partition.id(), self.epoch)
    }
}

/// What a leader asks for.
#[derive(Debug, Default)]
pub(crate) struct Asked {
    pub(crate) proposal: Option<Proposal>,
    /// If it is a leader that goes further than this one: who.
    pub(crate) further: Option<BrokerId>,
    /// Whom it has waited for until now.
    pub(crate) without: BTreeSet<BrokerId>,
}

/// How far a replica is behind its leader.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lag {
    /// Where it is; `None`: it was not heard of in this leadership.
    pub(crate) ends: Option<Ends>,
    /// Records that it does not have.
    pub(crate) records: Offset,
    /// About how many bytes they are.
    pub(crate) bytes: u64,
    /// Since when, milliseconds.
    pub(crate) ms: u64,
}

/// A log's history.
pub(crate) struct Epochs<'a>(pub(crate) &'a Partition);

impl History for Epochs<'_> {
    fn end_of(&self, epoch: LeaderEpoch) -> (LeaderEpoch, Offset) {
        self.0.epoch_end(epoch)
    }

    fn last(&self) -> Option<LeaderEpoch> {
        self.0.last_epoch()
    }
}

/// The leader as the log asks it. Once the log lets go of it, the leadership is over.
#[derive(Debug)]
pub(crate) struct Leading(pub(crate) Arc<Led>);

impl Admission for Leading {
    fn may_lack(&self) -> bool {
        self.0.may_lack()
    }

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
        if is_unprotected && !self.0.is_sure() && !Mutant::AdmittedUnheard.is_planted() {
            // Who gives its leaderships away is about to be no leader. Who hears of no controller is the one that all know of,
            // for as long as that lasts.
            let is_unheard = !self.0.cluster.session_valid();
            return Verdict::Refuse(if is_unheard { Refused::Unsure } else { Refused::NotLeader });
        }
        verdict
    }

    fn high_watermark(&mut self, log: &LogView<'_>) -> Offset {
        self.0.looked(&admission::log(log))
    }

    fn holders(&mut self, _log: &LogView<'_>, end: Offset) -> Holders {
        self.0.holders(end)
    }
}

impl Drop for Leading {
    fn drop(&mut self) {
        self.0.ended.store(true, Ordering::SeqCst);
        let floors = {
            let mut state = self.0.state.lock();
            state.feeds.drain(..).for_each(|(_, bell)| bell.ring());
            std::mem::take(&mut state.floors)
        };
        floors.into_iter().for_each(|waiting| (waiting.met)(None));
        self.0.moved.notify_waiters();
    }
}
