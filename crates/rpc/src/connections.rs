//! From a listener to the runtimes that serve: one task accepts and hands each connection to the least loaded
//! server; a server is one of tonic's, on one runtime, and reads a queue of its own.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use futures::task::AtomicWaker;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::mpsc;
use tokio_stream::Stream;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::transport::server::Connected;
use weir_proto::v1::ErrorReason;
use weir_runtime::{Connection, Incoming, Listener, Reason, Seldom, Stop};

use crate::Problem;

/// How many connections may wait for a server to take them up.
const SERVER_QUEUE: usize = 1_024;

/// How every TLS connection begins.
const TLS_HANDSHAKE: &[u8] = &[0x16, 0x03];

/// What strangers do is said so often.
const SAID_EVERY: Duration = Duration::from_secs(60);

static TLS_SAID: Seldom = Seldom::new(SAID_EVERY);

/// How many connections a listener takes.
#[derive(Clone, Copy, Debug)]
pub struct ConnectionLimits {
    /// In all.
    pub total_max: usize,
    /// From one address.
    pub per_address_max: usize,
    /// What stands before `connections_max` in the name of the setting that says so.
    pub setting_prefix: &'static str,
}

/// The accepting side of a set of servers.
#[derive(Debug)]
pub struct Acceptor {
    servers: Vec<Server>,
    limits: ConnectionLimits,
    counts: Arc<counts::Counts>,
    refused: Arc<AtomicU64>,
    refused_said: Seldom,
}

#[derive(Debug)]
struct Server {
    queue: mpsc::Sender<Accepted>,
    load: Arc<AtomicUsize>,
}

#[derive(Debug)]
struct Accepted {
    incoming: Box<dyn Incoming>,
    slot: Slot,
}

/// What a tonic server reads its connections from. Poll it on the runtime that serves them.
#[derive(Debug)]
pub struct ServerConnections {
    queue: mpsc::Receiver<Accepted>,
}

/// An acceptor for so many servers.
pub fn servers(count: usize, limits: ConnectionLimits) -> (Acceptor, Vec<ServerConnections>) {
    let (servers, connections) = (0..count.max(1))
        .map(|_| {
            let (tx, rx) = mpsc::channel(SERVER_QUEUE);
            (Server { queue: tx, load: Arc::default() }, ServerConnections { queue: rx })
        })
        .unzip();
    let (counts, refused, refused_said) = (Arc::default(), Arc::default(), Seldom::new(SAID_EVERY));
    (Acceptor { servers, limits, counts, refused, refused_said }, connections)
}

