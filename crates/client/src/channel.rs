//! Connections: how they are made, and which call goes over which.
//!
//! Each broker gets up to two. One carries the streams of producers and consumers; small calls beside a stream
//! that fills the pipe would wait half a millisecond and more for their turn, so they have their own. Both dial
//! lazily and again by themselves; what was on its way when one broke is the caller's to judge.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tonic::transport::{Channel, Endpoint};
use weir_rpc::tuning;
use weir_runtime::Os;

use crate::address::Address;
use crate::io::Io;
use crate::{Error, Result};

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
    open: Mutex<HashMap<(Address, Purpose), Channel>>,
}

impl Channels {
    pub(crate) fn new(os: Arc<dyn Os>, connect_timeout: Duration) -> Self {
        Self { os, connect_timeout, open: Mutex::default() }
    }

    /// The connection for this purpose. Nothing is dialled before the first call on it.
    pub(crate) fn get(&self, io: &Io, address: &Address, purpose: Purpose) -> Result<Channel> {
        let mut open = self.open.lock();
        if let Some(channel) = open.get(&(address.clone(), purpose)) {
            return Ok(channel.clone());
        }
        let channel = self.dial_lazily(io, address)?;
        open.insert((address.clone(), purpose), channel.clone());
        Ok(channel)
    }

    /// Forgets a connection that its server is about to end: the next [`Channels::get`] dials anew, while what
    /// still runs on the old one goes on.
    pub(crate) fn renew(&self, address: &Address, purpose: Purpose) {
        self.open.lock().remove(&(address.clone(), purpose));
    }

    fn dial_lazily(&self, io: &Io, address: &Address) -> Result<Channel> {
        let endpoint = Endpoint::from_shared(format!("http://{address}"))
            .map_err(|e| Error::invalid(format!("\"{address}\" is not an address: {e}")))?;
        let (os, address, timeout) = (Arc::clone(&self.os), address.clone(), self.connect_timeout);
        let connect = tower::service_fn(move |_| {
            let (os, address) = (Arc::clone(&os), address.clone());
            async move {
                match tokio::time::timeout(timeout, os.connect(&address.host, address.port)).await {
                    Ok(connected) => connected.map(TokioIo::new),
                    Err(_) => Err(std::io::Error::new(
                        std::io::ErrorKind::TimedOut,
                        format!("no connection within {timeout:?} (connect_timeout)"),
                    )),
                }
            }
        });
        // The connection's task starts here and must run on our runtime, whoever asks.
        let _runtime = io.enter();
        Ok(tuning::endpoint(endpoint).connect_with_connector_lazy(connect))
    }
}
