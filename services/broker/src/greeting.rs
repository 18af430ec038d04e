//! What a browser gets that was pointed at the gRPC port: one line that says what this is, and where people look.
//! Everything else goes on: gRPC, and grpc-web, which comes over HTTP/1.1 too but never by GET.

use std::net::SocketAddr;
use std::task::{Context, Poll};

use futures::future::{Either, Ready, ready};
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Method, Request, Response, StatusCode, Version};
use tonic::body::Body;
use tower::{Layer, Service};
use weir_rpc::GREETING;

/// Wraps the routes of a server.
#[derive(Clone, Debug)]
pub(crate) struct Greeting {
    line: String,
}

impl Greeting {
    /// Metrics and health are there.
    pub(crate) fn new(http_addr: SocketAddr) -> Self {
        let version = env!("CARGO_PKG_VERSION");
        let line = format!(
            "Weir {version}{GREETING} (weir.v1; reflection is on: `grpcurl -plaintext \
             HOST:PORT list`, or the `weir` command); metrics and health are at http://{http_addr}/\n"
        );
        Self { line }
    }
}

impl<S> Layer<S> for Greeting {
    type Service = Greets<S>;

    fn layer(&self, inner: S) -> Greets<S> {
        Greets { inner, greeting: self.clone() }
    }
}

/// A wrapped service.
#[derive(Clone, Debug)]
pub(crate) struct Greets<S> {
    inner: S,
    greeting: Greeting,
}

impl<S, B> Service<Request<B>> for Greets<S>
where
    S: Service<Request<B>, Response = Response<Body>>,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Either<Ready<Result<Response<Body>, S::Error>>, S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let by_hand = request.version() < Version::HTTP_2
            && (request.method() == Method::GET || request.method() == Method::HEAD);
        if !by_hand {
            return Either::Right(self.inner.call(request));
        }
        tracing::debug!(path = request.uri().path(), "a browser, or the like, at the gRPC port");
        let mut response = Response::new(Body::new(self.greeting.line.clone()));
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
        if request.uri().path() != "/" {
            *response.status_mut() = StatusCode::NOT_FOUND;
        }
        Either::Left(ready(Ok(response)))
    }
}
