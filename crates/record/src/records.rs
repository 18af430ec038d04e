//! Reading a record set: borrowed views, one after another, nothing allocated.
//!
//! Any order of fields is accepted and unknown fields are passed over, as protobuf has it. What protobuf cannot say
//! is checked here too: offset deltas must rise from record to record, from 0 or above to the last one that the
//! batch declares. Otherwise a batch could claim offsets that belong to its neighbours.

use crate::Error;
use crate::wire::{BYTES, Malformed, Reader, VARINT, bytes_field_len};

/// One record of a batch, borrowed from the decompressed record set.
#[derive(Clone, Copy, Debug)]
pub struct RecordView<'a> {
    /// Its offset less the batch's base offset.
    pub offset_delta: i32,
    /// Its timestamp less the batch's base timestamp, in milliseconds.
    pub timestamp_delta_ms: i64,
    /// The key; an empty key is one.
    pub key: Option<&'a [u8]>,
    /// The value; none is a tombstone.
    pub value: Option<&'a [u8]>,
    headers: Headers<'a>,
}

impl<'a> RecordView<'a> {
    /// The headers, in order.
    pub fn headers(&self) -> Headers<'a> {
        self.headers
    }

    /// The size of all headers as repeated fields with a one-byte tag; 0 without headers.
    #[inline]
    pub(crate) fn headers_wire_bytes(&self) -> usize {
        self.headers.wire_bytes
    }

    /// What the user put in: bytes of key, value and headers, without any framing.
    pub fn payload_bytes(&self) -> usize {
        let headers: usize = self.headers().map(|header| header.key.len() + header.value.len()).sum();
        self.key.map_or(0, <[u8]>::len) + self.value.map_or(0, <[u8]>::len) + headers
    }

    /// Reads one serialised record.
    #[inline]
    fn parse(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let mut record = Self {
            offset_delta: 0,
            timestamp_delta_ms: 0,
            key: None,
            value: None,
            headers: Headers { rest: Reader::new(&[]), count: 0, wire_bytes: 0 },
        };
        let mut reader = Reader::new(bytes);
        loop {
            let before = reader;
            let Some((field, wire_type)) = reader.field()? else { break };
            match (field, wire_type) {
                // int32 keeps the low 32 bits, as every protobuf reader does.
                (1, VARINT) => record.offset_delta = reader.varint()? as i32,
                (2, VARINT) => record.timestamp_delta_ms = reader.varint()?.cast_signed(),
                (3, BYTES) => record.key = Some(reader.bytes()?),
                (4, BYTES) => record.value = Some(reader.bytes()?),
                (5, BYTES) => {
                    let body = reader.bytes()?;
                    Header::parse(body)
                        .map_err(|e| Malformed { what: e.what, left: e.left + reader.left() })?;
                    if record.headers.count == 0 {
                        record.headers.rest = before;
                    }
                    record.headers.count += 1;
                    record.headers.wire_bytes += bytes_field_len(body.len());
                }
                (1..=5, _) => {
                    return Err(Malformed { what: "a field has the wrong wire type", left: before.left() });
                }
                _ => reader.skip(field, wire_type)?,
            }
        }
        Ok(record)
    }
}

/// A name and a value that travel with a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header<'a> {
    /// The name.
    pub key: &'a str,
    /// The value.
    pub value: &'a [u8],
}

impl<'a> Header<'a> {
    fn parse(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let mut header = Self { key: "", value: &[] };
        let mut reader = Reader::new(bytes);
        loop {
            let left = reader.left();
            let Some((field, wire_type)) = reader.field()? else { return Ok(header) };
            match (field, wire_type) {
                (1, BYTES) => {
                    header.key = str::from_utf8(reader.bytes()?)
                        .map_err(|_| Malformed { what: "a header's name is not UTF-8", left })?;
                }
                (2, BYTES) => header.value = reader.bytes()?,
                (1..=2, _) => {
                    return Err(Malformed { what: "a header's field has the wrong wire type", left });
                }
                _ => reader.skip(field, wire_type)?,
            }
        }
    }
}

