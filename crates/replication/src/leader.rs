//! The leader of a partition.
//!
//! ```text
//!   log_start          last_stable      high_watermark         log_end
//!      |--------- committed, readable --------|-- may disappear --|  next append
//! ```
//!
//! Why what is below the high watermark stays. It rises only to what every member of the in-sync set has, in the sense
//! of the topic's class, and only while that set has `min_insync` members. The set is the controller's: a leader that
//! was deposed without knowing it has a record that cannot change any more, so it still waits for all the members of a
//! set from which, or from whose eligible leavers, its successor was elected, and these follow the successor and
//! answer the old one no more (rules 2, 3, 5). While a change of the set is on its way, or nobody knows what became
//! of it, both sets are waited for, and the smaller one is counted: that of the record.
//!
//! A leader that was elected from the eligible first hears the others that are: see [`Hearing`].

use std::collections::{BTreeMap, BTreeSet};

use weir_types::{BrokerId, Durability, KnownProducer, LeaderEpoch, Offset};

use crate::admission::{Attempt, Refusal, Verdict, judge_sequence};
use crate::ends::{Ends, History, Log};
use crate::hearing::Hearing;
use crate::mutant::Mutant;
use crate::record::{Member, Outcome, Proposal, Record};
use crate::subscription::{Position, Welcome, welcome};

/// Leads one partition in one epoch.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Leader {
    me: BrokerId,
    durability: Durability,
    record: Record,
    /// Where this leadership begins in the log.
    epoch_start: Offset,
    high_watermark: Offset,
    /// When it began, on the caller's clock.
    began_ms: u64,
    /// What there is, as far as it counts.
    end: Offset,
    /// Where the log begins.
    log_start: Offset,
    peers: BTreeMap<BrokerId, Peer>,
    /// What was asked of the controller since the record that is known: whoever may be in sync by now.
    in_flight: Option<BTreeSet<Member>>,
    unknown: BTreeSet<Member>,
    /// Who was not let in, and waits for its next turn.
    refused: BTreeSet<BrokerId>,
    /// Whom it hears first.
    hearing: Hearing,
}

/// A follower, as its leader knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Peer {
    /// The registration in which it subscribed.
    epoch: i64,
    subscription: u64,
    ends: Ends,
    /// Where its log begins, as far as it has said under this subscription.
    log_start: Offset,
    /// When it last had all there was.
    caught_up_ms: u64,
    /// What there was when it was last heard of, and when that was: it has all of that once it is there (as Kafka's
    /// followers are judged: by what was there when they asked, not by what has come since).
    heard: (Offset, u64),
}

/// A replica that is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Late {
    /// For how many milliseconds it has not had all there was.
    pub behind_ms: u64,
    /// For how many of these nothing was heard of it.
    pub silent_ms: u64,
}

impl Leader {
    /// Takes up the leadership of a record in which `me` leads. `log` is the log as it is now: this epoch begins at its
    /// end.
    pub fn begin(me: BrokerId, durability: Durability, record: Record, log: &Log, now_ms: u64) -> Self {
        Self {
            me,
            durability,
            hearing: Hearing::begin(&record.eligible, now_ms),
            record,
            epoch_start: log.ends.written,
            high_watermark: log.high_watermark,
            began_ms: now_ms,
            end: log.ends.of(durability),
            log_start: log.log_start,
            peers: BTreeMap::new(),
            in_flight: None,
            unknown: BTreeSet::new(),
            refused: BTreeSet::new(),
        }
    }

    /// The epoch it leads in.
    pub fn epoch(&self) -> LeaderEpoch {
        self.record.leader_epoch
    }

    /// The record it goes by.
    pub fn record(&self) -> &Record {
        &self.record
    }

    /// Whether nobody else is in sync, or may be by now.
    pub fn is_alone(&self) -> bool {
        let others = self.in_flight.iter().flatten().chain(&self.unknown).chain(&self.record.isr);
        others.into_iter().all(|member| member.broker == self.me)
    }

