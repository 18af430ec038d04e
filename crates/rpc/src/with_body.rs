//! A call over the library's client whose request's body is ours: how messages become bytes is not always the codec's
//! business ([`weir_proto::body`]).

use std::task::{Context, Poll};

use tonic::body::Body;
use tonic::transport::Channel;
use tower::Service;

/// Sends a body in the place of the one that is made from messages.
#[derive(Debug)]
pub struct WithBody {
    channel: Channel,
    body: Option<Body>,
}

impl WithBody {
    /// For one call over a channel.
    pub fn new(channel: Channel, body: Body) -> Self {
        Self { channel, body: Some(body) }
    }
}

impl Service<http::Request<Body>> for WithBody {
    type Response = http::Response<Body>;
    type Error = tonic::transport::Error;
    type Future = <Channel as Service<http::Request<Body>>>::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.channel.poll_ready(cx)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let body = self.body.take().unwrap_or_default();
        self.channel.call(request.map(|_| body))
    }
}
