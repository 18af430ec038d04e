//! Compression of whole batches: one buffer in, one buffer out, never more memory than was declared and allowed.
//!
//! Contexts are expensive to make and cheap to keep: a [`Compressor`] or [`Decompressor`] belongs to a thread or a
//! task and serves batch after batch.

use std::fmt;
use std::io::{Read, Write};
use std::str::FromStr;

use bytes::Bytes;
use flate2::bufread::MultiGzDecoder;
use flate2::write::GzEncoder;

use crate::{Error, Size, lz4};

/// How the bytes of a batch are compressed. The numbers are on disks; they never change.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
#[repr(u8)]
pub enum Codec {
    /// Not compressed.
    #[default]
    None = 0,
    /// gzip (RFC 1952).
    Gzip = 1,
    /// Zstandard (RFC 8878), one frame.
    Zstd = 2,
    /// The LZ4 frame format, one frame.
    Lz4 = 3,
}

impl Codec {
    /// Every codec.
    pub const ALL: [Self; 4] = [Self::None, Self::Gzip, Self::Zstd, Self::Lz4];

    /// The number on disk.
    pub const fn number(self) -> u8 {
        self as u8
    }

    /// The codec of a number on disk.
    ///
    /// # Errors
    /// [`Error::CodecUnsupported`].
    pub fn from_number(number: u8) -> Result<Self, Error> {
        let known = Self::ALL.into_iter().find(|codec| codec.number() == number);
        known.ok_or(Error::CodecUnsupported { number: number.into() })
    }

    /// The value of the API's enum `weir.v1.Codec`.
    pub const fn to_api(self) -> i32 {
        self as i32 + 1
    }

    /// The codec of a value of the API's enum; unspecified means none.
    ///
    /// # Errors
    /// [`Error::CodecUnsupported`].
    pub fn from_api(value: i32) -> Result<Self, Error> {
        let known = Self::ALL.into_iter().find(|codec| codec.to_api() == value.max(1));
        known.filter(|_| value >= 0).ok_or(Error::CodecUnsupported { number: value })
    }

    /// The level that is used when none is asked for, and the lowest and the highest. Codecs without levels have 0.
    pub fn levels(self) -> (i32, std::ops::RangeInclusive<i32>) {
        match self {
            Self::None | Self::Lz4 => (0, 0..=0),
            Self::Gzip => (6, 0..=9),
            Self::Zstd => (1, zstd::compression_level_range()),
        }
    }

    /// The most bytes that one compressed byte can stand for. A batch that declares more is lying, which is found
    /// before anything is allocated.
    const fn ratio_max(self) -> usize {
        match self {
            Self::None => 1,
            // 258 bytes by a match of two bits.
            Self::Gzip => 1_032,
            // A block of 128 KiB, one byte repeated, in three bytes of header and that byte.
            Self::Zstd => 32_768,
            // Each further byte of a match's length stands for 255.
            Self::Lz4 => 255,
        }
    }
}

impl fmt::Display for Codec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "none",
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
            Self::Lz4 => "lz4",
        })
    }
}

impl FromStr for Codec {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self, Error> {
        let known = Self::ALL.into_iter().find(|codec| codec.to_string() == name);
        known.ok_or_else(|| {
            Error::invalid(format!("codec \"{name}\" is not known: use none, gzip, zstd or lz4"))
        })
    }
}

/// Compresses batches, keeping its contexts and its scratch buffer between them.
#[derive(Default)]
pub struct Compressor {
    zstd: Option<zstd::bulk::Compressor<'static>>,
    lz4: lz4::Encoder,
    scratch: Vec<u8>,
}

impl fmt::Debug for Compressor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Compressor").finish_non_exhaustive()
    }
}

