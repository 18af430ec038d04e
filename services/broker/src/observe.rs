//! What is done around every call: a request id, whose broker it was, the metrics, and a span.
//!
//! The span is for those who look (log_filter `info,weir_broker=debug`); at `info` it is not made. A defect, which no
//! caller should meet, is logged with the request id whatever the level.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::{HeaderMap, HeaderValue, Request, Response};
use tokio::time::Instant;
use tonic::{Code, Status};
use tower::{Layer, Service};
use tracing::Instrument;
use tracing::field::Empty;
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
        let name = call.name();
        let id = || request_id.to_str().unwrap_or_default();
        let span = tracing::debug_span!("call", name, id = id(), topic = Empty, partition = Empty);
        let answer = span.in_scope(|| self.inner.call(request));
        let broker = self.broker.clone();
        let observed = async move {
            let mut response = answer.await?;
            let headers = response.headers_mut();
            name_the_reason(headers);
            let code = call.answered(headers.get("grpc-status"), started.elapsed());
            match code {
                Code::Internal | Code::Unknown => {
                    let said = headers.get("grpc-message").and_then(|said| said.to_str().ok());
                    let id = request_id.to_str().unwrap_or_default();
                    tracing::warn!(call = name, id, ?code, said, "a call failed");
                }
                _ => tracing::debug!(?code, after = ?started.elapsed(), "answered"),
            }
            headers.insert("weir-request-id", request_id);
            headers.insert("weir-broker", HeaderValue::from(broker.cluster.broker_id().0));
            Ok(response)
        };
        Box::pin(observed.instrument(span))
    }
}

/// Gives a refusal that no call has made its reason: what the caller sees always has one.
fn name_the_reason(headers: &mut HeaderMap) {
    if headers.contains_key(Status::GRPC_MESSAGE)
        && !headers.contains_key(DETAILS)
        && let Some(status) = Status::from_header_map(headers)
    {
        let named = weir_rpc::with_reason(status);
        if !named.details().is_empty() {
            // It fails only where the words are no header, and these are.
            let _ = named.add_header(headers);
        }
    }
}

/// Where the details of a status are.
const DETAILS: &str = "grpc-status-details-bin";

/// The caller's id for this request, if it brought a sensible one, else a new one.
fn request_id(given: Option<&HeaderValue>) -> HeaderValue {
    const BYTES_MAX: usize = 64;
    match given {
        Some(id) if (1..=BYTES_MAX).contains(&id.len()) => id.clone(),
        _ => HeaderValue::try_from(format!("{:016x}", random_u64()))
            .unwrap_or(HeaderValue::from_static("none")),
    }
}
