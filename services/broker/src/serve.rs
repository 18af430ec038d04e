//! The public listener: one tonic server on each data runtime, one acceptor that spreads the connections.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic::transport::Server;
use weir_proto::v1::admin_service_server::AdminServiceServer;
use weir_proto::v1::metadata_service_server::MetadataServiceServer;
use weir_proto::v1::producer_service_server::ProducerServiceServer;
use weir_proto::v1::topic_service_server::TopicServiceServer;
use weir_rpc::{LaneConnections, lanes, tuning};
use weir_runtime::{Executors, Listener};

use crate::broker::Broker;
use crate::consumer_server::ConsumerServer;
use crate::observe::Observe;
use crate::options::connection_limits;
use crate::service::Public;

/// The running listener.
#[derive(Debug)]
pub(crate) struct Serving {
    pub(crate) addr: SocketAddr,
    accepting: JoinHandle<()>,
    lanes: Vec<JoinHandle<()>>,
    /// Ends the servers once they have answered what they have.
    over: CancellationToken,
}

/// Starts to serve on a bound listener.
pub(crate) fn start(broker: &Arc<Broker>, executors: &Executors, listener: Box<dyn Listener>) -> Serving {
    let addr = listener.local_addr();
    let over = CancellationToken::new();
    let (acceptor, connections) = lanes(executors.data_runtimes(), connection_limits(&broker.config));
    let lanes = (0..)
        .zip(connections)
        .map(|(index, connections)| {
            executors.spawn_data(index, lane(broker.clone(), connections, over.clone()))
        })
        .collect();
    let accepting = executors.spawn_control(acceptor.run(listener));
    Serving { addr, accepting, lanes, over }
}

/// Serves one lane's connections to their end.
async fn lane(broker: Arc<Broker>, connections: LaneConnections, over: CancellationToken) {
    let mut server = tuning::server(Server::builder())
        // Browsers speak grpc-web over HTTP/1.1; everybody else who does so gets a line of text.
        .accept_http1(true)
        .layer(Observe::layer(broker.clone()))
        .layer(tonic_web::GrpcWebLayer::new());
    let served = server
        .add_routes(routes(&broker).await)
        .serve_with_incoming_shutdown(connections, over.cancelled_owned())
        .await;
    if let Err(error) = served {
        tracing::error!(%error, "a data runtime stopped serving");
    }
}

async fn routes(broker: &Arc<Broker>) -> Routes {
    let public = Public(broker.clone());
    let bytes_max = broker.config.request_bytes_max;
    let (health, health_service) = tonic_health::server::health_reporter();
    health.set_service_status("", tonic_health::ServingStatus::Serving).await;
    let mut routes = Routes::builder();
    macro_rules! serve {
        ($($server:ident),*) => {$(
            health.set_serving::<$server<Public>>().await;
            routes.add_service(
                $server::new(public.clone())
                    .max_decoding_message_size(bytes_max)
                    // What a message may hold is decided where it is made.
                    .max_encoding_message_size(usize::MAX)
                    .accept_compressed(tonic::codec::CompressionEncoding::Gzip),
            );
        )*};
    }
    serve!(ProducerServiceServer, MetadataServiceServer, TopicServiceServer, AdminServiceServer);
    health.set_serving::<ConsumerServer>().await;
    routes.add_service(ConsumerServer(public));
    routes.add_service(health_service);
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(weir_proto::PUBLIC_FILE_DESCRIPTOR_SET)
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
        for lane in self.lanes {
            // A lane that panicked has said so.
            let _ = lane.await;
        }
    }
}
