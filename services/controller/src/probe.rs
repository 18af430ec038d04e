//! Looks whether anybody is where a broker was: after its connection has ended, to tell a process that died from a
//! connection that broke.
//!
//! Only a system that answers says that nobody is there. Whoever is silent may be cut off and live, and promises for a session
//! what epochs do not protect (correctness rule 10): nobody else may lead before that. A system that answers for somebody else (a
//! firewall that rejects, a service without endpoints) is believed all the same. Whoever is fenced by that and lives has an epoch that
//! is over, so nothing it writes counts, and hears so with its next heartbeat; until then what it promises by its session may be wrong.
//! Whoever is dead and not found out is fenced after its session.

use std::io::ErrorKind;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::time::{sleep, timeout};
use weir_metadata::Endpoint;
use weir_runtime::Os;

use crate::mutant::Mutant;

/// A connection that is not made by then is not made.
const DIAL: Duration = Duration::from_millis(300);
/// One that is made and not ended within this time has somebody at its other end. The kernel takes connections for a
/// process that is about to be gone, and ends them then: one that was killed closes what it has open one by one, and
/// files may take their time behind a busy disk.
const LISTEN: Duration = Duration::from_millis(500);
/// The pause before the next try.
const AGAIN: Duration = Duration::from_millis(30);
/// How often a connection may be made and ended before it is said that somebody is there.
const TRIES: usize = 4;

/// Whether nobody is there. Takes half a second where somebody is and says nothing, and as long as a process takes to go.
pub(crate) async fn nobody_at(os: &dyn Os, endpoint: &Endpoint) -> bool {
    for _ in 0..TRIES {
        match timeout(DIAL, os.connect(&endpoint.host, endpoint.port)).await {
            Err(_) => return Mutant::SilenceIsDeath.is_planted(),
            Ok(Err(error)) => {
                // Anything else (a name that is not found, no descriptors left) says nothing of the broker.
                let refused =
                    matches!(error.kind(), ErrorKind::ConnectionRefused | ErrorKind::ConnectionReset);
                return refused;
            }
            Ok(Ok(mut connection)) => match timeout(LISTEN, connection.read_u8()).await {
                // Silence, or a byte: it lives.
                Err(_) | Ok(Ok(_)) => return false,
                Ok(Err(_)) => sleep(AGAIN).await,
            },
        }
    }
    // It takes connections and ends them: it has too many, perhaps.
    false
}

#[cfg(test)]
mod tests {
    use std::future::pending;
    use std::io;
    use std::net::SocketAddr;
    use std::sync::Arc;

    use weir_io::{Disk, MemDisk};
    use weir_runtime::testing::TestOs;
    use weir_runtime::{Connection, Executors, ExecutorsConfig, Listener, Step, Waker};

    use super::*;

    fn os() -> TestOs {
        TestOs::new(Arc::new(MemDisk::new(1)))
    }

    fn at(port: u16) -> Endpoint {
        Endpoint { listener: "internal".into(), host: "127.0.0.1".into(), port }
    }

    #[tokio::test]
    async fn who_listens_is_there_and_who_is_gone_is_not() {
        let os = os();
        let listener = os.listen("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let port = listener.local_addr().port();
        assert!(!nobody_at(&os, &at(port)).await, "nobody takes it up, as in a process that is paused");
        drop(listener);
        assert!(nobody_at(&os, &at(port)).await);
    }

    #[tokio::test]
    async fn who_goes_while_it_is_looked_for_is_gone() {
        let os = os();
        let mut listener = os.listen("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let port = listener.local_addr().port();
        let going = tokio::spawn(async move {
            let taken = listener.accept().await.unwrap();
            drop(listener);
            drop(taken);
        });
        assert!(nobody_at(&os, &at(port)).await);
        going.await.unwrap();
    }

    #[tokio::test]
    async fn who_takes_long_to_go_is_gone() {
        let os = os();
        let mut listener = os.listen("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let port = listener.local_addr().port();
        let going = tokio::spawn(async move {
            let taken = listener.accept().await.unwrap();
            // It has a file open behind which much is to be written.
            sleep(Duration::from_millis(100)).await;
            drop(listener);
            drop(taken);
        });
        assert!(nobody_at(&os, &at(port)).await);
        going.await.unwrap();
    }

    #[tokio::test]
    async fn who_ends_every_connection_is_there() {
        let os = os();
        let mut listener = os.listen("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let port = listener.local_addr().port();
        let ending = tokio::spawn(async move {
            loop {
                drop(listener.accept().await.unwrap());
            }
        });
        assert!(!nobody_at(&os, &at(port)).await);
        ending.abort();
    }

    #[tokio::test]
    async fn a_name_that_is_not_found_says_nothing() {
        let nowhere = Endpoint { host: "nowhere.invalid".into(), ..at(1) };
        assert!(!nobody_at(&os(), &nowhere).await);
    }

    /// A system from which nothing comes back.
    #[derive(Debug)]
    struct CutOff(TestOs);

    #[async_trait::async_trait]
    impl Os for CutOff {
        async fn listen(&self, addr: SocketAddr) -> io::Result<Box<dyn Listener>> {
            self.0.listen(addr).await
        }

        async fn connect(&self, _host: &str, _port: u16) -> io::Result<Box<dyn Connection>> {
            pending().await
        }

        fn disk(&self) -> Arc<dyn Disk> {
            self.0.disk()
        }

        fn executors(&self, wanted: &ExecutorsConfig) -> io::Result<Executors> {
            self.0.executors(wanted)
        }

        fn block(&self, job: Box<dyn FnOnce() + Send>) {
            self.0.block(job);
        }

        fn spawn_loop(&self, name: &str, step: Box<dyn FnMut() -> Step + Send>) -> Waker {
            self.0.spawn_loop(name, step)
        }

        fn wall_ms(&self) -> i64 {
            self.0.wall_ms()
        }

        fn boot_id(&self) -> String {
            self.0.boot_id()
        }

        fn random_u64(&self) -> u64 {
            self.0.random_u64()
        }
    }

    fn who_is_cut_off_may_be_there() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
        let is_gone = runtime.unwrap().block_on(async { nobody_at(&CutOff(os()), &at(1)).await });
        assert!(!is_gone, "it promises for a session");
    }

    #[test]
    fn silence_is_no_death() {
        who_is_cut_off_may_be_there();
    }

    #[test]
    fn silence_that_is_taken_for_death_is_noticed() {
        assert!(Mutant::SilenceIsDeath.is_noticed_by(who_is_cut_off_may_be_there));
    }
}
