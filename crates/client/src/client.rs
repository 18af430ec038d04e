//! [`Client`]: the way in. Holds the connections and the map of the cluster; producers, consumers and everything
//! else are made from it.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use weir_proto::v1;
use weir_proto::v1::metadata_service_client::MetadataServiceClient;
use weir_runtime::{Os, RealOs};

use crate::channel::Channels;
use crate::io::Io;
use crate::metadata::Cache;
use crate::{Admin, Error, Offsets, Result, Topics};
use weir_types::Endpoint;

/// The port of the public API where none is said.
pub const DEFAULT_PORT: u16 = 9347;

/// A connection to a cluster. Cheap to clone; the clones share everything.
#[derive(Clone)]
pub struct Client {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) options: Options,
    pub(crate) os: Arc<dyn Os>,
    pub(crate) io: Arc<Io>,
    pub(crate) channels: Channels,
    pub(crate) metadata: Cache,
    /// Where the caller said the cluster is.
    bootstrap: Vec<Endpoint>,
    /// Counts up when a broker did not answer, so that the next call asks another.
    next_broker: AtomicUsize,
    was_connected: AtomicBool,
    /// What a call that is being tried again failed with last.
    trying_again: Mutex<Option<Error>>,
}

#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub(crate) name: String,
    pub(crate) connect_timeout: Duration,
    pub(crate) call_timeout: Duration,
    pub(crate) metadata_age_max: Duration,
    pub(crate) message_bytes_max: usize,
}

/// How a client is to be.
#[derive(Clone)]
pub struct ClientBuilder {
    options: Options,
    os: Option<Arc<dyn Os>>,
    on_current_runtime: bool,
}

impl Client {
    /// Connects with the usual settings. `addresses` is `host:port`, or several with commas between them; one
    /// that answers is enough, the others of the cluster are learned from it.
    ///
    /// # Errors
    /// [`Error::Unreachable`] if none of them answers, [`Error::Invalid`] for what is not an address.
    pub async fn connect(addresses: &str) -> Result<Self> {
        Self::builder().connect(addresses).await
    }

    /// For other settings.
    pub fn builder() -> ClientBuilder {
        ClientBuilder::default()
    }

    /// Who answered, its version, its limits and its clock.
    ///
    /// # Errors
    /// Those of every call: the server's, [`Error::Unreachable`], [`Error::Timeout`].
    pub async fn server_info(&self) -> Result<v1::GetServerInfoResponse> {
        self.inner
            .call("GetServerInfo", v1::GetServerInfoRequest {}, |channel, request| async move {
                MetadataServiceClient::new(channel).get_server_info(request).await
            })
            .await
    }

    /// How many partitions a topic has.
    ///
    /// # Errors
    /// TOPIC_NOT_FOUND, and those of every call.
    pub async fn partition_count(&self, topic: &str) -> Result<i32> {
        Ok(self.inner.topic(topic).await?.partition_count())
    }

    /// Makes, changes and removes topics.
    pub fn topics(&self) -> Topics {
        Topics::new(Arc::clone(&self.inner))
    }

    /// First, last and by time: offsets of partitions.
    pub fn offsets(&self) -> Offsets {
        Offsets::new(Arc::clone(&self.inner))
    }

    /// Brokers, settings, the state of partitions: for operators.
    pub fn admin(&self) -> Admin {
        Admin::new(Arc::clone(&self.inner))
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("bootstrap", &self.inner.bootstrap)
            .field("options", &self.inner.options)
            .finish_non_exhaustive()
    }
}

impl Default for ClientBuilder {
    fn default() -> Self {
        Self {
            options: Options {
                name: format!("weir-client/{}", env!("CARGO_PKG_VERSION")),
                connect_timeout: Duration::from_secs(5),
                call_timeout: Duration::from_secs(30),
                metadata_age_max: Duration::from_secs(60),
                message_bytes_max: 64 << 20,
            },
            os: None,
            on_current_runtime: false,
        }
    }
}

