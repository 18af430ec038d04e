//! The LZ4 frame format around the block codec, for whole buffers.
//!
//! A streaming codec keeps up to 12 MiB of its own, because a frame may say that its blocks are of 4 MiB, and copies
//! every byte once more. Here a frame is decoded into one buffer of the declared size, which is also the window that
//! linked blocks look back into, and encoded out of the input itself. Stricter than streams are: one frame, with its
//! end mark, and nothing after it. No dictionaries, no legacy frames. (The format: lz4_Frame_format.md 1.6.4.)

use lz4_flex::block::{
    CompressTable, DecompressError, compress_into_with_table, decompress_into_with_dict,
    get_maximum_output_size,
};
use twox_hash::XxHash32;

use crate::{Codec, Error, Size};

const MAGIC: [u8; 4] = 0x184D_2204_u32.to_le_bytes();
/// Version 1 of the format, in the two high bits.
const VERSION: u8 = 0x40;
const INDEPENDENT_BLOCKS: u8 = 0x20;
const BLOCK_CHECKSUMS: u8 = 0x10;
const CONTENT_SIZE: u8 = 0x08;
const CONTENT_CHECKSUM: u8 = 0x04;
const RESERVED: u8 = 0x02;
const DICTIONARY: u8 = 0x01;
/// In a block's size: it is stored as it is.
const UNCOMPRESSED: u32 = 1 << 31;
const END_MARK: u32 = 0;
/// How far back a linked block may look.
const WINDOW: usize = 64 << 10;

/// The largest block of a frame, by its code in the descriptor.
const fn block_bytes(code: u8) -> usize {
    // 4: 64 KiB, 5: 256 KiB, 6: 1 MiB, 7: 4 MiB
    1 << (8 + 2 * code)
}

/// The byte that ends a frame's descriptor.
fn descriptor_check(descriptor: &[u8]) -> u8 {
    (XxHash32::oneshot(0, descriptor) >> 8) as u8
}

/// Encodes buffers, keeping its table between them.
#[derive(Default)]
pub(crate) struct Encoder {
    table: CompressTable,
}

impl Encoder {
    /// Encodes `input` as one frame into `scratch`, which only ever grows, and returns the frame.
    pub(crate) fn encode<'s>(&mut self, input: &[u8], scratch: &'s mut Vec<u8>) -> &'s [u8] {
        let code = (4..7).find(|code| input.len() <= block_bytes(*code)).unwrap_or(7);
        let block_max = block_bytes(code);
        let blocks = input.len().div_ceil(block_max);
        let needed = 32 + blocks * (4 + get_maximum_output_size(block_max.min(input.len())));
        if scratch.len() < needed {
            scratch.resize(needed, 0);
        }

        let mut out = Out { buffer: scratch, at: 0 };
        let mut descriptor = [0; 10];
        let size = (input.len() as u64).to_le_bytes();
        let fields = [VERSION | INDEPENDENT_BLOCKS | CONTENT_SIZE, code << 4];
        for (to, from) in descriptor.iter_mut().zip(fields.iter().chain(&size)) {
            *to = *from;
        }
        out.put(&MAGIC);
        out.put(&descriptor);
        out.put(&[descriptor_check(&descriptor)]);
        for block in input.chunks(block_max) {
            let written =
                compress_into_with_table(block, out.after(4), &mut self.table).unwrap_or(usize::MAX);
            if written < block.len() {
                out.put(&(written as u32).to_le_bytes());
                out.at += written;
            } else {
                out.put(&(block.len() as u32 | UNCOMPRESSED).to_le_bytes());
                out.put(block);
            }
        }
        out.put(&END_MARK.to_le_bytes());
        let end = out.at;
        scratch.get(..end).unwrap_or_default()
    }
}

/// A buffer that was made large enough, and how far it is filled.
struct Out<'b> {
    buffer: &'b mut [u8],
    at: usize,
}

