//! The runtimes of a process, laid out in one place.
//!
//! ```text
//! data plane      D runtimes, one thread each: connections stay where they were put, nothing is shared
//! control plane   one small runtime with several threads: metadata, raft, admin, everything per topic
//! ```
//!
//! An acceptor on the control plane hands each connection to the data runtime with the fewest; who counts them is
//! the acceptor. Nothing on a data runtime runs long. (Two cores, 8 connections: two single-threaded runtimes moved
//! 3.03 GB/s, one 2.41, a multi-threaded one 2.83; 4 KiB to acknowledgement took 11 us against 14.)

use std::fmt;
use std::future::Future;
use std::io;
use std::sync::Arc;

use tokio::runtime::{Builder, Handle, Runtime};
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::threads;

/// More data runtimes than this are never started unasked: what they share (page cache, flusher) is busy by then.
const DATA_RUNTIMES_MAX: usize = 16;

/// Threads for name lookups and the like, which tokio runs by itself.
const BLOCKING_THREADS_MAX: usize = 16;

/// How many runtimes, and how large.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExecutorsConfig {
    /// Runtimes of the data plane, at least 1.
    pub data_runtimes: usize,
    /// Threads of the control plane's runtime, at least 1.
    pub control_threads: usize,
}

impl Default for ExecutorsConfig {
    /// One data runtime a core, up to 16, and two threads of control.
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get());
        Self { data_runtimes: cores.min(DATA_RUNTIMES_MAX), control_threads: 2 }
    }
}

/// Handles to the runtimes. The last clone takes the threads with it; what still runs then is dropped at its next
/// await.
#[derive(Clone)]
pub struct Executors {
    data: Arc<[Handle]>,
    control: Handle,
    _threads: Option<Arc<Threads>>,
}

/// Ends the threads when dropped.
struct Threads {
    control: Option<Runtime>,
    _data: DropGuard,
}

impl Drop for Threads {
    fn drop(&mut self) {
        // Not the ordinary drop: that waits, which is forbidden on an executor, where the last clone may be.
        if let Some(control) = self.control.take() {
            control.shutdown_background();
        }
    }
}

impl Executors {
    /// Starts the threads.
    ///
    /// # Errors
    /// If the system gives no thread or no event queue.
    pub fn start(wanted: &ExecutorsConfig) -> io::Result<Self> {
        let control = Builder::new_multi_thread()
            .worker_threads(wanted.control_threads.max(1))
            .max_blocking_threads(BLOCKING_THREADS_MAX)
            .thread_name("weir-control")
            .enable_all()
            .build()?;
        let over = CancellationToken::new();
        let ending = over.clone().drop_guard();
        let mut data = Vec::new();
        for index in 0..wanted.data_runtimes.max(1) {
            let runtime = Builder::new_current_thread()
                .max_blocking_threads(BLOCKING_THREADS_MAX)
                .enable_all()
                .build()?;
            data.push(runtime.handle().clone());
            let over = over.clone();
            threads::spawn(&format!("weir-data-{index}"), move || {
                runtime.block_on(over.cancelled());
                runtime.shutdown_background();
            })?;
        }
        let handle = control.handle().clone();
        let threads = Threads { control: Some(control), _data: ending };
        Ok(Self { data: data.into(), control: handle, _threads: Some(Arc::new(threads)) })
    }

    /// Everything on the runtime this is called from, as if it were so many: for tests and simulations.
    pub fn current(wanted: &ExecutorsConfig) -> Self {
        let here = Handle::current();
        let data = vec![here.clone(); wanted.data_runtimes.max(1)];
        Self { data: data.into(), control: here, _threads: None }
    }

    /// How many data runtimes there are; at least 1.
    pub fn data_runtimes(&self) -> usize {
        self.data.len()
    }

    /// Runs a task on one of the data runtimes; numbers from [`Executors::data_runtimes`] on start over.
    pub fn spawn_data<F>(&self, index: usize, task: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        let index = index.checked_rem(self.data.len()).unwrap_or(0);
        self.data.get(index).unwrap_or(&self.control).spawn(task)
    }

    /// Runs a task on the control plane.
    pub fn spawn_control<F>(&self, task: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.control.spawn(task)
    }

    /// Runs the whole process: on the calling thread, which must not be an executor's, with the control plane
    /// around it.
    pub fn run<F: Future>(&self, main: F) -> F::Output {
        self.control.block_on(main)
    }
}

impl fmt::Debug for Executors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Executors({} data runtimes)", self.data.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn thread_name() -> String {
        std::thread::current().name().unwrap_or_default().to_owned()
    }

    #[test]
    fn tasks_run_where_they_were_put() {
        let executors = Executors::start(&ExecutorsConfig { data_runtimes: 3, control_threads: 1 }).unwrap();
        assert_eq!(executors.data_runtimes(), 3);
        let names = executors.run(async {
            let mut names = Vec::new();
            for index in 0..4 {
                names.push(executors.spawn_data(index, async { thread_name() }).await.unwrap());
            }
            names.push(executors.spawn_control(async { thread_name() }).await.unwrap());
            names
        });
        assert_eq!(names, ["weir-data-0", "weir-data-1", "weir-data-2", "weir-data-0", "weir-control"]);
    }

    #[test]
    fn sockets_and_timers_work_on_every_runtime() {
        let executors = Executors::start(&ExecutorsConfig { data_runtimes: 2, control_threads: 1 }).unwrap();
        executors.run(async {
            for index in 0..2 {
                let task = executors.spawn_data(index, async {
                    tokio::time::sleep(std::time::Duration::from_millis(1)).await;
                    tokio::net::TcpListener::bind("127.0.0.1:0").await.map(drop)
                });
                task.await.unwrap().unwrap();
            }
        });
    }

    #[test]
    fn the_last_handle_ends_the_threads_and_their_tasks() {
        let executors = Executors::start(&ExecutorsConfig { data_runtimes: 1, control_threads: 1 }).unwrap();
        let (held, dropped) = std::sync::mpsc::channel::<()>();
        for _ in 0..2 {
            let held = held.clone();
            drop(executors.spawn_data(0, async move {
                std::future::pending::<()>().await;
                drop(held);
            }));
        }
        drop(held);
        // Dropped on one of its own threads, as it may happen.
        let last = executors.clone();
        drop(executors);
        let on_control = last.clone();
        drop(last.spawn_control(async move { drop(on_control) }));
        drop(last);
        dropped.recv().unwrap_err();
    }

    #[tokio::test]
    async fn a_test_has_all_of_them_on_its_own_runtime() {
        let executors = Executors::current(&ExecutorsConfig { data_runtimes: 4, control_threads: 1 });
        assert_eq!(executors.data_runtimes(), 4);
        let here = std::thread::current().id();
        let there = executors.spawn_data(3, async { std::thread::current().id() });
        assert_eq!(there.await.unwrap(), here);
    }
}
