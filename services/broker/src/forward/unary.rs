//! On the public listener: the calls of one answer that are about partitions, taken as bytes. What is all led here is
//! read and answered here; the rest goes on.

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::BufMut;
use futures::FutureExt;
use futures::future::BoxFuture;
use prost::Message;
use tonic::body::Body;
use tonic::codec::CompressionEncoding;
use tonic::metadata::MetadataValue;
use tonic::server::{Grpc, NamedService};
use tonic::{Request, Response, Status};
use tower::{Service, service_fn};
use weir_proto::codec::{Encoded, Outgoing, Raw};
use weir_proto::v1::{ListOffsetsRequest, OffsetAnswer};
use weir_types::BrokerId;

use super::calls;
use super::hop::{self, Ask, Hop};
use super::{MOVE_WAIT, leads_not, not_led_there};
use crate::broker::Broker;
use crate::calls::list_offsets::For;
use crate::problems;

/// The generated service, or ours, of which some calls go on to other brokers.
#[derive(Clone)]
pub(crate) struct Forwarding<S> {
    inner: S,
    broker: Arc<Broker>,
}

impl<S> Forwarding<S> {
    pub(crate) fn new(inner: S, broker: Arc<Broker>) -> Self {
        Self { inner, broker }
    }
}

impl<S: NamedService> NamedService for Forwarding<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> Service<http::Request<Body>> for Forwarding<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        macro_rules! answered_by {
            ($call:path) => {
                unary(self.broker.clone(), request, |caller, request| $call(caller, request)).map(Ok).boxed()
            };
        }
        match request.uri().path() {
            calls::produce::PATH => answered_by!(calls::produce::call),
            calls::append_outcome::PATH => answered_by!(calls::append_outcome::call),
            calls::fetch::PATH => answered_by!(calls::fetch::call),
            calls::list_offsets::PATH => answered_by!(calls::list_offsets::call),
            calls::delete_records::PATH => answered_by!(calls::delete_records::call),
            calls::describe::PATH => answered_by!(calls::describe::call),
            calls::list_brokers::PATH => answered_by!(calls::list_brokers::call),
            _ => self.inner.call(request).boxed(),
        }
    }
}

/// An answer that was made here, or that came from its owner.
#[derive(Debug)]
pub(super) enum Answered<T> {
    Here(T),
    There(Encoded),
}

impl<T: Outgoing> Outgoing for Answered<T> {
    fn length(&self) -> usize {
        match self {
            Self::Here(answer) => answer.length(),
            Self::There(answer) => answer.length(),
        }
    }

    fn write(&self, buffer: &mut impl BufMut) {
        match self {
            Self::Here(answer) => answer.write(buffer),
            Self::There(answer) => answer.write(buffer),
        }
    }
}

/// What a call comes to.
pub(super) type Answer<T> = Result<Response<Answered<T>>, Status>;

/// A call that came to this broker, and what is needed to pass it on.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    pub(crate) broker: Arc<Broker>,
    pub(crate) hop: Hop,
}

/// Answers one call.
async fn unary<T, F>(
    broker: Arc<Broker>,
    request: http::Request<Body>,
    call: impl Fn(Caller, Request<Encoded>) -> F + Clone + Send + Sync,
) -> http::Response<Body>
where
    T: Outgoing + Sync,
    F: Future<Output = Answer<T>> + Send,
{
    let bytes_max = broker.config.request_bytes_max;
    let caller = Caller { hop: Hop::of(request.headers()), broker };
    let answering = service_fn(move |request: Request<Encoded>| call(caller.clone(), request));
    Grpc::new(Raw::default())
        .accept_compressed(CompressionEncoding::Gzip)
        .max_decoding_message_size(bytes_max)
        .max_encoding_message_size(usize::MAX)
        .unary(answering, request)
        .await
}