    /// Where this leadership begins in the log.
    pub fn epoch_start(&self) -> Offset {
        self.epoch_start
    }

    /// Whether the high watermark has reached the start of this leadership. Until then it may be lower than one that
    /// was served before, and is not told (rule 4).
    pub fn is_settled(&self) -> bool {
        let is_heard = !self.may_lack() || Mutant::UnheardServes.is_planted();
        self.high_watermark >= self.epoch_start && is_heard || Mutant::UnsettledServes.is_planted()
    }

    /// Whether others are waited for that may have what was acknowledged and this log lacks. Until it has heard them the
    /// leader says of nothing that it is not there.
    pub fn may_lack(&self) -> bool {
        !self.hearing.is_over()
    }

    /// Who these are.
    pub fn unheard(&self) -> impl Iterator<Item = BrokerId> {
        self.hearing.unheard()
    }

    /// Who goes further than this log, and shall lead.
    pub fn goes_further(&self) -> Option<BrokerId> {
        self.hearing.further().map(|member| member.broker)
    }

    /// A record of the partition, as the metadata has it now. An older one, and one of another leadership, changes
    /// nothing.
    pub fn observe(&mut self, record: &Record) {
        if record.leader_epoch == self.record.leader_epoch
            && record.partition_epoch > self.record.partition_epoch
        {
            let min_insync = self.record.min_insync;
            self.record.clone_from(record);
            if Mutant::MinOfBegin.is_planted() {
                self.record.min_insync = min_insync;
            }
            // A compare-and-set on an older record can have no effect any more.
            self.in_flight = None;
            self.unknown.clear();
            self.hearing.observe(&self.record.eligible);
        }
    }

    /// Decides about an attempt. Duplicates are recognised before the condition is looked at (rule 20): the
    /// second arrival of a conditional append must not be told that the first one took its place.
    pub fn admit(&self, log: &Log, attempt: &Attempt, known: Option<KnownProducer<'_>>) -> Verdict {
        let judged = attempt.producer.and_then(|producer| judge_sequence(attempt, producer, known));
        let late = Mutant::ConditionFirst.is_planted()
            && attempt.expected_next_offset.is_some_and(|expected| expected != log.ends.written);
        // Who knows the rest of the producer's batches may not have been heard yet.
        let is_known = |verdict: &Verdict| !self.may_lack() || matches!(verdict, Verdict::Duplicate(_));
        if let Some(verdict) = judged.filter(|verdict| !late && is_known(verdict)) {
            return verdict;
        }
        let (in_sync, min_insync) = (self.record.isr.len(), self.record.min_insync);
        if in_sync < min_insync && !Mutant::AdmitBelowMin.is_planted() {
            return Verdict::Refuse(Refusal::NotEnoughReplicas { in_sync, min_insync });
        }
        // Nobody is eligible beside enough in sync, so that there is nobody to be heard. What was appended meanwhile would stand
        // where others have something else that was acknowledged.
        debug_assert!(!self.may_lack() || Mutant::AdmitBelowMin.is_planted(), "{:?}", self.record);
        match attempt.expected_next_offset {
            Some(expected) if expected != log.ends.written => {
                Verdict::RefuseWhenCommitted(Refusal::OffsetMismatch { next: log.ends.written })
            }
            _ => Verdict::Append(self.epoch()),
        }
    }

    /// The log is this by now. Whoever had all there was until then is not behind because there is more: not yet.
    pub fn grows(&mut self, log: &Log, now_ms: u64) {
        let end = log.ends.of(self.durability);
        if end <= self.end {
            return;
        }
        for peer in self.peers.values_mut().filter(|peer| peer.subscription != 0) {
            if peer.ends.of(self.durability) >= self.end {
                peer.caught_up_ms = peer.caught_up_ms.max(now_ms);
            }
        }
        self.end = end;
    }

