//! What is done around every call: a request id, whose broker it was, how old its knowledge is, the metrics, and a span. How it ended is known
//! where its answer ends: of a refusal with the headers, of everything else with the trailers.
//!
//! The span is for those who look (log_filter `info,weir_broker=debug`); at `info` it is not made. A defect, which no
//! caller should meet, is logged with the request id whatever the level.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response};
use tokio::time::Instant;
use tonic::body::Body;
use tonic::{Code, Status};
use tower::{Layer, Service};
use tracing::Instrument;
use tracing::field::Empty;
use weir_rpc::CONTROLLERS_SILENT;
use weir_runtime::Os;

use crate::broker::Broker;
use crate::metrics::Call;

/// Said of an answer: the broker that it came from.
pub(crate) const BROKER: &str = "weir-broker";

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

impl<S, B> Service<Request<B>> for Observe<S>
where
    S: Service<Request<B>, Response = Response<Body>>,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, S::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let started = Instant::now();
        let call = self.broker.metrics.call(request.uri().path());
        let request_id = request_id(&*self.broker.os, request.headers().get("weir-request-id"));
        // Whoever the call is passed on to knows it by the same.
        request.headers_mut().insert("weir-request-id", request_id.clone());
        let name = call.name();
        let id = || request_id.to_str().unwrap_or_default();
        let span = tracing::debug_span!("call", name, id = id(), topic = Empty, partition = Empty);
        let answer = span.in_scope(|| self.inner.call(request));
        let broker = self.broker.clone();
        let observed = async move {
            let mut response = answer.await?;
            let headers = response.headers_mut();
            call.answered(started.elapsed());
            let mut watched = Watched { body: Body::empty(), call: Some(call), started, id: request_id };
            watched.ends_with(headers);
            headers.insert("weir-request-id", watched.id.clone());
            headers.insert(BROKER, HeaderValue::from(broker.cluster.broker_id().0));
            if let Some(silent) = broker.cluster.controllers_silent() {
                let ms = u64::try_from(silent.as_millis()).unwrap_or(u64::MAX);
                headers.insert(CONTROLLERS_SILENT, HeaderValue::from(ms));
            }
            if watched.call.is_none() {
                return Ok(response);
            }
            if let Some(call) = &mut watched.call {
                call.goes_on();
            }
            Ok(response.map(|body| {
                watched.body = body;
                Body::new(watched)
            }))
        };
        Box::pin(observed.instrument(span))
    }
}

/// An answer on its way. Dropped before its end: the caller has gone.
struct Watched {
    body: Body,
    /// `None`: how it ended is counted.
    call: Option<Call>,
    started: Instant,
    id: HeaderValue,
}

impl Watched {
    /// Counts the call if these headers, or trailers, say how it ended. A refusal that no call has made gets its
    /// reason: what the caller sees always has one.
    fn ends_with(&mut self, headers: &mut HeaderMap) {
        let Some(given) = Status::from_header_map(headers) else { return };
        let code = given.code();
        let status = weir_rpc::with_reason(given);
        if status.code() != code {
            // It fails only where the words are no header, and these are.
            let _ = status.add_header(headers);
        }
        self.ended(&status);
    }

    fn ended(&mut self, status: &Status) {
        let Some(call) = self.call.take() else { return };
        let (name, code) = (call.name(), status.code());
        match code {
            Code::Internal | Code::Unknown => {
                let id = self.id.to_str().unwrap_or_default();
                tracing::warn!(call = name, id, ?code, said = status.message(), "a call failed");
            }
            _ => tracing::debug!(?code, said = status.message(), after = ?self.started.elapsed(), "answered"),
        }
        call.ended(status);
    }
}

impl http_body::Body for Watched {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, Status>>> {
        let this = self.get_mut();
        let mut next = std::task::ready!(Pin::new(&mut this.body).poll_frame(cx));
        match &mut next {
            Some(Ok(frame)) => {
                if let Some(trailers) = frame.trailers_mut() {
                    this.ends_with(trailers);
                }
            }
            Some(Err(status)) => this.ended(status),
            None => this.ended(&Status::ok("")),
        }
        Poll::Ready(next)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.ended(&Status::cancelled("the caller went away"));
    }
}

/// The caller's id for this request, if it brought a sensible one, else a new one.
fn request_id(os: &dyn Os, given: Option<&HeaderValue>) -> HeaderValue {
    const BYTES_MAX: usize = 64;
    match given {
        Some(id) if (1..=BYTES_MAX).contains(&id.len()) => id.clone(),
        _ => HeaderValue::try_from(format!("{:016x}", os.random_u64()))
            .unwrap_or(HeaderValue::from_static("none")),
    }
}
