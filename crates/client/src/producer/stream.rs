//! One stream to one broker: opened, read, watched. What is sent on it and what the answers mean is decided by the
//! sender, which hears of everything as [`StreamEvent`]s.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::uri::PathAndQuery;
use tokio::sync::mpsc;
use tokio_stream::Stream;
use tonic::Request;
use tonic::client::Grpc;
use weir_proto::v1;
use weir_proto::v1::produce_stream_request::Frame as Out;
use weir_proto::v1::produce_stream_response::Frame as In;

use super::sender::Event;
use crate::address::Address;
use crate::channel::Purpose;
use crate::client::Inner;
use crate::codec::StreamCodec;
use crate::{Error, Result};

/// A server sends something at least every five seconds. One that has been silent for so long is gone, or as good
/// as gone.
const SILENCE_MAX: Duration = Duration::from_secs(20);

/// What happened on a stream.
#[derive(Debug)]
pub(super) enum StreamEvent {
    /// It said something.
    Heard(In),
    /// An append that nobody answers was written.
    Written(i64),
    /// It is over.
    Ended(Error),
}

/// The sending end of a stream. Dropping it ends the stream.
#[derive(Debug)]
pub(super) struct Outlet(mpsc::UnboundedSender<Outgoing>);

#[derive(Debug)]
struct Outgoing {
    frame: Out,
    /// Tell when it is written: there will be no answer.
    tell: Option<i64>,
}

impl Outlet {
    /// Sends an append. The caller bounds what is in flight; the queue is as long as that allows.
    pub(super) fn append(&self, append: v1::BatchAppend, unanswered: bool) {
        let tell = unanswered.then_some(append.correlation_id);
        // If the stream is over, its end is on its way to us as an event.
        let _over = self.0.send(Outgoing { frame: Out::Append(append), tell });
    }
}

/// What tonic takes the messages from.
struct Outbound {
    id: u64,
    frames: mpsc::UnboundedReceiver<Outgoing>,
    events: mpsc::UnboundedSender<Event>,
}

impl Stream for Outbound {
    type Item = v1::ProduceStreamRequest;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        match self.frames.poll_recv(cx) {
            Poll::Ready(Some(Outgoing { frame, tell })) => {
                if let Some(correlation_id) = tell {
                    let event = Event::Stream(self.id, StreamEvent::Written(correlation_id));
                    let _over = self.events.send(event);
                }
                Poll::Ready(Some(v1::ProduceStreamRequest { frame: Some(frame) }))
            }
            Poll::Ready(None) => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    }
}

/// Opens a stream. Batches may be sent at once; the connection is made meanwhile.
pub(super) fn open(
    inner: &Arc<Inner>,
    id: u64,
    address: Address,
    hello: v1::ProduceHello,
    events: &mpsc::UnboundedSender<Event>,
) -> Outlet {
    let (frames, queue) = mpsc::unbounded_channel();
    let _first = frames.send(Outgoing { frame: Out::Hello(hello), tell: None });
    let outbound = Outbound { id, frames: queue, events: events.clone() };
    let (reader, events) = (Arc::clone(inner), events.clone());
    inner.io.spawn(async move {
        let error = match read(&reader, id, &address, outbound, &events).await {
            Ok(()) => Error::lost(format!("{address} ended the stream")),
            Err(error) => error,
        };
        let _over = events.send(Event::Stream(id, StreamEvent::Ended(error)));
    });
    Outlet(frames)
}

/// Reads to the end. The reader never waits for anything but the stream: what it hears goes into a queue that is
/// bounded by what is in flight.
async fn read(
    inner: &Inner,
    id: u64,
    address: &Address,
    outbound: Outbound,
    events: &mpsc::UnboundedSender<Event>,
) -> Result<()> {
    let channel = inner.channels.get(&inner.io, address, Purpose::Streams)?;
    let mut grpc = Grpc::new(channel).max_decoding_message_size(inner.options.message_bytes_max);
    let failed = |status: &tonic::Status| Error::from_status(status, &address.to_string());
    let silent = || Error::lost(format!("{address} was silent for {SILENCE_MAX:?}"));
    let opening = async {
        grpc.ready().await.map_err(|e| failed(&tonic::Status::from_error(Box::new(e))))?;
        let path = PathAndQuery::from_static("/weir.v1.ProducerService/ProduceStream");
        grpc.streaming(Request::new(outbound), path, StreamCodec::default()).await.map_err(|s| failed(&s))
    };
    let mut frames = tokio::time::timeout(SILENCE_MAX, opening).await.map_err(|_| silent())??.into_inner();
    loop {
        let next = tokio::time::timeout(SILENCE_MAX, frames.message()).await.map_err(|_| silent())?;
        let frame = next.map_err(|status| failed(&status))?;
        let Some(v1::ProduceStreamResponse { frame }) = frame else { return Ok(()) };
        // A frame that this version does not know is no reason to stop.
        if let Some(frame) = frame
            && events.send(Event::Stream(id, StreamEvent::Heard(frame))).is_err()
        {
            return Ok(());
        }
    }
}
