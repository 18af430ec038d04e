//! How messages of the two big streams are put on the wire: with the ordinary prost encoding, but one exact
//! reservation a message instead of a buffer that doubles its way up to a quarter of a mebibyte, and small messages
//! gathered into large writes.
//!
//! Hot path: once a batch.

use std::marker::PhantomData;

use prost::Message;
use tonic::Status;
use tonic::codec::{BufferSettings, Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};

/// What one write gathers at most; a batch of the usual size goes alone.
const YIELD_BYTES: usize = 256 * 1024;
const BUFFER_BYTES: usize = 16 * 1024;

/// Encodes `T`, decodes `U`.
#[derive(Debug)]
pub(crate) struct StreamCodec<T, U>(PhantomData<(T, U)>);

impl<T, U> Default for StreamCodec<T, U> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

/// One direction of a [`StreamCodec`].
#[derive(Debug)]
pub(crate) struct Half<T>(PhantomData<T>);

impl<T, U> Codec for StreamCodec<T, U>
where
    T: Message + 'static,
    U: Message + Default + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = Half<T>;
    type Decoder = Half<U>;

    fn encoder(&mut self) -> Half<T> {
        Half(PhantomData)
    }

    fn decoder(&mut self) -> Half<U> {
        Half(PhantomData)
    }
}

impl<T: Message> Encoder for Half<T> {
    type Item = T;
    type Error = Status;

    fn encode(&mut self, item: T, buf: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buf.reserve(item.encoded_len());
        item.encode_raw(buf);
        Ok(())
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::new(BUFFER_BYTES, YIELD_BYTES)
    }
}

impl<U: Message + Default> Decoder for Half<U> {
    type Item = U;
    type Error = Status;

    fn decode(&mut self, buf: &mut DecodeBuf<'_>) -> Result<Option<U>, Status> {
        U::decode(buf)
            .map(Some)
            .map_err(|e| Status::internal(format!("the server's message cannot be read: {e}")))
    }
}
