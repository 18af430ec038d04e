//! The listener for other brokers: what only they ask, and the public calls that they pass on. Clients have no business
//! here: no browsers, no reflection, and connections that live as long as the brokers at their ends.

use std::sync::Arc;
use std::time::Duration;

use tonic::service::Routes;
use tower::ServiceBuilder;
use weir_rpc::ConnectionLimits;

use super::{Answers, Entrance, Rules, public};
use crate::arriving::ArrivingLayer;
use crate::broker::Broker;
use crate::forward::CaughtUpLayer;
use crate::metrics::Metrics;
use crate::observe::Observe;
use crate::replication::Replicator;
use crate::service::Public;

/// How connections of brokers are treated.
pub(super) fn rules(config: &weir_config::Broker, metrics: &Metrics) -> Rules {
    let max = config.internal_connections_max;
    Rules {
        // On one machine all brokers have one address.
        limits: ConnectionLimits { total_max: max, per_address_max: max, setting_prefix: "internal_" },
        connections: metrics.internal_connections.clone(),
        age_max: Duration::ZERO,
        age_grace: Duration::ZERO,
        http1: false,
    }
}

/// What answers brokers.
pub(super) async fn service(broker: Arc<Broker>) -> impl Answers {
    ServiceBuilder::new()
        .layer(Observe::layer(broker.clone()))
        .layer(ArrivingLayer::new(&broker))
        .layer(CaughtUpLayer(broker.clone()))
        .service(routes(&broker).await.prepare())
}

/// The services; another one is another line.
async fn routes(broker: &Arc<Broker>) -> Routes {
    let (health, health_service) = tonic_health::server::health_reporter();
    health.set_service_status("", tonic_health::ServingStatus::Serving).await;
    let mut routes = Routes::builder();
    public::add_calls(&mut routes, &health, &Public(broker.clone(), Entrance::Internal)).await;
    routes.add_service(health_service);
    routes.add_service(Replicator(broker.replication.clone()).service());
    routes.routes()
}
