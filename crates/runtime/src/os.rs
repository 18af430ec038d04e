//! The [`Os`] trait: what a simulator must provide, and nothing more.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;
use weir_io::Disk;

use crate::executors::{Executors, ExecutorsConfig};

/// A byte stream between two processes.
pub trait Connection: AsyncRead + AsyncWrite + Send + Unpin + fmt::Debug + 'static {
    /// The other end's address, for logs.
    fn peer(&self) -> Option<SocketAddr>;
}

/// A connection that was accepted and belongs to no runtime yet: whoever accepts hands it to the one that will
/// serve it.
pub trait Incoming: Send + fmt::Debug + 'static {
    /// The other end's address.
    fn peer(&self) -> SocketAddr;

    /// Makes it usable on the runtime this is called from, and on no other.
    ///
    /// # Errors
    /// If the runtime cannot wait for it: it has no event queue, or is stopping.
    fn into_connection(self: Box<Self>) -> io::Result<Box<dyn Connection>>;
}

/// Takes connections.
#[async_trait]
pub trait Listener: Send + 'static {
    /// The address it is bound to, with the port that was given where port 0 was asked.
    fn local_addr(&self) -> SocketAddr;

    /// The next connection. Cancel safe: no connection is lost. Running out of descriptors is an error that
    /// passes: the caller waits a moment and calls again.
    async fn accept(&mut self) -> io::Result<Box<dyn Incoming>>;
}

/// Ends the wait of a loop.
pub type Waker = Arc<dyn Fn() + Send + Sync>;

/// What one turn of a loop did, and when the next is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// There may be more to do: call again at once.
    Again,
    /// Nothing to do until woken, or until this much time has passed.
    Wait(Duration),
    /// The loop is over.
    Done,
}

/// The operating system.
#[async_trait]
pub trait Os: Send + Sync + fmt::Debug + 'static {
    /// Binds a TCP listener (with SO_REUSEADDR, TCP_NODELAY on what it accepts). Port 0 asks for a free one.
    async fn listen(&self, addr: SocketAddr) -> io::Result<Box<dyn Listener>>;

    /// Connects to `host:port` (with TCP_NODELAY), trying each address the name has. For use on the runtime
    /// this is called from. Waits as long as the system does: the caller brings its own deadline.
    async fn connect(&self, host: &str, port: u16) -> io::Result<Box<dyn Connection>>;

    /// The disk.
    fn disk(&self) -> Arc<dyn Disk>;

    /// The runtimes that the process serves on. In a simulation all of them are the one it is called from.
    ///
    /// # Errors
    /// If the system gives no thread.
    fn executors(&self, wanted: &ExecutorsConfig) -> io::Result<Executors>;

    /// Runs blocking work off the executors, on a bounded pool, in the order of the calls as far as threads are
    /// free. It always runs, also while the process stops. The queue before the pool has no bound of its own:
    /// whoever calls waits for the answer before asking for more. In a simulation it runs as a task.
    fn block(&self, job: Box<dyn FnOnce() + Send>);

    /// Runs blocking jobs and waits until all of them are done: side by side where there are threads, the caller's
    /// among them, so that it may be called from a job too. Some threads of the pool stay free for others. In a
    /// simulation they run here, one after the other.
    fn run_all(&self, jobs: Vec<Box<dyn FnOnce() + Send>>) {
        jobs.into_iter().for_each(|job| job());
    }

    /// Runs `step` again and again on a thread of its own (a local task in a simulation) until it says
    /// [`Step::Done`]. The returned waker ends a [`Step::Wait`] early; waking is cheap, from any thread, and never
    /// lost: what was woken for before or during a step is seen by the next one.
    ///
    /// A panic in a step, or in a job given to [`Os::block`], ends the process: a loop that is silently gone would
    /// leave everybody who waits for it waiting.
    fn spawn_loop(&self, name: &str, step: Box<dyn FnMut() -> Step + Send>) -> Waker;

    /// Ends the process, at once and without a word to anybody: after a failed write or sync nobody knows what the disk
    /// holds (correctness rule 35). In a simulation it returns, and nothing that the process does afterwards is heard of.
    fn end_process(&self) {
        std::process::abort();
    }

    /// How long a call to the disk took that began then. In a simulation, where calls take no time, it says how long this one
    /// would have taken.
    fn took(&self, begun: Instant) -> Duration {
        begun.elapsed()
    }

    /// The wall clock: milliseconds since 1970 UTC. It may jump either way; nothing is timed out by it.
    fn wall_ms(&self) -> i64;

    /// What tells one start of this machine from the next: as long as it is the same, the page cache is still
    /// there. Empty if the system does not say, which counts as another start.
    fn boot_id(&self) -> String;

    /// The one source of chance: ids, jitter, choices. In a simulation the process's seed decides it.
    fn random_u64(&self) -> u64;

    /// As [`Os::random_u64`], for ids of 128 bits.
    fn random_u128(&self) -> u128 {
        u128::from(self.random_u64()) << 64 | u128::from(self.random_u64())
    }
}

/// Half of a wait at least, all of it at most, in milliseconds: who waits for the same thing does not come back together
/// with all others.
pub fn spread_ms(os: &dyn Os, wait_ms: u64) -> u64 {
    let half = wait_ms / 2;
    half + os.random_u64() % (half + 1)
}
