//! A door in front of each node: takes the connections that others make to it, and hands them on to its process over
//! loopback, on [ways](crate::trouble) that can be bad.
//!
//! A door is in the node's own network namespace, on the address that everybody is told. So what is between two nodes stays
//! between them: wires that are pulled out, cut or narrow are so with doors as without. Whom a connection comes from its
//! address says, and the process sees another address of loopback for each.
//!
//! Where no process listens, there is no door: whoever dials is refused, as if there were none.

use std::fs::File;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::AsFd as _;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use socket2::SockRef;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::runtime::Handle;
use tokio::time::{sleep, timeout};
use weir_tests::dice::Dice;

use crate::carry;
use crate::network::namespace;
use crate::trouble::Ways;
use crate::who::Who;

/// How often is looked whether a process listens.
const LOOK: Duration = Duration::from_millis(10);
/// A process whose queue is full takes no connection. So long one waits for it.
const TAKEN: Duration = Duration::from_secs(1);
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
            let dice = Dice::new(seed ^ u64::from(*port) << 32 ^ u64::from(who.number()) << 48);
            let door = Door { who, port: *port, namespace, ways: ways.clone(), dice };
            threads.spawn(door.serve());
        }
    }
    Ok(())
}

struct Door {
    who: Who,
    port: u16,
    namespace: File,
    ways: Ways,
    dice: Dice,
}

impl Door {
    async fn serve(mut self) {
        loop {
            // One that is being closed may still have the address.
            let open = match self.dial(Ipv4Addr::LOCALHOST).await {
                Ok(_) => self.listen(),
                Err(error) => Err(error),
            };
            match open {
                Ok(listener) => self.while_somebody_listens(listener).await,
                Err(_) => sleep(LOOK).await,
            }
        }
    }

    async fn while_somebody_listens(&mut self, listener: TcpListener) {
        while let Ok((near, peer)) = listener.accept().await {
            let Some(from) = Who::at(&peer.ip().to_string()) else { continue };
            match timeout(TAKEN, self.dial(Ipv4Addr::new(127, 0, 0, from.number()))).await {
                Ok(Ok(far)) => self.open(from, near, far),
                Ok(Err(_)) => {
                    let _ = near.set_zero_linger();
                    return;
                }
                Err(_) => {
                    let _ = near.set_zero_linger();
                }
            }
        }
    }

    fn open(&mut self, from: Who, near: TcpStream, far: TcpStream) {
        // As everybody sets them. One that is gone already takes no setting, and nothing else.
        let _ = (near.set_nodelay(true), far.set_nodelay(true));
        let _ = SockRef::from(&near).set_tcp_user_timeout(Some(UNACKNOWLEDGED_MAX));
        let (there, back) = (self.ways.way(from, self.who), self.ways.way(self.who, from));
        tokio::spawn(carry::connection(there, back, near, far, Dice::new(self.dice.roll())));
    }

    fn listen(&self) -> io::Result<TcpListener> {
        let socket = self.socket()?;
        // The connections of before may linger.
        socket.set_reuseaddr(true)?;
        socket.bind(SocketAddr::new(IpAddr::V4(self.who.ip()), self.port))?;
        socket.listen(BACKLOG)
    }

    /// A connection to the process, from an address of loopback.
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
