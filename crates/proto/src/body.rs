//! What a stream of batches sends, as the body of its request or answer: prost's bytes, but the payload of a large
//! batch goes to the connection as it is instead of being copied between its fields. That is possible because the
//! payload is the last field of every message around it. Hot path: once a batch.
//!
//! What is small is copied all the same, and what is ready together is sent together: each piece is a DATA frame and, if
//! it is large, a system call of its own.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{BufMut, Bytes, BytesMut};
use http::HeaderMap;
use http_body::Frame;
use prost::Message;
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint, key_len};
use tokio_stream::Stream;
use tonic::{Code, Status};

use crate::codec::{CHUNK_BYTES, ahead};
use crate::internal::v1::ReplicateResponse;
use crate::v1::{
    FetchStreamResponse, ProduceStreamRequest, fetch_stream_response as answer,
    produce_stream_request as request,
};

/// From here on a payload is not copied. A DATA frame more costs about as much as copying so much.
const LARGE_BYTES: usize = 48 * 1024;

/// The field of the payload in the innermost message, and of each message in the one around it.
const PAYLOAD_FIELD: u32 = 100;

/// A message of a stream that may have a large payload: as field 100, the last one, of its field 100, or deeper.
pub trait Carrier: Message {
    /// Takes the payload out if it is large, and gives it to `write` with the messages around it, without this one, from
    /// the outermost to the innermost: none holds the next any more.
    fn split(&mut self, write: impl FnOnce(&[&dyn Around], Bytes) -> Bytes) -> Option<Bytes>;
}

/// A message that a payload was taken out of.
pub trait Around {
    /// How many bytes the rest of it takes.
    fn length(&self) -> usize;

    /// Writes them.
    fn write(&self, buffer: &mut BytesMut);
}

impl<M: Message> Around for M {
    fn length(&self) -> usize {
        self.encoded_len()
    }

    fn write(&self, buffer: &mut BytesMut) {
        self.encode_raw(buffer);
    }
}

impl Carrier for ProduceStreamRequest {
    fn split(&mut self, write: impl FnOnce(&[&dyn Around], Bytes) -> Bytes) -> Option<Bytes> {
        let Some(request::Frame::Append(append)) = &mut self.frame else { return None };
        let mut batch = append.batch.take_if(|batch| batch.records.len() >= LARGE_BYTES)?;
        let payload = std::mem::take(&mut batch.records);
        Some(write(&[&*append, &batch], payload))
    }
}

impl Carrier for FetchStreamResponse {
    fn split(&mut self, write: impl FnOnce(&[&dyn Around], Bytes) -> Bytes) -> Option<Bytes> {
        let Some(answer::Frame::Delivery(delivery)) = &mut self.frame else { return None };
        let mut batch = delivery.batch.take_if(|batch| batch.records.len() >= LARGE_BYTES)?;
        let payload = std::mem::take(&mut batch.records);
        Some(write(&[&*delivery, &batch], payload))
    }
}

impl Carrier for ReplicateResponse {
    fn split(&mut self, write: impl FnOnce(&[&dyn Around], Bytes) -> Bytes) -> Option<Bytes> {
        // One or the other is set.
        let (None, Some(data)) = (&self.frame, &mut self.data) else { return None };
        if data.frames.len() < LARGE_BYTES {
            return None;
        }
        let payload = std::mem::take(&mut data.frames);
        Some(write(&[&*data], payload))
    }
}

/// The messages, as the bytes of a body. They end with the stream, or with the first error.
#[derive(Debug)]
pub struct BatchBody<S> {
    messages: S,
    buffer: BytesMut,
    /// Follows what was handed over last.
    payload: Option<Bytes>,
    end: End,
    /// Whether the end is said in trailers: only a server does.
    trailers: bool,
}

/// How the messages ended.
#[derive(Debug)]
enum End {
    /// They did not.
    Open,
    /// So. What came before it may still have to be handed over.
    Known(Status),
    Said,
}

impl<S> BatchBody<S> {
    /// The body of a request. An error breaks it off.
    pub fn of_request(messages: S) -> Self {
        Self { messages, buffer: BytesMut::new(), payload: None, end: End::Open, trailers: false }
    }

    /// The body of an answer. It ends with a status: OK, or the error.
    pub fn of_answer(messages: S) -> Self {
        Self { trailers: true, ..Self::of_request(messages) }
    }

    /// Says how it ended, once.
    fn last(&mut self) -> Option<Result<Frame<Bytes>, Status>> {
        match std::mem::replace(&mut self.end, End::Said) {
            End::Known(status) if self.trailers => {
                let mut said = HeaderMap::new();
                Some(status.add_header(&mut said).map(|()| Frame::trailers(said)))
            }
            End::Known(status) if status.code() != Code::Ok => Some(Err(status)),
            _ => None,
        }
    }
}