impl Compressor {
    /// A compressor that has allocated nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Compresses `input` at `level`, or at the codec's default. The codec returned is [`Codec::None`], with the
    /// input itself, when that is what was asked for or when compression would not have made it smaller.
    ///
    /// # Errors
    /// [`Error::LevelUnsupported`].
    pub fn compress(
        &mut self,
        codec: Codec,
        level: Option<i32>,
        input: &Bytes,
    ) -> Result<(Codec, Bytes), Error> {
        let (default, levels) = codec.levels();
        let level = level.unwrap_or(default);
        if !levels.contains(&level) {
            return Err(Error::LevelUnsupported { codec, level, min: *levels.start(), max: *levels.end() });
        }
        let compressed = match codec {
            Codec::None => return Ok((Codec::None, input.clone())),
            Codec::Gzip => self.gzip(level, input),
            Codec::Zstd => self.zstd(level, input),
            Codec::Lz4 => Ok(self.lz4.encode(input, &mut self.scratch)),
        };
        // Nothing in the input can make an encoder fail; if memory ran out for its context, the batch is as good
        // uncompressed.
        Ok(match compressed {
            // The scratch buffer is as large as the worst case; what is kept is as large as it must be.
            Ok(bytes) if bytes.len() < input.len() => (codec, Bytes::copy_from_slice(bytes)),
            _ => (Codec::None, input.clone()),
        })
    }

    fn gzip(&mut self, level: i32, input: &[u8]) -> std::io::Result<&[u8]> {
        self.scratch.clear();
        let level = flate2::Compression::new(level.unsigned_abs());
        let mut encoder = GzEncoder::new(&mut self.scratch, level);
        encoder.write_all(input)?;
        encoder.finish().map(|scratch| scratch.as_slice())
    }

    fn zstd(&mut self, level: i32, input: &[u8]) -> std::io::Result<&[u8]> {
        let encoder = match &mut self.zstd {
            Some(encoder) => encoder,
            none => none.insert(zstd::bulk::Compressor::new(level)?),
        };
        encoder.set_compression_level(level)?;
        self.scratch.clear();
        self.scratch.reserve(zstd::compress_bound(input.len()));
        encoder.compress_to_buffer(input, &mut self.scratch)?;
        Ok(&self.scratch)
    }
}

/// Decompresses batches, keeping its contexts between them.
#[derive(Default)]
pub struct Decompressor {
    zstd: Option<zstd::bulk::Decompressor<'static>>,
}

impl fmt::Debug for Decompressor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Decompressor").finish_non_exhaustive()
    }
}

impl Decompressor {
    /// A decompressor that has allocated nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Decompresses `payload` to exactly `declared` bytes, of which at most `limit` are allowed. Uncompressed
    /// payloads are returned as they are, without a copy. It never allocates more than `declared`, and a fixed
    /// amount for the codec's own state.
    ///
    /// # Errors
    /// [`Error::DecompressionLimit`] and [`Error::Invalid`] before anything is allocated, [`Error::SizeMismatch`] and
    /// [`Error::Undecodable`] afterwards.
    pub fn decompress(
        &mut self,
        codec: Codec,
        payload: &Bytes,
        declared: usize,
        limit: usize,
    ) -> Result<Bytes, Error> {
        check_declared(codec, payload.len(), declared, limit)?;
        let set = match codec {
            Codec::None => return Ok(payload.clone()),
            Codec::Gzip => gunzip(payload, declared)?,
            Codec::Zstd => self.unzstd(payload, declared)?,
            Codec::Lz4 => lz4::decode(payload, declared)?,
        };
        if set.len() != declared {
            return Err(Error::SizeMismatch { declared, actual: Size::Exactly(set.len()) });
        }
        Ok(set.into())
    }

    fn unzstd(&mut self, payload: &[u8], declared: usize) -> Result<Vec<u8>, Error> {
        let undecodable = |what: String| Error::Undecodable { codec: Codec::Zstd, what };
        // The decoder would take several frames one after another; other languages' stop after the first.
        let frame = zstd::zstd_safe::find_frame_compressed_size(payload)
            .map_err(|code| undecodable(zstd::zstd_safe::get_error_name(code).to_lowercase()))?;
        if frame != payload.len() {
            return Err(undecodable("more than one frame".to_owned()));
        }
        let decoder = match &mut self.zstd {
            Some(decoder) => decoder,
            none => none.insert(zstd::bulk::Decompressor::new().map_err(|e| undecodable(e.to_string()))?),
        };
        // One shot into a buffer of the declared size: the decoder keeps no window of its own.
        let mut set = Vec::with_capacity(declared);
        match decoder.decompress_to_buffer(payload, &mut set) {
            Ok(_) => Ok(set),
            Err(e) => match e.to_string().as_str() {
                "Destination buffer is too small" => {
                    Err(Error::SizeMismatch { declared, actual: Size::More })
                }
                other => Err(undecodable(other.to_lowercase())),
            },
        }
    }
}

