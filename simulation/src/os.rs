//! The operating system of a simulated machine.

use std::fmt;
use std::future::pending;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout};
use weir_io::{Dice, Disk};
use weir_runtime::{Connection, Executors, ExecutorsConfig, Listener, Os, Step, Waker};

use crate::life::Life;
use crate::net;
use crate::world::world;

/// What blocking work takes at most, in microseconds, apart from the rare time that the disk is busy.
const JOB_US_MAX: u64 = 800;
/// And then.
const BUSY_US_MAX: u64 = 30_000;
/// In so many of a hundred cases.
const BUSY_PERCENT: u64 = 3;

/// One life of a machine, as its process sees it.
pub(crate) struct SimOs {
    life: Arc<Life>,
    here: Handle,
    /// What the process draws.
    dice: Mutex<Dice>,
    /// How long its threads take.
    delays: Arc<Mutex<Dice>>,
}

impl SimOs {
    /// For the process that begins here; to be made on the machine's runtime.
    pub(crate) fn new(life: Arc<Life>, dice: Dice) -> Self {
        let delays = Arc::new(Mutex::new(world().dice()));
        Self { life, here: Handle::current(), dice: Mutex::new(dice), delays }
    }
}

/// How long a job waits for a thread, and takes.
fn job_time(dice: &Mutex<Dice>) -> Duration {
    let mut dice = dice.lock();
    let max = if dice.percent(BUSY_PERCENT) { BUSY_US_MAX } else { JOB_US_MAX };
    // No time at all is as likely as some: timers are no finer than a millisecond.
    if dice.percent(50) { Duration::ZERO } else { Duration::from_micros(dice.below(max)) }
}

#[async_trait]
impl Os for SimOs {
    async fn listen(&self, addr: SocketAddr) -> io::Result<Box<dyn Listener>> {
        net::listen(self.life.clone(), addr).await
    }

    async fn connect(&self, host: &str, port: u16) -> io::Result<Box<dyn Connection>> {
        net::connect(self.life.clone(), host.to_owned(), port).await
    }

    fn disk(&self) -> Arc<dyn Disk> {
        self.life.disk()
    }

    fn executors(&self, wanted: &ExecutorsConfig) -> io::Result<Executors> {
        Ok(Executors::current(wanted))
    }

    fn block(&self, job: Box<dyn FnOnce() + Send>) {
        let (life, delays) = (self.life.clone(), self.delays.clone());
        drop(self.here.spawn(async move {
            sleep(job_time(&delays)).await;
            if !life.is_on() {
                // Threads of a dead process do not come back, with or without a result.
                pending::<()>().await;
            }
            job();
        }));
    }

    fn spawn_loop(&self, name: &str, mut step: Box<dyn FnMut() -> Step + Send>) -> Waker {
        let syncs = name.starts_with("flush");
        let (life, delays) = (self.life.clone(), self.delays.clone());
        let bell = Arc::new(Notify::new());
        let ring = bell.clone();
        drop(self.here.spawn(async move {
            loop {
                sleep(job_time(&delays)).await;
                if syncs && !life.disk_slower().is_zero() {
                    sleep(life.disk_slower()).await;
                }
                if !life.is_on() {
                    pending::<()>().await;
                }
                match step() {
                    Step::Again => {}
                    Step::Wait(time) => drop(timeout(time, bell.notified()).await),
                    Step::Done => return,
                }
            }
        }));
        Arc::new(move || ring.notify_one())
    }

    fn end_process(&self) {
        self.life.end(Err("what it wrote failed".to_owned()));
    }

    /// Calls take no time: what they would have taken has passed before.
    fn took(&self, begun: Instant) -> Duration {
        begun.elapsed() + self.life.disk_slower()
    }

    fn wall_ms(&self) -> i64 {
        self.life.wall_ms()
    }

    fn boot_id(&self) -> String {
        self.life.boot_id()
    }

    fn random_u64(&self) -> u64 {
        self.dice.lock().roll()
    }
}

impl fmt::Debug for SimOs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SimOs({})", self.life.name())
    }
}