impl<S, M> http_body::Body for BatchBody<S>
where
    S: Stream<Item = Result<M, Status>> + Unpin,
    M: Carrier,
{
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        if let Some(payload) = this.payload.take() {
            return Poll::Ready(Some(Ok(Frame::data(payload))));
        }
        while this.payload.is_none() && matches!(this.end, End::Open) && this.buffer.len() < CHUNK_BYTES {
            match Pin::new(&mut this.messages).poll_next(cx) {
                Poll::Ready(Some(Ok(message))) => this.payload = write(message, &mut this.buffer),
                Poll::Ready(Some(Err(status))) => this.end = End::Known(status),
                Poll::Ready(None) => this.end = End::Known(Status::ok("")),
                Poll::Pending if this.buffer.is_empty() => return Poll::Pending,
                Poll::Pending => break,
            }
        }
        let chunk = this.buffer.split().freeze();
        Poll::Ready(if chunk.is_empty() { this.last() } else { Some(Ok(Frame::data(chunk))) })
    }
}

/// Writes a message as gRPC frames it. What comes back is the rest of it.
fn write<M: Carrier>(mut message: M, buffer: &mut BytesMut) -> Option<Bytes> {
    let rest = message.split(|around, payload| {
        write_head(around, payload.len(), buffer);
        payload
    });
    if rest.is_none() {
        let length = message.encoded_len();
        write_prefix(length, length, buffer);
        message.encode_raw(buffer);
    }
    rest
}

/// Writes the messages around a payload, and what announces it.
fn write_head(around: &[&dyn Around], payload: usize, buffer: &mut BytesMut) {
    let length = field_length(nested_length(around, payload));
    write_prefix(length, length - payload, buffer);
    // What is empty is not written, so what is left of each message are the fields before the next one.
    let mut around = around;
    while let Some((message, inside)) = around.split_first() {
        write_key(nested_length(around, payload), buffer);
        message.write(buffer);
        around = inside;
    }
    write_key(payload, buffer);
}

/// The length of the outermost of these messages, with all that is in it.
fn nested_length(around: &[&dyn Around], payload: usize) -> usize {
    around.iter().rev().fold(payload, |inside, message| message.length() + field_length(inside))
}

/// Takes space for `here` bytes, and announces a message of `length`, not compressed.
fn write_prefix(length: usize, here: usize, buffer: &mut BytesMut) {
    let here = here + 5;
    if buffer.capacity() - buffer.len() < here {
        buffer.reserve(ahead(here));
    }
    buffer.put_u8(0);
    // A batch has 64 MiB at most.
    buffer.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
}

fn write_key(length: usize, buffer: &mut BytesMut) {
    encode_key(PAYLOAD_FIELD, WireType::LengthDelimited, buffer);
    encode_varint(length as u64, buffer);
}

fn field_length(length: usize) -> usize {
    key_len(PAYLOAD_FIELD) + encoded_len_varint(length as u64) + length
}

#[cfg(test)]
mod tests {
    use http_body::Body;

    use super::*;
    use crate::internal::v1::{LeaderEnds, ReplicaData, SubscriptionAnswers, replicate_response};
    use crate::v1::{
        BatchAppend, BatchDelivery, FetchHeartbeat, ProduceHello, ProducerIdentity, RecordBatch,
    };

    fn batch(bytes: usize) -> Option<RecordBatch> {
        let producer = Some(ProducerIdentity { id: 1 << 40, epoch: 2 });
        Some(RecordBatch { crc: 7, producer, records: Bytes::from(vec![9; bytes]), ..RecordBatch::default() })
    }

    fn append(bytes: usize) -> ProduceStreamRequest {
        let append = BatchAppend {
            correlation_id: 1 << 33,
            topic: "flights".to_owned(),
            expected_next_offset: Some(0),
            batch: batch(bytes),
            ..BatchAppend::default()
        };
        ProduceStreamRequest { frame: Some(request::Frame::Append(append)) }
    }

    fn delivery(bytes: usize) -> FetchStreamResponse {
        let delivery = BatchDelivery {
            subscription_id: 1 << 33,
            next_offset: 7,
            next_leader_epoch: Some(1),
            batch: batch(bytes),
            ..BatchDelivery::default()
        };
        FetchStreamResponse { frame: Some(answer::Frame::Delivery(delivery)) }
    }

    fn replica_data(bytes: usize) -> ReplicateResponse {
        let leader = Some(LeaderEnds { subscription: 3, high_watermark: 1 << 40, ..LeaderEnds::default() });
        let data = Some(ReplicaData { leader, frames: Bytes::from(vec![9; bytes]) });
        ReplicateResponse { frame: None, data }
    }