impl Out<'_> {
    fn put(&mut self, bytes: &[u8]) {
        if let Some(to) = self.buffer.get_mut(self.at..self.at + bytes.len()) {
            to.copy_from_slice(bytes);
        }
        self.at += bytes.len();
    }

    /// The rest of the buffer, `skip` bytes on.
    fn after(&mut self, skip: usize) -> &mut [u8] {
        self.buffer.get_mut(self.at + skip..).unwrap_or_default()
    }
}

/// Decodes one frame of at most `declared` bytes.
pub(crate) fn decode(frame: &[u8], declared: usize) -> Result<Vec<u8>, Error> {
    let mut input = Input { rest: frame };
    let descriptor = Descriptor::read(&mut input)?;
    if let Some(size) = descriptor.content_size.filter(|size| *size != declared as u64) {
        let actual = Size::Exactly(usize::try_from(size).unwrap_or(usize::MAX));
        return Err(Error::SizeMismatch { declared, actual });
    }

    let mut set = vec![0; declared];
    let mut filled = 0;
    loop {
        let size = input.u32()?;
        if size == END_MARK {
            break;
        }
        let len = (size & !UNCOMPRESSED) as usize;
        if len > descriptor.block_max {
            return Err(undecodable("a block is larger than the frame allows"));
        }
        let block = input.take(len)?;
        if descriptor.block_checksums && input.u32()? != XxHash32::oneshot(0, block) {
            return Err(undecodable("a block's checksum is wrong"));
        }
        let (done, todo) = set.split_at_mut(filled);
        filled += if size & UNCOMPRESSED == 0 {
            let window_at = if descriptor.linked { done.len().saturating_sub(WINDOW) } else { done.len() };
            let window = done.get(window_at..).unwrap_or_default();
            let room = todo.len().min(descriptor.block_max);
            let cramped = room < descriptor.block_max;
            decompress_into_with_dict(block, todo.get_mut(..room).unwrap_or_default(), window).map_err(
                |e| match e {
                    DecompressError::OutputTooSmall { .. } if cramped => {
                        Error::SizeMismatch { declared, actual: Size::More }
                    }
                    other => Error::Undecodable { codec: Codec::Lz4, what: other.to_string() },
                },
            )?
        } else {
            let to = todo.get_mut(..len).ok_or(Error::SizeMismatch { declared, actual: Size::More })?;
            to.copy_from_slice(block);
            len
        };
    }
    set.truncate(filled);
    if descriptor.content_checksum && input.u32()? != XxHash32::oneshot(0, &set) {
        return Err(undecodable("the content's checksum is wrong"));
    }
    if !input.rest.is_empty() {
        return Err(undecodable("there are bytes after the frame"));
    }
    Ok(set)
}

/// What a frame says about itself.
struct Descriptor {
    linked: bool,
    block_checksums: bool,
    content_checksum: bool,
    content_size: Option<u64>,
    block_max: usize,
}

impl Descriptor {
    fn read(input: &mut Input<'_>) -> Result<Self, Error> {
        if input.take(4)? != MAGIC {
            return Err(undecodable("it does not begin as a frame does"));
        }
        let start = input.rest;
        let &[flags, sizes] = input.take_array()?;
        if flags & (0xc0 | RESERVED) != VERSION || sizes & 0x8f != 0 {
            return Err(undecodable("the frame's version is not known"));
        }
        if flags & DICTIONARY != 0 {
            return Err(undecodable("it needs a dictionary"));
        }
        let code = sizes >> 4;
        if code < 4 {
            return Err(undecodable("the frame's block size is not known"));
        }
        let content_size = match flags & CONTENT_SIZE {
            0 => None,
            _ => Some(u64::from_le_bytes(*input.take_array()?)),
        };
        let descriptor = start.get(..start.len() - input.rest.len()).unwrap_or_default();
        if *input.take_array::<1>()? != [descriptor_check(descriptor)] {
            return Err(undecodable("the frame's header has a wrong checksum"));
        }
        Ok(Self {
            linked: flags & INDEPENDENT_BLOCKS == 0,
            block_checksums: flags & BLOCK_CHECKSUMS != 0,
            content_checksum: flags & CONTENT_CHECKSUM != 0,
            content_size,
            block_max: block_bytes(code),
        })
    }
}

