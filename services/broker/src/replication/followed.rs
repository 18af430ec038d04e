//! A partition that is followed here: the core of the follower, shared by the partition's claim, which asks it whose
//! data it takes and how far the log is committed, and by the link to its leader. Hot path.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use weir_replication::{Ends, Follower, Position};
use weir_storage::{Admission, Append, Holders, LogView, Partition, Refused, Verdict};
use weir_types::{BrokerId, Durability, LeaderEpoch, Offset, PartitionId};

use crate::admission;
use crate::replication::bells::Bell;

/// So many groups may be written and not be told of, in class `fsync`, where only what is on the disk counts: a leader
/// sends no more than a window that it was not told of.
const UNTOLD_MAX: u32 = 8;

/// A partition that is followed here in one leadership.
pub(crate) struct Followed {
    pub(crate) id: PartitionId,
    pub(crate) epoch: LeaderEpoch,
    pub(crate) leader: BrokerId,
    pub(crate) partition: Partition,
    /// A person has chosen this leader although it lacked what was acknowledged: this log may be cut below its own
    /// high watermark.
    pub(crate) may_lose: bool,
    durability: Durability,
    /// Who is known to have what is committed here.
    holders: Holders,
    /// It is followed so no more. Set in the claim, before anything of the log is cut by another leadership.
    ended: AtomicBool,
    state: Mutex<State>,
}

struct State {
    follower: Follower,
    ends: Ends,
    /// Where the log begins here, and at the leader.
    log_start: Offset,
    leaders_start: Offset,
    /// Its start is being moved to the leader's.
    moves: bool,
    /// What the leader was told last.
    told: Ends,
    told_start: Offset,
    /// Groups that were written since.
    untold: u32,
    /// How often the leader has refused it since it was last subscribed.
    refused: u32,
    /// Rung when it is to be told.
    bell: Option<Arc<Bell<i64>>>,
}

impl Followed {
    pub(crate) fn new(
        partition: Partition,
        durability: Durability,
        leader: BrokerId,
        epoch: LeaderEpoch,
        may_lose: bool,
        holders: Holders,
    ) -> Arc<Self> {
        let state = Mutex::new(State {
            follower: Follower::new(durability, epoch),
            ends: Ends::default(),
            log_start: 0,
            leaders_start: 0,
            moves: false,
            told: Ends::default(),
            told_start: 0,
            untold: 0,
            refused: 0,
            bell: None,
        });
        let id = partition.id();
        let ended = AtomicBool::new(false);
        Arc::new(Self { id, epoch, leader, partition, may_lose, durability, holders, ended, state })
    }

    /// Whether it is followed so no more. What was read of what was committed before is the leader's too, if this is still
    /// false after it was read.
    pub(crate) fn has_ended(&self) -> bool {
        self.ended.load(Ordering::SeqCst)
    }

    /// Why the log is not cut to there, and does not begin anew there, if it is not: what lies before its high watermark was
    /// acknowledged. Where nobody was elected uncleanly the leader had that, and its disk has lost it.
    pub(crate) fn lacked_by_its_leader(&self, to: Offset) -> Option<String> {
        let ends = self.partition.ends();
        let records = ends.high_watermark - to.max(ends.log_start);
        let (leader, epoch) = (self.leader, self.epoch);
        (records > 0 && !self.may_lose).then(|| {
            format!(
                "broker {leader} leads in epoch {epoch} and lacks {records} records that were acknowledged and are here: its disk \
                 has lost what it had. This replica is not cut to that. Stop broker {leader}: then one that has them can lead"
            )
        })
    }

    /// Where the log is, to be told to the leader. Nothing of what was sent before may be on its way to it.
    pub(crate) fn position(&self) -> Position {
        let ends = self.partition.ends();
        Position {
            log_end: ends.log_end,
            flushed_end: ends.flushed_end,
            // Also of a log that has nothing any more, or began with what another one knew there.
            last_epoch: self.partition.last_epoch(),
        }
    }

