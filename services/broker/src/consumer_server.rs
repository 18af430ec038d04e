//! The reading calls as a gRPC service. What is generated would want a struct for every plain record; here Consume
//! and Fetch answer with records that are bytes already ([`crate::plain_message`]), and FetchStream goes a way of its
//! own ([`crate::batch_stream`]). The other calls are as generated.

use std::convert::Infallible;
use std::task::{Context, Poll};

use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt};
use tonic::body::Body;
use tonic::codec::CompressionEncoding;
use tonic::server::{Grpc, NamedService};
use tonic::{Request, Response, Status, Streaming};
use tower::{Service, service_fn};
use weir_proto::body::BatchBody;
use weir_proto::codec::{Codec, Outgoing};
use weir_proto::v1::consumer_service_server::SERVICE_NAME;
use weir_proto::v1::{ConsumeRequest, FetchRequest, FetchStreamRequest, ListOffsetsRequest};
use weir_rpc::{ConnectionInfo, Messages, Problem};

use crate::calls::list_offsets::For;
use crate::forward::hop;
use crate::serve::Entrance;
use crate::service::Public;
use crate::{batch_stream, calls};

/// `weir.v1.ConsumerService`.
#[derive(Clone)]
pub(crate) struct ConsumerServer(pub(crate) Public);

impl NamedService for ConsumerServer {
    const NAME: &'static str = SERVICE_NAME;
}

impl ConsumerServer {
    /// The limits are those of the generated services, see `serve`.
    fn grpc<T: Outgoing, U>(&self) -> Grpc<Codec<T, U>>
    where
        U: prost::Message + Default + Send + 'static,
    {
        Grpc::new(Codec::default())
            .accept_compressed(CompressionEncoding::Gzip)
            .max_decoding_message_size(self.0.0.config.request_bytes_max)
            .max_encoding_message_size(usize::MAX)
    }

    fn fetch_stream(&self, request: http::Request<Body>) -> Result<Body, Problem> {
        let broker = &self.0.0;
        let long = self.0.long_call(request.extensions())?;
        let hop = self.0.hop(request.headers());
        let requests = Messages::new(request.into_body(), broker.config.request_bytes_max);
        let answers = calls::fetch_stream::call(broker.clone(), requests.boxed(), long, hop);
        Ok(Body::new(BatchBody::of_answer(answers.boxed())))
    }

    async fn answer(self, request: http::Request<Body>) -> http::Response<Body> {
        let broker = &self.0.0;
        let called = batch_stream::called(&request).to_owned();
        match &*called {
            "Consume" => {
                let call = service_fn(|request: Request<ConsumeRequest>| async {
                    let long = self.0.long_call(request.extensions())?;
                    let hop = self.0.hop(&request.metadata().clone().into_headers());
                    let answers =
                        calls::consume::call(broker.clone(), request.into_inner(), long, hop).await?;
                    Ok::<_, Status>(Response::new(answers))
                });
                self.grpc().server_streaming(call, request).await
            }
            "Fetch" => {
                let call = service_fn(|mut request: Request<FetchRequest>| {
                    if self.0.1 == Entrance::Internal {
                        // It waits on behalf of a call that is counted where it came in.
                        request.extensions_mut().remove::<ConnectionInfo>();
                    }
                    calls::fetch::call(broker, request)
                });
                self.grpc().unary(call, request).await
            }
            "FetchStream" if batch_stream::is_ours(&request) => {
                batch_stream::answer(self.fetch_stream(request))
            }
            "FetchStream" => {
                let call = service_fn(|request: Request<Streaming<FetchStreamRequest>>| async {
                    let long = self.0.long_call(request.extensions())?;
                    let hop = self.0.hop(&request.metadata().clone().into_headers());
                    let requests = request.into_inner().boxed();
                    let answers = calls::fetch_stream::call(broker.clone(), requests, long, hop);
                    Ok::<_, Status>(Response::new(answers))
                });
                self.grpc().streaming(call, request).await
            }
            "ListOffsets" => {
                let call = service_fn(|request: Request<ListOffsetsRequest>| {
                    // Only a broker asks for its readers.
                    let is_reading = self.0.1 == Entrance::Internal && hop::is_reading(request.metadata());
                    let asked_for = if is_reading { For::Reading } else { For::Telling };
                    calls::list_offsets::call(broker, request, asked_for)
                });
                self.grpc().unary(call, request).await
            }
            _ => Status::unimplemented("there is no such call").into_http(),
        }
    }
}

impl Service<http::Request<Body>> for ConsumerServer {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        self.clone().answer(request).map(Ok).boxed()
    }
}
