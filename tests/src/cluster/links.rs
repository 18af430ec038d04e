//! The ways between brokers, in the hand of a test: a connection that one broker has dialled to another can be held, so
//! that nothing passes and nothing is lost, and cut, so that both ends find it broken.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;
use weir_io::Disk;
use weir_runtime::{Connection, Executors, ExecutorsConfig, Listener, Os, Step};

/// Every way there is.
#[derive(Clone, Debug, Default)]
pub(super) struct Links(Arc<Mutex<Known>>);

#[derive(Debug, Default)]
struct Known {
    /// Whose port it is.
    owners: HashMap<u16, usize>,
    links: BTreeMap<(usize, usize), Link>,
}

impl Links {
    /// The way from one broker to another.
    pub(super) fn between(&self, from: usize, to: usize) -> Link {
        self.0.lock().links.entry((from, to)).or_default().clone()
    }

    /// These ports are a broker's.
    pub(super) fn leads_to(&self, broker: usize, ports: impl IntoIterator<Item = u16>) {
        self.0.lock().owners.extend(ports.into_iter().map(|port| (port, broker)));
    }

    /// The operating system of a broker, which dials over these ways, whose disk takes so much longer, and which notes that
    /// the process is to end at once.
    pub(super) fn seen_from(
        &self,
        broker: usize,
        os: Arc<dyn Os>,
        slower_ms: Arc<AtomicU64>,
        ended: Arc<AtomicBool>,
    ) -> Arc<dyn Os> {
        Arc::new(Dialling { os, broker, links: self.clone(), slower_ms, ended })
    }

    fn to_port(&self, from: usize, port: u16) -> Option<Link> {
        let to = self.0.lock().owners.get(&port).copied()?;
        Some(self.between(from, to))
    }
}

/// The way from one broker to another: all connections that the one has dialled to the other.
#[derive(Clone, Debug, Default)]
pub struct Link(Arc<Way>);

#[derive(Debug, Default)]
struct Way {
    state: Mutex<State>,
    /// How many connections were made.
    dialled: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    held: bool,
    /// What comes back is held.
    answers_held: bool,
    /// No connection can be made.
    closed: bool,
    /// How often it was cut: connections from before are broken.
    cuts: u64,
    /// Whoever reads (true) or writes, by connection.
    waiting: HashMap<(u64, bool), Waker>,
}

impl Link {
    /// From now on nothing passes, and nothing is lost.
    pub fn hold(&self) {
        self.change(|state| state.held = true);
    }

    /// From now on what is sent arrives, and no answer comes back. None is lost.
    pub fn hold_answers(&self) {
        self.change(|state| state.answers_held = true);
    }

    /// What was held passes.
    pub fn release(&self) {
        self.change(|state| (state.held, state.answers_held) = (false, false));
    }

    /// Breaks all connections; others can be made at once.
    pub fn cut(&self) {
        self.change(|state| state.cuts += 1);
    }

    /// Breaks all connections, and none can be made until [`Link::mend`].
    pub fn close(&self) {
        self.change(|state| {
            state.cuts += 1;
            state.closed = true;
        });
    }

    /// Connections can be made again.
    pub fn mend(&self) {
        self.change(|state| (state.held, state.answers_held, state.closed) = (false, false, false));
    }

    /// How many connections were made over it.
    #[must_use]
    pub fn dialled(&self) -> u64 {
        self.0.dialled.load(Ordering::SeqCst)
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        let waiting = {
            let mut state = self.0.state.lock();
            change(&mut state);
            std::mem::take(&mut state.waiting)
        };
        waiting.into_values().for_each(Waker::wake);
    }
}

/// An operating system whose connections to brokers go over links.
struct Dialling {
    os: Arc<dyn Os>,
    broker: usize,
    links: Links,
    slower_ms: Arc<AtomicU64>,
    ended: Arc<AtomicBool>,
}

impl fmt::Debug for Dialling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Dialling({}, {:?})", self.broker, self.os)
    }
}

#[async_trait]
impl Os for Dialling {
    async fn listen(&self, addr: SocketAddr) -> io::Result<Box<dyn Listener>> {
        self.os.listen(addr).await
    }

    async fn connect(&self, host: &str, port: u16) -> io::Result<Box<dyn Connection>> {
        let Some(link) = self.links.to_port(self.broker, port) else {
            return self.os.connect(host, port).await;
        };
        let number = link.0.dialled.fetch_add(1, Ordering::SeqCst);
        let cuts = {
            let state = link.0.state.lock();
            if state.closed {
                return Err(io::ErrorKind::ConnectionRefused.into());
            }
            state.cuts
        };
        let connection = self.os.connect(host, port).await?;
        Ok(Box::new(Wire { connection, link, number, cuts }))
    }

    fn disk(&self) -> Arc<dyn Disk> {
        self.os.disk()
    }

    fn executors(&self, wanted: &ExecutorsConfig) -> io::Result<Executors> {
        self.os.executors(wanted)
    }

    fn block(&self, job: Box<dyn FnOnce() + Send>) {
        self.os.block(job);
    }

    fn run_all(&self, jobs: Vec<Box<dyn FnOnce() + Send>>) {
        self.os.run_all(jobs);
    }

    fn spawn_loop(&self, name: &str, step: Box<dyn FnMut() -> Step + Send>) -> weir_runtime::Waker {
        self.os.spawn_loop(name, step)
    }

    fn end_process(&self) {
        self.ended.store(true, Ordering::SeqCst);
    }

    fn took(&self, begun: Instant) -> Duration {
        self.os.took(begun) + Duration::from_millis(self.slower_ms.load(Ordering::SeqCst))
    }

    fn wall_ms(&self) -> i64 {
        self.os.wall_ms()
    }

    fn boot_id(&self) -> String {
        self.os.boot_id()
    }

    fn random_u64(&self) -> u64 {
        self.os.random_u64()
    }
}

/// A connection over a link.
#[derive(Debug)]
struct Wire {
    connection: Box<dyn Connection>,
    link: Link,
    number: u64,
    /// How often the link had been cut when it was made.
    cuts: u64,
}

impl Wire {
    /// Whether something may pass.
    fn poll_open(&self, reading: bool, cx: &Context<'_>) -> Poll<io::Result<()>> {
        let mut state = self.link.0.state.lock();
        if state.cuts != self.cuts {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        // Also where it is open: whoever waits for the other end must hear of a cut.
        state.waiting.insert((self.number, reading), cx.waker().clone());
        if state.held || state.answers_held && reading { Poll::Pending } else { Poll::Ready(Ok(())) }
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        let waiting = &mut self.link.0.state.lock().waiting;
        waiting.remove(&(self.number, true));
        waiting.remove(&(self.number, false));
    }
}

impl Connection for Wire {
    fn peer(&self) -> Option<SocketAddr> {
        self.connection.peer()
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        ready!(self.poll_open(true, cx))?;
        Pin::new(&mut self.connection).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll_open(false, cx))?;
        Pin::new(&mut self.connection).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_open(false, cx))?;
        Pin::new(&mut self.connection).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.connection).poll_shutdown(cx)
    }
}
