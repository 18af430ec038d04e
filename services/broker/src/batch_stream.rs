//! The streams of batches, where a client does not compress its messages: they are read from the connection, and
//! written to it, without a copy of large payloads ([`weir_rpc::Messages`], [`weir_proto::body`]). What is compressed
//! goes the library's way.

use http::{HeaderValue, Request, Response, header};
use tonic::body::Body;
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
