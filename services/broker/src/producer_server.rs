//! The writing calls as a gRPC service: as generated, but for the way of ProduceStream ([`crate::batch_stream`]).

use futures::StreamExt;
use http::Request;
use tonic::body::Body;
use tonic::codec::{Codec as _, EncodeBody};
use weir_proto::codec::Codec;
use weir_proto::v1::ProduceStreamResponse;
use weir_proto::v1::producer_service_server::ProducerServiceServer;
use weir_rpc::{Messages, Problem};

use crate::batch_stream::WithStream;
use crate::service::Public;

type Generated = ProducerServiceServer<Public>;

/// `weir.v1.ProducerService`.
pub(crate) fn service(
    public: Public,
    generated: Generated,
) -> WithStream<Generated, impl Fn(Request<Body>) -> Result<Body, Problem> + Clone> {
    let stream = move |request| produce_stream(&public, request);
    WithStream { generated, called: "ProduceStream", stream }
}

fn produce_stream(public: &Public, request: Request<Body>) -> Result<Body, Problem> {
    let long = public.long_call(request.extensions())?;
    let (head, body) = request.into_parts();
    let requests = Messages::new(body, public.0.config.request_bytes_max);
    let answers = public.producing(requests.boxed(), &head.headers, long);
    let encoder = Codec::<ProduceStreamResponse, ()>::default().encoder();
    Ok(Body::new(EncodeBody::new_server(encoder, answers, None, Default::default(), Some(usize::MAX))))
}
