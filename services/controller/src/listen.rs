//! From the listener to the server. Only brokers and controllers connect here; how many there may be is bounded
//! by the cluster's size, so connections are not counted.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::mpsc;
use tokio::time::sleep;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::server::Connected;
use weir_runtime::{Connection, Listener};

/// Connections that wait for the server to take them up.
const QUEUE: usize = 64;

/// The connections of a listener, and the task that accepts them.
pub(crate) fn accept(
    mut listener: Box<dyn Listener>,
) -> (ReceiverStream<io::Result<Accepted>>, impl Future<Output = ()> + Send) {
    let (to_server, connections) = mpsc::channel(QUEUE);
    let accepting = async move {
        loop {
            let accepted = match listener.accept().await {
                Ok(incoming) => incoming,
                Err(error) => {
                    // Out of descriptors, most likely: those in use come back when connections end.
                    tracing::warn!(%error, "cannot accept connections now");
                    sleep(Duration::from_millis(50)).await;
                    continue;
                }
            };
            let peer = accepted.peer();
            let connection = accepted.into_connection().map(|connection| Accepted { connection, peer });
            if to_server.send(connection).await.is_err() {
                return;
            }
        }
    };
    (ReceiverStream::new(connections), accepting)
}

/// A connection being served.
#[derive(Debug)]
pub(crate) struct Accepted {
    connection: Box<dyn Connection>,
    peer: SocketAddr,
}

impl Connected for Accepted {
    type ConnectInfo = SocketAddr;

    fn connect_info(&self) -> SocketAddr {
        self.peer
    }
}

impl AsyncRead for Accepted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.connection).poll_read(cx, buf)
    }
}

impl AsyncWrite for Accepted {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.connection).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.connection).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.connection.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.connection).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.connection).poll_shutdown(cx)
    }
}
