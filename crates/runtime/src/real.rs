//! The operating system that production runs on.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use async_trait::async_trait;
use weir_io::{Disk, RealDisk};

use crate::executors::{Executors, ExecutorsConfig};
use crate::net;
use crate::os::{Connection, Listener, Os, Step, Waker};
use crate::threads::{self, Pool};

/// Linux.
pub struct RealOs {
    disk: Arc<dyn Disk>,
    pool: Pool,
    boot_id: String,
}

impl RealOs {
    /// With up to so many threads for blocking work.
    ///
    /// # Errors
    /// As [`RealOs::with_disk`].
    pub fn new(io_threads_max: usize) -> io::Result<Self> {
        Self::with_disk(Arc::new(RealDisk::new()), io_threads_max)
    }

    /// The same on another disk, for tests that want real threads.
    ///
    /// # Errors
    /// If the system does not say its boot id, or gives no thread.
    pub fn with_disk(disk: Arc<dyn Disk>, io_threads_max: usize) -> io::Result<Self> {
        Ok(Self { disk, pool: Pool::new(io_threads_max)?, boot_id: boot_id() })
    }

    /// Threads for blocking work unless configured: they wait for the disk, not for the processor.
    pub fn default_io_threads() -> usize {
        let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get());
        (4 * cores).clamp(8, 64)
    }
}

/// The wall clock of the machine.
pub(crate) fn wall_ms() -> i64 {
    #[expect(clippy::disallowed_methods, reason = "this is where the wall clock is read")]
    let now = std::time::SystemTime::now();
    // A clock before 1970 is as wrong as one in the far future; both are the caller's to bear.
    match now.duration_since(std::time::UNIX_EPOCH) {
        Ok(after) => i64::try_from(after.as_millis()).unwrap_or(i64::MAX),
        Err(before) => i64::try_from(before.duration().as_millis()).map_or(i64::MIN, |ms| -ms),
    }
}

/// Chance as the system gives it.
pub(crate) fn random_u64() -> u64 {
    rand::random()
}

fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .map(|id| id.trim().to_owned())
        .unwrap_or_default()
}

#[async_trait]
impl Os for RealOs {
    async fn listen(&self, addr: SocketAddr) -> io::Result<Box<dyn Listener>> {
        net::listen(addr)
    }

    async fn connect(&self, host: &str, port: u16) -> io::Result<Box<dyn Connection>> {
        net::connect(host, port).await
    }

    fn disk(&self) -> Arc<dyn Disk> {
        Arc::clone(&self.disk)
    }

    fn executors(&self, wanted: &ExecutorsConfig) -> io::Result<Executors> {
        Executors::start(wanted)
    }

    fn block(&self, job: Box<dyn FnOnce() + Send>) {
        self.pool.run(job);
    }

    fn run_all(&self, jobs: Vec<Box<dyn FnOnce() + Send>>) {
        self.pool.run_all(jobs);
    }

    fn spawn_loop(&self, name: &str, step: Box<dyn FnMut() -> Step + Send>) -> Waker {
        threads::spawn_loop(name, step)
    }

    fn wall_ms(&self) -> i64 {
        wall_ms()
    }

    fn boot_id(&self) -> String {
        self.boot_id.clone()
    }

    fn random_u64(&self) -> u64 {
        random_u64()
    }
}

impl fmt::Debug for RealOs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RealOs({:?})", self.disk)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_tells_time_and_boot() {
        let os = RealOs::new(1).unwrap();
        // Any day after this was written, and before milliseconds were taken for something smaller.
        assert!((1_700_000_000_000..100_000_000_000_000).contains(&os.wall_ms()), "{}", os.wall_ms());
        assert_eq!(os.boot_id().len(), 36, "{:?}", os.boot_id());
        assert_eq!(os.boot_id(), RealOs::new(1).unwrap().boot_id());
    }

    #[test]
    fn blocking_work_is_done_off_the_caller() {
        let os = RealOs::new(2).unwrap();
        let (tell, told) = std::sync::mpsc::channel();
        os.block(Box::new(move || tell.send(std::thread::current().name().map(str::to_owned)).unwrap()));
        assert!(told.recv().unwrap().unwrap().starts_with("weir-io-"));
    }
}
