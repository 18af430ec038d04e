//! One owner at a time, without a thread for each partition. Hot path.
//!
//! A partition has a queue and, beside it, its owner's state. Whoever submits and finds the state there takes it,
//! works off the queue, and puts it back: nobody else can touch those files meanwhile, and no lock is held while they
//! are written. Whoever finds it gone leaves their entry in the queue, where the one who has it will find it: it
//! looks once more, under the same lock, before it puts the state back. So no entry is left behind.
//!
//! A claim is short: after 64 entries or 1 MiB the rest goes to a task of its own. Threads that sync or read may
//! submit but never work: they hand the state to a task, too.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::time::Instant;

use crate::append::{Append, Refusal, Reply};
use crate::control::Command;
use crate::core::{Core, Tail};
use crate::owner::{Owner, Step};
use crate::replicate::Replicated;
use crate::stats::Stats;

/// What one claim takes before it makes room for others on its executor.
pub(crate) const ENTRIES_MAX: usize = 64;
pub(crate) const BYTES_MAX: usize = 1 << 20;

/// Something for the owner to do.
pub(crate) enum Entry {
    Append(Append),
    /// An append that its caller refused.
    Refusal(Refusal),
    /// Frames of its leader.
    Replicated(Replicated),
    Command(Command),
    /// There may be room again for what had to wait.
    Resume,
}

impl Entry {
    fn bytes(&self) -> usize {
        match self {
            Self::Append(append) => append.batch.payload.len(),
            Self::Replicated(replicated) => replicated.payload_bytes(),
            Self::Refusal(_) | Self::Command(_) | Self::Resume => 0,
        }
    }
}

pub(crate) struct Claim(Mutex<Slot>);

struct Slot {
    queue: VecDeque<Entry>,
    /// The log is durable up to there. Beside the queue: appends that wait for room do not hold back the answers of
    /// those in front of them.
    flushed: Option<Tail>,
    /// The high watermark is to be asked for again. Beside the queue: a million who ask are one.
    asked: bool,
    /// There while nobody has it.
    owner: Option<Box<Owner>>,
    /// Waits for room: only what does not write is to be done.
    stalled: bool,
    /// Since when the first of the queue waits for an owner that is busy.
    since: Option<Instant>,
    /// Where it was last worked on.
    home: Option<Handle>,
    closed: bool,
}

impl Claim {
    pub(crate) fn new(owner: Box<Owner>) -> Self {
        let slot = Slot {
            queue: VecDeque::new(),
            flushed: None,
            asked: false,
            owner: Some(owner),
            stalled: false,
            since: None,
            home: None,
            closed: false,
        };
        Self(Mutex::new(slot))
    }

    /// Puts entries in the queue. The owner's state, if it is free and has something to do.
    fn push(&self, entries: impl IntoIterator<Item = Entry>, here: Option<&Handle>) -> Option<Box<Owner>> {
        let mut slot = self.0.lock();
        if slot.closed {
            drop(slot);
            entries.into_iter().for_each(refuse);
            return None;
        }
        if let Some(here) = here
            && slot.home.as_ref().is_none_or(|home| home.id() != here.id())
        {
            slot.home = Some(here.clone());
        }
        let mut wakes = false;
        for entry in entries {
            wakes |= !matches!(entry, Entry::Append(_) | Entry::Refusal(_) | Entry::Replicated(_));
            slot.queue.push_back(entry);
        }
        if slot.since.is_none() && (slot.owner.is_none() || slot.stalled) {
            slot.since = Some(Instant::now());
        }
        if slot.stalled && !wakes {
            return None;
        }
        slot.stalled = false;
        slot.owner.take()
    }

    /// Notes how far the log is durable by now. The owner's state, if it is free.
    fn flushed(&self, tail: Tail) -> Option<Box<Owner>> {
        let mut slot = self.0.lock();
        if slot.closed {
            return None;
        }
        // Two syncs may be told of in either order.
        let place = |tail: Tail| (tail.cuts, tail.point.offset);
        if slot.flushed.is_none_or(|before| place(before) < place(tail)) {
            slot.flushed = Some(tail);
        }
        slot.stalled = false;
        slot.owner.take()
    }

    /// Notes that the high watermark is to be asked for again. The owner's state, if it is free; whoever has it looks
    /// here before it puts it back.
    fn asked(&self) -> Option<Box<Owner>> {
        let mut slot = self.0.lock();
        if slot.closed {
            return None;
        }
        slot.asked = true;
        slot.stalled = false;
        slot.owner.take()
    }

    /// Moves the next entries to the owner, or takes its state back if there is nothing to do.
    fn refill(&self, mut owner: Box<Owner>, stats: &Stats) -> Option<Box<Owner>> {
        let mut slot = self.0.lock();
        owner.durable = slot.flushed.take();
        // Whatever the owner does, it ends with that question.
        let asked = std::mem::take(&mut slot.asked);
        if !owner.batch.is_empty() {
            return Some(owner);
        }
        if slot.closed || (slot.queue.is_empty() && owner.durable.is_none() && !asked) {
            slot.owner = Some(owner);
            return None;
        }
        if let Some(since) = (!slot.queue.is_empty()).then(|| slot.since.take()).flatten() {
            let waited = since.elapsed().as_micros();
            stats.claim_wait_us.record(u64::try_from(waited).unwrap_or(u64::MAX));
        }
        let (mut count, mut bytes) = (0, 0);
        while count < ENTRIES_MAX && bytes < BYTES_MAX {
            let Some(entry) = slot.queue.pop_front() else { break };
            count += 1;
            bytes += entry.bytes();
            owner.batch.push_back(entry);
        }
        if !slot.queue.is_empty() {
            slot.since = Some(Instant::now());
        }
        Some(owner)
    }

