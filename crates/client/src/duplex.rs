//! One long stream to one broker: opened, read to its end, watched. What is said on it is the business of producer
//! and consumer.

use std::time::Duration;

use http::uri::PathAndQuery;
use prost::Message;
use tokio_stream::{Stream, StreamExt};
use tonic::body::Body;
use tonic::client::Grpc;
use tonic::codec::EncodeBody;
use tonic::{Request, Status};
use weir_proto::codec::Codec;
use weir_rpc::WithBody;

use crate::channel::Purpose;
use crate::client::Inner;
use crate::{Error, Result};
use weir_types::Endpoint;

/// A server sends something at least every five seconds. One that has been silent for so long is gone, or as good
/// as gone.
const SILENCE_MAX: Duration = Duration::from_secs(20);

/// Opens a stream and hands everything that comes to `hear`, until the server ends it, it breaks, or `hear` says
/// `false`. Requests may be queued before: the connection is made meanwhile.
///
/// The reader waits for nothing but the stream. Whoever hears puts what it hears into a queue that credit or the
/// bound on what is in flight keeps short; nobody applies back-pressure by not reading.
pub(crate) async fn run<A: Message + Default + 'static>(
    inner: &Inner,
    address: &Endpoint,
    path: &'static str,
    requests: Body,
    mut hear: impl FnMut(A) -> bool,
) -> Error {
    let work = async {
        let channel = inner.channels.get(&inner.io, address, Purpose::Streams)?;
        let service = WithBody::new(channel, requests);
        let mut grpc = Grpc::new(service).max_decoding_message_size(inner.options.message_bytes_max);
        let failed = |status: &Status| Error::from_status(status, &address.to_string());
        let opening = async {
            grpc.ready().await.map_err(|e| failed(&Status::from_error(Box::new(e))))?;
            let (path, codec) = (PathAndQuery::from_static(path), Codec::<(), A>::default());
            let none = Request::new(tokio_stream::empty());
            grpc.streaming(none, path, codec).await.map_err(|status| failed(&status))
        };
        let mut answers = within(address, opening).await??.into_inner();
        loop {
            let next = within(address, answers.message()).await?;
            let Some(answer) = next.map_err(|status| failed(&status))? else { return Ok(()) };
            if !hear(answer) {
                return Ok(());
            }
        }
    };
    let result: Result<()> = work.await;
    result.err().unwrap_or_else(|| Error::lost(format!("{address} ended the stream")))
}

/// Requests as a body, each a message.
pub(crate) fn body<Q: Message + 'static>(requests: impl Stream<Item = Q> + Send + 'static) -> Body {
    let encoder = tonic::codec::Codec::encoder(&mut Codec::<Q, ()>::default());
    Body::new(EncodeBody::new_client(encoder, requests.map(Ok), None, None))
}

/// Waits for a server's next word, unless it is silent for too long.
pub(crate) async fn within<T>(address: &Endpoint, wait: impl Future<Output = T>) -> Result<T> {
    let silent = |_| Error::lost(format!("{address} was silent for {SILENCE_MAX:?}"));
    tokio::time::timeout(SILENCE_MAX, wait).await.map_err(silent)
}
