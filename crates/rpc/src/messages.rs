//! The messages of a stream of batches, from the body of its request or answer. Hot path: once a batch.
//!
//! The library's own decoder copies all that comes into one buffer. Here a message is read from the pieces that came,
//! so that a payload that came in one DATA frame stays where the connection has put it. Our clients send a large one
//! in a frame of its own ([`weir_proto::body`]); one that came in several is copied together.
//!
//! It reads what is not compressed. What may be is for the library.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use http::{HeaderValue, Method, Request, StatusCode, Uri, Version, header};
use http_body::Body as _;
use prost::Message;
use tokio_stream::Stream;
use tonic::body::Body;
use tonic::transport::Channel;
use tonic::{Code, Status};
use tower::Service;

/// Calls a method whose messages go both ways, and gives what is answered as [`Messages`].
///
/// # Errors
/// There is no connection, or the call is refused at once.
pub async fn duplex<M: Message + Default>(
    mut channel: Channel,
    path: &'static str,
    requests: Body,
    bytes_max: usize,
) -> Result<Messages<M>, Status> {
    let mut request = Request::new(requests);
    *request.method_mut() = Method::POST;
    *request.uri_mut() = Uri::from_static(path);
    *request.version_mut() = Version::HTTP_2;
    let headers = request.headers_mut();
    headers.insert(header::TE, HeaderValue::from_static("trailers"));
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    let failed = |error| Status::from_error(Box::new(error));
    poll_fn(|cx| channel.poll_ready(cx)).await.map_err(failed)?;
    let response = channel.call(request).await.map_err(failed)?;
    // What is refused at once has no body, and says so in the headers.
    match Status::from_header_map(response.headers()) {
        Some(status) if status.code() != Code::Ok => Err(status),
        _ if response.status() != StatusCode::OK => {
            Err(Status::unavailable(format!("HTTP status {}", response.status())))
        }
        _ => Ok(Messages::new(response.into_body(), bytes_max)),
    }
}

/// What gRPC puts in front of a message: whether it is compressed, and its length.
const PREFIX_BYTES: usize = 5;

/// A body, message by message. It ends with the body, or with the first error.
#[derive(Debug)]
pub struct Messages<M> {
    body: Body,
    bytes_max: usize,
    pieces: Pieces,
    /// The length of the message that comes, once its prefix is there.
    length: Option<usize>,
    over: bool,
    message: PhantomData<fn() -> M>,
}

impl<M: Message + Default> Messages<M> {
    /// The messages of a body that says of none that it is compressed. None may take more than `bytes_max`.
    pub fn new(body: Body, bytes_max: usize) -> Self {
        Self { body, bytes_max, pieces: Pieces::default(), length: None, over: false, message: PhantomData }
    }

    /// The next message, if all of it is here.
    fn whole(&mut self) -> Result<Option<M>, Status> {
        if self.length.is_none() && self.pieces.left >= PREFIX_BYTES {
            self.length = Some(self.prefix()?);
        }
        let Some(length) = self.length else { return Ok(None) };
        if self.pieces.left < length {
            return Ok(None);
        }
        self.length = None;
        self.pieces.pack();
        let read = M::decode((&mut self.pieces).take(length));
        // In the library's words, which `with_reason` knows.
        read.map(Some).map_err(|e| Status::internal(e.to_string()))
    }

