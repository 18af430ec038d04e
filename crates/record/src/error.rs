//! What can be wrong with a batch.

use crate::Codec;

/// What is wrong with a batch, a record or a request to pack one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The bytes are not those that were summed up: changed on the way or on the disk.
    #[error("batch is corrupt: its CRC-32 is {actual:08x}, declared was {declared:08x}")]
    BatchCorrupt {
        /// The CRC that came with the batch.
        declared: u32,
        /// The CRC of the bytes.
        actual: u32,
    },
    /// Something that a batch says about itself cannot be.
    #[error("{what}")]
    Invalid {
        /// What, and what would be right.
        what: String,
    },
    /// The record set is not one.
    #[error("record {record} of the batch is malformed at byte {at}: {what}")]
    Malformed {
        /// Which record, from 0, by its place in the set.
        record: usize,
        /// Where in the decompressed set.
        at: usize,
        /// What is wrong there.
        what: &'static str,
    },
    /// A codec number that no version of Weir has given out.
    #[error("codec {number} is not known: use none, gzip, zstd or lz4")]
    CodecUnsupported {
        /// The number.
        number: i32,
    },
    /// A compression level that the codec does not have.
    #[error("{codec} has no level {level}: use {min} to {max}")]
    LevelUnsupported {
        /// The codec.
        codec: Codec,
        /// The level asked for.
        level: i32,
        /// The lowest.
        min: i32,
        /// The highest.
        max: i32,
    },
    /// The compressed bytes are not in the codec's format.
    #[error("batch is not valid {codec}: {what}")]
    Undecodable {
        /// The codec.
        codec: Codec,
        /// What the decoder says.
        what: String,
    },
    /// The batch says that it decompresses to more than is allowed.
    #[error("batch declares {declared} B once decompressed; the limit is {limit} B: send smaller batches")]
    DecompressionLimit {
        /// The declared size.
        declared: usize,
        /// The limit.
        limit: usize,
    },
    /// The batch does not decompress to what it says. A decompression bomb ends here.
    #[error("batch declares {declared} B once decompressed, but it is {actual}")]
    SizeMismatch {
        /// The declared size.
        declared: usize,
        /// What was found: a size, or that it is more.
        actual: Size,
    },
    /// A record is larger than any batch may be.
    #[error("record of {bytes} B is too large: the limit is {limit} B")]
    RecordTooLarge {
        /// The record's size as packed.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// A batch is larger than allowed.
    #[error(
        "batch of {bytes} B is too large: the limit is {limit} B; send smaller batches or raise batch_bytes_max"
    )]
    BatchTooLarge {
        /// Its size as stored.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
}

/// A size that was found, as far as it was looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Size {
    /// Exactly this many bytes.
    Exactly(usize),
    /// More than declared: the rest was not decompressed.
    More,
}

impl std::fmt::Display for Size {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Exactly(bytes) => write!(f, "{bytes} B"),
            Self::More => f.write_str("more"),
        }
    }
}

impl Error {
    pub(crate) fn invalid(what: impl Into<String>) -> Self {
        Self::Invalid { what: what.into() }
    }
}