/// The message of a request, read.
pub(super) fn read<M: Message + Default>(message: &Encoded) -> Result<M, Status> {
    // In the library's words, which `with_reason` knows.
    M::decode(message.0.clone()).map_err(|error| Status::internal(error.to_string()))
}

/// The same call with another message.
pub(super) fn with<M>(request: Request<Encoded>, message: M) -> Request<M> {
    let (metadata, extensions, _) = request.into_parts();
    Request::from_parts(metadata, extensions, message)
}

impl Caller {
    /// The offsets that are asked for to read from or up to, whoever leads the partitions.
    pub(crate) async fn offsets(&self, asked: ListOffsetsRequest) -> Result<Vec<OffsetAnswer>, Status> {
        let reading = Self { broker: self.broker.clone(), hop: self.hop.clone().reading() };
        let (_, answer) = calls::list_offsets::of_several(&reading, asked, For::Reading).await?;
        Ok(answer.offsets)
    }

    /// A call about one partition: answered by whoever leads it. Where that broker does not, and says so, this one looks
    /// again, once.
    pub(super) async fn one<T, F>(
        &self,
        about: About<'_>,
        message: Encoded,
        here: impl FnOnce() -> F,
    ) -> Answer<T>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let owner = || self.broker.owner(about.topic, about.partition);
        let Some(first) = owner() else { return here().await.map(|answer| answer.map(Answered::Here)) };
        let refused = match self.ask(first, about, message.clone()).await {
            Err(status) => status,
            answered => return answered,
        };
        let Some(version) = not_led_there(&refused) else { return Err(refused) };
        self.broker.hear_of(version).await;
        let Some(next) = owner() else { return here().await.map(|answer| answer.map(Answered::Here)) };
        match self.ask(next, about, message).await {
            Err(status) if leads_not(&status) => {
                Err(problems::moving(about.topic, about.partition).retry_after(MOVE_WAIT).status())
            }
            answered => answered,
        }
    }

    /// Passes the call on, as it is.
    pub(super) async fn ask<T>(&self, to: BrokerId, about: About<'_>, message: Encoded) -> Answer<T> {
        let answer = hop::ask(&self.broker, &self.hop, about.ask(to), message).await?;
        let mut response = Response::new(Answered::There(answer.into_inner()));
        response.metadata_mut().insert(hop::FORWARDED, MetadataValue::from(to.0));
        Ok(response)
    }

    /// Passes a part of the call on, and reads the answer.
    pub(super) async fn ask_part<Q: Message, A: Message + Default>(
        &self,
        to: BrokerId,
        about: About<'_>,
        part: &Q,
    ) -> Result<A, Status> {
        let message = Encoded(part.encode_to_vec().into());
        let answer = hop::ask(&self.broker, &self.hop, about.ask(to), message).await?;
        A::decode(answer.into_inner().0).map_err(|error| {
            Status::internal(format!("broker {to} gave an answer that cannot be read: {error}"))
        })
    }
}

/// What a call is about, for those it is passed on to.
#[derive(Clone, Copy, Debug)]
pub(super) struct About<'a> {
    pub(super) path: &'static str,
    pub(super) topic: &'a str,
    pub(super) partition: i32,
    /// Whether it changes something.
    pub(super) changes: bool,
}

impl<'a> About<'a> {
    fn ask(self, to: BrokerId) -> Ask<'a> {
        let Self { path, topic, partition, changes } = self;
        Ask { to, path, topic, partition, changes }
    }
}

/// Says on an answer that was put together who else has answered.
pub(super) fn put_together<T>(answer: T, owners: impl Iterator<Item = BrokerId>) -> Response<Answered<T>> {
    let mut response = Response::new(Answered::Here(answer));
    let owners: Vec<_> = owners.map(|owner| owner.to_string()).collect();
    if let Ok(owners) = MetadataValue::try_from(owners.join(",")) {
        response.metadata_mut().insert(hop::FORWARDED, owners);
    }
    response
}