    fn prefix(&mut self) -> Result<usize, Status> {
        self.pieces.pack();
        if self.pieces.get_u8() != 0 {
            return Err(Status::internal(
                "protocol error: received message with compressed-flag but no grpc-encoding was specified",
            ));
        }
        let length = self.pieces.get_u32() as usize;
        if length > self.bytes_max {
            return Err(Status::out_of_range(format!(
                "Error, decoded message length too large: found {length} bytes, the limit is: {} bytes",
                self.bytes_max
            )));
        }
        Ok(length)
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<M, Status>>> {
        loop {
            if let Some(message) = self.whole().transpose() {
                return Poll::Ready(Some(message));
            }
            match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(piece) => self.pieces.push(piece),
                    Err(frame) => {
                        // A server's last word. A client has none.
                        let said = frame.trailers_ref().and_then(Status::from_header_map);
                        if let Some(status) = said.filter(|status| status.code() != Code::Ok) {
                            return Poll::Ready(Some(Err(status)));
                        }
                    }
                },
                // Who goes away has said all.
                Some(Err(status)) if status.code() == Code::Cancelled => return Poll::Ready(None),
                Some(Err(status)) => return Poll::Ready(Some(Err(status))),
                None if self.pieces.left == 0 && self.length.is_none() => return Poll::Ready(None),
                None => {
                    return Poll::Ready(Some(Err(Status::internal("Unexpected EOF decoding stream."))));
                }
            }
        }
    }
}

impl<M: Message + Default> Stream for Messages<M> {
    type Item = Result<M, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.over {
            return Poll::Ready(None);
        }
        let next = ready!(self.poll(cx));
        self.over = !matches!(next, Some(Ok(_)));
        Poll::Ready(next)
    }
}

/// What is smaller is copied together with what is small behind it: kept by itself, a piece of a byte takes forty. The head
/// in front of a large payload of our clients is smaller.
const SMALL_BYTES: usize = 4 * 1024;

/// What came and was not read yet.
#[derive(Debug, Default)]
struct Pieces {
    /// None is empty.
    pieces: VecDeque<Bytes>,
    /// Small ones behind them, together.
    small: BytesMut,
    /// How much all of it is.
    left: usize,
}

impl Pieces {
    fn push(&mut self, piece: Bytes) {
        self.left += piece.len();
        if piece.len() < SMALL_BYTES {
            self.small.extend_from_slice(&piece);
            return;
        }
        self.pack();
        self.pieces.push_back(piece);
    }

    /// What is small takes its place among the pieces.
    fn pack(&mut self) {
        if !self.small.is_empty() {
            self.pieces.push_back(self.small.split().freeze());
        }
    }
}

impl Buf for Pieces {
    fn remaining(&self) -> usize {
        self.left
    }

    fn chunk(&self) -> &[u8] {
        self.pieces.front().map_or(&[], |piece| piece)
    }

    fn advance(&mut self, mut count: usize) {
        self.left -= count;
        while let Some(piece) = self.pieces.front_mut() {
            let here = count.min(piece.len());
            piece.advance(here);
            count -= here;
            if !piece.is_empty() {
                break;
            }
            self.pieces.pop_front();
        }
    }

