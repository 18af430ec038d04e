//! An operating system for tests: real sockets on loopback, any disk, a wall clock that only the test moves, and
//! blocking work and loops as tasks of the test's own runtime, so that a single-threaded test is the same in every
//! run. Not a simulation: links do not break, and time is tokio's.

mod said;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::time::Instant;
pub use weir_io::Dice;
use weir_io::Disk;

pub use self::said::{Said, listen};
use crate::executors::{Executors, ExecutorsConfig};
use crate::net;
use crate::os::{Connection, Listener, Os, Step, Waker};
use crate::real;
use crate::threads::{self, Pool};

/// What the clock shows at first: 2023-11-14 22:13:20 UTC.
pub const START_WALL_MS: i64 = 1_700_000_000_000;

/// Longer than anything takes that a test waits for: one that waits so long has failed.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Waits for something that happens by itself, looking again and again.
///
/// # Panics
/// It does not happen within [`PATIENCE`].
pub async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let looking = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    if tokio::time::timeout(PATIENCE, looking).await.is_err() {
        panic!("{what}: it did not happen in {PATIENCE:?}");
    }
}

/// A seed that no other run has.
#[must_use]
pub fn random_seed() -> u64 {
    real::random_u64()
}

/// Threads for blocking work, where a test wants threads.
const IO_THREADS_MAX: usize = 4;

/// An operating system in the hand of a test. Cloning gives another handle to the same one.
#[derive(Clone)]
pub struct TestOs(Arc<Shared>);

struct Shared {
    disk: Arc<dyn Disk>,
    work: Work,
    wall_ms: AtomicI64,
    boot_id: Mutex<String>,
    dice: Mutex<Dice>,
    /// By how much longer calls to the disk take than they do, in milliseconds.
    slower_ms: AtomicU64,
}

/// Who does blocking work and runs loops.
enum Work {
    Tasks(Handle),
    Threads(Pool),
}

impl TestOs {
    /// Blocking work and loops are tasks of the runtime this is called from. A job that waits for another one
    /// would wait for ever.
    pub fn new(disk: Arc<dyn Disk>) -> Self {
        Self::with(disk, Work::Tasks(Handle::current()))
    }

    /// Blocking work and loops have threads, as in production. Needs no runtime.
    ///
    /// # Errors
    /// As [`RealOs::with_disk`](crate::RealOs::with_disk).
    pub fn threads(disk: Arc<dyn Disk>) -> io::Result<Self> {
        Ok(Self::with(disk, Work::Threads(Pool::new(IO_THREADS_MAX)?)))
    }

    fn with(disk: Arc<dyn Disk>, work: Work) -> Self {
        Self(Arc::new(Shared {
            disk,
            work,
            wall_ms: AtomicI64::new(START_WALL_MS),
            boot_id: Mutex::new("boot-1".to_owned()),
            dice: Mutex::new(Dice::new(random_seed())),
            slower_ms: AtomicU64::new(0),
        }))
    }

    /// Sets the wall clock.
    pub fn set_wall_ms(&self, wall_ms: i64) {
        self.0.wall_ms.store(wall_ms, Ordering::SeqCst);
    }

    /// Moves the wall clock, either way.
    pub fn advance_wall_ms(&self, by_ms: i64) {
        self.0.wall_ms.fetch_add(by_ms, Ordering::SeqCst);
    }

    /// From here on this seed decides what chance brings. Until then every process has a seed of its own: two must never
    /// give out the same ids.
    pub fn set_seed(&self, seed: u64) {
        *self.0.dice.lock() = Dice::new(seed);
    }

    /// From now on calls to the disk are said to take so much longer; nobody waits for it.
    pub fn set_disk_slower(&self, by: Duration) {
        self.0.slower_ms.store(u64::try_from(by.as_millis()).unwrap_or(u64::MAX), Ordering::SeqCst);
    }

    /// The machine was restarted: this is the new boot id.
    pub fn set_boot_id(&self, boot_id: &str) {
        boot_id.clone_into(&mut self.0.boot_id.lock());
    }
}

#[async_trait]
impl Os for TestOs {
    async fn listen(&self, addr: SocketAddr) -> io::Result<Box<dyn Listener>> {
        net::listen(addr)
    }

    async fn connect(&self, host: &str, port: u16) -> io::Result<Box<dyn Connection>> {
        net::connect(host, port).await
    }

    fn disk(&self) -> Arc<dyn Disk> {
        Arc::clone(&self.0.disk)
    }

    fn executors(&self, wanted: &ExecutorsConfig) -> io::Result<Executors> {
        Ok(Executors::current(wanted))
    }

    fn block(&self, job: Box<dyn FnOnce() + Send>) {
        match &self.0.work {
            Work::Tasks(handle) => drop(handle.spawn(async move { threads::or_abort("block", job) })),
            Work::Threads(pool) => pool.run(job),
        }
    }

    fn run_all(&self, jobs: Vec<Box<dyn FnOnce() + Send>>) {
        match &self.0.work {
            Work::Tasks(_) => jobs.into_iter().for_each(|job| job()),
            Work::Threads(pool) => pool.run_all(jobs),
        }
    }

