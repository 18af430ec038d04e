//! The listener for clients: every public call, health and reflection, over gRPC and for browsers.

use std::net::SocketAddr;
use std::sync::Arc;

use tonic::service::{Routes, RoutesBuilder};
use tonic_health::server::HealthReporter;
use tower::ServiceBuilder;
use weir_proto::v1::admin_service_server::AdminServiceServer;
use weir_proto::v1::metadata_service_server::MetadataServiceServer;
use weir_proto::v1::producer_service_server::ProducerServiceServer;
use weir_proto::v1::topic_service_server::TopicServiceServer;
use weir_rpc::ConnectionLimits;

use super::{Answers, Entrance, Rules};
use crate::arriving::ArrivingLayer;
use crate::broker::Broker;
use crate::consumer_server::ConsumerServer;
use crate::cors;
use crate::forward::Forwarding;
use crate::greeting::Greeting;
use crate::metrics::Metrics;
use crate::observe::Observe;
use crate::producer_server;
use crate::service::Public;
use crate::starting::StartingLayer;

/// How connections of clients are treated.
pub(super) fn rules(config: &weir_config::Broker, metrics: &Metrics) -> Rules {
    Rules {
        limits: ConnectionLimits {
            total_max: config.connections_max,
            per_address_max: config.connections_per_address_max,
            setting_prefix: "",
        },
        connections: metrics.connections.clone(),
        age_max: config.connection_age_ms_max,
        age_grace: config.connection_age_grace_ms,
        // Browsers speak grpc-web over HTTP/1.1; everybody else who does so gets a line of text.
        http1: true,
    }
}

/// What answers clients.
pub(super) async fn service(
    broker: Arc<Broker>,
    http_addr: SocketAddr,
    starting: StartingLayer,
) -> impl Answers {
    ServiceBuilder::new()
        // First of all: a preflight is no call.
        .option_layer(cors::layer(&broker.config.cors_origins))
        .layer(Greeting::new(http_addr))
        .layer(tonic_web::GrpcWebLayer::new())
        // Below grpc-web, which may send its bodies as text: here all are gRPC's own, every answer ends with trailers, and
        // what is no grpc-web has become a status.
        .layer(Observe::layer(broker.clone()))
        .layer(starting)
        .layer(ArrivingLayer::new(&broker))
        .service(routes(&broker).await.prepare())
}

async fn routes(broker: &Arc<Broker>) -> Routes {
    let (health, health_service) = tonic_health::server::health_reporter();
    health.set_service_status("", tonic_health::ServingStatus::Serving).await;
    let mut routes = Routes::builder();
    add_calls(&mut routes, &health, &Public(broker.clone(), Entrance::Public)).await;
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

/// Adds every public call, for the listener that `public` stands for.
pub(super) async fn add_calls(routes: &mut RoutesBuilder, health: &HealthReporter, public: &Public) {
    let bytes_max = public.0.config.request_bytes_max;
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
    macro_rules! add {
        ($service:expr) => {
            match public.1 {
                Entrance::Public => routes.add_service(Forwarding::new($service, public.0.clone())),
                // One hop: what came from another broker goes to no third.
                Entrance::Internal => routes.add_service($service),
            }
        };
    }
    let producer = generated!(ProducerServiceServer);
    add!(producer_server::service(public.clone(), producer));
    routes.add_service(generated!(MetadataServiceServer));
    add!(generated!(TopicServiceServer));
    add!(generated!(AdminServiceServer));
    health.set_serving::<ConsumerServer>().await;
    add!(ConsumerServer(public.clone()));
}
