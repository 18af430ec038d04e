//! A door in front of each node: takes the connections that others make to it, and hands them on to its process over
//! loopback, on [ways](crate::trouble) that can be bad.
//!
//! A door is in the node's own network namespace, on the address that everybody is told. So what is between two nodes stays
//! between them: wires that are pulled out, cut or narrow are so with doors as without. Whom a connection comes from its
//! address says, and the process sees another address of loopback for each.
//!
//! Where no process listens, there is no door: whoever dials is refused, as if there were none. Who dials a process that has
//! just died may be taken, because the kernel does that before the door knows: it is reset at once, as what waits is by
//! the kernel of a process that is gone. And nobody waits behind somebody else, for silence is an answer: a controller that looks
//! for a broker whose connection has ended takes a connection that is made, and not ended, for a sign of life.

use std::fs::File;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::AsFd as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use socket2::SockRef;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::runtime::Handle;
use tokio::select;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use weir_tests::dice::Dice;

use crate::carry;
use crate::network::namespace;
use crate::trouble::Ways;
use crate::who::Who;

/// How often is looked whether a process listens.
const LOOK: Duration = Duration::from_millis(10);
/// A process whose queue is full takes no connection. So long one waits for it ...
const TAKEN: Duration = Duration::from_secs(1);
/// ... and so long for one try. The kernel would try again after a second, and not know until then that the process has died.
const TRY: Duration = Duration::from_millis(100);
/// Bytes that the other end does not acknowledge for so long end a connection, as in the processes.
const UNACKNOWLEDGED_MAX: Duration = Duration::from_secs(20);
/// Connections that may wait.
const BACKLOG: u32 = 1_024;

/// Puts up the doors of all nodes. They are served on `threads`, which are for nothing else, until these end.
pub(crate) fn put_up(ways: &Ways, network: &str, seed: u64, threads: &Handle) -> Result<()> {
    for who in Who::nodes() {
        for port in who.ports() {
            let path = Path::new("/run/netns").join(namespace(network, who));
            let namespace = File::open(&path).with_context(|| format!("cannot open {}", path.display()))?;
            let process = Process { namespace: Arc::new(namespace), port: *port };
            let dice = Dice::new(seed ^ u64::from(*port) << 32 ^ u64::from(who.number()) << 48);
            let door = Door { who, process, ways: ways.clone(), dice };
            threads.spawn(door.serve());
        }
    }
    Ok(())
}

struct Door {
    who: Who,
    process: Process,
    ways: Ways,
    dice: Dice,
}

/// Where a process listens: on loopback, in the namespace of its node. Cloning gives another handle.
#[derive(Clone)]
struct Process {
    namespace: Arc<File>,
    port: u16,
}

impl Door {
    async fn serve(mut self) {
        loop {
            // One that is being closed may still have the address.
            let open = match self.process.dial(Ipv4Addr::LOCALHOST).await {
                Ok(_) => self.process.listen_at(self.who.ip()),
                Err(error) => Err(error),
            };
            match open {
                Ok(listener) => self.while_somebody_listens(listener).await,
                Err(_) => sleep(LOOK).await,
            }
        }
    }

    async fn while_somebody_listens(&mut self, listener: TcpListener) {
        let process = self.process.clone();
        let dial = move |from: Who| {
            let process = process.clone();
            patiently(move || process.clone().dial_for(from))
        };
        let who = |peer: IpAddr| Who::at(&peer.to_string());
        take(listener, who, dial, |from, near, far| self.open(from, near, far)).await;
    }

    fn open(&mut self, from: Who, near: TcpStream, far: TcpStream) {
        // As everybody sets them. One that is gone already takes no setting, and nothing else.
        let _ = (near.set_nodelay(true), far.set_nodelay(true));
        let _ = SockRef::from(&near).set_tcp_user_timeout(Some(UNACKNOWLEDGED_MAX));
        let (there, back) = (self.ways.way(from, self.who), self.ways.way(self.who, from));
        tokio::spawn(carry::connection(there, back, near, far, Dice::new(self.dice.roll())));
    }
}

impl Process {
    fn listen_at(&self, ip: Ipv4Addr) -> io::Result<TcpListener> {
        let socket = self.socket()?;
        // The connections of before may linger.
        socket.set_reuseaddr(true)?;
        socket.bind(SocketAddr::new(IpAddr::V4(ip), self.port))?;
        socket.listen(BACKLOG)
    }

    /// A connection to it, from the address of loopback that somebody has.
    async fn dial_for(self, from: Who) -> io::Result<TcpStream> {
        self.dial(Ipv4Addr::new(127, 0, 0, from.number())).await
    }