/// Why a connection is not served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
enum Crowded {
    #[error("{0} are open, as many as there may be ({1}connections_max)")]
    All(usize, &'static str),
    #[error("{0} from its address are open, as many as there may be ({1}connections_per_address_max)")]
    Address(usize, &'static str),
    #[error("too many wait to be taken up: the server is overloaded")]
    Waiting,
}

impl Acceptor {
    /// How many connections it has refused, for whoever counts.
    pub fn refused(&self) -> Arc<AtomicU64> {
        self.refused.clone()
    }

    /// Accepts until cancelled (drop the future: no connection is lost but those not handed on yet).
    pub async fn run(self, mut listener: Box<dyn Listener>) {
        loop {
            match listener.accept().await {
                Ok(incoming) => self.hand_on(incoming),
                Err(error) => {
                    // Out of descriptors, most likely: those in use come back when connections end.
                    tracing::warn!(%error, "cannot accept connections now");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
    }

    fn hand_on(&self, incoming: Box<dyn Incoming>) {
        let peer = incoming.peer();
        let Some(server) = self.servers.iter().min_by_key(|server| server.load.load(Ordering::Relaxed))
        else {
            return;
        };
        let counted = match counts::Counts::enter(&self.counts, peer.ip(), &self.limits) {
            Ok(counted) => counted,
            Err(why) => return self.refuse(peer, why),
        };
        server.load.fetch_add(1, Ordering::Relaxed);
        let slot = Slot { load: server.load.clone(), _counted: counted };
        if server.queue.try_send(Accepted { incoming, slot }).is_err() {
            self.refuse(peer, Crowded::Waiting);
        }
    }

    /// It is closed at once.
    fn refuse(&self, peer: SocketAddr, why: Crowded) {
        self.refused.fetch_add(1, Ordering::Relaxed);
        if let Some(others) = self.refused_said.now() {
            tracing::warn!(%peer, others, "a connection is refused: {why}");
        }
    }
}

impl Stream for ServerConnections {
    type Item = io::Result<ServedConnection>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Some(Accepted { incoming, slot }) = std::task::ready!(self.queue.poll_recv(cx)) else {
            return Poll::Ready(None);
        };
        let peer = incoming.peer();
        let closed = CancellationToken::new();
        let connection = incoming.into_connection().map(|inner| ServedConnection {
            inner,
            info: ConnectionInfo {
                peer,
                long_calls: Arc::default(),
                closed: closed.clone(),
                cut: Arc::default(),
                retiring: Stop::new(),
                arriving: Arc::default(),
            },
            greeted: false,
            _closed: closed.drop_guard(),
            _slot: slot,
        });
        Poll::Ready(Some(connection))
    }
}

/// Counts a connection in its server and its address until dropped.
#[derive(Debug)]
struct Slot {
    load: Arc<AtomicUsize>,
    _counted: counts::Counted,
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.load.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A connection being served. Its [`ConnectionInfo`] is in every request's extensions.
#[derive(Debug)]
pub struct ServedConnection {
    inner: Box<dyn Connection>,
    info: ConnectionInfo,
    /// Whether its first bytes were looked at.
    greeted: bool,
    _closed: DropGuard,
    _slot: Slot,
}

/// What a handler may know of the connection its call came in on.
#[derive(Clone, Debug)]
pub struct ConnectionInfo {
    /// The other end.
    pub peer: SocketAddr,
    long_calls: Arc<AtomicUsize>,
    closed: CancellationToken,
    cut: Arc<Cut>,
    retiring: Stop,
    arriving: Arc<Arriving>,
}

/// Whether a connection is to break off, for whoever reads it.
#[derive(Debug, Default)]
struct Cut {
    wanted: AtomicBool,
    reader: AtomicWaker,
}

/// Bytes on their way in on one connection.
#[derive(Debug, Default)]
pub struct Arriving {
    /// The lengths of the messages that were begun and have room.
    pub begun: AtomicUsize,
    /// What may lie in the connection's window, of messages that wait for room and are not read in that time.
    pub unread: AtomicUsize,
}

impl ConnectionInfo {
    /// Counts a long call until the guard is dropped; refuses it beyond `max`, so that it fails instead of
    /// hanging in the client once all streams of the connection are taken.
    ///
    /// # Errors
    /// CONNECTION_LONG_CALLS.
    pub fn long_call(&self, max: usize) -> Result<LongCall, Problem> {
        if self.long_calls.fetch_add(1, Ordering::Relaxed) >= max {
            self.long_calls.fetch_sub(1, Ordering::Relaxed);
            return Err(Problem::new(
                ErrorReason::ConnectionLongCalls,
                format!(
                    "this connection holds {max} streams or waiting calls, the most it may: read several \
                     partitions with one call, or open another connection"
                ),
            )
            .fact("limit", max));
        }
        Ok(LongCall { count: self.long_calls.clone(), retiring: self.retiring.clone() })
    }

    /// What is on its way in on this connection, for whoever counts it.
    pub fn arriving(&self) -> &Arc<Arriving> {
        &self.arriving
    }

    /// Waits until the connection is closed.
    pub async fn closed(&self) {
        self.closed.cancelled().await;
    }

    /// Breaks the connection off, as if the other end had gone: whoever serves it drops its calls.
    pub fn cut(&self) {
        self.cut.wanted.store(true, Ordering::Release);
        self.cut.reader.wake();
    }

    /// Tells the connection's long calls that it is to end ([`LongCall::retiring`]).
    pub fn retire(&self) {
        self.retiring.request(Reason::Asked("the connection is old".to_owned()));
    }
}

/// A long call that is going on.
#[derive(Debug)]
pub struct LongCall {
    count: Arc<AtomicUsize>,
    retiring: Stop,
}

impl LongCall {
    /// Requested when the connection is as old as connections get: end, so that the client goes on on a new one.
    pub fn retiring(&self) -> &Stop {
        &self.retiring
    }
}

impl Drop for LongCall {
    fn drop(&mut self) {
        self.count.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Connected for ServedConnection {
    type ConnectInfo = ConnectionInfo;

    fn connect_info(&self) -> ConnectionInfo {
        self.info.clone()
    }
}

impl AsyncRead for ServedConnection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut *self.inner).poll_read(cx, buf);
        if read.is_pending() {
            // Before the look: one that comes in between wakes.
            self.info.cut.reader.register(cx.waker());
        }
        if self.info.cut.wanted.load(Ordering::Acquire) {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        std::task::ready!(read)?;
        if !self.greeted {
            self.greeted = true;
            let first = buf.filled().get(before..).unwrap_or_default();
            if first.starts_with(TLS_HANDSHAKE) && TLS_SAID.now().is_some() {
                let peer = self.info.peer;
                tracing::warn!(%peer, "a client speaks TLS to this port, which does not: use http:// there");
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for ServedConnection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.inner).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.inner).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.inner).poll_shutdown(cx)
    }
}

/// Who is connected, by address.
mod counts {
    use super::*;
    use std::sync::{Mutex, PoisonError};

    #[derive(Debug, Default)]
    pub(super) struct Counts(Mutex<Inner>);

    #[derive(Debug, Default)]
    struct Inner {
        total: usize,
        by_address: HashMap<IpAddr, usize>,
    }

    #[derive(Debug)]
    pub(super) struct Counted {
        counts: Arc<Counts>,
        address: IpAddr,
    }

    impl Counts {
        pub(super) fn enter(
            this: &Arc<Self>,
            address: IpAddr,
            limits: &ConnectionLimits,
        ) -> Result<Counted, Crowded> {
            let mut counts = this.0.lock().unwrap_or_else(PoisonError::into_inner);
            let here = counts.by_address.get(&address).copied().unwrap_or(0);
            if counts.total >= limits.total_max {
                return Err(Crowded::All(counts.total, limits.setting_prefix));
            }
            if here >= limits.per_address_max {
                return Err(Crowded::Address(here, limits.setting_prefix));
            }
            counts.total += 1;
            counts.by_address.insert(address, here + 1);
            Ok(Counted { counts: this.clone(), address })
        }
    }

    impl Drop for Counted {
        fn drop(&mut self) {
            let mut counts = self.counts.0.lock().unwrap_or_else(PoisonError::into_inner);
            counts.total -= 1;
            match counts.by_address.get_mut(&self.address) {
                Some(here) if *here > 1 => *here -= 1,
                _ => {
                    counts.by_address.remove(&self.address);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(last: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, last])
    }

    #[test]
    fn connections_are_counted_overall_and_by_address() {
        let counts = Arc::default();
        let limits = ConnectionLimits { total_max: 3, per_address_max: 2, setting_prefix: "internal_" };
        let first = counts::Counts::enter(&counts, address(1), &limits);
        let second = counts::Counts::enter(&counts, address(1), &limits);
        assert!(first.is_ok() && second.is_ok());
        let refused = counts::Counts::enter(&counts, address(1), &limits).unwrap_err();
        assert_eq!(refused, Crowded::Address(2, "internal_"), "two from one address");
        assert!(refused.to_string().contains("(internal_connections_per_address_max)"), "{refused}");
        let third = counts::Counts::enter(&counts, address(2), &limits);
        assert!(third.is_ok());
        let refused = counts::Counts::enter(&counts, address(3), &limits).unwrap_err();
        assert_eq!(refused, Crowded::All(3, "internal_"), "three in all");
        assert!(refused.to_string().contains("(internal_connections_max)"), "{refused}");
        drop(first);
        assert!(counts::Counts::enter(&counts, address(3), &limits).is_ok(), "one has gone");
    }

    #[test]
    fn the_long_call_beyond_the_limit_is_refused_until_one_ends() {
        let info = ConnectionInfo {
            peer: SocketAddr::from(([127, 0, 0, 1], 1)),
            long_calls: Arc::default(),
            closed: CancellationToken::new(),
            cut: Arc::default(),
            retiring: Stop::new(),
            arriving: Arc::default(),
        };
        let calls: Vec<_> = (0..3).map(|_| info.long_call(3).unwrap()).collect();
        let refused = info.clone().long_call(3).unwrap_err();
        assert_eq!(refused.reason, ErrorReason::ConnectionLongCalls);
        drop(calls);
        assert!(info.long_call(3).is_ok());
    }
}