    fn copy_to_bytes(&mut self, length: usize) -> Bytes {
        match self.pieces.front_mut() {
            Some(piece) if piece.len() > length => {
                self.left -= length;
                piece.split_to(length)
            }
            Some(piece) if piece.len() == length => {
                self.left -= length;
                self.pieces.pop_front().unwrap_or_default()
            }
            _ => {
                let mut together = BytesMut::with_capacity(length);
                together.put(Buf::take(self, length));
                together.freeze()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::{FutureExt, StreamExt};
    use http_body::Frame;
    use http_body_util::StreamBody;
    use weir_proto::v1::{BatchAppend, ProduceStreamRequest, RecordBatch, produce_stream_request};

    use super::*;

    const BYTES_MAX: usize = 300 << 10;

    fn append(bytes: usize) -> ProduceStreamRequest {
        let batch = RecordBatch { crc: 7, records: vec![9; bytes].into(), ..RecordBatch::default() };
        let append = BatchAppend { topic: "flights".into(), batch: Some(batch), ..BatchAppend::default() };
        ProduceStreamRequest { frame: Some(produce_stream_request::Frame::Append(append)) }
    }

    fn framed(messages: &[ProduceStreamRequest]) -> Vec<u8> {
        let mut framed = Vec::new();
        for message in messages {
            framed.push(0);
            framed.extend(u32::try_from(message.encoded_len()).unwrap().to_be_bytes());
            message.encode(&mut framed).unwrap();
        }
        framed
    }

    /// What is read of a body that comes in these pieces, all of which are there.
    fn read(pieces: Vec<Bytes>) -> Vec<Result<ProduceStreamRequest, Status>> {
        let frames = futures::stream::iter(pieces).map(|piece| Ok::<_, Status>(Frame::data(piece)));
        let messages = Messages::new(Body::new(StreamBody::new(frames)), BYTES_MAX);
        messages.collect::<Vec<_>>().now_or_never().expect("everything is there")
    }

    #[test]
    fn messages_come_out_however_they_were_cut() {
        let messages = [0, 1, 100, 1 << 10, 70 << 10, 3].map(append);
        let framed = Bytes::from(framed(&messages));
        for size in [1, 2, 3, 5, 7, 100, 4 << 10, 16 << 10, 64 << 10, framed.len()] {
            let pieces = framed.chunks(size).map(|piece| framed.slice_ref(piece)).collect();
            let read = read(pieces).into_iter().collect::<Result<Vec<_>, _>>().unwrap();
            assert!(read == messages, "pieces of {size}");
        }
    }

    #[test]
    fn a_payload_that_came_in_one_piece_stays_where_it_is() {
        let framed = Bytes::from(framed(&[append(252 << 10)]));
        let head = framed.len() - (252 << 10);
        let payload = framed.slice(head..);
        let at = payload.as_ptr();
        let read = read(vec![framed.slice(..head), payload]);
        let Some(Ok(ProduceStreamRequest { frame: Some(produce_stream_request::Frame::Append(append)) })) =
            read.into_iter().next()
        else {
            panic!("an append")
        };
        assert_eq!(append.batch.unwrap().records.as_ptr(), at);
    }

    #[test]
    fn a_servers_last_word_is_the_end() {
        let ended_with = |status: Status| {
            let mut said = http::HeaderMap::new();
            status.add_header(&mut said).unwrap();
            let frames = [Frame::data(framed(&[append(10)]).into()), Frame::trailers(said)];
            let body = Body::new(StreamBody::new(futures::stream::iter(frames.map(Ok::<_, Status>))));
            let messages = Messages::<ProduceStreamRequest>::new(body, BYTES_MAX);
            messages.collect::<Vec<_>>().now_or_never().expect("everything is there")
        };
        assert_eq!(ended_with(Status::ok("")).len(), 1);
        let ended = ended_with(Status::unavailable("another process"));
        assert!(matches!(&ended[..], [Ok(_), Err(status)] if status.message() == "another process"));
    }

    #[test]
    fn what_comes_in_tiny_pieces_takes_no_more_than_its_length() {
        let mut pieces = Pieces::default();
        for _ in 0..10 {
            (0..1_000).for_each(|_| pieces.push(Bytes::from_static(b"x")));
            pieces.push(vec![7; SMALL_BYTES].into());
        }
        assert_eq!(pieces.left, 10 * (1_000 + SMALL_BYTES));
        assert_eq!(pieces.pieces.len(), 20);
    }

    #[test]
    fn what_is_no_message_is_said_in_the_words_that_get_a_reason() {
        let good = framed(&[append(10)]);
        let too_large = {
            let mut prefix = vec![0];
            prefix.extend(u32::try_from(BYTES_MAX + 1).unwrap().to_be_bytes());
            prefix
        };
        let cases: [(&str, Vec<u8>, &str); 4] = [
            ("cut off", good[..good.len() - 1].to_vec(), "the request is no message"),
            ("no protobuf", vec![0, 0, 0, 0, 1, 0xff], "the request is no message"),
            ("compressed", vec![1, 0, 0, 0, 0], "the request is no message"),
            ("too large", too_large, "the request takes 307201 bytes, and request_bytes_max is 307200"),
        ];
        for (case, bytes, said) in cases {
            let mut body = good.clone();
            body.extend(bytes);
            let read = read(vec![body.into()]);
            assert_eq!(read.len(), 2, "{case}");
            let status = crate::with_reason(read.into_iter().nth(1).unwrap().unwrap_err());
            assert!(status.message().starts_with(said), "{case}: {}", status.message());
        }
    }
}
