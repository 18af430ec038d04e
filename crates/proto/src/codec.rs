//! How messages become bytes: prost, with buffers that suit a log.
//!
//! tonic's stock codec lets its buffer grow while a message is written into it, and hands over at 32 KiB. For
//! batches that means several copies of each, and for small ones a DATA frame, a `writev` and a `recv` for every
//! two. Here space is taken at once, and what is ready together travels together, up to [`CHUNK_BYTES`].
//!
//! The bytes are prost's own; only their buffers are ours. Every message of every call passes here.

use std::marker::PhantomData;

use bytes::{Buf, BufMut, Bytes};
use prost::Message;
use tonic::Status;
use tonic::codec::{BufferSettings, DecodeBuf, EncodeBuf};
use tonic_prost::ProstDecoder;

/// Messages that are ready together are handed over once they fill this much. Well below the 256 KiB of a DATA
/// frame between ends that we build: the message that passes the mark should still fit into the frame, because the
/// rest would be a frame, and a system call, of its own.
pub const CHUNK_BYTES: usize = 192 * 1024;

/// What is taken at most for messages to come.
const AHEAD_BYTES_MAX: usize = 224 * 1024;

/// Space for so many messages of a size is taken at once: few allocations for small messages, and a stream that
/// says little never holds more than this many times its last message.
const AHEAD_MESSAGES: usize = 16;

/// From here on two messages do not fit into a chunk, so each gets exactly the space it needs.
const LARGE_BYTES: usize = CHUNK_BYTES / 2;

/// What can be sent: every message, and what has the bytes of one without being it.
pub trait Outgoing: Send + 'static {
    /// How many bytes it takes.
    fn length(&self) -> usize;

    /// Writes exactly as many.
    fn write(&self, buffer: &mut impl BufMut);
}

impl<T: Message + 'static> Outgoing for T {
    fn length(&self) -> usize {
        self.encoded_len()
    }

    fn write(&self, buffer: &mut impl BufMut) {
        self.encode_raw(buffer);
    }
}

/// The codec that the generated clients and servers use.
#[derive(Debug, Clone)]
pub struct Codec<T, U>(PhantomData<(T, U)>);

impl<T, U> Default for Codec<T, U> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T, U> tonic::codec::Codec for Codec<T, U>
where
    T: Outgoing,
    U: Message + Default + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = Encoder<T>;
    type Decoder = ProstDecoder<U>;

    fn encoder(&mut self) -> Self::Encoder {
        Encoder(PhantomData)
    }

    fn decoder(&mut self) -> Self::Decoder {
        ProstDecoder::new(settings())
    }
}

/// A message as it is on the wire, read by nobody: a broker that passes one on drops no field that it does not know.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Encoded(pub Bytes);

impl Outgoing for Encoded {
    fn length(&self) -> usize {
        self.0.len()
    }

    fn write(&self, buffer: &mut impl BufMut) {
        buffer.put_slice(&self.0);
    }
}

/// The codec of whoever takes messages as they are.
#[derive(Debug, Clone)]
pub struct Raw<T>(PhantomData<T>);

impl<T> Default for Raw<T> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T: Outgoing> tonic::codec::Codec for Raw<T> {
    type Encode = T;
    type Decode = Encoded;
    type Encoder = Encoder<T>;
    type Decoder = RawDecoder;

    fn encoder(&mut self) -> Self::Encoder {
        Encoder(PhantomData)
    }

    fn decoder(&mut self) -> Self::Decoder {
        RawDecoder
    }
}

/// Takes messages as they are; see [`Raw`].
#[derive(Debug, Clone)]
pub struct RawDecoder;

impl tonic::codec::Decoder for RawDecoder {
    type Item = Encoded;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Encoded>, Status> {
        // The whole of one message, and not a copy.
        Ok(Some(Encoded(buffer.copy_to_bytes(buffer.remaining()))))
    }

    fn buffer_settings(&self) -> BufferSettings {
        settings()
    }
}

/// Writes messages; see [`Codec`].
#[derive(Debug, Clone)]
pub struct Encoder<T>(PhantomData<T>);

impl<T: Outgoing> tonic::codec::Encoder for Encoder<T> {
    type Item = T;
    type Error = Status;

    fn encode(&mut self, item: T, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        let length = item.length();
        if buffer.chunk_mut().len() < length {
            buffer.reserve(ahead(length));
        }
        item.write(buffer);
        Ok(())
    }

    fn buffer_settings(&self) -> BufferSettings {
        settings()
    }
}

/// How much space is taken where there is none left for a message of this length.
pub(crate) fn ahead(length: usize) -> usize {
    if length < LARGE_BYTES { (length * AHEAD_MESSAGES).min(AHEAD_BYTES_MAX) } else { length }
}

/// Nothing is allocated for a call before its first message.
fn settings() -> BufferSettings {
    BufferSettings::new(0, CHUNK_BYTES)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http_body_util::BodyExt;
    use tonic::codec::{Codec as _, EncodeBody};

    use super::*;
    use crate::v1::{BatchAppend, ProduceStreamRequest, RecordBatch, produce_stream_request::Frame};

    fn append(bytes: usize) -> ProduceStreamRequest {
        let batch = RecordBatch { crc: 7, records: Bytes::from(vec![9; bytes]), ..RecordBatch::default() };
        let append =
            BatchAppend { topic: "flights".to_owned(), batch: Some(batch), ..BatchAppend::default() };
        ProduceStreamRequest { frame: Some(Frame::Append(append)) }
    }

    /// Sends messages that are all ready, and returns the chunks that reach the transport.
    async fn chunks(messages: &[ProduceStreamRequest]) -> Vec<Bytes> {
        let encoder = Codec::<ProduceStreamRequest, ()>::default().encoder();
        let source = futures::stream::iter(messages.iter().cloned().map(Ok));
        let mut body = std::pin::pin!(EncodeBody::new_client(encoder, source, None, None));
        let mut chunks = Vec::new();
        while let Some(frame) = body.frame().await {
            chunks.push(frame.unwrap().into_data().unwrap());
        }
        chunks
    }

    #[tokio::test]
    async fn the_bytes_are_prosts() {
        for size in [0, 1, 100, 4 << 10, 16 << 10, 64 << 10, 252 << 10, 3 << 20] {
            let messages = vec![append(size), append(size / 2), append(size)];
            let mut wanted = Vec::new();
            for message in &messages {
                wanted.push(0);
                wanted.extend(u32::try_from(message.encoded_len()).unwrap().to_be_bytes());
                message.encode(&mut wanted).unwrap();
            }
            assert_eq!(chunks(&messages).await.concat(), wanted, "batches of {size}");
        }
    }

    #[tokio::test]
    async fn ready_messages_share_a_chunk_that_fits_a_frame() {
        let frame = 256 << 10;
        for (size, chunk_count) in [(1 << 10, 6), (16 << 10, 86), (64 << 10, 334), (252 << 10, 1000)] {
            let chunks = chunks(&vec![append(size); 1000]).await;
            assert!(chunks.len() <= chunk_count, "{} chunks of batches of {size}", chunks.len());
            assert!(chunks.iter().all(|chunk| chunk.len() <= frame), "batches of {size}");
        }
    }
}