    /// A follower says where its log ends and asks for what comes after. The subscription's number is new in this
    /// leadership; from now on only what is said under it counts.
    pub fn subscribe(
        &mut self,
        who: Member,
        subscription: u64,
        position: Position,
        history: &impl History,
        log: &Log,
        now_ms: u64,
    ) -> Welcome {
        let known = self.record.in_sync(who.broker).map(|member| member.epoch);
        let before = self.peers.get(&who.broker).map(|peer| peer.epoch);
        if !self.record.replicas.contains(&who.broker) || who.broker == self.me {
            return Welcome::NotAReplica;
        }
        if known.max(before).is_some_and(|newest| newest > who.epoch) {
            return Welcome::Superseded;
        }
        if self.record.eligible.contains(&who.broker) {
            // Fewer than `min_insync` are in sync, so that nothing was appended in this epoch yet.
            let own = (history.last(), self.epoch_start);
            if self.hearing.hear(who, (position.last_epoch, position.log_end), own, now_ms) {
                return Welcome::GoesFurther;
            }
        }
        let welcome = welcome(position, history, log);
        if welcome != Welcome::Follow && self.may_lack() && !Mutant::CutUnheard.is_planted() {
            return Welcome::NotYet;
        }
        if welcome == Welcome::Follow {
            let has_all = position.ends().of(self.durability) >= log.ends.of(self.durability);
            let caught_up_ms = match self.peers.get(&who.broker) {
                _ if has_all => now_ms,
                Some(peer) if peer.epoch == who.epoch => peer.caught_up_ms,
                _ => self.began_ms,
            };
            let ends = match self.peers.get(&who.broker) {
                Some(peer) if Mutant::EndKept.is_planted() => peer.ends.raised_to(position.ends()),
                _ => position.ends(),
            };
            let heard = (log.ends.of(self.durability), now_ms);
            let peer = Peer { epoch: who.epoch, subscription, ends, log_start: 0, caught_up_ms, heard };
            self.peers.insert(who.broker, peer);
        }
        welcome
    }

    /// A follower says how far it is. Whether that was news: the high watermark may have risen, or the in-sync set may
    /// have to change.
    pub fn acknowledged(
        &mut self,
        from: BrokerId,
        subscription: u64,
        ends: Ends,
        log: &Log,
        now_ms: u64,
    ) -> bool {
        let durability = self.durability;
        let Some(peer) = self.peers.get_mut(&from).filter(|peer| peer.subscription == subscription) else {
            return false;
        };
        // It may have more than `log` shows: what was written since the log was looked at.
        let ends = Ends { flushed: ends.flushed.min(ends.written), ..ends };
        let risen = peer.ends.raised_to(ends);
        let news = risen != peer.ends;
        peer.ends = risen;
        let (end, target) = (risen.of(durability), log.ends.of(durability));
        if end >= target {
            peer.caught_up_ms = now_ms;
        } else if end >= peer.heard.0 {
            peer.caught_up_ms = peer.caught_up_ms.max(peer.heard.1);
        }
        peer.heard = (target, now_ms);
        news
    }

    /// A follower says where its log begins. Whether that was news: a deletion may have been waiting for it, or its place
    /// in the in-sync set (correctness rule 15).
    pub fn begins(&mut self, from: BrokerId, subscription: u64, log_start: Offset) -> bool {
        let peer = self.peers.get_mut(&from).filter(|peer| peer.subscription == subscription);
        let Some(peer) = peer.filter(|peer| peer.log_start < log_start) else { return false };
        peer.log_start = log_start;
        true
    }

    /// Who is, or may be, in sync and is not known to begin at an offset or behind it: while there is somebody, a
    /// leader may be elected who still has what was deleted before it (correctness rule 15).
    pub fn lacks_start(&self, log_start: Offset) -> BTreeSet<BrokerId> {
        let has_moved = |member: &&Member| {
            let peer = self.peers.get(&member.broker).filter(|peer| peer.epoch == member.epoch);
            peer.is_some_and(|peer| peer.log_start >= log_start) || Mutant::StartNotAwaited.is_planted()
        };
        self.others_in_sync().filter(|member| !has_moved(member)).map(|member| member.broker).collect()
    }

