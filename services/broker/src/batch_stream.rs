//! The streams of batches, where a client does not compress its messages: they are read from the connection, and
//! written to it, without a copy of large payloads ([`weir_rpc::Messages`], [`weir_proto::body`]). What is compressed
//! goes the library's way.

use std::convert::Infallible;
use std::task::{Context, Poll};

use futures::FutureExt;
use futures::future::{BoxFuture, ready};
use http::{HeaderValue, Request, Response, header};
use tonic::body::Body;
use tonic::server::NamedService;
use tower::Service;
use weir_rpc::Problem;

/// Says how messages are compressed, if they are.
const ENCODING: &str = "grpc-encoding";

/// The method that a request calls.
pub(crate) fn called(request: &Request<Body>) -> &str {
    request.uri().path().rsplit_once('/').map_or("", |(_, called)| called)
}

/// Whether a stream is ours to read: its messages are not compressed.
pub(crate) fn is_ours(request: &Request<Body>) -> bool {
    request.headers().get(ENCODING).is_none_or(|encoding| encoding == "identity")
}

/// The answers, or why there are none.
pub(crate) fn answer(answers: Result<Body, Problem>) -> Response<Body> {
    match answers {
        Ok(answers) => {
            let mut response = Response::new(answers);
            let grpc = HeaderValue::from_static("application/grpc");
            response.headers_mut().insert(header::CONTENT_TYPE, grpc);
            response
        }
        Err(problem) => problem.status().into_http(),
    }
}

type Answered = BoxFuture<'static, Result<Response<Body>, Infallible>>;

/// A service as generated, but for one of its calls: a stream of batches, which `stream` answers where it is ours.
#[derive(Clone)]
pub(crate) struct WithStream<S, F> {
    pub(crate) generated: S,
    /// The call's name.
    pub(crate) called: &'static str,
    pub(crate) stream: F,
}

impl<S: NamedService, F> NamedService for WithStream<S, F> {
    const NAME: &'static str = S::NAME;
}

impl<S, F> Service<Request<Body>> for WithStream<S, F>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible, Future = Answered>,
    F: Fn(Request<Body>) -> Result<Body, Problem>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Answered;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.generated.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Answered {
        if called(&request) == self.called && is_ours(&request) {
            return ready(Ok(answer((self.stream)(request)))).boxed();
        }
        self.generated.call(request)
    }
}
