//! Stored batches as plain records, for clients that know nothing of batches: opened here, cut to what one message
//! may hold, and resumed in the middle of a batch.

use std::collections::VecDeque;

use bytes::Bytes;
use weir_proto::v1::{ErrorReason, Header, PartitionProgress, StoredRecord, TopicPartitionOffset};
use weir_record::{Codec, Decompressor, SharedRecord, SharedRecords};
use weir_rpc::Problem;
use weir_storage::{Frame, FrameHeader};
use weir_types::Offset;

use crate::reading::Cursor;

/// How much is read from the log at a time.
const READ_BYTES: usize = 256 << 10;

/// What one message may still take.
#[derive(Debug)]
pub(crate) struct Budget {
    /// Bytes of encoded records.
    pub(crate) bytes: usize,
    /// Records.
    pub(crate) records: usize,
    /// The whole message's limit: its first record may pass `bytes` up to here, or nothing would ever come.
    pub(crate) message_bytes_max: usize,
    /// Whether the message holds no record yet.
    pub(crate) empty: bool,
}

impl Budget {
    /// Takes room for a record of that size, if there is.
    fn take(&mut self, size: usize) -> bool {
        let fits = size <= self.bytes || (self.empty && size <= self.message_bytes_max);
        if !fits || self.records == 0 {
            return false;
        }
        self.bytes = self.bytes.saturating_sub(size);
        self.records -= 1;
        self.empty = false;
        true
    }
}

/// Reads one partition record by record.
pub(crate) struct PlainReader {
    cursor: Cursor,
    text: bool,
    decompressor: Decompressor,
    frames: VecDeque<Frame>,
    open: Option<OpenBatch>,
    /// The offset after the last record given out, past what was filtered.
    next_offset: Offset,
    last_timestamp_ms: i64,
}

struct OpenBatch {
    header: FrameHeader,
    records: SharedRecords,
    /// Read, and not fitting the last message.
    held: Option<SharedRecord>,
}

impl PlainReader {
    pub(crate) fn new(cursor: Cursor, text: bool) -> Self {
        let next_offset = cursor.offset;
        Self {
            cursor,
            text,
            decompressor: Decompressor::new(),
            frames: VecDeque::new(),
            open: None,
            next_offset,
            last_timestamp_ms: 0,
        }
    }

    pub(crate) fn cursor(&self) -> &Cursor {
        &self.cursor
    }

    /// The offset that this reader goes on at.
    pub(crate) fn next_offset(&self) -> Offset {
        self.next_offset
    }

    /// Whether there is something to be given out now.
    pub(crate) fn has_more(&self) -> bool {
        self.open.is_some() || !self.frames.is_empty() || self.cursor.has_more()
    }

    pub(crate) fn progress(&self) -> PartitionProgress {
        self.cursor.progress(self.next_offset, self.last_timestamp_ms)
    }

    pub(crate) fn position(&self) -> TopicPartitionOffset {
        TopicPartitionOffset {
            topic: self.cursor.topic.name.to_string(),
            partition: self.cursor.partition,
            offset: self.next_offset,
            leader_epoch: None,
            metadata: String::new(),
        }
    }

    /// Appends records below `end` to `out` until the budget is used up or there is nothing now.
    pub(crate) async fn fill(
        &mut self,
        out: &mut Vec<StoredRecord>,
        budget: &mut Budget,
        end: Offset,
    ) -> Result<(), Problem> {
        while budget.records > 0 && (budget.bytes > 0 || budget.empty) && self.next_offset < end {
            if self.open.is_some() {
                if !self.drain(out, budget, end)? {
                    return Ok(());
                }
                continue;
            }
            if let Some(frame) = self.frames.pop_front() {
                self.open(frame)?;
                continue;
            }
            if !self.cursor.has_more() {
                return Ok(());
            }
            let chunk = self.cursor.read(READ_BYTES).await?;
            self.frames.extend(chunk.frames());
            if self.frames.is_empty() {
                // Nothing but what is filtered out was there.
                self.next_offset = self.next_offset.max(chunk.next_offset);
                return Ok(());
            }
        }
        Ok(())
    }

    fn open(&mut self, frame: Frame) -> Result<(), Problem> {
        let header = frame.header;
        if header.control || header.record_count == 0 {
            self.next_offset = self.next_offset.max(header.next_offset());
            return Ok(());
        }
        let set = self.decompress(&frame)?;
        let records = SharedRecords::new(set, header.last_offset_delta);
        self.open = Some(OpenBatch { header, records, held: None });
        Ok(())
    }