    /// Whether everybody who is, or may be, in sync begins at an offset or behind it, and as many as a record must be on
    /// before it is committed: then nobody is elected who still has what was deleted before it.
    pub fn begins_everywhere(&self, log_start: Offset) -> bool {
        self.counted() >= self.record.min_insync && self.lacks_start(log_start).is_empty()
    }

    /// A follower's stream ended: what it has is no longer told.
    pub fn unsubscribe(&mut self, from: BrokerId, subscription: u64, now_ms: u64) {
        let (durability, all) = (self.durability, self.end);
        if let Some(peer) = self.peers.get_mut(&from).filter(|peer| peer.subscription == subscription) {
            // Its end stays known: it had that, in that registration.
            peer.subscription = 0;
            if peer.ends.of(durability) >= all {
                peer.caught_up_ms = now_ms;
            }
        }
    }

    /// How far the log is committed: the lowest end of whoever is or may be in sync; where it was while fewer than
    /// `min_insync` are (rule 3).
    pub fn high_watermark(&mut self, log: &Log) -> Offset {
        self.log_start = log.log_start;
        if self.counted() >= self.record.min_insync || Mutant::BelowMin.is_planted() {
            let own = match Mutant::OwnWritten.is_planted() {
                true => log.ends.written,
                false => log.ends.of(self.durability),
            };
            let lowest = self.waited_for().try_fold(own, |lowest, end| end.map(|end| lowest.min(end)));
            self.high_watermark = lowest.unwrap_or(self.high_watermark).max(self.high_watermark);
        }
        self.high_watermark
    }

    /// How many are in sync, as far as the newest record says: who is only proposed counts for nothing.
    fn counted(&self) -> usize {
        match &self.in_flight {
            Some(proposed) if Mutant::CountProposed.is_planted() => self.record.isr.len().max(proposed.len()),
            _ => self.record.isr.len(),
        }
    }

    /// The ends of those that the high watermark waits for, besides this replica; `None`: unknown in the registration
    /// that counts.
    fn waited_for(&self) -> impl Iterator<Item = Option<Offset>> {
        self.others_in_sync().map(|member| {
            let peer = self.peers.get(&member.broker).filter(|peer| peer.epoch == member.epoch)?;
            if Mutant::FollowersWritten.is_planted() {
                return Some(peer.ends.written);
            }
            Some(peer.ends.of(self.durability))
        })
    }

    /// Who is in sync besides this replica, and who may be: proposed, or of a change that nobody knows the outcome of.
    fn others_in_sync(&self) -> impl Iterator<Item = &Member> {
        let awaits = !Mutant::ProposedNotAwaited.is_planted();
        let proposed = self.in_flight.iter().flatten().chain(&self.unknown).filter(move |_| awaits);
        self.record.isr.iter().chain(proposed).filter(|member| member.broker != self.me)
    }

    /// The change of the in-sync set that is due, if one is, and none is on its way: who was behind for longer than
    /// `lag_ms` leaves; if nobody does, one that has caught up joins (rule 6). One at a time, and in turn: one that the
    /// controller refuses holds up neither who leaves nor who joins. Nobody joins a leader that may lack something, and one
    /// that does asks for who goes further instead of itself (rule 8). It counts as asked from here on, until
    /// [`Leader::decided`] or a newer record.
    pub fn propose(&mut self, now_ms: u64, lag_ms: u64) -> Option<Proposal> {
        self.propose_of(now_ms, lag_ms, |_| true)
    }

