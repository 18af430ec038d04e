//! From a stored batch to the messages that plain readers get, without a struct between: each `BatchRecord` becomes
//! the bytes of a `StoredRecord`, written as an element of a repeated field into the reply that is being made.
//!
//! Hot path of `Consume` and of `Fetch` for plain records. It works in portions, so that nothing runs long on an
//! executor, and keeps its place in between.

use bytes::{BufMut, Bytes};
use weir_types::Offset;

use crate::records::Cursor;
use crate::wire::{
    BYTES, Piece, bytes_field_len, int, put_bytes_field, put_varint_field, tag, varint_field_len, varint_len,
};
use crate::{Error, RecordView};

/// How much of a record set one portion reads at most, whatever it writes: about the work of a millisecond, when
/// everything is passed over.
const READ_BYTES_MAX: usize = 1 << 20;

/// Where a record set was stored, and how its records are to be shown.
#[derive(Clone, Copy, Debug)]
pub struct Source<'a> {
    /// The topic's name.
    pub topic: &'a str,
    /// The partition's number.
    pub partition: i32,
    /// The batch's first offset.
    pub base_offset: Offset,
    /// The batch's last offset less its first.
    pub last_offset_delta: i32,
    /// The leader epoch the batch was written in.
    pub leader_epoch: i32,
    /// The records' timestamps.
    pub timestamps: Timestamps,
    /// Shows keys and values that are UTF-8, and not empty, as text.
    pub text: bool,
}

/// Whose clock the timestamps of a batch are from, milliseconds since 1970 UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Timestamps {
    /// The producer's: deltas are added to this.
    Create {
        /// The batch's base timestamp.
        base_ms: i64,
    },
    /// The leader's: every record has this one.
    Append {
        /// When the batch was appended.
        ms: i64,
    },
}

/// How much may be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// At most as many records.
    pub records: usize,
    /// At most as many bytes, framing included.
    pub bytes: usize,
}

/// What was written, and how it goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Filled {
    /// Records written.
    pub records: usize,
    /// Bytes written.
    pub bytes: usize,
    /// Where reading goes on: past every record written or passed over.
    pub next_offset: Offset,
    /// The timestamp of the last record written.
    pub last_timestamp_ms: Option<i64>,
    /// Why it stopped.
    pub stop: Stop,
}

/// Why a portion ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// The batch is through.
    End,
    /// As many records as the budget allows.
    Records,
    /// The next record needs this many bytes, more than are left.
    Bytes {
        /// With framing.
        needed: usize,
    },
    /// It was at work for long enough: call again, after letting others run.
    Pause,
}

/// Turns one batch into `StoredRecord` messages.
#[derive(Clone, Debug)]
pub struct Transcoder {
    set: Bytes,
    cursor: Cursor,
    field: u32,
    start_offset: Offset,
    next_offset: Offset,
    base_offset: Offset,
    end_offset: Offset,
    timestamps: Timestamps,
    text: bool,
    /// Topic and partition, serialised: the same in every record.
    head: Vec<u8>,
    leader_epoch: i32,
}

impl Transcoder {
    /// Reads the decompressed record set `set`, and writes its records from `start_offset` on as elements of the
    /// repeated field number `field`.
    pub fn new(set: Bytes, source: &Source<'_>, start_offset: Offset, field: u32) -> Self {
        let mut head = Vec::with_capacity(source.topic.len() + 8);
        if !source.topic.is_empty() {
            put_bytes_field(&mut head, 1, source.topic.as_bytes());
        }
        put_varint_field(&mut head, 2, int(source.partition.into()));
        Self {
            set,
            cursor: Cursor::new(source.last_offset_delta),
            field,
            start_offset,
            next_offset: source.base_offset.max(start_offset),
            base_offset: source.base_offset,
            end_offset: source.base_offset.saturating_add(source.last_offset_delta.into()).saturating_add(1),
            timestamps: source.timestamps,
            text: source.text,
            head,
            leader_epoch: source.leader_epoch,
        }
    }

