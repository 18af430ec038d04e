//! What is done around every call: a request id, whose broker it was, and the metrics.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::{HeaderValue, Request, Response};
use tokio::time::Instant;
use tower::{Layer, Service};
use weir_runtime::random_u64;

use crate::broker::Broker;

/// Wraps the routes of a server.
#[derive(Clone)]
pub(crate) struct ObserveLayer {
    broker: Arc<Broker>,
}

/// A wrapped service.
#[derive(Clone)]
pub(crate) struct Observe<S> {
    inner: S,
    broker: Arc<Broker>,
}

impl Observe<()> {
    pub(crate) fn layer(broker: Arc<Broker>) -> ObserveLayer {
        ObserveLayer { broker }
    }
}

impl<S> Layer<S> for ObserveLayer {
    type Service = Observe<S>;

    fn layer(&self, inner: S) -> Observe<S> {
        Observe { inner, broker: self.broker.clone() }
    }
}

impl<S, B, R> Service<Request<B>> for Observe<S>
where
    S: Service<Request<B>, Response = Response<R>>,
    S::Future: Send + 'static,
{
    type Response = Response<R>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<R>, S::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let started = Instant::now();
        let call = self.broker.metrics.call(request.uri().path());
        let request_id = request_id(request.headers().get("weir-request-id"));
        let broker = self.broker.clone();
        let answer = self.inner.call(request);
        Box::pin(async move {
            let mut response = answer.await?;
            let headers = response.headers_mut();
            call.answered(headers.get("grpc-status"), started.elapsed());
            headers.insert("weir-request-id", request_id);
            headers.insert("weir-broker", HeaderValue::from(broker.cluster.broker_id().0));
            Ok(response)
        })
    }
}

/// The caller's id for this request, if it brought a sensible one, else a new one.
fn request_id(given: Option<&HeaderValue>) -> HeaderValue {
    const BYTES_MAX: usize = 64;
    match given {
        Some(id) if (1..=BYTES_MAX).contains(&id.len()) => id.clone(),
        _ => HeaderValue::try_from(format!("{:016x}", random_u64()))
            .unwrap_or(HeaderValue::from_static("none")),
    }
}
