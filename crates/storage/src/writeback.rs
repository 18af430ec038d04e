//! What nobody waits for goes to the disk in small pieces, spread over time.
//!
//! A log of class replicated is acknowledged from the page cache. Left alone until somebody syncs it, a gigabyte goes
//! to the disk at once, beside the reads and the syncs that somebody does wait for. So the pages of a log whose turn
//! it is are handed to the disk a slice at a time ([`weir_io::File::start_writeback`], which promises nothing), and
//! the sync that follows finds little left to do. A log has its turn with each checkpoint, and each quarter of the time
//! between two if much of it has gathered: not at once, because what follows a burst is its reader.
//!
//! The pace follows the backlog: what is unsynced goes within a quarter of a checkpoint's interval, however much it is,
//! and never slower than it was begun. So it cannot fall behind for ever: a producer that writes faster raises the backlog
//! and with it the pace, and above half of the dirty budget there are neither pauses nor slices, only syncs.
//!
//! It is not the flusher's work: a group that somebody waits for would have to wait for the largest of these.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use tokio::time::Instant;
use weir_runtime::Step;

use crate::config::DirOptions;
use crate::core::Core;
use crate::dir::DirCore;
use crate::flusher::{self, IDLE, Waker};

/// Of so many flush threads one is here.
const THREADS_SHARE: usize = 4;

/// So many slices of one log are much.
const LARGE_SLICES: u64 = 8;

/// What is between two checkpoints has so many parts, of which a backlog takes one.
pub(crate) const PARTS: u32 = 4;

/// The logs of a directory with unsynced writes that nobody waits for.
#[derive(Default)]
pub(crate) struct Writeback {
    state: Mutex<State>,
    wakers: RwLock<Vec<Waker>>,
    /// Somebody was told that there is no time for pauses.
    hurried: AtomicBool,
}

#[derive(Default)]
struct State {
    /// Those whose turn comes with the next checkpoint.
    noted: Vec<Arc<Core>>,
    /// Those whose turn it is.
    due: VecDeque<Arc<Core>>,
    pace: Option<Pace>,
    /// Threads that sleep.
    asleep: Vec<usize>,
}

/// One step every so often.
#[derive(Clone, Copy)]
struct Pace {
    pause: Duration,
    next: Instant,
}

/// What a thread is to do next.
enum Turn {
    Work(Arc<Core>),
    Wait(Duration),
}

impl Writeback {
    /// Something was written to a log that nobody waits for. There is no time for pauses if much of the dirty budget is
    /// used.
    pub(crate) fn wrote(&self, core: &Arc<Core>, is_much: bool) {
        let is_new = self.note(core);
        if is_much && (is_new || !self.hurried.swap(true, Ordering::AcqRel)) {
            self.wake_one();
        }
    }

    /// Whether it was not noted yet.
    fn note(&self, core: &Arc<Core>) -> bool {
        // Read before it is written: nearly always it is noted already.
        let is_new =
            !core.lazy_listed.load(Ordering::Acquire) && !core.lazy_listed.swap(true, Ordering::AcqRel);
        if is_new {
            self.state.lock().noted.push(Arc::clone(core));
        }
        is_new
    }

    /// It is the turn of those of which much is unsynced.
    pub(crate) fn large_due(&self, options: &DirOptions) {
        let large = LARGE_SLICES * options.writeback_bytes;
        {
            let mut state = self.state.lock();
            let State { noted, due, .. } = &mut *state;
            due.extend(noted.extract_if(.., |core| core.unsynced_bytes() >= large));
        }
        self.wake_one();
    }

    /// It is everybody's turn.
    pub(crate) fn all_due(&self) {
        {
            let mut state = self.state.lock();
            let noted = std::mem::take(&mut state.noted);
            state.due.extend(noted);
        }
        self.wake_one();
    }

    /// Wakes a thread that sleeps. If none does, one comes by when it is done.
    fn wake_one(&self) {
        let asleep = self.state.lock().asleep.pop();
        if let Some(waker) = asleep.and_then(|thread| self.wakers.read().get(thread).cloned()) {
            waker();
        }
    }

    /// The directory is given up: they are to find that out, and what is not synced by now stays so.
    pub(crate) fn stop(&self) {
        {
            let mut state = self.state.lock();
            state.noted.clear();
            state.due.clear();
        }
        self.wake_all();
    }

    fn wake_all(&self) {
        self.wakers.read().iter().for_each(|wake| wake());
    }

    /// What a thread is to do next.
    fn turn(&self, dir: &DirCore, thread: usize) -> Turn {
        let backlog = dir.backlog();
        if !backlog.is_much {
            self.hurried.store(false, Ordering::Release);
        }
        let mut state = self.state.lock();
        let State { noted, due, pace, asleep } = &mut *state;
        asleep.retain(|other| *other != thread);
        if backlog.is_much {
            due.extend(noted.drain(..));
        }
        let mut is_behind = backlog.is_much;
        if due.is_empty() {
            *pace = None;
        } else if !backlog.is_much {
            let now = Instant::now();
            let steps = backlog.bytes / dir.options.writeback_bytes.max(1) + due.len() as u64;
            let share = dir.options.checkpoint_interval / PARTS;
            let pause = share / u32::try_from(steps).unwrap_or(u32::MAX).max(1);
            let before = pace.unwrap_or(Pace { pause, next: now });
            let pause = pause.min(before.pause);
            if let Some(left) = before.next.checked_duration_since(now).filter(|left| !left.is_zero()) {
                let left = left.min(pause);
                *pace = Some(Pace { pause, next: now + left });
                asleep.push(thread);
                return Turn::Wait(left);
            }
            is_behind = now >= before.next + pause;
            *pace = Some(Pace { pause, next: now + pause });
        }
        let Some(core) = due.pop_front() else {
            asleep.push(thread);
            return Turn::Wait(IDLE);
        };
        let is_too_much_for_one = is_behind && !due.is_empty();
        drop(state);
        if is_too_much_for_one {
            self.wake_one();
        }
        Turn::Work(core)
    }

    /// It is not done yet.
    fn again(&self, core: Arc<Core>) {
        self.state.lock().due.push_front(core);
    }
}

/// Starts the threads.
pub(crate) fn start(dir: &Arc<DirCore>) {
    let threads = (dir.options.flush_threads / THREADS_SHARE).max(1);
    let wakers = (0..threads).map(|thread| {
        let of = Arc::clone(dir);
        let step = move || {
            let Some(_held) = of.hold() else { return Step::Done };
            match of.writeback.turn(&of, thread) {
                Turn::Wait(time) => Step::Wait(time),
                Turn::Work(core) => {
                    work(&of, core);
                    Step::Again
                }
            }
        };
        dir.os.spawn_loop(&format!("writeback-{thread}"), Box::new(step))
    });
    *dir.writeback.wakers.write() = wakers.collect();
    // What came meanwhile found nobody to wake.
    dir.writeback.wake_all();
}

/// One step: a slice of a log, or all that is left of it.
fn work(dir: &Arc<DirCore>, core: Arc<Core>) {
    if !dir.backlog().is_much && flusher::write_slice(dir, &core) {
        dir.writeback.again(core);
        return;
    }
    flusher::flush(dir, &core);
    // Only now, so that no two threads sync one log. Whoever writes after this notes it; what was written before and
    // after the sync began is seen here.
    core.lazy_listed.swap(false, Ordering::AcqRel);
    if !dir.failed() && !core.is_closed() && !core.dirty_segments().is_empty() {
        dir.writeback.note(&core);
    }
}