    /// The same, of those alone who may join now, as far as the caller knows: whoever the controller would not take is not
    /// asked for again and again.
    pub fn propose_of(
        &mut self,
        now_ms: u64,
        lag_ms: u64,
        may_join: impl Fn(BrokerId) -> bool,
    ) -> Option<Proposal> {
        self.hearing.lose_patience(now_ms, lag_ms);
        if self.in_flight.is_some() {
            return None;
        }
        if let Some(member) = self.hearing.further() {
            // Whoever was refused has its next turn.
            return (!self.refused.remove(&member.broker)).then(|| self.ask([member].into()));
        }
        let now: BTreeSet<_> = self.record.isr.iter().copied().collect();
        let (stay, joins): (Vec<_>, Vec<_>) = {
            let replicas = self.record.replicas.iter();
            let places = replicas.filter_map(|broker| self.place(*broker, now_ms, lag_ms));
            let (stay, joins): (_, Vec<_>) = places.partition(|member| now.contains(member));
            let waits = self.may_lack() && !Mutant::EligibleUnheard.is_planted();
            (stay, if waits { Vec::new() } else { joins })
        };
        let mut then: BTreeSet<_> = stay.iter().copied().collect();
        // What became of an earlier proposal is settled by asking for the set that there is: whatever the controller makes
        // of it counts the record on, and the earlier one has no effect after that.
        if then == now && self.unknown.is_empty() {
            let mut waiting = joins.iter().filter(|member| may_join(member.broker));
            let next = waiting.find(|member| !self.refused.contains(&member.broker));
            let Some(next) = next else {
                // Their turn comes again.
                self.refused.clear();
                return None;
            };
            then.insert(*next);
        }
        Some(self.ask(then))
    }

    /// Proposes a set.
    fn ask(&mut self, then: BTreeSet<Member>) -> Proposal {
        let place = |broker: &BrokerId| then.iter().find(|member| member.broker == *broker).copied();
        let isr = self.record.replicas.iter().filter_map(place).collect();
        self.in_flight = Some(then);
        let (leader_epoch, partition_epoch) = (self.record.leader_epoch, self.record.partition_epoch);
        Proposal { leader_epoch, partition_epoch, isr }
    }

    /// A replica as it should be in the in-sync set, if it should.
    fn place(&self, broker: BrokerId, now_ms: u64, lag_ms: u64) -> Option<Member> {
        let peer = self.peers.get(&broker);
        match self.record.in_sync(broker) {
            Some(member) if broker == self.me => Some(member),
            Some(member) => {
                let peer = peer.filter(|peer| peer.epoch == member.epoch);
                (!self.lags(peer, now_ms, lag_ms)).then_some(member)
            }
            None => {
                let peer = peer.filter(|peer| peer.subscription != 0)?;
                if self.lags(Some(peer), now_ms, lag_ms) {
                    return None;
                }
                let has_reached = if Mutant::JoinBelowEpochStart.is_planted() {
                    self.high_watermark
                } else if Mutant::JoinBelowHighWatermark.is_planted() {
                    self.epoch_start
                } else {
                    self.high_watermark.max(self.epoch_start)
                };
                let end = match Mutant::JoinOnWritten.is_planted() {
                    true => peer.ends.written,
                    false => peer.ends.of(self.durability),
                };
                let begins = peer.log_start >= self.log_start || Mutant::JoinBelowStart.is_planted();
                (end >= has_reached && begins).then_some(Member { broker, epoch: peer.epoch })
            }
        }
    }

    /// Whether a replica has been behind for longer than that.
    fn lags(&self, peer: Option<&Peer>, now_ms: u64, lag_ms: u64) -> bool {
        let has_all =
            peer.is_some_and(|peer| peer.subscription != 0 && peer.ends.of(self.durability) >= self.end);
        let since = peer.map_or(self.began_ms, |peer| peer.caught_up_ms).max(self.began_ms);
        !has_all && now_ms.saturating_sub(since) > lag_ms
    }

