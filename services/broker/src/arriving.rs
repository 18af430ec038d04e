//! Requests on their way in. Hot path: a few counters for each piece of a body.
//!
//! A message of several megabytes lies here in parts until its last byte has come, before any call knows of it. So
//! the length that gRPC puts in front of each message is read here, below the codec, and counted in [`Memory`]: of a
//! stream's message until it is whole (what becomes of it then is counted by the call), of a unary call's until the
//! call is answered. A message without room waits, is not read in that time, and is refused with OVERLOADED if that
//! takes too long: others of its connection may have to wait for it, as they share a window. A message that has room
//! and comes to a halt is given up, or a few clients that say nothing more would take all room there is. A connection
//! has a share of the room, and no more. What waits fills its connection's window, too: where that would keep those that
//! have room from coming, it is refused at once.
//!
//! It does not judge sizes: a message above `request_bytes_max` is passed on, for the codec to refuse.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use http::{Request, Response};
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::time::{Instant, Sleep};
use tonic::Status;
use tonic::body::Body;
use tower::{Layer, Service};
use weir_proto::v1::ErrorReason;
use weir_rpc::tuning::{CONNECTION_WINDOW_BYTES, STREAM_WINDOW_BYTES};
use weir_rpc::{Arriving as OnTheWay, ConnectionInfo, Problem};

use crate::broker::Broker;
use crate::memory::Memory;

/// How long a message may stand still that is half here. It is noticed after at most twice as long.
const HALT: Duration = Duration::from_secs(30);
/// How much of a connection's window messages that wait for room may fill: one that has room can always come.
const UNREAD_BYTES_MAX: usize = (CONNECTION_WINDOW_BYTES - STREAM_WINDOW_BYTES) as usize;
/// What gRPC puts in front of a message: whether it is compressed, and its length.
const PREFIX_BYTES: usize = 5;

/// Wraps the routes of a server.
#[derive(Clone, Debug)]
pub(crate) struct ArrivingLayer {
    memory: Arc<Memory>,
    /// What is longer is not taken.
    message_bytes_max: usize,
    /// How long a unary call's message waits for room.
    wait: Duration,
}

impl ArrivingLayer {
    pub(crate) fn new(broker: &Broker) -> Self {
        Self {
            memory: broker.memory.clone(),
            message_bytes_max: broker.config.request_bytes_max,
            wait: broker.config.wait_ms_default,
        }
    }

    /// A body whose messages are counted, and what they count for.
    fn wrap(&self, body: Body, connection: Arc<OnTheWay>) -> (Counted, Arc<Room>) {
        let room = Arc::new(Room { memory: self.memory.clone(), bytes: AtomicUsize::new(0), connection });
        let counted = Counted {
            body,
            layer: self.clone(),
            prefixes: Prefixes::default(),
            room: room.clone(),
            waiting: None,
            kept: None,
            halt: None,
            moved: false,
        };
        (counted, room)
    }
}

impl<S> Layer<S> for ArrivingLayer {
    type Service = Arriving<S>;

    fn layer(&self, inner: S) -> Arriving<S> {
        Arriving { inner, layer: self.clone() }
    }
}

/// A wrapped service.
#[derive(Clone, Debug)]
pub(crate) struct Arriving<S> {
    inner: S,
    layer: ArrivingLayer,
}

impl<S, R> Service<Request<Body>> for Arriving<S>
where
    S: Service<Request<Body>, Response = Response<R>>,
    S::Future: Send + 'static,
{
    type Response = Response<R>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<R>, S::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let (head, body) = request.into_parts();
        let connection = head.extensions.get::<ConnectionInfo>();
        let connection = connection.map_or_else(Arc::default, |info| info.arriving().clone());
        let (body, room) = self.layer.wrap(body, connection);
        let answer = self.inner.call(Request::from_parts(head, Body::new(body)));
        // Given back when the call has answered, or will not; a stream answers at once, and goes on reading.
        Box::pin(answer.map(move |answered| {
            drop(room);
            answered
        }))
    }
}

