//! What a producing stream sends, as the body of its request: prost's bytes, but the payload of a large batch goes to the
//! connection as it is instead of being copied between its fields. That is possible because the payload is the last
//! field of every message around it. Hot path: once a batch.
//!
//! What is small is copied all the same, and what is ready together is sent together: each piece is a DATA frame and, if
//! it is large, a system call of its own.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{BufMut, Bytes, BytesMut};
use futures::{Stream, StreamExt};
use http_body::Frame;
use prost::Message;
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint, key_len};
use weir_proto::codec::CHUNK_BYTES;
use weir_proto::v1::produce_stream_request::Frame as Out;
use weir_proto::v1::{BatchAppend, ProduceStreamRequest};

/// From here on a payload is not copied. A DATA frame more costs about as much as copying so much.
const LARGE_BYTES: usize = 48 * 1024;

/// The field of the payload in a batch, of the batch in an append, of the append in the message.
const PAYLOAD_FIELD: u32 = 100;

/// Space for so many messages of a size is taken at once, where they are small.
const AHEAD_MESSAGES: usize = 16;

/// The messages, as the bytes of a request's body.
pub(super) struct RequestBody<S> {
    messages: S,
    buffer: BytesMut,
    /// Follows what was handed over last.
    payload: Option<Bytes>,
}

impl<S> RequestBody<S> {
    pub(super) fn new(messages: S) -> Self {
        Self { messages, buffer: BytesMut::new(), payload: None }
    }
}

impl<S: Stream<Item = ProduceStreamRequest> + Unpin> http_body::Body for RequestBody<S> {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let this = &mut *self;
        if let Some(payload) = this.payload.take() {
            return Poll::Ready(Some(Ok(Frame::data(payload))));
        }
        while this.payload.is_none() && this.buffer.len() < CHUNK_BYTES {
            match this.messages.poll_next_unpin(cx) {
                Poll::Ready(Some(message)) => this.payload = write(message, &mut this.buffer),
                Poll::Pending if this.buffer.is_empty() => return Poll::Pending,
                Poll::Pending | Poll::Ready(None) => break,
            }
        }
        let chunk = this.buffer.split().freeze();
        Poll::Ready((!chunk.is_empty()).then(|| Ok(Frame::data(chunk))))
    }
}

/// Writes a message as gRPC frames it. What comes back is the rest of it.
fn write(mut message: ProduceStreamRequest, buffer: &mut BytesMut) -> Option<Bytes> {
    if let Some(Out::Append(append)) = &mut message.frame
        && append.batch.as_ref().is_some_and(|batch| batch.records.len() >= LARGE_BYTES)
    {
        return write_head(append, buffer);
    }
    let length = message.encoded_len();
    write_prefix(length, length, buffer);
    message.encode_raw(buffer);
    None
}

/// Writes an append without its payload, which comes back.
fn write_head(append: &mut BatchAppend, buffer: &mut BytesMut) -> Option<Bytes> {
    let mut batch = append.batch.take()?;
    let payload = std::mem::take(&mut batch.records);
    // What is empty is not written, so these are the fields before the payload, and before the batch.
    let batch_length = batch.encoded_len() + field_length(payload.len());
    let append_length = append.encoded_len() + field_length(batch_length);
    let length = field_length(append_length);
    write_prefix(length, length - payload.len(), buffer);
    write_key(append_length, buffer);
    append.encode_raw(buffer);
    write_key(batch_length, buffer);
    batch.encode_raw(buffer);
    write_key(payload.len(), buffer);
    Some(payload)
}

/// Takes space for `here` bytes, and announces a message of `length`, not compressed.
fn write_prefix(length: usize, here: usize, buffer: &mut BytesMut) {
    let here = here + 5;
    if buffer.capacity() - buffer.len() < here {
        buffer.reserve((here * AHEAD_MESSAGES).min(CHUNK_BYTES).max(here));
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
    use weir_proto::v1::{ProduceHello, ProducerIdentity, RecordBatch};

    use super::*;

    fn append(bytes: usize) -> ProduceStreamRequest {
        let batch = RecordBatch {
            crc: 7,
            producer: Some(ProducerIdentity { id: 1 << 40, epoch: 2 }),
            records: Bytes::from(vec![9; bytes]),
            ..RecordBatch::default()
        };
        let append = BatchAppend {
            correlation_id: 1 << 33,
            topic: "flights".to_owned(),
            expected_next_offset: Some(0),
            batch: Some(batch),
            ..BatchAppend::default()
        };
        ProduceStreamRequest { frame: Some(Out::Append(append)) }
    }

    /// What reaches the connection of messages that are all ready.
    async fn chunks(messages: &[ProduceStreamRequest]) -> Vec<Bytes> {
        let mut body = Box::pin(RequestBody::new(futures::stream::iter(messages.to_vec())));
        let mut chunks = Vec::new();
        while let Some(frame) = std::future::poll_fn(|cx| body.as_mut().poll_frame(cx)).await {
            chunks.push(frame.unwrap().into_data().unwrap());
        }
        chunks
    }

    #[tokio::test]
    async fn the_bytes_are_prosts() {
        let hello = ProduceHello { client: "c".into(), ..ProduceHello::default() };
        let hello = ProduceStreamRequest { frame: Some(Out::Hello(hello)) };
        let no_batch = ProduceStreamRequest { frame: Some(Out::Append(BatchAppend::default())) };
        let at = LARGE_BYTES;
        for size in [0, 1, 100, 127, 128, 4 << 10, at - 1, at, at + 1, 64 << 10, 252 << 10, 3 << 20] {
            let messages = [hello.clone(), append(size), append(size / 2), no_batch.clone(), append(size)];
            let mut wanted = Vec::new();
            for message in &messages {
                wanted.push(0);
                wanted.extend(u32::try_from(message.encoded_len()).unwrap().to_be_bytes());
                message.encode(&mut wanted).unwrap();
            }
            assert!(chunks(&messages).await.concat() == wanted, "batches of {size}");
        }
    }

    #[tokio::test]
    async fn a_large_payload_is_not_copied_and_small_ones_share_a_chunk() {
        let large = append(252 << 10);
        let Some(Out::Append(inside)) = &large.frame else { panic!("an append") };
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
}
