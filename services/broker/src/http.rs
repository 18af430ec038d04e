//! The plain HTTP listener: metrics and health, for machines.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::routing::get;
use weir_runtime::{Connection, Listener};

use crate::broker::Broker;

/// Serves until dropped.
pub(crate) async fn serve(broker: Arc<Broker>, listener: Box<dyn Listener>) {
    let router = Router::new()
        .route("/", get(|| async { "weir: /metrics /healthz /readyz\n" }))
        .route("/metrics", get(metrics))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .with_state(broker);
    // It ends with this task; the error type says that it never ends by itself.
    let _ = axum::serve(Accepting(listener), router).await;
}

async fn metrics(State(broker): State<Arc<Broker>>) -> impl IntoResponse {
    (
        [(CONTENT_TYPE, "text/plain; version=0.0.4")],
        broker.metrics.render(&broker.log_dir, &broker.topics.load(), &broker.memory),
    )
}

async fn ready(State(broker): State<Arc<Broker>>) -> impl IntoResponse {
    match broker.unready() {
        None => (StatusCode::OK, "ready\n".to_owned()),
        Some(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")),
    }
}

/// Our listener, as axum wants it.
struct Accepting(Box<dyn Listener>);

impl axum::serve::Listener for Accepting {
    type Io = Box<dyn Connection>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, SocketAddr) {
        loop {
            let accepted = match self.0.accept().await {
                Ok(incoming) => {
                    let peer = incoming.peer();
                    incoming.into_connection().map(|connection| (connection, peer))
                }
                Err(error) => Err(error),
            };
            match accepted {
                Ok(accepted) => return accepted,
                Err(error) => {
                    tracing::warn!(%error, "cannot accept HTTP connections now");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.0.local_addr())
    }
}
