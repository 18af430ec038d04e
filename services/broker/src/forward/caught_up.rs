//! On the internal listener: a call that another broker has passed on by metadata that this one does not have yet waits
//! for it, a moment, instead of being refused for what is about to be known.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::{HeaderMap, Request};
use tower::{Layer, Service};

use crate::broker::Broker;
use crate::forward::hop;

/// Who is further behind answers by what it has.
const WAIT: Duration = Duration::from_secs(2);

/// Wraps the routes of a server.
#[derive(Clone)]
pub(crate) struct CaughtUpLayer(pub(crate) Arc<Broker>);

/// A wrapped service.
#[derive(Clone)]
pub(crate) struct CaughtUp<S> {
    inner: S,
    broker: Arc<Broker>,
}

impl<S> Layer<S> for CaughtUpLayer {
    type Service = CaughtUp<S>;

    fn layer(&self, inner: S) -> CaughtUp<S> {
        CaughtUp { inner, broker: self.0.clone() }
    }
}

impl<S, B> Service<Request<B>> for CaughtUp<S>
where
    S: Service<Request<B>> + Clone + Send + 'static,
    S::Future: Send,
    B: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let version = version(request.headers());
        if self.broker.replicas.is_settled(version) {
            return Box::pin(self.inner.call(request));
        }
        // The one that is ready is the one that is called.
        let next = self.inner.clone();
        let (mut inner, broker) = (std::mem::replace(&mut self.inner, next), self.broker.clone());
        Box::pin(async move {
            let _in_time = tokio::time::timeout(WAIT, broker.replicas.settled(version)).await;
            inner.call(request).await
        })
    }
}

/// The version that a call was passed on by; 0: it does not say.
fn version(headers: &HeaderMap) -> i64 {
    let said = headers.get(hop::VERSION).and_then(|version| version.to_str().ok());
    said.and_then(|version| version.parse().ok()).unwrap_or(0)
}