fn undecodable(what: &str) -> Error {
    Error::Undecodable { codec: Codec::Lz4, what: what.to_owned() }
}

/// The frame as far as it was not read yet.
struct Input<'a> {
    rest: &'a [u8],
}

impl<'a> Input<'a> {
    fn take(&mut self, bytes: usize) -> Result<&'a [u8], Error> {
        let (taken, rest) =
            self.rest.split_at_checked(bytes).ok_or_else(|| undecodable("the frame is cut off"))?;
        self.rest = rest;
        Ok(taken)
    }

    fn take_array<const N: usize>(&mut self) -> Result<&'a [u8; N], Error> {
        let (taken, rest) =
            self.rest.split_first_chunk().ok_or_else(|| undecodable("the frame is cut off"))?;
        self.rest = rest;
        Ok(taken)
    }

    fn u32(&mut self) -> Result<u32, Error> {
        self.take_array().map(|bytes| u32::from_le_bytes(*bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encode(input: &[u8]) -> Vec<u8> {
        Encoder::default().encode(input, &mut Vec::new()).to_vec()
    }

    #[test]
    fn every_block_size_comes_back() {
        // One byte on both sides of each block size, and several blocks of the largest.
        for len in [0, 1, 12, 13, 65_535, 65_536, 65_537, 262_144, 262_145, 1 << 20, (1 << 20) + 1, 9 << 20] {
            let input: Vec<u8> = (0..len).map(|i| (i % 251) as u8).collect();
            let frame = encode(&input);
            assert!(decode(&frame, len).unwrap() == input, "{len}");
            assert!(len < 1_000 || frame.len() < len / 8, "{len}: {}", frame.len());
        }
    }

    #[test]
    fn what_cannot_be_compressed_is_stored_as_it_is() {
        let mut state = 1_u32;
        let noise: Vec<u8> = std::iter::repeat_with(|| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        })
        .take(100_000)
        .collect();
        let frame = encode(&noise);
        assert_eq!(frame.len(), noise.len() + 15 + 4 + 4);
        assert_eq!(decode(&frame, noise.len()).unwrap(), noise);
    }

    #[test]
    fn a_frame_is_whole_or_refused() {
        let input = b"abcabcabcabcabcabcabcabcabcabcabcabcabc".repeat(3);
        let frame = encode(&input);
        for cut in 0..frame.len() {
            assert!(decode(&frame[..cut], input.len()).is_err(), "{cut}");
        }
        let mut longer = frame.clone();
        longer.push(0);
        assert!(decode(&longer, input.len()).unwrap_err().to_string().contains("after the frame"));
        assert!(matches!(
            decode(&frame, input.len() - 1),
            Err(Error::SizeMismatch { actual: Size::Exactly(117), .. })
        ));
    }

    #[test]
    fn headers_that_are_not_understood_are_refused() {
        let frame = encode(&[7; 100]);
        // (byte, value, what is said)
        let cases = [
            (0, 0x05, "begin"),
            (4, 0x28, "version"),
            (4, 0x6a, "version"),
            (4, 0x69, "dictionary"),
            (5, 0x30, "block size"),
            (5, 0xc0, "version"),
            (5, 0x50, "checksum"),
            (14, frame[14] ^ 1, "checksum"),
        ];
        for (at, value, what) in cases {
            let mut frame = frame.clone();
            frame[at] = value;
            let error = decode(&frame, 100).unwrap_err().to_string();
            assert!(error.contains(what), "{at}: {error}");
        }
    }
}
