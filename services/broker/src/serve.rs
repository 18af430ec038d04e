//! The public listener: one tonic server on each data runtime, one acceptor that spreads the connections.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::service::Routes;
use tonic::transport::Server;
use tonic::transport::server::Connected;
use weir_proto::v1::admin_service_server::AdminServiceServer;
use weir_proto::v1::metadata_service_server::MetadataServiceServer;
use weir_proto::v1::producer_service_server::ProducerServiceServer;
use weir_proto::v1::topic_service_server::TopicServiceServer;
use weir_rpc::{ConnectionInfo, ServerConnections, servers, tuning};
use weir_runtime::{Executors, Listener, OnEnd, Os, Role};

use crate::arriving::ArrivingLayer;
use crate::broker::Broker;
use crate::consumer_server::ConsumerServer;
use crate::cors;
use crate::greeting::Greeting;
use crate::metrics::Metrics;
use crate::observe::Observe;
use crate::options::connection_limits;
use crate::producer_server::ProducerServer;
use crate::service::Public;

/// The running listener.
#[derive(Debug)]
pub(crate) struct Serving {
    pub(crate) addr: SocketAddr,
    accepting: JoinHandle<Option<()>>,
    servers: Vec<JoinHandle<Option<()>>>,
    /// Ends the servers once they have answered what they have.
    over: CancellationToken,
}

/// Starts to serve on a bound listener.
pub(crate) fn start(
    broker: &Arc<Broker>,
    executors: &Executors,
    role: &Role,
    listener: Box<dyn Listener>,
    http_addr: SocketAddr,
) -> Serving {
    let addr = listener.local_addr();
    let over = CancellationToken::new();
    let (acceptor, connections) = servers(executors.data_runtimes(), connection_limits(&broker.config));
    broker.metrics.refuses_connections(acceptor.refused());
    let servers = (0..)
        .zip(connections)
        .map(|(index, connections)| {
            let serving = serve(broker.clone(), connections, http_addr, over.clone());
            executors.spawn_data(index, role.task("server", OnEnd::StopRole, serving))
        })
        .collect();
    let accepting = executors.spawn_control(role.task("acceptor", OnEnd::StopRole, acceptor.run(listener)));
    Serving { addr, accepting, servers, over }
}

/// Serves one server's connections to their end.
async fn serve(
    broker: Arc<Broker>,
    mut connections: ServerConnections,
    http_addr: SocketAddr,
    over: CancellationToken,
) {
    let server = tuning::server(Server::builder())
        // Browsers speak grpc-web over HTTP/1.1; everybody else who does so gets a line of text.
        .accept_http1(true)
        // First of all: a preflight is no call.
        .layer(tower::util::option_layer(cors::layer(&broker.config.cors_origins)))
        .layer(Greeting::new(http_addr))
        .layer(tonic_web::GrpcWebLayer::new())
        // Below grpc-web, which may send its bodies as text: here all are gRPC's own, every answer ends with trailers, and
        // what is no grpc-web has become a status.
        .layer(Observe::layer(broker.clone()))
        .layer(ArrivingLayer::new(&broker));
    let routes = routes(&broker).await.prepare();
    let served = TaskTracker::new();
    loop {
        // Cancel safe: a connection that was not returned was not taken off the queue.
        let connection = tokio::select! {
            () = over.cancelled() => break,
            next = connections.next() => match next {
                None => break,
                Some(Err(error)) => {
                    tracing::debug!(%error, "a connection was gone before it was taken up");
                    continue;
                }
                Some(Ok(connection)) => connection,
            },
        };
        let age = Age::draw(&*broker.os, &broker.config);
        let info = connection.connect_info();
        let counted = Metrics::open(&broker.metrics.connections);
        let (server, routes, over) = (age.bounds(server.clone()), routes.clone(), over.clone());
        served.spawn(async move {
            let _counted = counted;
            // tonic ends with its incoming connections; this one is served until it, its age or the process ends.
            let only =
                futures::stream::iter([Ok::<_, Infallible>(connection)]).chain(futures::stream::pending());
            let farewell = async {
                tokio::select! {
                    () = over.cancelled() => {}
                    () = info.closed() => {}
                    () = age.passes() => {}
                }
            };
            tokio::select! {
                served = server.serve_with_incoming_shutdown(routes, only, farewell) => {
                    if let Err(error) = served {
                        tracing::debug!(%error, "a connection cannot be served");
                    }
                }
                // Never: it only tells.
                () = age.tells(&info) => {}
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
    fn draw(os: &dyn Os, config: &weir_config::Broker) -> Self {
        let max = config.connection_age_ms_max;
        // A tenth more or less.
        let share = 900 + u32::try_from(os.random_u64() % 201).unwrap_or(0);
        let drawn = (!max.is_zero()).then(|| max * share / 1_000);
        Self { max: drawn, grace: config.connection_age_grace_ms }
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

async fn routes(broker: &Arc<Broker>) -> Routes {
    let public = Public(broker.clone());
    let bytes_max = broker.config.request_bytes_max;
    let (health, health_service) = tonic_health::server::health_reporter();
    health.set_service_status("", tonic_health::ServingStatus::Serving).await;
    let mut routes = Routes::builder();
    macro_rules! generated {
        ($server:ident) => {{
            health.set_serving::<$server<Public>>().await;
            $server::new(public.clone())
                .max_decoding_message_size(bytes_max)
                // What a message may hold is decided where it is made.
                .max_encoding_message_size(usize::MAX)
                .accept_compressed(tonic::codec::CompressionEncoding::Gzip)
        }};
    }
    let producer = generated!(ProducerServiceServer);
    routes.add_service(ProducerServer::new(public.clone(), producer));
    routes.add_service(generated!(MetadataServiceServer));
    routes.add_service(generated!(TopicServiceServer));
    routes.add_service(generated!(AdminServiceServer));
    health.set_serving::<ConsumerServer>().await;
    routes.add_service(ConsumerServer(public));
    routes.add_service(health_service);
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(weir_proto::PUBLIC_FILE_DESCRIPTOR_SET)
            // So that tools show the details of errors as messages.
            .register_encoded_file_descriptor_set(tonic_types::pb::FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    // Both are built from the descriptors of this very build.
    routes.add_service(reflection().build_v1().expect("the embedded descriptors are valid"));
    routes.add_service(reflection().build_v1alpha().expect("the embedded descriptors are valid"));
    routes.routes()
}

impl Serving {
    /// Takes no more connections.
    pub(crate) fn stop_accepting(&self) {
        self.accepting.abort();
    }

    /// Lets calls come to their end, and ends.
    pub(crate) async fn stop(self) {
        self.accepting.abort();
        self.over.cancel();
        for server in self.servers {
            // One that panicked has said so.
            let _ = server.await;
        }
    }
}