    /// What became of the proposal that is on its way. One that was carried out is seen as a newer record.
    pub fn decided(&mut self, proposal: &Proposal, outcome: Outcome) {
        let ours = (proposal.leader_epoch, proposal.partition_epoch)
            == (self.record.leader_epoch, self.record.partition_epoch);
        if !ours {
            return;
        }
        let asked = self.in_flight.take();
        if outcome == Outcome::Unknown && Mutant::UnknownTakenAsDone.is_planted() {
            self.record.isr.clone_from(&proposal.isr);
            return;
        }
        match outcome {
            Outcome::Unknown => self.unknown.extend(asked.into_iter().flatten()),
            Outcome::Refused => {
                let joins = proposal.isr.iter().filter(|member| !self.record.isr.contains(member));
                self.refused.extend(joins.map(|member| member.broker));
            }
        }
    }

    /// Whether a proposal asks for nothing but the set that there is.
    pub fn settles(&self, proposal: &Proposal) -> bool {
        let set = |isr: &[Member]| isr.iter().copied().collect::<BTreeSet<_>>();
        set(&proposal.isr) == set(&self.record.isr)
    }

    /// Which replicas have everything before an offset, as far as is known, and whether it is on their disks. This one is
    /// counted; and of what is committed, who is in sync, also before anything was heard of it in this leadership.
    pub fn holders(&self, log: &Log, end: Offset) -> impl Iterator<Item = (BrokerId, bool)> {
        let is_committed = end <= self.high_watermark;
        let in_class = move |ends: Ends| match self.durability {
            Durability::Fsync => Ends { flushed: end.max(ends.flushed), written: end.max(ends.written) },
            Durability::Replicated => Ends { written: end.max(ends.written), ..ends },
        };
        self.record.replicas.iter().filter_map(move |broker| {
            let peer = self.peers.get(broker);
            let told = match *broker == self.me {
                true => log.ends,
                false => peer.map(|peer| peer.ends).unwrap_or_default(),
            };
            let counts = is_committed && self.record.in_sync(*broker).is_some();
            let ends = if counts { in_class(told) } else { told };
            (ends.written >= end).then_some((*broker, ends.flushed >= end))
        })
    }

    /// How far a follower is, and for how many milliseconds it has been behind; `None`: it was not heard of in this
    /// leadership.
    pub fn behind(&self, who: BrokerId, now_ms: u64) -> Option<(Ends, u64)> {
        let peer = self.peers.get(&who)?;
        let is_there = peer.ends.of(self.durability) >= self.end;
        Some((peer.ends, if is_there { 0 } else { now_ms.saturating_sub(peer.caught_up_ms) }))
    }

    /// Whom appends wait for now: who is, or may be, in sync and has lacked something, or asked for nothing, for longer than
    /// that.
    pub fn awaited(&self, now_ms: u64, longer_than_ms: u64) -> BTreeMap<BrokerId, Late> {
        let late = self.others_in_sync().filter_map(|member| {
            let peer = self.peers.get(&member.broker).filter(|peer| peer.epoch == member.epoch);
            let since = |heard_ms: u64| now_ms.saturating_sub(heard_ms.max(self.began_ms));
            let behind_ms = since(peer.map_or(self.began_ms, |peer| peer.caught_up_ms));
            let heard_ms = peer.map_or(self.began_ms, |peer| peer.heard.1.max(peer.caught_up_ms));
            let late = Late { behind_ms, silent_ms: since(heard_ms) };
            self.lags(peer, now_ms, longer_than_ms).then_some((member.broker, late))
        });
        late.collect()
    }

    /// For how many milliseconds it leads.
    pub fn age_ms(&self, now_ms: u64) -> u64 {
        now_ms.saturating_sub(self.began_ms)
    }

    /// Followers with how far each is, and whether it is subscribed now.
    pub fn followers(&self) -> impl Iterator<Item = (Member, Ends, bool)> {
        self.peers.iter().map(|(broker, peer)| {
            (Member { broker: *broker, epoch: peer.epoch }, peer.ends, peer.subscription != 0)
        })
    }
}
