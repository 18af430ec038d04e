//! One stream to one broker: opened, and told of. What is sent on it and what the answers mean is decided by the
//! sender, which hears of everything as [`StreamEvent`]s.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio_stream::{Stream, StreamExt};
use tonic::body::Body;
use weir_proto::body::BatchBody;
use weir_proto::v1;
use weir_proto::v1::produce_stream_request::Frame as Out;
use weir_proto::v1::produce_stream_response::Frame as In;

use super::sender::Event;
use crate::client::Inner;
use crate::{Error, duplex};
use weir_types::Endpoint;

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

/// The sending end of a stream. Dropping it ends the stream; what nobody has taken by then is not sent.
#[derive(Debug)]
pub(super) struct Outlet(Arc<Queue>);

/// What is to be sent on a stream and was not taken yet.
///
/// **Which batches may have left.** Only [`Outbound::poll_next`] takes messages out of here, and it is called by a
/// connection that has opened a stream to its server and has room on it, to encode them for the wire. So what is in
/// here, nobody outside this process has seen, and once it was taken back, under the same lock, nobody will: whatever
/// becomes of the connection, and although its tasks may live on after we have heard of its end. What was taken may have
/// arrived.
#[derive(Debug, Default)]
struct Queue(Mutex<Waiting>);

#[derive(Debug, Default)]
struct Waiting {
    frames: VecDeque<Outgoing>,
    closed: bool,
    /// Who takes them, if there were none.
    taker: Option<Waker>,
}

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
        self.say(Outgoing { frame: Out::Append(append), tell });
    }

    /// Takes back the appends among these that have not left, in their order.
    pub(super) fn take_back(&self, ours: impl Fn(i64) -> bool) -> Vec<v1::BatchAppend> {
        let mut back = Vec::new();
        let mut waiting = self.0.0.lock();
        for outgoing in std::mem::take(&mut waiting.frames) {
            match outgoing.frame {
                Out::Append(append) if ours(append.correlation_id) => back.push(append),
                frame => waiting.frames.push_back(Outgoing { frame, ..outgoing }),
            }
        }
        back
    }

    fn say(&self, outgoing: Outgoing) {
        let taker = {
            let mut waiting = self.0.0.lock();
            waiting.frames.push_back(outgoing);
            waiting.taker.take()
        };
        taker.into_iter().for_each(Waker::wake);
    }
}

impl Drop for Outlet {
    fn drop(&mut self) {
        let taker = {
            let mut waiting = self.0.0.lock();
            waiting.closed = true;
            waiting.frames.clear();
            waiting.taker.take()
        };
        taker.into_iter().for_each(Waker::wake);
    }
}

/// What the request's body takes the messages from.
struct Outbound {
    id: u64,
    queue: Arc<Queue>,
    events: mpsc::UnboundedSender<Event>,
}

impl Stream for Outbound {
    type Item = v1::ProduceStreamRequest;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let taken = {
            let mut waiting = self.queue.0.lock();
            let taken = waiting.frames.pop_front();
            if taken.is_none() && !waiting.closed {
                waiting.taker = Some(cx.waker().clone());
                return Poll::Pending;
            }
            taken
        };
        let Some(Outgoing { frame, tell }) = taken else { return Poll::Ready(None) };
        if let Some(correlation_id) = tell {
            let event = Event::Stream(self.id, StreamEvent::Written(correlation_id));
            let _over = self.events.send(event);
        }
        Poll::Ready(Some(v1::ProduceStreamRequest { frame: Some(frame) }))
    }
}

/// Opens a stream. Batches may be sent at once; the connection is made meanwhile.
pub(super) fn open(
    inner: &Arc<Inner>,
    id: u64,
    address: Endpoint,
    hello: v1::ProduceHello,
    events: &mpsc::UnboundedSender<Event>,
) -> Outlet {
    let outlet = Outlet(Arc::default());
    outlet.say(Outgoing { frame: Out::Hello(hello), tell: None });
    let outbound = Outbound { id, queue: Arc::clone(&outlet.0), events: events.clone() };
    let (reader, events) = (Arc::clone(inner), events.clone());
    inner.io.spawn(async move {
        let hear = |answer: v1::ProduceStreamResponse| match answer.frame {
            Some(frame) => events.send(Event::Stream(id, StreamEvent::Heard(frame))).is_ok(),
            // A frame that this version does not know is no reason to stop.
            None => true,
        };
        let path = "/weir.v1.ProducerService/ProduceStream";
        let body = Body::new(BatchBody::of_request(outbound.map(Ok)));
        let error = duplex::run(&reader, &address, path, body, hear).await;
        let _over = events.send(Event::Stream(id, StreamEvent::Ended(error)));
    });
    outlet
}

#[cfg(test)]
mod tests {
    use futures::{FutureExt, StreamExt};

    use super::*;

    #[test]
    fn what_was_taken_is_not_taken_back_and_the_reverse() {
        let outlet = Outlet(Arc::default());
        let (events, mut heard) = mpsc::unbounded_channel();
        let mut outbound = Outbound { id: 7, queue: Arc::clone(&outlet.0), events };
        let append = |correlation_id| v1::BatchAppend { correlation_id, ..Default::default() };
        let mut take = || match outbound.next().now_or_never()??.frame? {
            Out::Append(append) => Some(append.correlation_id),
            Out::Hello(_) => None,
        };
        (0..6).for_each(|id| outlet.append(append(id), id == 1));
        assert_eq!((take(), take()), (Some(0), Some(1)));
        assert!(matches!(heard.try_recv(), Ok(Event::Stream(7, StreamEvent::Written(1)))));
        let back = outlet.take_back(|id| id != 4);
        assert_eq!(back.iter().map(|append| append.correlation_id).collect::<Vec<_>>(), [2, 3, 5]);
        assert_eq!((take(), take()), (Some(4), None));
        outlet.append(append(6), false);
        drop(outlet);
        assert!(outbound.next().now_or_never().expect("it is over").is_none());
    }
}