/// The headers of a record. They were checked when the record was read, so that nothing fails here.
#[derive(Clone, Copy, Debug)]
pub struct Headers<'a> {
    /// The record from its first header on.
    rest: Reader<'a>,
    count: usize,
    wire_bytes: usize,
}

impl<'a> Headers<'a> {
    /// The next header, serialised.
    pub(crate) fn next_body(&mut self) -> Option<&'a [u8]> {
        if self.count == 0 {
            return None;
        }
        while let Ok(Some((field, wire_type))) = self.rest.field() {
            if field == 5 {
                self.count -= 1;
                return self.rest.bytes().ok();
            }
            self.rest.skip(field, wire_type).ok()?;
        }
        None
    }
}

impl<'a> Iterator for Headers<'a> {
    type Item = Header<'a>;

    fn next(&mut self) -> Option<Header<'a>> {
        self.next_body().and_then(|body| Header::parse(body).ok())
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.count, Some(self.count))
    }
}

impl ExactSizeIterator for Headers<'_> {}

/// Where reading of a record set has got to. It does not hold the set, so that it can be kept between two polls.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cursor {
    at: usize,
    index: usize,
    /// The least offset delta that may come next; beyond i32 when none may.
    delta_min: i64,
    delta_max: i32,
}

impl Cursor {
    pub(crate) fn new(last_offset_delta: i32) -> Self {
        Self { at: 0, index: 0, delta_min: 0, delta_max: last_offset_delta }
    }

    /// The byte in the set that comes next.
    pub(crate) fn at(&self) -> usize {
        self.at
    }

    /// The next record of `set`, which must be the same at every call. After an error nothing comes any more.
    #[inline]
    pub(crate) fn next<'a>(&mut self, set: &'a [u8]) -> Option<Result<RecordView<'a>, Error>> {
        let mut reader = Reader::new(set.get(self.at..).unwrap_or_default());
        match Self::step(&mut reader) {
            Ok(None) => {
                self.at = set.len();
                None
            }
            Ok(Some(record)) => {
                if i64::from(record.offset_delta) < self.delta_min || record.offset_delta > self.delta_max {
                    return Some(self.stop(
                        set,
                        self.at,
                        "its offset is not after the last one's and in the batch",
                    ));
                }
                self.at = set.len() - reader.left();
                self.index += 1;
                self.delta_min = i64::from(record.offset_delta) + 1;
                Some(Ok(record))
            }
            Err(e) => Some(self.stop(set, set.len().saturating_sub(e.left), e.what)),
        }
    }

    #[inline]
    fn step<'a>(reader: &mut Reader<'a>) -> Result<Option<RecordView<'a>>, Malformed> {
        loop {
            let left = reader.left();
            match reader.field()? {
                Some((1, BYTES)) => {
                    let body = reader.bytes()?;
                    return RecordView::parse(body)
                        .map(Some)
                        .map_err(|e| Malformed { what: e.what, left: e.left + reader.left() });
                }
                Some((1, _)) => return Err(Malformed { what: "a record has the wrong wire type", left }),
                Some((field, wire_type)) => reader.skip(field, wire_type)?,
                None => return Ok(None),
            }
        }
    }

    #[cold]
    fn stop<T>(&mut self, set: &[u8], at: usize, what: &'static str) -> Result<T, Error> {
        self.at = set.len();
        Err(Error::Malformed { record: self.index, at, what })
    }
}

/// The records of a decompressed record set, one by one. Ends after the first error.
#[derive(Clone, Debug)]
pub struct Records<'a> {
    set: &'a [u8],
    cursor: Cursor,
}

