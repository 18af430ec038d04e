//! Reading a record set into slices that keep it alive: for consumers that hand records on. A slice pins the whole
//! decompressed batch; whoever keeps few records for long copies them.

use bytes::Bytes;

use crate::records::Cursor;
use crate::{Error, RecordView};

/// One record of a batch, as slices of the decompressed record set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SharedRecord {
    /// Its offset less the batch's base offset.
    pub offset_delta: i32,
    /// Its timestamp less the batch's base timestamp, in milliseconds.
    pub timestamp_delta_ms: i64,
    /// The key; an empty key is one.
    pub key: Option<Bytes>,
    /// The value; none is a tombstone.
    pub value: Option<Bytes>,
    /// Names and values of the headers, in order. Without headers nothing is allocated.
    pub headers: Vec<(String, Bytes)>,
}

impl RecordView<'_> {
    /// The same record as slices of `set`, the record set that it was read from.
    pub fn to_shared(&self, set: &Bytes) -> SharedRecord {
        // Every slice of a view points into the set it was read from, which is what slice_ref asks for.
        let slice = |bytes: &[u8]| set.slice_ref(bytes);
        SharedRecord {
            offset_delta: self.offset_delta,
            timestamp_delta_ms: self.timestamp_delta_ms,
            key: self.key.map(slice),
            value: self.value.map(slice),
            headers: self.headers().map(|header| (header.key.to_owned(), slice(header.value))).collect(),
        }
    }
}

/// Like [`Records`](crate::Records), owning the set and yielding slices of it.
#[derive(Clone, Debug)]
pub struct SharedRecords {
    set: Bytes,
    cursor: Cursor,
}

impl SharedRecords {
    /// Reads `set`, whose last record may have the offset delta `last_offset_delta`, as the batch declares.
    pub fn new(set: Bytes, last_offset_delta: i32) -> Self {
        Self { set, cursor: Cursor::new(last_offset_delta) }
    }

    /// The next record, borrowed: for those who keep the set and its position but need no slices.
    pub fn next_view(&mut self) -> Option<Result<RecordView<'_>, Error>> {
        self.cursor.next(&self.set)
    }
}

impl Iterator for SharedRecords {
    type Item = Result<SharedRecord, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        Some(self.cursor.next(&self.set)?.map(|view| view.to_shared(&self.set)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{BatchBuilder, NO_HEADERS};

    #[test]
    fn slices_point_into_the_set() {
        let mut builder = BatchBuilder::new();
        builder.push(5, Some(b"key"), Some(b"value"), [("h", &b"x"[..])]).unwrap();
        builder.push(6, None, None, NO_HEADERS).unwrap();
        builder.push(6, Some(b""), Some(b""), NO_HEADERS).unwrap();
        let set = builder.take().unwrap().into_set();
        let records: Vec<_> = SharedRecords::new(set.clone(), 2).map(Result::unwrap).collect();
        assert_eq!(records[0].key.as_deref(), Some(&b"key"[..]));
        assert_eq!(records[0].headers, [("h".to_owned(), Bytes::from_static(b"x"))]);
        assert_eq!((&records[1].key, &records[1].value), (&None, &None));
        assert_eq!((&records[2].key, &records[2].value), (&Some(Bytes::new()), &Some(Bytes::new())));
        let value = records[0].value.as_ref().unwrap();
        assert!(set.as_ptr_range().contains(&value.as_ptr()), "no copy is made");
    }
}