    /// A connection to it, from an address of loopback.
    async fn dial(&self, from: Ipv4Addr) -> io::Result<TcpStream> {
        let socket = self.socket()?;
        socket.bind(SocketAddr::new(IpAddr::V4(from), 0))?;
        socket.connect(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), self.port)).await
    }

    /// A socket in the node's namespace. It stays there; the thread goes elsewhere with the next one.
    fn socket(&self) -> io::Result<TcpSocket> {
        move_into_link_name_space(self.namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
        TcpSocket::new_v4()
    }
}

/// Takes whoever comes, and dials for each at once. Ends when one is refused, for then nobody is there any more: who has not
/// been let in by then is reset.
async fn take<F>(
    listener: TcpListener,
    who: impl Fn(IpAddr) -> Option<Who>,
    dial: impl Fn(Who) -> F,
    mut open: impl FnMut(Who, TcpStream, TcpStream),
) where
    F: Future<Output = io::Result<TcpStream>> + Send + 'static,
{
    let mut dialling = JoinSet::new();
    loop {
        // Both are safe to cancel: who was not taken waits, who was dialled for too.
        select! {
            taken = listener.accept() => {
                let Ok((near, peer)) = taken else { return };
                // Wherever it is dropped before it is let in, it is reset.
                let _ = near.set_zero_linger();
                if let Some(from) = who(peer.ip()) {
                    let far = dial(from);
                    dialling.spawn(async move { (from, near, far.await) });
                }
            }
            Some(dialled) = dialling.join_next() => match dialled {
                Ok((from, near, Ok(far))) => {
                    let _ = SockRef::from(&near).set_linger(None);
                    open(from, near, far);
                }
                Ok((_, _, Err(error))) if error.kind() == io::ErrorKind::TimedOut => {}
                Ok((_, _, Err(_))) | Err(_) => return,
            },
        }
    }
}

/// Dials, again and again while nobody answers, for as long as one waits for that.
async fn patiently<F>(dial: impl Fn() -> F) -> io::Result<TcpStream>
where
    F: Future<Output = io::Result<TcpStream>>,
{
    let over = Instant::now() + TAKEN;
    while Instant::now() < over {
        if let Ok(answer) = timeout(TRY, dial()).await {
            return answer;
        }
    }
    Err(io::ErrorKind::TimedOut.into())
}

#[cfg(test)]
mod tests {
    use std::future::pending;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::io::AsyncReadExt as _;
    use tokio::sync::mpsc;

    use super::*;

    const ONE: Who = Who::Broker(1);
    /// Longer than anything takes here.
    const PATIENCE: Duration = Duration::from_secs(60);

    /// Nobody answers the first, and everybody else is refused.
    fn dying() -> impl Fn() -> std::pin::Pin<Box<dyn Future<Output = io::Result<TcpStream>> + Send>> {
        let dialled = AtomicUsize::new(0);
        move || match dialled.fetch_add(1, Ordering::SeqCst) {
            0 => Box::pin(pending()),
            _ => Box::pin(async { Err(io::ErrorKind::ConnectionRefused.into()) }),
        }
    }

    async fn listener() -> (TcpListener, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        (listener, at)
    }

    #[tokio::test]
    async fn who_dials_a_process_that_has_died_is_reset_and_so_is_who_waits_for_it() {
        let (front, at) = listener().await;
        let mut waits = TcpStream::connect(at).await.unwrap();
        let mut refused = TcpStream::connect(at).await.unwrap();
        let dial = dying();
        let door = tokio::spawn(take(front, |_| Some(ONE), move |_| dial(), |_, _, _| unreachable!()));
        for near in [&mut refused, &mut waits] {
            let ended = timeout(PATIENCE, near.read_u8()).await.expect("nobody is kept");
            assert_eq!(ended.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
        }
        door.await.unwrap();
        let again = TcpStream::connect(at).await;
        assert_eq!(again.unwrap_err().kind(), io::ErrorKind::ConnectionRefused, "there is no door any more");
    }

    #[tokio::test]
    async fn who_is_let_in_is_not_reset() {
        let ((front, at), (back, process)) = (listener().await, listener().await);
        let (opened, mut open) = mpsc::unbounded_channel();
        let open_it = move |_, near, far| opened.send((near, far)).unwrap();
        let door = tokio::spawn(take(front, |_| Some(ONE), move |_| TcpStream::connect(process), open_it));
        let mut one = TcpStream::connect(at).await.unwrap();
        let _other = back.accept().await.unwrap();
        drop(open.recv().await.unwrap());
        assert_eq!(one.read(&mut [0]).await.unwrap(), 0, "it ends as it is ended");
        door.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn whose_queue_is_full_may_die_meanwhile() {
        let refused = timeout(TAKEN, patiently(dying())).await.expect("it is not found out after that");
        assert_eq!(refused.unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
        let late = patiently(pending).await;
        assert_eq!(late.unwrap_err().kind(), io::ErrorKind::TimedOut);
    }
}