    /// Appends records to `buf` as far as `budget` goes. Nothing is written of a record that does not fit.
    ///
    /// # Errors
    /// [`Error::Malformed`]: what is in `buf` by then is whole, and nothing can be read after it.
    pub fn fill(&mut self, buf: &mut impl BufMut, budget: Budget) -> Result<Filled, Error> {
        let mut filled = Filled {
            records: 0,
            bytes: 0,
            next_offset: self.next_offset,
            last_timestamp_ms: None,
            stop: Stop::End,
        };
        let pause_at = self.cursor.at().saturating_add(READ_BYTES_MAX);
        filled.stop = loop {
            if filled.records >= budget.records {
                break Stop::Records;
            }
            if self.cursor.at() >= pause_at {
                break Stop::Pause;
            }
            let before = self.cursor;
            let Some(record) = self.cursor.next(&self.set) else {
                self.next_offset = self.end_offset.max(self.start_offset);
                break Stop::End;
            };
            let record = record?;
            let offset = self.base_offset.saturating_add(record.offset_delta.into());
            if offset < self.start_offset {
                continue;
            }
            let shown = self.show(offset, &record);
            let body = shown.len(&self.head);
            let needed = varint_len(tag(self.field, BYTES)) + varint_len(body as u64) + body;
            if needed > budget.bytes - filled.bytes {
                self.cursor = before;
                break Stop::Bytes { needed };
            }
            Piece::new().varint(tag(self.field, BYTES)).varint(body as u64).put(buf);
            shown.put(buf, &self.head);
            self.next_offset = offset.saturating_add(1);
            filled.records += 1;
            filled.bytes += needed;
            filled.last_timestamp_ms = Some(shown.timestamp_ms);
        };
        filled.next_offset = self.next_offset;
        Ok(filled)
    }

    /// Where reading goes on: past every record written or passed over. Also after an error, before which records
    /// may have been written.
    pub fn next_offset(&self) -> Offset {
        self.next_offset
    }

    #[inline]
    fn show<'r>(&self, offset: Offset, record: &'r RecordView<'r>) -> Shown<'r> {
        let timestamp_ms = match self.timestamps {
            Timestamps::Create { base_ms } => base_ms.wrapping_add(record.timestamp_delta_ms),
            Timestamps::Append { ms } => ms,
        };
        // Empty text would read as "not used", so what is empty stays bytes.
        let is_text = |bytes: Option<&[u8]>| {
            self.text && bytes.is_some_and(|b| !b.is_empty() && str::from_utf8(b).is_ok())
        };
        Shown {
            record,
            offset,
            timestamp_ms,
            leader_epoch: self.leader_epoch,
            key_is_text: is_text(record.key),
            value_is_text: is_text(record.value),
        }
    }
}

/// One record as it is shown.
struct Shown<'r> {
    record: &'r RecordView<'r>,
    offset: Offset,
    timestamp_ms: i64,
    leader_epoch: i32,
    key_is_text: bool,
    value_is_text: bool,
}

impl Shown<'_> {
    /// The size of the message. Key and value take as much as text as they do as bytes: all tags are of one byte.
    #[inline]
    fn len(&self, head: &[u8]) -> usize {
        head.len()
            + varint_field_len(int(self.offset))
            + varint_field_len(int(self.timestamp_ms))
            + self.record.key.map_or(0, |key| bytes_field_len(key.len()))
            + self.record.value.map_or(2, |value| bytes_field_len(value.len()))
            + self.record.headers_wire_bytes()
            + varint_field_len(int(self.leader_epoch.into()))
    }

    /// Writes the message, in the order of its field numbers.
    #[inline]
    fn put(&self, buf: &mut impl BufMut, head: &[u8]) {
        buf.put_slice(head);
        let mut piece = Piece::new();
        piece.varint_field(3, int(self.offset)).varint_field(4, int(self.timestamp_ms));
        if let Some(key) = self.record.key.filter(|_| !self.key_is_text) {
            piece.put_with_bytes_field(buf, 5, key);
        }
        if let Some(value) = self.record.value.filter(|_| !self.value_is_text) {
            piece.put_with_bytes_field(buf, 6, value);
        }
        if self.record.headers_wire_bytes() > 0 {
            let mut headers = self.record.headers();
            while let Some(body) = headers.next_body() {
                piece.put_with_bytes_field(buf, 7, body);
            }
        }
        if self.record.value.is_none() {
            piece.varint_field(8, 1);
        }
        piece.varint_field(9, int(self.leader_epoch.into()));
        if let Some(key) = self.record.key.filter(|_| self.key_is_text) {
            piece.put_with_bytes_field(buf, 10, key);
        }
        if let Some(value) = self.record.value.filter(|_| self.value_is_text) {
            piece.put_with_bytes_field(buf, 11, value);
        }
        piece.put(buf);
    }
}
