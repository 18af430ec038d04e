//! The plain HTTP listener: metrics and health, for machines.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::routing::get;
use weir_runtime::{Connection, Listener};
use weir_storage::Progress;

use crate::broker::Broker;
use crate::metrics::Metrics;

/// What is shown: the start until there is a broker, then the broker.
#[derive(Debug, Default)]
pub(crate) struct Shown {
    pub(crate) progress: Arc<Progress>,
    pub(crate) broker: OnceLock<Arc<Broker>>,
}

/// Serves until dropped.
pub(crate) async fn serve(shown: Arc<Shown>, listener: Box<dyn Listener>) {
    let router = Router::new()
        .route("/", get(|| async { "weir: /metrics /healthz /readyz\n" }))
        .route("/metrics", get(metrics))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .with_state(shown);
    // It ends with this task; the error type says that it never ends by itself.
    let _ = axum::serve(Accepting(listener), router).await;
}

async fn metrics(State(shown): State<Arc<Shown>>) -> impl IntoResponse {
    let progress = &shown.progress;
    let text = match shown.broker.get() {
        Some(broker) => broker.metrics.render(broker, progress),
        None => Metrics::render_start(progress),
    };
    ([(CONTENT_TYPE, "text/plain; version=0.0.4")], text)
}

async fn ready(State(shown): State<Arc<Shown>>) -> impl IntoResponse {
    let Some(broker) = shown.broker.get() else {
        let Progress { logs, logs_done, .. } = &*shown.progress;
        let why = format!("opening logs: {} of {}\n", logs_done.get(), logs.get());
        return (StatusCode::SERVICE_UNAVAILABLE, why);
    };
    match broker.unready() {
        None => {
            let full = broker.full().map_or_else(String::new, |full| format!("{full}\n"));
            (StatusCode::OK, format!("ready\n{full}"))
        }
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
