//! What openraft runs on: plain tokio, and the chance of the [`Os`] that it was started on, from which it draws its
//! election timeout. With openraft's own runtime two runs of one seed would elect different leaders.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use openraft::async_runtime::{AsyncOneshotSendExt, AsyncRuntime};
use tokio::sync::oneshot;
use tokio::task::{JoinError, JoinHandle};
use tokio::time::{Instant, Sleep, Timeout};

use crate::os::Os;
use crate::real;

tokio::task_local! {
    /// openraft asks for chance with nothing in its hand: whose it is goes along with its tasks.
    static CHANCE: Arc<dyn Os>;
}

/// The runtime for openraft.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct RaftRuntime;

impl RaftRuntime {
    /// What openraft draws in this future, and in the tasks that begin in it, comes from this system.
    pub async fn drawing_from<F: Future>(os: Arc<dyn Os>, future: F) -> F::Output {
        CHANCE.scope(os, future).await
    }
}

impl AsyncRuntime for RaftRuntime {
    type JoinError = JoinError;
    type JoinHandle<T: Send + 'static> = JoinHandle<T>;
    type Sleep = Sleep;
    type Instant = Instant;
    type TimeoutError = tokio::time::error::Elapsed;
    type Timeout<R, T: Future<Output = R> + Send> = Timeout<T>;
    type ThreadLocalRng = RaftRng;
    type OneshotSender<T: Send> = RaftSender<T>;
    type OneshotReceiverError = oneshot::error::RecvError;
    type OneshotReceiver<T: Send> = oneshot::Receiver<T>;

    fn spawn<T>(future: T) -> Self::JoinHandle<T::Output>
    where
        T: Future + Send + 'static,
        T::Output: Send + 'static,
    {
        match CHANCE.try_with(Arc::clone) {
            Ok(os) => tokio::spawn(CHANCE.scope(os, future)),
            Err(_) => tokio::spawn(future),
        }
    }

    fn sleep(duration: Duration) -> Self::Sleep {
        tokio::time::sleep(duration)
    }

    fn sleep_until(deadline: Self::Instant) -> Self::Sleep {
        tokio::time::sleep_until(deadline)
    }

    fn timeout<R, F: Future<Output = R> + Send>(duration: Duration, future: F) -> Self::Timeout<R, F> {
        tokio::time::timeout(duration, future)
    }

    fn timeout_at<R, F: Future<Output = R> + Send>(
        deadline: Self::Instant,
        future: F,
    ) -> Self::Timeout<R, F> {
        tokio::time::timeout_at(deadline, future)
    }

    fn is_panic(join_error: &Self::JoinError) -> bool {
        join_error.is_panic()
    }

    fn thread_rng() -> Self::ThreadLocalRng {
        RaftRng
    }

    fn oneshot<T: Send>() -> (Self::OneshotSender<T>, Self::OneshotReceiver<T>) {
        let (sender, receiver) = oneshot::channel();
        (RaftSender(sender), receiver)
    }
}

/// Chance in the form that openraft's version of rand wants, from the system of [`RaftRuntime::drawing_from`]; outside
/// of it from the real one.
#[derive(Clone, Copy, Debug)]
pub struct RaftRng;

fn random_u64() -> u64 {
    CHANCE.try_with(|os| os.random_u64()).unwrap_or_else(|_| real::random_u64())
}

impl rand_core_06::RngCore for RaftRng {
    fn next_u32(&mut self) -> u32 {
        // The upper half, as good as the lower.
        (random_u64() >> 32) as u32
    }

    fn next_u64(&mut self) -> u64 {
        random_u64()
    }

    fn fill_bytes(&mut self, dest: &mut [u8]) {
        for chunk in dest.chunks_mut(8) {
            let bytes = random_u64().to_le_bytes();
            for (to, from) in chunk.iter_mut().zip(bytes) {
                *to = from;
            }
        }
    }

    fn try_fill_bytes(&mut self, dest: &mut [u8]) -> Result<(), rand_core_06::Error> {
        self.fill_bytes(dest);
        Ok(())
    }
}

/// The sending half of a channel for one value.
pub struct RaftSender<T>(oneshot::Sender<T>);

impl<T: Send> AsyncOneshotSendExt<T> for RaftSender<T> {
    fn send(self, value: T) -> Result<(), T> {
        self.0.send(value)
    }
}

impl<T> fmt::Debug for RaftSender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RaftSender")
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use rand_core_06::RngCore;
    use weir_io::MemDisk;

    use super::*;
    use crate::testing::TestOs;

    #[test]
    fn election_timeouts_are_drawn_from_the_whole_range() {
        let config =
            openraft::Config { election_timeout_min: 300, election_timeout_max: 304, ..Default::default() };
        let drawn: BTreeSet<u64> =
            (0..1_000).map(|_| config.new_rand_election_timeout::<RaftRuntime>()).collect();
        assert_eq!(drawn, (300..304).collect());
    }

    #[tokio::test]
    async fn a_seed_decides_what_openraft_and_its_tasks_draw() {
        let draw = async |seed| {
            let os = TestOs::new(Arc::new(MemDisk::new(0)));
            os.set_seed(seed);
            let drawing = async {
                let task = RaftRuntime::spawn(async { RaftRng.next_u64() });
                (RaftRng.next_u64(), task.await.unwrap())
            };
            RaftRuntime::drawing_from(Arc::new(os), drawing).await
        };
        assert_eq!(draw(1).await, draw(1).await);
        let ((here, in_a_task), other) = (draw(1).await, draw(2).await);
        assert!(here != in_a_task && here != other.0 && in_a_task != other.1);
    }

    #[test]
    fn every_byte_is_filled() {
        let mut ever_set = [0; 13];
        for _ in 0..100 {
            let mut bytes = [0; 13];
            RaftRng.fill_bytes(&mut bytes);
            ever_set.iter_mut().zip(bytes).for_each(|(ever, byte)| *ever |= byte);
        }
        assert!(ever_set.iter().all(|byte| *byte != 0), "{ever_set:?}");
    }

    #[tokio::test]
    async fn tasks_timers_and_channels_are_tokio() {
        let (sender, receiver) = RaftRuntime::oneshot();
        let task = RaftRuntime::spawn(async move {
            RaftRuntime::sleep(Duration::from_millis(1)).await;
            sender.send(7)
        });
        assert_eq!(receiver.await, Ok(7));
        assert_eq!(task.await.unwrap(), Ok(()));
        RaftRuntime::timeout(Duration::ZERO, std::future::pending::<()>()).await.unwrap_err();
        RaftRuntime::timeout_at(Instant::now(), std::future::pending::<()>()).await.unwrap_err();
        let panicked = RaftRuntime::spawn(async { assert!(std::hint::black_box(false), "on purpose") });
        assert!(RaftRuntime::is_panic(&panicked.await.unwrap_err()));
        let (sender, receiver) = RaftRuntime::oneshot();
        drop(receiver);
        assert_eq!(sender.send(8), Err(8));
    }
}