impl ClientBuilder {
    /// A name for the server's logs and metrics, at most 200 bytes.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.options.name = name.into();
        self
    }

    /// How long making a connection may take. 5 s.
    #[must_use]
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.options.connect_timeout = timeout;
        self
    }

    /// How long a call may take, retries included. 30 s. Producing and consuming have their own.
    #[must_use]
    pub fn call_timeout(mut self, timeout: Duration) -> Self {
        self.options.call_timeout = timeout;
        self
    }

    /// How old the map of the cluster may become before it is looked at again without a cause, where the servers do
    /// not tell of changes by themselves. 60 s.
    #[must_use]
    pub fn metadata_age_max(mut self, age: Duration) -> Self {
        self.options.metadata_age_max = age;
        self
    }

    /// The largest message that this client takes, in bytes. 64 MiB, which every batch fits into.
    #[must_use]
    pub fn message_bytes_max(mut self, bytes: usize) -> Self {
        self.options.message_bytes_max = bytes;
        self
    }

    /// The operating system to use: sockets, wall clock, threads. For simulations.
    #[must_use]
    pub fn os(mut self, os: Arc<dyn Os>) -> Self {
        self.os = Some(os);
        self
    }

    /// Runs the connections on the runtime that `connect` is called on, instead of a thread of their own. For
    /// simulations, and for callers who want no further thread.
    #[must_use]
    pub fn on_current_runtime(mut self) -> Self {
        self.on_current_runtime = true;
        self
    }

    /// Connects.
    ///
    /// # Errors
    /// As [`Client::connect`].
    pub async fn connect(self, addresses: &str) -> Result<Client> {
        let bootstrap = addresses.split(',').map(|text| Endpoint::of_url(text.trim(), DEFAULT_PORT));
        let bootstrap =
            bootstrap.collect::<Result<_, _>>().map_err(|error| Error::invalid(error.to_string()))?;
        if self.options.name.len() > 200 {
            return Err(Error::invalid("the client's name is longer than 200 bytes"));
        }
        let os = match self.os {
            Some(os) => os,
            None => real_os()?,
        };
        let io = if self.on_current_runtime { Io::current()? } else { Io::own(&*os)? };
        let inner = Inner {
            channels: Channels::new(Arc::clone(&os), self.options.connect_timeout),
            metadata: Cache::default(),
            options: self.options,
            os,
            io: Arc::new(io),
            bootstrap,
            next_broker: AtomicUsize::new(0),
            was_connected: AtomicBool::new(false),
            trying_again: Mutex::default(),
        };
        let client = Client { inner: Arc::new(inner) };
        client.server_info().await?;
        Ok(client)
    }
}

impl fmt::Debug for ClientBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientBuilder").field("options", &self.options).finish_non_exhaustive()
    }
}

impl Inner {
    /// The broker that the next call goes to: one that is known to be up, else one that the caller named.
    pub(crate) fn broker_to_ask(&self) -> Endpoint {
        let map = self.metadata.map();
        let at = self.next_broker.load(Ordering::Relaxed) % self.brokers_known();
        let bootstrap = || self.bootstrap.get(at).or(self.bootstrap.first()).cloned();
        let known = at.checked_sub(self.bootstrap.len()).and_then(|at| map.brokers.values().nth(at));
        known.map(|broker| broker.address.clone()).or_else(bootstrap).unwrap_or_else(|| {
            // A client without an address cannot be built; asking nobody fails like asking a dead broker.
            Endpoint::localhost(DEFAULT_PORT)
        })
    }

    /// How many addresses there are to try, at least one.
    pub(crate) fn brokers_known(&self) -> usize {
        (self.bootstrap.len() + self.metadata.map().brokers.len()).max(1)
    }

    /// Gives up connections to brokers that are gone, once the map has changed.
    pub(crate) fn forget_gone(&self) {
        let map = self.metadata.map();
        if map.brokers.is_empty() {
            return;
        }
        self.channels.keep(|address| {
            self.bootstrap.contains(address) || map.brokers.values().any(|broker| broker.address == *address)
        });
    }

    /// Asks another broker from now on, unless somebody else has moved on already. Most are known twice: the caller has
    /// named them, and they are in the map.
    pub(crate) fn pass_over(&self, address: &Endpoint) {
        for _ in 0..self.brokers_known() {
            if self.broker_to_ask() != *address {
                return;
            }
            self.next_broker.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(crate) fn connected(&self) {
        self.was_connected.store(true, Ordering::Relaxed);
        self.try_again(None);
    }

    /// A call failed and is tried again; `None`: not any more.
    pub(crate) fn try_again(&self, error: Option<Error>) {
        *self.trying_again.lock() = error;
    }

    /// What a call that is being tried again failed with last.
    pub(crate) fn trying_again(&self) -> Option<Error> {
        self.trying_again.lock().clone()
    }

    /// Whether anybody has ever answered: if not, the address may just be wrong.
    pub(crate) fn was_connected(&self) -> bool {
        self.was_connected.load(Ordering::Relaxed)
    }
}

/// The machine, with as many threads for compression as leave one core to everything else.
fn real_os() -> Result<Arc<dyn Os>> {
    match RealOs::new(crate::producer::compression_threads()) {
        Ok(os) => Ok(Arc::new(os)),
        Err(e) => Err(Error::invalid(format!("cannot start the client's threads: {e}"))),
    }
}
