//! TCP as Weir uses it, real in production and in tests.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};

use crate::os::{Connection, Incoming, Listener};

/// Connections that may wait to be accepted; the system has a limit of its own (`net.core.somaxconn`).
const BACKLOG: i32 = 4096;

/// A connection that was silent for this long is asked whether the other end is still there.
const KEEPALIVE: Duration = Duration::from_secs(60);

/// Bytes that the other end does not acknowledge for this long end the connection (`TCP_USER_TIMEOUT`).
const UNACKNOWLEDGED_MAX: Duration = Duration::from_secs(20);

/// Binds a listener.
pub(crate) fn listen(addr: SocketAddr) -> io::Result<Box<dyn Listener>> {
    let bind = || {
        let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
        // After a restart the port is ours again at once, though old connections still linger on it.
        socket.set_reuse_address(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&addr.into())?;
        socket.listen(BACKLOG)?;
        let listener = TcpListener::from_std(socket.into())?;
        let local_addr = listener.local_addr()?;
        Ok(Box::new(RealListener { listener, local_addr }) as Box<dyn Listener>)
    };
    bind().map_err(|e: io::Error| io::Error::new(e.kind(), format!("cannot listen on {addr}: {e}")))
}

/// Connects to the first address of the name that answers.
pub(crate) async fn connect(host: &str, port: u16) -> io::Result<Box<dyn Connection>> {
    let fail = |e: io::Error| io::Error::new(e.kind(), format!("cannot connect to {host}:{port}: {e}"));
    // An IPv6 address in brackets is how people write it.
    let name = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let stream = TcpStream::connect((name, port)).await.map_err(fail)?;
    prepare(&stream).map_err(fail)?;
    Ok(Box::new(RealConnection(stream)))
}

fn prepare(stream: &TcpStream) -> io::Result<()> {
    let socket = SockRef::from(stream);
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE))?;
    socket.set_tcp_user_timeout(Some(UNACKNOWLEDGED_MAX))
}

struct RealListener {
    listener: TcpListener,
    local_addr: SocketAddr,
}

#[async_trait]
impl Listener for RealListener {
    fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    async fn accept(&mut self) -> io::Result<Box<dyn Incoming>> {
        loop {
            // Nothing is awaited once a connection is ours, so dropping this future loses none.
            match self.listener.accept().await {
                Ok((stream, peer)) => return Ok(Box::new(RealIncoming { stream: stream.into_std()?, peer })),
                // Gone again before we came to it: no concern of who listens.
                Err(e)
                    if matches!(
                        e.kind(),
                        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset
                    ) => {}
                Err(e) => return Err(e),
            }
        }
    }
}

#[derive(Debug)]
struct RealIncoming {
    stream: std::net::TcpStream,
    peer: SocketAddr,
}

impl Incoming for RealIncoming {
    fn peer(&self) -> SocketAddr {
        self.peer
    }

    fn into_connection(self: Box<Self>) -> io::Result<Box<dyn Connection>> {
        let stream = TcpStream::from_std(self.stream)?;
        prepare(&stream)?;
        Ok(Box::new(RealConnection(stream)))
    }
}

struct RealConnection(TcpStream);

impl Connection for RealConnection {
    fn peer(&self) -> Option<SocketAddr> {
        self.0.peer_addr().ok()
    }
}

impl fmt::Debug for RealConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.peer() {
            Some(peer) => write!(f, "Connection({peer})"),
            None => f.write_str("Connection(closed)"),
        }
    }
}

impl AsyncRead for RealConnection {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().0).poll_read(cx, buf)
    }
}

impl AsyncWrite for RealConnection {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().0).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().0).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().0).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().0).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    fn any_port() -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], 0))
    }

    #[tokio::test]
    async fn bytes_go_both_ways() {
        let mut listener = listen(any_port()).unwrap();
        let port = listener.local_addr().port();
        assert_ne!(port, 0);
        let mut here = connect("127.0.0.1", port).await.unwrap();
        let incoming = listener.accept().await.unwrap();
        assert_eq!(incoming.peer().ip().to_string(), "127.0.0.1");
        let mut there = incoming.into_connection().unwrap();
        assert!(there.is_write_vectored());
        assert_eq!(here.peer().unwrap(), listener.local_addr());
        here.write_all(b"ping").await.unwrap();
        let mut buf = [0; 4];
        there.read_exact(&mut buf).await.unwrap();
        there.write_all(&buf).await.unwrap();
        there.shutdown().await.unwrap();
        let mut all = Vec::new();
        here.read_to_end(&mut all).await.unwrap();
        assert_eq!(all, b"ping");
    }

    #[tokio::test]
    async fn options_are_set_on_both_ends() {
        let mut listener = listen(any_port()).unwrap();
        let port = listener.local_addr().port();
        let (stream, _) = tokio::join!(TcpStream::connect(("127.0.0.1", port)), async {
            listener.accept().await.unwrap().into_connection().unwrap()
        });
        let stream = stream.unwrap();
        prepare(&stream).unwrap();
        let socket = SockRef::from(&stream);
        assert!(socket.tcp_nodelay().unwrap());
        assert!(socket.keepalive().unwrap());
        assert_eq!(socket.tcp_keepalive_time().unwrap(), KEEPALIVE);
        assert_eq!(socket.tcp_user_timeout().unwrap(), Some(UNACKNOWLEDGED_MAX));
    }

    #[test]
    fn a_connection_moves_to_another_runtime() {
        let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (acceptor, server) = (runtime(), runtime());
        let (incoming, client) = acceptor.block_on(async {
            let mut listener = listen(any_port()).unwrap();
            let client = connect("localhost", listener.local_addr().port()).await.unwrap();
            (listener.accept().await.unwrap(), client)
        });
        let (mut client, mut buf) = (client, [0; 2]);
        let echo = server.block_on(async move {
            let mut connection = incoming.into_connection().unwrap();
            connection.write_all(b"ok").await.unwrap();
            connection
        });
        acceptor.block_on(client.read_exact(&mut buf)).unwrap();
        assert_eq!(&buf, b"ok");
        drop(echo);
    }

    #[tokio::test]
    async fn a_port_in_use_is_named() {
        let first = listen(any_port()).unwrap();
        let Err(error) = listen(first.local_addr()) else { panic!("bound twice") };
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        assert!(error.to_string().contains(&first.local_addr().to_string()), "{error}");
    }

    #[tokio::test]
    async fn nobody_listening_is_named() {
        let port = listen(any_port()).unwrap().local_addr().port();
        let error = connect("[127.0.0.1]", port).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        assert!(error.to_string().contains(&format!(":{port}")), "{error}");
    }

    #[tokio::test]
    async fn an_accept_that_was_given_up_loses_no_connection() {
        let mut listener = listen(any_port()).unwrap();
        let port = listener.local_addr().port();
        for _ in 0..100 {
            let given_up = tokio::select! {
                biased;
                incoming = listener.accept() => Some(incoming),
                () = std::future::ready(()) => None,
            };
            assert!(given_up.is_none());
            let _client = connect("127.0.0.1", port).await.unwrap();
            listener.accept().await.unwrap();
        }
    }
}