/// What one call's message counts for. Shared by its body and, until it has answered, by the call.
#[derive(Debug)]
struct Room {
    memory: Arc<Memory>,
    bytes: AtomicUsize,
    connection: Arc<OnTheWay>,
}

impl Room {
    /// Counts for so much from now on; `Err`: how much is missing, and there is no room for it.
    fn count(&self, bytes: usize) -> Result<(), usize> {
        // Only the body changes it, which is one.
        let before = self.bytes.load(Ordering::Relaxed);
        if bytes > before && !self.memory.try_arrive(bytes - before, &self.connection.begun) {
            return Err(bytes - before);
        }
        self.bytes.store(bytes, Ordering::Relaxed);
        if bytes < before {
            self.memory.depart(before - bytes, &self.connection.begun);
        }
        Ok(())
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        let bytes = *self.bytes.get_mut();
        if bytes > 0 {
            self.memory.depart(bytes, &self.connection.begun);
        }
    }
}

/// Where messages begin and end in a body.
#[derive(Debug, Default)]
struct Prefixes {
    prefix: [u8; PREFIX_BYTES],
    /// How much of the prefix is there.
    known: usize,
    /// The length of the message that began last.
    length: usize,
    /// How much of it is still to come.
    left: usize,
}

impl Prefixes {
    fn pass(&mut self, mut piece: &[u8]) {
        loop {
            let (_, behind) = piece.split_at(self.left.min(piece.len()));
            self.left -= piece.len() - behind.len();
            let Some((&byte, behind)) = behind.split_first() else { return };
            piece = behind;
            if let Some(place) = self.prefix.get_mut(self.known) {
                *place = byte;
            }
            self.known += 1;
            if self.known == PREFIX_BYTES {
                let [_, length @ ..] = self.prefix;
                self.length = u32::from_be_bytes(length) as usize;
                self.left = self.length;
                self.known = 0;
            }
        }
    }
}

/// A body whose messages are counted.
struct Counted {
    body: Body,
    layer: ArrivingLayer,
    prefixes: Prefixes,
    room: Arc<Room>,
    /// Room is waited for; whether it came.
    waiting: Option<BoxFuture<'static, bool>>,
    /// What goes on when there is room.
    kept: Option<Frame<Bytes>>,
    halt: Option<Pin<Box<Sleep>>>,
    /// Whether something came since the last look.
    moved: bool,
}

impl Counted {
    /// What the body's last message counts for now.
    fn bytes(&self) -> usize {
        let Prefixes { length, left, .. } = self.prefixes;
        let counts = (left > 0 || self.unanswered()) && length <= self.layer.message_bytes_max;
        if counts { self.layer.memory.as_arriving(length) } else { 0 }
    }

    /// The call has not answered: it may be a unary one, and what comes its message.
    fn unanswered(&self) -> bool {
        Arc::strong_count(&self.room) > 1
    }

    /// How long a message waits for room. Who sends one by one on a stream waits rather than fails; by then whatever
    /// keeps others from their room without coming itself is given up.
    fn patience(&self) -> Duration {
        if self.unanswered() { self.layer.wait } else { self.layer.wait.max(2 * HALT) }
    }

    /// Begins to wait for so much more room; `false`: there is no place left to wait in.
    fn wait_for(&mut self, missing: usize) -> bool {
        let (memory, connection) = (self.layer.memory.clone(), self.room.connection.clone());
        let Some(unread) = Unread::count(connection.clone(), self.unread_max()) else { return false };
        let until = Instant::now() + self.patience();
        let came = async move {
            let _unread = unread;
            tokio::time::timeout_at(until, memory.arrive(missing, &connection.begun)).await.is_ok()
        };
        self.waiting = Some(came.boxed());
        true
    }