impl<'a> Records<'a> {
    /// Reads `set`, whose last record may have the offset delta `last_offset_delta`, as the batch declares.
    pub fn new(set: &'a [u8], last_offset_delta: i32) -> Self {
        Self { set, cursor: Cursor::new(last_offset_delta) }
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<RecordView<'a>, Error>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        self.cursor.next(self.set)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(set: &[u8]) -> Result<Vec<RecordView<'_>>, Error> {
        Records::new(set, i32::MAX).collect()
    }

    #[test]
    fn fields_come_in_any_order_and_the_last_of_a_kind_counts() {
        // value "v", unknown 9, header {value "1", key "h"}, key "x", key "k", timestamp -1, offset 2
        let set = [
            0x0a, 34, 0x22, 1, b'v', 0x48, 7, 0x2a, 6, 0x12, 1, b'1', 0x0a, 1, b'h', 0x1a, 1, b'x', 0x1a, 1,
            b'k', 0x10, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01, 0x08, 2, 0x48, 1,
        ];
        let records = read(&set).unwrap();
        let [record] = records.as_slice() else { panic!("{records:?}") };
        assert_eq!((record.offset_delta, record.timestamp_delta_ms), (2, -1));
        assert_eq!((record.key, record.value), (Some(&b"k"[..]), Some(&b"v"[..])));
        assert_eq!(record.headers().len(), 1);
        assert_eq!(record.headers().collect::<Vec<_>>(), [Header { key: "h", value: b"1" }]);
        assert_eq!(record.payload_bytes(), 4);
    }

    #[test]
    fn nothing_is_not_the_same_as_empty() {
        let records = read(&[0x0a, 0, 0x0a, 6, 0x08, 1, 0x1a, 0, 0x22, 0]).unwrap();
        let [none, empty] = records.as_slice() else { panic!("{records:?}") };
        assert_eq!((none.key, none.value), (None, None));
        assert_eq!((empty.key, empty.value), (Some(&b""[..]), Some(&b""[..])));
    }

    #[test]
    fn malformed_says_which_record_and_where() {
        // (the set, the record's number, the byte, what)
        let cases: [(&[u8], usize, usize, &str); 8] = [
            (&[0x0a, 5, 0x08], 0, 1, "runs past the end"),
            (&[0x0a, 0, 0x0a, 3, 0x08, 1, 0x1a], 1, 7, "cut off"),
            (&[0x0a, 3, 0x1a, 9, 0], 0, 3, "runs past the end"),
            (&[0x0a, 2, 0x18, 0], 0, 2, "wrong wire type"),
            (&[0x08, 1], 0, 0, "wrong wire type"),
            (&[0x0a, 5, 0x2a, 3, 0x0a, 1, 0xff], 0, 4, "not UTF-8"),
            (&[0x0a, 4, 0x2a, 2, 0x08, 1], 0, 4, "wrong wire type"),
            (&[0x0a, 0, 0x0a, 2, 0x50, 0x80], 1, 5, "cut off"),
        ];
        for (set, record, at, what) in cases {
            match read(set).unwrap_err() {
                Error::Malformed { record: r, at: a, what: w } => {
                    assert_eq!((r, a), (record, at), "{set:x?}: {w}");
                    assert!(w.contains(what), "{set:x?}: {w}");
                }
                other => panic!("{other}"),
            }
        }
    }

    #[test]
    fn offsets_rise_and_stay_in_the_batch() {
        let set = |deltas: &[u8]| deltas.iter().flat_map(|delta| [0x0a, 2, 0x08, *delta]).collect::<Vec<_>>();
        assert_eq!(Records::new(&set(&[0, 3, 7]), 7).filter(Result::is_ok).count(), 3);
        for (deltas, last, bad) in
            [(&[0, 3, 3][..], 9, 2), (&[1, 0], 9, 1), (&[0, 1, 2], 1, 2), (&[0], -1, 0)]
        {
            let set = set(deltas);
            let mut records = Records::new(&set, last);
            assert_eq!(records.by_ref().take(bad).filter(Result::is_ok).count(), bad);
            let error = records.next().unwrap().unwrap_err();
            assert!(error.to_string().contains("its offset"), "{error}");
            assert!(records.next().is_none(), "nothing comes after an error");
        }
        let negative = [0x0a, 11, 0x08, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01];
        assert!(read(&negative).is_err());
    }
}
