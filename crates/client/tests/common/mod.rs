//! A small Weir in memory, to try the SDK against: every broker of it in this process, reached over pipes, so
//! that a test decides when a connection breaks, an acknowledgement is lost, a leader moves. With the paused
//! clock of tokio nothing here takes time.
//!
//! It keeps the contract of proto/weir/v1 as far as the SDK can see it: offsets, sequences, poison and resume,
//! credits, generations. It is not a broker: it stores batches in vectors and trusts what it gets.

#![allow(
    dead_code,
    unused_imports,
    unreachable_pub,
    missing_docs,
    reason = "each test file uses a part of it"
)]
#![allow(clippy::indexing_slicing, clippy::unwrap_used, reason = "a test may stop at a surprise")]

mod calls;
mod fetch;
mod log;
mod net;
mod produce;
mod state;

use std::future::Future;
use std::sync::Arc;

use weir_client::{Client, ClientBuilder};

pub use log::Log;
pub use net::Net;
pub use state::{Cluster, Fate, Sent};

/// A cluster with one broker, `broker1:1`.
pub fn cluster() -> Arc<Cluster> {
    Cluster::start(1)
}

/// A client of it, on the test's own runtime.
pub async fn client(cluster: &Arc<Cluster>) -> Client {
    builder(cluster).connect("broker1:1").await.expect("the fake cluster answers")
}

pub fn builder(cluster: &Arc<Cluster>) -> ClientBuilder {
    Client::builder().os(Arc::new(cluster.net())).on_current_runtime()
}

/// Waits until something is so. The clock is paused: what it lets pass is not real time.
pub async fn until<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    for _ in 0..100_000 {
        if holds().await {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    }
    panic!("{what}: never came true");
}