    /// How much can come while nothing is read: the message, and on a stream others behind it.
    fn unread_max(&self) -> usize {
        let window = STREAM_WINDOW_BYTES as usize;
        if self.unanswered() { self.prefixes.length.min(window) } else { window }
    }

    /// Nothing comes: is that in the middle of a message, and for too long?
    fn halts(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.prefixes.left == 0 {
            return Poll::Pending;
        }
        let halt = self.halt.get_or_insert_with(|| Box::pin(tokio::time::sleep(HALT)));
        loop {
            ready!(halt.as_mut().poll(cx));
            if !std::mem::take(&mut self.moved) {
                break;
            }
            halt.as_mut().reset(Instant::now() + HALT);
        }
        let problem = Problem::new(
            ErrorReason::Overloaded,
            format!(
                "{} of the {} bytes of a message have not come, and nothing more for {HALT:?}",
                self.prefixes.left, self.prefixes.length
            ),
        );
        Poll::Ready(Some(Err(problem.status())))
    }

    fn no_room(&self) -> Status {
        let limit = self.layer.memory.max() / 2;
        Problem::new(
            ErrorReason::Overloaded,
            format!(
                "no room came for a message of {} bytes for {:?}: {limit} may be on their way to this broker (half of \
                 inflight_total_bytes_max), and half of them on one connection",
                self.prefixes.length,
                self.patience()
            ),
        )
        .fact("limit", limit)
        .status()
    }

    fn no_place(&self) -> Status {
        Problem::new(
            ErrorReason::Overloaded,
            format!(
                "there is no room for a message of {} bytes, and so many of this connection wait for room that \
                 those that have it could not come: send fewer at a time on one connection",
                self.prefixes.length
            ),
        )
        .fact("limit", UNREAD_BYTES_MAX)
        .status()
    }
}

/// So much of a connection's window, until this is dropped.
struct Unread {
    connection: Arc<OnTheWay>,
    bytes: usize,
}

impl Unread {
    /// `None`: there is not so much.
    fn count(connection: Arc<OnTheWay>, bytes: usize) -> Option<Self> {
        let with_it = |before: usize| before.checked_add(bytes).filter(|sum| *sum <= UNREAD_BYTES_MAX);
        connection.unread.fetch_update(Ordering::Relaxed, Ordering::Relaxed, with_it).ok()?;
        Some(Self { connection, bytes })
    }
}

