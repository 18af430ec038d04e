//! Pipes instead of sockets, which can be cut.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};
use tokio::sync::mpsc;
use tonic::transport::server::Connected;
use weir_io::Disk;
use weir_runtime::testing::Dice;
use weir_runtime::{Connection, Executors, ExecutorsConfig, Listener, Os, Step};

/// The network: hosts by name.
#[derive(Clone, Default)]
pub struct Net {
    hosts: Arc<Mutex<HashMap<String, Host>>>,
    pub clock_ms: Arc<Mutex<i64>>,
    chance: Arc<AtomicU64>,
}

struct Host {
    incoming: mpsc::UnboundedSender<io::Result<Pipe>>,
    open: Vec<Arc<Cut>>,
    refusing: bool,
    silent: bool,
    unheard: bool,
    dialled: usize,
}

/// Ends both directions of a pipe, or lets nothing more arrive at either end.
#[derive(Default)]
struct Cut {
    state: Mutex<CutState>,
}

#[derive(Default)]
struct CutState {
    cut: bool,
    silent: bool,
    wakers: Vec<std::task::Waker>,
}

impl Cut {
    fn cut(&self) {
        let mut state = self.state.lock();
        state.cut = true;
        state.wakers.drain(..).for_each(std::task::Waker::wake);
    }

    fn silence(&self, silent: bool) {
        let mut state = self.state.lock();
        state.silent = silent;
        state.wakers.drain(..).for_each(std::task::Waker::wake);
    }

    /// Whether anything arrives.
    fn check(&self, cx: &Context<'_>) -> io::Result<bool> {
        let mut state = self.state.lock();
        if state.cut {
            return Err(io::Error::new(io::ErrorKind::ConnectionReset, "the pipe was cut"));
        }
        if !state.wakers.iter().any(|waker| waker.will_wake(cx.waker())) {
            state.wakers.push(cx.waker().clone());
        }
        Ok(!state.silent)
    }
}

impl Net {
    /// A new host, and what connects to it.
    pub fn host(&self, name: &str) -> mpsc::UnboundedReceiver<io::Result<Pipe>> {
        let (incoming, accepted) = mpsc::unbounded_channel();
        let host =
            Host { incoming, open: Vec::new(), refusing: false, silent: false, unheard: false, dialled: 0 };
        self.hosts.lock().insert(name.to_owned(), host);
        accepted
    }

    /// Cuts every connection of a host.
    pub fn cut(&self, name: &str) {
        if let Some(host) = self.hosts.lock().get_mut(name) {
            host.open.drain(..).for_each(|cut| cut.cut());
        }
    }

    /// From now on nothing more arrives at the host or from it, on any connection, and nobody is told: as if the machine
    /// had lost its power.
    pub fn silence(&self, name: &str) {
        if let Some(host) = self.hosts.lock().get_mut(name) {
            host.silent = true;
            host.open.iter().for_each(|cut| cut.silence(true));
        }
    }

    /// Whether what is on the way to and from the host is held up for now.
    pub fn hold(&self, name: &str, held: bool) {
        if let Some(host) = self.hosts.lock().get_mut(name) {
            host.open.iter().for_each(|cut| cut.silence(held));
        }
    }

    /// Whether nobody answers who dials the host.
    pub fn unheard(&self, name: &str, unheard: bool) {
        if let Some(host) = self.hosts.lock().get_mut(name) {
            host.unheard = unheard;
        }
    }

    /// Whether the host refuses new connections.
    pub fn refuse(&self, name: &str, refusing: bool) {
        if let Some(host) = self.hosts.lock().get_mut(name) {
            host.refusing = refusing;
        }
    }

    /// How often somebody connected to the host.
    pub fn dialled(&self, name: &str) -> usize {
        self.hosts.lock().get(name).map_or(0, |host| host.dialled)
    }
}

impl fmt::Debug for Net {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Net")
    }
}

#[async_trait]
impl Os for Net {
    async fn connect(&self, host: &str, _port: u16) -> io::Result<Box<dyn Connection>> {
        if self.hosts.lock().get(host).is_some_and(|host| host.unheard) {
            return std::future::pending().await;
        }
        let mut hosts = self.hosts.lock();
        let refused = || io::Error::new(io::ErrorKind::ConnectionRefused, "connection refused");
        let host = hosts.get_mut(host).ok_or_else(refused)?;
        if host.refusing {
            return Err(refused());
        }
        let (ours, theirs) = tokio::io::duplex(1 << 20);
        let cut = Arc::new(Cut::default());
        host.incoming.send(Ok(Pipe { stream: theirs, cut: Arc::clone(&cut) })).map_err(|_| refused())?;
        if host.silent {
            cut.silence(true);
        }
        host.open.push(Arc::clone(&cut));
        host.dialled += 1;
        Ok(Box::new(Pipe { stream: ours, cut }))
    }

    fn wall_ms(&self) -> i64 {
        *self.clock_ms.lock()
    }

    async fn listen(&self, _: SocketAddr) -> io::Result<Box<dyn Listener>> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn disk(&self) -> Arc<dyn Disk> {
        panic!("a client has no disk")
    }

    fn executors(&self, wanted: &ExecutorsConfig) -> io::Result<Executors> {
        Ok(Executors::current(wanted))
    }

    fn block(&self, job: Box<dyn FnOnce() + Send>) {
        tokio::spawn(async move { job() });
    }

    fn spawn_loop(&self, _: &str, _: Box<dyn FnMut() -> Step + Send>) -> Arc<dyn Fn() + Send + Sync> {
        panic!("these tests run on one runtime")
    }

    fn boot_id(&self) -> String {
        String::new()
    }

    fn random_u64(&self) -> u64 {
        Dice::new(self.chance.fetch_add(1, Ordering::Relaxed)).roll()
    }
}

/// One end of a pipe.
pub struct Pipe {
    stream: DuplexStream,
    cut: Arc<Cut>,
}

impl fmt::Debug for Pipe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pipe")
    }
}

impl Connection for Pipe {
    fn peer(&self) -> Option<SocketAddr> {
        None
    }
}

impl Connected for Pipe {
    type ConnectInfo = ();
    fn connect_info(&self) {}
}

impl AsyncRead for Pipe {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.cut.check(cx)? {
            return Poll::Pending;
        }
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Pipe {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.cut.check(cx)?;
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.cut.check(cx)?;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
