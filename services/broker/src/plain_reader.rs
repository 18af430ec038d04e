//! Stored batches as plain records, for clients that know nothing of batches: opened here, cut to what one message
//! may hold, and resumed in the middle of a batch.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use weir_proto::v1::{BatchDelivery, ErrorReason, PartitionProgress, TopicPartitionOffset};
use weir_record::{Codec, Source, Stop, Timestamps, Transcoder};
use weir_rpc::Problem;
use weir_runtime::{Os, blocking};
use weir_storage::{Frame, FrameError, FrameHeader, ReadError};
use weir_types::{LeaderEpoch, Offset};

use crate::contexts::DECOMPRESSORS;
use crate::damage;
use crate::problems;
use crate::reading::{self, Cursor};
use crate::topic_map::Topic;

/// How much is read from the log at a time.
const READ_BYTES: usize = 256 << 10;
/// What is larger is decompressed off the executors.
const INLINE_BYTES_MAX: usize = 1 << 20;
/// What a record takes more when it is shown than in its batch, beside the topic's name: offset, time, epoch.
const RECORD_FIELDS_BYTES: usize = 20;

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

/// Reads one partition record by record.
pub(crate) struct PlainReader {
    os: Arc<dyn Os>,
    origin: Origin,
    text: bool,
    /// The field of the message whose elements the records are.
    field: u32,
    frames: VecDeque<Frame>,
    open: Option<OpenBatch>,
    /// The offset after the last record given out, past what was filtered.
    next_offset: Offset,
    last_timestamp_ms: i64,
}

/// Where batches come from.
pub(crate) enum Origin {
    /// The log is here.
    Here(Cursor),
    /// Another broker reads, and what it sends is handed in.
    There(Following),
}

/// A partition that is read elsewhere.
pub(crate) struct Following {
    pub(crate) topic: Arc<Topic>,
    pub(crate) partition: i32,
    /// Where it stands, behind what was handed in.
    pub(crate) progress: PartitionProgress,
    /// The epoch of the batch that was opened last.
    epoch: Option<LeaderEpoch>,
}

impl Following {
    /// From a position on.
    pub(crate) fn new(topic: Arc<Topic>, partition: i32, progress: PartitionProgress) -> Self {
        Self { topic, partition, epoch: progress.leader_epoch, progress }
    }

    /// The epoch of what is before an offset that was read up to.
    fn epoch_before(&self, next_offset: Offset) -> Option<LeaderEpoch> {
        if next_offset == self.progress.next_offset { self.progress.leader_epoch } else { self.epoch }
    }
}

struct OpenBatch {
    base_offset: Offset,
    /// What is left of it, about, as it is written out.
    shown_bytes: usize,
    transcoder: Transcoder,
}

/// How far an open batch was written out.
enum Drained {
    Through,
    /// The message is full.
    Full,
    /// Others must have their turn before it goes on.
    Paused,
}

impl PlainReader {
    pub(crate) fn new(os: Arc<dyn Os>, origin: Origin, text: bool, field: u32) -> Self {
        let next_offset = match &origin {
            Origin::Here(cursor) => cursor.offset,
            Origin::There(following) => following.progress.next_offset,
        };
        Self {
            os,
            origin,
            text,
            field,
            frames: VecDeque::new(),
            open: None,
            next_offset,
            last_timestamp_ms: 0,
        }
    }

    /// The place in the log, if that is here.
    pub(crate) fn cursor(&self) -> Option<&Cursor> {
        match &self.origin {
            Origin::Here(cursor) => Some(cursor),
            Origin::There(_) => None,
        }
    }

    /// What is read.
    pub(crate) fn place(&self) -> (&Arc<Topic>, i32) {
        match &self.origin {
            Origin::Here(cursor) => (&cursor.topic, cursor.partition),
            Origin::There(following) => (&following.topic, following.partition),
        }
    }

    /// Goes on from somewhere else, where it is. What was not given out is read again.
    pub(crate) fn goes_on(&mut self, origin: Origin) {
        self.forget();
        self.next_offset = match &origin {
            Origin::Here(cursor) => cursor.offset,
            Origin::There(following) => following.progress.next_offset,
        };
        self.origin = origin;
    }

    /// Forgets what was read and not given out.
    pub(crate) fn forget(&mut self) {
        self.frames.clear();
        self.open = None;
    }

    /// Takes a batch that another broker has read.
    pub(crate) fn hand_in(&mut self, delivery: BatchDelivery) {
        let Origin::There(following) = &mut self.origin else { return };
        following.progress.next_offset = delivery.next_offset;
        following.progress.high_watermark = delivery.high_watermark;
        following.progress.last_stable_offset = delivery.last_stable_offset;
        following.progress.log_start_offset = delivery.log_start_offset;
        following.progress.leader_epoch = delivery.next_leader_epoch;
        self.frames.extend(delivery.batch.map(reading::frame));
    }

