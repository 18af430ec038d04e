//! The part of protobuf's wire format that records need: varints, tags, length-delimited fields, and skipping what
//! is not known. Not a general implementation: no groups are written, no fixed-width fields are read.
//!
//! Hot path: every record passes here twice on its way through a client, never through a broker's append.

use bytes::BufMut;

/// Wire types: the low three bits of a tag.
pub(crate) const VARINT: u8 = 0;
pub(crate) const FIXED64: u8 = 1;
pub(crate) const BYTES: u8 = 2;
pub(crate) const GROUP_START: u8 = 3;
pub(crate) const GROUP_END: u8 = 4;
pub(crate) const FIXED32: u8 = 5;

/// How deep unknown groups may be nested before they are called malformed.
const GROUP_DEPTH_MAX: usize = 100;

/// The size of a varint, 1 to 10 bytes.
#[inline]
pub(crate) const fn varint_len(value: u64) -> usize {
    // The number of significant bits, at least one, divided by seven and rounded up; 9/64 is near enough to 1/7 for
    // 64 of them, and is no division.
    ((64 - (value | 1).leading_zeros() as usize) * 9 + 64) / 64
}

/// The size of a length-delimited field with a one-byte tag.
#[inline]
pub(crate) const fn bytes_field_len(len: usize) -> usize {
    1 + varint_len(len as u64) + len
}

/// The size of a varint field with a one-byte tag; zero is not written.
#[inline]
pub(crate) const fn varint_field_len(value: u64) -> usize {
    if value == 0 { 0 } else { 1 + varint_len(value) }
}

/// A signed number as protobuf's int32 and int64 write it: negative ones take ten bytes.
#[inline]
pub(crate) const fn int(value: i64) -> u64 {
    value.cast_unsigned()
}

/// A field's tag.
#[inline]
pub(crate) const fn tag(field: u32, wire_type: u8) -> u64 {
    ((field as u64) << 3) | wire_type as u64
}

/// Numbers on their way into a buffer, which takes them together: each piece it takes costs a look at its room.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Piece {
    bytes: [u8; Self::BYTES],
    len: usize,
}

impl Piece {
    /// Room for two fields of a number and the beginning of one of bytes, each as long as they get.
    const BYTES: usize = 64;

    #[inline]
    pub(crate) fn new() -> Self {
        Self { bytes: [0; Self::BYTES], len: 0 }
    }

    /// Appends a varint. Six have room, whatever they are.
    #[inline]
    pub(crate) fn varint(&mut self, mut value: u64) -> &mut Self {
        let free = self.bytes.get_mut(self.len..).unwrap_or_default();
        debug_assert!(free.len() >= 10, "a piece is put before it is full");
        let mut len = 1;
        for place in free {
            if value < 0x80 {
                *place = value as u8;
                break;
            }
            *place = (value as u8) | 0x80;
            value >>= 7;
            len += 1;
        }
        self.len += len;
        self
    }

    /// Appends a varint field; zero, the default, is left out as proto3 has it.
    #[inline]
    pub(crate) fn varint_field(&mut self, field: u32, value: u64) -> &mut Self {
        if value != 0 {
            self.varint(tag(field, VARINT)).varint(value);
        }
        self
    }

    /// Puts what there is into the buffer.
    #[inline]
    pub(crate) fn put(&mut self, buf: &mut impl BufMut) {
        buf.put_slice(self.bytes.get(..self.len).unwrap_or_default());
        self.len = 0;
    }

    /// Puts what there is and a length-delimited field.
    #[inline]
    pub(crate) fn put_with_bytes_field(&mut self, buf: &mut impl BufMut, field: u32, bytes: &[u8]) {
        self.varint(tag(field, BYTES)).varint(bytes.len() as u64).put(buf);
        buf.put_slice(bytes);
    }
}

/// Appends a varint.
#[inline]
pub(crate) fn put_varint(buf: &mut impl BufMut, value: u64) {
    if value < 0x80 { buf.put_u8(value as u8) } else { Piece::new().varint(value).put(buf) }
}

/// Appends a length-delimited field.
#[inline]
pub(crate) fn put_bytes_field(buf: &mut impl BufMut, field: u32, bytes: &[u8]) {
    Piece::new().put_with_bytes_field(buf, field, bytes);
}

/// Appends a varint field; zero, the default, is left out as proto3 has it.
#[inline]
pub(crate) fn put_varint_field(buf: &mut impl BufMut, field: u32, value: u64) {
    if value != 0 {
        Piece::new().varint_field(field, value).put(buf);
    }
}

/// What is wrong with a message, and how many bytes before the end of what was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Malformed {
    /// What.
    pub(crate) what: &'static str,
    /// Bytes that were left where it was found, to be subtracted from the whole.
    pub(crate) left: usize,
}

