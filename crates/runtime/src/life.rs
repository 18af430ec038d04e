//! The life of a process: roles, the tasks in them, and the order in which they stop.
//!
//! A role is started on top of those before it (storage, then the broker, then its listeners), and stops before
//! them. To stop is to be asked, to drain for a given time, and then to be cut off: its tasks are dropped where they
//! wait. Whoever must not be dropped there finishes within its role's time.

use std::fmt;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::os::random_u64;
use crate::stop::{Reason, Stop};

/// How soon a task that ended is started again at first, in milliseconds; doubled each time, with jitter.
const RESTART_MS: u64 = 100;

/// And at the latest.
const RESTART_MS_MAX: u64 = 10_000;

/// A task that ran for so long starts again as at first.
const RESTART_FORGOTTEN: Duration = Duration::from_secs(60);

/// What a cut-off role has to drop its tasks.
const CUT_OFF: Duration = Duration::from_secs(1);

/// A process and its roles.
#[derive(Debug)]
pub struct Life {
    wanted: Stop,
    roles: Mutex<Vec<Role>>,
}

impl Life {
    /// Without any role.
    #[expect(clippy::new_without_default, reason = "a life begins on purpose")]
    pub fn new() -> Self {
        Self { wanted: Stop::new(), roles: Mutex::default() }
    }

    /// The wish that the process should stop: made by a signal, by a role that failed, or by whoever has this. It
    /// stops nothing by itself: `main` waits for it and then calls [`Life::stop`].
    pub fn wanted(&self) -> &Stop {
        &self.wanted
    }

    /// A role on top of those there are, that has `drain` to stop.
    pub fn role(&self, name: &str, drain: Duration) -> Role {
        let role = Role(Arc::new(RoleInner {
            name: name.to_owned(),
            drain,
            stop: Stop::new(),
            life: self.wanted.clone(),
            tasks: TaskTracker::new(),
            cut: CancellationToken::new(),
        }));
        self.roles.lock().push(role.clone());
        role
    }

    /// Stops the roles one after the other, the last one first. Returns those that had to be cut off.
    pub async fn stop(&self) -> Vec<String> {
        let reason = self.wanted.reason().unwrap_or_else(|| Reason::Asked("asked to stop".to_owned()));
        self.wanted.request(reason.clone());
        let mut late = Vec::new();
        loop {
            // Taken out one by one, so that the guard is not held while one stops.
            let Some(role) = self.roles.lock().pop() else { return late };
            if !role.end(reason.clone()).await {
                late.push(role.name().to_owned());
            }
        }
    }
}

/// A part of a process that starts and stops as a whole. Cloning gives another handle to it.
#[derive(Clone)]
pub struct Role(Arc<RoleInner>);

struct RoleInner {
    name: String,
    drain: Duration,
    stop: Stop,
    life: Stop,
    tasks: TaskTracker,
    cut: CancellationToken,
}

/// What it means when a task ends by itself, well or not, before its role was asked to stop. (Tasks that are to be
/// started again: [`Role::restarting`].)
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnEnd {
    /// The role is worth nothing without it: the process is to stop.
    StopRole,
    /// Nothing: such as the end of a connection. A failure is logged, no more.
    Ignore,
}

/// What a task may end with: nothing, or a result.
pub trait TaskEnd: Send {
    /// What went wrong, if something did.
    fn failure(self) -> Option<String>;
}

impl TaskEnd for () {
    fn failure(self) -> Option<String> {
        None
    }
}

impl<E: fmt::Display + Send> TaskEnd for Result<(), E> {
    fn failure(self) -> Option<String> {
        self.err().map(|e| e.to_string())
    }
}

impl Role {
    /// What it is called in logs.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Tells its tasks to stop.
    pub fn stop(&self) -> &Stop {
        &self.0.stop
    }

    /// A task of this role, to be spawned on any runtime. The role does not end before it.
    #[must_use = "a task does nothing unless spawned"]
    pub fn task<F>(&self, name: &str, on_end: OnEnd, task: F) -> impl Future<Output = ()> + Send + use<F>
    where
        F: Future<Output: TaskEnd> + Send,
    {
        let (role, name) = (self.clone(), name.to_owned());
        self.tracked(async move {
            let end = unpanicked(task).await;
            if role.0.stop.is_requested() {
                return;
            }
            match on_end {
                OnEnd::StopRole => role.fail(&name, end.unwrap_or_else(|| "it was not to end".to_owned())),
                OnEnd::Ignore => {
                    if let Some(why) = end {
                        tracing::warn!(role = role.name(), task = name, "task failed: {why}");
                    }
                }
            }
        })
    }