    /// From here on a subscription is answered, and the leader is told of ends when `bell` rings.
    pub(crate) fn subscribed(&self, subscription: i64, bell: Arc<Bell<i64>>) {
        let mut state = self.state.lock();
        state.follower.subscribed(subscription.unsigned_abs());
        state.refused = 0;
        state.bell = Some(bell);
        state.ring();
    }

    /// The leader does not take it, or not any more. How often it had said so before.
    pub(crate) fn refused(&self) -> u32 {
        let mut state = self.state.lock();
        state.refused += 1;
        state.refused - 1
    }

    /// It is not, any more.
    pub(crate) fn unsubscribed(&self) {
        let mut state = self.state.lock();
        state.follower.unsubscribed();
        state.bell = None;
        // Whoever moved its start has gone with the stream; that is asked for again.
        state.moves = false;
    }

    /// Whether a message of the leader's is to be taken; how far its log is committed, and where it begins. The claim is to
    /// look then.
    pub(crate) fn hears(
        &self,
        epoch: LeaderEpoch,
        subscription: i64,
        high_watermark: Offset,
        log_start: Offset,
    ) -> bool {
        let mut state = self.state.lock();
        let is_heard = state.follower.hears(epoch, subscription.unsigned_abs(), high_watermark);
        if is_heard {
            state.leaders_start = state.leaders_start.max(log_start);
        }
        is_heard
    }

    /// The ends that the leader is to be told now, and where the log begins.
    pub(crate) fn tell(&self) -> (Ends, Offset) {
        let mut state = self.state.lock();
        (state.told, state.told_start) = (state.ends, state.log_start);
        state.untold = 0;
        (state.ends, state.log_start)
    }

    /// Where the log's start is to be moved to now, if it is: the leader's is later, as far as it is committed here. It
    /// counts as being moved until [`Followed::has_moved`].
    pub(crate) fn start_to_move_to(&self) -> Option<Offset> {
        let ends = self.partition.ends();
        let mut state = self.state.lock();
        let to = state.leaders_start.min(ends.last_stable);
        let moves = to > ends.log_start && !state.moves;
        state.moves |= moves;
        moves.then_some(to)
    }

    /// It is not being moved any more.
    pub(crate) fn has_moved(&self) {
        self.state.lock().moves = false;
    }

    /// The claim looks: the log is this now. How far is it known to be committed?
    fn looked(&self, view: &LogView<'_>) -> Offset {
        let log = admission::log(view);
        let mut state = self.state.lock();
        state.untold += u32::from(log.ends.written > state.ends.written);
        (state.ends, state.log_start) = (log.ends, log.log_start);
        let high_watermark = state.follower.high_watermark(&log);
        let is_further = match self.durability {
            Durability::Fsync => log.ends.flushed > state.told.flushed || state.untold >= UNTOLD_MAX,
            Durability::Replicated => log.ends.written > state.told.written,
        };
        let begins_later = !state.moves && state.leaders_start.min(high_watermark) > log.log_start;
        if is_further || log.log_start > state.told_start || begins_later {
            state.ring();
        }
        high_watermark
    }
}

impl State {
    fn ring(&self) {
        if let Some(bell) = &self.bell {
            bell.ring();
        }
    }
}

impl fmt::Debug for Followed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Followed({}, epoch {} of broker {})", self.id, self.epoch, self.leader)
    }
}

/// The follower as the log asks it.
#[derive(Debug)]
pub(crate) struct Following(pub(crate) Arc<Followed>);

impl Admission for Following {
    fn leader_epoch(&self) -> Option<LeaderEpoch> {
        None
    }

    fn follows(&self) -> Option<LeaderEpoch> {
        Some(self.0.epoch)
    }

    fn admit(&mut self, _log: &LogView<'_>, _append: &Append) -> Verdict {
        Verdict::Refuse(Refused::NotLeader)
    }

    fn high_watermark(&mut self, log: &LogView<'_>) -> Offset {
        self.0.looked(log)
    }

    /// An append of an earlier leadership here that is committed by now.
    fn holders(&mut self, log: &LogView<'_>, end: Offset) -> Holders {
        if end <= log.high_watermark { self.0.holders } else { Holders::here(log, end) }
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        self.0.ended.store(true, Ordering::SeqCst);
    }
}
