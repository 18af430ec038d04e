//! The threads of the process that are not an executor's: loops of their own, and a pool for blocking work.
//!
//! Both end the process when what they run panics. A flusher that is gone while its partitions wait is worse than
//! a process that is gone: that one is restarted.

use std::collections::VecDeque;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::{Condvar, Mutex};

use crate::os::{Step, Waker};

/// Starts a thread. The name is what `top -H` shows; the kernel keeps 15 bytes of it.
pub(crate) fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> io::Result<()> {
    let title = name.to_owned();
    #[expect(clippy::disallowed_types, reason = "this is where threads are made")]
    let builder = std::thread::Builder::new().name(name.to_owned());
    builder.spawn(move || or_abort(&title, run)).map(drop)
}

/// Runs it, and ends the process if it panics.
pub(crate) fn or_abort(name: &str, run: impl FnOnce()) {
    if catch_unwind(AssertUnwindSafe(run)).is_err() {
        // The hook has said what and where.
        tracing::error!(
            thread = name,
            "a thread that the process cannot live without panicked; the process ends"
        );
        std::process::abort();
    }
}

/// Runs `step` on a thread of its own. If that thread cannot be started the process ends: its work would never
/// be done.
pub(crate) fn spawn_loop(name: &str, mut step: Box<dyn FnMut() -> Step + Send>) -> Waker {
    let bell = Arc::new(Bell::default());
    let ring = Arc::clone(&bell);
    let started = spawn(name, move || {
        loop {
            match step() {
                Step::Again => {}
                Step::Wait(time) => bell.wait(time),
                Step::Done => break,
            }
        }
    });
    if let Err(error) = started {
        tracing::error!(thread = name, %error, "cannot start a thread; the process ends");
        std::process::abort();
    }
    Arc::new(move || ring.ring())
}

/// Wakes a loop. A ring while nobody waits ends the next wait.
#[derive(Default)]
struct Bell {
    rung: AtomicBool,
    lock: Mutex<()>,
    changed: Condvar,
}

impl Bell {
    fn ring(&self) {
        // Only the first ring since the last wait has to take the lock. It takes it so that it cannot fall between
        // the waiter's look at `rung` and its sleep.
        if !self.rung.swap(true, Ordering::SeqCst) {
            let _looking_or_asleep = self.lock.lock();
            self.changed.notify_one();
        }
    }

    fn wait(&self, time: std::time::Duration) {
        let mut guard = self.lock.lock();
        if !self.rung.load(Ordering::SeqCst) {
            // May wake for nothing: the loop then has a look, and waits again.
            let _ = self.changed.wait_for(&mut guard, time);
        }
        // A swap, so that what the ringer wrote before is seen by the step that follows.
        self.rung.swap(false, Ordering::SeqCst);
    }
}

type Job = Box<dyn FnOnce() + Send>;

/// Threads for blocking work: one from the start, more when jobs wait, up to a limit. They stay.
pub(crate) struct Pool(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    threads_max: usize,
}

#[derive(Default)]
struct State {
    jobs: VecDeque<Job>,
    threads: usize,
    idle: usize,
    closed: bool,
}

impl Pool {
    pub(crate) fn new(threads_max: usize) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            changed: Condvar::new(),
            threads_max: threads_max.max(1),
        });
        let pool = Self(shared);
        pool.0.state.lock().threads = 1;
        pool.start(0)?;
        Ok(pool)
    }

    pub(crate) fn run(&self, job: Job) {
        let mut state = self.0.state.lock();
        state.jobs.push_back(job);
        if state.idle >= state.jobs.len() {
            drop(state);
            self.0.changed.notify_one();
        } else if state.threads < self.0.threads_max {
            let index = state.threads;
            state.threads += 1;
            drop(state);
            if let Err(error) = self.start(index) {
                // The job is in the queue, and there is always one thread.
                self.0.state.lock().threads -= 1;
                tracing::warn!(%error, threads = index, "cannot start another thread for blocking work");
            }
        }
    }

    /// Runs all of these and waits for them, on this thread and on those of the pool but one: a job that somebody else
    /// brings meanwhile finds it.
    pub(crate) fn run_all(&self, jobs: Vec<Job>) {
        let helpers = jobs.len().saturating_sub(1).min(self.0.threads_max.saturating_sub(2));
        let row = Arc::new(Row {
            left: Mutex::new(jobs.len()),
            jobs: Mutex::new(jobs.into()),
            over: Condvar::new(),
        });
        for _ in 0..helpers {
            let row = Arc::clone(&row);
            self.run(Box::new(move || row.work()));
        }
        row.work();
        row.wait();
    }

    fn start(&self, index: usize) -> io::Result<()> {
        let shared = Arc::clone(&self.0);
        spawn(&format!("weir-io-{index}"), move || shared.work())
    }
}

impl Drop for Pool {
    /// What was asked for is still done; then the threads end.
    fn drop(&mut self) {
        self.0.state.lock().closed = true;
        self.0.changed.notify_all();
    }
}

/// Jobs that belong together.
struct Row {
    jobs: Mutex<VecDeque<Job>>,
    /// Those that are not done.
    left: Mutex<usize>,
    over: Condvar,
}

impl Row {
    /// Does what is left to be begun.
    fn work(&self) {
        loop {
            let next = self.jobs.lock().pop_front();
            let Some(job) = next else { return };
            job();
            let mut left = self.left.lock();
            *left -= 1;
            if *left == 0 {
                self.over.notify_all();
            }
        }
    }

    fn wait(&self) {
        let mut left = self.left.lock();
        while *left > 0 {
            self.over.wait(&mut left);
        }
    }
}

