//! One stream to one broker: opened, and told of. What is sent on it and what the answers mean is decided by the
//! sender, which hears of everything as [`StreamEvent`]s.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::sync::mpsc;
use tokio_stream::Stream;
use weir_proto::v1;
use weir_proto::v1::produce_stream_request::Frame as Out;
use weir_proto::v1::produce_stream_response::Frame as In;

use super::sender::Event;
use crate::address::Address;
use crate::client::Inner;
use crate::{Error, duplex};

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
        let hear = |answer: v1::ProduceStreamResponse| match answer.frame {
            Some(frame) => events.send(Event::Stream(id, StreamEvent::Heard(frame))).is_ok(),
            // A frame that this version does not know is no reason to stop.
            None => true,
        };
        let path = "/weir.v1.ProducerService/ProduceStream";
        let error = duplex::run(&reader, &address, path, outbound, hear).await;
        let _over = events.send(Event::Stream(id, StreamEvent::Ended(error)));
    });
    Outlet(frames)
}