impl Drop for Unread {
    fn drop(&mut self) {
        self.connection.unread.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

impl HttpBody for Counted {
    type Data = Bytes;
    type Error = Status;

    // Nothing is lost where this is not polled again: what was taken off the body is kept, what was counted is
    // given back with the rest.
    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        if let Some(waiting) = &mut this.waiting {
            let came = ready!(waiting.poll_unpin(cx));
            this.waiting = None;
            if !came {
                this.kept = None;
                return Poll::Ready(Some(Err(this.no_room())));
            }
            this.room.bytes.store(this.layer.memory.as_arriving(this.prefixes.length), Ordering::Relaxed);
        }
        if let Some(kept) = this.kept.take() {
            return Poll::Ready(Some(Ok(kept)));
        }
        let frame = match Pin::new(&mut this.body).poll_frame(cx) {
            Poll::Pending => return this.halts(cx),
            Poll::Ready(Some(Ok(frame))) => frame,
            Poll::Ready(ended) => return Poll::Ready(ended),
        };
        let Some(data) = frame.data_ref() else { return Poll::Ready(Some(Ok(frame))) };
        this.moved = true;
        this.prefixes.pass(data);
        match this.room.count(this.bytes()) {
            Ok(()) => Poll::Ready(Some(Ok(frame))),
            Err(missing) if this.wait_for(missing) => {
                this.kept = Some(frame);
                self.poll_frame(cx)
            }
            Err(_) => Poll::Ready(Some(Err(this.no_place()))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.kept.is_none() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use futures::StreamExt;
    use http_body_util::{BodyExt, StreamBody};
    use prometheus::IntCounter;
    use tokio::sync::mpsc;
    use tokio_stream::wrappers::UnboundedReceiverStream;

    use super::*;

    type Pieces = mpsc::UnboundedSender<Vec<u8>>;

    fn layer(bytes_max: usize) -> ArrivingLayer {
        let memory = Memory::new(bytes_max, IntCounter::new("waits", "waits").unwrap());
        ArrivingLayer { memory, message_bytes_max: 1_000, wait: Duration::from_secs(10) }
    }

    fn body(layer: &ArrivingLayer) -> (Pieces, Counted, Arc<Room>) {
        body_of(layer, Arc::default())
    }

    fn body_of(layer: &ArrivingLayer, connection: Arc<OnTheWay>) -> (Pieces, Counted, Arc<Room>) {
        let (pieces, queue) = mpsc::unbounded_channel::<Vec<u8>>();
        let frames =
            UnboundedReceiverStream::new(queue).map(|piece| Ok::<_, Status>(Frame::data(piece.into())));
        let (counted, room) = layer.wrap(Body::new(StreamBody::new(frames)), connection);
        (pieces, counted, room)
    }

    /// So much of a message of this length, with what is in front of it.
    fn message(length: usize, there: usize) -> Vec<u8> {
        let mut bytes = vec![0];
        bytes.extend((length as u32).to_be_bytes());
        bytes.extend(vec![7; there]);
        bytes
    }

    #[test]
    fn lengths_are_found_wherever_the_pieces_are_cut() {
        let bytes = [message(300, 300), message(0, 0), message(2, 2), message(70_000, 9)].concat();
        for piece in 1..bytes.len() {
            let mut prefixes = Prefixes::default();
            bytes.chunks(piece).for_each(|piece| prefixes.pass(piece));
            assert_eq!((prefixes.length, prefixes.left, prefixes.known), (70_000, 69_991, 0));
        }
    }

    #[tokio::test]
    async fn what_is_announced_is_counted_until_it_is_whole_or_its_call_answered() {
        let layer = layer(1_000);
        let (pieces, mut stream, answered) = body(&layer);
        drop(answered);
        pieces.send(message(300, 10)).unwrap();
        stream.frame().await.unwrap().unwrap();
        assert_eq!(layer.memory.used(), 300);
        pieces.send(vec![7; 290]).unwrap();
        stream.frame().await.unwrap().unwrap();
        assert_eq!(layer.memory.used(), 0);

        let (pieces, mut unary, answered) = body(&layer);
        pieces.send(message(200, 200)).unwrap();
        drop(pieces);
        unary.frame().await.unwrap().unwrap();
        assert!(unary.frame().await.is_none());
        drop(unary);
        assert_eq!(layer.memory.used(), 200);
        drop(answered);
        assert_eq!(layer.memory.used(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_half_sent_on_many_streams_stays_below_the_bound() {
        let layer = layer(1_000);
        let mut half = Vec::new();
        for _ in 0..100 {
            let (pieces, mut counted, answered) = body(&layer);
            pieces.send(message(100, 90)).unwrap();
            let taken = counted.frame().now_or_never().map(|frame| frame.unwrap().is_ok());
            half.push((pieces, counted, answered, taken));
        }
        assert_eq!(half.iter().filter(|(.., taken)| *taken == Some(true)).count(), 5);
        assert_eq!(layer.memory.used(), 500);
        let (_, refused, ..) = half.last_mut().unwrap();
        let status = refused.frame().await.unwrap().unwrap_err();
        assert_eq!(status.code(), tonic::Code::ResourceExhausted);
        // Whoever waits goes on when there is room.
        let mut rest = half.split_off(5);
        drop(half);
        let (_, goes_on, ..) = rest.first_mut().unwrap();
        assert!(goes_on.frame().await.unwrap().is_ok());
        drop(rest);
        assert_eq!(layer.memory.used(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_half_sent_on_one_connection_leaves_room_to_others() {
        let layer = layer(1_000);
        let connection = Arc::<OnTheWay>::default();
        let mut half = Vec::new();
        for _ in 0..20 {
            let (pieces, mut counted, answered) = body_of(&layer, connection.clone());
            pieces.send(message(100, 90)).unwrap();
            let taken = counted.frame().now_or_never().is_some();
            half.push((pieces, counted, answered, taken));
        }
        assert_eq!(half.iter().filter(|(.., taken)| *taken).count(), 2, "a share of 250 of 500");
        let (pieces, mut other, _answered) = body(&layer);
        pieces.send(message(300, 300)).unwrap();
        assert!(other.frame().now_or_never().is_some(), "another one does not wait for it");
        drop(half);
        assert_eq!((connection.begun.load(Ordering::Relaxed), layer.memory.used()), (0, 300));
    }

    /// Four windows of a stream are one of a connection: what waits would keep what has room from coming.
    #[tokio::test(start_paused = true)]
    async fn what_waits_for_room_leaves_a_part_of_its_connections_window() {
        const WINDOW: usize = STREAM_WINDOW_BYTES as usize;
        let layer = ArrivingLayer { message_bytes_max: WINDOW, ..layer(4 * WINDOW) };
        let connection = Arc::<OnTheWay>::default();
        let mut bodies = Vec::new();
        let mut now = |length: usize, streams: bool| {
            let (pieces, mut counted, answered) = body_of(&layer, connection.clone());
            pieces.send(message(length, 90)).unwrap();
            let answered = (!streams).then_some(answered);
            let now = counted.frame().now_or_never().map(|frame| frame.unwrap().map(drop));
            bodies.push((pieces, counted, answered));
            now
        };
        assert!(matches!(now(WINDOW, false), Some(Ok(()))), "the first has the connection's share");
        assert!(now(WINDOW, false).is_none() && now(100, true).is_none(), "two wait");
        assert!(
            now(WINDOW / 2, false).is_none() && now(WINDOW / 2, false).is_none(),
            "with two halves, three"
        );
        let refused = now(100, false).unwrap().unwrap_err();
        assert_eq!(refused.code(), tonic::Code::ResourceExhausted);
        assert!(refused.message().contains("send fewer at a time"), "{refused}");
        // What waited goes on as ever.
        bodies.remove(0);
        let (_, goes_on, _) = bodies.first_mut().unwrap();
        assert!(goes_on.frame().await.unwrap().is_ok());
        bodies.clear();
        assert_eq!(connection.unread.load(Ordering::Relaxed), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_message_that_comes_to_a_halt_is_given_up_and_an_idle_stream_is_not() {
        let layer = layer(1_000);
        let (pieces, mut counted, answered) = body(&layer);
        drop(answered);
        pieces.send(message(10, 10)).unwrap();
        counted.frame().await.unwrap().unwrap();
        assert!(tokio::time::timeout(10 * HALT, counted.frame()).await.is_err());
        pieces.send(message(10, 1)).unwrap();
        counted.frame().await.unwrap().unwrap();
        assert!(tokio::time::timeout(HALT / 2, counted.frame()).await.is_err());
        pieces.send(vec![7]).unwrap();
        counted.frame().await.unwrap().unwrap();
        let status = counted.frame().await.unwrap().unwrap_err();
        assert!(status.message().contains("8 of the 10 bytes"), "{status}");
    }

    #[tokio::test]
    async fn what_is_too_large_is_left_to_the_codec() {
        let layer = layer(1_000);
        let (pieces, mut counted, _answered) = body(&layer);
        pieces.send(message(5_000, 100)).unwrap();
        counted.frame().await.unwrap().unwrap();
        assert_eq!(layer.memory.used(), 0);
    }
}