impl Shared {
    fn work(&self) {
        let mut state = self.state.lock();
        loop {
            if let Some(job) = state.jobs.pop_front() {
                drop(state);
                job();
                state = self.state.lock();
            } else if state.closed {
                return;
            } else {
                state.idle += 1;
                self.changed.wait(&mut state);
                state.idle -= 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_loop_steps_until_done_and_wakes_when_rung() {
        let (tell, told) = mpsc::channel();
        let mut steps = 0;
        let wake = spawn_loop(
            "test-loop",
            Box::new(move || {
                steps += 1;
                tell.send(steps).unwrap();
                match steps {
                    1 | 2 => Step::Again,
                    3 | 4 => Step::Wait(Duration::MAX),
                    5 => Step::Wait(Duration::ZERO),
                    _ => Step::Done,
                }
            }),
        );
        assert_eq!([(); 3].map(|()| told.recv().unwrap()), [1, 2, 3]);
        wake();
        assert_eq!(told.recv().unwrap(), 4);
        wake();
        assert_eq!([(); 2].map(|()| told.recv().unwrap()), [5, 6]);
        told.recv().unwrap_err();
        wake();
    }

    #[test]
    fn a_ring_during_a_step_is_not_lost() {
        // The step itself rings, so every wait ends; a lost ring would hang here.
        let (give, given) = mpsc::channel::<Waker>();
        let (tell, told) = mpsc::channel();
        let mut own = None;
        let mut left = 10_000;
        let wake = spawn_loop(
            "test-loop",
            Box::new(move || {
                let wake = own.get_or_insert_with(|| given.recv().unwrap());
                wake();
                left -= 1;
                if left == 0 {
                    tell.send(()).unwrap();
                    return Step::Done;
                }
                Step::Wait(Duration::MAX)
            }),
        );
        give.send(wake).unwrap();
        told.recv().unwrap();
    }

    #[test]
    fn rings_from_outside_are_not_lost() {
        let (tell, told) = mpsc::channel();
        let wake = spawn_loop(
            "test-loop",
            Box::new(move || match tell.send(()) {
                Ok(()) => Step::Wait(Duration::MAX),
                Err(_) => Step::Done,
            }),
        );
        told.recv().unwrap();
        for _ in 0..10_000 {
            wake();
            told.recv().unwrap();
        }
        drop(told);
        wake();
    }

    #[test]
    fn the_pool_runs_jobs_side_by_side_up_to_its_limit() {
        let pool = Pool::new(3).unwrap();
        let (tell, told) = mpsc::channel();
        let gates: Vec<mpsc::Sender<()>> = (0..5)
            .map(|n| {
                let (open, gate) = mpsc::channel::<()>();
                let tell = tell.clone();
                pool.run(Box::new(move || {
                    tell.send(n).unwrap();
                    gate.recv().unwrap();
                }));
                open
            })
            .collect();
        let mut first = [(); 3].map(|()| told.recv().unwrap());
        first.sort_unstable();
        assert_eq!(first, [0, 1, 2]);
        told.try_recv().unwrap_err();
        gates[1].send(()).unwrap();
        assert_eq!(told.recv().unwrap(), 3);
        told.try_recv().unwrap_err();
        for gate in &gates {
            let _ = gate.send(());
        }
        assert_eq!(told.recv().unwrap(), 4);
        gates[4].send(()).unwrap_or(());
        assert!(pool.0.state.lock().threads <= 3);
    }

    #[test]
    fn a_row_of_jobs_runs_side_by_side_and_is_waited_for() {
        for threads_max in [1, 2, 3, 5] {
            let pool = Pool::new(threads_max).unwrap();
            let (tell, told) = mpsc::channel();
            let jobs = (0..20).map(|n| {
                let tell = tell.clone();
                Box::new(move || tell.send(n).unwrap()) as Job
            });
            pool.run_all(jobs.collect());
            let mut done: Vec<i32> = told.try_iter().collect();
            done.sort_unstable();
            assert_eq!(done, (0..20).collect::<Vec<_>>());
            pool.run_all(Vec::new());
        }
        // Each waits for the other.
        let pool = Pool::new(3).unwrap();
        let (left, right) = (mpsc::channel(), mpsc::channel());
        pool.run_all(vec![
            Box::new(move || {
                left.0.send(()).unwrap();
                right.1.recv().unwrap();
            }),
            Box::new(move || {
                right.0.send(()).unwrap();
                left.1.recv().unwrap();
            }),
        ]);
    }

    #[test]
    fn a_row_may_be_run_from_a_job_of_the_pool() {
        let pool = Arc::new(Pool::new(2).unwrap());
        let (tell, told) = mpsc::channel();
        let (inner, note) = (Arc::clone(&pool), tell.clone());
        pool.run(Box::new(move || {
            inner.run_all((0..3).map(|_| Box::new(|| ()) as Job).collect());
            note.send(()).unwrap();
        }));
        told.recv().unwrap();
    }

    #[test]
    fn jobs_in_the_queue_outlive_the_pool() {
        let pool = Pool::new(1).unwrap();
        let (open, gate) = mpsc::channel::<()>();
        pool.run(Box::new(move || gate.recv().unwrap()));
        let (tell, told) = mpsc::channel();
        for n in 0..100 {
            let tell = tell.clone();
            pool.run(Box::new(move || tell.send(n).unwrap()));
        }
        drop((pool, tell));
        open.send(()).unwrap();
        assert_eq!(told.iter().collect::<Vec<i32>>(), (0..100).collect::<Vec<_>>());
    }
}