    /// A task of this role that is started again when it ends, after a delay that grows from 0.1 to 10 s while it
    /// goes on ending.
    #[must_use = "a task does nothing unless spawned"]
    pub fn restarting<M, F>(&self, name: &str, mut make: M) -> impl Future<Output = ()> + Send + use<M, F>
    where
        M: FnMut() -> F + Send,
        F: Future<Output: TaskEnd> + Send,
    {
        let (role, name) = (self.clone(), name.to_owned());
        self.tracked(async move {
            let mut delay_ms = RESTART_MS;
            while !role.0.stop.is_requested() {
                let started = Instant::now();
                let end = unpanicked(make()).await;
                if role.0.stop.is_requested() {
                    return;
                }
                if started.elapsed() >= RESTART_FORGOTTEN {
                    delay_ms = RESTART_MS;
                }
                // Between half and the whole of it, so that what fell together does not rise together.
                let wait_ms = delay_ms / 2 + random_u64() % (delay_ms / 2 + 1);
                delay_ms = (delay_ms * 2).min(RESTART_MS_MAX);
                let why = end.unwrap_or_else(|| "it was not to end".to_owned());
                tracing::warn!(
                    role = role.name(),
                    task = name,
                    wait_ms,
                    "task ended and is started again: {why}"
                );
                tokio::select! {
                    () = role.0.stop.requested() => {}
                    () = tokio::time::sleep(Duration::from_millis(wait_ms)) => {}
                }
            }
        })
    }

    /// The role cannot go on: the process is to stop.
    pub fn fail(&self, task: &str, why: String) {
        let task = format!("{}/{task}", self.0.name);
        tracing::error!(task, "the process stops: {why}");
        self.0.life.request(Reason::Failed { task, why });
    }

    fn tracked<F: Future<Output = ()> + Send>(&self, task: F) -> impl Future<Output = ()> + Send + use<F> {
        let cut = self.0.cut.clone();
        self.0.tasks.track_future(async move {
            tokio::select! {
                biased;
                () = cut.cancelled() => {}
                () = task => {}
            }
        })
    }

    /// Whether all tasks ended in time.
    async fn end(&self, reason: Reason) -> bool {
        let started = Instant::now();
        self.0.stop.request(reason);
        self.0.tasks.close();
        if tokio::time::timeout(self.0.drain, self.0.tasks.wait()).await.is_ok() {
            tracing::debug!(role = self.name(), took_ms = started.elapsed().as_millis() as u64, "stopped");
            return true;
        }
        let drain_ms = self.0.drain.as_millis() as u64;
        tracing::warn!(
            role = self.name(),
            tasks = self.0.tasks.len(),
            drain_ms,
            "not stopped in time: cut off"
        );
        self.0.cut.cancel();
        // Those that wait are dropped at once; one that does not is not worth waiting for.
        let _ = tokio::time::timeout(CUT_OFF, self.0.tasks.wait()).await;
        false
    }
}

impl fmt::Debug for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Role({})", self.0.name)
    }
}

