//! A broker's listeners: each with a tonic server on every data runtime, and one acceptor that spreads its connections
//! over them. How connections come and go is here; what is answered, and what is done around every call, is said for
//! each listener in a file of its own.

mod entrance;
mod internal;
mod opening;
mod public;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use http::{Request, Response};
use prometheus::IntGauge;
use tokio::sync::SetOnce;
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;
use tonic::body::Body;
use tonic::transport::Server;
use tonic::transport::server::Connected;
use tower::{BoxError, Service};
use weir_rpc::{ConnectionInfo, ConnectionLimits, ServerConnections, servers, tuning};
use weir_runtime::{Executors, OnEnd, Os, Role};

pub(crate) use self::entrance::{Bound, Entrance};
use self::opening::{Gate, Opening};
use crate::broker::Broker;
use crate::http::Shown;
use crate::metrics::Metrics;
use crate::starting::StartingLayer;

/// A listener that is served. Dropped, it cuts off what is still open.
#[derive(Debug)]
pub(crate) struct Serving {
    pub(crate) addr: SocketAddr,
    accepting: JoinHandle<Option<()>>,
    servers: Vec<JoinHandle<Option<()>>>,
    /// Ends the servers once they have answered what they have.
    over: CancellationToken,
    _cut: DropGuard,
}

/// How a listener treats its connections.
#[derive(Clone, Debug)]
struct Rules {
    limits: ConnectionLimits,
    /// Counts those that are open.
    connections: IntGauge,
    /// How old one gets; zero: any age.
    age_max: Duration,
    /// What one of that age has to finish its calls.
    age_grace: Duration,
    /// Whether HTTP/1.1 is understood beside HTTP/2.
    http1: bool,
}

/// What answers a listener's requests: routes, in what is done around every call.
trait Answers:
    Service<Request<Body>, Response = Response<Self::Answer>, Error: Into<BoxError> + Send, Future: Send>
    + Clone
    + Send
    + Sync
    + 'static
{
    /// The body of an answer.
    type Answer: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static;
}

impl<S, B> Answers for S
where
    S: Service<Request<Body>, Response = Response<B>, Error: Into<BoxError> + Send, Future: Send>
        + Clone
        + Send
        + Sync
        + 'static,
    B: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    type Answer = B;
}

/// What a listener is started with.
pub(crate) struct Around<'a> {
    pub(crate) os: &'a Arc<dyn Os>,
    pub(crate) executors: &'a Executors,
    pub(crate) role: &'a Role,
    pub(crate) config: &'a weir_config::Broker,
    pub(crate) metrics: &'a Metrics,
}

/// Starts to serve clients, whether there is a broker yet or not. `http_addr` is where people are sent who come with a browser.
pub(crate) fn start_public(
    around: &Around<'_>,
    shown: &Arc<Shown>,
    bound: Bound,
    http_addr: SocketAddr,
) -> Serving {
    let opening = Opening { shown: shown.clone(), at: bound.endpoint.clone() };
    let service = || {
        let Opening { shown, at } = opening.clone();
        async move {
            let broker = shown.broker.wait().await;
            public::service(broker.clone(), http_addr, StartingLayer::new(broker, &at)).await
        }
    };
    let rules = public::rules(around.config, around.metrics);
    start(around, bound, rules, Some(&opening), service)
}

/// Starts to serve other brokers.
pub(crate) fn start_internal(around: &Around<'_>, broker: &Arc<Broker>, bound: Bound) -> Serving {
    let service = || internal::service(broker.clone());
    start(around, bound, internal::rules(around.config, around.metrics), None, service)
}

/// Starts to serve on a bound listener; every runtime has a `service` of its own. `opening`: what is said until that is there.
fn start<F>(
    around: &Around<'_>,
    bound: Bound,
    rules: Rules,
    opening: Option<&Opening>,
    service: impl Fn() -> F,
) -> Serving
where
    F: Future<Output: Answers> + Send + 'static,
{
    let Around { os, executors, role, metrics, .. } = *around;
    let listener = bound.listener;
    let addr = listener.local_addr();
    let (over, cut) = (CancellationToken::new(), CancellationToken::new());
    let (acceptor, connections) = servers(executors.data_runtimes(), rules.limits);
    metrics.refuses_connections(acceptor.refused());
    let servers = (0..)
        .zip(connections)
        .map(|(index, connections)| {
            let ends = Ends { over: over.clone(), cut: cut.clone() };
            let (os, rules, service) = (os.clone(), rules.clone(), (service(), opening.cloned()));
            let serving = async move { serve(&*os, &rules, service, connections, ends).await };
            executors.spawn_data(index, role.task("server", OnEnd::StopRole, serving))
        })
        .collect();
    let accepting = executors.spawn_control(role.task("acceptor", OnEnd::StopRole, acceptor.run(listener)));
    Serving { addr, accepting, servers, over, _cut: cut.drop_guard() }
}