fn gunzip(payload: &[u8], declared: usize) -> Result<Vec<u8>, Error> {
    let undecodable = |e: std::io::Error| Error::Undecodable { codec: Codec::Gzip, what: e.to_string() };
    let mut set = Vec::with_capacity(declared);
    let mut decoder = MultiGzDecoder::new(payload);
    decoder.by_ref().take(declared as u64).read_to_end(&mut set).map_err(undecodable)?;
    // One byte more tells too much from enough, and makes the decoder read on to the end, where the checksum is.
    match decoder.read(&mut [0]).map_err(undecodable)? {
        0 => Ok(set),
        _ => Err(Error::SizeMismatch { declared, actual: Size::More }),
    }
}

/// What can be said about a declared size without decompressing.
pub(crate) fn check_declared(
    codec: Codec,
    payload: usize,
    declared: usize,
    limit: usize,
) -> Result<(), Error> {
    if declared > limit {
        return Err(Error::DecompressionLimit { declared, limit });
    }
    if codec == Codec::None && declared != payload {
        return Err(Error::SizeMismatch { declared, actual: Size::Exactly(payload) });
    }
    if declared > payload.saturating_mul(codec.ratio_max()) {
        return Err(Error::invalid(format!(
            "batch declares {declared} B once decompressed, which {codec} cannot make of {payload} B"
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_names_are_for_ever() {
        let expected = [("none", 0, 1), ("gzip", 1, 2), ("zstd", 2, 3), ("lz4", 3, 4)];
        for (codec, (name, number, api)) in Codec::ALL.into_iter().zip(expected) {
            assert_eq!((codec.to_string().as_str(), codec.number(), codec.to_api()), (name, number, api));
            assert_eq!(name.parse(), Ok(codec));
            assert_eq!(Codec::from_number(number), Ok(codec));
            assert_eq!(Codec::from_api(api), Ok(codec));
        }
        assert_eq!(Codec::from_api(0), Ok(Codec::None));
        for number in [-1, 5, i32::MAX, i32::MIN] {
            assert_eq!(Codec::from_api(number), Err(Error::CodecUnsupported { number }));
        }
        assert_eq!(Codec::from_number(4), Err(Error::CodecUnsupported { number: 4 }));
        assert!("snappy".parse::<Codec>().is_err());
    }

    #[test]
    fn levels_are_checked() {
        let mut compressor = Compressor::new();
        let input = Bytes::from(vec![1; 1_000]);
        for (codec, level) in [(Codec::Gzip, 10), (Codec::Gzip, -1), (Codec::Zstd, 23), (Codec::Lz4, 1)] {
            let error = compressor.compress(codec, Some(level), &input).unwrap_err();
            assert!(matches!(error, Error::LevelUnsupported { .. }), "{error}");
        }
        for (codec, level) in [(Codec::Gzip, 0), (Codec::Gzip, 9), (Codec::Zstd, -5), (Codec::Zstd, 19)] {
            let (used, bytes) = compressor.compress(codec, Some(level), &input).unwrap();
            assert_eq!(used == codec, bytes.len() < input.len());
        }
    }

    #[test]
    fn what_does_not_get_smaller_stays_as_it_is() {
        let mut compressor = Compressor::new();
        for codec in Codec::ALL {
            for input in [&b""[..], b"x", b"not again"] {
                let input = Bytes::from_static(input);
                let (used, payload) = compressor.compress(codec, None, &input).unwrap();
                assert_eq!((used, &payload), (Codec::None, &input));
            }
        }
    }
}
