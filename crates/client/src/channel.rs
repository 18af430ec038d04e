//! Connections: how they are made, and which call goes over which.
//!
//! Each broker gets up to two. One carries the streams of producers and consumers; small calls beside a stream
//! that fills the pipe would wait half a millisecond and more for their turn, so they have their own. Both dial
//! lazily and again by themselves; what was on its way when one broke is the caller's to judge.
//!
//! The connection of the calls is also the one on which a broker's silence is noticed: the watch of the metadata is
//! on it, and it leads to whoever tells who leads instead.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tonic::transport::{self, Channel};
use weir_rpc::tuning;
use weir_runtime::Os;

use crate::io::Io;
use crate::{Error, Result};
use weir_types::Endpoint;

/// A broker that says nothing for so long, while it owes us a word on the connection of the calls, is asked for a sign
/// of life ...
const SILENCE_MAX: Duration = Duration::from_millis(1_500);
/// ... and given up if it gives none for so long. On the connection of the streams it gets more time: there, the sign
/// of life takes its turn behind batches, and over a slow line that is no sign of death.
const SIGN_OF_LIFE_MAX: Duration = Duration::from_secs(2);

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Purpose {
    /// Metadata, topics, offsets: one question, one answer.
    Calls,
    /// Batches.
    Streams,
}

#[derive(Debug)]
pub(crate) struct Channels {
    os: Arc<dyn Os>,
    connect_timeout: Duration,
    open: Mutex<HashMap<(Endpoint, Purpose), Channel>>,
}

impl Channels {
    pub(crate) fn new(os: Arc<dyn Os>, connect_timeout: Duration) -> Self {
        Self { os, connect_timeout, open: Mutex::default() }
    }

    /// The connection for this purpose. Nothing is dialled before the first call on it.
    pub(crate) fn get(&self, io: &Io, address: &Endpoint, purpose: Purpose) -> Result<Channel> {
        let mut open = self.open.lock();
        if let Some(channel) = open.get(&(address.clone(), purpose)) {
            return Ok(channel.clone());
        }
        let channel = self.dial_lazily(io, address, purpose)?;
        open.insert((address.clone(), purpose), channel.clone());
        Ok(channel)
    }

    /// Forgets a connection that its server is about to end: the next [`Channels::get`] dials anew, while what
    /// still runs on the old one goes on.
    pub(crate) fn renew(&self, address: &Endpoint, purpose: Purpose) {
        self.open.lock().remove(&(address.clone(), purpose));
    }

    /// Gives up the connections to everybody else: they are not in the cluster any more. What still runs on one goes on.
    pub(crate) fn keep(&self, still_there: impl Fn(&Endpoint) -> bool) {
        self.open.lock().retain(|(address, _), _| still_there(address));
    }

    fn dial_lazily(&self, io: &Io, address: &Endpoint, purpose: Purpose) -> Result<Channel> {
        let endpoint = transport::Endpoint::from_shared(format!("http://{address}"))
            .map_err(|e| Error::invalid(format!("\"{address}\" is not an address: {e}")))?;
        let (os, address, timeout) = (Arc::clone(&self.os), address.clone(), self.connect_timeout);
        let connect = tower::service_fn(move |_| {
            let (os, address) = (Arc::clone(&os), address.clone());
            async move {
                match tokio::time::timeout(timeout, os.connect(address.host(), address.port())).await {
                    Ok(connected) => connected.map(TokioIo::new),
                    Err(_) => Err(std::io::Error::new(
                        std::io::ErrorKind::TimedOut,
                        format!("no connection within {timeout:?} (connect_timeout)"),
                    )),
                }
            }
        });
        let endpoint = match purpose {
            Purpose::Calls => tuning::endpoint(endpoint)
                .http2_keep_alive_interval(SILENCE_MAX)
                .keep_alive_timeout(SIGN_OF_LIFE_MAX),
            Purpose::Streams => tuning::endpoint(endpoint),
        };
        // The connection's task starts here and must run on our runtime, whoever asks.
        let _runtime = io.enter();
        Ok(endpoint.connect_with_connector_lazy(connect))
    }
}

#[cfg(test)]
mod tests {
    use weir_io::MemDisk;
    use weir_runtime::testing::TestOs;

    use super::*;

    #[tokio::test]
    async fn connections_to_who_is_gone_are_given_up() {
        let os = Arc::new(TestOs::new(Arc::new(MemDisk::new(0))));
        let (channels, io) = (Channels::new(os, Duration::from_secs(1)), Io::current().unwrap());
        let [stays, goes] = [1, 2].map(Endpoint::localhost);
        for address in [&stays, &goes] {
            for purpose in [Purpose::Calls, Purpose::Streams] {
                channels.get(&io, address, purpose).unwrap();
            }
        }
        channels.keep(|address| *address == stays);
        let open: Vec<_> = channels.open.lock().keys().map(|(address, _)| address.clone()).collect();
        assert_eq!(open, [stays.clone(), stays]);
    }
}
