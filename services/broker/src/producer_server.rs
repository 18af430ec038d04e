//! The writing calls as a gRPC service: as generated, but for the way of ProduceStream ([`crate::batch_stream`]).

use std::convert::Infallible;
use std::task::{Context, Poll};

use futures::future::{BoxFuture, ready};
use futures::{FutureExt, StreamExt};
use tonic::body::Body;
use tonic::codec::{Codec as _, EncodeBody};
use tonic::server::NamedService;
use tower::Service;
use weir_proto::codec::Codec;
use weir_proto::v1::ProduceStreamResponse;
use weir_proto::v1::producer_service_server::{ProducerServiceServer, SERVICE_NAME};
use weir_rpc::{Messages, Problem};

use crate::batch_stream;
use crate::service::Public;

/// `weir.v1.ProducerService`.
#[derive(Clone)]
pub(crate) struct ProducerServer {
    public: Public,
    generated: ProducerServiceServer<Public>,
}

impl NamedService for ProducerServer {
    const NAME: &'static str = SERVICE_NAME;
}

impl ProducerServer {
    pub(crate) fn new(public: Public, generated: ProducerServiceServer<Public>) -> Self {
        Self { public, generated }
    }

    fn produce_stream(&self, request: http::Request<Body>) -> Result<Body, Problem> {
        let long = self.public.long_call(request.extensions())?;
        let (head, body) = request.into_parts();
        let requests = Messages::new(body, self.public.0.config.request_bytes_max);
        let answers = self.public.producing(requests.boxed(), &head.headers, long);
        let encoder = Codec::<ProduceStreamResponse, ()>::default().encoder();
        Ok(Body::new(EncodeBody::new_server(encoder, answers, None, Default::default(), Some(usize::MAX))))
    }
}

impl Service<http::Request<Body>> for ProducerServer {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        if batch_stream::called(&request) == "ProduceStream" && batch_stream::is_ours(&request) {
            return ready(Ok(batch_stream::answer(self.produce_stream(request)))).boxed();
        }
        self.generated.call(request)
    }
}
