//! Connections between machines: turmoil's, with cuts as TCP lives through them.
//!
//! A cut in one direction holds back what goes that way; nothing is lost, since TCP would send it again, and it comes when
//! the cut is over. A connection whose bytes were held for [`UNACKNOWLEDGED_MAX`] ends, as in production. (turmoil's own
//! partitions lose segments for good, so that a connection would live on and never hear anything again.)
//!
//! A machine that has lost power says nothing and answers nothing. One whose process is dead refuses connections.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use turmoil::net::{TcpListener, TcpStream};
use weir_runtime::{Connection, Incoming, Listener};

use crate::life::Life;
use crate::world::{note, world};

/// As `TCP_USER_TIMEOUT` of the product's sockets.
const UNACKNOWLEDGED_MAX: Duration = Duration::from_secs(20);

/// What answers at an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answers {
    /// Its process, if it listens.
    Process,
    /// The machine alone: nobody listens.
    Machine,
    /// Nothing: it has no power.
    Nothing,
}

/// The state of all links.
#[derive(Debug, Default)]
pub(crate) struct Net(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    names: BTreeMap<String, IpAddr>,
    answers: BTreeMap<IpAddr, Answers>,
    /// What goes from one to the other is held, since then.
    cuts: BTreeMap<(IpAddr, IpAddr), Duration>,
    /// How often the connections between two have ended because of a cut.
    ended: BTreeMap<(IpAddr, IpAddr), u64>,
    /// Who waits for a change of any of this.
    waiting: BTreeMap<u64, Waker>,
    next: u64,
}

impl Inner {
    fn wake(&mut self) {
        std::mem::take(&mut self.waiting).into_values().for_each(Waker::wake);
    }

    fn cut(&self, from: IpAddr, to: IpAddr) -> bool {
        self.cuts.contains_key(&(from, to))
    }

    fn ended(&self, a: IpAddr, b: IpAddr) -> u64 {
        self.ended.get(&(a.min(b), a.max(b))).copied().unwrap_or(0)
    }
}

impl Net {
    pub(crate) fn add(&self, name: &str, ip: IpAddr) {
        let mut inner = self.0.lock();
        inner.names.insert(name.to_owned(), ip);
        inner.answers.insert(ip, Answers::Machine);
    }

    pub(crate) fn set_answers(&self, ip: IpAddr, answers: Answers) {
        let mut inner = self.0.lock();
        inner.answers.insert(ip, answers);
        inner.wake();
    }

    /// Holds what goes from one machine to the other.
    pub(crate) fn cut(&self, from: IpAddr, to: IpAddr) {
        let now = world().now();
        self.0.lock().cuts.entry((from, to)).or_insert(now);
    }

    /// Lets go what was held from one machine to the other.
    pub(crate) fn mend(&self, from: IpAddr, to: IpAddr) {
        let mut inner = self.0.lock();
        if inner.cuts.remove(&(from, to)).is_some() {
            inner.wake();
        }
    }

    /// Lets everything go.
    pub(crate) fn mend_all(&self) {
        let mut inner = self.0.lock();
        inner.cuts.clear();
        inner.wake();
    }

    /// Ends the connections over links that were cut for too long. To be called as time goes on.
    pub(crate) fn tick(&self) {
        let now = world().now();
        let mut inner = self.0.lock();
        let Inner { cuts, ended, .. } = &mut *inner;
        let mut any = false;
        for ((from, to), since) in cuts.iter_mut().filter(|(_, since)| now - **since >= UNACKNOWLEDGED_MAX) {
            *ended.entry((*from.min(to), *from.max(to))).or_default() += 1;
            *since = now;
            any = true;
        }
        if any {
            inner.wake();
        }
    }

    fn resolve(&self, host: &str) -> Option<IpAddr> {
        host.parse().ok().or_else(|| self.0.lock().names.get(host).copied())
    }

    fn ticket(&self) -> u64 {
        let mut inner = self.0.lock();
        inner.next += 1;
        inner.next
    }
}

/// Connects to a machine. Waits while the way there or back is cut or there is nobody to say no.
pub(crate) async fn connect(life: Arc<Life>, host: String, port: u16) -> io::Result<Box<dyn Connection>> {
    let net = &world().net;
    let to = net
        .resolve(&host)
        .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, format!("no address found for {host}")))?;
    let (from, ticket) = (life.ip(), net.ticket());
    let answers = poll_fn(|cx| {
        let mut inner = net.0.lock();
        let answers = inner.answers.get(&to).copied().unwrap_or(Answers::Nothing);
        if !life.is_on() || answers == Answers::Nothing || inner.cut(from, to) || inner.cut(to, from) {
            inner.waiting.insert(ticket, cx.waker().clone());
            return Poll::Pending;
        }
        Poll::Ready(answers)
    })
    .await;
    note(life.name(), format_args!("connect {host}:{port}"), &[]);
    if answers == Answers::Machine {
        return Err(io::Error::new(io::ErrorKind::ConnectionRefused, format!("{host}:{port} refused")));
    }
    let stream = TcpStream::connect((to, port)).await?;
    Ok(Box::new(SimConnection::new(life, stream, to)))
}