    fn spawn_loop(&self, name: &str, step: Box<dyn FnMut() -> Step + Send>) -> Waker {
        match &self.0.work {
            Work::Tasks(handle) => {
                let bell = Arc::new(Notify::new());
                drop(handle.spawn(run_loop(name.to_owned(), step, Arc::clone(&bell))));
                Arc::new(move || bell.notify_one())
            }
            Work::Threads(_) => threads::spawn_loop(name, step),
        }
    }

    fn took(&self, begun: Instant) -> Duration {
        begun.elapsed() + Duration::from_millis(self.0.slower_ms.load(Ordering::SeqCst))
    }

    fn wall_ms(&self) -> i64 {
        self.0.wall_ms.load(Ordering::SeqCst)
    }

    fn boot_id(&self) -> String {
        self.0.boot_id.lock().clone()
    }

    fn random_u64(&self) -> u64 {
        self.0.dice.lock().roll()
    }
}

/// A loop as a task. A ring while it does not wait is kept by the bell, one of them is enough.
async fn run_loop(name: String, mut step: Box<dyn FnMut() -> Step + Send>, bell: Arc<Notify>) {
    loop {
        let mut next = Step::Done;
        threads::or_abort(&name, || next = step());
        match next {
            Step::Again => tokio::task::yield_now().await,
            Step::Wait(time) => drop(tokio::time::timeout(time, bell.notified()).await),
            Step::Done => return,
        }
    }
}

impl fmt::Debug for TestOs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TestOs({:?})", self.0.disk)
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc;
    use weir_io::MemDisk;

    use super::*;

    #[tokio::test]
    async fn loops_and_blocking_work_are_tasks() {
        let os = TestOs::new(Arc::new(MemDisk::new(0)));
        let here = std::thread::current().id();
        let (tell, mut told) = mpsc::unbounded_channel();
        let note = tell.clone();
        os.block(Box::new(move || note.send(std::thread::current().id()).unwrap()));
        let mut steps = 0;
        let wake = os.spawn_loop(
            "test",
            Box::new(move || {
                steps += 1;
                tell.send(std::thread::current().id()).unwrap();
                match steps {
                    1 => Step::Again,
                    2 => Step::Wait(Duration::MAX),
                    3 => Step::Wait(Duration::ZERO),
                    _ => Step::Done,
                }
            }),
        );
        for _ in 0..3 {
            assert_eq!(told.recv().await, Some(here));
        }
        wake();
        assert_eq!(told.recv().await, Some(here));
        assert_eq!(told.recv().await, Some(here));
        assert_eq!(told.recv().await, None);
    }

    #[tokio::test]
    async fn a_ring_before_the_wait_ends_it() {
        let os = TestOs::new(Arc::new(MemDisk::new(0)));
        let (tell, mut told) = mpsc::unbounded_channel();
        let wake = os.spawn_loop(
            "test",
            Box::new(move || if tell.send(()).is_ok() { Step::Wait(Duration::MAX) } else { Step::Done }),
        );
        // Neither rings nor steps have come to run yet.
        wake();
        wake();
        told.recv().await.unwrap();
        told.recv().await.unwrap();
        drop(told);
        wake();
    }

    #[test]
    fn with_threads_no_runtime_is_needed() {
        let os = TestOs::threads(Arc::new(MemDisk::new(0))).unwrap();
        let (tell, told) = std::sync::mpsc::channel();
        os.block(Box::new(move || tell.send(1).unwrap()));
        assert_eq!(told.recv().unwrap(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_waited_for_is_looked_at_again() {
        let mut looks = 0;
        until("the third look", async || {
            looks += 1;
            looks == 3
        })
        .await;
        assert_eq!(looks, 3);
    }

    #[tokio::test(start_paused = true)]
    #[should_panic(expected = "a miracle: it did not happen")]
    async fn a_wait_has_an_end_even_where_a_look_has_none() {
        until("a miracle", async || std::future::pending().await).await;
    }

    #[tokio::test]
    async fn a_seed_decides_what_chance_brings() {
        let draw = |seed: Option<u64>| {
            let os = TestOs::new(Arc::new(MemDisk::new(0)));
            seed.into_iter().for_each(|seed| os.set_seed(seed));
            (os.random_u64(), os.random_u128())
        };
        assert_eq!(draw(Some(1)), draw(Some(1)));
        assert_ne!(draw(Some(1)), draw(Some(2)));
        assert_ne!(draw(None), draw(None));
    }

    #[tokio::test]
    async fn only_the_test_moves_the_clock() {
        let os = TestOs::new(Arc::new(MemDisk::new(0)));
        assert_eq!(os.wall_ms(), START_WALL_MS);
        os.advance_wall_ms(-1_000);
        assert_eq!(os.wall_ms(), START_WALL_MS - 1_000);
        os.set_boot_id("boot-2");
        assert_eq!(os.boot_id(), "boot-2");
        assert_eq!(
            os.executors(&ExecutorsConfig::default()).unwrap().data_runtimes(),
            ExecutorsConfig::default().data_runtimes
        );
    }
}