/// How a server comes to its end.
#[derive(Clone, Debug)]
struct Ends {
    /// In order: what was called is answered.
    over: CancellationToken,
    /// At once.
    cut: CancellationToken,
}

/// Serves one server's connections to their end.
async fn serve<S: Answers>(
    os: &dyn Os,
    rules: &Rules,
    (service, opening): (impl Future<Output = S>, Option<Opening>),
    mut connections: ServerConnections,
    ends: Ends,
) {
    let server = tuning::server(Server::builder()).accept_http1(rules.http1);
    let served = TaskTracker::new();
    let made = Arc::new(SetOnce::new());
    // Nobody else sets it.
    let mut making = pin!(async { drop(made.set(service.await)) });
    loop {
        let is_made = made.initialized();
        // Cancel safe: a connection that was not returned was not taken off the queue.
        let connection = tokio::select! {
            () = ends.over.cancelled() => break,
            () = &mut making, if !is_made => continue,
            next = connections.next(), if is_made || opening.is_some() => match next {
                None => break,
                Some(Err(error)) => {
                    tracing::debug!(%error, "a connection was gone before it was taken up");
                    continue;
                }
                Some(Ok(connection)) => connection,
            },
        };
        let age = Age::draw(os, rules);
        let info = connection.connect_info();
        let counted = Metrics::open(&rules.connections);
        let (server, ends) = (age.bounds(server.clone()), ends.clone());
        let (service, opening, made) = (made.get().cloned(), opening.clone(), made.clone());
        served.spawn(async move {
            let _counted = counted;
            // tonic ends with its incoming connections; this one is served until it, its age or the process ends.
            let only =
                futures::stream::iter([Ok::<_, Infallible>(connection)]).chain(futures::stream::pending());
            // tonic serves it on a task of its own, which ends with the connection.
            let cut = async {
                ends.cut.cancelled().await;
                info.cut();
                std::future::pending().await
            };
            let farewell = async {
                tokio::select! {
                    () = ends.over.cancelled() => {}
                    () = info.closed() => {}
                    () = age.passes() => {}
                }
            };
            let serving = async {
                match (service, opening) {
                    (None, Some(opening)) => {
                        let gate = Gate { opening, made };
                        server.serve_with_incoming_shutdown(gate, only, farewell).await
                    }
                    (Some(service), _) => server.serve_with_incoming_shutdown(service, only, farewell).await,
                    // No connection is taken up before.
                    (None, None) => Ok(()),
                }
            };
            tokio::select! {
                served = serving => {
                    if let Err(error) = served {
                        tracing::debug!(%error, "a connection cannot be served");
                    }
                }
                // Never: they only tell.
                () = age.tells(&info) => {}
                () = cut => {}
            }
        });
    }
    served.close();
    served.wait().await;
}

/// How old one connection gets: drawn for each, so that those that came together do not go together.
#[derive(Clone, Copy, Debug)]
struct Age {
    /// `None`: any age.
    max: Option<Duration>,
    grace: Duration,
}

/// Long calls are told a little after the client was told to dial anew, so that they are not opened here again.
const TELL_AFTER: Duration = Duration::from_millis(500);

impl Age {
    fn draw(os: &dyn Os, rules: &Rules) -> Self {
        let max = rules.age_max;
        // A tenth more or less.
        let share = 900 + u32::try_from(os.random_u64() % 201).unwrap_or(0);
        let drawn = (!max.is_zero()).then(|| max * share / 1_000);
        Self { max: drawn, grace: rules.age_grace }
    }

    /// The hard end: what is not over by then is cut off.
    fn bounds<L>(self, server: Server<L>) -> Server<L> {
        match self.max {
            Some(max) => server.max_connection_age(max).max_connection_age_grace(self.grace),
            None => server,
        }
    }

    /// Waits until the connection is as old as it gets.
    async fn passes(self) {
        match self.max {
            Some(max) => tokio::time::sleep(max).await,
            None => std::future::pending().await,
        }
    }

    /// Tells the connection's long calls when its age has passed.
    async fn tells(self, info: &ConnectionInfo) {
        self.passes().await;
        tokio::time::sleep(TELL_AFTER.min(self.grace / 2)).await;
        info.retire();
        std::future::pending().await
    }
}

impl Serving {
    /// Takes no more connections.
    pub(crate) fn stop_accepting(&self) {
        self.accepting.abort();
    }

    /// Lets calls come to their end, and ends. Dropped before, it cuts them off.
    pub(crate) async fn stop(self) {
        let Self { accepting, servers, over, _cut, .. } = self;
        accepting.abort();
        over.cancel();
        for server in servers {
            // One that panicked has said so.
            let _ = server.await;
        }
    }
}
