//! Connections to other brokers, for calls that are passed on: to their internal listeners, as the metadata names them.
//! Replication has others. A connection carries a bounded number of calls, for a server takes no more of long ones; then
//! there is another.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tonic::transport::{Channel, Endpoint, Uri};
use weir_metadata::Image;
use weir_rpc::tuning;
use weir_runtime::Os;
use weir_types::BrokerId;

use crate::serve::Entrance;

/// How many calls one connection carries: fewer than the smallest limit that makes sense for long ones.
const CALLS_MAX: usize = 64;
/// How long making a connection may take: between brokers there is no long way.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// A broker that says nothing for so long, while it owes an answer, is asked for a sign of life ...
const SILENCE_MAX: Duration = Duration::from_secs(2);
/// ... and given up if it gives none for so long.
const SIGN_OF_LIFE_MAX: Duration = Duration::from_secs(3);

/// Connections to other brokers.
pub(crate) struct Peers {
    os: Arc<dyn Os>,
    open: Mutex<HashMap<BrokerId, Peer>>,
}

/// Those to one broker.
#[derive(Debug)]
struct Peer {
    /// Where it is, `host:port`. What it was called before is another place.
    address: String,
    lines: Vec<Line>,
}

#[derive(Debug)]
struct Line {
    channel: Channel,
    calls: Arc<AtomicUsize>,
}

/// A place on a connection, until dropped.
#[derive(Debug)]
pub(crate) struct Place {
    channel: Channel,
    calls: Arc<AtomicUsize>,
}

impl Place {
    pub(crate) fn channel(&self) -> Channel {
        self.channel.clone()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.calls.fetch_sub(1, Ordering::Relaxed);
    }
}

impl fmt::Debug for Peers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Peers").field("open", &self.open.lock()).finish_non_exhaustive()
    }
}

impl Peers {
    pub(crate) fn new(os: Arc<dyn Os>) -> Self {
        Self { os, open: Mutex::default() }
    }

    /// Whether it is said where another broker takes calls.
    pub(crate) fn knows(&self, image: &Image, broker: BrokerId) -> bool {
        address(image, broker).is_some()
    }

    /// A place on a connection to a broker. Nothing is dialled before the first call. `None`: it is nowhere.
    pub(crate) fn place(&self, image: &Image, broker: BrokerId) -> Option<Place> {
        let address = address(image, broker)?;
        let mut open = self.open.lock();
        if open.get(&broker).is_none_or(|peer| peer.address != address) {
            // Somebody has come or moved: a moment to let those go that are no more.
            open.retain(|id, _| image.broker(*id).is_some_and(|broker| broker.state.is_alive()));
            open.insert(broker, Peer { address: address.clone(), lines: Vec::new() });
        }
        let peer = open.get_mut(&broker)?;
        let free = peer.lines.iter().find(|line| line.calls.load(Ordering::Relaxed) < CALLS_MAX);
        let (channel, calls) = match free {
            Some(line) => (line.channel.clone(), line.calls.clone()),
            None => {
                // What only many calls needed is given up again, but for one.
                peer.lines.retain(|line| line.calls.load(Ordering::Relaxed) > 0);
                let line = Line { channel: self.dial(&address)?, calls: Arc::default() };
                let place = (line.channel.clone(), line.calls.clone());
                peer.lines.push(line);
                place
            }
        };
        calls.fetch_add(1, Ordering::Relaxed);
        Some(Place { channel, calls })
    }

    fn dial(&self, address: &str) -> Option<Channel> {
        let endpoint = Endpoint::from_shared(format!("http://{address}")).ok()?;
        let os = self.os.clone();
        let connect = tower::service_fn(move |uri: Uri| {
            let os = os.clone();
            async move {
                // An IPv6 address stands in brackets in a URI, and without them everywhere else.
                let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
                let connecting = os.connect(host, uri.port_u16().unwrap_or_default());
                match tokio::time::timeout(CONNECT_TIMEOUT, connecting).await {
                    Ok(connected) => connected.map(TokioIo::new),
                    Err(_) => Err(std::io::ErrorKind::TimedOut.into()),
                }
            }
        });
        let endpoint = tuning::endpoint(endpoint)
            .http2_keep_alive_interval(SILENCE_MAX)
            .keep_alive_timeout(SIGN_OF_LIFE_MAX);
        Some(endpoint.connect_with_connector_lazy(connect))
    }
}

/// Where a broker takes calls of other brokers, `host:port`, while it lives.
pub(crate) fn address(image: &Image, broker: BrokerId) -> Option<String> {
    let broker = image.broker(broker).filter(|broker| broker.state.is_alive())?;
    let endpoint = broker.endpoint(Entrance::Internal.name())?;
    Some(match endpoint.host.contains(':') {
        true => format!("[{}]:{}", endpoint.host, endpoint.port),
        false => format!("{}:{}", endpoint.host, endpoint.port),
    })
}