    fn decompress(&mut self, frame: &Frame) -> Result<Bytes, Problem> {
        let header = &frame.header;
        Codec::from_number(header.codec)
            .and_then(|codec| {
                let declared = header.uncompressed_bytes as usize;
                self.decompressor.decompress(codec, &frame.payload, declared, weir_record::BATCH_BYTES_MAX)
            })
            .map_err(|error| self.unreadable(header.base_offset, &error))
    }

    /// A batch that its producer packed wrongly: brokers do not open batches when they are written.
    fn unreadable(&self, base_offset: Offset, error: &weir_record::Error) -> Problem {
        let Cursor { topic, partition, .. } = &self.cursor;
        Problem::new(
            ErrorReason::BatchInvalid,
            format!(
                "{}/{partition}@{base_offset}: the stored batch cannot be opened: {error}; its producer packed it \
                 wrongly. Read on behind it, or take it as it is with FetchStream",
                topic.name
            ),
        )
        .fact("offset", base_offset)
        .at(&topic.name, *partition)
    }

    /// Gives out records of the open batch. `false`: the message is full.
    fn drain(
        &mut self,
        out: &mut Vec<StoredRecord>,
        budget: &mut Budget,
        end: Offset,
    ) -> Result<bool, Problem> {
        let Some(mut open) = self.open.take() else { return Ok(true) };
        let base_offset = open.header.base_offset;
        loop {
            let record = match open.held.take() {
                Some(record) => record,
                None => match open.records.next() {
                    Some(record) => record.map_err(|error| self.unreadable(base_offset, &error))?,
                    None => {
                        self.next_offset = self.next_offset.max(open.header.next_offset());
                        return Ok(true);
                    }
                },
            };
            let offset = base_offset + i64::from(record.offset_delta);
            if offset < self.next_offset {
                continue;
            }
            if offset >= end {
                self.next_offset = end;
                return Ok(true);
            }
            let size = encoded_bound(&self.cursor.topic.name, &record);
            if size > budget.message_bytes_max {
                return Err(self.larger_than_message(offset, size, budget.message_bytes_max));
            }
            if !budget.take(size) {
                open.held = Some(record);
                self.open = Some(open);
                budget.bytes = 0;
                return Ok(false);
            }
            let stored = self.stored(&open.header, offset, record);
            self.next_offset = offset + 1;
            self.last_timestamp_ms = stored.timestamp_ms;
            out.push(stored);
        }
    }

    fn larger_than_message(&self, offset: Offset, size: usize, limit: usize) -> Problem {
        let Cursor { topic, partition, .. } = &self.cursor;
        Problem::new(
            ErrorReason::MessageLargerThanClientLimit,
            format!(
                "{}/{partition}@{offset} takes a message of {size} bytes, the client takes {limit}: raise the \
                 client's limit (Python and C: grpc.max_receive_message_length, Go: grpc.MaxCallRecvMsgSize, \
                 Java: maxInboundMessageSize, Node: readMaxBytes, grpcurl: -max-msg-sz) and message_bytes_max",
                topic.name
            ),
        )
        .fact("offset", offset)
        .fact("bytes", size)
        .fact("limit", limit)
        .at(&topic.name, *partition)
    }

    fn stored(&self, header: &FrameHeader, offset: Offset, record: SharedRecord) -> StoredRecord {
        let timestamp_ms = if header.append_time {
            header.append_time_ms
        } else {
            header.base_timestamp_ms.saturating_add(record.timestamp_delta_ms)
        };
        let tombstone = record.value.is_none();
        let (key, key_text) = self.as_text(record.key);
        let (value, value_text) = self.as_text(record.value);
        StoredRecord {
            topic: self.cursor.topic.name.to_string(),
            partition: self.cursor.partition,
            offset,
            timestamp_ms,
            key,
            value,
            headers: record.headers.into_iter().map(|(key, value)| Header { key, value }).collect(),
            tombstone,
            leader_epoch: header.leader_epoch,
            key_text,
            value_text,
        }
    }

    fn as_text(&self, bytes: Option<Bytes>) -> (Option<Bytes>, String) {
        match bytes {
            Some(bytes) if self.text => match std::str::from_utf8(&bytes) {
                Ok(text) if !text.is_empty() => (None, text.to_owned()),
                _ => (Some(bytes), String::new()),
            },
            bytes => (bytes, String::new()),
        }
    }
}

/// No less than what the record takes in a message.
fn encoded_bound(topic: &str, record: &SharedRecord) -> usize {
    /// Tags, numbers and lengths of one record, all at their longest.
    const FIXED: usize = 96;
    /// Tags and lengths of one header.
    const PER_HEADER: usize = 24;
    let headers: usize = record.headers.iter().map(|(key, value)| key.len() + value.len() + PER_HEADER).sum();
    let body = record.key.as_ref().map_or(0, Bytes::len) + record.value.as_ref().map_or(0, Bytes::len);
    FIXED + topic.len() + headers + body
}