    /// Takes what another broker says of where the partition stands, behind what was handed in.
    pub(crate) fn hear(&mut self, progress: PartitionProgress) {
        let Origin::There(following) = &mut self.origin else { return };
        following.progress = progress;
    }

    /// Past what was filtered out elsewhere, behind what was given out.
    fn pass_by(&mut self) {
        if let (Origin::There(following), false) = (&self.origin, self.holds_some()) {
            self.next_offset = self.next_offset.max(following.progress.next_offset);
        }
    }

    /// The offset that this reader goes on at.
    pub(crate) fn next_offset(&self) -> Offset {
        self.next_offset
    }

    /// Whether something was read from the log that is not given out yet.
    pub(crate) fn holds_some(&self) -> bool {
        self.open.is_some() || !self.frames.is_empty()
    }

    pub(crate) fn progress(&self) -> PartitionProgress {
        match &self.origin {
            Origin::Here(cursor) => cursor.progress(self.next_offset, self.last_timestamp_ms),
            Origin::There(following) => PartitionProgress {
                topic: following.topic.name.to_string(),
                partition: following.partition,
                next_offset: self.next_offset,
                last_timestamp_ms: self.last_timestamp_ms,
                leader_epoch: following.epoch_before(self.next_offset),
                ..following.progress.clone()
            },
        }
    }

    /// The epoch of what is before the next offset.
    pub(crate) fn epoch(&self) -> Option<LeaderEpoch> {
        match &self.origin {
            Origin::Here(cursor) => cursor.epoch_before(self.next_offset),
            Origin::There(following) => following.epoch_before(self.next_offset),
        }
    }

    pub(crate) fn position(&self) -> TopicPartitionOffset {
        let (topic, partition) = self.place();
        TopicPartitionOffset {
            topic: topic.name.to_string(),
            partition,
            offset: self.next_offset,
            leader_epoch: self.epoch(),
            metadata: String::new(),
        }
    }

    /// Appends records below `end`, which is where a batch begins, to `out` until the budget is used up or there is
    /// nothing now. Also of what fails, what was appended before is whole.
    pub(crate) async fn fill(
        &mut self,
        out: &mut BytesMut,
        budget: &mut Budget,
        end: Offset,
    ) -> Result<(), Problem> {
        self.reserve(out, budget);
        while budget.records > 0 && (budget.bytes > 0 || budget.empty) && self.next_offset < end {
            if let Some(mut open) = self.open.take() {
                match self.drain(&mut open, out, budget)? {
                    Drained::Through => {}
                    Drained::Full => {
                        self.open = Some(open);
                        return Ok(());
                    }
                    Drained::Paused => {
                        self.open = Some(open);
                        // Cancelled here, it goes on from what it keeps.
                        tokio::task::yield_now().await;
                    }
                }
                continue;
            }
            if let Some(frame) = self.frames.front() {
                if frame.header.base_offset >= end {
                    self.next_offset = end;
                    return Ok(());
                }
                let frame = frame.clone();
                self.open(&frame).await?;
                // Only now: cancelled before, it is opened again.
                self.frames.pop_front();
                continue;
            }
            let Origin::Here(cursor) = &mut self.origin else {
                self.pass_by();
                return Ok(());
            };
            if !cursor.has_more() {
                return Ok(());
            }
            let chunk = cursor.read(READ_BYTES).await?;
            self.frames.extend(chunk.frames());
            if self.frames.is_empty() {
                // Nothing but what is filtered out was there.
                self.next_offset = self.next_offset.max(chunk.next_offset);
                return Ok(());
            }
            self.reserve(out, budget);
        }
        Ok(())
    }

    /// Makes room for what is at hand, about, instead of growing towards it step by step.
    fn reserve(&self, out: &mut BytesMut, budget: &Budget) {
        let head = self.place().0.name.len() + RECORD_FIELDS_BYTES;
        let shown = |frame: &Frame| {
            let records = usize::try_from(frame.header.record_count).unwrap_or(0);
            (frame.header.uncompressed_bytes as usize).saturating_add(records.saturating_mul(head))
        };
        let open = self.open.as_ref().map_or(0, |open| open.shown_bytes);
        let at_hand = self.frames.iter().map(shown).fold(open, usize::saturating_add);
        out.reserve(at_hand.min(budget.bytes));
    }