    /// Puts the state back although there is something to do: there is no room for it now. Unless something came
    /// meanwhile that needs none.
    fn stall(&self, owner: Box<Owner>) -> Option<Box<Owner>> {
        let mut slot = self.0.lock();
        if slot.flushed.is_some() || slot.asked {
            return Some(owner);
        }
        slot.stalled = true;
        slot.owner = Some(owner);
        None
    }

    fn home(&self, core: &Core) -> Handle {
        self.0.lock().home.clone().unwrap_or_else(|| core.dir.executor.clone())
    }

    /// Nothing is taken any more. What is in the queue is refused.
    pub(crate) fn close(&self) {
        let queue = {
            let mut slot = self.0.lock();
            slot.closed = true;
            std::mem::take(&mut slot.queue)
        };
        queue.into_iter().for_each(refuse);
    }
}

/// An entry that comes too late.
fn refuse(entry: Entry) {
    match entry {
        Entry::Append(Append { done, gate, .. }) => drop(Reply::new(done, gate)),
        Entry::Refusal(refusal) => refusal.give(),
        Entry::Replicated(replicated) => replicated.refuse(),
        Entry::Command(command) => command.refuse(),
        Entry::Resume => {}
    }
}

/// Submits, and works on this thread if nobody else does.
pub(crate) fn submit(core: &Arc<Core>, entries: impl IntoIterator<Item = Entry>) {
    match Handle::try_current() {
        Ok(here) => {
            if let Some(owner) = core.claim.push(entries, Some(&here)) {
                work(core, owner);
            }
        }
        Err(_) => post_all(core, entries),
    }
}

/// Submits from a thread that must not work: a task does.
pub(crate) fn post(core: &Arc<Core>, entry: Entry) {
    post_all(core, [entry]);
}

/// Has the high watermark asked for again, on this thread if nobody else is at work.
pub(crate) fn advance(core: &Arc<Core>) {
    let Some(owner) = core.claim.asked() else { return };
    match Handle::try_current() {
        Ok(_) => work(core, owner),
        Err(_) => spawn(core, owner, &core.claim.home(core)),
    }
}

/// Tells the owner how far the log is durable. For threads that must not work.
pub(crate) fn flushed(core: &Arc<Core>, tail: Tail) {
    if let Some(owner) = core.claim.flushed(tail) {
        spawn(core, owner, &core.claim.home(core));
    }
}

fn post_all(core: &Arc<Core>, entries: impl IntoIterator<Item = Entry>) {
    if let Some(owner) = core.claim.push(entries, None) {
        spawn(core, owner, &core.claim.home(core));
    }
}

fn spawn(core: &Arc<Core>, owner: Box<Owner>, on: &Handle) {
    let core = Arc::clone(core);
    // Never cancelled but by the end of its runtime, which is the end of the process: then every answer that the
    // owner still owes is given when it is dropped.
    on.spawn(async move { work(&core, owner) });
}

/// Works off the queue, up to the limits of one claim.
fn work(core: &Arc<Core>, mut owner: Box<Owner>) {
    // Looked at by the owner, who refuses everything if it is gone.
    let _held = core.dir.hold_briefly();
    let (mut entries, mut bytes) = (0, 0);
    loop {
        match core.claim.refill(owner, &core.dir.stats) {
            Some(refilled) => owner = refilled,
            None => return,
        }
        entries += owner.batch.len();
        bytes += owner.batch.iter().map(Entry::bytes).sum::<usize>();
        // An owner that is lost in a panic would be waited for by everybody who comes, and whoever called is only at work
        // here by chance: the process has to end.
        let worked = catch_unwind(AssertUnwindSafe(|| owner.work(core))).unwrap_or_else(|panic| {
            core.dir.panicked(&core.path);
            resume_unwind(panic)
        });
        match worked {
            Step::Again => {}
            Step::NoRoom => match core.claim.stall(owner) {
                Some(same) => owner = same,
                None => {
                    core.dir.wait_for_room(core);
                    return;
                }
            },
            Step::Away(job) => {
                let home = Handle::try_current().unwrap_or_else(|_| core.claim.home(core));
                let away = Arc::clone(core);
                core.dir.os.block(Box::new(move || {
                    match away.dir.hold() {
                        Some(_held) => job(&away, &mut owner),
                        // Dropped, it says by itself that nothing was done.
                        None => drop(job),
                    }
                    spawn(&away, owner, &home);
                }));
                return;
            }
        }
        if entries >= ENTRIES_MAX || bytes >= BYTES_MAX {
            let home = Handle::try_current().unwrap_or_else(|_| core.claim.home(core));
            spawn(core, owner, &home);
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::RecoveryPoint;

    #[test]
    fn of_two_syncs_that_are_told_of_in_either_order_the_farther_one_counts() {
        let tail = |cuts, offset| Tail { cuts, point: RecoveryPoint { offset, segment: 0, position: 0 } };
        let (early, late, after_a_cut) = (tail(0, 5), tail(0, 7), tail(1, 3));
        for told in [[early, late, after_a_cut], [after_a_cut, late, early], [late, early, after_a_cut]] {
            // Its owner is busy and hears of neither yet.
            let slot = Slot {
                queue: VecDeque::new(),
                flushed: None,
                asked: false,
                owner: None,
                stalled: false,
                since: None,
                home: None,
                closed: false,
            };
            let claim = Claim(Mutex::new(slot));
            let mut farthest = None;
            for tail in told {
                assert!(claim.flushed(tail).is_none());
                farthest = farthest.max(Some((tail.cuts, tail.point.offset)));
                let noted = claim.0.lock().flushed.map(|noted| (noted.cuts, noted.point.offset));
                assert_eq!(noted, farthest, "{told:?}");
            }
        }
    }
}
