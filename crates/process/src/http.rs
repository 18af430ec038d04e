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

/// What is shown of a service, also while it starts.
pub trait Page: Send + Sync + 'static {
    /// Its metrics, in the text format of Prometheus.
    fn metrics(&self) -> Vec<u8>;

    /// Whether anybody should be sent here: what is worth a word all the same, or why not.
    ///
    /// # Errors
    /// Why nobody should be sent here now.
    fn ready(&self) -> Result<Option<String>, String>;
}

/// Serves until dropped.
pub async fn serve(page: Arc<dyn Page>, listener: Box<dyn Listener>) {
    let router = Router::new()
        .route("/", get(|| async { "weir: /metrics /healthz /readyz\n" }))
        .route("/metrics", get(metrics))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .with_state(page);
    // It ends with this task; the error type says that it never ends by itself.
    let _ = axum::serve(Accepting(listener), router).await;
}

async fn metrics(State(page): State<Arc<dyn Page>>) -> impl IntoResponse {
    ([(CONTENT_TYPE, "text/plain; version=0.0.4")], page.metrics())
}

async fn ready(State(page): State<Arc<dyn Page>>) -> impl IntoResponse {
    match page.ready() {
        Ok(beside) => {
            let beside = beside.map_or_else(String::new, |beside| format!("{beside}\n"));
            (StatusCode::OK, format!("ready\n{beside}"))
        }
        Err(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")),
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
