//! A part of a process, a role, and the tasks that keep it alive.
//!
//! Whoever spawns such a task says what its end means. One that fails or panics is never merely gone, so that
//! everybody who waits for it would wait for ever: the wish is made that the process stops, with the reason, and
//! whoever runs the process stops it in order. Nothing is started again here: a task that can go on after a failure
//! does so itself, and after a panic nobody knows what its state is worth.
//!
//! Tasks that serve one connection or one stream are not of this kind: their end is that of what they serve.

use std::fmt;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use crate::stop::{Reason, Stop};

/// What tasks that are cut off have to be dropped.
const CUT_OFF: Duration = Duration::from_secs(1);

/// A part of a process that starts and stops as a whole. Dropped, it takes its tasks with it: they are dropped
/// where they wait.
pub struct Role {
    shared: Arc<Shared>,
    cut: DropGuard,
}

struct Shared {
    name: &'static str,
    over: Stop,
    tasks: TaskTracker,
    cut: CancellationToken,
}

/// What it means when a task comes to its end before anybody wished that the process stops. (A failure or a panic
/// always means that it stops.)
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnEnd {
    /// The role is worth nothing without it: the process is to stop.
    StopRole,
    /// Nothing: it was done, or it ends with something that is watched by itself.
    Ignore,
}

/// What a task may end with: nothing, or a result.
pub trait TaskEnd: Send {
    /// What went wrong, if something did.
    fn failure(&self) -> Option<String>;
}

impl TaskEnd for () {
    fn failure(&self) -> Option<String> {
        None
    }
}

impl<E: fmt::Display + Send> TaskEnd for Result<(), E> {
    fn failure(&self) -> Option<String> {
        self.as_ref().err().map(ToString::to_string)
    }
}

impl Role {
    /// A role without tasks. `over` is the wish that the process stops: made by a task that ends here, by a signal,
    /// or by whoever stops it. Once it is made, the end of a task means nothing any more.
    pub fn new(name: &'static str, over: Stop) -> Self {
        let cut = CancellationToken::new();
        let shared = Shared { name, over, tasks: TaskTracker::new(), cut: cut.clone() };
        Self { shared: Arc::new(shared), cut: cut.drop_guard() }
    }

    /// A task of this role, to be spawned on any runtime. It gives what it ended with; `None` if it panicked or was
    /// cut off.
    #[must_use = "a task does nothing unless spawned"]
    pub fn task<F>(
        &self,
        name: &'static str,
        on_end: OnEnd,
        task: F,
    ) -> impl Future<Output = Option<F::Output>> + Send + use<F>
    where
        F: Future<Output: TaskEnd> + Send,
    {
        let (shared, cut) = (self.shared.clone(), self.shared.cut.clone());
        self.shared.tasks.track_future(async move {
            let end = tokio::select! {
                biased;
                () = cut.cancelled() => return None,
                end = unpanicked(task) => end,
            };
            let why = match &end {
                None => Some("it panicked".to_owned()),
                Some(end) => end.failure(),
            };
            match (why, on_end) {
                (Some(why), _) => shared.fail(name, why),
                (None, OnEnd::StopRole) => shared.fail(name, "it was not to end".to_owned()),
                (None, OnEnd::Ignore) => {}
            }
            end
        })
    }

    /// Drops the tasks where they wait, and returns when they are gone. Whoever must not be dropped there has come
    /// to its end before.
    pub async fn end(self) {
        let Self { shared, cut } = self;
        drop(cut);
        shared.tasks.close();
        // One that does not wait is not worth waiting for.
        if tokio::time::timeout(CUT_OFF, shared.tasks.wait()).await.is_err() {
            tracing::warn!(role = shared.name, tasks = shared.tasks.len(), "not stopped in time");
        }
    }
}

impl Shared {
    /// The role cannot go on: the process is to stop.
    fn fail(&self, task: &'static str, why: String) {
        if self.over.is_requested() {
            return;
        }
        let task = format!("{}/{task}", self.name);
        tracing::error!(task, "the process stops: {why}");
        self.over.request(Reason::Failed { task, why });
    }
}

impl fmt::Debug for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Role({}, {} tasks)", self.shared.name, self.shared.tasks.len())
    }
}

/// Runs a task to its end; `None` if it panics. What it says then has been logged by the hook.
async fn unpanicked<F: Future>(task: F) -> Option<F::Output> {
    let mut task = pin!(task);
    std::future::poll_fn(move |cx| {
        // After a panic the task is dropped and nothing of it is looked at again.
        match catch_unwind(AssertUnwindSafe(|| task.as_mut().poll(cx))) {
            Ok(polled) => polled.map(Some),
            Err(_) => Poll::Ready(None),
        }
    })
    .await
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use tokio::sync::oneshot;

    use super::*;

    fn failed(task: &str, why: &str) -> Option<Reason> {
        Some(Reason::Failed { task: task.to_owned(), why: why.to_owned() })
    }

    async fn panics() {
        panic!("on purpose");
    }

    #[tokio::test]
    async fn the_end_of_a_vital_task_stops_the_process() {
        for (expected, end) in [("it was not to end", Ok(())), ("disk gone", Err("disk gone"))] {
            let over = Stop::new();
            let role = Role::new("broker", over.clone());
            let task = tokio::spawn(role.task("follow", OnEnd::StopRole, async move { end }));
            over.requested().await;
            assert_eq!(over.reason(), failed("broker/follow", expected));
            assert_eq!(task.await.unwrap(), Some(end));
            role.end().await;
        }
    }

    #[tokio::test]
    async fn what_may_end_may_not_fail() {
        for (expected, end) in [(None, Ok(())), (failed("broker/announce", "refused"), Err("refused"))] {
            let over = Stop::new();
            let role = Role::new("broker", over.clone());
            role.task("announce", OnEnd::Ignore, async move { end }).await;
            assert_eq!(over.reason(), expected);
        }
    }

    #[tokio::test]
    async fn a_panic_stops_the_process_whatever_the_end_means() {
        for on_end in [OnEnd::StopRole, OnEnd::Ignore] {
            let over = Stop::new();
            let role = Role::new("broker", over.clone());
            assert_eq!(tokio::spawn(role.task("follow", on_end, panics())).await.unwrap(), None);
            assert_eq!(over.reason(), failed("broker/follow", "it panicked"));
        }
    }

    #[tokio::test]
    async fn what_ends_after_the_wish_has_no_meaning() {
        let over = Stop::new();
        let role = Role::new("broker", over.clone());
        let asked = Reason::Asked("test".to_owned());
        over.request(asked.clone());
        assert_eq!(role.task("late", OnEnd::StopRole, async { Err("late") }).await, Some(Err("late")));
        assert_eq!(over.reason(), Some(asked));
    }

    #[tokio::test]
    async fn a_role_takes_its_tasks_with_it() {
        for in_order in [true, false] {
            let over = Stop::new();
            let role = Role::new("broker", over.clone());
            let (held, dropped) = oneshot::channel::<()>();
            let task = tokio::spawn(role.task("stuck", OnEnd::StopRole, async move {
                pending::<()>().await;
                drop(held);
            }));
            if in_order {
                role.end().await;
                assert!(task.is_finished());
            } else {
                drop(role);
            }
            dropped.await.unwrap_err();
            assert_eq!(task.await.unwrap(), None);
            assert!(!over.is_requested(), "it was meant");
        }
    }
}