/// Reads a message from its front. Never reads past its end, never allocates.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// How many bytes are left.
    #[inline]
    pub(crate) fn left(&self) -> usize {
        self.rest.len()
    }

    #[cold]
    fn malformed(&self, what: &'static str) -> Malformed {
        Malformed { what, left: self.rest.len() }
    }

    /// The next varint.
    #[inline]
    pub(crate) fn varint(&mut self) -> Result<u64, Malformed> {
        match self.rest.split_first() {
            Some((&byte, rest)) if byte < 0x80 => {
                self.rest = rest;
                Ok(u64::from(byte))
            }
            Some((&low, [high, rest @ ..])) if *high < 0x80 => {
                self.rest = rest;
                Ok(u64::from(low & 0x7f) | (u64::from(*high) << 7))
            }
            _ => self.long_varint(),
        }
    }

    fn long_varint(&mut self) -> Result<u64, Malformed> {
        let mut value = 0_u64;
        let mut rest = self.rest;
        for shift in (0..64).step_by(7) {
            let Some((&byte, tail)) = rest.split_first() else {
                return Err(self.malformed("a number is cut off"));
            };
            rest = tail;
            // The tenth byte has room for the one bit that is left of 64.
            if shift == 63 && byte > 1 {
                break;
            }
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                self.rest = rest;
                return Ok(value);
            }
        }
        Err(self.malformed("a number has more than 64 bits"))
    }

    /// The next field's number and wire type; `None` at the end of the message.
    #[inline]
    pub(crate) fn field(&mut self) -> Result<Option<(u32, u8)>, Malformed> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let start = *self;
        let tag = self.varint()?;
        let wire_type = (tag & 7) as u8;
        match u32::try_from(tag) {
            Ok(tag) if tag >= 8 && wire_type <= FIXED32 => Ok(Some((tag >> 3, wire_type))),
            _ => Err(start.malformed("a field's tag is not one")),
        }
    }

    /// The next length-delimited value.
    #[inline]
    pub(crate) fn bytes(&mut self) -> Result<&'a [u8], Malformed> {
        let start = *self;
        let len = self.varint()?;
        let taken = usize::try_from(len).ok().and_then(|len| self.rest.split_at_checked(len));
        let (bytes, rest) = taken.ok_or_else(|| start.malformed("a field runs past the end"))?;
        self.rest = rest;
        Ok(bytes)
    }

    /// Passes over the value of a field that is not known.
    pub(crate) fn skip(&mut self, field: u32, wire_type: u8) -> Result<(), Malformed> {
        self.skip_nested(field, wire_type, 0)
    }

    fn skip_nested(&mut self, field: u32, wire_type: u8, depth: usize) -> Result<(), Malformed> {
        match wire_type {
            VARINT => self.varint().map(drop),
            BYTES => self.bytes().map(drop),
            FIXED32 => self.pass(4),
            FIXED64 => self.pass(8),
            GROUP_START if depth < GROUP_DEPTH_MAX => loop {
                match self.field()? {
                    Some((end, GROUP_END)) if end == field => return Ok(()),
                    Some((inner, inner_type)) => self.skip_nested(inner, inner_type, depth + 1)?,
                    None => return Err(self.malformed("a group is cut off")),
                }
            },
            GROUP_START => Err(self.malformed("groups are nested too deep")),
            _ => Err(self.malformed("a group ends that has not begun")),
        }
    }

    fn pass(&mut self, bytes: usize) -> Result<(), Malformed> {
        let (_, rest) =
            self.rest.split_at_checked(bytes).ok_or_else(|| self.malformed("a field runs past the end"))?;
        self.rest = rest;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_varint_is_as_long_as_it_says() {
        let mut values = vec![0, u64::MAX];
        for bits in 0..64 {
            values.extend([1 << bits, (1 << bits) - 1, (1_u64 << bits) | 1]);
        }
        for value in values {
            let mut buf = Vec::new();
            put_varint(&mut buf, value);
            assert_eq!(buf.len(), varint_len(value), "{value}");
            let mut reader = Reader::new(&buf);
            assert_eq!(reader.varint(), Ok(value));
            assert_eq!(reader.left(), 0);
            for cut in 0..buf.len() {
                assert_eq!(Reader::new(&buf[..cut]).varint().unwrap_err().what, "a number is cut off");
            }
        }
    }

    #[test]
    fn a_varint_holds_64_bits_and_no_more() {
        let mut too_long = [0xff; 10];
        too_long[9] = 2;
        assert_eq!(Reader::new(&too_long).varint().unwrap_err().what, "a number has more than 64 bits");
        too_long[9] = 0x80;
        assert_eq!(Reader::new(&too_long).varint().unwrap_err().what, "a number has more than 64 bits");
        // Not the shortest spelling, and still a number.
        assert_eq!(Reader::new(&[0x81, 0x80, 0x00]).varint(), Ok(1));
    }

    #[test]
    fn unknown_fields_are_passed_over_whatever_they_are() {
        let mut buf = Vec::new();
        put_varint_field(&mut buf, 90, 7);
        put_bytes_field(&mut buf, 91, b"abc");
        buf.extend([tag(1, FIXED64) as u8, 1, 2, 3, 4, 5, 6, 7, 8]);
        buf.extend([tag(2, FIXED32) as u8, 1, 2, 3, 4]);
        buf.extend([tag(3, GROUP_START) as u8, tag(4, GROUP_START) as u8, tag(1, VARINT) as u8, 9]);
        buf.extend([tag(4, GROUP_END) as u8, tag(3, GROUP_END) as u8]);
        put_varint_field(&mut buf, 15, 1);
        let mut reader = Reader::new(&buf);
        let mut seen = Vec::new();
        while let Some((field, wire_type)) = reader.field().unwrap() {
            seen.push(field);
            reader.skip(field, wire_type).unwrap();
        }
        assert_eq!(seen, [90, 91, 1, 2, 3, 15]);
    }

    #[test]
    fn what_cannot_be_passed_over_is_refused() {
        let deep = [tag(1, GROUP_START) as u8; 200];
        let cases: [(&[u8], &str); 6] = [
            (&[0x00], "tag"),
            (&[0x0e], "tag"),
            (&[0x0c], "not begun"),
            (&[0x0b, 0x14], "not begun"),
            (&[0x0b], "cut off"),
            (&deep, "too deep"),
        ];
        for (bytes, expected) in cases {
            let mut reader = Reader::new(bytes);
            let outcome = reader.field().and_then(|field| {
                let (field, wire_type) = field.unwrap();
                reader.skip(field, wire_type)
            });
            let what = outcome.unwrap_err().what;
            assert!(what.contains(expected), "{bytes:x?}: {what}");
        }
    }
}