/// Listens on a machine's port, on all its addresses.
pub(crate) async fn listen(life: Arc<Life>, addr: SocketAddr) -> io::Result<Box<dyn Listener>> {
    let everywhere = SocketAddr::from(([0, 0, 0, 0], addr.port()));
    let listener = TcpListener::bind(everywhere).await?;
    let local_addr = SocketAddr::new(life.ip(), listener.local_addr()?.port());
    note(life.name(), format_args!("listen {local_addr}"), &[]);
    Ok(Box::new(SimListener { life, listener, local_addr }))
}

struct SimListener {
    life: Arc<Life>,
    listener: TcpListener,
    local_addr: SocketAddr,
}

#[async_trait]
impl Listener for SimListener {
    fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    async fn accept(&mut self) -> io::Result<Box<dyn Incoming>> {
        // turmoil waits only before it takes a connection out of the queue, so dropping this loses none.
        let (stream, peer) = self.listener.accept().await?;
        note(self.life.name(), format_args!("accept {peer}"), &[]);
        Ok(Box::new(SimIncoming { life: self.life.clone(), stream, peer }))
    }
}

#[derive(Debug)]
struct SimIncoming {
    life: Arc<Life>,
    stream: TcpStream,
    peer: SocketAddr,
}

impl Incoming for SimIncoming {
    fn peer(&self) -> SocketAddr {
        self.peer
    }

    fn into_connection(self: Box<Self>) -> io::Result<Box<dyn Connection>> {
        Ok(Box::new(SimConnection::new(self.life, self.stream, self.peer.ip())))
    }
}

#[derive(Debug)]
struct SimConnection {
    life: Arc<Life>,
    stream: TcpStream,
    /// The other end.
    there: IpAddr,
    ticket: u64,
    /// What [`Inner::ended`] said when it was made.
    born: u64,
}

impl SimConnection {
    fn new(life: Arc<Life>, stream: TcpStream, there: IpAddr) -> Self {
        let there = if there.is_loopback() { life.ip() } else { there };
        let net = &world().net;
        let (ticket, born) = (net.ticket(), net.0.lock().ended(life.ip(), there));
        Self { life, stream, there, ticket, born }
    }

    /// Whether the connection can be used in this direction: waits if that is cut, fails if it was for too long.
    fn poll_way(&self, cx: &Context<'_>, from: IpAddr, to: IpAddr) -> Poll<io::Result<()>> {
        let mut inner = world().net.0.lock();
        if inner.ended(from, to) != self.born {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        // A machine that is no more does nothing, though its last step may not be over.
        if !self.life.is_on() || inner.cut(from, to) {
            inner.waiting.insert(self.ticket, cx.waker().clone());
            return Poll::Pending;
        }
        Poll::Ready(Ok(()))
    }
}

impl Drop for SimConnection {
    fn drop(&mut self) {
        world().net.0.lock().waiting.remove(&self.ticket);
    }
}

impl Connection for SimConnection {
    fn peer(&self) -> Option<SocketAddr> {
        self.stream.peer_addr().ok()
    }
}

impl AsyncRead for SimConnection {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        std::task::ready!(this.poll_way(cx, this.there, this.life.ip()))?;
        let before = buf.filled().len();
        let read = std::task::ready!(Pin::new(&mut this.stream).poll_read(cx, buf));
        let new = buf.filled().get(before..).unwrap_or_default();
        note(this.life.name(), format_args!("read {} {} {}", this.ticket, new.len(), read.is_ok()), new);
        Poll::Ready(read)
    }
}

impl AsyncWrite for SimConnection {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let way = this.poll_way(cx, this.life.ip(), this.there);
        if let Poll::Ready(Err(error)) = way {
            return Poll::Ready(Err(error));
        }
        if !this.life.is_on() {
            return Poll::Pending;
        }
        // What is written into a cut is held by the other end's reading: the system takes it.
        match std::task::ready!(Pin::new(&mut this.stream).poll_write(cx, buf)) {
            Ok(len) => {
                let written = buf.get(..len).unwrap_or_default();
                note(this.life.name(), format_args!("write {} {len}", this.ticket), written);
                Poll::Ready(Ok(len))
            }
            // Word that the other end is gone does not come through a cut either.
            Err(_) if way.is_pending() => Poll::Pending,
            Err(error) => Poll::Ready(Err(error)),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}