    /// What reaches the connection of messages that are all ready.
    async fn chunks<M: Carrier + Clone>(messages: &[M]) -> Vec<Bytes> {
        let messages = futures::stream::iter(messages.iter().cloned().map(Ok));
        let mut body = Box::pin(BatchBody::of_request(messages));
        let mut chunks = Vec::new();
        while let Some(frame) = std::future::poll_fn(|cx| body.as_mut().poll_frame(cx)).await {
            chunks.push(frame.unwrap().into_data().unwrap());
        }
        chunks
    }

    async fn check_bytes<M: Carrier + Clone>(messages: &[M]) {
        let mut wanted = Vec::new();
        for message in messages {
            wanted.push(0);
            wanted.extend(u32::try_from(message.encoded_len()).unwrap().to_be_bytes());
            message.encode(&mut wanted).unwrap();
        }
        assert!(chunks(messages).await.concat() == wanted, "{} bytes", wanted.len());
    }

    #[tokio::test]
    async fn the_bytes_are_prosts() {
        let hello = ProduceHello { client: "c".into(), ..ProduceHello::default() };
        let hello = ProduceStreamRequest { frame: Some(request::Frame::Hello(hello)) };
        let no_batch = ProduceStreamRequest { frame: Some(request::Frame::Append(BatchAppend::default())) };
        let heartbeat = FetchHeartbeat { now_ms: 1 << 40, ..FetchHeartbeat::default() };
        let heartbeat = FetchStreamResponse { frame: Some(answer::Frame::Heartbeat(heartbeat)) };
        let empty = FetchStreamResponse::default();
        let answers = replicate_response::Frame::Answers(SubscriptionAnswers::default());
        let answers = ReplicateResponse { frame: Some(answers), data: None };
        let at = LARGE_BYTES;
        for size in [0, 1, 100, 127, 128, 4 << 10, at - 1, at, at + 1, 64 << 10, 252 << 10, 3 << 20] {
            check_bytes(&[hello.clone(), append(size), append(size / 2), no_batch.clone(), append(size)])
                .await;
            check_bytes(&[
                heartbeat.clone(),
                delivery(size),
                delivery(size / 2),
                empty.clone(),
                delivery(size),
            ])
            .await;
            check_bytes(&[answers.clone(), replica_data(size), replica_data(size / 2), replica_data(size)])
                .await;
        }
    }

    #[tokio::test]
    async fn a_large_payload_is_not_copied_and_small_ones_share_a_chunk() {
        let large = append(252 << 10);
        let Some(request::Frame::Append(inside)) = &large.frame else { panic!("an append") };
        let payload = inside.batch.as_ref().unwrap().records.as_ptr();
        let chunks_of_large = chunks(&[large.clone(), large.clone()]).await;
        let sizes: Vec<_> = chunks_of_large.iter().map(Bytes::len).collect();
        assert!(
            matches!(sizes[..], [head, 258_048, again, 258_048] if head < 128 && again < 128),
            "{sizes:?}"
        );
        assert!(chunks_of_large.iter().skip(1).step_by(2).all(|chunk| chunk.as_ptr() == payload));
        let chunks_of_small = chunks(&vec![append(1 << 10); 1000]).await;
        assert!(chunks_of_small.len() <= 6, "{}", chunks_of_small.len());
    }

    #[tokio::test]
    async fn an_answer_ends_with_its_status_behind_everything_that_came_before() {
        for (end, code) in [(None, "0"), (Some(Status::unavailable("draining")), "14")] {
            let messages = [Ok(delivery(64 << 10)), Ok(delivery(3))].into_iter().chain(end.map(Err));
            let mut body = Box::pin(BatchBody::of_answer(futures::stream::iter(messages)));
            let (mut bytes, mut trailers) = (0, Vec::new());
            while let Some(frame) = std::future::poll_fn(|cx| body.as_mut().poll_frame(cx)).await {
                match frame.unwrap().into_data() {
                    Ok(data) if trailers.is_empty() => bytes += data.len(),
                    Ok(data) => panic!("{} bytes behind the trailers", data.len()),
                    Err(frame) => trailers.push(frame.into_trailers().unwrap()),
                }
            }
            let wanted = [delivery(64 << 10), delivery(3)].iter().map(|one| one.encoded_len() + 5).sum();
            assert_eq!(bytes, wanted);
            let codes = trailers.iter().map(|said| said["grpc-status"].to_str().unwrap());
            assert_eq!(codes.collect::<Vec<_>>(), [code]);
        }
    }
}
