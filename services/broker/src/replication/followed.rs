//! A partition that is followed here: the core of the follower, shared by the partition's claim, which asks it whose
//! data it takes and how far the log is committed, and by the link to its leader. Hot path.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use weir_replication::{Ends, Follower, Position};
use weir_storage::{Admission, Append, LogView, Partition, Refused, Verdict};
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
    /// Its start is being moved to the leader's.
    moves: AtomicBool,
    state: Mutex<State>,
}

struct State {
    follower: Follower,
    ends: Ends,
    /// What the leader was told last.
    told: Ends,
    /// Groups that were written since.
    untold: u32,
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
    ) -> Arc<Self> {
        let (none, follower) = (Ends::default(), Follower::new(epoch));
        let state = Mutex::new(State { follower, ends: none, told: none, untold: 0, bell: None });
        let id = partition.id();
        Arc::new(Self {
            id,
            epoch,
            leader,
            partition,
            may_lose,
            durability,
            moves: AtomicBool::new(false),
            state,
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
        state.bell = Some(bell);
        state.ring();
    }

    /// It is not, any more.
    pub(crate) fn unsubscribed(&self) {
        let mut state = self.state.lock();
        state.follower.unsubscribed();
        state.bell = None;
    }

    /// Whether a message of the leader's is to be taken; and how far its log is committed.
    pub(crate) fn hears(&self, epoch: LeaderEpoch, subscription: i64, high_watermark: Offset) -> bool {
        self.state.lock().follower.hears(epoch, subscription.unsigned_abs(), high_watermark)
    }

    /// The ends that the leader is to be told now.
    pub(crate) fn tell(&self) -> Ends {
        let mut state = self.state.lock();
        state.told = state.ends;
        state.untold = 0;
        state.ends
    }

    /// Whether its start was not being moved yet, and is from here on.
    pub(crate) fn begins_to_move(&self) -> bool {
        !self.moves.swap(true, Ordering::SeqCst)
    }

    /// It is not being moved any more.
    pub(crate) fn has_moved(&self) {
        self.moves.store(false, Ordering::SeqCst);
    }

    /// The claim looks: the log is this now. How far is it known to be committed?
    fn looked(&self, view: &LogView<'_>) -> Offset {
        let log = admission::log(view);
        let mut state = self.state.lock();
        state.untold += u32::from(log.ends.written > state.ends.written);
        state.ends = log.ends;
        let due = match self.durability {
            Durability::Fsync => log.ends.flushed > state.told.flushed || state.untold >= UNTOLD_MAX,
            Durability::Replicated => log.ends.written > state.told.written,
        };
        if due {
            state.ring();
        }
        state.follower.high_watermark(&log)
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
}
