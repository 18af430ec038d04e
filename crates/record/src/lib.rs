//! Record batches: what a producer packs, a log stores and a consumer opens.
//!
//! A batch is a *record set*, the protobuf message `weir.v1.RecordSet`, serialised and compressed once by the
//! producer; its CRC is over the compressed bytes. This crate writes and reads record sets without building a
//! struct per record, compresses and decompresses them within limits, checks what a batch says about itself, and
//! turns stored records into the messages that consumers get.
//!
//! It does not know topics, logs or connections, and not the generated stubs: the little of protobuf that a record
//! needs is in `wire`, tested byte for byte against prost.
//!
//! On the way of a batch: the client's producer packs ([`BatchBuilder`]), the broker checks ([`verify`]) and stores,
//! the consumer, or the broker for plain readers, opens ([`Decompressor`], [`Records`], [`Transcoder`]).
//!
//! ```
//! use weir_record::{BATCH_BYTES_MAX, BatchBuilder, Codec, Decompressor, Limits, NO_HEADERS, Records, verify};
//!
//! let mut builder = BatchBuilder::new();
//! builder.push(1_700_000_000_000, Some(b"AA"), Some(b"on time"), [("source", &b"gate"[..])])?;
//! builder.push(1_700_000_000_250, Some(b"UA"), None, NO_HEADERS)?;
//! let batch = builder.finish(Codec::Zstd)?;
//!
//! verify(&batch.payload, &batch.declared(), &Limits::default())?;
//!
//! let size = batch.uncompressed_bytes as usize;
//! let set = Decompressor::new().decompress(batch.codec, &batch.payload, size, BATCH_BYTES_MAX)?;
//! let keys = Records::new(&set, batch.last_offset_delta()).map(|record| record.map(|record| record.key));
//! assert_eq!(keys.collect::<Result<Vec<_>, _>>()?, [Some(&b"AA"[..]), Some(&b"UA"[..])]);
//! # Ok::<(), weir_record::Error>(())
//! ```

mod builder;
mod codec;
mod error;
mod lz4;
mod partitioner;
mod records;
mod transcode;
mod verify;
mod wire;

pub use builder::{Batch, BatchBuilder, NO_HEADERS, Packed};
pub use codec::{Codec, Compressor, Decompressor};
pub use error::{Error, Size};
pub use partitioner::partition_for_key;
pub use records::{Header, Headers, RecordView, Records};
pub use transcode::{Budget, Filled, Source, Stop, Timestamps, Transcoder};
pub use verify::{Declared, Limits, verify, verify_deep};

/// The largest batch there is, in bytes: as stored, and also once decompressed, so that every batch can be stored
/// uncompressed.
pub const BATCH_BYTES_MAX: usize = 64 << 20;

/// The checksum of a batch: CRC-32 (IEEE, as in zlib) over the bytes as they are sent and stored.
pub fn crc(payload: &[u8]) -> u32 {
    crc32fast::hash(payload)
}