/// Runs a task to its end; a panic is one. What it says has been logged by the hook.
async fn unpanicked<F: Future<Output: TaskEnd>>(task: F) -> Option<String> {
    let mut task = pin!(task);
    std::future::poll_fn(move |cx| {
        // After a panic the task is dropped and nothing of it is looked at again.
        match catch_unwind(AssertUnwindSafe(|| task.as_mut().poll(cx))) {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(end)) => Poll::Ready(end.failure()),
            Err(_) => Poll::Ready(Some("it panicked".to_owned())),
        }
    })
    .await
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::future::pending;

    use tokio::sync::mpsc;

    use super::*;

    const LONG: Duration = Duration::from_secs(3_600);

    /// Says its name when its role is asked to stop.
    fn drainer(role: &Role, told: &mpsc::UnboundedSender<String>) {
        let (stop, told, name) = (role.stop().clone(), told.clone(), role.name().to_owned());
        drop(tokio::spawn(role.task("drain", OnEnd::StopRole, async move {
            stop.requested().await;
            told.send(name).unwrap();
        })));
    }

    #[tokio::test]
    async fn roles_stop_in_reverse_order_each_after_the_one_above() {
        let life = Life::new();
        let (tell, mut told) = mpsc::unbounded_channel();
        for name in ["storage", "broker", "listeners"] {
            drainer(&life.role(name, LONG), &tell);
        }
        assert!(told.try_recv().is_err());
        assert!(life.stop().await.is_empty());
        drop(tell);
        let mut order = Vec::new();
        while let Some(name) = told.recv().await {
            order.push(name);
        }
        assert_eq!(order, ["listeners", "broker", "storage"]);
        assert_eq!(life.wanted().reason(), Some(Reason::Asked("asked to stop".to_owned())));
    }

    #[tokio::test]
    async fn a_role_that_does_not_end_is_cut_off() {
        let life = Life::new();
        let (tell, mut told) = mpsc::unbounded_channel();
        drainer(&life.role("below", LONG), &tell);
        let stuck = life.role("stuck", Duration::ZERO);
        let held = tell.clone();
        drop(tokio::spawn(stuck.task("never", OnEnd::Ignore, async move {
            pending::<()>().await;
            drop(held);
        })));
        drop(tell);
        assert_eq!(life.stop().await, ["stuck"]);
        assert_eq!(told.recv().await.as_deref(), Some("below"));
        assert_eq!(told.recv().await, None, "the stuck task was dropped");
    }

    #[tokio::test]
    async fn the_end_of_a_vital_task_stops_the_process() {
        for (expected, end) in [("it was not to end", Ok(())), ("disk gone", Err("disk gone"))] {
            let life = Life::new();
            drop(tokio::spawn(life.role("broker", LONG).task(
                "flusher",
                OnEnd::StopRole,
                async move { end },
            )));
            life.wanted().requested().await;
            let expected = Reason::Failed { task: "broker/flusher".to_owned(), why: expected.to_owned() };
            assert_eq!(life.wanted().reason(), Some(expected.clone()));
            assert!(life.stop().await.is_empty());
            assert_eq!(life.wanted().reason(), Some(expected));
        }
    }

    async fn panics() {
        panic!("on purpose");
    }

    #[tokio::test]
    async fn a_panic_is_an_end() {
        let life = Life::new();
        let role = life.role("broker", LONG);
        tokio::spawn(role.task("connection", OnEnd::Ignore, panics())).await.unwrap();
        assert!(!life.wanted().is_requested());
        tokio::spawn(role.task("vital", OnEnd::StopRole, panics())).await.unwrap();
        assert!(life.wanted().reason().unwrap().to_string().contains("panicked"));
    }

    #[tokio::test]
    async fn what_ends_after_the_wish_has_no_meaning() {
        let life = Life::new();
        let role = life.role("broker", LONG);
        drainer(&role, &mpsc::unbounded_channel().0);
        role.stop().request(Reason::Asked("test".to_owned()));
        role.task("late", OnEnd::StopRole, async { Err::<(), _>("late") }).await;
        assert!(!life.wanted().is_requested());
    }

    #[tokio::test]
    async fn a_restarting_task_comes_back_until_its_role_stops() {
        let life = Life::new();
        let role = life.role("watcher", LONG);
        let (tell, mut told) = mpsc::unbounded_channel();
        let mut run = 0;
        let stop = role.stop().clone();
        drop(tokio::spawn(role.restarting("watch", move || {
            run += 1;
            let (run, tell, stop) = (run, tell.clone(), stop.clone());
            async move {
                tell.send(run).unwrap();
                match run {
                    1 => Err("lost"),
                    2 => panic!("on purpose"),
                    _ => {
                        stop.requested().await;
                        Ok(())
                    }
                }
            }
        })));
        for expected in 1..=3 {
            assert_eq!(told.recv().await, Some(expected));
        }
        assert!(life.stop().await.is_empty());
        assert_eq!(told.recv().await, None);
    }

    #[tokio::test]
    async fn a_stop_does_not_wait_for_a_restart() {
        let life = Life::new();
        let role = life.role("watcher", LONG);
        let (tell, mut told) = mpsc::unbounded_channel();
        drop(tokio::spawn(role.restarting("watch", move || {
            tell.send(()).unwrap();
            async { Ok::<(), Infallible>(()) }
        })));
        // By now its next start is seconds away.
        for _ in 0..4 {
            told.recv().await.unwrap();
        }
        assert!(life.stop().await.is_empty());
    }
}