    async fn open(&mut self, frame: &Frame) -> Result<(), Problem> {
        let header = &frame.header;
        if let Origin::There(following) = &mut self.origin {
            following.epoch = Some(header.leader_epoch);
        }
        if header.control || header.record_count == 0 {
            self.next_offset = self.next_offset.max(header.next_offset());
            return Ok(());
        }
        let set = self.decompress(frame).await?;
        let timestamps = if header.append_time {
            Timestamps::Append { ms: header.append_time_ms }
        } else {
            Timestamps::Create { base_ms: header.base_timestamp_ms }
        };
        let (topic, partition) = self.place();
        let source = Source {
            topic: &topic.name,
            partition,
            base_offset: header.base_offset,
            last_offset_delta: header.last_offset_delta,
            leader_epoch: header.leader_epoch,
            timestamps,
            text: self.text,
        };
        let records = usize::try_from(header.record_count).unwrap_or(0);
        let shown_bytes = set.len() + records * (source.topic.len() + RECORD_FIELDS_BYTES);
        let transcoder = Transcoder::new(set, &source, self.next_offset, self.field);
        self.open = Some(OpenBatch { base_offset: header.base_offset, shown_bytes, transcoder });
        Ok(())
    }

    async fn decompress(&self, frame: &Frame) -> Result<Bytes, Problem> {
        let base_offset = frame.header.base_offset;
        frame.header.verify_payload(&frame.payload).map_err(|error| self.damaged(&frame.header, &error))?;
        let declared = frame.header.uncompressed_bytes as usize;
        let set = match Codec::from_number(frame.header.codec) {
            Ok(Codec::None) => Ok(frame.payload.clone()),
            Ok(codec) => {
                let payload = frame.payload.clone();
                let job = move || {
                    DECOMPRESSORS.with(declared, |decompressor| {
                        decompressor.decompress(codec, &payload, declared, weir_record::BATCH_BYTES_MAX)
                    })
                };
                if declared <= INLINE_BYTES_MAX { job() } else { blocking(&self.os, job).await }
            }
            Err(error) => Err(error),
        };
        set.map_err(|error| self.unreadable(base_offset, &error))
    }

    /// The bytes are not those that were stored. Whoever opens a batch looks; for plain readers that is here.
    fn damaged(&self, batch: &FrameHeader, error: &FrameError) -> Problem {
        let base_offset = batch.base_offset;
        let cursor = match &self.origin {
            Origin::Here(cursor) => cursor,
            Origin::There(Following { topic, partition, .. }) => {
                let what = format!("{} came from its leader as other bytes: {error}", damage::offsets(batch));
                return problems::read(&topic.name, *partition, base_offset, &ReadError::Damaged(what));
            }
        };
        let Cursor { topic, partition, log, damage, .. } = cursor;
        if cursor.is_over() {
            // What was read of it is of a log that has made room for another one.
            return problems::moving(&topic.name, *partition);
        }
        damage.refused(topic, *partition, base_offset, &damage::bad_payload(log, batch, error))
    }

    /// A batch that its producer packed wrongly: brokers do not open batches when they are written.
    fn unreadable(&self, base_offset: Offset, error: &weir_record::Error) -> Problem {
        let (topic, partition) = self.place();
        Problem::new(
            ErrorReason::BatchInvalid,
            format!(
                "{}/{partition}@{base_offset}: the stored batch cannot be opened: {error}; its producer packed it \
                 wrongly. Read on behind it, or take it as it is with FetchStream",
                topic.name
            ),
        )
        .fact("offset", base_offset)
        .at(&topic.name, partition)
    }

    /// Gives out records of the open batch.
    fn drain(
        &mut self,
        open: &mut OpenBatch,
        out: &mut BytesMut,
        budget: &mut Budget,
    ) -> Result<Drained, Problem> {
        loop {
            let before = out.len();
            let room = weir_record::Budget { records: budget.records, bytes: budget.bytes };
            let filled = open.transcoder.fill(out, room);
            let bytes = out.len() - before;
            self.next_offset = self.next_offset.max(open.transcoder.next_offset());
            budget.empty &= bytes == 0;
            let filled = filled.map_err(|error| self.unreadable(open.base_offset, &error))?;
            budget.records -= filled.records;
            budget.bytes -= bytes;
            open.shown_bytes = open.shown_bytes.saturating_sub(bytes);
            self.last_timestamp_ms = filled.last_timestamp_ms.unwrap_or(self.last_timestamp_ms);
            match filled.stop {
                Stop::End => return Ok(Drained::Through),
                Stop::Records => return Ok(Drained::Full),
                Stop::Pause => return Ok(Drained::Paused),
                Stop::Bytes { needed } if needed > budget.message_bytes_max => {
                    return Err(self.larger_than_message(needed, budget.message_bytes_max));
                }
                // The first of a message may be as large as the message, or it would never come.
                Stop::Bytes { needed } if budget.empty => budget.bytes = needed,
                Stop::Bytes { .. } => {
                    budget.bytes = 0;
                    return Ok(Drained::Full);
                }
            }
        }
    }

    /// The next record does not fit any message that the client takes.
    fn larger_than_message(&self, size: usize, limit: usize) -> Problem {
        let (topic, partition) = self.place();
        let offset = self.next_offset;
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
        .at(&topic.name, partition)
    }
}
